"""Operators over HTTP: setting up, logging in, sessions, and everything that tries to get around them."""

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pyotp
import pytest

from api.auth import links
from api.settings import Settings
from api.v1.session import SetUpIn
from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from tests.conftest import Databases
from tests.http.persons import PASSWORD, Person, audit, founded, founder, person
from tests.http.served import Served, served
from tests.racing import at_once

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def api(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """A running API behind a proxy of ours, so that tests come from where they say."""
    with served(settings, databases.worker, clock, trusted_proxies="127.0.0.1") as running:
        yield running


def approved(api: Served, approver: Person, requested: httpx.Response) -> dict[str, Any]:
    assert requested.status_code == 202, requested.text
    approver.confirm()
    answer = decide(approver, requested)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


def decide(approver: Person, requested: httpx.Response) -> httpx.Response:
    path = f"/v1/approvals/{requested.json()['approval']}/approval"
    return approver.call("POST", path, {"remark": "seen"}, headers={"Idempotency-Key": new_id().hex})


def test_two_administrators_are_founded_and_never_three(api: Served) -> None:
    made: list[UUID] = []
    refused: list[str] = []

    def found(number: int) -> Callable[[], None]:
        def work() -> None:
            try:
                made.append(founded(api, f"Founder{number}@fund.example").operator_id)
            except links.Founded as error:
                refused.append(error.code)

        return work

    at_once(*(found(number) for number in range(6)))
    assert (len(made), refused) == (2, ["approval_required"] * 4)
    assert api.rows("SELECT founder, email <> lower(email) FROM api.operator ORDER BY 1") == [
        (1, False),
        (2, False),
    ]


def test_a_link_sets_a_person_up_once_and_a_new_one_ends_it(api: Served) -> None:
    first, second = founded(api, "A@fund.example", "Amina").token, founded(api, "a@fund.example").token
    assert api.http.post("/v1/set-up", json={"token": first}).status_code == 404
    begun = api.http.post("/v1/set-up", json={"token": second})
    assert begun.headers["Cache-Control"] == "no-store"
    again = api.http.post("/v1/set-up", json={"token": second})
    assert begun.json() == again.json()
    assert begun.json()["uri"].startswith("otpauth://totp/Mizan:a%40fund.example?secret=")
    amina = Person(api, "", new_id(), "a@fund.example", secret=begun.json()["secret"])

    def completed(**changes: Any) -> httpx.Response:
        given = {"token": second, "password": PASSWORD, "totp": amina.code()} | changes
        return api.http.post("/v1/set-up/completion", json=given)

    for changes, pointer in [
        ({"password": "short"}, "/password"),
        ({"password": "password1234"}, "/password"),
        ({"password": "aaaaaaaaaaaaaaaa"}, "/password"),
        ({"password": "amina@fund.example"}, "/password"),
        ({"password": "qwertyuiop123456"}, "/password"),
        ({"password": "x" * 129}, "/password"),
        ({"totp": "000000"}, "/totp"),
    ]:
        refused = completed(**changes)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer), changes
    done = completed()
    assert done.status_code == 200
    assert len(set(done.json()["recovery_codes"])) == 10
    assert completed().status_code == 404
    stored = str(api.rows("SELECT * FROM api.operator_credential")) + str(
        api.rows("SELECT * FROM api.operator_link")
    )
    for secret in (PASSWORD, amina.secret, second, *done.json()["recovery_codes"]):
        assert secret not in stored
    assert "$argon2id$v=19$m=47104,t=1,p=1$" in stored

    late = founded(api, "b@fund.example").token
    api.clock.advance(timedelta(hours=24))
    assert api.http.post("/v1/set-up", json={"token": late}).status_code == 404


