"""A settlement that the bank takes back: contributions are pending again, match that was granted is committed again.

All that the settlement posted is reversed, part by part, each in a database transaction of its own and linked to what it
reverses: `paired → returning → returned`. The partner owes it again. What a member has spent meanwhile the member owes; match
that has vested stays vested, as it never falls by itself. The same contributions can be settled again, by another settlement.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id, public_id
from ledger.outbox import Message, publish
from ledger.posting import Posting, Transaction, post
from products import chart
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books, Context, Joined, load_context
from products.savings.match import StateKey
from products.settlements import cash, credit
from products.settlements.bearers import administrator, bearing
from products.settlements.cash import Move
from products.settlements.credit import Entry
from products.settlements.limits import make_room
from products.settlements.members import MembersMoves
from products.settlements.settlement import Settlement, by_id, lock
from products.settlements.terms import ADMINISTRATOR


class NotReturnable(Conflict):
    """A settlement that is not paired yet, or in which nothing was paid, can't be returned."""

    code = "not_returnable"


@dataclass(frozen=True, slots=True)
class _Taken:
    """A contribution that the part paid for, as it stands now; ``savings``, ``waiting``, ``owes``: the member's accounts."""

    remittance: UUID
    position: int
    fund_id: UUID
    enrolment_id: UUID | None
    window_start: date | None
    tier: int | None
    amount: int
    fee: int
    state: str
    guaranteed: bool
    contributed_at: datetime
    savings: UUID | None
    waiting: UUID | None
    owes: UUID | None

    @property
    def moves(self) -> bool:
        """Whether it goes back from the member's savings to what waits."""
        return self.state == "settled" and not self.guaranteed and self.savings is not None


def return_settlement(tx: Tx, books: Books, settlement_id: UUID, *, reason: str) -> Settlement:
    """Take a paired settlement back, its first part here; the rest is `return_next`'s. Taking it back twice changes nothing.

    Raises NotFound, `NotReturnable`.
    """
    partner_id, programme_id, found = _locked(tx, settlement_id)
    if found.state in ("returning", "returned"):
        return replace(found, replayed=True)
    if found.kind != "payment" or found.state != "paired":
        raise NotReturnable("only what a partner paid, and what is paired, can be returned")
    context = load_context(tx, books, [partner_id])
    returning = _Returning(tx, books, context, context.joined_in(partner_id, programme_id), found)
    tx.execute(
        text(
            "UPDATE products.settlement SET state = 'returning', return_reason = :why, returned_on = :on WHERE id = :id"
        ),
        {"why": reason, "on": returning.on, "id": settlement_id},
    )
    returning.give_back_the_rest()
    return_next(tx, books, settlement_id)
    return by_id(tx, settlement_id)


def return_next(tx: Tx, books: Books, settlement_id: UUID) -> bool:
    """Take the next part of a returning settlement back; whether there is more."""
    partner_id, programme_id, found = _locked(tx, settlement_id)
    if found.state != "returning":
        return False
    context = load_context(tx, books, [partner_id])
    returning = _Returning(tx, books, context, context.joined_in(partner_id, programme_id), found)
    parts = tx.execute(
        text(
            "SELECT number, cash FROM products.settlement_part WHERE settlement_id = :id AND returned_at IS NULL"
            " AND contributions > 0 ORDER BY number LIMIT 2"
        ),
        {"id": settlement_id},
    ).all()
    if parts:
        returning.take_back(
            parts[0].number, parts[0].cash, MembersMoves(tx, books, returning.joined, context)
        )
        tx.execute(
            text(
                "UPDATE products.settlement_part SET returned_at = :now WHERE settlement_id = :id AND number = :number"
            ),
            {"now": returning.now, "id": settlement_id, "number": parts[0].number},
        )
    if len(parts) < 2:
        tx.execute(
            text("UPDATE products.settlement SET state = 'returned' WHERE id = :id"), {"id": settlement_id}
        )
        told = {"settlement": public_id("stl", settlement_id), "partner": public_id("ptn", partner_id)}
        publish(tx, [Message("settlement.returned", told["partner"], told)])
    return len(parts) == 2


def unfinished(tx: Tx) -> list[UUID]:
    """Settlements that are being returned."""
    rows = tx.execute(
        text("SELECT id FROM products.settlement WHERE state = 'returning' ORDER BY recorded_at, id")
    )
    return list(rows.scalars())


