"""Members' tokens: a partner exchanges its word for one that sees this member, as long as the member consents."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import event

from ledger.ids import parse_public_id
from tests.http.served import Served, a_person
from tests.http.signing import ACCESS_TOKEN, EXCHANGE, JWT, App, Key, told
from tests.racing import at_once

PARTNERS_ONLY = [
    ("POST", "/v1/members"),
    ("POST", "/v1/quotes"),
    ("GET", "/v1/remittances"),
    ("POST", "/v1/remittances"),
    ("GET", "/v1/deliveries"),
    ("GET", "/v1/ledger/trial-balance"),
]


@pytest.fixture(scope="module")
def api(shared_api: Served) -> Served:
    """One API for all of this."""
    return shared_api


@pytest.fixture(scope="module")
def app(api: Served) -> App:
    """Acme's app, which has registered a key."""
    return App(api, api.acme)


def test_a_partner_exchanges_its_word_for_a_members_token(api: Served, app: App) -> None:
    member = app.registers()
    answer = app.exchange(app.subject(member), scope="balances:read members:read", audience=app.issuer)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {
        "access_token": answer.json()["access_token"],
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 900,
        "scope": "balances:read members:read",
    }
    claims = told(answer.json()["access_token"])
    assert (claims["sub"], claims["act"]) == (member, {"sub": app.client_id})
    assert (claims["client_id"], claims["exp"] - claims["iat"]) == (app.client_id, 900)


def test_it_sees_this_member_and_nothing_that_is_the_partners(api: Served, app: App) -> None:
    member, other = app.registers(), app.registers()
    anna = app.member(member)
    assert anna.get(f"/v1/members/{member}/balances").status_code == 200
    assert anna.get(f"/v1/members/{member}").json()["id"] == member
    for path in (f"/v1/members/{other}/balances", f"/v1/members/{other}"):
        assert (anna.get(path).status_code, anna.get(path).json()["code"]) == (404, "not_found")
    for method, path in PARTNERS_ONLY:
        answer = anna.call(method, path, {} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), path


def test_its_scope_is_what_the_client_and_members_may_have(api: Served, app: App) -> None:
    member = app.registers()
    everything = app.exchange(app.subject(member)).json()["scope"].split()
    assert "balances:read" in everything
    assert not {"remittances:write", "quotes:write", "members:write", "deliveries:read"} & set(everything)
    for scope in ("members:write", "balances:read ledger:read", "nonsense"):
        refused = app.exchange(app.subject(member), scope=scope)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope"), scope
    bolt = App(api, api.bolt)
    theirs = bolt.registers()
    with api.services.worker.begin() as tx:
        change = "UPDATE api.oauth_client SET scopes = {} WHERE name = 'bolt'"
        before = tx.exec_driver_sql("SELECT scopes FROM api.oauth_client WHERE name = 'bolt'").scalar_one()
        tx.exec_driver_sql(change.format("'{programmes:read,quotes:write}'"))
    assert bolt.exchange(bolt.subject(theirs)).json()["scope"] == "programmes:read"
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql(change.format("%s"), (before,))


def test_what_is_wrong_with_an_exchange_is_told_by_rfc_8693(api: Served, app: App) -> None:
    member = app.registers()
    cases: list[tuple[dict[str, str], str]] = [
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token": "nonsense"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": JWT}, "invalid_request"),
        ({"audience": "https://elsewhere.example"}, "invalid_target"),
        ({"resource": "https://elsewhere.example/v1"}, "invalid_target"),
    ]
    for change, error in cases:
        answer = app.exchange(app.subject(member), **change)
        assert (answer.status_code, answer.json()["error"]) == (400, error), change
    staff = App(api, api.auditor)
    answer = staff.exchange(staff.subject(member))
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
    unproved = api.http.post("/oauth/token", data={"grant_type": EXCHANGE, "subject_token": "x"})
    assert (unproved.status_code, unproved.json()["error"]) == (401, "invalid_client")


