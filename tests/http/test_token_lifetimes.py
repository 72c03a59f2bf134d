"""What ends with time: tokens, what is remembered of them, and the keys that sign them."""

from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.app import create_app
from api.auth import revocation
from api.auth.keys import KEPT_AFTER, PUBLISHED_AHEAD, rotate
from ledger.seals import SealingKey, seal
from products.savings import sponsors
from tests.conftest import Databases
from tests.http.hooked import serving
from tests.http.served import Served
from tests.http.signing import App, told

FORM = {"grant_type": "client_credentials"}


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


def test_what_tokens_leave_behind_is_forgotten_when_it_is_of_no_use(api: Served) -> None:
    app = App(api, api.acme)
    assert app.ask(app.assertion()).status_code == 200
    assert app.revoke(api.acme.token).status_code == 200

    def left() -> list[tuple[int, ...]]:
        return api.rows(
            "SELECT (SELECT count(*) FROM api.used_jti), (SELECT count(*) FROM api.revoked_token)"
        )

    def purge() -> int:
        return api.services.worker.run(lambda tx: revocation.purge(tx, api.clock.now()))

    assert (left(), purge()) == ([(1, 1)], 0)
    api.clock.advance(timedelta(minutes=12))  # the assertion is dead, the token would still live
    assert (purge(), left()) == (1, [(0, 1)])
    api.clock.advance(timedelta(minutes=15))
    assert (purge(), left()) == (1, [(0, 0)])


def test_keys_rotate_while_tokens_live(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def signed_by(token: str) -> str:
        found: str = told(token, 0)["kid"]
        return found

    monkeypatch.setattr(
        "api.auth.keys.RELOAD_SECONDS_MIN", 0.0
    )  # seconds of the wall, which the test has none of
    first = api.acme.token
    made = api.services.worker.run(lambda tx: rotate(tx, api.services.keyring, api.clock.now()))
    later = create_app(api.services.settings, clock=api.clock, publish=lambda: None)
    with (
        serving(later) as url,
        httpx.Client(base_url=url) as http,
    ):  # a process that starts after the rotation

        def published() -> set[str]:
            return {key["kid"] for key in http.get("/.well-known/jwks.json").json()["keys"]}

        def token() -> str:
            client = api.acme.client
            answer = http.post("/oauth/token", data=FORM, auth=(client.client_id, client.client_secret))
            found: str = answer.json()["access_token"]
            return found

        def accepted(token: str) -> list[int]:
            headers = {"Authorization": f"Bearer {token}"}
            return [one.get("/v1/programmes", headers=headers).status_code for one in (api.http, http)]

        assert published() == {signed_by(first), made.kid}
        assert signed_by(token()) == signed_by(first)
        api.clock.advance(PUBLISHED_AHEAD - timedelta(minutes=5))
        old = token()
        api.clock.advance(timedelta(minutes=5))
        new = token()
        assert (signed_by(old), signed_by(new)) == (signed_by(first), made.kid)
        # each process takes the tokens of both keys, the one too that never heard of the rotation
        assert accepted(old) == accepted(new) == [200, 200]
        api.clock.advance(KEPT_AFTER)
        assert published() == {made.kid}
        assert accepted(token()) == [200, 200]


def test_seal_keys_stay_published_for_ever(api: Served, databases: Databases) -> None:
    used = [SealingKey(Ed25519PrivateKey.generate()) for _ in range(2)]
    for number, key in enumerate(used):
        with api.services.worker.begin() as tx:
            sponsors.fund_sponsor(
                tx,
                api.services.books,
                programme="ejoheza",
                sponsor="gov-rw",
                amount=1_000,
                reference=str(number),
            )
        with databases.sealer.begin() as tx:
            assert seal(tx, key, api.clock) is not None
    published = api.http.get("/.well-known/mizan-seals").json()
    assert published["keys"] == {key.key_id: key.public_key.hex() for key in used}
    assert [one["key_id"] for one in published["seals"]] == [key.key_id for key in used]
