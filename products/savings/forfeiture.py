"""Match that is lost because its savings leave by a way out that forfeits it, and its return when the payout does.

Lost is, in proportion to the savings that leave, what is not vested: what was granted, and what settled contributions have
earned and nobody has granted yet. It counts as met from then on, so that no later derivation grants it again. Posting table:
*match unvested | per forfeit_to*. What comes back awaits its sponsor's funds, and the queue grants it again.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ledger import periods
from ledger.accounts import open_accounts
from ledger.database import Tx, cursor
from ledger.ids import new_id, public_id
from ledger.posting import Posting, Transaction
from products import chart
from products.programmes.registry import Programmes
from products.remittances.context import Books, load_sponsors
from products.savings import shares
from products.savings.holdings import Holding, load_holdings
from products.savings.match import MatchBook, Sponsor, StateKey
from products.savings.shares import Share
from products.savings.states import MatchState, earned_by_settled

KIND: Final = "match_forfeited"
RESTORED: Final = "match_restored"


def losable(tx: Tx, programmes: Programmes, enrolment_id: UUID) -> int:
    """The match of an enrolment that leaving with everything would forfeit, in minor units. Locks nothing."""
    rows = (
        cursor(tx)
        .execute(
            """SELECT s.window_start, s.window_end, s.by_tier, s.settled_by_tier, s.entitled, s.rule_version, s.revision,
                      s.grants_on, s.window_over, p.slug, h.committed, h.unvested, h.vested, h.awaiting, h.certified,
                      h.forfeited
               FROM products.match_state s
               JOIN products.match_share h ON h.enrolment_id = s.enrolment_id AND h.window_start = s.window_start
               JOIN products.sponsor p ON p.id = h.sponsor_id
               WHERE s.enrolment_id = %s AND h.committed + h.unvested + h.awaiting > 0""",
            (enrolment_id,),
        )
        .fetchall()
    )
    holdings = load_holdings(tx, programmes, sorted({(enrolment_id, row[0]) for row in rows})) if rows else {}
    total = 0
    for start, *columns in rows:
        state, (slug, *parts) = MatchState(*columns[:8]), columns[8:]
        earned = dict(earned_by_settled(holdings[enrolment_id, start].match, state))
        total += shares.losable(Share(*parts), earned=earned.get(slug, 0))
    return total


def leave(tx: Tx, books: Books, payout_ids: Collection[UUID]) -> list[Transaction]:
    """The money of these payouts leaves the members' accounts: forfeit what goes with it.

    Answers the ledger transactions to post with the payouts' own, in one `post`: accounts are locked in one order there.
    None of them can be refused for want of funds. Payouts whose money has left already lose nothing more.
    """
    now = books.clock.now()
    rows = cursor(tx).execute(
        """UPDATE products.withdrawal SET left_at = %s
           WHERE payout_id = ANY (%b::uuid[]) AND left_at IS NULL AND undone_at IS NULL
           RETURNING payout_id, enrolment_id, forfeits""",
        (now, list(payout_ids)),
    )
    losing = sorted((enrolment, payout, amount) for payout, enrolment, amount in rows if amount)
    if not losing:
        return []
    work = _Work(tx, books, _windows(tx, {enrolment for enrolment, _, _ in losing}), now)
    lost: list[_Lost] = []
    for enrolment, payout, amount in losing:
        of_payout = list(work.lose(enrolment, payout, amount))
        lost += of_payout
        work.book(payout, enrolment, KIND, [posting for one in of_payout for posting in work.out(one)])
    work.save()
    cursor(tx).execute(
        """INSERT INTO products.forfeiture (payout_id, enrolment_id, window_start, sponsor_id, amount, received)
           SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::date[], %b::uuid[], %b::bigint[], %b::bigint[])""",
        (
            [one.payout for one in lost],
            [one.key[0] for one in lost],
            [one.key[1] for one in lost],
            [one.sponsor for one in lost],
            [one.amount for one in lost],
            [one.received for one in lost],
        ),
    )
    return work.transactions


def come_back(tx: Tx, books: Books, payout_ids: Collection[UUID]) -> list[Transaction]:
    """The money of these payouts is back in the members' accounts: give back what was forfeited with it.

    Answers the ledger transactions to post with the payouts' own, as `leave` does. What the member is no longer entitled to
    stays lost. Payouts whose money has not left, or is back already, change nothing.
    """
    now = books.clock.now()
    cur = cursor(tx)
    cur.execute(
        """UPDATE products.withdrawal SET left_at = NULL WHERE payout_id = ANY (%b::uuid[]) AND left_at IS NOT NULL
           RETURNING payout_id""",
        (list(payout_ids),),
    )
    back = [row[0] for row in cur.fetchall()]
    cur.execute(
        """DELETE FROM products.forfeiture WHERE payout_id = ANY (%b::uuid[])
           RETURNING payout_id, enrolment_id, window_start, sponsor_id, amount, received""",
        (back,),
    )
    lost = sorted(
        (
            _Lost(payout, (enrolment, start), sponsor, amount, received)
            for payout, enrolment, start, sponsor, amount, received in cur.fetchall()
        ),
        key=lambda one: (one.key, one.payout, one.sponsor),
    )
    if not lost:
        return []
    work = _Work(tx, books, sorted({one.key for one in lost}), now)
    by_payout: defaultdict[tuple[UUID, UUID], list[_Lost]] = defaultdict(list)
    for one in lost:
        work.give_back(one)
        by_payout[one.payout, one.key[0]].append(one)
    for (payout, enrolment), parts in sorted(by_payout.items()):
        work.book(payout, enrolment, RESTORED, [posting for one in parts for posting in work.back(one)])
    work.save()
    return work.transactions


@dataclass(frozen=True, slots=True)
class _Lost:
    """What one sponsor's match in a window loses; ``received`` of it had been granted and goes to who receives it."""

    payout: UUID
    key: StateKey
    sponsor: UUID
    amount: int
    received: int
    released: int = 0


