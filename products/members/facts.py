"""The dated facts of members, at rest: added, never overwritten, their values encrypted under the member's key."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import new_id
from products.facts import Fact, FactScalar
from products.keyring import FieldCipher, field_place

TABLE = "products.member_fact"


def insert_facts(tx: Tx, partner_id: UUID, facts: Sequence[tuple[UUID, FieldCipher, Fact]]) -> None:
    """Record facts given as (member id, the member's cipher, fact), through a partner."""
    if not facts:
        return
    ids = [new_id() for _ in facts]
    cursor(tx).execute(
        "INSERT INTO products.member_fact (id, member_id, partner_id, name, value, since, evidence, recorded_at)"
        " SELECT id, member_id, %s, name, value, since, evidence, recorded_at"
        " FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bytea[], %s::date[], %s::text[], %s::timestamptz[])"
        " AS t (id, member_id, name, value, since, evidence, recorded_at)",
        (
            partner_id,
            ids,
            [member_id for member_id, _, _ in facts],
            [fact.name for _, _, fact in facts],
            [
                cipher.encrypt(to_text(fact.value), field_place(TABLE, "value", row))
                for row, (_, cipher, fact) in zip(ids, facts, strict=True)
            ],
            [fact.since for _, _, fact in facts],
            [fact.evidence for _, _, fact in facts],
            [fact.recorded_at for _, _, fact in facts],
        ),
    )


def read_facts(tx: Tx, cipher: FieldCipher, member_id: UUID) -> tuple[Fact, ...]:
    """A member's facts in the order they were recorded."""
    db = cursor(tx)
    db.execute(
        "SELECT id, name, value, since, recorded_at, evidence FROM products.member_fact WHERE member_id = %s ORDER BY id",
        (member_id,),
    )
    return tuple(
        Fact(
            name,
            from_text(cipher.decrypt(value, field_place(TABLE, "value", row))),
            since,
            recorded_at,
            evidence,
        )
        for row, name, value, since, recorded_at, evidence in db.fetchall()
    )


def to_text(value: FactScalar) -> str:
    """A fact's value as text that keeps its type: one letter, then the value."""
    match value:
        case bool():
            return f"b{int(value)}"
        case int():
            return f"i{value}"
        case date():
            return f"d{value.isoformat()}"
        case str():
            return f"s{value}"


def from_text(stored: str) -> FactScalar:
    """The value that `to_text` wrote."""
    kind, body = stored[0], stored[1:]
    if kind == "i":
        return int(body)
    if kind == "s":
        return body
    if kind == "d":
        return date.fromisoformat(body)
    return body == "1"
