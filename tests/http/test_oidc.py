"""Logging in through an OpenID provider: with one that is honest, one that lies, and one that is not ours."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from api.auth import oidc
from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.persons import Person, founder, person
from tests.http.provider import CLIENT_ID, CLIENT_SECRET, Provider, provider
from tests.http.served import Served, served

EMAIL = "keza@fund.example"


@dataclass
class Browser:
    """A browser with the cookies of its own."""

    api: Served
    cookies: dict[str, str]

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request; cookies that the answer sets are kept."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        headers |= more.pop("headers", {})
        with httpx.Client(base_url=self.api.url, timeout=30) as fresh:
            answer = fresh.request(method, path, headers=headers, **more)
        for line in answer.headers.get_list("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer

    def begin(self) -> str:
        """Begin a log-in; where the browser is sent."""
        answer = self.send("GET", "/v1/session/openid")
        assert answer.status_code == 303, answer.text
        assert "SameSite=lax" in answer.headers["Set-Cookie"]
        return answer.headers["Location"]

    def come_back(self, parameters: dict[str, str]) -> httpx.Response:
        """Follow the provider back."""
        return self.send("GET", "/v1/session/openid/callback", params=parameters)

    def complete(self, code: str, site: str = "same-origin") -> httpx.Response:
        """Give the authenticator's code in the form."""
        return self.send(
            "POST", "/v1/session/openid/completion", data={"totp": code}, headers={"Sec-Fetch-Site": site}
        )

    def operator(self) -> str | None:
        """Who is logged in here."""
        answer = self.send("GET", "/v1/session")
        return answer.json()["operator"] if answer.status_code == 200 else None


@dataclass
class Place:
    """A running API, its provider, and Keza, who logs in through it."""

    api: Served
    provider: Provider
    keza: Person

    def browser(self) -> Browser:
        return Browser(self.api, {})


@pytest.fixture
def place(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Place]:
    with (
        provider(clock) as honest,
        served(settings, databases.worker, clock, **client_of(honest.issuer)) as api,
    ):
        yield Place(api, honest, person(api, "manager", log_in="openid", email=EMAIL))


def client_of(issuer: str, **more: Any) -> dict[str, Any]:
    return {
        "oidc_issuer": issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
        "oidc_trusted_acr": "phrh",
        "oidc_trusted_amr": "mfa, hwk",
    } | more


def test_a_person_logs_in_through_the_provider_and_gives_mizans_own_code(place: Place) -> None:
    browser = place.browser()
    url = browser.begin()
    assert url.startswith(f"{place.provider.issuer}/authorize?tenant=fund&")
    page = browser.come_back(place.provider.log_in(url))
    assert (page.status_code, browser.operator()) == (200, None)
    assert "<form method='post' action='completion'>" in page.text
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    assert browser.complete("000000").status_code == 401
    assert browser.complete(place.keza.code(), site="cross-site").status_code == 401
    done = browser.complete(place.keza.code())
    assert done.status_code == 200
    assert browser.operator() == place.keza.id
    # once: neither the code again, nor the form
    assert browser.complete(place.keza.code()).status_code == 401
    # the provider's subject is who it was linked to, whatever its address is by now
    again = place.browser()
    again.come_back(place.provider.log_in(again.begin(), email="keza@elsewhere.example"))
    assert again.complete(place.keza.code()).status_code == 200
    assert again.operator() == place.keza.id
    # and no other subject takes the place with the same address
    other = place.browser()
    other.come_back(place.provider.log_in(other.begin(), sub="s-2"))
    assert other.complete(place.keza.code()).status_code == 401
    assert place.api.rows("SELECT subject FROM api.operator_identity") == [("s-1",)]
    # disabled: out at once, and not in again through the provider
    amina = founder(place.api, "amina@fund.example")
    assert amina.post(f"/v1/operators/{place.keza.id}/deactivation").status_code == 200
    assert (browser.operator(), again.operator()) == (None, None)
    last = place.browser()
    last.come_back(place.provider.log_in(last.begin()))
    assert last.complete(place.keza.code()).status_code == 401
    # who logs in through the provider has no password
    assert place.keza.log_in(password="anything at all").status_code == 401


@pytest.mark.parametrize("said", [{"amr": ["pwd", "mfa"]}, {"acr": "phrh"}])
def test_a_second_factor_of_the_provider_counts_where_it_is_trusted_and_confirms_nothing(
    place: Place, said: dict[str, Any]
) -> None:
    browser = place.browser()
    page = browser.come_back(place.provider.log_in(browser.begin(), **said))
    assert "<form" not in page.text
    assert browser.operator() == place.keza.id
    assert browser.send("GET", "/v1/session").json()["confirmed_at"] is None


