"""What a mandate and a level of verification let through in a month, and which facts count."""

import random
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from ledger.money import Money
from products.facts import Fact
from products.members import mandates, registry, verification
from products.members.models import NewMandate
from products.programmes.model import Level
from products.remittances import quoting
from products.remittances.events import RemittanceCompleted
from products.remittances.partners import Partner
from products.remittances.process import Verdict
from tests.integration.remittances.seen import contributions
from tests.integration.remittances.test_reevaluate import run_to_the_end
from tests.racing import at_once
from tests.unit.programmes.world import changed
from tests.world import Person, World

LIMIT = 30_000


def limited(
    world: World, person: Person, amount: int = LIMIT, *, since: timedelta = timedelta(days=90)
) -> None:
    """Give a mandate with a limit per month, through the member's partner."""
    now = world.clock.now()
    with world.databases.worker.begin() as tx:
        member = registry.find(tx, world.books.keyring, person.link_id)
        given = NewMandate("2026-2", "rw", now - since, limit_per_month=Money(amount, "RWF"))
        mandates.give(tx, world.books.keyring, member, given, now)


def savings(world: World, person: Person) -> int:
    """What of a guaranteed partner's collections is saved."""
    return world.balance("member_savings", person.enrolments["savings"])


def unapplied(world: World, person: Person) -> int:
    return world.balance("member_unapplied", person.member_id)


def reasons(verdicts: list[Verdict]) -> list[str | None]:
    assert {one.state for one in verdicts} <= {"posted", "reversed"}
    return [one.reason for one in verdicts]


