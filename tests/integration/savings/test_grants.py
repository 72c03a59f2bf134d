"""Match granted at the end of its window, and paid into the member's own bank account (Atal Pension Yojana)."""

from datetime import UTC, date, datetime, timedelta

from products.members.registry import find
from products.savings.queries import MatchBalance, member_balances
from tests.integration.remittances.test_reevaluate import run_to_the_end
from tests.integration.savings.taking import Saver, end_windows, move_to, saver, vest
from tests.world import World

JOINED = datetime(2015, 10, 5, 6, tzinfo=UTC)


def test_it_stays_committed_until_the_financial_year_is_over_and_is_payable_from_then_on(
    world: World,
) -> None:
    move_back(world, JOINED)
    one, partner = saver(world, "apy", terms="net")
    one.save(partner, 42_000)
    world.drain()  # the sponsor pays in arrears: what is entitled awaits its money
    world.settle(partner, 42_000, currency="INR")
    assert one.shares() == (21_000, 0, 0, 0, 0)
    move_to(world, datetime(2016, 3, 31, 18, 29, tzinfo=UTC))  # the last minute of 31 March in India
    one.save(partner, 50_000, at=world.clock.now() - timedelta(hours=1))  # settled only after the year
    world.drain()
    assert end_windows(world) == 0
    world.clock.advance(timedelta(minutes=1))
    assert end_windows(world) == 1
    assert one.shares() == (25_000, 21_000, 0, 0, 0)
    assert end_windows(world) == 0
    assert vest(world) == 1
    assert one.shares() == (25_000, 0, 21_000, 0, 0)
    # what the partner pays in later is granted as it comes
    world.settle(partner, 50_000, currency="INR")
    vest(world)
    assert one.shares() == (0, 0, 46_000, 0, 0)

    offer = one.available()
    assert [(way.code, way.savings, way.match_vested) for way in offer.ways] == [
        ("any_time", 92_000, 0),
        ("match_paid_out", 0, 46_000),
    ]
    one.go(one.ask(46_000, "match_paid_out"))
    assert (one.balance("match_vested"), one.balance("member_savings")) == (0, 92_000)


def test_a_fact_that_is_known_after_the_year_grants_at_once(world: World) -> None:
    move_back(world, JOINED)
    one, partner = saver(world, "apy")
    one.know("paid_regularly", False, date(2015, 4, 1))
    one.save(partner, 40_000)
    move_to(world, datetime(2016, 4, 2, tzinfo=UTC))
    assert end_windows(world) == 1
    assert one.shares() == (0, 0, 0, 0, 0)
    one.know("paid_regularly", True, date(2015, 4, 1))
    run_to_the_end(world)
    world.drain()
    vest(world)
    assert one.shares() == (0, 0, 20_000, 0, 0)


def test_what_is_paid_out_after_midnight_was_still_to_come_the_day_before(world: World) -> None:
    move_back(world, JOINED)
    one, partner = saver(world, "apy")
    one.save(partner, 42_000)
    world.drain()
    move_to(world, datetime(2016, 3, 31, 18, 30, tzinfo=UTC))  # midnight in India
    end_windows(world)
    vest(world)
    one.go(one.ask(21_000, "match_paid_out"))
    assert [match_as_of(one, date(2016, *day)) for day in ((3, 31), (4, 1))] == [
        MatchBalance(committed=21_000),
        MatchBalance(),
    ]


def match_as_of(one: Saver, day: date) -> MatchBalance:
    world = one.world
    with world.databases.worker.begin() as tx:
        member = find(tx, world.books.keyring, one.person.link_id)
        (balance,) = member_balances(tx, world.books.programmes, member, today=one.today, as_of=day).products
    return balance.match


def move_back(world: World, at: datetime) -> None:
    """Begin then."""
    world.clock.advance(at - world.clock.now())