@contextmanager
def statements(api: Served) -> Iterator[list[str]]:
    """The statements that the API sends meanwhile."""
    sent: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_more: object) -> None:
        sent.append(statement)

    engine = api.services.api.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_who_can_not_be_shown_is_one_answer_at_one_price(api: Served, app: App) -> None:
    of_bolt = App(api, api.bolt).registers()
    ended, withdrawn, without, erased = (app.registers() for _ in range(4))
    assert api.acme.call("DELETE", f"/v1/members/{ended}").status_code in (200, 204)
    links = (
        "(SELECT member_id FROM products.member_link WHERE partner_reference_index IS NOT NULL AND id = '{}')"
    )
    with api.services.worker.begin() as tx:
        by_id = {member: _uuid(member) for member in (withdrawn, without, erased)}
        tx.exec_driver_sql(
            "UPDATE products.consent SET withdrawn_at = now() WHERE member_id = "
            + links.format(by_id[withdrawn])
        )
        tx.exec_driver_sql(
            "UPDATE products.member SET wrapped_key = NULL, erased_at = now() WHERE id = "
            + links.format(by_id[erased])
        )
    no_mandate = api.acme.post("/v1/members", a_person(900, mandate=None))
    answers: dict[str, httpx.Response] = {}
    prices: dict[str, list[str]] = {}
    for why, member in {
        "unknown": f"mem_{'0' * 26}",
        "another partner's": of_bolt,
        "ended": ended,
        "withdrawn": withdrawn,
        "erased": erased,
        "without a mandate": no_mandate.json()["id"],
        "no id": "mem_nonsense",
        "another kind": "cli_" + "0" * 26,
        "SQL": "mem_' OR 1=1 --",
    }.items():
        with statements(api) as sent:
            answers[why] = app.exchange(app.subject(member))
        prices[why] = sent
    assert {(one.status_code, one.text) for one in answers.values()} == {
        (400, answers["unknown"].text),
    }
    assert answers["unknown"].json()["error"] == "invalid_request"
    assert all(price == prices["unknown"] for price in prices.values())
    assert app.exchange(app.subject(without)).status_code == 200


def _uuid(member: str) -> str:
    return str(parse_public_id("mem", member))


def test_it_ends_with_the_consent_the_link_the_client_and_the_partner_at_the_next_request(
    api: Served, app: App
) -> None:
    mine = " WHERE member_id = (SELECT member_id FROM products.member_link WHERE id = '{}')"
    for end in (
        "UPDATE products.consent SET withdrawn_at = now()" + mine + " AND purpose = 'contributions'",
        "UPDATE products.member_link SET ended_at = now() WHERE id = '{}'",
        "UPDATE api.oauth_client SET generation = generation + 1 WHERE name = 'acme'",
        "UPDATE api.oauth_client SET state = 'disabled' WHERE name = 'acme'",
        "UPDATE products.partner SET state = 'disabled' WHERE slug = 'acme'",
    ):
        member = app.registers()
        anna = app.member(member)
        assert anna.get(f"/v1/members/{member}/balances").status_code == 200
        with api.services.worker.begin() as tx:
            tx.exec_driver_sql(end.format(_uuid(member)))
        refused = anna.get(f"/v1/members/{member}/balances")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorised"), end
        assert "invalid_token" in refused.headers["WWW-Authenticate"]
        with api.services.worker.begin() as tx:
            tx.exec_driver_sql("UPDATE api.oauth_client SET state = 'active'")
            tx.exec_driver_sql("UPDATE products.partner SET state = 'active'")
        api.acme.authenticate()


def test_a_paused_mandate_stops_deductions_and_not_seeing(api: Served, app: App) -> None:
    member = app.registers()
    anna = app.member(member)
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE products.consent SET paused_at = now()")
    assert anna.get(f"/v1/members/{member}/balances").status_code == 200


def test_a_subject_token_is_accepted_once_also_by_two_at_once_and_when_valkey_forgot(
    api: Served, app: App
) -> None:
    member = app.registers()
    token = app.subject(member)
    assert app.exchange(token).status_code == 200
    api.services.valkey.flushall()
    assert app.exchange(token).json()["error"] == "invalid_request"
    # the same jti in another text is the same token
    jti = told(token)["jti"]
    assert app.exchange(app.subject(member, jti=jti, amr=["pwd"])).status_code == 400
    raced = app.subject(member)
    answers: list[int] = []
    at_once(*[lambda: answers.append(app.exchange(raced).status_code)] * 4)
    assert sorted(answers) == [200, 400, 400, 400]


def test_a_jti_is_a_partners_own_and_only_what_it_signed_uses_it(api: Served, app: App) -> None:
    member = app.registers()
    jti = "one-and-the-same"
    stranger = Key(kid=app.key.kid)
    header = {"alg": "ES256", "kid": app.key.kid, "typ": "mizan-member+jwt"}
    assert app.exchange(stranger.sign(header, app.subject_claims(member, jti=jti))).status_code == 400
    other = App(api, api.bolt)
    assert other.exchange(other.subject(other.registers(), jti=jti)).status_code == 200
    assert app.exchange(app.subject(member, jti=jti)).status_code == 200
