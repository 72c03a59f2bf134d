"""Remittances become postings: each terms, each destination, each case of the contract's table."""

from datetime import UTC, date, datetime, timedelta

import pytest

from ledger.ids import new_id
from products.facts import Fact
from products.remittances.events import MemberKey
from products.remittances.process import Delivery, process
from products.remittances.reading import remittances
from products.settlements.pair import record_settlement
from tests.world import World


def test_a_net_partners_contribution_waits_and_its_match_is_committed(world: World) -> None:
    partner = world.partner(terms="net")
    world.fund(1_000_000)
    person = world.member(partner)

    [verdict] = world.send(partner, world.completed(person, received=400_000, collected=20_000))

    enrolment = person.enrolments["savings"]
    assert verdict.state == "posted"
    assert world.balance("partner_receivable", "acme") == 20_000
    assert world.balance("member_contributions_pending", enrolment) == 20_000
    assert world.balance("member_savings", enrolment) == 0
    assert world.balance("sponsor_committed", "gov-rw") == 18_000  # 20,000 saved, matched up to the cap
    assert world.balance("sponsor_uncommitted", "gov-rw") == 1_000_000 - 18_000
    assert world.balance("match_unvested", enrolment) == 0


def test_a_guaranteed_partners_contribution_is_savings_at_once_and_its_match_is_granted(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(1_000_000)
    person = world.member(partner)

    world.send(partner, world.completed(person))

    enrolment = person.enrolments["savings"]
    assert world.balance("member_savings", enrolment) == 20_000
    assert world.balance("match_unvested", enrolment) == 18_000
    assert world.balance("partner_receivable", "acme") == 20_000


def test_a_prefunded_partner_spends_its_prefund_and_waits_when_it_is_empty(world: World) -> None:
    partner = world.partner(terms="prefunded")
    world.settle(partner, 30_000)
    person = world.member(partner)

    first, second = world.send(
        partner, world.completed(person), world.completed(person, remittance_id="LATE")
    )

    assert (first.state, second.state, second.reason) == ("posted", "parked", "partner_prefund_exhausted")
    assert world.balance("partner_prefund", "acme") == 10_000
    world.settle(partner, 50_000)
    [again] = world.send(partner, world.completed(person, remittance_id="LATE", at=None))
    assert again.state == "posted"
    assert world.balance("partner_prefund", "acme") == 40_000


def test_a_net_partner_at_its_ceiling_is_parked(world: World) -> None:
    partner = world.partner(exposure_ceiling=25_000)
    person = world.member(partner)
    first, second = world.send(partner, world.completed(person), world.completed(person))
    assert (first.state, second.state, second.reason) == ("posted", "parked", "partner_ceiling_reached")


def test_an_unknown_members_money_is_unallocated_until_the_member_is_registered(world: World) -> None:
    partner = world.partner()
    world.fund(1_000_000)
    event = world.completed(MemberKey("phone", "+971501234567"), remittance_id="EARLY")

    [first] = world.send(partner, event)
    assert (first.state, first.reason) == ("unallocated", "member_unknown")
    assert world.balance("unallocated_contributions", "acme") == 20_000
    [still] = world.send(partner, event)
    assert still.state == "unallocated"

    person = world.member(partner, phone="+971501234567")
    [then] = world.send(partner, event)
    assert then.state == "posted"
    assert world.balance("unallocated_contributions", "acme") == 0
    assert world.balance("member_contributions_pending", person.enrolments["savings"]) == 20_000
    assert world.balance("partner_receivable", "acme") == 20_000
    assert world.balance("sponsor_committed", "gov-rw") == 18_000


def test_money_without_a_mandate_is_the_members_but_unapplied(world: World) -> None:
    partner = world.partner()
    person = world.member(partner, mandate=False)
    world.send(partner, world.completed(person))
    assert world.balance("member_unapplied", person.member_id) == 20_000


def test_an_excess_is_unapplied(world: World) -> None:
    partner = world.partner()
    person = world.member(partner, choice={"percent": "5"})
    world.send(partner, world.completed(person, received=100_000, collected=7_000))
    assert world.balance("member_contributions_pending", person.enrolments["savings"]) == 5_000
    assert world.balance("member_unapplied", person.member_id) == 2_000


def test_the_same_remittance_again_is_a_duplicate_and_other_content_a_conflict(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    event = world.completed(person, remittance_id="SAME")
    other = world.completed(person, remittance_id="SAME", collected=19_999)

    verdicts = world.send(partner, event, event, other)

    assert [verdict.state for verdict in verdicts] == ["posted", "duplicate", "quarantined"]
    assert verdicts[2].reason == "remittance_conflict"
    assert world.balance("partner_receivable", "acme") == 20_000


@pytest.mark.parametrize("terms", ["net", "guaranteed", "prefunded"])
def test_a_reversal_after_its_original_leaves_nothing(world: World, terms: str) -> None:
    partner = world.partner(terms=terms)  # type: ignore[arg-type]
    if terms == "prefunded":
        world.settle(partner, 100_000)
    world.fund(1_000_000)
    person = world.member(partner)
    world.send(partner, world.completed(person, remittance_id="GONE"))
    [verdict] = world.send(partner, world.reversed("GONE"))

    enrolment = person.enrolments["savings"]
    assert verdict.state == "reversed"
    for code, owner in [
        ("partner_receivable", "acme"),
        ("member_contributions_pending", enrolment),
        ("member_savings", enrolment),
        ("match_unvested", enrolment),
        ("sponsor_committed", "gov-rw"),
    ]:
        assert world.balance(code, owner) == 0, code
    assert world.balance("sponsor_uncommitted", "gov-rw") == 1_000_000


def test_a_reversal_before_its_original_waits_for_it_and_nothing_is_posted(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    verdicts = world.send(
        partner, world.reversed("GONE"), world.completed(person, remittance_id="GONE"), world.reversed("GONE")
    )
    assert [(verdict.state, verdict.reason) for verdict in verdicts] == [
        ("parked", "awaiting_original"),
        ("reversed", None),
        ("duplicate", None),
    ]
    assert world.balance("partner_receivable", "acme") == 0


def test_a_settled_remittance_is_reversed_only_with_approval(world: World) -> None:
    partner = world.partner()
    world.fund(1_000_000)
    person = world.member(partner)
    world.send(partner, world.completed(person, remittance_id="PAID"))
    world.settle(partner, 20_000)
    [asked] = world.send(partner, world.reversed("PAID"))
    assert (asked.state, asked.reason) == ("parked", "reversal_needs_approval")
    [approved] = world.send(partner, world.reversed("PAID"), approved=True)
    assert approved.state == "reversed"
    assert world.balance("member_savings", person.enrolments["savings"]) == 0
    assert world.balance("partner_receivable", "acme") == -20_000  # the fund owes it to the partner


def test_settlement_turns_pending_into_savings_and_grants_the_match(world: World) -> None:
    partner = world.partner()
    world.fund(1_000_000)
    person = world.member(partner)
    world.send(partner, world.completed(person, collected=10_000), world.completed(person, collected=10_000))

    settlement = world.settle(partner, 21_500)

    enrolment = person.enrolments["savings"]
    assert (settlement.paired, settlement.unidentified, settlement.contributions) == (20_000, 1_500, 2)
    assert world.balance("member_savings", enrolment) == 20_000
    assert world.balance("member_contributions_pending", enrolment) == 0
    assert world.balance("match_unvested", enrolment) == 18_000
    assert world.balance("sponsor_committed", "gov-rw") == 0
    assert world.balance("unidentified_receipts") == 1_500
    assert world.settle(partner, 21_500).replayed


def test_a_part_settlement_pays_the_oldest_whole_contributions(world: World) -> None:
    partner = world.partner()
    world.fund(1_000_000)
    person = world.member(partner)
    first = world.clock.now() - timedelta(days=3)
    world.send(
        partner, world.completed(person, collected=10_000), world.completed(person, collected=9_000, at=first)
    )

    settlement = world.settle(partner, 12_000)

    assert (settlement.paired, settlement.unidentified) == (9_000, 3_000)
    # Nothing is granted: the settled part alone does not reach the threshold of 15,000.
    assert world.balance("sponsor_committed", "gov-rw") == 18_000
    assert world.balance("match_unvested", person.enrolments["savings"]) == 0


def test_a_sponsor_that_runs_out_queues_and_is_drained_in_order_when_it_pays(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(20_000)
    people = [world.member(partner) for _ in range(4)]
    world.send(partner, *(world.completed(person) for person in people))
    assert world.balance("sponsor_uncommitted", "gov-rw") == 2_000

    assert world.drain() == 1  # what was left serves the first in the queue in part
    assert world.balance("match_unvested", people[1].enrolments["savings"]) == 2_000
    world.fund(30_000, reference="second")
    world.drain()

    matched = [world.balance("match_unvested", person.enrolments["savings"]) for person in people]
    assert matched == [18_000, 18_000, 14_000, 0]
    world.fund(1_000_000, reference="third")
    world.drain()
    assert world.balance("match_unvested", people[3].enrolments["savings"]) == 18_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"currency": "PHP"}, "currency_not_served"),
        ({"collected": 500_000}, "collected_exceeds_received"),
        ({"collected": None}, "collected_missing"),
        ({"at": datetime(2026, 4, 1, tzinfo=UTC)}, "time_in_the_future"),
        ({"at": datetime(2010, 4, 1, tzinfo=UTC)}, "time_too_long_ago"),
    ],
)
def test_what_is_impossible_is_quarantined_with_its_reason(
    world: World, changes: dict[str, object], reason: str
) -> None:
    partner = world.partner()
    person = world.member(partner)
    [verdict] = world.send(partner, world.completed(person, **changes))  # type: ignore[arg-type]
    assert (verdict.state, verdict.reason) == ("quarantined", reason)


