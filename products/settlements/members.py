"""What a settlement means for members: pending becomes savings, and what sponsors committed to it is granted; and back."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from products.remittances.context import Books, Context, Joined
from products.savings.holdings import Holding, load_holdings
from products.savings.match import MatchBook, StateKey
from products.settlements.cash import Move


@dataclass(frozen=True, slots=True)
class Owed:
    """A contribution that a settlement pays for. Amounts are minor units of the programme's currency."""

    remittance: UUID
    position: int
    fund_id: UUID
    enrolment_id: UUID | None
    window_start: date | None
    tier: int | None
    amount: int
    fee: int
    state: str
    contributed_at: datetime
    contributed_on: date


class MembersMoves:
    """What settling contributions, or taking that back, moves on members' and sponsors' accounts, enrolment by enrolment."""

    def __init__(self, tx: Tx, books: Books, joined: Joined, context: Context) -> None:
        self.tx = tx
        self.books = books
        self.joined = joined
        self.match_book = MatchBook(context.sponsors[joined.programme_id])
        self.by_enrolment: dict[UUID, list[Move]] = {}

    def settled(self, pending: Sequence[Owed]) -> "MembersMoves":
        """What pending contributions become: savings, and match that is granted."""
        accounts = self._accounts([one.enrolment_id for one in pending if one.enrolment_id is not None])
        amounts: defaultdict[UUID, int] = defaultdict(int)
        totals: defaultdict[tuple[StateKey, int], int] = defaultdict(int)
        first: dict[tuple[StateKey, int], datetime] = {}
        for one in pending:
            if one.enrolment_id is None or one.enrolment_id not in accounts:
                continue
            amounts[one.enrolment_id] += one.amount
            if one.window_start is not None and one.tier is not None:
                counted = (one.enrolment_id, one.window_start), one.tier
                totals[counted] += one.amount
                first.setdefault(counted, one.contributed_at)
        for enrolment, amount in amounts.items():
            waiting, savings = accounts[enrolment]
            self.by_enrolment[enrolment] = [(waiting, savings, amount)]
        self.count(totals, first)
        return self

    def count(
        self, totals: Mapping[tuple[StateKey, int], int], at: Mapping[tuple[StateKey, int], datetime]
    ) -> None:
        """Add to what is settled by window and tier (negative: take from it), and move the match that this means."""
        keys = sorted({key for key, _ in totals})
        holdings: Mapping[StateKey, Holding] = (
            load_holdings(self.tx, self.books.programmes, keys) if keys else {}
        )
        self.match_book.lock(self.tx, {key: holding.lock_values for key, holding in holdings.items()})
        for (key, tier), amount in totals.items():
            holding = holdings[key]
            moved, _ = self.match_book.change(
                key,
                holding.match,
                holding.accounts,
                holding.currency,
                tier=tier,
                contributed=0,
                settled=amount,
                at=at[key, tier],
            )
            self.by_enrolment[key[0]] = merged(
                [*self.by_enrolment.get(key[0], ()), *((one.debit, one.credit, one.amount) for one in moved)]
            )

    def _accounts(self, enrolments: Sequence[UUID]) -> dict[UUID, tuple[UUID, UUID]]:
        cur = cursor(self.tx)
        cur.execute(
            """SELECT id, pending_account, savings_account FROM products.enrolment
               WHERE id = ANY (%b) AND pending_account IS NOT NULL""",
            (sorted(set(enrolments)),),
        )
        found: list[Any] = cur.fetchall()
        return {row[0]: (row[1], row[2]) for row in found}


def merged(moves: Sequence[Move]) -> list[Move]:
    """Moves between the same two accounts made one, in the order in which the pairs first occur."""
    amounts: dict[tuple[UUID, UUID], int] = {}
    for debit, credit, amount in moves:
        amounts[debit, credit] = amounts.get((debit, credit), 0) + amount
    return [(debit, credit, amount) for (debit, credit), amount in amounts.items()]
