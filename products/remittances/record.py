"""The remittance on record: claimed by its partner's id, written once with its decision, changed only in status."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg

from ledger.database import Tx, cursor
from ledger.ids import new_id
from products.keyring import Keyring
from products.members.models import InvalidPhone
from products.members.phones import e164
from products.members.registry import phone_index, reference_index
from products.remittances.events import MemberKey
from products.remittances.models import Contributed, Existing
from products.remittances.plan import Leg, Plan

# Columns with the types that binary COPY sends: half the time of text, here and in the server.
_REMITTANCE_COLUMNS = {
    "id": "uuid", "partner_id": "uuid", "remittance_id": "text", "status": "text", "reason": "text", "digest": "bytea",
    "programme_id": "uuid", "rule_version": "int4", "member_id": "uuid", "link_id": "uuid", "member_key": "bytea",
    "sent_amount": "int8", "sent_currency": "text", "received_amount": "int8", "received_currency": "text",
    "fee_amount": "int8", "fee_currency": "text", "collected_amount": "int8", "collected_currency": "text",
    "origin_country": "text", "destination_country": "text", "contributed_at": "timestamptz", "unapplied": "int8",
    "transaction_id": "uuid", "quote_id": "uuid", "delivery_id": "uuid", "trace": "text", "recorded_at": "timestamptz",
    "parked_account": "uuid", "parked_amount": "int8",
}  # fmt: skip
_CONTRIBUTION_COLUMNS = {
    "remittance": "uuid", "position": "int2", "partner_id": "uuid", "programme_id": "uuid", "destination": "text",
    "product": "text", "enrolment_id": "uuid", "member_id": "uuid", "fund_id": "uuid", "debited_account": "uuid",
    "credited_account": "uuid", "amount": "int8", "currency": "text", "contributed_at": "timestamptz",
    "contributed_on": "date", "window_start": "date", "tier": "int2", "entitled": "int8", "state": "text",
    "owed": "bool", "settlement_id": "uuid", "collected_on": "date", "fee": "int8", "guaranteed": "bool",
    "settlement_part": "int4",
}  # fmt: skip
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Claim:
    """The row that makes a remittance ours for this transaction; ``new``: nobody had claimed it before."""

    id: UUID
    new: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decided remittance on its way into the record.

    ``entitled`` holds each leg's change in entitlement; ``waiting`` what had been recorded without a member before and
    is allocated now.
    """

    id: UUID
    partner_id: UUID
    delivery_id: UUID | None
    plan: Plan
    digest: bytes
    member_key: bytes | None
    transaction_id: UUID | None
    entitled: tuple[int, ...]
    waiting: tuple[Contributed, ...]
    existing: Existing | None


def claim(tx: Tx, keys: Sequence[tuple[UUID, str]]) -> list[Claim]:
    """Claim remittances by (partner, the partner's id), each key once; waits for whoever holds one of them."""
    ordered = sorted(keys, key=lambda key: (key[0].bytes, key[1]))
    cur = cursor(tx)
    cur.execute(
        """INSERT INTO products.remittance_claim AS c (partner_id, remittance_id, id)
           SELECT p, r, i FROM unnest(%b::uuid[], %b::text[], %b::uuid[]) WITH ORDINALITY AS t (p, r, i, n) ORDER BY n
           ON CONFLICT (partner_id, remittance_id) DO UPDATE SET id = c.id
           RETURNING partner_id, remittance_id, id, xmax = 0""",
        ([key[0] for key in ordered], [key[1] for key in ordered], [new_id() for _ in ordered]),
        binary=True,
    )
    claims = {(partner, remittance): Claim(id_, new) for partner, remittance, id_, new in cur.fetchall()}
    return [claims[key] for key in keys]


def load_existing(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, Existing]:
    """What is on record under claims that were there before, by id. A claim may have no record: it was refused."""
    if not ids:
        return {}
    cur = cursor(tx)
    cur.execute(
        """SELECT id, partner_id, status, reason, digest, programme_id, member_id, link_id, transaction_id, reversed_at,
                  reversal_reason, parked_account
           FROM products.remittance WHERE id = ANY (%b)""",
        (list(ids),),
    )
    return {row[0]: Existing(*row) for row in cur.fetchall()}


