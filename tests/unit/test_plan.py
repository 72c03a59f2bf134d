"""The decision on one remittance, at the edges of what is taken and of what follows the member's word."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import new_id
from ledger.money import Money
from products import chart
from products.chart import EnrolmentAccounts
from products.facts import Fact
from products.members.models import Mandate, MemberRecord
from products.programmes.model import Choice
from products.programmes.registry import Version
from products.remittances.context import Context, Enrolled, Joined
from products.remittances.events import MemberKey, RemittanceCompleted
from products.remittances.instalments import Paid
from products.remittances.monthly import Contributed
from products.remittances.plan import AGE_MAX, AHEAD_MAX, Plan, plan
from products.settlements.terms import ALWAYS, SettlementTerms
from tests.unit.programmes.world import programme

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PARTNER, PROGRAMME, SAVERS, MEMBER, ENROLMENT = (new_id() for _ in range(5))
ACCOUNTS = {
    (SAVERS, code.name, "acme"): new_id()
    for code in (chart.PARTNER_RECEIVABLE, chart.PARTNER_PREFUND, chart.UNALLOCATED)
}
MANDATE = Mandate(new_id(), "2026-1", "rw", NOW - timedelta(days=30), None, None, None)


def joined(collection: str = "as_reported") -> Context:
    agreed = SettlementTerms(ALWAYS, "net", "RWF", "Africa/Kigali")
    part = Joined(
        PARTNER, PROGRAMME, agreed, (agreed,), collection, "RWF", {chart.SAVERS: SAVERS}, ACCOUNTS, "acme"
    )
    return Context({PARTNER: [part]}, {PROGRAMME: [Version(PROGRAMME, 1, programme("ejoheza"))]}, {}, {})


def member(*mandates: Mandate, active: bool = True) -> MemberRecord:
    known = [Fact("income_category", 1, date(2020, 1, 1), NOW, "institution")]
    return MemberRecord(
        new_id(),
        MEMBER,
        PARTNER,
        PROGRAMME,
        active,
        date(1990, 5, 1),
        new_id(),
        new_id(),
        known,
        list(mandates),
    )


def enrolled(on: date = date(2026, 1, 1), ended_on: date | None = None) -> Enrolled:
    accounts = EnrolmentAccounts(*(new_id() for _ in range(4)))
    return Enrolled(ENROLMENT, "savings", Choice(), 35, on, ended_on, accounts)


EVENT = RemittanceCompleted(
    "R-1",
    MemberKey("phone", "+971501234567"),
    Money(100_000, "AED"),
    Money(400_000, "RWF"),
    None,
    Money(20_000, "RWF"),
    "AE",
    "RW",
    NOW,
    None,
)


def decide(
    event: RemittanceCompleted = EVENT,
    *,
    people: Sequence[MemberRecord] | None = None,
    enrolment: Enrolled | None = None,
    context: Context | None = None,
    by_quote: int | None = None,
) -> Plan:
    return plan(
        event,
        partner_id=PARTNER,
        context=context or joined(),
        members=[member(MANDATE)] if people is None else people,
        enrolments={MEMBER: [enrolment or enrolled()]},
        collect_by_quote=by_quote,
        paid=Paid(),
        contributed=Contributed(),
        now=NOW,
    )


def paid_at(at: datetime) -> RemittanceCompleted:
    return replace(EVENT, completed_at=at)


def collecting(amount: int | None, currency: str = "RWF") -> RemittanceCompleted:
    return replace(EVENT, collected=None if amount is None else Money(amount, currency))


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (NOW + AHEAD_MAX, None),
        (NOW + AHEAD_MAX + SECOND, "time_in_the_future"),
        (NOW - AGE_MAX, None),
        (NOW - AGE_MAX - SECOND, "time_too_long_ago"),
    ],
)
def test_a_remittance_is_taken_from_years_back_to_a_day_ahead(at: datetime, reason: str | None) -> None:
    assert decide(paid_at(at)).reason == reason


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (collecting(400_000), "posted", None),
        (collecting(400_001), "quarantined", "collected_exceeds_received"),
        (collecting(0), "posted", None),
        (collecting(None), "quarantined", "collected_missing"),
        (collecting(20_000, "KES"), "quarantined", "currency_not_served"),
        (replace(EVENT, received=Money(400_000, "KES")), "quarantined", "currency_not_served"),
        (replace(EVENT, destination_country="KE"), "quarantined", "corridor_not_served"),
    ],
)
def test_what_was_collected_must_fit_the_programme_and_the_remittance(
    event: RemittanceCompleted, status: str, reason: str | None
) -> None:
    decided = decide(event)
    assert (decided.status, decided.reason) == (status, reason)


@pytest.mark.parametrize(
    ("collection", "by_quote", "collected", "reason"),
    [
        ("as_reported", 7_000, 7_000, None),
        ("by_quote", 7_000, 7_000, None),
        ("by_quote", None, 0, "quote_missing"),
        ("by_rule", None, 20_000, None),  # 5 % of what was received
        ("by_rule", 7_000, 20_000, None),
    ],
)
def test_an_amount_not_reported_comes_from_where_the_terms_say(
    collection: str, by_quote: int | None, collected: int, reason: str | None
) -> None:
    decided = decide(collecting(None), context=joined(collection), by_quote=by_quote)
    assert (decided.collected, decided.reason) == (collected, reason)


def test_what_the_partner_reports_stands_above_its_quote() -> None:
    assert decide(collecting(1_000), context=joined("by_quote"), by_quote=7_000).collected == 1_000


def test_money_of_nobody_waits_unless_only_the_rules_could_say_how_much_it_is() -> None:
    assert [leg.destination for leg in decide(people=[]).legs] == ["unallocated"]
    assert [leg.destination for leg in decide(people=[member(MANDATE, active=False)]).legs] == ["unallocated"]
    assert decide(collecting(0), people=[]).legs == ()
    assert decide(collecting(None), people=[], context=joined("by_rule")).reason == "member_unknown"


@pytest.mark.parametrize(
    ("mandate", "destination"),
    [
        (MANDATE, "savers"),
        (replace(MANDATE, given_at=NOW + SECOND), "savers"),  # collected before the member's word reached us
        (replace(MANDATE, withdrawn_at=NOW), "unapplied"),
        (replace(MANDATE, withdrawn_at=NOW + SECOND), "savers"),
        (replace(MANDATE, paused_at=NOW), "unapplied"),
        (replace(MANDATE, paused_at=NOW + SECOND), "savers"),
    ],
)
def test_money_follows_the_mandate_in_force_when_the_migrant_paid(mandate: Mandate, destination: str) -> None:
    decided = decide(people=[member(mandate)])
    assert decided.status == "posted"
    assert [leg.destination for leg in decided.legs] == [destination]


@pytest.mark.parametrize(
    ("ended_on", "destination"),
    [(date(2026, 3, 2), "unapplied"), (date(2026, 3, 3), "savers"), (None, "savers")],
)
def test_an_enrolment_takes_money_to_the_day_before_it_ends(ended_on: date | None, destination: str) -> None:
    decided = decide(enrolment=enrolled(ended_on=ended_on))
    assert [leg.destination for leg in decided.legs] == [destination]


def test_the_years_of_membership_count_from_a_contribution_that_came_before_the_enrolment() -> None:
    [leg] = decide(enrolment=enrolled(on=date(2026, 3, 2)), event=paid_at(NOW - timedelta(days=300))).legs
    assert leg.tier == 0
    assert leg.window is not None
    assert leg.window.start == date(2025, 1, 1)


@given(received=st.integers(1, 10**9), share=st.integers(0, 1_000), ended=st.booleans())
def test_the_parts_always_add_up_to_what_was_collected(received: int, share: int, ended: bool) -> None:
    amount = received * share // 1_000
    event = replace(EVENT, received=Money(received, "RWF"), collected=Money(amount, "RWF"))
    decided = decide(event, enrolment=enrolled(ended_on=date(2026, 1, 1) if ended else None))
    assert sum(leg.amount for leg in decided.legs) == decided.collected == amount
    assert all(leg.amount > 0 for leg in decided.legs)
    assert decided.unapplied == sum(leg.amount for leg in decided.legs if leg.destination == "unapplied")
    debited: set[UUID] = {leg.debited for leg in decided.legs}
    assert debited <= {ACCOUNTS[SAVERS, "partner_receivable", "acme"]}
