"""What paid for no whole contribution: it waits in unidentified receipts until a next payment of the partner needs it.

Whose it is is known; what it pays for is not. What the next payment needs of it becomes the partner's credit and is netted like
any other (`products.settlements.credit`), so that what a partner paid too much in February pays for March.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import new_id, public_id
from ledger.posting import Posting, Transaction
from products import chart
from products.remittances.context import Joined
from products.settlements import credit
from products.settlements.credit import Entry


@dataclass(frozen=True, slots=True)
class Leftover:
    """What is left of a settlement, in minor units, in the unidentified receipts of a fund; ``drawn_by`` the settlement that needs it."""

    settlement: UUID
    fund: UUID
    amount: int
    drawn_by: UUID | None = None


def leftovers(tx: Tx, joined: Joined, funds: Sequence[UUID] | None) -> list[Leftover]:
    """What is left of a partner's settlements that are done, oldest first; of those that lie in some funds, if they are named."""
    rows = cursor(tx).execute(
        """SELECT id, coalesce(cash_fund, %(savers)s), unidentified FROM products.settlement
           WHERE partner_id = %(partner)s AND programme_id = %(programme)s AND unidentified > 0 AND state = 'paired'
             AND kind = 'payment'
             AND (%(funds)s::uuid[] IS NULL OR coalesce(cash_fund, %(savers)s) = ANY (%(funds)s::uuid[]))
           ORDER BY recorded_at, id FOR NO KEY UPDATE""",
        {
            "savers": joined.savers,
            "partner": joined.partner_id,
            "programme": joined.programme_id,
            "funds": None if funds is None else list(funds),
        },
    )
    return [Leftover(*row) for row in rows]


def drawn(left: Sequence[Leftover], wanted: int, *, settlement: UUID) -> list[Leftover]:
    """As much of what is left as a settlement wants beside its own means, the oldest first."""
    taken = []
    for one in left:
        amount = min(one.amount, wanted)
        if amount > 0:
            taken.append(Leftover(one.settlement, one.fund, amount, settlement))
            wanted -= amount
    return taken


def carrying(joined: Joined, carried: Sequence[Leftover], on: date) -> list[Transaction]:
    """What moves: from unidentified receipts to the partner's receivable, where its credits lie."""
    return [
        Transaction(
            reference=f"settlement:{one.settlement}:carried:{one.drawn_by}",
            kind="settlement_carried",
            effective_on=on,
            postings=(
                Posting(
                    joined.account(one.fund, chart.UNIDENTIFIED_RECEIPTS, ""),
                    joined.account(one.fund, chart.PARTNER_RECEIVABLE),
                    one.amount,
                    joined.currency,
                ),
            ),
            digest=hashlib.sha256(f"{one.settlement}|{one.amount}".encode()).digest(),
            id=new_id(),
            details={"settlement": public_id("stl", one.settlement)},
        )
        for one in carried
    ]


def carry(tx: Tx, joined: Joined, carried: Sequence[Leftover], now: datetime) -> None:
    """Write down that what was left is the partner's credit."""
    if not carried:
        return
    cursor(tx).execute(
        """UPDATE products.settlement s SET carried = s.carried + t.amount, unidentified = s.unidentified - t.amount
           FROM unnest(%b::uuid[], %b::bigint[]) AS t (id, amount) WHERE s.id = t.id""",
        ([one.settlement for one in carried], [one.amount for one in carried]),
    )
    entries = [Entry(one.fund, one.amount, "carried", settlement=one.settlement) for one in carried]
    credit.write(tx, joined.partner_id, joined.programme_id, joined.currency, entries, now)