def test_what_lies_about_a_person_proves_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = RSAKey.generate_key(2048, auto_kid=True)
    ours = place.provider.key
    public = ours.as_pem(private=False)
    now = int(place.api.clock.now().timestamp())
    lies: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
        "wrong audience": ({"aud": "another"}, {}, None),
        "no audience": ({"aud": None}, {}, None),
        "many audiences, for another party": ({"aud": [CLIENT_ID, "another"], "azp": "another"}, {}, None),
        "wrong issuer": ({"iss": "https://accounts.example"}, {}, None),
        "expired": ({"exp": now - 180, "iat": now - 400}, {}, None),
        "no expiry": ({"exp": None}, {}, None),
        "minted long ago": ({"iat": now - 3600}, {}, None),
        "minted tomorrow": ({"iat": now + 86_400}, {}, None),
        "another nonce": ({"nonce": "x"}, {}, None),
        "no nonce": ({"nonce": None}, {}, None),
        "no subject": ({"sub": None}, {}, None),
        "alg none": ({}, {"alg": "none"}, None),
        "HS256 with the public key": ({}, {"alg": "HS256"}, public),
        "another key": ({}, {}, stranger),
        "another key by its own id": ({}, {"kid": stranger.kid}, stranger),
        "another key that comes along": (
            {},
            {"kid": stranger.kid, "jwk": stranger.as_dict(private=False)},
            stranger,
        ),
        "address not verified": ({"email_verified": None}, {}, None),
        "address said to be verified in a text": ({"email_verified": "true"}, {}, None),
        "address of nobody": ({"email": "nobody@fund.example"}, {}, None),
        "address of one with a password": ({"email": "auditor@fund.example"}, {}, None),
    }
    person(place.api, "auditor")
    for name, (claims, header, signing) in lies.items():
        browser = place.browser()
        back = place.provider.log_in(browser.begin(), **claims, amr=["mfa"])
        place.provider.header, place.provider.signing = header, signing
        answer = browser.come_back(back)
        assert (answer.status_code, answer.json()["code"]) == (401, "log_in_refused"), name
        assert browser.operator() is None, name
        place.provider.header, place.provider.signing = {}, None
    assert place.api.rows("SELECT 1 FROM api.operator_identity") == []
    # the provider changes its keys: the new one is fetched when it is first seen
    place.provider.key = stranger
    monkeypatch.setattr(oidc, "KEYS_SECONDS_MIN", 0.0)
    browser = place.browser()
    assert browser.come_back(place.provider.log_in(browser.begin(), amr=["mfa"])).status_code == 200


def test_state_code_and_browser_belong_together_and_count_once(place: Place) -> None:
    victim, attacker = place.browser(), place.browser()
    url = victim.begin()
    back = place.provider.log_in(url, amr=["mfa"])
    # another browser with this state: log-in forced upon someone, or a stolen answer
    attacker.begin()
    assert attacker.come_back(back).status_code == 401
    assert place.browser().come_back(back).status_code == 401
    # an answer mixed up with another provider's, or that hides whose it is
    for mixed in ({"iss": "https://accounts.example"}, {"iss": None}):
        one = place.browser()
        answer = place.provider.log_in(one.begin(), amr=["mfa"]) | mixed
        assert one.come_back({k: v for k, v in answer.items() if v is not None}).status_code == 401
    # refused there, unknown state, no code
    denied = place.browser()
    state = place.provider.log_in(denied.begin())["state"]
    assert denied.come_back({"error": "access_denied", "state": state}).status_code == 401
    assert denied.come_back({"code": "x", "state": "unknown"}).status_code == 401
    assert denied.come_back({}).status_code == 401
    # a code that was made for another log-in fails by PKCE
    thief = place.browser()
    thief_url = thief.begin()
    stolen = place.provider.log_in(victim.begin(), amr=["mfa"])["code"]
    thiefs_state = place.provider.log_in(thief_url, amr=["mfa"])["state"]
    swapped = {"code": stolen, "state": thiefs_state, "iss": place.provider.issuer}
    assert thief.come_back(swapped).status_code == 401
    assert place.provider.refusals[-1] == "verifier"
    # in its own browser, once
    fresh = place.browser()
    back = place.provider.log_in(fresh.begin(), amr=["mfa"])
    assert fresh.come_back(back).status_code == 200
    assert fresh.come_back(back).status_code == 401
    # and not after ten minutes
    late = place.browser()
    back = place.provider.log_in(late.begin(), amr=["mfa"])
    place.api.clock.advance(timedelta(minutes=10))
    assert late.come_back(back).status_code == 401


def test_a_provider_that_does_not_answer_is_a_503_and_nothing_is_believed(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    with provider(clock) as lying:
        lying.metadata = {"issuer": "https://accounts.example"}
        with served(settings, databases.worker, clock, **client_of(lying.issuer)) as api:
            assert api.http.get("/v1/session/openid").status_code == 503
            lying.metadata = {"token_endpoint": "file:///etc/passwd"}
            assert api.http.get("/v1/session/openid").status_code == 503
            lying.metadata = {"padding": "x" * 600_000}
            assert api.http.get("/v1/session/openid").status_code == 503
            lying.metadata = {}
            assert api.http.get("/v1/session/openid").status_code == 303


def test_without_a_provider_there_is_no_such_log_in(api: Served) -> None:
    assert api.http.get("/v1/session/openid").status_code == 404
    assert api.http.get("/v1/session/openid/callback").status_code == 404


def test_an_implementation_that_is_not_ours_logs_a_person_in(
    settings: Settings, databases: Databases
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    issuer = f"http://127.0.0.1:{port}"
    claims = '{"sub": "kz", "email": "%s", "email_verified": true}' % EMAIL  # noqa: UP031  braces
    started = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", "--user-claims", claims],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{issuer}/jwks", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        clock = FixedClock(datetime.now(UTC))
        with served(settings, databases.worker, clock, **client_of(issuer)) as api:
            keza = person(api, "manager", log_in="openid", email=EMAIL)
            browser = Browser(api, {})
            sent_back = httpx.post(browser.begin(), data={"sub": "kz"}, timeout=30)
            assert sent_back.status_code == 302, sent_back.text
            location = httpx.URL(sent_back.headers["Location"])
            assert str(location).startswith(f"{settings.public_url}/v1/session/openid/callback?")
            page = browser.come_back(dict(location.params))
            assert re.search("<form", page.text), page.text
            assert browser.complete(keza.code()).status_code == 200
            assert browser.operator() == keza.id
    finally:
        started.terminate()
        started.wait(60)
