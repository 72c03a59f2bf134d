"""Entitlement derived anew: corrected facts, and a new version of the programme."""

from datetime import date, timedelta

from ledger.database import Tx
from ledger.ids import new_id
from products.facts import Fact
from products.members.registry import add_facts, find
from products.programmes.loader import catalogue
from products.remittances.process import Delivery, process
from products.savings.reevaluate import reevaluate
from tests.world import Person, World


def run_to_the_end(world: World) -> int:
    done = 0
    for _ in range(50):
        step = world.databases.worker.run(lambda tx: reevaluate(tx, world.books, limit=2))
        done += step
        if not step:
            return done
    raise AssertionError("the job does not come to an end")


def correct(world: World, person: Person, category: int, since: date) -> None:
    def record(tx: Tx) -> None:
        member = find(tx, world.books.keyring, person.link_id)
        fact = Fact("income_category", category, since, world.clock.now(), "institution")
        add_facts(tx, world.books.keyring, member, [fact])

    world.databases.worker.run(record)


def test_a_corrected_income_category_changes_the_match_of_the_year(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(1_000_000)
    person = world.member(partner, category=1)
    world.send(partner, world.completed(person, collected=20_000))
    assert world.balance("match_unvested", person.enrolments["savings"]) == 18_000

    world.clock.advance(timedelta(hours=1))
    correct(world, person, 3, date(2026, 1, 1))
    assert run_to_the_end(world) == 1

    assert world.balance("match_unvested", person.enrolments["savings"]) == 10_000
    assert world.balance("sponsor_uncommitted", "gov-rw") == 1_000_000 - 10_000
    assert run_to_the_end(world) == 0


def test_a_new_version_for_open_windows_is_applied_to_them_step_by_step(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(1_000_000)
    people = [world.member(partner) for _ in range(5)]
    world.send(partner, *(world.completed(person) for person in people))

    second = (
        catalogue()["ejoheza"]
        .replace("version: 1\n", "version: 2\n")
        .replace('in_force_from: "2020-01-01"', 'in_force_from: "2026-03-01"')
        .replace("applies_to: new_windows", "applies_to: open_windows")
        .replace('cap: "18000"', 'cap: "19000"')
    )
    world.programme("ejoheza", second)
    assert run_to_the_end(world) == 5

    assert [world.balance("match_unvested", person.enrolments["savings"]) for person in people] == [
        19_000
    ] * 5
    world.send(partner, world.completed(people[0]))
    assert world.balance("match_unvested", people[0].enrolments["savings"]) == 19_000


def test_a_fact_recorded_while_a_batch_judges_by_the_old_one_is_not_lost(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(1_000_000)
    person = world.member(partner, category=1)
    delivery = Delivery(new_id(), partner.id, world.completed(person, collected=20_000))
    with world.databases.worker.begin() as tx:
        process(tx, [delivery], books=world.books)
        world.clock.advance(timedelta(hours=1))
        correct(world, person, 3, date(2026, 1, 1))
        assert run_to_the_end(world) == 0  # the batch may still commit what it judged by category 1
    assert world.balance("match_unvested", person.enrolments["savings"]) == 18_000

    assert run_to_the_end(world) == 1
    assert world.balance("match_unvested", person.enrolments["savings"]) == 10_000


def test_what_entitlement_gains_beyond_the_sponsors_money_waits_for_it(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(12_000)
    person = world.member(partner, category=3)
    world.send(partner, world.completed(person, collected=20_000))
    assert world.balance("match_unvested", person.enrolments["savings"]) == 10_000

    correct(world, person, 1, date(2026, 1, 1))
    run_to_the_end(world)
    assert world.balance("match_unvested", person.enrolments["savings"]) == 10_000
    assert world.drain() == 1  # 2,000 of the 8,000 that wait
    assert world.balance("match_unvested", person.enrolments["savings"]) == 12_000
    world.fund(6_000, reference="second")
    world.drain()
    assert world.balance("match_unvested", person.enrolments["savings"]) == 18_000


def test_a_version_with_another_tier_takes_remittances_before_its_windows_are_derived_anew(
    world: World,
) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(1_000_000)
    person, poor = world.member(partner, category=3), world.member(partner, category=1)
    for one in (person, poor):
        world.send(partner, world.completed(one, collected=10_000))
    fourth = """        - code: category-4
          when:
            - fact: income_category
              is: 4
          rate: "10"
          threshold: "1000"
"""
    second = (
        catalogue()["ejoheza"]
        .replace("version: 1\n", "version: 2\n")
        .replace('in_force_from: "2020-01-01"', 'in_force_from: "2026-03-01"')
        .replace("applies_to: new_windows", "applies_to: open_windows")
        .replace("      tiers:\n", "      tiers:\n" + fourth)
    )
    world.programme("ejoheza", second)
    later = world.completed(person, collected=10_000, remittance_id="LATER")
    world.send(partner, later, world.completed(poor, collected=10_000))
    world.send(partner, world.reversed("LATER"))

    assert run_to_the_end(world) == 2
    matched = [world.balance("match_unvested", one.enrolments["savings"]) for one in (person, poor)]
    assert matched == [0, 18_000]
    world.send(partner, world.completed(person, collected=10_000))
    assert world.balance("match_unvested", person.enrolments["savings"]) == 10_000
