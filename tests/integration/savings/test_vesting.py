"""Match becomes the member's own: at once, by age, by years; never back by itself."""

import threading
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text

from products.members.registry import change, find
from products.programmes.loader import catalogue
from products.savings import adjustments, vesting
from tests.integration.remittances.seen import journal
from tests.integration.remittances.test_reevaluate import correct, run_to_the_end
from tests.integration.savings.taking import another, move_to, saver, vest
from tests.world import World

BY_STEPS = (
    catalogue()["pm-sym"]
    .replace(
        '        - vested: "100"\n          from_age: 60\n',
        '        - vested: "30"\n          after_years: 2\n        - vested: "100"\n          from_age: 60\n',
    )
    .replace("match_base: due", "match_base: paid")
)


def test_match_without_steps_vests_as_soon_as_it_is_granted_and_is_told(world: World) -> None:
    one, partner = saver(world, terms="net")
    one.save(partner, 20_000)
    assert vest(world) == 0  # committed: the partner has not paid in
    world.settle(partner, 20_000)
    assert one.shares() == (0, 18_000, 0, 0, 0)
    assert vest(world) == 1
    assert one.shares() == (0, 0, 18_000, 0, 0)
    assert (one.balance("match_unvested"), one.balance("match_vested")) == (0, 18_000)
    [vested] = [line for line in journal(world) if line.kind == "match_vested"]
    assert (vested.debit, vested.credit, vested.amount) == ("match_unvested", "match_vested", 18_000)
    with world.databases.owner.begin() as tx:
        [(key, payload)] = tx.execute(
            text("SELECT key, payload FROM ledger.outbox WHERE topic = 'match.vested'")
        ).all()
    assert key == str(one.person.link_id)
    assert (payload["product"], payload["amount"]) == ("savings", {"amount": 18_000, "currency": "RWF"})
    assert vest(world) == 0


def test_it_goes_on_where_it_stopped_and_two_at_once_vest_once(world: World) -> None:
    one, partner = saver(world)
    others = [another(world, partner) for _ in range(6)]
    for each in (one, *others):
        each.save(partner, 15_000)
    assert world.databases.worker.run(lambda tx: vesting.vest_due(tx, world.books, limit=3)) == 3
    threads = [threading.Thread(target=vest, args=(world,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    vest(world)
    assert [each.shares() for each in (one, *others)] == [(0, 0, 15_000, 0, 0)] * 7
    assert sum(1 for line in journal(world) if line.kind == "match_vested") == 7


def test_steps_vest_by_years_and_age_each_on_its_day(world: World) -> None:
    one, partner = saver(world, "pm-sym", source=BY_STEPS)
    one.save(partner, 15_000)
    assert vest(world) == 1  # looked at, and not due
    assert one.shares() == (0, 15_000, 0, 0, 0)
    assert vest(world) == 0
    move_to(world, datetime(2028, 3, 1, 18, 29, tzinfo=UTC))  # a minute before the day in India
    assert vest(world) == 0
    world.clock.advance(timedelta(minutes=1))
    assert vest(world) == 1
    assert one.shares() == (0, 10_500, 4_500, 0, 0)
    one.save(partner, 15_000)
    vest(world)
    assert one.shares() == (0, 21_000, 9_000, 0, 0)  # what is granted later vests in the same part
    move_to(world, datetime(2050, 5, 1, tzinfo=UTC))
    vest(world)
    assert one.shares() == (0, 0, 30_000, 0, 0)


def test_a_corrected_birth_date_is_seen(world: World) -> None:
    one, partner = saver(world, "pm-sym", born=date(1990, 5, 1))
    one.save(partner, 15_000)
    vest(world)

    move_to(world, datetime(2049, 5, 2, tzinfo=UTC))
    with world.databases.owner.begin() as tx:
        member = find(tx, world.books.keyring, one.person.link_id)
        change(tx, world.books.keyring, member, {"birth_date": "1989-05-01"}, world.clock.now())
    assert vest(world) == 0
    run_to_the_end(world)
    assert vest(world) == 1
    assert one.shares() == (0, 0, 15_000, 0, 0)


def test_a_payout_vests_what_is_due_first(world: World) -> None:
    one, partner = saver(world)
    one.save(partner, 20_000)
    with world.databases.worker.begin() as tx:
        assert vesting.vest(tx, world.books, [one.enrolment]) == 18_000
    with world.databases.worker.begin() as tx:
        assert vesting.vest(tx, world.books, [one.enrolment]) == 0
    assert one.available().vested == 18_000


def test_a_reversal_after_vesting_is_proposed_and_not_taken(world: World) -> None:
    one, partner = saver(world)
    name = one.save(partner, 20_000)
    vest(world)
    world.send(partner, world.reversed(name))
    assert one.shares() == (0, 0, 18_000, 0, 0)
    with world.databases.worker.begin() as tx:
        [proposed] = adjustments.proposed(tx, limit=10)
    assert proposed.amount == 18_000
    # earned again, there is nothing left to propose, and nothing is granted twice
    one.save(partner, 20_000)
    vest(world)
    assert one.shares() == (0, 0, 18_000, 0, 0)
    with world.databases.worker.begin() as tx:
        assert adjustments.proposed(tx, limit=10) == []


def test_facts_corrected_after_vesting_raise_what_vests_and_only_propose_a_fall(world: World) -> None:
    one, partner = saver(world)
    one.save(partner, 20_000)
    vest(world)
    world.clock.advance(timedelta(hours=1))
    correct(world, one.person, 3, date(2026, 1, 1))
    run_to_the_end(world)
    vest(world)
    assert one.shares() == (0, 0, 18_000, 0, 0)
    with world.databases.worker.begin() as tx:
        [proposed] = adjustments.proposed(tx, limit=10)
    assert proposed.amount == 8_000
    world.databases.worker.run(lambda tx: adjustments.approve(tx, world.books, proposed.id, 8_000))
    assert one.shares() == (0, 0, 10_000, 0, 0)
    assert one.balance("match_vested") == 10_000


def test_a_fall_that_was_paid_out_already_is_owed_by_the_member(world: World) -> None:
    one, partner = saver(world, born=date(1960, 1, 1))
    name = one.save(partner, 20_000)
    one.go(one.ask(38_000))
    assert (one.balance("member_savings"), one.balance("match_vested")) == (0, 0)
    world.send(partner, world.reversed(name))
    with world.databases.worker.begin() as tx:
        [proposed] = adjustments.proposed(tx, limit=10)
    world.databases.worker.run(lambda tx: adjustments.approve(tx, world.books, proposed.id, 18_000))
    assert world.balance("member_receivable", one.person.member_id) == 38_000
    one.save(partner, 15_000)
    vest(world)
    assert one.balance("match_vested") == 15_000  # and the books still tie: the world verifies them