def lock_contributions(tx: Tx, keys: Sequence[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
    """Lock contributions, given as (remittance, position), in order; read them in a statement of its own after this."""
    cursor(tx).execute(
        """SELECT 1 FROM products.contribution c JOIN unnest(%b::uuid[], %b::smallint[]) AS t (r, p)
           ON c.remittance = t.r AND c.position = t.p ORDER BY c.remittance, c.position FOR NO KEY UPDATE OF c""",
        ([key[0] for key in keys], [key[1] for key in keys]),
    )
    return set(keys)


def judge(
    known: Existing | None, digest: bytes
) -> tuple[Literal["quarantined", "duplicate"], str | None] | None:
    """Whether a completed event still has to be decided (None), or the verdict that its record already is.

    What waited (for its member, for the partner's money, for its original) is decided again when it comes again.
    """
    if known is None or known.status == "awaiting_original":
        return None
    if known.digest != digest:
        return "quarantined", "remittance_conflict"
    if known.status in ("unallocated", "parked"):
        return None
    return "duplicate", None


def write(tx: Tx, rows: Sequence[Recorded], now: datetime) -> None:
    """Write new remittances with their contributions, and what was decided again over its old record."""
    cur = cursor(tx)
    new = [row for row in rows if row.existing is None]
    if new:
        _copy(cur, "products.remittance", _REMITTANCE_COLUMNS, [_remittance(row, now) for row in new])
    for row in rows:
        if row.existing is not None:
            _rewrite(cur, row, now)
    allocated_at_last = [row.id for row in rows if row.waiting]
    if allocated_at_last:
        cur.execute(
            "UPDATE products.contribution SET state = 'reversed', owed = false"
            " WHERE remittance = ANY (%b) AND destination = 'unallocated'",
            (allocated_at_last,),
        )
    contributions = [values for row in rows for values in _contributions(row)]
    if contributions:
        _copy(cur, "products.contribution", _CONTRIBUTION_COLUMNS, contributions)


def write_waiting(tx: Tx, rows: Sequence[tuple[UUID, Plan]]) -> None:
    """Note for what remittances that went on waiting wait now: whose limit, and how much room they take there."""
    if not rows:
        return
    rooms = [plan.no_room for _, plan in rows]
    cursor(tx).execute(
        """UPDATE products.remittance r SET parked_account = t.a, parked_amount = t.n, reason = t.w
           FROM unnest(%b::uuid[], %b::uuid[], %b::bigint[], %b::text[]) AS t (id, a, n, w) WHERE r.id = t.id""",
        (
            [id_ for id_, _ in rows],
            [room.account if room else None for room in rooms],
            [room.amount if room else None for room in rooms],
            [plan.reason for _, plan in rows],
        ),
    )


def _copy(
    cur: psycopg.Cursor[tuple[Any, ...]],
    table: str,
    columns: Mapping[str, str],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    with cur.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([*columns.values()])
        for row in rows:
            copy.write_row(row)


def _remittance(row: Recorded, now: datetime) -> tuple[Any, ...]:
    plan, event = row.plan, row.plan.event
    return (
        row.id, row.partner_id, event.remittance_id, status_of(row), plan.reason, row.digest,
        plan.joined.programme_id if plan.joined else None, plan.rule_version,
        plan.member.member_id if plan.member else None, plan.member.link_id if plan.member else None, row.member_key,
        event.sent.amount, event.sent.currency, event.received.amount, event.received.currency,
        event.fee.amount if event.fee else None, event.fee.currency if event.fee else None,
        plan.collected, plan.joined.currency if plan.joined else None,
        event.origin_country, event.destination_country, event.completed_at, plan.unapplied, row.transaction_id,
        event.quote_id, row.delivery_id, _encode(plan.trace), now,
        plan.no_room.account if plan.no_room else None, plan.no_room.amount if plan.no_room else None,
    )  # fmt: skip


def status_of(row: Recorded) -> str:
    """The status that a decided remittance takes on record: one whose reversal came first is reversed at once."""
    return "reversed" if row.existing and row.existing.status == "awaiting_original" else row.plan.status


def _contributions(row: Recorded) -> list[tuple[Any, ...]]:
    plan, joined, member = row.plan, row.plan.joined, row.plan.member
    if row.transaction_id is None or joined is None:
        return []
    state, owed, settled_by, part = (
        ("settled" if joined.settles_at_once else "pending"),
        joined.owes,
        None,
        None,
    )
    guaranteed, first = joined.settles_at_once, 0
    if row.waiting:
        before = row.waiting[0]
        state, owed, settled_by, first = before.state, before.owed, before.settled_by, before.position + 1
        guaranteed, part = before.guaranteed, before.settlement_part
    agreed = joined.agreed
    collected_on = agreed.collected_on(plan.event.completed_at)
    fees = agreed.fees([leg.amount for leg in plan.legs])
    return [
        (
            row.id, first + position, row.partner_id, joined.programme_id, leg.destination, leg.product, leg.enrolment,
            member.member_id if member else None, leg.fund, leg.debited,
            credited_account(leg, settled=state == "settled"), leg.amount, joined.currency, plan.event.completed_at,
            plan.contributed_on, leg.window.start if leg.window else None, leg.tier, row.entitled[position], state, owed,
            settled_by, collected_on, fees[position], guaranteed, part,
        )
        for position, leg in enumerate(plan.legs)
    ]  # fmt: skip


def credited_account(leg: Leg, *, settled: bool) -> UUID:
    """Where a leg's money lies: savings wait in the pending account until the partner's settlement is paired."""
    if leg.accounts is None:
        return leg.credited
    return leg.accounts.savings if settled else leg.accounts.pending


def _rewrite(cur: psycopg.Cursor[tuple[Any, ...]], row: Recorded, now: datetime) -> None:
    columns = [
        column
        for column in _REMITTANCE_COLUMNS
        if column not in ("id", "partner_id", "remittance_id", "recorded_at")
    ]
    values = dict(zip(_REMITTANCE_COLUMNS, _remittance(row, now), strict=True))
    cur.execute(
        f"UPDATE products.remittance SET {', '.join(f'{column} = %({column})s' for column in columns)} WHERE id = %(id)s",
        values,
    )


def member_index(keyring: Keyring, partner_id: UUID, key: MemberKey) -> bytes | None:
    """How money without a member is found once its partner registers this key: by the registry's own blind index.

    None for what can never be registered: an id of ours that we did not give, a phone number that can't be one.
    """
    match key.kind:
        case "phone":
            try:
                return phone_index(keyring, partner_id, e164(key.value))
            except InvalidPhone:
                return None
        case "partner_reference":
            return reference_index(keyring, partner_id, key.value)
        case "id":
            return None
