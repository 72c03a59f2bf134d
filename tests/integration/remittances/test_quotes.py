"""Quotes bind a partner, a member and an amount, once, for a while; judged by when the migrant paid."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from ledger.errors import NotFound
from ledger.money import Money
from products.remittances import quotes, quoting
from products.remittances.partners import Partner
from tests.world import Person, World

RECEIVED = 400_000


def ask(world: World, partner: Partner, person: Person, received: int = RECEIVED) -> quoting.Offer:
    return world.databases.worker.run(
        lambda tx: quoting.give(
            tx,
            world.books,
            partner.id,
            member=person.key,
            sent=Money(100_000, "AED"),
            received=Money(received, "RWF"),
            origin_country="AE",
            destination_country="RW",
        )
    )


def used_by(world: World, quote_id: UUID) -> UUID | None:
    with world.databases.owner.begin() as tx:
        found: UUID | None = tx.execute(
            text("SELECT used_by FROM products.quote WHERE id = :id"), {"id": quote_id}
        ).scalar_one()
        return found


@pytest.fixture
def partner(world: World) -> Partner:
    found = world.partner(collection="by_quote")
    world.fund(1_000_000)
    return found


def test_a_quote_shows_what_the_rules_collect_and_the_match_that_it_would_earn(
    world: World, partner: Partner
) -> None:
    person = world.member(partner)
    offer = ask(world, partner, person)
    assert (offer.collect, offer.collect_sent) == (Money(20_000, "RWF"), Money(5_000, "AED"))
    assert offer.parts == (quoting.Part("savings", 20_000, 18_000),)

    event = world.completed(person, collected=None, quote_id=offer.id, at=world.clock.now())
    [verdict] = world.send(partner, event)

    assert verdict.state == "posted"
    assert world.balance("member_contributions_pending", person.enrolments["savings"]) == 20_000
    assert used_by(world, offer.id) == verdict.remittance
    assert ask(world, partner, person).parts == (quoting.Part("savings", 20_000, 0),)  # the cap is reached


def test_a_late_event_is_judged_by_when_the_migrant_paid(world: World, partner: Partner) -> None:
    person = world.member(partner)
    offer = ask(world, partner, person)
    paid = world.clock.now() + quotes.VALID_FOR
    world.clock.advance(timedelta(days=3))
    [verdict] = world.send(partner, world.completed(person, collected=None, quote_id=offer.id, at=paid))
    assert verdict.state == "posted"


@pytest.mark.parametrize("late", [timedelta(seconds=-1), quotes.VALID_FOR + timedelta(seconds=1)])
def test_a_quote_does_not_hold_before_it_was_given_or_after_it_expired(
    world: World, partner: Partner, late: timedelta
) -> None:
    person = world.member(partner)
    offer = ask(world, partner, person)
    at = world.clock.now() + late
    [verdict] = world.send(partner, world.completed(person, collected=None, quote_id=offer.id, at=at))
    assert (verdict.state, verdict.reason) == ("quarantined", "quote_missing")


def test_a_quote_is_of_one_member_and_one_amount(world: World, partner: Partner) -> None:
    person, other = world.member(partner), world.member(partner)
    offer = ask(world, partner, person)
    event = world.completed(person, collected=None, quote_id=offer.id, at=world.clock.now())
    wrong = [
        replace(event, remittance_id="A", member=other.key),
        replace(event, remittance_id="B", received=Money(RECEIVED + 1, "RWF")),
    ]
    assert [verdict.reason for verdict in world.send(partner, *wrong)] == ["quote_missing"] * 2
    assert [verdict.state for verdict in world.send(partner, event)] == ["posted"]


def test_a_quote_is_used_once_also_within_a_batch(world: World, partner: Partner) -> None:
    person = world.member(partner)
    offer = ask(world, partner, person)
    first = world.completed(person, collected=None, quote_id=offer.id, at=world.clock.now())
    second = replace(first, remittance_id="AGAIN")
    verdicts = world.send(partner, first, second)
    assert [verdict.state for verdict in verdicts] == ["posted", "quarantined"]
    assert [verdict.reason for verdict in world.send(partner, second)] == ["quote_missing"]


def test_nobody_uses_up_a_quote_that_does_not_hold_for_them(world: World, partner: Partner) -> None:
    person, other = world.member(partner), world.member(partner)
    offer = ask(world, partner, person)
    reported = world.completed(other, collected=1_000, quote_id=offer.id, at=world.clock.now())
    assert [verdict.state for verdict in world.send(partner, reported)] == ["posted"]
    assert used_by(world, offer.id) is None
    event = world.completed(person, collected=None, quote_id=offer.id, at=world.clock.now())
    assert [verdict.state for verdict in world.send(partner, event)] == ["posted"]


def test_a_partner_gets_no_quote_for_a_member_of_another(world: World, partner: Partner) -> None:
    person = world.member(partner)
    stranger = world.partner("other")
    with pytest.raises(NotFound):
        ask(world, stranger, person)


def test_a_migrant_who_pays_in_the_second_of_the_quote_pays_by_it(world: World, partner: Partner) -> None:
    world.clock.advance(timedelta(milliseconds=700))
    person = world.member(partner)
    offer = ask(world, partner, person)
    whole_second = world.clock.now().replace(microsecond=0)
    [verdict] = world.send(
        partner, world.completed(person, collected=None, quote_id=offer.id, at=whole_second)
    )
    assert verdict.state == "posted"
