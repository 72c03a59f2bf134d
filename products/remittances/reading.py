"""Remittances as they are read: each with its parts, by id, by the partner's own id, or page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.horizon import AFTER, SETTLED, START, Position
from ledger.money import Money


@dataclass(frozen=True, slots=True)
class Allocated:
    """A product's part of a remittance, and the match that it earned when it was decided; minor units."""

    product: str
    amount: int
    entitled: int
    currency: str


@dataclass(frozen=True, slots=True)
class Read:
    """A remittance on record. `link_id` is the partner's id of the member; amounts are None until they are known."""

    id: UUID
    partner_id: UUID
    remittance_id: str
    status: str
    reason: str | None
    link_id: UUID | None
    sent: Money | None
    received: Money
    collected: Money | None
    unapplied: int
    contributed_at: datetime
    reversed_at: datetime | None
    transaction_id: UUID | None
    recorded_at: datetime
    allocations: tuple[Allocated, ...]
    position: Position


# What was taken back before it came has no content yet: it is not a remittance until its original arrives.
_KNOWN = "status <> 'awaiting_original'"
_COLUMNS = (
    "id, partner_id, remittance_id, status, reason, link_id, sent_amount, sent_currency, received_amount,"
    " received_currency, collected_amount, collected_currency, unapplied, contributed_at, reversed_at, transaction_id,"
    " recorded_at, era, xid::text::bigint"
)


def remittance(tx: Tx, id_: UUID, *, partner_id: UUID | None) -> Read:
    """One remittance; of one partner, unless that is None. Raises NotFound."""
    rows = _rows(
        tx,
        f"id = %(id)s AND {_KNOWN} AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)",
        {"id": id_, "partner": partner_id},
    )
    if not rows:
        raise NotFound("There is no such remittance.")
    return rows[0]


def remittances_of(tx: Tx, ids: Sequence[UUID]) -> list[Read]:
    """The remittances of these ids, in no order; without those that only their reversal has come of."""
    return _rows(tx, f"id = ANY (%(ids)s) AND {_KNOWN}", {"ids": list(ids)}) if ids else []


def remittances(
    tx: Tx,
    *,
    partner_id: UUID | None,
    remittance_id: str | None = None,
    after: Position | None = None,
    limit: int = 50,
) -> list[Read]:
    """Remittances behind the settled horizon in their order, or at once the one of a partner's own id."""
    parameters: dict[str, Any] = {"partner": partner_id, "remittance": remittance_id, "limit": limit}
    own = f"{_KNOWN} AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)"
    if remittance_id is not None:
        # looked up, not followed: what is asked for by name is shown as soon as it is there
        parameters["ids"] = _claimed(tx, remittance_id, partner_id)
        where = f"{own} AND id = ANY (%(ids)s) AND {AFTER} ORDER BY era, xid, id LIMIT %(limit)s"
    else:
        where = f"{own} AND {SETTLED} AND {AFTER} ORDER BY era, xid, id LIMIT %(limit)s"
    return _rows(tx, where, {**parameters, **(after or START).parameters})


def _claimed(tx: Tx, remittance_id: str, partner_id: UUID | None) -> list[UUID]:
    # For staff every partner is looked up: few partners, and one step down the same index for each.
    rows = cursor(tx).execute(
        """SELECT id FROM products.remittance_claim
           WHERE remittance_id = %(id)s AND partner_id = ANY (
               CASE WHEN %(partner)s::uuid IS NULL THEN ARRAY(SELECT id FROM products.partner)
                    ELSE ARRAY[%(partner)s::uuid] END)""",
        {"id": remittance_id, "partner": partner_id},
    )
    return [row[0] for row in rows]


def _rows(tx: Tx, where: str, parameters: dict[str, Any]) -> list[Read]:
    rows = (
        cursor(tx).execute(f"SELECT {_COLUMNS} FROM products.remittance WHERE {where}", parameters).fetchall()
    )
    parts = _parts(tx, [row[0] for row in rows])
    return [
        Read(
            row[0],
            row[1],
            row[2],
            row[3],
            row[4],
            row[5],
            _money(row[6], row[7]),
            Money(row[8], row[9]),
            _money(row[10], row[11]),
            row[12],
            row[13],
            row[14],
            row[15],
            row[16],
            tuple(parts.get(row[0], ())),
            Position(row[17], row[18], row[0]),
        )
        for row in rows
    ]


def _parts(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, list[Allocated]]:
    rows = cursor(tx).execute(
        "SELECT remittance, product, amount, entitled, currency FROM products.contribution"
        " WHERE remittance = ANY (%s) AND product IS NOT NULL ORDER BY remittance, position",
        (list(ids),),
    )
    parts: dict[UUID, list[Allocated]] = {}
    for id_, product, amount, entitled, currency in rows:
        parts.setdefault(id_, []).append(Allocated(product, amount, entitled, currency))
    return parts


def _money(amount: int | None, currency: str | None) -> Money | None:
    return None if amount is None or currency is None else Money(amount, currency)
