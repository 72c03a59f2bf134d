"""Logging in as an operator, and everything that tries to get around it: guessed, raced, replayed, planted."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pyotp
import pytest
from argon2 import PasswordHasher

from api.auth import operators, passwords, tries
from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.persons import PASSWORD, Person, audit, person
from tests.http.served import Served, served
from tests.racing import at_once


@pytest.fixture
def api(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """A running API behind a proxy of ours, so that tests come from where they say."""
    with served(settings, databases.worker, clock, trusted_proxies="127.0.0.1") as running:
        yield running


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


def test_whatever_is_wrong_with_a_log_in_the_answer_and_its_work_are_the_same(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    verified = 0
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, *arguments: Any) -> Any:
        nonlocal verified
        verified += 1
        return verify(hasher, *arguments)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    hashes: dict[str, int] = dict.fromkeys(tries, 0)
    for _ in range(3):
        for name, changes in tries.items():
            with api.services.worker.begin() as tx:
                tx.exec_driver_sql("DELETE FROM api.log_in_tries")
            before = verified
            answer = keza.log_in(**changes)
            hashes[name] += verified - before
            body = answer.json()
            body.pop("request_id")
            answers.setdefault(f"{answer.status_code} {sorted(body.items())}", set()).add(name)
    assert [set(tries)] == list(answers.values()), answers
    assert "401" in next(iter(answers))
    # argon2id is most of the time that an answer takes: each has as much of it
    assert hashes == dict.fromkeys(tries, 3)
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