def test_a_link_completed_by_several_at_once_counts_once(api: Served) -> None:
    token = founded(api, "b@fund.example").token
    secret = api.http.post("/v1/set-up", json={"token": token}).json()["secret"]
    code = pyotp.TOTP(secret).at(int(api.clock.now().timestamp()))
    answers: list[int] = []

    def complete() -> None:
        given = {"token": token, "password": PASSWORD, "totp": code}
        answers.append(httpx.post(f"{api.url}/v1/set-up/completion", json=given, timeout=30).status_code)

    at_once(*[complete] * 4)
    assert sorted(answers) == [200, 404, 404, 404]


def test_further_operators_take_two_administrators_and_the_two_halves_of_a_link(api: Served) -> None:
    amina, bosco = founder(api, "amina@fund.example"), founder(api, "bosco@fund.example")
    asked = {
        "email": "Keza@Fund.example",
        "name": "Keza",
        "roles": [{"role": "manager", "programme": "ejoheza"}],
        "remark": "joins in May",
    }
    requested = amina.post("/v1/operators", asked)
    assert requested.headers["Cache-Control"] == "no-store"
    code = requested.json()["code"]
    amina.confirm()
    own = decide(amina, requested)
    assert (own.status_code, own.json()["code"]) == (409, "second_person_required")
    keza_id = approved(api, bosco, requested)["operator"]
    # the link goes to another one than the code: alone, neither of the two can be Keza
    amina.confirm()
    assert amina.post(f"/v1/operators/{keza_id}/link").status_code == 409
    bosco.confirm()
    link = bosco.post(f"/v1/operators/{keza_id}/link").json()["link"]
    assert link.startswith(f"{api.services.settings.public_url}/set-up#mzn_link_")
    keza = Person(api, keza_id, new_id(), "keza@fund.example")
    token = link.partition("#")[2]
    for wrong in (None, "00000-00000-00000-00000"):
        refused = keza.set_up(token, wrong)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/code")
    assert keza.set_up(token, code).status_code == 200
    assert keza.log_in().status_code == 201
    me = keza.get("/v1/session").json()
    assert (me["operator"], me["roles"]) == (keza_id, [{"role": "manager", "programme": "ejoheza"}])
    assert "ledger:read" in me["scopes"]
    assert keza.get("/v1/operators").status_code == 403
    shown = bosco.get(f"/v1/operators/{keza_id}").json()
    assert (shown["email"], shown["set_up"], shown["state"]) == ("keza@fund.example", True, "active")

    # the same address again, unknown roles, and roles that don't go together
    assert amina.post("/v1/operators", asked).status_code == 409
    for roles, organisation in [
        ([], None),
        ([{"role": "owner"}], None),
        ([{"role": "caseworker"}], None),
        ([{"role": "caseworker"}, {"role": "manager"}], f"ptn_{'0' * 26}"),
        ([{"role": "manager"}], f"ptn_{'0' * 26}"),
        ([{"role": "caseworker"}], f"ptn_{'0' * 26}"),
        ([{"role": "manager", "programme": "nowhere"}], None),
    ]:
        bad = asked | {"email": "z@fund.example", "roles": roles, "organisation": organisation}
        assert amina.post("/v1/operators", bad).status_code == 422, roles

    # other roles, likewise
    change = amina.post(
        f"/v1/operators/{keza_id}/roles", {"roles": [{"role": "auditor"}], "remark": "moves on"}
    )
    approved(api, bosco, change)
    assert keza.get("/v1/session").json()["roles"] == [{"role": "auditor", "programme": None}]


def test_a_caseworker_works_for_an_organisation(api: Served) -> None:
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE products.partner SET kind = 'organisation' WHERE slug = 'bolt'")
    assert api.bolt.partner is not None
    caseworker = person(api, "caseworker", organisation=api.bolt.partner)
    me = caseworker.get("/v1/session").json()
    assert me["organisation"] == public_id("ptn", api.bolt.partner)
    assert caseworker.get("/v1/operators").status_code == 403