def _windows(tx: Tx, enrolments: Collection[UUID]) -> list[StateKey]:
    rows = cursor(tx).execute(
        """SELECT DISTINCT enrolment_id, window_start FROM products.match_share
           WHERE enrolment_id = ANY (%b::uuid[]) AND committed + unvested + awaiting > 0 ORDER BY 1, 2""",
        (sorted(enrolments),),
    )
    return list(rows)


class _Work:
    """The windows that a batch of payouts touches: locked, changed in memory, saved once."""

    def __init__(self, tx: Tx, books: Books, keys: Sequence[StateKey], now: datetime) -> None:
        self._tx = tx
        self._now = now
        self._holdings = load_holdings(tx, books.programmes, keys) if keys else {}
        self._books: dict[UUID, MatchBook] = {}
        self._sponsors: dict[UUID, Sponsor] = {}
        self._receivers = _Receivers(tx, books.programmes)
        self.transactions: list[Transaction] = []
        programmes = sorted({one.programme_id for one in self._holdings.values()})
        for programme_id, sponsors in sorted(load_sponsors(tx, programmes).items()):
            here = {key: one for key, one in self._holdings.items() if one.programme_id == programme_id}
            match_book = MatchBook(sponsors)
            match_book.lock(tx, {key: one.lock_values for key, one in here.items()})
            self._books[programme_id] = match_book
            self._sponsors |= {one.id: one for one in sponsors.values()}

    def lose(self, enrolment: UUID, payout: UUID, amount: int) -> Iterator[_Lost]:
        """Take an amount out of an enrolment's windows and sponsors, from each in proportion to what it has there."""
        parts = [
            (key, sponsor, part)
            for key, one in sorted(self._holdings.items())
            if key[0] == enrolment
            for sponsor, part in sorted(self._books[one.programme_id].losable(key, one.match).items())
        ]
        whole = sum(part for _, _, part in parts)
        amount = min(amount, whole)
        through = taken = 0
        for key, sponsor, part in parts:
            through += part
            # differences of rounded cumulative parts add up to the whole, and none exceeds its part
            share = amount * through // whole - taken
            taken += share
            if share:
                one = self._holdings[key]
                moves = self._books[one.programme_id].forfeit(key, one.match, self._sponsors[sponsor], share)
                yield _Lost(payout, key, sponsor, share, moves.forfeit, moves.release)

    def give_back(self, lost: _Lost) -> None:
        """Let the member be entitled to what was lost again."""
        one = self._holdings[lost.key]
        self._books[one.programme_id].restore(
            lost.key, one.match, self._sponsors[lost.sponsor], lost.amount, at=self._now
        )

    def out(self, lost: _Lost) -> list[Posting]:
        """The postings of a loss: what was only committed is released, what was granted goes to who receives it."""
        one, sponsor = self._holdings[lost.key], self._sponsors[lost.sponsor]
        steps = [(sponsor.committed, sponsor.uncommitted, lost.released)]
        if one.match.forfeit_to == "sponsor":
            steps.append((one.accounts.unvested, sponsor.uncommitted, lost.received))
        else:
            received = self._receivers.of(one)
            steps += [(one.accounts.unvested, received.owed, lost.received)]
            steps += [(owing, income, lost.received) for owing, income in received.across]
        return [Posting(debit, credit, amount, one.currency) for debit, credit, amount in steps if amount]

    def back(self, lost: _Lost) -> list[Posting]:
        """The postings that take a loss back from who received it: the sponsor has it uncommitted then."""
        one, sponsor = self._holdings[lost.key], self._sponsors[lost.sponsor]
        if one.match.forfeit_to == "sponsor" or not lost.received:
            return []
        received = self._receivers.of(one)
        steps = [(income, owing) for owing, income in received.across] + [
            (received.owed, sponsor.uncommitted)
        ]
        return [Posting(debit, credit, lost.received, one.currency) for debit, credit in steps]

    def book(self, payout: UUID, enrolment: UUID, kind: str, postings: Sequence[Posting]) -> None:
        """Make a ledger transaction of what a payout's loss, or its return, posts in one enrolment."""
        if not postings:
            return
        one = next(one for key, one in self._holdings.items() if key[0] == enrolment)
        funds = [one.fund_id]
        if one.match.forfeit_to != "sponsor":
            funds = [*{one.fund_id, self._receivers.of(one).fund}]
        id_ = new_id()
        reference = f"{kind.replace('_', '-')}:{payout}:{id_}"
        day = periods.effective_day(self._now, one.time_zone)
        self.transactions.append(
            Transaction(
                reference=reference,
                kind=kind,
                effective_on=periods.open_day(self._tx, sorted(funds), day),
                postings=tuple(postings),
                digest=hashlib.sha256(reference.encode()).digest(),
                id=id_,
                details={"enrolment": public_id("enr", enrolment), "payout": public_id("pay", payout)},
            )
        )

    def save(self) -> None:
        """Write the windows back."""
        for _, match_book in sorted(self._books.items()):
            match_book.save(self._tx, self._now)


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Who receives what is forfeited and is not its sponsor.

    ``owed``: what is credited in the savers' fund. ``across``: debited and credited in the receiver's own fund, if that is
    another one.
    """

    fund: UUID
    owed: UUID
    across: tuple[tuple[UUID, UUID], ...]


class _Receivers:
    """The accounts of who receives what is forfeited, opened when first needed."""

    def __init__(self, tx: Tx, programmes: Programmes) -> None:
        self._tx = tx
        self._programmes = programmes
        self._known: dict[tuple[UUID, str], _Receiver] = {}

    def of(self, one: Holding) -> _Receiver:
        """Who receives what this holding forfeits; not for its sponsor."""
        at = one.programme_id, one.match.forfeit_to
        if at not in self._known:
            self._known[at] = self._find(one)
        return self._known[at]

    def _find(self, one: Holding) -> _Receiver:
        tx = self._tx
        if one.match.forfeit_to == "savers":
            return _Receiver(one.fund_id, self._account(one.fund_id, chart.RETURN_FOR_ALLOCATION, one), ())
        if one.match.forfeit_to == "pool":
            funds = chart.programme_funds(tx, one.programme_id)
            fund = next(fund for role, fund in sorted(funds.items()) if role.startswith("pool:"))
        else:
            programme = self._programmes.versions(tx, one.programme_id)[-1].programme
            fund = chart.open_administrator_fund(
                tx, programme.slug, programme.name, one.time_zone, one.currency
            )
        owing = self._account(fund, chart.DUE_FROM_FUNDS, one)
        income = self._account(fund, chart.FORFEITED_MATCH, one)
        return _Receiver(fund, self._account(one.fund_id, chart.DUE_TO_FUNDS, one), ((owing, income),))

    def _account(self, fund: UUID, code: chart.Code, one: Holding) -> UUID:
        return open_accounts(self._tx, [chart.spec(code, fund, "", one.currency)])[0]
