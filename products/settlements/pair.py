"""A partner pays in what it collected: pending contributions become savings, and the match they earned is granted.

The cash first lands in unidentified receipts and is paired from there with the oldest contributions owed, each whole, or
with those of certain days or of a list; what covers no whole contribution stays unidentified. A prefunded partner's rest tops
up its prefund. A long settlement is paired part by part, each in a database transaction of its own, so that memory and
locks are bounded: `recorded → pairing → paired`. Whoever is killed between two parts leaves what is paired paired, and the
next one goes on.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Final
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
from products.settlements import cash, credit, leftovers
from products.settlements.bearers import Administrator, Borne, administrator, bearing
from products.settlements.cash import Move
from products.settlements.credit import Entry
from products.settlements.members import MembersMoves, Owed
from products.settlements.settlement import (
    Chosen,
    Kind,
    Landing,
    by_reference,
    insert,
    lock,
    oldest_unfinished,
)
from products.settlements.settlement import Settlement as Settlement
from products.settlements.terms import ADMINISTRATOR, on_day

PART_MAX: Final = 2_000
"""Contributions paired in one database transaction: their members' accounts are locked for less than a second."""

LISTED_MAX: Final = 200_000
"""Remittances that one settlement may name."""


class NotOwed(Conflict):
    """A remittance that a settlement is said to pay for has nothing that is owed."""

    code = "not_owed"


def record_settlement(
    tx: Tx,
    books: Books,
    partner: Partner,
    *,
    currency: str,
    amount: int,
    through: date,
    since: date | None = None,
    remittances: Sequence[UUID] | None = None,
    reference: str | None = None,
    days: Sequence[date] | None = None,
    funds: Sequence[UUID] | None = None,
    landing: Landing | None = None,
) -> Settlement:
    """Record that a partner paid ``amount`` for what it collected up to and including a day (from ``since`` on, or of a list).

    The days are those of the partner's cut-off. The reference (default: partner, currency, amount and day) makes it happen
    once; the same again changes nothing, another amount under it is a Conflict. The first part is paired here; a
    settlement that needs more is still ``pairing``, and `pair_next` goes on. ``days``, ``funds``: it pays for what counts for these
    alone. ``landing``: where the bank says that the money is; without one, each fund's bank account got what the fund was owed.
    Raises InvalidInput for an amount or a currency that can't be, `NotOwed` for a listed remittance that is not owed.
    """
    if not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput(f"an amount is between 1 and {AMOUNT_MAX} minor units", pointer="/amount")
    if since is not None and since > through:
        raise InvalidInput("the first day is after the last", pointer="/since")
    chosen = Chosen(
        through,
        since,
        None if remittances is None else tuple(dict.fromkeys(remittances)),
        None if days is None else tuple(sorted(set(days))),
        None if funds is None else tuple(sorted(set(funds))),
    )
    reference = reference or f"{partner.slug}:{currency}:{amount}:{through.isoformat()}"
    return begin(tx, books, partner, "payment", currency, amount, chosen, reference, landing)


def begin(
    tx: Tx,
    books: Books,
    partner: Partner,
    kind: Kind,
    currency: str,
    amount: int,
    chosen: Chosen,
    reference: str,
    landing: Landing | None = None,
) -> Settlement:
    """Write a settlement down and pair its first part, unless an earlier one of the partner's is not done."""
    context = load_context(tx, books, [partner.id])
    joined = context.programme_of(partner.id, currency)
    if joined is None:
        raise InvalidInput(f"{partner.slug} collects nothing in {currency}", pointer="/currency")
    lock(tx, joined.partner_id, joined.programme_id)
    known = by_reference(tx, partner, reference)
    if known is not None:
        if (known.currency, known.amount, known.through, known.kind) != (
            currency,
            amount,
            chosen.through,
            kind,
        ):
            raise Conflict(f"settlement “{reference}” is on record with another amount or date")
        return replace(known, replayed=True)
    _require_owed(tx, joined, chosen)
    waits = oldest_unfinished(tx, joined) is not None
    settlement = Settlement(
        new_id(),
        partner.slug,
        currency,
        amount,
        chosen.through,
        0,
        amount,
        0,
        0,
        state="recorded",
        kind=kind,
        parts=0,
        cash_fund=None if landing is None else landing.fund,
    )
    if landing is not None and joined.terms == "prefunded" and landing.fund != joined.savers:
        raise InvalidInput("what is paid in before is paid to the savers' bank account", pointer="/fund")
    part = _Part(tx, books, joined, context, settlement, chosen, None if landing is None else landing.on)
    insert(tx, joined, settlement, chosen, reference, now=part.now, on=part.on)
    arriving = 0 if landing is not None and landing.booked else amount
    return part.arrive(arriving) if waits else part.pair(arriving=arriving)


