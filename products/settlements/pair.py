"""A partner pays in what it collected: pending contributions become savings, and the match they earned is granted.

The cash first lands in unidentified receipts and is paired from there with the oldest contributions owed, each whole;
what covers no whole contribution stays unidentified. A prefunded partner owes nothing: its payment tops up its prefund.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput
from ledger.ids import new_id, public_id
from ledger.money import AMOUNT_MAX
from ledger.outbox import Message, publish
from ledger.posting import Posting, Transaction
from products import chart
from products.posting import post_whole
from products.remittances.context import Books, Context, Joined, load_context
from products.remittances.partners import Partner
from products.remittances.record import lock_contributions
from products.savings.holdings import Holding, load_holdings
from products.savings.match import MatchBook, StateKey


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settlement did. Amounts are minor units of ``currency``; ``paired`` + ``unidentified`` = ``amount``."""

    id: UUID
    partner: str
    currency: str
    amount: int
    through: date
    paired: int
    unidentified: int
    contributions: int
    topped_up: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Owed:
    """A contribution that this settlement pays for."""

    remittance: UUID
    position: int
    fund_id: UUID
    enrolment_id: UUID | None
    window_start: date | None
    tier: int | None
    amount: int
    state: str
    credited: UUID
    contributed_at: datetime


def record_settlement(
    tx: Tx,
    books: Books,
    partner: Partner,
    *,
    currency: str,
    amount: int,
    through: date,
    reference: str | None = None,
) -> Settlement:
    """Record that a partner paid ``amount`` for what it collected up to and including a local date.

    The reference (default: partner, currency, amount and date) makes it happen once; the same again changes nothing,
    another amount under it is a Conflict. Raises InvalidInput for an amount or a currency that can't be.
    """
    if not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput(f"an amount is between 1 and {AMOUNT_MAX} minor units", pointer="/amount")
    context = load_context(tx, books, [partner.id])
    joined = context.programme_of(partner.id, currency)
    if joined is None:
        raise InvalidInput(f"{partner.slug} collects nothing in {currency}", pointer="/currency")
    reference = reference or f"{partner.slug}:{currency}:{amount}:{through.isoformat()}"
    tx.execute(
        text(
            "SELECT 1 FROM products.partner_programme WHERE partner_id = :p AND programme_id = :g FOR NO KEY UPDATE"
        ),
        {"p": partner.id, "g": joined.programme_id},
    )
    known = _known(tx, partner, reference)
    if known is not None:
        if (known.currency, known.amount, known.through) != (currency, amount, through):
            raise Conflict(f"settlement “{reference}” is on record with another amount or date")
        return known
    return Settling(tx, books, partner, joined, context, amount, through, reference).run()


def _known(tx: Tx, partner: Partner, reference: str) -> Settlement | None:
    row = tx.execute(
        text(
            "SELECT id, currency, amount, through, paired, unidentified, contributions FROM products.settlement"
            " WHERE partner_id = :partner AND reference = :reference"
        ),
        {"partner": partner.id, "reference": reference},
    ).one_or_none()
    if row is None:
        return None
    topped_up = row.amount - row.paired - row.unidentified
    return Settlement(
        row.id, partner.slug, row.currency, row.amount, row.through, row.paired, row.unidentified, row.contributions,
        topped_up, replayed=True,
    )  # fmt: skip