def test_a_failing_batch_leaves_nothing(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    delivery = Delivery(new_id(), partner.id, world.completed(person))

    def fail_after_processing() -> None:
        with world.databases.worker.begin() as tx:
            process(tx, [delivery], books=world.books)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_processing()
    assert world.balance("partner_receivable", "acme") == 0


def test_a_new_year_in_kigali_is_the_year_of_the_match(world: World) -> None:
    world.clock.advance(timedelta(days=400))
    partner = world.partner()
    world.fund(1_000_000)
    person = world.member(partner)
    late = datetime(2026, 12, 31, 21, 59, tzinfo=UTC)  # 23:59 in Kigali
    early = datetime(2026, 12, 31, 22, 1, tzinfo=UTC)  # 00:01 of 2027
    world.send(
        partner,
        world.completed(person, collected=9_000, at=late),
        world.completed(person, collected=9_000, at=early),
    )
    assert world.balance("sponsor_committed", "gov-rw") == 0
    assert date(2027, 1, 1) > date(2026, 12, 31)


def test_money_without_a_member_goes_on_waiting_while_the_partner_may_owe_the_agency_no_more(
    world: World,
) -> None:
    partner = world.partner(programme="ssf-nepal", exposure_ceiling=300_000)
    pay = [Fact("basic_pay", 1_000_000, date(2020, 1, 1), world.clock.now(), "document")]
    known = world.member(partner, programme="ssf-nepal", products=["social-security"], facts=pay)
    nameless = MemberKey("phone", "+971501234567")
    first, event = (
        world.completed(one, received=10_000_000, collected=213_300, currency="NPR")
        for one in (known, nameless)
    )
    assert [one.state for one in world.send(partner, first, event)] == ["posted", "unallocated"]
    world.member(
        partner, phone=nameless.value, programme="ssf-nepal", products=["social-security"], facts=pay
    )

    [still] = world.send(partner, event)
    assert (still.state, still.reason) == ("unallocated", "partner_ceiling_reached")
    world.settle(partner, 213_300, currency="NPR")
    [then] = world.send(partner, event)
    assert then.state == "posted"
    assert world.balance("agency_contributions_collected", "ssf-nepal", programme="ssf-nepal") == 2 * 213_300


def test_two_partners_settle_under_the_same_reference(world: World) -> None:
    for partner in (world.partner("acme"), world.partner("other")):
        settled = world.databases.worker.run(
            lambda tx, partner=partner: record_settlement(  # type: ignore[misc]  # binds the loop's name
                tx,
                world.books,
                partner,
                currency="RWF",
                amount=5,
                through=date(2026, 3, 1),
                reference="MARCH",
            )
        )
        assert not settled.replayed
    assert world.balance("unidentified_receipts") == 10


def test_a_remittance_is_found_by_its_partners_id_for_that_partner_and_for_staff(world: World) -> None:
    partner, other = world.partner("acme"), world.partner("other")
    world.send(partner, world.completed(world.member(partner), remittance_id="SAME"))
    world.send(other, world.completed(world.member(other), remittance_id="SAME"))
    with world.databases.worker.begin() as tx:
        own = remittances(tx, partner_id=partner.id, remittance_id="SAME")
        assert [one.partner_id for one in own] == [partner.id]
        staff = remittances(tx, partner_id=None, remittance_id="SAME")
        assert {one.partner_id for one in staff} == {partner.id, other.id}
        assert remittances(tx, partner_id=None, remittance_id="NONE") == []
