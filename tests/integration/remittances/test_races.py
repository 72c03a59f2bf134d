"""Races between real connections over remittances, match and settlements: whoever wins, the books are right.

Each test's world is verified when the test is done with it.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import text

from ledger.money import Money
from products.remittances import quoting, waiting
from products.remittances.events import Event, MemberKey
from products.remittances.partners import Partner
from products.remittances.process import Verdict
from tests.integration.remittances.seen import allocated_on, close_books, contributions
from tests.integration.remittances.test_reevaluate import correct, run_to_the_end
from tests.racing import at_once
from tests.world import Person, World

ROUNDS = 10


def outcomes(verdicts: list[Verdict]) -> Counter[tuple[str, str | None]]:
    return Counter((verdict.state, verdict.reason) for verdict in verdicts)


def sent_at_once(world: World, partner: Partner, *batches: Sequence[Event]) -> list[Verdict]:
    """What becomes of batches that are processed at the same moment, each by a worker of its own."""
    verdicts: list[Verdict] = []
    at_once(*(sending(world, partner, batch, verdicts) for batch in batches))
    return verdicts


def sending(
    world: World, partner: Partner, batch: Sequence[Event], verdicts: list[Verdict]
) -> Callable[[], None]:
    """Work that processes a batch and keeps its verdicts."""
    return lambda: verdicts.extend(world.send(partner, *batch))


def settling(world: World, partner: Partner, amount: int, paired: list[int]) -> Callable[[], None]:
    """Work that records a settlement and keeps what it paired."""
    return lambda: paired.append(world.settle(partner, amount).paired)


def funding(world: World, amount: int, reference: str) -> Callable[[], None]:
    """Work that lets the sponsor pay in."""
    return lambda: world.fund(amount, reference=reference)


def test_a_reversal_and_its_original_at_once_leave_nothing(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(10_000_000)
    people = [world.member(partner) for _ in range(5)]
    for _ in range(ROUNDS):
        originals = [world.completed(person) for person in people]
        reversals = [world.reversed(event.remittance_id) for event in originals]
        sent_at_once(world, partner, originals, [*reversed(reversals)])
        for event in originals:
            assert {one.state for one in contributions(world, event.remittance_id)} <= {"reversed"}
    assert world.balance("partner_receivable", "acme") == 0
    assert world.balance("sponsor_uncommitted", "gov-rw") == 10_000_000
    assert sum(world.balance("member_savings", person.enrolments["savings"]) for person in people) == 0


def test_two_batches_of_the_same_deliveries_post_each_once(world: World) -> None:
    partner = world.partner()
    world.fund(10_000_000)
    people = [world.member(partner) for _ in range(8)]
    for _ in range(ROUNDS):
        events = [world.completed(person, collected=1_000) for person in people]
        verdicts = sent_at_once(world, partner, events, [*reversed(events)])
        assert outcomes(verdicts) == {("posted", None): 8, ("duplicate", None): 8}
        assert len({verdict.remittance for verdict in verdicts}) == 8
    assert world.balance("partner_receivable", "acme") == ROUNDS * 8_000


def test_of_one_remittance_with_two_contents_one_is_posted_and_the_other_a_conflict(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    for number in range(ROUNDS):
        contents = [
            [world.completed(person, remittance_id=f"SAME-{number}", collected=amount)]
            for amount in (100, 200, 300)
        ]
        verdicts = sent_at_once(world, partner, *contents)
        assert outcomes(verdicts) == {("posted", None): 1, ("quarantined", "remittance_conflict"): 2}


def test_nothing_lands_in_a_closed_day_and_what_comes_later_lands_on_the_next_open_one(world: World) -> None:
    partner = world.partner()
    world.fund(10_000_000)
    people = [world.member(partner) for _ in range(6)]
    day = date(2026, 2, 1)
    for _ in range(ROUNDS):
        day += timedelta(days=2)
        at = world.clock.now().replace(month=day.month, day=day.day)
        before: list[int] = []

        def close(day: date = day, before: list[int] = before) -> None:
            before.append(close_books(world, day))

        halves = [
            [world.completed(person, collected=500, at=at) for person in half]
            for half in (people[:3], people[3:])
        ]
        verdicts: list[Verdict] = []
        at_once(close, *(sending(world, partner, half, verdicts) for half in halves))
        assert outcomes(verdicts) == {("posted", None): 6}
        assert before == [allocated_on(world, day)]
        assert allocated_on(world, day) + allocated_on(world, day + timedelta(days=1)) == 6


def test_a_sponsor_that_runs_out_under_four_writers_pays_no_more_than_it_has(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(150_000)
    people = [world.member(partner) for _ in range(24)]
    start = world.clock.now() - timedelta(days=2)
    events = [world.completed(person, at=start + timedelta(minutes=n)) for n, person in enumerate(people)]
    random.Random(5).shuffle(events)
    sent_at_once(world, partner, *(events[n : n + 3] for n in range(0, 12, 3)))
    sent_at_once(world, partner, *(events[n : n + 3] for n in range(12, 24, 3)))

    assert world.balance("sponsor_uncommitted", "gov-rw") >= 0
    matched = [_matched(world, person) for person in people]
    assert sum(matched) <= 150_000
    waiting_ = [n for n, amount in enumerate(matched) if amount < 18_000]
    assert _awaiting(world) == 24 * 18_000 - sum(matched)

    world.fund(60_000, reference="second")
    world.drain()
    served = [_matched(world, people[n]) for n in waiting_]
    assert served == sorted(served, reverse=True)  # those who paid first are served first
    assert sum(_matched(world, person) for person in people) == 210_000
    world.fund(1_000_000, reference="third")
    world.drain()
    assert {_matched(world, person) for person in people} == {18_000}
    assert _awaiting(world) == 0


def _matched(world: World, person: Person) -> int:
    return world.balance("match_unvested", person.enrolments["savings"])


def _awaiting(world: World) -> int:
    with world.databases.owner.begin() as tx:
        return int(
            tx.execute(text("SELECT coalesce(sum(awaiting), 0) FROM products.match_share")).scalar_one()
        )


def test_a_prefunded_partner_never_spends_more_than_its_prefund(world: World) -> None:
    partner = world.partner(terms="prefunded")
    people = [world.member(partner, category=4) for _ in range(9)]
    for number in range(ROUNDS):
        left = world.balance("partner_prefund", "acme")
        world.settle(partner, 100_000 + number)
        events = [world.completed(person) for person in people]
        answers = outcomes(sent_at_once(world, partner, events[:3], events[3:6], events[6:]))
        assert set(answers) <= {("posted", None), ("parked", "partner_prefund_exhausted")}
        spent = 20_000 * answers["posted", None]
        assert world.balance("partner_prefund", "acme") == left + 100_000 + number - spent >= 0


def test_a_partner_at_its_exposure_ceiling_never_owes_more(world: World) -> None:
    partner = world.partner(exposure_ceiling=100_000)
    people = [world.member(partner, category=4) for _ in range(9)]
    for _ in range(ROUNDS):
        owed = world.balance("partner_receivable", "acme")
        events = [world.completed(person) for person in people]
        answers = outcomes(sent_at_once(world, partner, events[:3], events[3:6], events[6:]))
        assert set(answers) <= {("posted", None), ("parked", "partner_ceiling_reached")}
        assert (
            world.balance("partner_receivable", "acme") == owed + 20_000 * answers["posted", None] <= 100_000
        )
        world.clock.advance(timedelta(seconds=1))
        if owed >= 40_000:
            world.settle(partner, 40_000 + _)


def test_a_settlement_beside_arriving_events_pairs_whole_contributions_only(world: World) -> None:
    partner = world.partner()
    world.fund(100_000_000)
    people = [world.member(partner) for _ in range(6)]
    paired = left = 0
    for number in range(ROUNDS):
        world.send(partner, *(world.completed(person, collected=1_000) for person in people))
        settled: list[int] = []
        batches = [
            [world.completed(person, collected=1_000) for person in order] for order in (people, people[::-1])
        ]
        at_once(
            *(sending(world, partner, batch, []) for batch in batches),
            settling(world, partner, 7_000 + number, settled),
        )
        paired += settled[0]
        left += 7_000 + number  # and what earlier ones left over
        assert settled[0] % 1_000 == 0
        assert 6_000 <= settled[0] <= left  # those before, and as many more as have arrived
        left -= settled[0]
    assert world.balance("unidentified_receipts") == left
    total = ROUNDS * 18_000
    savings = sum(world.balance("member_savings", person.enrolments["savings"]) for person in people)
    pending = sum(
        world.balance("member_contributions_pending", person.enrolments["savings"]) for person in people
    )
    assert (savings, pending) == (paired, total - paired)


def test_a_reversal_beside_the_settlement_of_its_original_is_one_or_the_other(world: World) -> None:
    partner = world.partner()
    world.fund(100_000_000)
    people = [world.member(partner) for _ in range(6)]
    for number in range(ROUNDS):
        events = [world.completed(person) for person in people]
        world.send(partner, *events)
        verdicts: list[Verdict] = []
        reversals = [world.reversed(event.remittance_id) for event in events]
        at_once(settling(world, partner, 120_000 + number, []), sending(world, partner, reversals, verdicts))
        answers = outcomes(verdicts)
        assert set(answers) <= {("reversed", None), ("parked", "reversal_needs_approval")}
        for event, verdict in zip(events, verdicts, strict=True):
            [one] = contributions(world, event.remittance_id)
            assert one.state == ("reversed" if verdict.state == "reversed" else "settled")
            assert not one.owed
    assert world.balance("partner_receivable", "acme") == 0


def test_drainers_writers_and_reversals_share_a_sponsors_money(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(30_000)
    for number in range(ROUNDS):
        people = [world.member(partner) for _ in range(9)]
        first, second = people[:5], people[5:]
        events = [world.completed(person) for person in first]
        world.send(partner, *events)
        world.fund(50_000, reference=f"round {number}")
        at_once(
            world.drain,
            world.drain,
            sending(world, partner, [world.reversed(one.remittance_id) for one in events[::2]], []),
            sending(world, partner, [world.completed(person) for person in second], []),
            funding(world, 20_000, f"more {number}"),
        )
        assert world.balance("sponsor_uncommitted", "gov-rw") >= 0
    world.fund(10_000_000, reference="plenty")
    world.drain()
    assert _awaiting(world) == 0


def test_a_drainer_beside_writers_that_take_the_last_money_serves_only_what_is_there(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    for number in range(ROUNDS):
        late, early = [world.member(partner) for _ in range(4)], [world.member(partner) for _ in range(4)]
        world.send(partner, *(world.completed(person) for person in early))
        world.fund(60_000, reference=f"round {number}")
        with world.databases.owner.begin() as tx:  # the fund is open again while entries of before still wait
            tx.execute(text("UPDATE products.sponsor SET queueing = false"))
        at_once(
            world.drain,
            *(sending(world, partner, [world.completed(person)], []) for person in late),
        )
        assert world.balance("sponsor_uncommitted", "gov-rw") >= 0
    world.fund(10_000_000, reference="plenty")
    world.drain()
    assert _awaiting(world) == 0


def test_a_quote_is_used_by_one_of_two_remittances_at_once(world: World) -> None:
    partner = world.partner(collection="by_quote")
    person = world.member(partner)
    for number in range(ROUNDS):
        quote_id = quote(world, partner, person)
        events = [
            world.completed(
                person,
                collected=None,
                quote_id=quote_id,
                at=world.clock.now(),
                remittance_id=f"{number}-{which}",
            )
            for which in "abc"
        ]
        verdicts = sent_at_once(world, partner, *([event] for event in events))
        assert outcomes(verdicts) == {("posted", None): 1, ("quarantined", "quote_missing"): 2}


def test_a_corrected_fact_beside_remittances_and_settlements_decides_the_match_in_the_end(
    world: World,
) -> None:
    partner = world.partner()
    world.fund(10_000_000)
    for number in range(ROUNDS):
        person = world.member(partner, category=1)
        world.send(partner, world.completed(person, collected=10_000))
        later = [world.completed(person, collected=n) for n in (4_000, 6_000)]

        def corrected(person: Person = person) -> None:
            correct(world, person, 3, date(2026, 1, 1))
            run_to_the_end(world)

        at_once(
            corrected,
            *(sending(world, partner, [event], []) for event in later),
            settling(world, partner, 10_000 + number, []),
        )
        run_to_the_end(world)
        world.settle(partner, 500_000 + number)
        assert _matched(world, person) == 10_000  # half of 20,000


def quote(world: World, partner: Partner, person: Person) -> UUID:
    offer = world.databases.worker.run(
        lambda tx: quoting.give(
            tx,
            world.books,
            partner.id,
            member=person.key,
            sent=Money(100_000, "AED"),
            received=Money(400_000, "RWF"),
            origin_country="AE",
            destination_country="RW",
        )
    )
    return offer.id


def test_a_member_registered_while_their_money_arrives_gets_it_at_once_or_when_it_is_looked_for(
    world: World,
) -> None:
    partner = world.partner()
    world.fund(10_000_000)
    for number in range(ROUNDS):
        phone = f"+97150123{number:04}"
        event = world.completed(MemberKey("phone", phone))
        people: list[Person] = []
        verdicts: list[Verdict] = []
        at_once(
            lambda phone=phone, people=people: people.append(world.member(partner, phone=phone)),
            sending(world, partner, [event], verdicts),
        )
        with world.databases.worker.begin() as tx:
            waits = len(waiting.ready(tx))
        assert waits == (verdicts[0].state == "unallocated")
        if waits:
            world.send(partner, event)
        assert world.balance("member_contributions_pending", people[0].enrolments["savings"]) == 20_000
    assert world.balance("unallocated_contributions", "acme") == 0