class Settling:
    """One settlement on its way through the books. What brings the money in is `_received`."""

    def __init__(
        self,
        tx: Tx,
        books: Books,
        partner: Partner,
        joined: Joined,
        context: Context,
        amount: int,
        through: date,
        reference: str,
    ) -> None:
        self.tx = tx
        self.books = books
        self.partner = partner
        self.joined = joined
        self.context = context
        self.amount = amount
        self.through = through
        self.reference = reference
        self.id = new_id()
        self.now = books.clock.now()
        zone = context.versions[joined.programme_id][-1].programme.time_zone
        funds = sorted(joined.funds.values())
        self.on = periods.open_day(tx, funds, periods.effective_day(self.now, zone))

    def run(self) -> Settlement:
        if self.joined.terms == "prefunded":
            prefund = self.joined.account(self.joined.savers, chart.PARTNER_PREFUND)
            self._post([self._cash([(self._bank(self.joined.savers), prefund, self.amount)])])
            return self._record(paired=0, unidentified=0, contributions=0)
        owed = self._owed()
        paid: defaultdict[UUID, int] = defaultdict(int)
        for one in owed:
            paid[one.fund_id] += one.amount
        paired = sum(paid.values())
        received = self._received(paid, self.amount - paired)
        self._settle_members([one for one in owed if one.state == "pending"], received)
        self._mark(owed)
        return self._record(paired=paired, unidentified=self.amount - paired, contributions=len(owed))

    def _owed(self) -> list[_Owed]:
        """The oldest contributions that the amount covers, each whole, locked: no reversal takes them back meanwhile."""
        locked: set[tuple[UUID, int]] = set()
        while True:
            owed = self._covered()
            wanted = [(one.remittance, one.position) for one in owed]
            if locked.issuperset(wanted):
                return owed
            # Whoever held them may have taken some back: what the amount covers is asked again, until it stands still.
            locked |= lock_contributions(self.tx, wanted)

    def _covered(self) -> list[_Owed]:
        cur = cursor(self.tx)
        cur.execute(
            """SELECT remittance, position, fund_id, enrolment_id, window_start, tier, amount, state, credited_account,
                      contributed_at
               FROM (SELECT *, sum(amount) OVER (ORDER BY contributed_at, remittance, position) AS through_here
                     FROM products.contribution
                     WHERE partner_id = %s AND programme_id = %s AND currency = %s AND owed AND contributed_on <= %s) c
               WHERE through_here <= %s ORDER BY contributed_at, remittance, position""",
            (self.partner.id, self.joined.programme_id, self.joined.currency, self.through, self.amount),
        )
        return [_Owed(*row) for row in cur.fetchall()]

    def _bank(self, fund: UUID) -> UUID:
        return self.joined.account(fund, chart.BANK, "")

    def _received(self, paid: Mapping[UUID, int], rest: int) -> Transaction:
        """Cash in each fund for what it is owed; what covers nothing whole stays unidentified with the savers."""
        moves: list[tuple[UUID, UUID, int]] = []
        for fund in sorted({*paid, self.joined.savers}):
            unidentified = self.joined.account(fund, chart.UNIDENTIFIED_RECEIPTS, "")
            received = paid.get(fund, 0) + (rest if fund == self.joined.savers else 0)
            receivable = self.joined.account(fund, chart.PARTNER_RECEIVABLE)
            moves.append((self._bank(fund), unidentified, received))
            moves.append((unidentified, receivable, paid.get(fund, 0)))
        return self._cash(moves)

    def _cash(self, moves: Sequence[tuple[UUID, UUID, int]]) -> Transaction:
        postings = tuple(
            Posting(debit, credit, amount, self.joined.currency) for debit, credit, amount in moves if amount
        )
        return self._transaction("settlement_received", "cash", postings)

    def _settle_members(self, pending: Sequence[_Owed], received: Transaction) -> None:
        """Pending becomes savings, enrolment by enrolment, and what the sponsor committed to it is granted.

        The cash received is posted with it: accounts are locked in one order, the shared ones last.
        """
        saved = [one for one in pending if one.enrolment_id is not None and one.window_start is not None]
        keys = sorted(
            {(one.enrolment_id, one.window_start) for one in saved if one.enrolment_id and one.window_start}
        )
        holdings = load_holdings(self.tx, self.books.programmes, keys) if keys else {}
        match_book = MatchBook(self.context.sponsors[self.joined.programme_id])
        match_book.lock(self.tx, {key: holding.lock_values for key, holding in holdings.items()})
        accounts = self._savings_accounts([one for one in pending if one.enrolment_id is not None])
        postings: defaultdict[UUID, list[Posting]] = defaultdict(list)
        for one in pending:
            if one.enrolment_id is not None and one.enrolment_id in accounts:
                waiting, savings = accounts[one.enrolment_id]
                postings[one.enrolment_id].append(Posting(waiting, savings, one.amount, self.joined.currency))
        for one in saved:
            if one.enrolment_id is not None and one.window_start is not None and one.tier is not None:
                key: StateKey = (one.enrolment_id, one.window_start)
                postings[one.enrolment_id] += self._grant(match_book, key, holdings[key], one)
        enrolments = sorted(postings)
        self._post(
            [
                received,
                *(
                    self._transaction(
                        "contributions_settled", str(enrolment), tuple(_merged(postings[enrolment]))
                    )
                    for enrolment in enrolments
                ),
            ]
        )
        match_book.save(self.tx, self.now)
        publish(
            self.tx,
            [
                Message(
                    "contributions.settled",
                    str(enrolment),
                    {"enrolment": public_id("enr", enrolment), "settlement": public_id("stl", self.id)},
                )
                for enrolment in enrolments
            ],
        )

    def _grant(self, match_book: MatchBook, key: StateKey, holding: Holding, one: _Owed) -> list[Posting]:
        moved, _ = match_book.change(
            key,
            holding.match,
            holding.accounts,
            holding.currency,
            tier=one.tier if one.tier is not None else -1,
            contributed=0,
            settled=one.amount,
            at=one.contributed_at,
        )
        return moved

    def _savings_accounts(self, pending: Sequence[_Owed]) -> dict[UUID, tuple[UUID, UUID]]:
        cur = cursor(self.tx)
        cur.execute(
            """SELECT id, pending_account, savings_account FROM products.enrolment
               WHERE id = ANY (%b) AND pending_account IS NOT NULL""",
            (sorted({one.enrolment_id for one in pending if one.enrolment_id is not None}),),
        )
        return {row[0]: (row[1], row[2]) for row in cur.fetchall()}

    def _mark(self, owed: Sequence[_Owed]) -> None:
        cursor(self.tx).execute(
            """UPDATE products.contribution c
               SET owed = false, settlement_id = %s, state = 'settled',
                   credited_account = CASE WHEN c.state = 'pending' THEN coalesce(
                       (SELECT e.savings_account FROM products.enrolment e WHERE e.id = c.enrolment_id),
                       c.credited_account) ELSE c.credited_account END
               FROM unnest(%b::uuid[], %b::smallint[]) AS t (r, p) WHERE c.remittance = t.r AND c.position = t.p""",
            (self.id, [one.remittance for one in owed], [one.position for one in owed]),
        )

    def _transaction(self, kind: str, part: str, postings: tuple[Posting, ...]) -> Transaction:
        reference = f"settlement:{self.id}:{part}"
        return Transaction(
            reference=reference,
            kind=kind,
            effective_on=self.on,
            postings=postings,
            digest=hashlib.sha256(f"{reference}|{self.amount}|{self.through}".encode()).digest(),
            details={"settlement": public_id("stl", self.id)},
        )

    def _post(self, batch: Sequence[Transaction]) -> None:
        post_whole(self.tx, batch, clock=self.books.clock)

    def _record(self, *, paired: int, unidentified: int, contributions: int) -> Settlement:
        self.tx.execute(
            text(
                "INSERT INTO products.settlement (id, partner_id, currency, amount, through, reference, paired,"
                " unidentified, contributions, recorded_at, programme_id, topped_up, effective_on) VALUES (:id, :partner,"
                " :currency, :amount, :through, :reference, :paired, :unidentified, :contributions, :now, :programme,"
                " :topped_up, :on)"
            ),
            {
                "id": self.id,
                "partner": self.partner.id,
                "currency": self.joined.currency,
                "amount": self.amount,
                "through": self.through,
                "reference": self.reference,
                "paired": paired,
                "unidentified": unidentified,
                "contributions": contributions,
                "now": self.now,
                "programme": self.joined.programme_id,
                "topped_up": self.amount - paired - unidentified,
                "on": self.on,
            },
        )
        return Settlement(
            self.id, self.partner.slug, self.joined.currency, self.amount, self.through, paired, unidentified,
            contributions, self.amount - paired - unidentified,
        )  # fmt: skip


def _merged(postings: Sequence[Posting]) -> list[Posting]:
    """Postings between the same two accounts made one, in the order in which the pairs first occur."""
    amounts: dict[tuple[UUID, UUID], int] = {}
    for one in postings:
        amounts[one.debit, one.credit] = amounts.get((one.debit, one.credit), 0) + one.amount
    currency = postings[0].currency
    return [Posting(debit, credit, amount, currency) for (debit, credit), amount in amounts.items()]
