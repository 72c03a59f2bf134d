"""What one remittance means under the rules: decided once, from loaded values alone.

A plan says where each part of what was collected goes, or why the event can't be taken. Nothing here reads a clock
or a database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from products import chart
from products.chart import EnrolmentAccounts
from products.facts import Facts, FactScalar, counting
from products.members.models import Mandate, MemberRecord
from products.programmes.model import Match, Product, Programme
from products.programmes.registry import Version
from products.remittances.allocate import Enrolled as Asked
from products.remittances.allocate import allocate
from products.remittances.context import Context, Enrolled, Joined, version_on
from products.remittances.events import RemittanceCompleted
from products.remittances.instalments import Paid
from products.remittances.monthly import Contributed
from products.savings import rules

AHEAD_MAX = timedelta(days=1)
"""How far after our clock a partner's may say that a migrant paid."""

AGE_MAX = timedelta(days=5 * 366)
"""How long ago a migrant may have paid: late events count, but not those of another decade."""

Status = Literal["posted", "unallocated", "parked", "quarantined"]
Destination = Literal["savers", "agency", "pool", "unapplied", "unallocated"]


@dataclass(frozen=True, slots=True)
class Leg:
    """One part of what was collected. Savings legs carry their enrolment, window and tier; others only accounts."""

    destination: Destination
    fund: UUID
    debited: UUID
    credited: UUID
    amount: int
    product: str | None = None
    enrolment: UUID | None = None
    accounts: EnrolmentAccounts | None = None
    match: Match | None = None
    window: rules.Window | None = None
    tier: int | None = None
    rule_version: int = 0

    @property
    def state_key(self) -> tuple[UUID, date] | None:
        """The match state that the leg counts in, if any."""
        if self.match is None or self.window is None or self.enrolment is None:
            return None
        return self.enrolment, self.window.start

    @property
    def lock_values(self) -> tuple[date, int, int]:
        """What `MatchBook.lock` wants to know of the window: its end, the number of tiers, the rules' version."""
        if self.match is None or self.window is None:
            raise LookupError("a leg without a match has no match state")
        return self.window.end, len(self.match.tiers), self.rule_version


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The account whose limit a remittance waits for, and how much room it takes there, in minor units."""

    account: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision on one remittance."""

    status: Status
    reason: str | None
    event: RemittanceCompleted
    joined: Joined | None = None
    member: MemberRecord | None = None
    rule_version: int | None = None
    contributed_on: date | None = None
    collected: int = 0
    unapplied: int = 0
    legs: tuple[Leg, ...] = ()
    no_room: NoRoom | None = None
    trace: dict[str, Any] = field(default_factory=dict)


def refuse(event: RemittanceCompleted, reason: str, status: Status = "quarantined") -> Plan:
    """The event can't be taken, and why (a code of the catalogue of outcomes)."""
    return Plan(status, reason, event)


def plan(
    event: RemittanceCompleted,
    *,
    partner_id: UUID,
    context: Context,
    members: Sequence[MemberRecord],
    enrolments: Mapping[UUID, Sequence[Enrolled]],
    collect_by_quote: int | None,
    paid: Paid,
    contributed: Contributed,
    now: datetime,
) -> Plan:
    """Decide one completed remittance.

    ``members`` are those whom the partner's key names, at most one per programme; ``collect_by_quote`` is what a valid
    quote asked to collect, in minor units of the programme's currency.
    """
    joined = context.programme_of(partner_id, event.received.currency)
    if joined is None:
        return refuse(event, "currency_not_served")
    if event.collected is not None and event.collected.currency != joined.currency:
        return refuse(event, "currency_not_served")
    if event.completed_at > now + AHEAD_MAX:
        return refuse(event, "time_in_the_future")
    if event.completed_at < now - AGE_MAX:
        return refuse(event, "time_too_long_ago")
    versions = context.versions[joined.programme_id]
    contributed_on = rules.local_date(versions[-1].programme, event.completed_at)
    joined = joined.on(contributed_on)
    version = version_on(versions, contributed_on)
    programme = version.programme
    if not programme.serves(event.origin_country, event.destination_country):
        return refuse(event, "corridor_not_served")
    collected = _collected(event, joined, collect_by_quote)
    if isinstance(collected, str):
        return refuse(event, collected)
    if collected is not None and collected > event.received.amount:
        return refuse(event, "collected_exceeds_received")

    member = next((one for one in members if one.programme_id == joined.programme_id and one.active), None)
    base = Plan("posted", None, event, joined, member, version.version, contributed_on)
    if member is None:
        if collected is None:
            return refuse(event, "member_unknown")
        return _unallocated(base, joined, collected)
    return _allocated(
        base,
        joined,
        member,
        versions,
        programme,
        contributed_on,
        enrolments.get(member.member_id, ()),
        collected,
        paid,
        contributed,
    )


def within_partners_means(decided: Plan, context: Context, *, at_last: bool) -> Plan:
    """Park what a prefunded partner's money, or a partner's exposure ceiling, does not cover.

    ``at_last``: its money is with the savers since it had no member, so that only what another fund gets of it is owed
    anew; what finds no room there goes on waiting.
    """
    joined = decided.joined
    if joined is None:
        return decided
    needed: dict[UUID, int] = {}
    for leg in decided.legs:
        if not at_last or (joined.owes and leg.fund != joined.savers):
            account = joined.limited_by(leg.fund)
            needed[account] = needed.get(account, 0) + leg.amount
    short = next((one for one in needed.items() if context.available.get(*one) < one[1]), None)
    if short is not None:
        reason = "partner_prefund_exhausted" if joined.terms == "prefunded" else "partner_ceiling_reached"
        status: Status = "unallocated" if at_last else "parked"
        return replace(decided, status=status, reason=reason, legs=(), unapplied=0, no_room=NoRoom(*short))
    for account, amount in needed.items():
        if account in context.available:
            context.available[account] -= amount
    return decided