def test_sessions_end_at_once_with_the_operator_the_password_and_the_authenticator(api: Served) -> None:
    amina = founder(api, "amina@fund.example")
    keza = person(api, "manager")
    first = keza.token
    keza.log_in()

    def opens(token: str) -> bool:
        answer = api.http.get("/v1/session", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code == 200

    # the password: the session that changes it stays, the others end; the old one opens nothing
    new = "Rubavu-lighthouse-9-pencils"
    wrong = keza.post(
        "/v1/session/password", {"password": "Wrong-one-7-lanterns", "totp": keza.code(), "new_password": new}
    )
    assert wrong.json()["code"] == "log_in_refused"
    no_code = keza.post("/v1/session/password", {"password": PASSWORD, "new_password": new})
    assert no_code.json()["code"] == "log_in_refused"
    weak = keza.post(
        "/v1/session/password", {"password": PASSWORD, "totp": keza.code(), "new_password": "password1234"}
    )
    assert weak.json()["code"] == "weak_password"
    changed = keza.post(
        "/v1/session/password", {"password": PASSWORD, "totp": keza.code(), "new_password": new}
    )
    assert changed.status_code == 204
    assert (opens(first), opens(keza.token)) == (False, True)
    assert keza.log_in().status_code == 401
    keza.password = new
    assert keza.log_in().status_code == 201

    # the authenticator: takes both proofs, and a code of the new one
    before = keza.token
    keza.log_in()
    old_code = keza.recovery_codes[0]
    begun = keza.post("/v1/session/totp", {"password": new, "recovery_code": keza.recovery_codes[1]})
    wrong_code = keza.post("/v1/session/totp/completion", {"totp": keza.code()})
    assert (wrong_code.status_code, wrong_code.json()["errors"][0]["pointer"]) == (422, "/totp")
    keza.secret = begun.json()["secret"]
    finished = keza.post("/v1/session/totp/completion", {"totp": keza.code()})
    assert len(finished.json()["recovery_codes"]) == 10
    assert (opens(before), opens(keza.token)) == (False, True)
    assert keza.log_in(recovery_code=old_code).status_code == 401
    assert keza.log_in().status_code == 201

    # one's own sessions, and by an administrator anyone's
    mine = keza.get("/v1/sessions").json()["data"]
    assert len(mine) == 2
    assert amina.get("/v1/session").status_code == 200
    theirs = amina.get("/v1/sessions").json()["data"][0]["id"]
    assert keza.delete(f"/v1/sessions/{theirs}").status_code == 404
    seen = amina.get(f"/v1/operators/{keza.id}/sessions").json()["data"]
    assert [one["id"] for one in seen] == [one["id"] for one in mine]
    assert amina.delete(f"/v1/sessions/{mine[-1]['id']}").status_code == 204
    assert not opens(keza.token)

    # disabled: at once, without approval; let in again only by two
    keza.log_in()
    assert amina.post(f"/v1/operators/{keza.id}/deactivation").json()["state"] == "disabled"
    assert not opens(keza.token)
    assert keza.log_in().status_code == 401
    bosco = founder(api, "bosco@fund.example")
    asked = amina.post(f"/v1/operators/{keza.id}/activation", {"remark": "a mistake"})
    approved(api, bosco, asked)
    assert not opens(keza.token)
    api.clock.advance(timedelta(minutes=5))
    assert keza.log_in().status_code == 201
    for action in ("operator.password_changed", "operator.totp_changed", "operator.disabled"):
        assert audit(api, action)[-1][1] == "done"


def test_the_last_administrator_stays_also_when_two_disable_each_other(api: Served) -> None:
    amina, bosco = founder(api, "amina@fund.example"), founder(api, "bosco@fund.example")
    answers: list[int] = []

    def disable(who: Person, whom: Person) -> None:
        headers = {"Authorization": f"Bearer {who.token}"}
        path = f"{api.url}/v1/operators/{whom.id}/deactivation"
        answers.append(httpx.post(path, headers=headers, timeout=30).status_code)

    at_once(lambda: disable(amina, bosco), lambda: disable(bosco, amina))
    assert sorted(answers)[0] == 200
    assert sorted(answers)[1] in (401, 409)  # disabled already, or the last one
    assert api.rows("SELECT count(*) FROM api.operator WHERE state = 'active'") == [(1,)]


def test_a_way_back_in_takes_two_administrators_and_leaves_the_old_proofs_until_it_is_used(
    api: Served,
) -> None:
    amina, bosco = founder(api, "amina@fund.example"), founder(api, "bosco@fund.example")
    keza = person(api, "manager")
    bosco.confirm()
    assert bosco.post(f"/v1/operators/{keza.id}/link").status_code == 404
    asked = amina.post(f"/v1/operators/{keza.id}/recovery", {"remark": "telephone lost"})
    approved(api, bosco, asked)
    assert keza.log_in().status_code == 201
    # a link takes a fresh code
    api.clock.advance(timedelta(minutes=6))
    stale = bosco.post(f"/v1/operators/{keza.id}/link")
    assert (stale.status_code, stale.json()["code"]) == (409, "confirmation_required")
    bosco.confirm()
    token = bosco.post(f"/v1/operators/{keza.id}/link").json()["link"].partition("#")[2]
    old, keza.password = keza.token, "Musanze-volcano-4-kettles"
    assert keza.set_up(token, asked.json()["code"]).status_code == 200
    refused = api.http.get("/v1/session", headers={"Authorization": f"Bearer {old}"})
    assert refused.status_code == 401
    assert keza.log_in().status_code == 201
    # an administrator of one programme alone brings nobody in
    [(programme,)] = api.rows("SELECT id FROM products.programme")
    of_one = person(api, "administrator", programme=programme)
    asked = of_one.post(f"/v1/operators/{keza.id}/recovery", {"remark": "mine"})
    assert asked.status_code == 404
    assert of_one.post(f"/v1/operators/{keza.id}/deactivation").status_code == 404


def test_the_page_of_a_link_sends_what_the_api_takes(api: Served) -> None:
    page = api.http.get("/set-up")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    script = api.http.get("/set-up.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    # what it calls, and the fields that it sends, are those of the API
    for path in ("/v1/set-up", "/v1/set-up/completion"):
        assert f'"{path}"' in script.text
    fields = set(re.findall(r'name="(\w+)"', page.text)) - {"viewport"}
    assert fields == set(SetUpIn.model_fields) - {"token"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_person_sets_up_and_logs_in_with_a_cookie_in_a_real_browser(api: Served) -> None:
    from playwright.sync_api import sync_playwright

    token = founded(api, "bosco@fund.example", "Bosco").token
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{api.url}/set-up#{token}")
        page.wait_for_selector("#form:not([hidden])")
        assert page.url == f"{api.url}/set-up"
        assert page.inner_text("#who") == "Bosco (bosco@fund.example)"
        bosco = Person(api, "", new_id(), "bosco@fund.example", secret=page.inner_text("#secret"))
        for password in ("password1234", PASSWORD):
            page.fill("[name=password]", password)
            page.fill("[name=totp]", bosco.code())
            page.click("button")
            if password != PASSWORD:
                page.get_by_text("easy to guess").wait_for()
        page.wait_for_selector("#done:not([hidden])")
        assert page.locator("#codes li").count() == 10

        def fetched(method: str, body: dict[str, Any] | None = None) -> int:
            status: int = page.evaluate(
                "async ([method, body]) => (await fetch('/v1/session', {method, body: body && JSON.stringify(body),"
                " headers: body ? {'Content-Type': 'application/json'} : {}})).status",
                [method, body],
            )
            return status

        proofs = {"email": bosco.email, "password": PASSWORD, "totp": bosco.code(), "cookie": True}
        assert [fetched("POST", proofs), fetched("GET"), fetched("DELETE"), fetched("GET")] == [
            201,
            200,
            204,
            401,
        ]
        browser.close()
