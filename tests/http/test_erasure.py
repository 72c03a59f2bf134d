"""A member has all that is held handed over, and has it gone: from every table, while the books verify as before."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from api.rotation import SEALED
from integrations.inbox.keys import destroy_keys
from integrations.rails import sandbox
from ledger.database import Tx
from ledger.ids import new_id, parse_public_id, public_id
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.keyring import FieldCipher, Keyring, KeyringError, field_place
from tests.conftest import Databases
from tests.http.served import Caller, Served, a_person
from tests.http.signing import App
from tests.http.test_members_in_depth import proven, sent
from tests.http.things import A_PAYOUT, DAY
from tests.planted import DOCUMENT, FAMILY_NAME, GIVEN_NAME, PARTNER_REFERENCE, PHONE

EVIDENCE = "Recording-Zebra-4417"
CHILD, HEIR, HEIRS_PHONE = "Kezaplanted", "Mutesiplanted", "+250781112223"
PLANTED = (PHONE, GIVEN_NAME, FAMILY_NAME, DOCUMENT, PARTNER_REFERENCE, EVIDENCE, CHILD, HEIR, HEIRS_PHONE)


def person(api: Served) -> str:
    """Somebody of whom everything is known."""
    mandate = {"text_version": "2026-1", "language": "rw", "evidence": EVIDENCE}
    said = a_person(
        phone=PHONE,
        partner_reference=PARTNER_REFERENCE,
        given_name=GIVEN_NAME,
        family_name=FAMILY_NAME,
        mandate=mandate,
    )
    member = str(api.acme.post("/v1/members", said).json()["id"])
    path = f"/v1/members/{member}"
    child = {"relation": "child", "given_name": CHILD, "birth_date": "2015-09-14"}
    heir = {
        "relation": "spouse",
        "given_name": HEIR,
        "phone": HEIRS_PHONE,
        "share_basis_points": 10_000,
    }
    heirs = proven(api, member, "consent", {"beneficiaries": [heir]})
    payee = {"name": HEIR, "rail": "mobile_money", "destination": {"phone": HEIRS_PHONE}}
    for method, where, body in (
        ("POST", "documents", {"type": "passport", "country": "RW", "number": DOCUMENT}),
        ("POST", "dependants", child),
        ("PUT", "beneficiaries", heirs),
        ("POST", "payees", payee),
        ("POST", "enrolments", {"product": "savings"}),
    ):
        answer = api.acme.call(method, f"{path}/{where}", body)
        assert answer.status_code in (200, 201), answer.text
    return member


def readable(tx: Tx, keyring: Keyring, ciphers: Mapping[UUID, FieldCipher]) -> Iterator[tuple[str, str]]:
    """Every value of every table as text, and as what any key that is still held makes of it."""
    tables = tx.execute(
        text(
            "SELECT c.oid::regclass::text, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"
            " AND c.relnamespace::regnamespace::text IN ('api', 'integrations', 'ledger', 'products') GROUP BY 1"
        )
    ).all()
    assert len(tables) > 40
    for sealed in SEALED:
        for row in tx.execute(text(f"SELECT * FROM {sealed.table}")).mappings():
            value = row[sealed.column]
            if sealed.purpose is not None and value is not None:
                bound = row[sealed.context] if sealed.context is not None else b""
                context = bound.bytes if isinstance(bound, UUID) else bound
                context = context.encode() if isinstance(context, str) else bytes(context)
                yield (
                    sealed.name,
                    keyring.open(sealed.purpose, bytes(value), context).decode("utf-8", "replace"),
                )
    for table, columns in tables:
        for row in tx.execute(text(f"SELECT * FROM {table}")).mappings():
            for column in columns:
                value = row[column]
                where = f"{table}.{column}"
                if isinstance(value, bytes | memoryview):
                    raw = bytes(value)
                    yield where, raw.decode("utf-8", "replace")
                    for cipher in ciphers.values():
                        if isinstance(row.get("id"), UUID):
                            yield where, opened(cipher, raw, table, column, row["id"])
                elif value is not None:
                    yield where, json.dumps(value, default=str)


def opened(cipher: FieldCipher, raw: bytes, table: str, column: str, row: UUID) -> str:
    try:
        return cipher.decrypt(raw, field_place(table, column, row))
    except (KeyringError, IndexError):
        return ""


def held(api: Served, databases: Databases) -> dict[str, set[str]]:
    """Where each planted value can still be read, with all the keys that the deployment holds."""
    with databases.superuser.begin() as tx:
        wrapped = tx.execute(
            text("SELECT id, wrapped_key FROM products.member WHERE wrapped_key IS NOT NULL")
        ).all()
        ciphers = {row.id: api.services.keyring.cipher(row.wrapped_key, row.id) for row in wrapped}
        found: dict[str, set[str]] = {value: set() for value in PLANTED}
        for where, shown in readable(tx, api.services.keyring, ciphers):
            for value in PLANTED:
                if value in shown or value.removeprefix("+") in shown:
                    found[value].add(where)
        return found


def books(databases: Databases) -> tuple[int, int]:
    with databases.auditor.read() as tx:
        report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
        assert report.ok, [*report.findings()]
        (postings,) = tx.execute(text("SELECT count(*), sum(amount) FROM ledger.posting")).all()
    return postings[0], postings[1]


def under_way(api: Served, me: Caller, member: str) -> str:
    """A payout that the rail has, and that is held no more."""
    (payee,) = me.get(f"/v1/members/{member}/payees").json()["data"]
    with api.services.worker.begin() as tx:
        sandbox.ensure_rails(tx, api.clock)
        payout = new_id()
        named = {
            "payout": payout,
            "link": parse_public_id("mem", member),
            "payee": parse_public_id("pye", payee["id"]),
            "now": api.clock.now(),
            "day": DAY,
        }
        tx.execute(text(A_PAYOUT), named)
        tx.execute(text("UPDATE products.payout SET state = 'in_transit'"))
    return public_id("pay", payout)


def test_everything_is_handed_over_and_then_gone(api: Served, databases: Databases) -> None:
    app = App(api, api.acme)
    member = person(api)
    me = app.member(member)
    path = f"/v1/members/{member}"
    sent(api, member, "R-1")
    payout = under_way(api, me, member)

    through_acme = me.get(f"{path}/export")
    assert through_acme.status_code == 200, through_acme.text
    whole = me.post(f"{path}/export", proven(api, member, "export", {}))
    assert whole.status_code == 200, whole.text
    (registration,) = whole.json()["registrations"]
    told = json.dumps(registration)
    assert [value for value in PLANTED if value not in told] == []
    assert registration["balances"]["products"][0]["settled"] == 20_000
    assert registration["remittances"][0]["trace"]["collected"] == 20_000
    assert any(statement["lines"] for statement in registration["statements"])
    (asked,) = registration["payouts"]
    assert (asked["payout"], asked["state"], asked["amount"]) == (payout, "in_transit", 1_000)
    assert api.acme.get(f"{path}/export").status_code == 403

    blocked = me.post(f"{path}/erasure", proven(api, member, "erasure", {}))
    assert (blocked.status_code, blocked.json()["code"]) == (409, "erasure_blocked")
    assert blocked.json()["reasons"] == ["balances", "match", "payouts"]
    with databases.superuser.begin() as tx:
        tx.execute(text("DELETE FROM products.payout"))
    back = {"reversed_at": "2026-03-02T09:30:00Z", "reason": "asked for"}
    remittance = registration["remittances"][0]["remittance"]
    reversal = api.acme.post(
        f"/v1/remittances/{remittance}/reversal", back, headers={"Idempotency-Key": "back"}
    )
    assert reversal.status_code == 200, reversal.text

    before = books(databases)
    assert all(held(api, databases).values())  # the search finds what is there
    missing = me.post(f"{path}/erasure", {"proof": {"challenge": "chl_" + "0" * 26, "code": "123456"}})
    assert (missing.status_code, missing.json()["code"]) == (422, "proof_refused")
    erased = me.post(f"{path}/erasure", proven(api, member, "erasure", {}))
    assert erased.status_code == 200, erased.text

    api.clock.advance(timedelta(days=91))
    with api.services.worker.begin() as tx:
        destroy_keys(tx, api.clock)
    assert {value: places for value, places in held(api, databases).items() if places} == {}
    assert books(databases) == before
    assert api.acme.authenticate().status_code == 200
    assert api.acme.get(path).status_code == 404
    assert api.acme.get("/v1/members?partner_reference=" + PARTNER_REFERENCE).json()["data"] == []
    # the phone is free for whoever comes
    assert api.acme.post("/v1/members", a_person(phone=PHONE)).status_code == 201
    with databases.superuser.begin() as tx:
        row = tx.execute(
            text(
                "SELECT m.wrapped_key FROM products.member m JOIN products.member_link l ON l.member_id = m.id"
                " WHERE l.id = :id"
            ),
            {"id": parse_public_id("mem", member)},
        ).one()
    assert row.wrapped_key is None


@pytest.mark.parametrize("waited", [timedelta(days=2), timedelta(days=20)])
def test_a_mandate_withdrawn_while_it_cools_off_gives_back_what_is_not_paid_in(
    api: Served, databases: Databases, waited: timedelta
) -> None:
    member: dict[str, Any] = api.acme.post("/v1/members", a_person(mandate=None)).json()
    path = f"/v1/members/{member['id']}"
    api.acme.post(f"{path}/enrolments", {"product": "savings"})
    with databases.superuser.begin() as tx:
        # as a programme with `cooling_off_days: 14` would have given it
        given = api.acme.post(f"{path}/consents", {"text_version": "2026-1", "language": "rw"}).json()
        tx.execute(
            text("UPDATE products.consent SET given_at = :at, cooling_off_until = :until WHERE id = :id"),
            {
                "id": parse_public_id("con", given["id"]),
                "at": api.clock.now() - timedelta(minutes=5),
                "until": api.clock.now() + timedelta(days=14),
            },
        )
    sent(api, member["id"], "R-1")
    api.clock.advance(waited)
    api.acme.authenticate()
    withdrawn = api.acme.call("PATCH", f"{path}/consents", {"state": "ended"})
    assert withdrawn.status_code == 200, withdrawn.text
    (remittance,) = api.acme.get("/v1/remittances?remittance_id=R-1").json()["data"]
    assert remittance["status"] == ("reversed" if waited < timedelta(days=14) else "posted")
    books(databases)
