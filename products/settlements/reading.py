"""Settlements as they are read: one, page by page, and what each paid for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.horizon import AFTER, SETTLED, START, Position
from ledger.ids import parse_public_id
from products.settlements.settlement import Kind, State


@dataclass(frozen=True, slots=True)
class Read:
    """A settlement on record. Amounts are minor units of ``currency``: see `products.settlements.settlement.Settlement`."""

    id: UUID
    partner_id: UUID
    partner: str
    programme_id: UUID
    programme: str
    reference: str
    kind: Kind
    state: State
    currency: str
    amount: int
    since: date | None
    through: date
    listed: bool
    paired: int
    fees: int
    credits: int
    unidentified: int
    topped_up: int
    carried: int
    contributions: int
    effective_on: date
    recorded_at: datetime
    returned_on: date | None
    return_reason: str | None
    position: Position


UNKNOWN: Final = "There is no such settlement."
"""What is said of a settlement that is not there, or not for whoever asks."""


@dataclass(frozen=True, slots=True)
class PaidFor:
    """A contribution that a settlement paid for: gross, and what of it the partner kept."""

    remittance: UUID
    position: int
    remittance_id: str
    fund: str
    product: str | None
    amount: int
    fee: int
    currency: str
    collected_on: date
    state: Literal["pending", "settled", "reversed"]


_READ: Final = """
    SELECT s.id, s.partner_id, p.slug, s.programme_id, g.slug, s.reference, s.kind, s.state, s.currency, s.amount, s.since,
           s.through, s.listed, s.paired, s.fees, s.credits, s.unidentified, s.topped_up, s.carried, s.contributions, s.effective_on,
           s.recorded_at, s.returned_on, s.return_reason, s.era, s.xid::text::bigint
    FROM (SELECT * FROM products.settlement WHERE {where}) s
    JOIN products.partner p ON p.id = s.partner_id JOIN products.programme g ON g.id = s.programme_id
"""


def settlement(tx: Tx, id_: UUID, *, partner_id: UUID | None) -> Read:
    """One settlement; of one partner, unless that is None. Raises NotFound."""
    rows = _rows(
        tx,
        "id = %(id)s AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)",
        {"id": id_, "partner": partner_id},
    )
    if not rows:
        raise NotFound(UNKNOWN)
    return rows[0]


def settlements(
    tx: Tx,
    *,
    partner_id: UUID | None,
    state: State | None = None,
    after: Position | None = None,
    limit: int = 50,
) -> list[Read]:
    """Settlements (of one partner) behind the settled horizon, in the order in which they were recorded."""
    return _rows(
        tx,
        f"""{AFTER} AND {SETTLED} AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)
            AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY era, xid, id LIMIT %(limit)s""",
        (after or START).parameters | {"partner": partner_id, "state": state, "limit": limit},
    )


def _rows(tx: Tx, where: str, parameters: dict[str, object]) -> list[Read]:
    cur = cursor(tx)
    cur.execute(f"{_READ.format(where=where)} ORDER BY s.era, s.xid, s.id", parameters)
    rows = [(*row[:-2], Position(row[-2], row[-1], row[0])) for row in cur.fetchall()]
    return [Read(*row) for row in rows]


def paid_for(
    tx: Tx, settlement_id: UUID, *, after: tuple[int, UUID, int] | None = None, limit: int = 50
) -> Sequence[tuple[tuple[int, UUID, int], PaidFor]]:
    """What a settlement paid for, in the order of its parts; each with its place, which a page goes on after."""
    part, remittance, position = after or (0, UUID(int=0), -1)
    cur = cursor(tx)
    cur.execute(
        """SELECT c.settlement_part, c.remittance, c.position, r.remittance_id, g.slug || '/' || f.role, c.product, c.amount,
                  c.fee, c.currency, c.collected_on, c.state
           FROM products.contribution c
           JOIN products.remittance r ON r.id = c.remittance
           JOIN products.programme_fund f ON f.fund_id = c.fund_id JOIN products.programme g ON g.id = c.programme_id
           WHERE c.settlement_id = %s AND (c.settlement_part, c.remittance, c.position) > (%s, %s, %s)
             -- what had no member then went on to the member's products, which stand here too
             AND NOT (c.destination = 'unallocated' AND EXISTS (
                 SELECT 1 FROM products.contribution n WHERE n.remittance = c.remittance AND n.position > c.position))
           ORDER BY c.settlement_part, c.remittance, c.position LIMIT %s""",
        (settlement_id, part, remittance, position, limit),
    )
    return [((row[0], row[1], row[2]), PaidFor(*row[1:])) for row in cur.fetchall()]


def latest(tx: Tx, *, partner_id: UUID | None, limit: int) -> list[Read]:
    """The latest settlements (of one partner), oldest of them first."""
    return _rows(
        tx,
        "(%(partner)s::uuid IS NULL OR partner_id = %(partner)s) ORDER BY era DESC, xid DESC, id DESC LIMIT %(limit)s",
        {"partner": partner_id, "limit": limit},
    )


def named(tx: Tx, partner_id: UUID, names: Sequence[str]) -> list[UUID]:
    """The remittances that a partner's own ids, or ours (`rmt_…`), name. Raises InvalidInput for what names none."""
    ours = {name: parse_public_id("rmt", name) for name in names if name.startswith("rmt_")}
    cur = cursor(tx)
    cur.execute(
        """SELECT remittance_id, id FROM products.remittance WHERE partner_id = %s
           AND (id = ANY (%b) OR remittance_id = ANY (%b))""",
        (partner_id, list(ours.values()), [name for name in names if name not in ours]),
    )
    found: dict[str, UUID] = dict(cur.fetchall())
    there = set(found.values())
    missing = [name for name in names if ours.get(name, found.get(name)) not in there]
    if missing:
        raise InvalidInput(f"the partner sent no remittance {', '.join(missing[:3])}", pointer="/remittances")
    return [ours.get(name) or found[name] for name in names]
