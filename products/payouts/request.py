"""Asking for payouts: judged, held and put on record, as many at once as one likes.

Asking promises the money: it is held from then on. What may go out is what is settled, not held and not locked by the
programme's rules; two requests of one member are judged one after the other, as the member's row is locked first.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from ledger import holds
from ledger.balances import balances
from ledger.database import Tx, cursor
from ledger.errors import HoldError, InvalidInput, MizanError, NotFound
from ledger.holds import NewHold
from ledger.ids import new_id, public_id
from ledger.money import AMOUNT_MAX
from ledger.periods import effective_day
from products.members import verification
from products.payouts import availability, payees, writing
from products.payouts.accounts import PartSource
from products.payouts.availability import Enrolled
from products.payouts.errors import LimitReached, NoRail, NotAvailable, QueueFull
from products.payouts.limits import Spent, judge_limits, spent_by, take_of_day
from products.payouts.payees import Holder, PayeeStanding
from products.payouts.registry import ConfiguredRail, rails_of
from products.payouts.states import State
from products.payouts.terms import arrives, shared
from products.programmes.model import Programme
from products.remittances.context import Books, version_on
from products.savings import vesting
from products.savings.queries import OWED_BY_MEMBER
from products.savings.withdrawals import Available, Withdrawn, record_withdrawals

APPROVE_WITHIN: Final = timedelta(days=7)
"""What the member has not approved by then is given up, and its money released."""


@dataclass(frozen=True, slots=True)
class NewPayout:
    """A payout to ask for. ``product`` None: money that was collected for the member and fitted no product (unapplied).

    ``amount`` minor units is what leaves the member's money; a fee that the member bears is taken out of it. ``enrolment_id``
    names one of several enrolments in a product, ``way`` one of the ways out that are open, ``rail`` one of the rails that
    serve the payee; left out, the only one, the first that lets out as much, and the oldest. ``requested_by``: who asks.
    """

    link_id: UUID
    payee_id: UUID
    amount: int
    currency: str
    product: str | None
    requested_by: str
    enrolment_id: UUID | None = None
    way: str | None = None
    rail: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """From where a payout is taken: an account of the member, and an amount."""

    source: PartSource
    account_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """A payout that may be had, but for the hold."""

    id: UUID
    asked: NewPayout
    holder: Holder
    enrolled: Enrolled | None
    rail: ConfiguredRail
    parts: tuple[Part, ...]
    fee: int
    rail_fee: int
    arrival: tuple[datetime, datetime]
    withdrawn: Withdrawn | None
    on: date


def request(tx: Tx, books: Books, asked: NewPayout) -> UUID:
    """Ask for one payout; its id. Raises what `request_many` answers."""
    (answer,) = request_many(tx, books, [asked])
    if isinstance(answer, MizanError):
        raise answer
    return answer


def request_many(tx: Tx, books: Books, asked: Sequence[NewPayout]) -> list[UUID | MizanError]:
    """Ask for payouts, in order; the id of each, or why it is refused.

    Answers NotFound, InvalidInput, `PayeeNotUsable`, `NoRail`, `QueueFull`, `LimitReached` and `NotAvailable`; what is refused
    leaves no trace. Several of one member are judged one after the other.
    """
    answers: dict[int, UUID | MizanError] = {}
    for turn in _turns(asked):
        answers |= _one_of_each(tx, books, turn)
    return [answers[place] for place in range(len(asked))]


def _turns(asked: Sequence[NewPayout]) -> Iterable[dict[int, NewPayout]]:
    """What is asked, so that no member is in a turn twice; by place."""
    turns: list[dict[int, NewPayout]] = []
    counts: dict[UUID, int] = defaultdict(int)
    for place, one in enumerate(asked):
        turn = counts[one.link_id]
        counts[one.link_id] += 1
        if turn == len(turns):
            turns.append({})
        turns[turn][place] = one
    return turns


def _one_of_each(tx: Tx, books: Books, asked: Mapping[int, NewPayout]) -> dict[int, UUID | MizanError]:
    round_ = _Round(tx, books, list(asked.values()))
    answers: dict[int, UUID | MizanError] = {}
    judged: dict[int, _Judged] = {}
    for place, one in asked.items():
        try:
            judged[place] = round_.judge(one)
        except MizanError as refused:
            answers[place] = refused
    for place, outcome in zip(judged, round_.record(list(judged.values())), strict=True):
        answers[place] = outcome
    return answers


class _Round:
    """Everything that judging takes, read and locked for all members of a round."""

    def __init__(self, tx: Tx, books: Books, asked: Sequence[NewPayout]) -> None:
        self.tx, self.books = tx, books
        self.now = books.clock.now()
        links = [one.link_id for one in asked]
        payees.lock_members(tx, links)
        self.holders = payees.holders(tx, books.keyring, links, born=True)
        members = [holder.member_id for holder in self.holders.values()]
        self.enrolments = availability.lock_enrolments(tx, members)
        self._vest()
        self.payees = payees.standings(tx, [one.payee_id for one in asked], self.now)
        programme_ids = {holder.programme_id for holder in self.holders.values()}
        self.rails = rails_of(tx, programme_ids)
        self.programmes = {id_: self._programme(id_) for id_ in programme_ids}
        self.days = {id_: effective_day(self.now, one.time_zone) for id_, one in self.programmes.items()}
        self.levels = verification.levels(tx, members, self.now.date())
        self.spent = spent_by(
            tx, {one.member_id: self.days[one.programme_id] for one in self.holders.values()}
        )
        # accounts first: what is collected in between counts as not settled, and not as there
        self.of_no_product = balances(
            tx,
            [
                account
                for one in self.holders.values()
                for account in (one.unapplied_account, one.receivable_account)
            ],
        )
        self.not_settled = availability.not_settled(
            tx,
            [
                self.holders[one.link_id].member_id
                for one in asked
                if one.product is None and one.link_id in self.holders
            ],
        )
        self.offers = availability.offers(
            tx,
            books,
            [
                (holder, enrolled, self.days[holder.programme_id])
                for one in asked
                if (holder := self.holders.get(one.link_id)) is not None
                and (enrolled := self._named(holder, one)) is not None
            ],
        )
        self.queued = _queued(tx, [rail.id for several in self.rails.values() for rail in several])

    def _vest(self) -> None:
        """Vest what is due, so that no match that is the member's is missing because a job is late."""
        enrolled = [one for several in self.enrolments.values() for one in several]
        vesting.vest(
            self.tx,
            self.books,
            [one.id for one in enrolled if one.vested_account is not None],
            holding=[
                *(
                    account
                    for one in enrolled
                    for account in (one.savings_account, one.vested_account)
                    if account is not None
                ),
                *(one.unapplied_account for one in self.holders.values()),
            ],
        )

    def _owed(self, holder: Holder) -> int:
        """What the member owes, having spent what was taken back since: so much of what is there stays."""
        return max(0, self.of_no_product[holder.receivable_account].posted)

    def _programme(self, programme_id: UUID) -> Programme:
        versions = self.books.programmes.versions(self.tx, programme_id)
        day = effective_day(self.now, versions[-1].programme.time_zone)
        return version_on(versions, day).programme

    def _named(self, holder: Holder, one: NewPayout) -> Enrolled | None:
        having = [
            enrolled
            for enrolled in self.enrolments.get(holder.member_id, ())
            if enrolled.product == one.product and one.enrolment_id in (None, enrolled.id)
        ]
        return having[0] if len(having) == 1 else None

    def judge(self, one: NewPayout) -> _Judged:
        """A payout that may be had; raises why not."""
        holder = self.holders.get(one.link_id)
        if holder is None or not holder.active or holder.erased:
            raise NotFound("There is no such member.")
        programme, on = self.programmes[holder.programme_id], self.days[holder.programme_id]
        if one.currency != programme.currency:
            raise InvalidInput(
                f"Payouts of this programme are in {programme.currency}.", pointer="/amount/currency"
            )
        if type(one.amount) is not int or not 0 < one.amount <= AMOUNT_MAX:
            raise InvalidInput("A payout is at least 1 minor unit.", pointer="/amount/amount")
        payee = self.payees.get(one.payee_id)
        if payee is None or payee.member_id != holder.member_id or payee.refusal == "payee_removed":
            raise NotFound("There is no such payee.")
        if payee.refusal is not None:
            raise payees.refused(payee)
        rail = self._rail(holder, payee, one)
        level = self.levels.get(holder.member_id, "none")
        spent = self.spent.get(holder.member_id, Spent(0, 0))
        judge_limits(rail, verification.limits(programme, level), level, spent, amount=one.amount, rail_on=on)
        id_ = new_id()
        enrolled: Enrolled | None = None
        withdrawn: Withdrawn | None = None
        if one.product is None:
            parts = self._of_unapplied(holder, one)
        else:
            enrolled = self._enrolment(holder, one)
            parts, withdrawn = self._of_product(
                id_, self.offers[enrolled.id], enrolled, one, on, owed=self._owed(holder)
            )
        rail_fee = rail.fee.of(one.amount)
        fee = rail_fee if rail.fee.bearer == "member" else 0
        if fee >= one.amount:
            raise LimitReached(
                "The fee would take all of it.", "below_fee", available=one.amount, pointer="/amount/amount"
            )
        arrival = arrives(rail.arrival, self.now, programme.time_zone)
        return _Judged(id_, one, holder, enrolled, rail, parts, fee, rail_fee, arrival, withdrawn, on)

    def _rail(self, holder: Holder, payee: PayeeStanding, one: NewPayout) -> ConfiguredRail:
        serving = [
            rail
            for rail in self.rails.get(holder.programme_id, ())
            if payee.kind in rail.payee_kinds and one.rail in (None, rail.slug)
        ]
        if not serving:
            raise NoRail(f"No rail of the programme pays a payee of the kind {payee.kind}.")
        having_room = [rail for rail in serving if self.queued.get(rail.id, 0) < rail.limits.queue_max]
        if not having_room:
            raise QueueFull(
                f"The rail {serving[0].slug} has as many payouts waiting as it may: ask again later."
            )
        return next((rail for rail in having_room if rail.paused_at is None), having_room[0])

    def _enrolment(self, holder: Holder, one: NewPayout) -> Enrolled:
        found = self._named(holder, one)
        if found is not None:
            return found
        several = [e for e in self.enrolments.get(holder.member_id, ()) if e.product == one.product]
        if len(several) > 1 and one.enrolment_id is None:
            raise InvalidInput(
                "The member has several enrolments in this product: name one.", pointer="/enrolment"
            )
        raise NotFound("The member is not enrolled in this product.")

    def _of_unapplied(self, holder: Holder, one: NewPayout) -> tuple[Part, ...]:
        there = self.of_no_product[holder.unapplied_account].available
        settled = max(0, there - self.not_settled.get(holder.member_id, 0))
        free = max(0, settled - self._owed(holder))
        if one.amount > free:
            reason = "not_enough"
            if one.amount <= there:
                reason = OWED_BY_MEMBER if one.amount <= settled else "not_settled"
            raise NotAvailable(
                f"{there} minor units are there that fitted no product, {there - settled} of them not paid in by the partner"
                f" yet; the member owes {self._owed(holder)}: {free} may leave now.",
                reason,
                available=free,
            )
        return (Part("unapplied", holder.unapplied_account, one.amount),)

    def _of_product(
        self, payout_id: UUID, offer: Available, enrolled: Enrolled, one: NewPayout, on: date, *, owed: int
    ) -> tuple[tuple[Part, ...], Withdrawn]:
        way = offer.way(one.amount + owed, one.way)
        if way is None or enrolled.savings_account is None or enrolled.vested_account is None:
            raise _not_available(offer, one, owed)
        savings = min(one.amount, way.savings)
        match = one.amount - savings
        parts: list[Part] = []
        if savings:
            parts.append(Part("savings", enrolled.savings_account, savings))
        if match:
            parts.append(Part("match_vested", enrolled.vested_account, match))
        withdrawn = Withdrawn(
            payout_id, enrolled.id, way.code, savings, match, way.forfeits_with(savings), on
        )
        return tuple(parts), withdrawn

    def record(self, judged: Sequence[_Judged]) -> list[UUID | MizanError]:
        """Hold the money and write payouts, or say why not; in order."""
        if not judged:
            return []
        answers = take_of_day(self.tx, [(one.rail, one.on, one.asked.amount) for one in judged])
        allowed = [one for one, refusal in zip(judged, answers, strict=True) if refusal is None]
        placed = self._hold(allowed)
        held = {one.id: hold_ids for one, hold_ids in zip(allowed, placed, strict=True) if hold_ids}
        recorded = [one for one in allowed if one.id in held]
        self._write(recorded, held)
        answered: list[UUID | MizanError] = []
        for one, refusal in zip(judged, answers, strict=True):
            if refusal is not None:
                answered.append(refusal)
            elif one.id in held:
                answered.append(one.id)
            else:
                answered.append(NotAvailable("The money was taken at this moment.", "not_enough"))
        return answered

    def _hold(self, judged: Sequence[_Judged]) -> list[list[UUID]]:
        """The holds of each payout's parts; none where one of them is refused."""
        wanted = [
            NewHold(part.account_id, part.amount, f"payout:{one.id.hex}:{position}")
            for one in judged
            for position, part in enumerate(one.parts, start=1)
        ]
        answers = iter(holds.place_many(self.tx, wanted, clock=self.books.clock))
        placed: list[list[UUID]] = []
        given_back: list[UUID] = []
        for one in judged:
            these = [next(answers) for _ in one.parts]
            ids = [answer for answer in these if not isinstance(answer, HoldError)]
            if len(ids) < len(these):
                given_back += ids
                ids = []
            placed.append(ids)
        holds.release_many(self.tx, given_back, clock=self.books.clock)
        return placed

    def _write(self, judged: Sequence[_Judged], held: Mapping[UUID, Sequence[UUID]]) -> None:
        rows, parts = [], []
        for one in judged:
            state: State = "requested" if one.rail.checks_payees else "awaiting_member"
            fees = shared(one.fee, tuple(part.amount for part in one.parts))
            rows.append(
                writing.NewRow(
                    id=one.id,
                    partner_id=one.holder.partner_id,
                    programme_id=one.holder.programme_id,
                    link_id=one.holder.link_id,
                    member_id=one.holder.member_id,
                    enrolment_id=one.enrolled.id if one.enrolled else None,
                    product=one.enrolled.product if one.enrolled else None,
                    way=one.withdrawn.way if one.withdrawn else None,
                    rail_id=one.rail.id,
                    payee_id=one.asked.payee_id,
                    amount=one.asked.amount,
                    fee=one.fee,
                    rail_fee=one.rail_fee,
                    currency=one.asked.currency,
                    arrival_earliest=one.arrival[0],
                    arrival_latest=one.arrival[1],
                    state=state,
                    requested_by=one.asked.requested_by,
                    requested_at=self.now,
                    requested_on=one.on,
                    expires_at=self.now + APPROVE_WITHIN,
                    check_after=self.now if state == "requested" else None,
                )
            )
            parts += [
                (one.id, position, part.source, part.account_id, part.amount, fee, hold_id)
                for position, (part, fee, hold_id) in enumerate(
                    zip(one.parts, fees, held[one.id], strict=True), start=1
                )
            ]
        writing.write_new(self.tx, rows, parts)
        record_withdrawals(self.tx, [one.withdrawn for one in judged if one.withdrawn], self.now)


