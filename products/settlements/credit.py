"""What funds owe a partner: what it paid in for what was reversed later, or beyond what it owed. It nets against the next settlement.

Signed entries by fund, whose sum is what the partner may leave out of its next payment. In the books a credit lies in the
partner's receivable: that is what it owes, less its credits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import new_id

Reason = Literal["reversed", "netted", "returned", "carried"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of what a fund owes a partner, in minor units of the programme's currency."""

    fund: UUID
    amount: int
    reason: Reason
    remittance: UUID | None = None
    position: int | None = None
    settlement: UUID | None = None
    part: int | None = None


def standing(tx: Tx, partner_id: UUID, programme_id: UUID) -> dict[UUID, int]:
    """A partner's credits in a programme by fund; negative where one that was netted proved void."""
    cur = cursor(tx)
    cur.execute(
        """SELECT fund_id, sum(amount)::bigint FROM products.settlement_credit
           WHERE partner_id = %s AND programme_id = %s GROUP BY fund_id HAVING sum(amount) <> 0""",
        (partner_id, programme_id),
    )
    found: dict[UUID, int] = dict(cur.fetchall())
    return found


def netted(tx: Tx, settlement: UUID, part: int) -> dict[UUID, int]:
    """What one part of a settlement left out of its payment, by fund."""
    cur = cursor(tx)
    cur.execute(
        """SELECT fund_id, (-sum(amount))::bigint FROM products.settlement_credit
           WHERE settlement_id = %s AND settlement_part = %s AND reason = 'netted' GROUP BY fund_id""",
        (settlement, part),
    )
    found: dict[UUID, int] = dict(cur.fetchall())
    return found


def write(
    tx: Tx, partner_id: UUID, programme_id: UUID, currency: str, entries: Sequence[Entry], now: datetime
) -> None:
    """Write entries down; those of nothing are left out."""
    some = [one for one in entries if one.amount]
    if not some:
        return
    cursor(tx).execute(
        """INSERT INTO products.settlement_credit (id, partner_id, programme_id, fund_id, currency, amount, reason, remittance,
                                                   position, settlement_id, settlement_part, recorded_at)
           SELECT t.id, %s, %s, t.f, %s, t.a, t.w, t.r, t.p, t.s, t.n, %s
           FROM unnest(%b::uuid[], %b::uuid[], %b::bigint[], %b::text[], %b::uuid[], %b::smallint[], %b::uuid[], %b::int[])
                AS t (id, f, a, w, r, p, s, n)""",
        (
            partner_id,
            programme_id,
            currency,
            now,
            [new_id() for _ in some],
            [one.fund for one in some],
            [one.amount for one in some],
            [one.reason for one in some],
            [one.remittance for one in some],
            [one.position for one in some],
            [one.settlement for one in some],
            [one.part for one in some],
        ),
    )