def pair_next(tx: Tx, books: Books, partner_id: UUID, programme_id: UUID) -> bool:
    """Pair the next part of a partner's oldest unfinished settlement; whether there was anything to do.

    Another one that is at it is left alone: then there is nothing to do here.
    """
    context = load_context(tx, books, [partner_id])
    joined = context.joined_in(partner_id, programme_id)
    if not lock(tx, partner_id, programme_id, wait=False):
        return False
    found = oldest_unfinished(tx, joined)
    if found is None:
        return False
    settlement, chosen = found
    _Part(tx, books, joined, context, settlement, chosen).pair(arriving=0)
    return True


def unfinished(tx: Tx) -> list[tuple[UUID, UUID]]:
    """Partners with a settlement that is not paired yet, as (partner, programme), the longest waiting first."""
    rows = tx.execute(
        text(
            "SELECT partner_id, programme_id FROM products.settlement WHERE state IN ('recorded', 'pairing')"
            " GROUP BY partner_id, programme_id ORDER BY min(recorded_at)"
        )
    )
    return [(row.partner_id, row.programme_id) for row in rows]


def _require_owed(tx: Tx, joined: Joined, chosen: Chosen) -> None:
    if chosen.remittances is None:
        return
    if not 0 < len(chosen.remittances) <= LISTED_MAX:
        raise InvalidInput(f"a list names 1 to {LISTED_MAX} remittances", pointer="/remittances")
    cur = cursor(tx)
    cur.execute(
        """SELECT t.r FROM unnest(%b::uuid[]) AS t (r) WHERE NOT EXISTS (
               SELECT 1 FROM products.contribution c WHERE c.remittance = t.r AND c.partner_id = %s AND c.programme_id = %s
                      AND c.owed) LIMIT 3""",
        (list(chosen.remittances), joined.partner_id, joined.programme_id),
    )
    missing = [public_id("rmt", row[0]) for row in cur.fetchall()]
    if missing:
        raise NotOwed(f"nothing is owed for {', '.join(missing)}")