def _locked(tx: Tx, settlement_id: UUID) -> tuple[UUID, UUID, Settlement]:
    row = tx.execute(
        text("SELECT partner_id, programme_id FROM products.settlement WHERE id = :id"), {"id": settlement_id}
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such settlement.")
    lock(tx, row.partner_id, row.programme_id)
    return row.partner_id, row.programme_id, by_id(tx, settlement_id)


class _Returning:
    """A settlement on its way back."""

    def __init__(
        self, tx: Tx, books: Books, context: Context, joined: Joined, settlement: Settlement
    ) -> None:
        self.tx = tx
        self.books = books
        self.joined = joined
        self.settlement = settlement
        self.now = books.clock.now()
        self.by = administrator(tx, joined.programme_id)
        zone = context.versions[joined.programme_id][-1].programme.time_zone
        funds = sorted([*joined.funds.values(), self.by.fund])
        self.on = periods.open_day(tx, funds, periods.effective_day(self.now, zone))

    def give_back_the_rest(self) -> None:
        """What paid for nothing leaves unidentified receipts, or the prefund.

        A prefund that is spent is owed again, and so is what became the partner's credit when it paid again.
        """
        joined = self.joined
        home = self.settlement.cash_fund or joined.savers
        bank = joined.account(home, chart.BANK, "")
        receivable = joined.account(home, chart.PARTNER_RECEIVABLE)
        prefund = joined.account(joined.savers, chart.PARTNER_PREFUND)
        unidentified = joined.account(home, chart.UNIDENTIFIED_RECEIPTS, "")
        topped_up, carried = self.settlement.topped_up, self.settlement.carried
        make_room(self.tx, {receivable: topped_up + carried})
        postings = (
            Posting(unidentified, bank, self.settlement.unidentified, joined.currency),
            Posting(prefund, bank, topped_up, joined.currency, receivable),
            Posting(receivable, bank, carried, joined.currency),
        )
        transaction = self._transaction("returned:rest", tuple(one for one in postings if one.amount), None)
        if not transaction.postings:
            return
        [outcome] = post(self.tx, [transaction], clock=self.books.clock)
        if outcome.status != "posted":
            raise BooksRefused(outcome)
        # the postings are told where the prefund might have fallen short
        spent = sum(one.amount for one in outcome.postings or postings if one.debit == receivable)
        self._write_credits([Entry(home, -spent, "returned", settlement=self.settlement.id)])

    def take_back(self, number: int, booked: UUID, members: MembersMoves) -> None:
        """Take one part back: its cash, its fees, its credits, and what it was for its members."""
        taken = self._load(number)
        live = [one for one in taken if one.state != "reversed"]
        gone = [one for one in taken if one.state == "reversed"]
        netted = credit.netted(self.tx, self.settlement.id, number)
        due: defaultdict[UUID, int] = defaultdict(int)
        owed: defaultdict[UUID, int] = defaultdict(int)
        fees: defaultdict[tuple[UUID, str], int] = defaultdict(int)
        for one in taken:
            due[one.fund_id] += one.amount - one.fee
            owed[one.fund_id] += one.amount
        for one in live:
            fees[one.fund_id, ADMINISTRATOR] += one.fee
        for fund, amount in netted.items():
            due[fund] -= amount
        joined = self.joined
        make_room(
            self.tx, {joined.account(fund, chart.PARTNER_RECEIVABLE): amount for fund, amount in owed.items()}
        )
        shares = self._cash(booked)
        there = [
            *((joined.account(fund, chart.BANK, ""), joined.account(fund, chart.UNIDENTIFIED_RECEIPTS, ""), amount)
              for fund, amount in sorted(shares.items())),
            *cash.paying(joined, due, shares),
            *bearing(self.tx, joined, self.by, {key: amount for key, amount in fees.items() if amount}, "fee"),
        ]  # fmt: skip
        back = [(credited, debited, amount) for debited, credited, amount in reversed(there)]
        self._post(number, booked, back, [one for one in live if one.moves], members)
        self._mark(live, gone)
        self._write_credits(
            [
                *(
                    Entry(one.fund_id, one.fee - one.amount, "returned", one.remittance, one.position)
                    for one in gone
                ),
                *(
                    Entry(fund, amount, "returned", settlement=self.settlement.id)
                    for fund, amount in netted.items()
                ),
            ]
        )

    def _load(self, number: int) -> list[_Taken]:
        cur = cursor(self.tx)
        cur.execute(
            """SELECT 1 FROM products.contribution WHERE settlement_id = %s AND settlement_part = %s
               ORDER BY remittance, position FOR NO KEY UPDATE""",
            (self.settlement.id, number),
        )
        cur.execute(
            """SELECT c.remittance, c.position, c.fund_id, c.enrolment_id, c.window_start, c.tier, c.amount, c.fee, c.state,
                      c.guaranteed, c.contributed_at, e.savings_account, e.pending_account, m.receivable_account
               FROM products.contribution c
               LEFT JOIN products.enrolment e ON e.id = c.enrolment_id
               LEFT JOIN products.member m ON m.id = e.member_id
               WHERE c.settlement_id = %s AND c.settlement_part = %s
                 -- what had no member then went on to the member's products, which stand here too
                 AND NOT (c.destination = 'unallocated' AND EXISTS (
                     SELECT 1 FROM products.contribution n WHERE n.remittance = c.remittance AND n.position > c.position))
               ORDER BY c.remittance, c.position""",
            (self.settlement.id, number),
        )
        return [_Taken(*row) for row in cur.fetchall()]

    def _cash(self, booked: UUID) -> Mapping[UUID, int]:
        """What of the part's cash went to each fund; a fund that got something later got it from the others."""
        cur = cursor(self.tx)
        cur.execute(
            """SELECT debited.fund_id, sum(p.amount)::bigint FROM ledger.posting p
               JOIN ledger.account debited ON debited.id = p.debit_account AND debited.code = %s
               JOIN ledger.account credited ON credited.id = p.credit_account AND credited.code = ANY (%s)
               WHERE p.transaction_id = %s GROUP BY 1""",
            (
                chart.UNIDENTIFIED_RECEIPTS.name,
                [chart.PARTNER_RECEIVABLE.name, chart.DUE_TO_FUNDS.name],
                booked,
            ),
        )
        found: dict[UUID, int] = dict(cur.fetchall())
        return found

    def _post(
        self, number: int, booked: UUID, back: Sequence[Move], moving: Sequence[_Taken], members: MembersMoves
    ) -> None:
        totals: defaultdict[tuple[StateKey, int], int] = defaultdict(int)
        at: dict[tuple[StateKey, int], datetime] = {}
        savings: defaultdict[UUID, int] = defaultdict(int)
        for one in moving:
            if one.enrolment_id is None:
                continue
            savings[one.enrolment_id] += one.amount
            if one.window_start is not None and one.tier is not None:
                counted = (one.enrolment_id, one.window_start), one.tier
                totals[counted] -= one.amount
                at.setdefault(counted, one.contributed_at)
        members.count(totals, at)
        accounts = {one.enrolment_id: one for one in moving}
        originals = self._originals(number, savings)
        currency = self.joined.currency
        batch = [
            self._transaction(
                f"returned:{number}:cash",
                tuple(
                    Posting(debit, credited, amount, currency) for debit, credited, amount in back if amount
                ),
                booked,
            )
        ]
        for enrolment, amount in sorted(savings.items()):
            of = accounts[enrolment]
            if of.savings is None or of.waiting is None:
                continue
            postings = (
                *(Posting(*move, currency) for move in members.by_enrolment.get(enrolment, ())),
                Posting(of.savings, of.waiting, amount, currency, of.owes),
            )
            batch.append(
                self._transaction(f"returned:{number}:{enrolment}", postings, originals.get(enrolment))
            )
        post_whole(self.tx, batch, clock=self.books.clock)
        members.match_book.save(self.tx, self.now)
        settlement = public_id("stl", self.settlement.id)
        publish(
            self.tx,
            [
                Message(
                    "contributions.returned",
                    str(one),
                    {"enrolment": public_id("enr", one), "settlement": settlement},
                )
                for one in sorted(savings)
            ],
        )

    def _originals(self, number: int, enrolments: Iterable[UUID]) -> dict[UUID, UUID]:
        """What settled the contributions of these enrolments in a part."""
        prefix = f"settlement:{self.settlement.id}:{number}:"
        cur = cursor(self.tx)
        cur.execute(
            "SELECT reference, transaction_id FROM ledger.reference WHERE reference = ANY (%b)",
            ([f"{prefix}{one}" for one in enrolments],),
        )
        return {
            UUID(reference.removeprefix(prefix)): transaction for reference, transaction in cur.fetchall()
        }

    def _mark(self, live: Sequence[_Taken], gone: Sequence[_Taken]) -> None:
        cursor(self.tx).execute(
            """UPDATE products.contribution c
               SET owed = t.live, settlement_id = NULL, settlement_part = NULL,
                   state = CASE WHEN NOT t.live OR c.guaranteed THEN c.state ELSE 'pending' END,
                   credited_account = CASE WHEN NOT t.live OR c.guaranteed THEN c.credited_account ELSE coalesce(
                       (SELECT e.pending_account FROM products.enrolment e WHERE e.id = c.enrolment_id),
                       c.credited_account) END
               FROM unnest(%b::uuid[], %b::smallint[], %b::bool[]) AS t (r, p, live)
               WHERE c.remittance = t.r AND c.position = t.p""",
            (
                [one.remittance for one in (*live, *gone)],
                [one.position for one in (*live, *gone)],
                [True] * len(live) + [False] * len(gone),
            ),
        )

    def _transaction(self, part: str, postings: tuple[Posting, ...], reverses: UUID | None) -> Transaction:
        reference = f"settlement:{self.settlement.id}:{part}"
        return Transaction(
            reference=reference,
            kind="settlement_returned",
            effective_on=self.on,
            postings=postings,
            digest=hashlib.sha256(reference.encode()).digest(),
            id=new_id(),
            reverses=reverses,
            details={"settlement": public_id("stl", self.settlement.id)},
        )

    def _write_credits(self, entries: Sequence[Entry]) -> None:
        joined = self.joined
        credit.write(self.tx, joined.partner_id, joined.programme_id, joined.currency, entries, self.now)