def _collected(event: RemittanceCompleted, joined: Joined, by_quote: int | None) -> int | str | None:
    """What was collected in minor units; None: as the rules compute it; a text: why it can't be known."""
    if event.collected is not None:
        return event.collected.amount
    if joined.collection == "by_rule":
        return None
    if joined.collection == "by_quote":
        return "quote_missing" if by_quote is None else by_quote
    return "collected_missing" if by_quote is None else by_quote


def _unallocated(base: Plan, joined: Joined, collected: int) -> Plan:
    leg = Leg(
        "unallocated",
        joined.savers,
        joined.source(joined.savers),
        joined.account(joined.savers, chart.UNALLOCATED),
        collected,
    )
    return replace(
        base,
        status="unallocated",
        reason="member_unknown",
        collected=collected,
        legs=(leg,) if collected else (),
        trace={"reason": "no active member of this partner is named by the event"},
    )


def _allocated(
    base: Plan,
    joined: Joined,
    member: MemberRecord,
    versions: Sequence[Version],
    programme: Programme,
    on: date,
    enrolments: Sequence[Enrolled],
    collected: int | None,
    paid: Paid,
    contributed: Contributed,
) -> Plan:
    event = base.event
    facts = counting(programme.facts, member.facts)
    # Money that was collected before the member's word reached us still follows it; what ended before does not.
    mandate = next((one for one in member.mandates if _covers(one, event.completed_at)), None)
    active = [
        one
        for one in enrolments
        if mandate is not None
        and one.product in programme.codes
        and (one.ended_on is None or on < one.ended_on)
    ]
    allocation = allocate(
        programme,
        received=event.received.amount,
        collected=collected,
        enrolments=[_asked(programme, one, member, on, paid) for one in active],
        facts=facts,
        contributed_on=on,
        limit=contributed.limit(member, mandate, programme, on),
    )
    tier_facts = _TierFacts(member, programme, facts, on)
    legs: list[Leg] = []
    for enrolled, part in zip(active, allocation.legs, strict=True):
        if not part.amount:
            continue
        product = programme.product(part.product_code)
        legs.append(_leg(joined, versions, product, enrolled, tier_facts, on, part.amount))
        paid.add(enrolled.id, on, part.amount)
    if allocation.unapplied:
        source = joined.source(joined.savers)
        legs.append(Leg("unapplied", joined.savers, source, member.unapplied_account, allocation.unapplied))
    return replace(
        base,
        reason=allocation.limited_by,
        collected=allocation.collected,
        unapplied=allocation.unapplied,
        legs=tuple(legs),
        trace=allocation.trace if mandate is not None else {**allocation.trace, "because": ["no_mandate"]},
    )


class _TierFacts:
    """A member's facts on the day, as the programme version that decides on a match sees them; looked up only for a match."""

    __slots__ = ("_facts", "_held", "_member", "_on", "_programme")

    def __init__(self, member: MemberRecord, programme: Programme, facts: Facts, on: date) -> None:
        self._member, self._programme, self._facts, self._on = member, programme, facts, on
        self._held: Mapping[str, FactScalar] | None = None

    def under(self, deciding: Programme) -> Mapping[str, FactScalar]:
        if deciding is not self._programme:
            return counting(deciding.facts, self._member.facts).on(self._on)
        if self._held is None:
            self._held = self._facts.on(self._on)
        return self._held


def _covers(mandate: Mandate, at: datetime) -> bool:
    """Whether a mandate lets money of this moment be deducted; one recorded later covers what was collected before."""
    return mandate.in_force(max(at, mandate.given_at))


def _asked(programme: Programme, one: Enrolled, member: MemberRecord, on: date, paid: Paid) -> Asked:
    """An enrolment as the split needs it."""
    product = programme.product(one.product)
    period = rules.period_of(product.contribution, on, one.enrolled_on)
    already = 0 if period is None else paid.within(one.id, period)
    age = None
    if product.contribution.by == "age" and member.birth_date is not None:
        age = rules.complete_years(member.birth_date, on)
    return Asked(one.product, one.choice, one.entry_age, already, age)


def _leg(
    joined: Joined,
    versions: Sequence[Version],
    product: Product,
    enrolled: Enrolled,
    tier_facts: _TierFacts,
    on: date,
    amount: int,
) -> Leg:
    """One product's part, with the window and the tier in which its match counts it."""
    if enrolled.accounts is None:
        fund = joined.funds[chart.fund_role(product)]
        destination: Destination = "agency" if product.destination.kind == "agency" else "pool"
        return Leg(
            destination,
            fund,
            joined.source(fund),
            joined.collected_for(product),
            amount,
            product.code,
            enrolled.id,
        )
    match = window = tier = None
    rule_version = 0
    held: Mapping[str, FactScalar] = {}
    if product.match is not None:
        window = rules.window_of(product.match, on, enrolled.enrolled_on)
        having = [version.programme for version in versions if product.code in version.programme.codes]
        deciding = rules.rule_version_for(having, window) if len(having) > 1 else having[0]
        match, rule_version = deciding.product(product.code).match, deciding.validity.version
        held = tier_facts.under(deciding)
    if match is not None:
        # Who paid before the enrolment reached us was a member that day at the latest.
        tier = rules.tier_of(match, held, on, min(enrolled.enrolled_on, on), enrolled.entry_age)
    return Leg(
        "savers",
        joined.savers,
        joined.source(joined.savers),
        enrolled.accounts.pending,
        amount,
        product.code,
        enrolled.id,
        enrolled.accounts,
        match,
        window if match is not None else None,
        tier,
        rule_version,
    )
