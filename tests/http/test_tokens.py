"""Tokens over HTTP: who gets one, what it may do, and what is no token."""

import base64

import httpx
import joserfc.jwt
import pytest
from joserfc.jwk import ECKey, KeySet

from api.auth import clients
from api.auth.scopes import SCOPES
from tests.http.served import Served, a_person
from tests.http.signing import ASSERTION_TYPE, EXCHANGE, App

FORM = {"grant_type": "client_credentials"}


@pytest.fixture(scope="module")
def api(shared_api: Served) -> Served:
    """One API for all of this."""
    return shared_api


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


def test_a_client_proves_itself_with_a_key_by_an_independent_library(api: Served) -> None:
    app = App(api, api.acme)
    mine = ECKey.import_key(app.key.private_pem)
    answer = app.ask(joserfc.jwt.encode({"alg": "ES256", "kid": app.key.kid}, app.assertion_claims(), mine))
    assert answer.status_code == 200, answer.text
    # and reads the token with the published keys
    keys = KeySet.import_key_set(api.http.get("/.well-known/jwks.json").json())
    read = joserfc.jwt.decode(answer.json()["access_token"], keys, algorithms=["ES256"])
    assert read.header["typ"] == "at+jwt"
    assert read.claims["sub"] == read.claims["client_id"] == app.client_id


def test_a_client_proves_itself_in_one_way_only(api: Served) -> None:
    app = App(api, api.acme)
    secret = {"client_id": app.client_id, "client_secret": api.acme.client.client_secret}
    basic = httpx.BasicAuth(app.client_id, api.acme.client.client_secret)
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": app.assertion()}
    for form, auth in (
        (FORM | proof, basic),
        (FORM | proof | secret, None),
        (FORM | secret, basic),
        (FORM | {"client_assertion": app.assertion()}, None),
        (FORM | {"client_assertion_type": ASSERTION_TYPE}, None),
        (FORM | {"client_assertion_type": ASSERTION_TYPE}, basic),
    ):
        for path in ("/oauth/token", "/oauth/revoke"):
            answer = api.http.post(path, data=form, auth=auth or httpx.Auth())
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), (form, auth)
    for change, expected in (
        ({"client_id": app.client_id}, 200),
        ({"client_id": api.bolt.client.client_id}, 401),
        ({"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}, 401),
    ):
        sent = FORM | proof | {"client_assertion": app.assertion()} | change
        assert api.http.post("/oauth/token", data=sent).status_code == expected, change


def test_a_revoked_token_ends_at_the_next_request(api: Served) -> None:
    app = App(api, api.acme)
    member = app.registers()
    anna, another = app.member(member), app.member(member)
    assert app.revoke(anna.token).status_code == 200
    assert anna.get(f"/v1/members/{member}/balances").status_code == 401
    api.services.valkey.flushall()
    assert anna.get(f"/v1/members/{member}/balances").status_code == 401
    assert another.get(f"/v1/members/{member}/balances").status_code == 200
    # again, or no token at all: there is nothing left to end
    for token in (anna.token, "nonsense", "a.b.c"):
        assert (app.revoke(token).status_code, app.revoke(token).content) == (200, b"")
    theirs = api.bolt.token
    refused = app.revoke(theirs)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert api.bolt.get("/v1/programmes").status_code == 200
    assert app.revoke("").json()["error"] == "invalid_request"
    unproved = api.http.post("/oauth/revoke", data={"token": another.token})
    assert (unproved.status_code, unproved.json()["error"]) == (401, "invalid_client")
    assert app.revoke(api.acme.token).status_code == 200
    assert api.acme.get("/v1/programmes").status_code == 401


def test_all_tokens_of_a_client_are_revoked_at_once(api: Served) -> None:
    app = App(api, api.acme)
    member = app.registers()
    anna = app.member(member)
    with api.services.worker.begin() as tx:
        clients.revoke_tokens(tx, app.client_id)
    assert anna.get(f"/v1/members/{member}/balances").status_code == 401
    assert api.acme.get("/v1/programmes").status_code == 401
    assert api.bolt.get("/v1/programmes").status_code == 200
    api.acme.authenticate()  # in the very second
    assert api.acme.get("/v1/programmes").status_code == 200
    assert app.member(member).get(f"/v1/members/{member}/balances").status_code == 200


def test_keys_and_metadata_are_published(api: Served) -> None:
    keys = api.http.get("/.well-known/jwks.json").json()["keys"]
    assert [(key["alg"], key["crv"], key["use"]) for key in keys] == [("ES256", "P-256", "sig")]
    assert all("d" not in key for key in keys)
    metadata = api.http.get("/.well-known/oauth-authorization-server").json()
    issuer = metadata["issuer"]
    for name, path in {
        "token_endpoint": "/oauth/token",
        "revocation_endpoint": "/oauth/revoke",
        "jwks_uri": "/.well-known/jwks.json",
    }.items():
        assert metadata[name] == f"{issuer}{path}"
    assert set(metadata["scopes_supported"]) == set(SCOPES)
    assert metadata["grant_types_supported"] == ["client_credentials", EXCHANGE]
    for endpoint in ("token", "revocation"):
        assert metadata[f"{endpoint}_endpoint_auth_methods_supported"] == [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ]
        assert metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == ["ES256"]
