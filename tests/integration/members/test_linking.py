"""One person at several partners: linked by the person alone, and matched once."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import ProgrammingError

from api.jobs import reevaluate_all
from ledger.clock import FixedClock
from products.checks import PRODUCT_CHECKS
from products.members import linking, registry, waiting
from products.members.linking import LinkRefused, Offer
from products.members.models import Member
from products.programmes.loader import catalogue
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.integration.members.builders import speak_for
from tests.integration.members.proving import Proving
from tests.racing import at_once
from tests.world import Person, World


@pytest.fixture
def proving(databases: Databases) -> Proving:
    return Proving.on(databases)


def offer(proving: Proving, member: Member) -> Offer:
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        return linking.offer(tx, proving.world.keyring, member, proving.clock.now())


def join(proving: Proving, member: Member, code: str) -> None:
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        linking.join(tx, proving.world.keyring, member, code, proving.clock.now())


def person_of(proving: Proving, member: Member) -> list[object]:
    with proving.databases.worker.begin() as tx:
        return list(linking.members_of_person(tx, member.member_id))


def test_who_types_the_code_of_one_app_into_another_is_one_person(proving: Proving) -> None:
    acme, bolt = proving.member(1), proving.member(1, partner=proving.world.bolt)
    assert person_of(proving, acme) == [acme.member_id]
    join(proving, bolt, f" {offer(proving, acme).code.upper()} ")
    both = sorted([acme.member_id, bolt.member_id])
    assert person_of(proving, acme) == person_of(proving, bolt) == both
    with proving.databases.worker.begin() as tx:
        assert [one.kind for one in waiting.notices_of(tx, bolt)] == ["linked"]
    with proving.databases.api.begin() as tx:
        speak_for(tx, bolt.partner_id)
        linking.leave(tx, bolt, proving.clock.now())
        linking.leave(tx, bolt, proving.clock.now())
    assert person_of(proving, acme) == [acme.member_id]
    assert person_of(proving, bolt) == [bolt.member_id]


def test_a_code_links_once_for_half_an_hour_and_nobody_with_themselves(proving: Proving) -> None:
    acme, bolt = proving.member(1), proving.member(1, partner=proving.world.bolt)
    with pytest.raises(LinkRefused):
        join(proving, bolt, "23456789abcd")
    with pytest.raises(LinkRefused):
        join(proving, acme, offer(proving, acme).code)
    late = offer(proving, acme).code
    proving.clock.advance(timedelta(minutes=30))
    with pytest.raises(LinkRefused):
        join(proving, bolt, late)
    code = offer(proving, acme).code
    done: list[bool] = []

    def try_it() -> None:
        try:
            join(proving, bolt, code)
            done.append(True)
        except LinkRefused:
            done.append(False)

    at_once(*[try_it] * 4)
    assert sorted(done) == [False, False, False, True]


def test_persons_of_both_sides_become_one_however_they_are_linked_at_once(proving: Proving) -> None:
    people = [proving.member(n, partner=p) for n in (1, 2) for p in (proving.world.acme, proving.world.bolt)]
    ring = [(people[n], people[(n + 1) % 4]) for n in range(4)]
    codes = [offer(proving, first).code for first, _ in ring]
    at_once(
        *[
            lambda member=second, code=code: join(proving, member, code)
            for (_, second), code in zip(ring, codes, strict=True)
        ]
    )
    whole = sorted(one.member_id for one in people)
    assert all(person_of(proving, one) == whole for one in people)


def test_an_offer_makes_the_same_statements_whether_the_phone_is_known_elsewhere_or_not(
    proving: Proving,
) -> None:
    known, unknown = proving.member(1), proving.member(2)
    proving.member(1, partner=proving.world.bolt)

    def statements_of(work: Callable[[], object]) -> list[str]:
        seen: list[str] = []

        def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
            seen.append(statement)

        event.listen(proving.databases.api.engine, "before_cursor_execute", note)
        try:
            work()
        finally:
            event.remove(proving.databases.api.engine, "before_cursor_execute", note)
        return seen

    for work in (lambda one: proving.start(one, "link"), lambda one: offer(proving, one)):
        first, second = (statements_of(lambda one=one, work=work: work(one)) for one in (known, unknown))
        assert first == second != []


def test_no_partner_reads_who_is_one_person_with_whom(proving: Proving) -> None:
    acme, bolt = proving.member(1), proving.member(1, partner=proving.world.bolt)
    join(proving, bolt, offer(proving, acme).code)
    for statement in (
        "SELECT * FROM products.person_member",
        "INSERT INTO products.person_member SELECT * FROM products.person_member",
        "UPDATE products.person_member SET person_id = member_id",
        "UPDATE products.link_offer SET used_at = NULL",
    ):
        with pytest.raises(ProgrammingError), proving.databases.api.begin() as tx:
            tx.execute(text(statement))
    with proving.databases.api.begin() as tx:
        speak_for(tx, bolt.partner_id)
        assert tx.execute(text("SELECT count(*) FROM products.link_offer")).scalar_one() == 0


# -- matched once ------------------------------------------------------------------------------------------------


def rederive(world: World) -> None:
    assert reevaluate_all(world.databases.worker, world.books) > 0
    with world.databases.auditor.begin() as tx:
        for check in PRODUCT_CHECKS:
            assert check.run(tx).violations == 0, check.name


def entitled(world: World, *people: Person) -> list[int]:
    with world.databases.worker.begin() as tx:
        return [
            tx.execute(
                text(
                    "SELECT coalesce(sum(entitled), 0)::int FROM products.match_state WHERE enrolment_id = :id"
                ),
                {"id": one.enrolments["savings"]},
            ).scalar_one()
            for one in people
        ]


@dataclass
class Twice:
    """One person, registered by two partners and enrolled through each. EjoHeza matches from 15,000 up to 18,000 a year."""

    world: World
    acme: Partner
    bolt: Partner
    older: Person
    younger: Person

    def send(self, of_acme: int = 0, of_bolt: int = 0) -> None:
        """What the person pays through each partner."""
        for partner, person, amount in (
            (self.acme, self.older, of_acme),
            (self.bolt, self.younger, of_bolt),
        ):
            if amount:
                self.world.send(partner, self.world.completed(person, collected=amount))

    def link(self) -> None:
        """As the person would."""
        world = self.world
        with world.databases.worker.begin() as tx:
            one, two = (
                registry.find(tx, world.books.keyring, person.link_id)
                for person in (self.older, self.younger)
            )
            made = linking.offer(tx, world.books.keyring, one, world.clock.now())
            linking.join(tx, world.books.keyring, two, made.code, world.clock.now())

    def entitled(self) -> list[int]:
        """What each enrolment is entitled to, once the job has run."""
        rederive(self.world)
        return entitled(self.world, self.older, self.younger)


def twice(
    databases: Databases, clock: FixedClock, source: str | None = None, *, apart: timedelta = timedelta()
) -> Twice:
    world = World(databases, clock)
    world.programme(source=source)
    acme = world.partner("acme", terms="guaranteed")
    bolt = world.partner("bolt", terms="guaranteed")
    world.fund(1_000_000)
    older = world.member(acme)
    clock.advance(apart)
    return Twice(world, acme, bolt, older, world.member(bolt))


def test_two_enrolments_of_one_person_are_matched_up_to_one_cap(
    databases: Databases, clock: FixedClock
) -> None:
    person = twice(databases, clock)
    person.send(20_000, 20_000)
    assert entitled(person.world, person.older, person.younger) == [18_000, 18_000]
    person.link()
    assert person.entitled() == [18_000, 0]
    assert person.world.balance("sponsor_uncommitted", "gov-rw") == 1_000_000 - 18_000
    person.send(5_000, 30_000)  # later money changes nothing
    assert person.entitled() == [18_000, 0]


def test_thresholds_are_reached_together(databases: Databases, clock: FixedClock) -> None:
    person = twice(databases, clock)
    person.send(8_000, 9_000)
    assert entitled(person.world, person.older, person.younger) == [0, 0]
    person.link()
    assert person.entitled() == [0, 17_000]
    person.send(of_acme=500)
    assert person.entitled() == [0, 17_500]
    person.send(of_acme=20_000)
    assert person.entitled() == [18_000, 0]


def test_whatever_comes_in_whatever_order_one_person_earns_what_one_enrolment_would(
    databases: Databases, clock: FixedClock
) -> None:
    person = twice(databases, clock)
    amounts = random.Random(7)
    total = 0
    person.link()
    for _ in range(8):
        acme, bolt = amounts.choice((0, 1_000, 2_500)), amounts.choice((500, 1_500, 4_000))
        total += acme + bolt
        person.send(acme, bolt)
        assert sum(person.entitled()) == (min(total, 18_000) if total >= 15_000 else 0)
    assert total > 18_000


def test_who_unlinks_is_matched_as_two_again(databases: Databases, clock: FixedClock) -> None:
    person = twice(databases, clock)
    person.link()
    person.send(20_000, 20_000)
    assert person.entitled() == [18_000, 0]
    with databases.worker.begin() as tx:
        member = registry.find(tx, person.world.books.keyring, person.younger.link_id)
        linking.leave(tx, member, clock.now())
    assert person.entitled() == [18_000, 18_000]


def test_where_years_begin_on_different_days_the_younger_enrolment_earns_nothing_beside_the_older(
    databases: Databases, clock: FixedClock
) -> None:
    source = catalogue()["ejoheza"].replace(
        "    match:\n      window:\n        kind: calendar_year",
        "    match:\n      window:\n        kind: membership_year",
    )
    person = twice(databases, clock, source, apart=timedelta(days=40))
    person.send(of_bolt=20_000)
    person.link()
    assert person.entitled() == [0, 18_000]  # nothing is doubled while the older one is empty
    person.send(of_acme=16_000)
    assert person.entitled() == [16_000, 0]


def test_a_linked_person_is_matched_once_while_batches_and_the_job_run_at_once(
    databases: Databases, clock: FixedClock
) -> None:
    person = twice(databases, clock)
    person.link()
    at_once(
        *[lambda: person.send(of_acme=3_000)] * 3,
        *[lambda: person.send(of_bolt=3_000)] * 3,
        lambda: reevaluate_all(databases.worker, person.world.books),
    )
    assert sum(person.entitled()) == 18_000
