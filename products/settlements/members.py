"""What a settlement means for members: pending becomes savings, and what sponsors committed to it is granted; and back."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
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
        self.settling: set[UUID] = set()

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
            self.settling.add(enrolment)
        self.count(totals, first)
        return self

    def set_off(self, posted_with: Collection[UUID]) -> None:
        """Let what settles first pay what its member owes, having spent what was taken back: pending to member receivable.

        ``posted_with``: the other accounts of the same `post`. Where a member owes anything, all of them are locked here in
        the one order, so that the debt stands still.
        """
        if not self._debts():
            return
        moved = [move for moves in self.by_enrolment.values() for move in moves]
        accounts = {account for debit, credit, _ in moved for account in (debit, credit)}
        owing = {receivable for receivable, _ in self._debts().values()}
        cursor(self.tx).execute(
            "SELECT ledger.lock_accounts(%b::uuid[])", (sorted({*posted_with, *accounts, *owing}),)
        )
        left: dict[UUID, int] = {}
        for enrolment, (receivable, owed) in self._debts().items():
            (waiting, savings, amount), *match = self.by_enrolment[enrolment]
            paid = min(amount, left.setdefault(receivable, owed))
            left[receivable] -= paid
            self.by_enrolment[enrolment] = [
                (waiting, receivable, paid),
                (waiting, savings, amount - paid),
                *match,
            ]

    def _debts(self) -> dict[UUID, tuple[UUID, int]]:
        """Of enrolments that something settles for, those whose member owes: the member's receivable, and how much."""
        rows = cursor(self.tx).execute(
            """SELECT e.id, m.receivable_account, b.debits - b.credits
               FROM products.enrolment e JOIN products.member m ON m.id = e.member_id
               JOIN ledger.account_balance b ON b.account_id = m.receivable_account
               WHERE e.id = ANY (%b::uuid[]) AND b.debits > b.credits ORDER BY e.id""",
            (sorted(self.settling),),
        )
        return {enrolment: (receivable, owed) for enrolment, receivable, owed in rows}

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
