"""Tokens over HTTP: who gets one, what it may do, and what is no token."""

import base64
from datetime import timedelta

import httpx
import pytest

from tests.http.served import Served, a_person

FORM = {"grant_type": "client_credentials"}


def test_a_client_gets_a_token_by_basic_or_by_the_form(api: Served) -> None:
    client = api.acme.client
    basic = api.http.post("/oauth/token", data=FORM, auth=(client.client_id, client.client_secret))
    posted = api.http.post(
        "/oauth/token",
        data=FORM
        | {
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "scope": "members:read balances:read",
        },
    )
    assert posted.json()["scope"] == "balances:read members:read"
    for answer in (basic, posted):
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["token_type"] == "Bearer"
        assert answer.json()["expires_in"] <= 900


@pytest.mark.filterwarnings("default")
def test_what_is_wrong_with_a_token_request_is_told_by_rfc_6749(api: Served) -> None:
    client_id, secret = api.acme.client.client_id, api.acme.client.client_secret
    good = base64.b64encode(f"{client_id}:{secret}".encode()).decode()

    def asked(content: bytes, authorization: str | None = f"Basic {good}", **headers: str) -> httpx.Response:
        sent = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        if authorization is not None:
            sent["Authorization"] = authorization
        return api.http.post("/oauth/token", content=content, headers=sent)

    form = b"grant_type=client_credentials"
    wrong = base64.b64encode(f"{client_id}:guess".encode()).decode()
    nobody = base64.b64encode(f"cli_{'0' * 26}:guess".encode()).decode()
    cases = [
        (asked(b"grant_type=password"), 400, "unsupported_grant_type"),
        (asked(b""), 400, "invalid_request"),
        (asked(form + b"&grant_type=client_credentials"), 400, "invalid_request"),
        (asked(form + b"&scope=ledger%3Aread"), 400, "invalid_scope"),
        (asked(form + b"&scope=nonsense"), 400, "invalid_scope"),
        (asked(form, **{"Content-Type": "application/json"}), 400, "invalid_request"),
        (asked(b"\xff\xfe"), 400, "invalid_request"),
        (asked(form + b"&client_secret=x&client_id=y"), 400, "invalid_request"),
        (asked(form, f"Basic {wrong}"), 401, "invalid_client"),
        (asked(form, f"Basic {nobody}"), 401, "invalid_client"),
        (asked(form, "Basic !!!"), 401, "invalid_client"),
        (asked(form, "Bearer x"), 401, "invalid_client"),
        (asked(form, None), 401, "invalid_client"),
    ]
    for answer, status, error in cases:
        assert (answer.status_code, answer.json().get("error")) == (status, error), answer.text
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_a_token_dies_after_its_lifetime_and_when_its_client_or_partner_is_disabled(api: Served) -> None:
    assert api.acme.get("/v1/programmes").status_code == 200
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE products.partner SET state = 'disabled' WHERE slug = 'acme'")
    refused = api.acme.get("/v1/programmes")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorised")
    assert api.acme.authenticate().status_code == 401
    assert api.bolt.get("/v1/programmes").status_code == 200
    api.clock.advance(timedelta(minutes=15))
    late = api.bolt.get("/v1/programmes")
    assert (late.status_code, late.json()["code"]) == (401, "unauthorised")
    assert "invalid_token" in late.headers["WWW-Authenticate"]


def test_a_token_does_what_its_scopes_say_and_no_more(api: Served) -> None:
    api.acme.authenticate("members:read")
    refused = api.acme.post("/v1/members", a_person())
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert 'scope="members:write"' in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Basic eDp5", "Bearer a.b.c", "Bearer " + "x" * 9000]
)
def test_what_is_no_bearer_token_is_a_401(api: Served, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = api.http.get("/v1/programmes", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_secrets_and_private_keys_rest_unreadable(api: Served) -> None:
    secret = api.acme.client.client_secret
    assert secret.startswith("mzn_test_")
    stored = [bytes(row[0]) for row in api.rows("SELECT digest FROM api.client_secret")]
    assert all(secret.encode() not in one for one in stored)
    assert all(
        b"PRIVATE" not in bytes(row[0]) for row in api.rows("SELECT sealed_private_key FROM api.signing_key")
    )


def test_keys_and_metadata_are_published(api: Served) -> None:
    keys = api.http.get("/.well-known/jwks.json").json()["keys"]
    assert [(key["alg"], key["crv"], key["use"]) for key in keys] == [("ES256", "P-256", "sig")]
    assert all("d" not in key for key in keys)
    metadata = api.http.get("/.well-known/oauth-authorization-server").json()
    assert metadata["token_endpoint"].endswith("/oauth/token")
    assert "members:read" in metadata["scopes_supported"]
