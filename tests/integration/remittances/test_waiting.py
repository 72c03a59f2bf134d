"""What waits for its member or its partner's money is found when they have come."""

from products.members.enrolments import enrol
from products.members.registry import find
from products.remittances.events import MemberKey
from products.remittances.waiting import ready
from tests.world import World


def waiting(world: World) -> int:
    with world.databases.worker.begin() as tx:
        return len(ready(tx))


def test_money_without_a_member_is_ready_once_its_partner_registers_the_phone(world: World) -> None:
    partner, other = world.partner(), world.partner("bolt")
    world.send(partner, world.completed(MemberKey("phone", "+971501234567")))
    assert waiting(world) == 0
    world.member(other, phone="+971501234567")
    assert waiting(world) == 0  # another partner's member is not this partner's
    world.member(partner, phone="+971501234567")
    assert waiting(world) == 1


def test_money_without_a_member_waits_until_the_member_is_enrolled_too(world: World) -> None:
    partner = world.partner()
    world.send(partner, world.completed(MemberKey("phone", "+971501234567")))
    person = world.member(partner, phone="+971501234567", products=())
    assert waiting(world) == 0
    with world.databases.worker.begin() as tx:
        member = find(tx, world.books.keyring, person.link_id)
        enrol(tx, world.books.programmes, member, "savings", None, world.clock.now())
    assert waiting(world) == 1


def test_parked_events_are_ready_as_far_as_the_prefund_reaches(world: World) -> None:
    partner = world.partner(terms="prefunded")
    person = world.member(partner)
    world.send(partner, *(world.completed(person) for _ in range(3)))
    assert waiting(world) == 0
    world.settle(partner, 45_000)
    assert waiting(world) == 2


def test_parked_events_are_ready_when_the_partner_owes_less(world: World) -> None:
    partner = world.partner(exposure_ceiling=25_000)
    person = world.member(partner)
    world.send(partner, world.completed(person), world.completed(person))
    assert waiting(world) == 0
    world.settle(partner, 20_000)
    assert waiting(world) == 1