def _not_available(offer: Available, one: NewPayout, owed: int) -> NotAvailable:
    """Why so much can't be had, and when that changes."""
    free = max(0, offer.total - owed)
    if offer.way(one.amount, one.way) is not None:
        return NotAvailable(
            f"The member owes {owed} minor units, having spent what was taken back since: {free} may leave now.",
            OWED_BY_MEMBER,
            available=free,
        )
    reason, until = "not_enough", None
    if one.way is not None and all(way.code != one.way for way in offer.ways):
        reason = "way_closed"
    if offer.locked:
        reason, until = (reason if reason == "way_closed" else offer.locked[0].reason), offer.locked[0].until
    elif offer.held and one.amount <= offer.total + offer.held:
        reason = "held"
    product = f"of {public_id('enr', one.enrolment_id)}" if one.enrolment_id else f"of {one.product}"
    return NotAvailable(
        f"{free} minor units {product} may leave now ({reason}{f', until {until}' if until else ''}).",
        reason,
        until=until,
        available=free,
    )


def _queued(tx: Tx, rail_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many approved payouts wait for each rail. Two requests at once may each see room: the limit is no promise to a unit."""
    rows = cursor(tx).execute(
        "SELECT r.id, (SELECT count(*) FROM (SELECT FROM products.payout p WHERE p.rail_id = r.id AND p.state = 'approved'"
        " LIMIT r.queue_max) AS waiting) FROM products.rail r WHERE r.id = ANY (%s)",
        [list(rail_ids)],
    )
    return dict(rows.fetchall())