def test_what_is_collected_above_the_mandates_limit_of_the_month_is_unapplied(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    person = world.member(partner)
    limited(world, person)
    # both in one batch: the second sees the room that the first took
    events = [world.completed(person), world.completed(person)]
    assert reasons(world.send(partner, *events)) == [None, "mandate_limit"]
    assert (savings(world, person), unapplied(world, person)) == (LIMIT, 10_000)
    assert [one.amount for one in contributions(world, events[1].remittance_id)] == [10_000, 10_000]

    assert reasons(world.send(partner, world.completed(person))) == ["mandate_limit"]
    assert savings(world, person) == LIMIT

    # what is taken back gives its room back
    assert reasons(world.send(partner, world.reversed(events[0].remittance_id))) == [None]
    assert reasons(world.send(partner, world.completed(person))) == [None]
    assert savings(world, person) == LIMIT


def test_months_are_the_programmes_and_a_late_event_uses_the_room_of_its_own(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    person = world.member(partner)
    limited(world, person)
    # Kigali is two hours ahead: this is 1 March there
    march = datetime(2026, 2, 28, 22, 30, tzinfo=UTC)
    assert reasons(
        world.send(partner, world.completed(person, collected=LIMIT, received=600_000, at=march))
    ) == [None]
    assert reasons(world.send(partner, world.completed(person))) == ["mandate_limit"]
    february = march - timedelta(hours=1)
    assert reasons(world.send(partner, world.completed(person, at=february))) == [None]
    assert savings(world, person) == LIMIT + 20_000


def test_a_quote_asks_for_no_more_than_the_mandate_lets_through(world: World) -> None:
    partner = world.partner(terms="guaranteed", collection="by_rule")
    person = world.member(partner)
    limited(world, person, 12_000)
    with world.databases.worker.begin() as tx:
        offer = quoting.give(
            tx,
            world.books,
            partner.id,
            member=person.key,
            sent=Money(100_000, "AED"),
            received=Money(400_000, "RWF"),
            origin_country="AE",
            destination_country="RW",
        )
    assert (offer.collect.amount, offer.unapplied.amount) == (12_000, 0)


def test_batches_at_once_never_pass_the_limit_together(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    shuffle = random.Random(7)
    for _ in range(6):
        people = [world.member(partner) for _ in range(3)]
        for person in people:
            limited(world, person)
        batches: list[list[RemittanceCompleted]] = []
        for _ in range(3):
            batch = [
                world.completed(person, collected=shuffle.randrange(5_000, 20_001))
                for person in people
                for _ in "12"
            ]
            shuffle.shuffle(batch)
            batches.append(batch)

        def again(person: Person = people[0]) -> None:
            # a mandate given anew meanwhile is another row with the same room
            limited(world, person)

        at_once(*(lambda batch=batch: world.send(partner, *batch) for batch in batches), again)
        for person in people:
            sent = sum(
                event.collected.amount
                for batch in batches
                for event in batch
                if event.member == person.key and event.collected is not None
            )
            assert savings(world, person) == min(sent, LIMIT)
            assert savings(world, person) + unapplied(world, person) == sent


def verify(world: World, person: Person, level: Level, until: date | None = None) -> UUID:
    now = world.clock.now()
    with world.databases.worker.begin() as tx:
        member = registry.find(tx, world.books.keyring, person.link_id)
        cipher = registry.cipher_of(tx, world.books.keyring, member)
        return verification.record(
            tx, cipher, member, level, verified_by="cli_acme", evidence="seen", valid_until=until, at=now
        )


def test_a_level_of_verification_raises_what_may_be_contributed_in_a_month(world: World) -> None:
    source = changed(
        "ejoheza",
        (
            "sponsors:\n",
            """verification:
  - level: none
    contributions_per_month: "10000"
  - level: document
    contributions_per_month: "50000"
sponsors:
""",
        ),
    )
    world.programme("ejoheza", source)
    acme = world.partner("acme", terms="guaranteed")
    person = world.member(acme)

    def sent(partner: Partner = acme) -> str | None:
        (reason,) = reasons(world.send(partner, world.completed(person)))
        return reason

    assert sent() == "verification_limit"
    assert (savings(world, person), unapplied(world, person)) == (10_000, 10_000)
    verify(world, person, "phone")  # says nothing of its own: as at the level below
    assert sent() == "verification_limit"
    verified = verify(world, person, "document", until=world.clock.now().date() + timedelta(days=1))
    assert sent() is None
    assert savings(world, person) == 30_000
    with world.databases.worker.begin() as tx:
        tomorrow = world.clock.now().date() + timedelta(days=1)
        assert verification.levels(tx, [person.member_id], tomorrow) == {person.member_id: "document"}
        # the document is over, what was verified by the phone is not
        assert verification.levels(tx, [person.member_id], tomorrow + timedelta(days=1)) == {
            person.member_id: "phone"
        }
        verification.end(
            tx, registry.find(tx, world.books.keyring, person.link_id), verified, world.clock.now()
        )
    assert sent() == "verification_limit"
    assert savings(world, person) == 30_000


def test_a_fact_counts_once_its_evidence_is_what_the_programme_asks_for(world: World) -> None:
    world.programme("ejoheza", changed("ejoheza", ("    weaker: counts\n", "")))
    partner = world.partner(terms="guaranteed")
    world.fund(1_000_000)
    since, now = date(2020, 1, 1), world.clock.now()
    person = world.member(partner, category=None, facts=[Fact("income_category", 1, since, now, "document")])
    world.send(partner, world.completed(person))
    assert world.balance("sponsor_committed", "gov-rw") == 0
    with world.databases.worker.begin() as tx:
        member = registry.find(tx, world.books.keyring, person.link_id)
        proven = Fact("income_category", 1, since, now, "institution")
        registry.add_facts(tx, world.books.keyring, member, [proven])
    run_to_the_end(world)
    assert world.balance("match_unvested", person.enrolments["savings"]) == 18_000
    # a later word without that evidence does not displace what was proven
    with world.databases.worker.begin() as tx:
        doubted = Fact("income_category", 4, since, now + timedelta(seconds=1), "self_declared")
        registry.add_facts(tx, world.books.keyring, member, [doubted])
    run_to_the_end(world)
    assert world.balance("match_unvested", person.enrolments["savings"]) == 18_000
