"""Outbox → events: what each partner is told, once, of what came through it, in the shapes of the API."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from api.v1.event_shapes import SHAPES
from api.v1.remittances import RemittanceOut, _shown
from integrations.outbound import feed, forget
from integrations.outbound.catalogue import CATALOGUE
from integrations.outbound.events import expand
from ledger.clock import FixedClock
from ledger.ids import parse_public_id, public_id
from ledger.outbox import Message, publish
from products.remittances import reading
from products.remittances.events import MemberKey
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.integration.outbound.told import RETENTION
from tests.world import World


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> World:
    return World(databases, clock)


def told(world: World, partner: Partner) -> list[feed.Event]:
    """Expand, and read all that a partner is told; each in the shape that its type has."""
    world.databases.worker.run(lambda tx: expand(tx, world.clock, retention=RETENTION))
    with world.databases.worker.begin() as tx:
        found = feed.events(tx, partner.id, limit=1_000)
    for one in found:
        SHAPES[CATALOGUE[one.type].shape].model_validate(one.data)  # type: ignore[index]  # its name is a type's
    return found


def as_read(world: World, rmt: str) -> dict[str, Any]:
    """A remittance as the API shows it."""
    with world.databases.worker.begin() as tx:
        found = reading.remittance(tx, parse_public_id("rmt", rmt), partner_id=None)
    return RemittanceOut.model_validate(_shown(found)).model_dump(mode="json")


def test_a_remittance_is_told_as_the_api_shows_it_with_the_match_it_earned(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(10_000_000)
    person = world.member(partner)
    world.send(partner, world.completed(person, collected=20_000))
    allocated, accrued = told(world, partner)
    assert (allocated.type, accrued.type) == ("remittance.allocated", "match.accrued")
    assert allocated.data == as_read(world, allocated.data["id"])
    assert allocated.data["allocations"] == [
        {
            "product": "savings",
            "amount": {"amount": 20_000, "currency": "RWF"},
            "entitled": {"amount": 18_000, "currency": "RWF"},
        }
    ]
    member = public_id("mem", person.link_id)
    assert accrued.data == {
        "member": member,
        "product": "savings",
        "remittance": allocated.data["id"],
        "contributed": {"amount": 20_000, "currency": "RWF"},
        "accrued": {"amount": 18_000, "currency": "RWF"},
    }
    assert {allocated.link_id, accrued.link_id} == {person.link_id}


def test_each_state_is_told_as_it_was_when_it_was_also_when_it_is_over_by_now(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    world.fund(10_000_000)
    person = world.member(partner)
    sent = world.completed(person)
    world.send(partner, sent)
    world.send(partner, world.reversed(sent.remittance_id))
    world.send(partner, world.completed(MemberKey("partner_reference", "nobody")))
    events = told(world, partner)
    assert [one.type for one in events] == [
        "remittance.allocated",
        "match.accrued",
        "remittance.reversed",
        "remittance.unallocated",
    ]
    first, _, taken_back, unallocated = (one.data for one in events)
    assert (first["status"], first["reversed_at"]) == ("posted", None)
    assert taken_back == as_read(world, taken_back["id"])
    assert unallocated == as_read(world, unallocated["id"])
    assert (unallocated["member"], unallocated["allocations"]) == (None, [])


def test_what_waits_is_told_with_its_reason_and_a_reversal_before_its_original_when_it_came(
    world: World,
) -> None:
    partner = world.partner(terms="net")
    person = world.member(partner)
    early = world.completed(person)
    world.send(partner, world.reversed(early.remittance_id))
    assert told(world, partner) == []
    world.send(partner, early)
    assert [one.type for one in told(world, partner)] == ["remittance.reversed"]
    sent = world.completed(person, collected=20_000)
    world.send(partner, sent)
    world.settle(partner, 20_000)
    world.send(partner, world.reversed(sent.remittance_id))
    parked = told(world, partner)[-1]
    assert (parked.type, parked.data["reason"]) == ("remittance.parked", "reversal_needs_approval")


def test_what_a_settlement_settled_is_told_per_member_and_product(world: World) -> None:
    partner = world.partner(terms="net")
    world.fund(10_000_000)
    anna, berta = world.member(partner), world.member(partner)
    for person, amount in ((anna, 12_000), (berta, 20_000), (anna, 8_000)):
        world.send(partner, world.completed(person, collected=amount))
    settlement = world.settle(partner, 40_000)
    settled = [one for one in told(world, partner) if one.type == "contributions.settled"]
    assert {one.data["member"]: one.data["settled"]["amount"] for one in settled} == {
        public_id("mem", anna.link_id): 20_000,
        public_id("mem", berta.link_id): 20_000,
    }
    assert {one.data["settlement"] for one in settled} == {public_id("stl", settlement.id)}


def test_what_comes_back_and_what_vests_is_told_by_the_partners_own_ids(world: World) -> None:
    partner = world.partner(terms="net")
    person = world.member(partner)
    world.send(partner, world.completed(person, collected=20_000))
    settlement = public_id("stl", world.settle(partner, 20_000).id)
    enrolment = public_id("enr", person.enrolments["savings"])
    member, ours = public_id("mem", person.link_id), public_id("ptn", partner.id)
    amount = {"amount": 20_000, "currency": "RWF"}
    vested = {
        "partner": ours,
        "member": member,
        "enrolment": enrolment,
        "product": "savings",
        "amount": amount,
    }
    line = {"remittal": "rtl_1", "line": 3, "agency": "nssf", "outcome": "rejected", "returned": amount}
    with world.databases.worker.begin() as tx:
        publish(
            tx,
            [
                Message("contributions.returned", "x", {"enrolment": enrolment, "settlement": settlement}),
                Message("settlement.returned", ours, {"settlement": settlement, "partner": ours}),
                Message("match.vested", "x", vested | {"at": "2026-03-02T09:30:00+00:00"}),
                Message("remittal.returned", "x", {"enrolment": enrolment} | line),
            ],
        )
    events = {one.type: one for one in told(world, partner)}
    for type_, data in (
        ("contributions.returned", {"settlement": settlement}),
        ("match.vested", {"vested": amount, "vested_at": "2026-03-02T09:30:00Z"}),
        ("remittal.returned", line),
    ):
        of_member = {"member": member, "enrolment": enrolment, "product": "savings"}
        assert events[type_].data == of_member | data
        assert events[type_].link_id == person.link_id
    assert events["settlement.returned"].data == {"id": settlement, "state": "returned"}


def test_a_partner_is_told_of_its_own_alone_and_by_its_own_ids(world: World) -> None:
    one, other = world.partner("one", terms="guaranteed"), world.partner("other", terms="guaranteed")
    world.fund(10_000_000)
    anna = world.member(one, phone="+250780000001")
    same = world.member(other, phone="+250780000001")
    world.send(one, world.completed(anna))
    assert told(world, other) == []
    world.send(other, world.completed(same))
    for partner, person, stranger in ((one, anna, same), (other, same, anna)):
        events = told(world, partner)
        assert {event.link_id for event in events} == {person.link_id}
        words = str([event.data for event in events])
        assert public_id("mem", stranger.link_id) not in words
        assert "+250780000001" not in words
    with world.databases.api.begin() as tx:  # the API's role, and no filter but the policy
        tx.execute(text("SELECT set_config('mizan.partner', :id, true)"), {"id": str(one.id)})
        seen = tx.exec_driver_sql("SELECT DISTINCT partner_id FROM integrations.event").scalars().all()
    assert seen == [one.id]


def test_nothing_is_told_twice_however_often_it_is_published_or_read(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    person = world.member(partner)
    world.send(partner, world.completed(person))
    before = told(world, partner)
    with world.databases.worker.begin() as tx:
        row = tx.exec_driver_sql("SELECT topic, key, payload FROM ledger.outbox ORDER BY id LIMIT 1").one()
        publish(tx, [Message(*row), Message(*row), Message("nobody.listens", "x", {"n": 1})])
    assert told(world, partner) == before
    # two at once: the second finds the first at it, and does nothing
    with world.databases.worker.begin() as tx, world.databases.worker.begin() as second:
        publish(second, [Message(*row)])
        expand(tx, world.clock, retention=RETENTION)
        assert expand(second, world.clock, retention=RETENTION).messages == 0


def test_what_is_not_behind_the_horizon_yet_is_told_when_it_is_and_in_order(world: World) -> None:
    partner = world.partner(terms="guaranteed")
    person = world.member(partner)
    with world.databases.worker.begin() as early:
        publish(early, [_payout(partner, person.link_id, "early")])
        with world.databases.worker.begin() as late:
            publish(late, [_payout(partner, person.link_id, "late")])
        assert told(world, partner) == []
    events = told(world, partner)
    assert [one.data["reason"] for one in events] == ["early", "late"]
    assert [one.seq for one in events] == [1, 2]


def _payout(partner: Partner, link_id: Any, reason: str) -> Message:
    payload = {
        "partner": public_id("ptn", partner.id),
        "member": public_id("mem", link_id),
        "payout": public_id("pay", link_id),
        "state": "failed",
        "reason": reason,
        "product": "savings",
        "amount": {"amount": 5, "currency": "RWF"},
        "at": "2026-03-02T09:30:00+00:00",
    }
    return Message("payout.changed", str(link_id), payload)


@pytest.fixture
def published(world: World) -> Partner:
    partner = world.partner(terms="guaranteed")
    person = world.member(partner)
    with world.databases.worker.begin() as tx:
        publish(tx, [_payout(partner, person.link_id, f"{number}") for number in range(3)])
    return partner


def test_events_are_forgotten_after_their_retention_and_old_messages_never_become_any(
    world: World, published: Partner
) -> None:
    worker = world.databases.worker
    world.clock.advance(timedelta(days=10_000))  # the outbox has the database's own time
    assert told(world, published) == []
    world.clock.advance(timedelta(days=-10_000))
    with worker.begin() as tx:
        publish(tx, [_payout(published, published.id, "4")])
    assert len(told(world, published)) == 1
    assert worker.run(lambda tx: forget.forget(tx, world.clock, retention=RETENTION)) == 0
    world.clock.advance(timedelta(days=10_000))
    assert worker.run(lambda tx: forget.forget(tx, world.clock, retention=RETENTION)) == 1
    assert told(world, published) == []


def test_the_outbox_is_pruned_of_what_was_read_and_is_old_and_by_nobody_otherwise(
    world: World, published: Partner
) -> None:
    worker = world.databases.worker
    with world.databases.superuser.begin() as tx:
        tx.exec_driver_sql("UPDATE ledger.outbox SET recorded_at = now() - interval '8 days'")

    def left() -> int:
        with worker.begin() as tx:
            return int(tx.exec_driver_sql("SELECT count(*) FROM ledger.outbox").scalar_one())

    assert worker.run(forget.prune_outbox) == 0  # not read yet
    told(world, published)
    assert (worker.run(forget.prune_outbox), left()) == (3, 0)
    with worker.begin() as tx:
        publish(tx, [_payout(published, published.id, "young")])
    told(world, published)
    # not a day old: not even when it is asked for
    assert worker.run(lambda tx: forget.prune_outbox(tx, keep=timedelta())) == 0
    assert left() == 1
