"""Operators over HTTP: setting up, logging in, sessions, and everything that tries to get around them."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pyotp
import pytest

from api.auth import links, operators, passwords, tries
from api.settings import Settings
from api.v1.session import SetUpIn
from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from tests.conftest import Databases
from tests.http.persons import PASSWORD, Person, founder, person
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


def founded(api: Served, email: str, name: str = "Someone") -> links.Link:
    now = api.clock.now()
    return api.services.worker.run(
        lambda tx: links.found(tx, email=email, name=name, log_in="password", by="test", at=now)
    )


def decide(approver: Person, requested: httpx.Response) -> httpx.Response:
    path = f"/v1/approvals/{requested.json()['approval']}/approval"
    return approver.call("POST", path, {"remark": "seen"}, headers={"Idempotency-Key": new_id().hex})


def audit(api: Served, action: str) -> list[tuple[Any, ...]]:
    return api.rows(
        f"SELECT actor, outcome, detail FROM ledger.audit_entry WHERE action = '{action}' ORDER BY recorded_at, id"
    )


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


def test_a_session_opens_what_its_roles_open_until_it_is_idle_or_old(api: Served) -> None:
    auditor = person(api, "auditor")
    assert auditor.token.startswith("mzn_ops_")
    assert auditor.get("/v1/ledger/trial-balance").status_code == 200
    assert auditor.token not in str(api.rows("SELECT * FROM api.operator_session"))
    for _ in range(3):
        api.clock.advance(timedelta(minutes=29))
        assert auditor.get("/v1/session").status_code == 200
    api.clock.advance(timedelta(minutes=30))
    assert auditor.get("/v1/session").status_code == 401
    auditor.log_in()
    for _ in range(24):
        api.clock.advance(timedelta(minutes=29))
        assert auditor.get("/v1/session").status_code == 200
    api.clock.advance(timedelta(minutes=29))
    assert auditor.get("/v1/session").status_code == 401
    # a partner's token opens no person's pages
    assert api.acme.get("/v1/session").status_code == 401


def test_whatever_is_wrong_with_a_log_in_the_answer_and_its_time_are_the_same(api: Served) -> None:
    keza, gone = person(api, "manager"), person(api, "auditor", email="gone@fund.example")
    with api.services.worker.begin() as tx:
        operators.create(
            tx,
            email="other@fund.example",
            name="Other",
            grants=[operators.Grant("administrator", None)],
            organisation_id=None,
            log_in="password",
            at=api.clock.now(),
        )
        tx.exec_driver_sql("UPDATE api.operator SET state = 'disabled' WHERE email = 'gone@fund.example'")
    tries: dict[str, dict[str, Any]] = {
        "unknown": {"email": "nobody@fund.example"},
        "no address": {"email": "nobody"},
        "not set up": {"email": "other@fund.example"},
        "disabled": {"email": gone.email, "totp": gone.code()},
        "wrong password": {"password": "Wrong-harbour-7-lanterns"},
        "wrong code": {"totp": "000000"},
        "wrong recovery code": {"recovery_code": "aaaa-bbbb-cccc-dddd"},
    }
    answers: dict[str, set[str]] = {}
    times: dict[str, list[float]] = {name: [] for name in tries}
    for _ in range(3):
        for name, changes in tries.items():
            with api.services.worker.begin() as tx:
                tx.exec_driver_sql("DELETE FROM api.log_in_tries")
            started = time.perf_counter()
            answer = keza.log_in(**changes)
            times[name].append(time.perf_counter() - started)
            body = answer.json()
            body.pop("request_id")
            answers.setdefault(f"{answer.status_code} {sorted(body.items())}", set()).add(name)
    assert [set(tries)] == list(answers.values()), answers
    assert "401" in next(iter(answers))
    fastest = {name: min(taken) for name, taken in times.items()}
    # argon2id is most of each: without it an answer takes a third
    assert min(fastest.values()) > max(fastest.values()) / 2, fastest
    reasons = {row[2]["reason"] for row in audit(api, "session.opened") if row[1] == "refused"}
    assert reasons == {"unknown", "password", "second factor", "disabled"}
    assert not api.rows("SELECT 1 FROM ledger.audit_entry WHERE strpos(detail::text, '@') > 0")


def test_a_code_counts_once_however_many_bring_it_at_once(api: Served) -> None:
    keza = person(api, "manager")
    code = keza.code()
    answers: list[int] = []

    def log_in() -> None:
        given = {"email": keza.email, "password": PASSWORD, "totp": code}
        answers.append(httpx.post(f"{api.url}/v1/session", json=given, timeout=30).status_code)

    at_once(*[log_in] * 4)
    assert sorted(answers) == [201, 401, 401, 401]
    # nor one of a step before it, though its time has not run out
    earlier = pyotp.TOTP(keza.secret).at(int(api.clock.now().timestamp()) - 30)
    assert keza.log_in(totp=earlier).status_code == 401
    assert keza.log_in().status_code == 201
    # a clock that is one step ahead is forgiven, two are not
    ahead = [pyotp.TOTP(keza.secret).at(int(api.clock.now().timestamp()) + 30 * n) for n in (2, 1)]
    assert [keza.log_in(totp=one).status_code for one in ahead] == [401, 201]


def test_a_recovery_code_opens_one_session_and_does_not_confirm(api: Served) -> None:
    keza = person(api, "manager")
    code = keza.recovery_codes[0]
    opened = keza.log_in(recovery_code=f" {code.upper()} ")
    assert (opened.status_code, opened.json()["recovery_codes_left"]) == (201, 9)
    assert keza.get("/v1/session").json()["confirmed_at"] is None
    assert keza.log_in(recovery_code=code).status_code == 401
    both = {"email": keza.email, "password": PASSWORD, "totp": "123456", "recovery_code": code}
    assert api.http.post("/v1/session", json=both).status_code == 422


def test_guessing_is_counted_before_it_is_judged_and_never_locks_a_person_out(api: Served) -> None:
    keza = person(api, "manager")
    known = {"X-Forwarded-For": "198.51.100.7"}
    stranger = {"X-Forwarded-For": "203.0.113.66"}
    assert sign(api, keza, known).status_code == 201

    answers: list[int] = []

    def guess() -> None:
        given = {"email": keza.email, "password": "Guess-number-7-lanterns", "totp": "000000"}
        answers.append(
            httpx.post(f"{api.url}/v1/session", json=given, headers=stranger, timeout=30).status_code
        )

    at_once(*[guess] * 12)
    assert answers == [401] * 12
    # five were judged, all at once or not; the others were not even counted
    reasons = [row[2]["reason"] for row in audit(api, "session.opened") if row[1] == "refused"]
    assert (reasons.count("password"), reasons.count("closed")) == (5, 7)
    # nobody keeps it closed: what comes while it is closed doesn't count
    for _ in range(5):
        guess()
    # the right proofs from there are refused like wrong ones; from where its person usually is they open
    assert sign(api, keza, stranger).status_code == 401
    api.clock.advance(timedelta(seconds=-1))
    assert sign(api, keza, known).status_code == 201
    # after the pause one more is judged
    assert sign(api, keza, stranger).status_code == 201


def sign(api: Served, one: Person, headers: dict[str, str]) -> httpx.Response:
    given = {"email": one.email, "password": one.password, "totp": one.code()}
    return api.http.post("/v1/session", json=given, headers=headers)


def test_the_pause_doubles_up_to_its_bound_and_is_forgotten_in_a_day(api: Served) -> None:
    subject = tries.of_account("someone@fund.example")
    pauses = []
    for _ in range(15):
        assert api.services.worker.run(lambda tx: tries.begin(tx, subject, api.clock.now()))
        [(until,)] = api.rows("SELECT closed_until FROM api.log_in_tries")
        pauses.append((until - api.clock.now()).total_seconds())
        api.clock.advance(max(until - api.clock.now(), timedelta()))
    assert pauses == [0, 0, 0, 0, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]
    api.clock.advance(timedelta(days=1, seconds=1))
    api.services.worker.run(lambda tx: tries.begin(tx, subject, api.clock.now()))
    assert api.rows("SELECT tries FROM api.log_in_tries") == [(1,)]


def test_a_cookie_is_for_browsers_and_changes_nothing_from_another_site(api: Served) -> None:
    keza = person(api, "manager")
    body = {"email": keza.email, "password": PASSWORD, "cookie": True}

    def log_in(**headers: str) -> httpx.Response:
        with httpx.Client(base_url=api.url, timeout=30) as fresh:
            return fresh.post("/v1/session", json=body | {"totp": keza.code()}, headers=headers)

    for site in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert log_in(**site).status_code == 401
    # a session that was planted beforehand is not taken up: each log-in makes its own (fixation)
    planted = "mizan_session=mzn_ops_planted"
    answer = log_in(**{"Sec-Fetch-Site": "same-origin", "Cookie": planted})
    assert answer.json()["token"] is None
    cookie, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert cookie.startswith("mizan_session=mzn_ops_")
    assert "planted" not in cookie
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(attributes)

    def with_cookie(method: str, path: str, site: str | None) -> int:
        headers = {"Cookie": cookie} | ({"Sec-Fetch-Site": site} if site else {})
        with httpx.Client(base_url=api.url, timeout=30) as fresh:
            return fresh.request(method, path, headers=headers).status_code

    assert with_cookie("GET", "/v1/session", None) == 200
    for site_ in (None, "cross-site", "same-site", "none"):
        assert with_cookie("DELETE", "/v1/session", site_) == 401
    assert with_cookie("GET", "/v1/session", "same-origin") == 200
    assert with_cookie("DELETE", "/v1/session", "same-origin") == 204
    assert with_cookie("GET", "/v1/session", None) == 401


def test_a_form_of_another_site_logs_nobody_in(api: Served) -> None:
    keza = person(api, "manager")
    body = json.dumps({"email": keza.email, "password": PASSWORD, "totp": keza.code()})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = api.http.post("/v1/session", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 422, kind


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


def test_a_hash_of_other_parameters_is_renewed_by_the_log_in_that_proves_it(api: Served) -> None:
    from argon2 import PasswordHasher

    keza = person(api, "manager")
    weaker = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE api.operator_credential SET password_hash = %s", (weaker,))
    assert keza.log_in().status_code == 201
    [(stored,)] = api.rows("SELECT password_hash FROM api.operator_credential")
    assert not passwords.outdated(stored)
    # however a keyboard composes it, a password is the same
    composed, decomposed = "Caf\u00e9-au-lait-7-lanterns", "Cafe\u0301-au-lait-7-lanterns"
    assert passwords.verify(passwords.hashed(passwords.accept(composed, [])), decomposed)


def test_a_confirmation_is_guessed_no_better_than_a_log_in(api: Served) -> None:
    keza = person(api, "manager")
    for _ in range(5):
        wrong = keza.post("/v1/session/confirmation", {"totp": "000000"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "log_in_refused")
    assert keza.confirm().status_code == 401
    api.clock.advance(timedelta(seconds=31))  # a minute in all: `code` has moved it on
    assert keza.confirm().status_code == 204
    assert keza.get("/v1/session").json()["confirmed_at"] is not None


@pytest.mark.parametrize(
    "token", ["mzn_ops_", "mzn_ops_x", "mzn_ops_" + "A" * 43, "mzn_link_x", "mzn_ops_'--"]
)
def test_what_is_no_session_is_a_401(api: Served, token: str) -> None:
    answer = api.http.get("/v1/session", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")


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