class _Part:
    """What one database transaction pairs of a settlement."""

    def __init__(
        self,
        tx: Tx,
        books: Books,
        joined: Joined,
        context: Context,
        settlement: Settlement,
        chosen: Chosen,
        booked_on: date | None = None,
    ) -> None:
        self.tx = tx
        self.books = books
        self.joined = joined
        self.context = context
        self.settlement = settlement
        self.chosen = chosen
        self.number = settlement.parts + 1
        self.now = books.clock.now()
        zone = context.versions[joined.programme_id][-1].programme.time_zone
        funds = sorted(joined.funds.values())
        today = periods.effective_day(self.now, zone)
        self.on = periods.open_day(tx, funds, today if booked_on is None else min(booked_on, today))
        self.home = settlement.cash_fund or joined.savers

    @property
    def _paid(self) -> bool:
        return self.settlement.kind == "payment"

    def arrive(self, arriving: int) -> Settlement:
        """Take the cash in, and pair nothing: an earlier settlement is not done."""
        if self._paid and arriving:
            moves = [(self._bank(self.home), self._unidentified(self.home), arriving)]
            self._post([self._transaction("settlement_received", "cash", moves)])
        return self.settlement

    def pair(self, *, arriving: int) -> Settlement:
        """Pair as many contributions as a part may hold, and write down what that did. ``arriving``: the cash that comes in."""
        left = leftovers.leftovers(self.tx, self.joined, self.chosen.funds) if self._paid else []
        available = self._available()
        means = self.settlement.unidentified + sum(available.values())
        owed = self._owed(means + sum(one.amount for one in left))
        paid: defaultdict[UUID, int] = defaultdict(int)
        fees: defaultdict[UUID, int] = defaultdict(int)
        for one in owed:
            paid[one.fund_id] += one.amount
            if self._paid:
                fees[one.fund_id] += one.fee
        due = {fund: amount - fees[fund] for fund, amount in paid.items()}
        carried = leftovers.drawn(left, sum(due.values()) - means, settlement=self.settlement.id)
        for one_left in carried:
            available[one_left.fund] = available.get(one_left.fund, 0) + one_left.amount
        used = cash.netting(available, due, self.settlement.unidentified)
        for fund, amount in used.items():
            due[fund] = due.get(fund, 0) - amount
        applied = sum(due.values())
        if (
            not self._paid
            and self.number == 1
            and len(owed) < PART_MAX
            and applied != self.settlement.unidentified
        ):
            raise Conflict("what is owed changed while it was written off", code="debt_changed")
        done = self._sum_up(owed, paid, fees, used, applied)
        whole = self.settlement.cash_fund is not None
        moves = (
            cash.received(self.joined, due, self.home, arriving, done.topped_up, whole=whole)
            if self._paid
            else []
        )
        moves += self._borne(owed, fees)
        kind = "settlement_received" if self._paid else "partner_debt_written_off"
        part = "cash" if self.number == 1 and arriving else f"{self.number}:cash"
        booked = self._transaction(kind, part, moves) if any(amount for _, _, amount in moves) else None
        self._settle_members(
            [one for one in owed if one.state == "pending"],
            booked,
            leftovers.carrying(self.joined, carried, self.on),
        )
        self._mark(owed)
        leftovers.carry(self.tx, self.joined, carried, self.now)
        entries = [
            Entry(fund, -amount, "netted", settlement=done.id, part=self.number)
            for fund, amount in used.items()
        ]
        joined = self.joined
        credit.write(self.tx, joined.partner_id, joined.programme_id, joined.currency, entries, self.now)
        self._write(done, owed, booked)
        return done

    def _available(self) -> dict[UUID, int]:
        """The credits that a payment may draw on, by fund."""
        if not self._paid:
            return {}
        available = credit.standing(self.tx, self.joined.partner_id, self.joined.programme_id)
        if self.chosen.funds is None:
            return available
        return {fund: amount for fund, amount in available.items() if fund in self.chosen.funds}

    def _sum_up(
        self,
        owed: Sequence[Owed],
        paid: Mapping[UUID, int],
        fees: Mapping[UUID, int],
        used: Mapping[UUID, int],
        applied: int,
    ) -> Settlement:
        """The settlement after this part."""
        before = self.settlement
        complete = len(owed) < PART_MAX
        rest = before.unidentified - applied
        topped_up = rest if complete and self._paid and self.joined.terms == "prefunded" else 0
        return replace(
            before,
            paired=before.paired + sum(paid.values()),
            fees=before.fees + sum(fees.values()),
            credits=before.credits + sum(used.values()),
            unidentified=rest - topped_up,
            topped_up=topped_up,
            contributions=before.contributions + len(owed),
            state="paired" if complete else "pairing",
            parts=self.number,
        )

    def _owed(self, means: int) -> list[Owed]:
        """The oldest contributions that the means cover, each whole, locked: no reversal takes them back meanwhile."""
        locked: set[tuple[UUID, int]] = set()
        while True:
            owed = self._covered(means)
            wanted = [(one.remittance, one.position) for one in owed]
            if locked.issuperset(wanted):
                return owed
            # Whoever held them may have taken some back: what the amount covers is asked again, until it stands still.
            locked |= lock_contributions(self.tx, wanted)

    def _covered(self, means: int) -> list[Owed]:
        due = "amount - fee" if self._paid else "amount"
        listed = (
            "AND remittance IN (SELECT remittance FROM products.settlement_item WHERE settlement_id = %(id)s)"
        )
        cur = cursor(self.tx)
        cur.execute(
            f"""SELECT remittance, position, fund_id, enrolment_id, window_start, tier, amount, fee, state, contributed_at,
                       contributed_on
                FROM (SELECT *, sum({due}) OVER (ORDER BY contributed_at, remittance, position) AS through_here
                      FROM (SELECT * FROM products.contribution
                            WHERE partner_id = %(partner)s AND programme_id = %(programme)s AND currency = %(currency)s
                              AND owed AND collected_on <= %(through)s
                              AND (%(since)s::date IS NULL OR collected_on >= %(since)s)
                              AND (%(days)s::date[] IS NULL OR collected_on = ANY (%(days)s::date[]))
                              AND (%(funds)s::uuid[] IS NULL OR fund_id = ANY (%(funds)s::uuid[]))
                              {listed if self.chosen.remittances is not None else ""}
                            ORDER BY contributed_at, remittance, position LIMIT %(limit)s) oldest) c
                WHERE through_here <= %(means)s ORDER BY contributed_at, remittance, position""",
            {
                "id": self.settlement.id,
                "partner": self.joined.partner_id,
                "programme": self.joined.programme_id,
                "currency": self.joined.currency,
                "through": self.chosen.through,
                "since": self.chosen.since,
                "days": None if self.chosen.days is None else list(self.chosen.days),
                "funds": None if self.chosen.funds is None else list(self.chosen.funds),
                "limit": PART_MAX,
                "means": means,
            },
        )
        return [Owed(*row) for row in cur.fetchall()]

    def _bank(self, fund: UUID) -> UUID:
        return self.joined.account(fund, chart.BANK, "")

    def _unidentified(self, fund: UUID) -> UUID:
        return self.joined.account(fund, chart.UNIDENTIFIED_RECEIPTS, "")

    def _borne(self, owed: Sequence[Owed], fees: Mapping[UUID, int]) -> list[Move]:
        """What others bear: the administrator the fees that the partner kept, or a default's bearer all of it."""
        kind = self.settlement.kind
        borne: defaultdict[tuple[UUID, str], int] = defaultdict(int)
        if kind == "payment":
            borne.update({(fund, ADMINISTRATOR): amount for fund, amount in fees.items() if amount})
        else:
            for one in owed:
                agreed = on_day(self.joined.history, one.contributed_on)
                borne[one.fund_id, agreed.guarantor or ADMINISTRATOR] += one.amount
        return self._moves_of_bearers(borne) if borne else []

    def _moves_of_bearers(self, borne: Borne) -> list[Move]:
        by: Administrator = administrator(self.tx, self.joined.programme_id)
        self.on = periods.open_day(self.tx, [*self.joined.funds.values(), by.fund], self.on)
        return bearing(
            self.tx, self.joined, by, borne, "default" if self.settlement.kind == "default" else "fee"
        )

    def _settle_members(
        self, pending: Sequence[Owed], booked: Transaction | None, carried: Sequence[Transaction]
    ) -> None:
        """Pending becomes savings, enrolment by enrolment, and what the sponsor committed to it is granted.

        The cash is posted with it: accounts are locked in one order, the shared ones last.
        """
        cash_moved = [*carried, *([booked] if booked else [])]
        postings = MembersMoves(self.tx, self.books, self.joined, self.context).settled(pending)
        postings.set_off([account for t in cash_moved for p in t.postings for account in (p.debit, p.credit)])
        enrolments = sorted(postings.by_enrolment)
        batch = [
            self._transaction("contributions_settled", f"{self.number}:{enrolment}", moves)
            for enrolment in enrolments
            if (moves := postings.by_enrolment[enrolment])
        ]
        self._post([*cash_moved, *batch])
        postings.match_book.save(self.tx, self.now)
        publish(
            self.tx,
            [
                Message(
                    "contributions.settled",
                    str(enrolment),
                    {
                        "enrolment": public_id("enr", enrolment),
                        "settlement": public_id("stl", self.settlement.id),
                    },
                )
                for enrolment in enrolments
            ],
        )

    def _mark(self, owed: Sequence[Owed]) -> None:
        if not owed:
            return
        cursor(self.tx).execute(
            """UPDATE products.contribution c
               SET owed = false, settlement_id = %s, settlement_part = %s, state = 'settled',
                   credited_account = CASE WHEN c.state = 'pending' THEN coalesce(
                       (SELECT e.savings_account FROM products.enrolment e WHERE e.id = c.enrolment_id),
                       c.credited_account) ELSE c.credited_account END
               FROM unnest(%b::uuid[], %b::smallint[]) AS t (r, p) WHERE c.remittance = t.r AND c.position = t.p""",
            (
                self.settlement.id,
                self.number,
                [one.remittance for one in owed],
                [one.position for one in owed],
            ),
        )

    def _transaction(self, kind: str, part: str, moves: Sequence[Move]) -> Transaction:
        reference = f"settlement:{self.settlement.id}:{part}"
        currency = self.joined.currency
        return Transaction(
            reference=reference,
            kind=kind,
            effective_on=self.on,
            postings=tuple(
                Posting(debit, credit, amount, currency) for debit, credit, amount in moves if amount
            ),
            digest=hashlib.sha256(
                f"{reference}|{self.settlement.amount}|{self.settlement.through}".encode()
            ).digest(),
            id=new_id(),
            details={"settlement": public_id("stl", self.settlement.id)},
        )

    def _post(self, batch: Sequence[Transaction]) -> None:
        if batch:
            post_whole(self.tx, batch, clock=self.books.clock)

    def _write(self, done: Settlement, owed: Sequence[Owed], booked: Transaction | None) -> None:
        self.tx.execute(
            text(
                "UPDATE products.settlement SET state = :state, paired = :paired, fees = :fees, credits = :credits,"
                " unidentified = :unidentified, topped_up = :topped_up, contributions = :contributions, parts = :parts"
                " WHERE id = :id"
            ),
            {
                name: getattr(done, name)
                for name in (
                    "id", "state", "paired", "fees", "credits", "unidentified", "topped_up", "contributions", "parts"
                )
            },
        )  # fmt: skip
        self.tx.execute(
            text(
                "INSERT INTO products.settlement_part (settlement_id, number, contributions, paired, cash, paired_at)"
                " VALUES (:id, :number, :contributions, :paired, :cash, :now)"
            ),
            {
                "id": done.id,
                "number": self.number,
                "contributions": len(owed),
                "paired": sum(one.amount for one in owed),
                "cash": booked.id if booked else None,
                "now": self.now,
            },
        )
