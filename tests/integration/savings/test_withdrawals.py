"""What may leave, read from the books: terms, years' savings, shares taken before, facts that open a way."""

from datetime import UTC, date, datetime, timedelta

import pytest

from ledger.errors import NotFound
from ledger.ids import new_id
from products.members.registry import find
from products.savings.queries import explain_withdrawal, member_balances
from products.savings.ways import Locked
from products.savings.withdrawals import available
from tests.integration.savings.taking import Saver, move_to, saver
from tests.world import World


def shown(one: Saver) -> tuple[int, int, tuple[Locked, ...]]:
    """What the balances say: available, held and locked."""
    world = one.world
    with world.databases.worker.begin() as tx:
        member = find(tx, world.books.keyring, one.person.link_id)
        (balance,) = member_balances(tx, world.books.programmes, member, today=one.today).products
    assert balance.available + balance.held + sum(part.amount for part in balance.locked) == balance.settled
    return balance.available, balance.held, balance.locked


def test_half_of_haba_haba_leaves_once_however_it_is_taken(world: World) -> None:
    one, partner = saver(world, "haba-haba")
    for year in range(5):
        move_to(world, datetime(2026 + year, 6, 1, tzinfo=UTC))
        one.save(partner, 500_000)
    move_to(world, datetime(2031, 3, 1, tzinfo=UTC))
    assert shown(one) == (0, 0, (Locked(2_500_000, "before_5_years", date(2031, 3, 2)),))
    move_to(world, datetime(2031, 3, 2, tzinfo=UTC))
    rest = Locked(1_250_000, "before_age_50", date(2040, 5, 1))
    assert shown(one) == (1_250_000, 0, (rest,))
    first = one.ask(1_000_000)
    assert shown(one) == (250_000, 1_000_000, (rest,))
    assert one.available().way(250_001) is None
    one.go(first)
    assert shown(one) == (250_000, 0, (rest,))
    one.go(one.ask(250_000))
    assert shown(one) == (0, 0, (rest,))
    one.back(first)  # days later: the payee's account was closed
    assert shown(one) == (1_000_000, 0, (rest,))


def test_haba_habas_half_stays_where_a_year_was_saved_too_little_in(world: World) -> None:
    one, partner = saver(world, "haba-haba")
    names = []
    for year in range(5):
        move_to(world, datetime(2026 + year, 6, 1, tzinfo=UTC))
        names.append(one.save(partner, 480_000))
    move_to(world, datetime(2031, 3, 2, tzinfo=UTC))
    assert shown(one)[0] == 1_200_000
    world.send(partner, world.reversed(names[2]), approved=True)
    assert shown(one) == (0, 0, (Locked(1_920_000, "before_age_50", date(2040, 5, 1)),))


def test_a_certified_fact_opens_the_way_of_an_event_and_the_explanation_says_what_is_asked(
    world: World,
) -> None:
    one, partner = saver(world, "haba-haba")
    one.save(partner, 10_000)
    assert one.available().ways == ()

    def explained() -> dict[str, dict[str, object]]:
        with world.databases.worker.begin() as tx:
            member = find(tx, world.books.keyring, one.person.link_id)
            answer = explain_withdrawal(tx, world.books.programmes, member, "savings", on=one.today)
        assert answer["subject"] == "withdrawal:savings"
        [of_enrolment] = answer["withdrawals"]
        return {way["way"]: way for way in of_enrolment["ways"]}

    before = explained()
    assert {code: way["open"] for code, way in before.items()} == {
        "disability": False,
        "retirement": False,
        "half-after-five-years": False,
    }
    assert before["retirement"]["opens_on"] == "2040-05-01"
    assert before["half-after-five-years"]["conditions"] == [
        {"of": "age", "must_be": "below 50", "value": 35, "holds": True},
        {"of": "membership_years", "must_be": "at least 5", "value": 0, "holds": False},
        {"of": "saved_each_year", "must_be": "at least 480000", "value": 0, "holds": False},
    ]
    one.know("disabled", True, one.today - timedelta(days=1))
    assert [(way.code, way.savings) for way in one.available().ways] == [("disability", 10_000)]
    assert explained()["disability"] | {"conditions": []} == {
        "way": "disability",
        "open": True,
        "conditions": [],
        "opens_on": None,
        "open_until": None,
        "share_at_once": "100",
        "rest_over_years": None,
        "interest": None,
        "match": "paid",
        "savings": 10_000,
        "match_vested": 0,
        "forfeits": 0,
    }
    assert shown(one) == (10_000, 0, ())


def test_mp2_runs_from_its_first_payment(world: World) -> None:
    one, partner = saver(world, "mp2")
    world.clock.advance(timedelta(days=40))
    one.save(partner, 50_000)
    assert shown(one) == (0, 0, (Locked(50_000, "before_5_years", date(2031, 4, 11)),))
    move_to(world, datetime(2031, 4, 11, tzinfo=UTC))
    assert shown(one) == (50_000, 0, ())


def test_ejohezas_lump_sum_and_its_instalments_with_the_match(world: World) -> None:
    one, partner = saver(world, born=date(1970, 3, 2))
    one.save(partner, 3_992_000)
    one.ask(1)  # vests the match: 18,000
    assert one.available().way(1) is not None
    one.cancel(one.payouts.pop())
    lump = one.available()
    assert [(way.code, way.savings, way.match_vested) for way in lump.ways] == [
        ("retirement", 998_000, 4_500)
    ]
    one.go(one.ask(1_002_500))
    assert shown(one) == (0, 0, (Locked(2_994_000, "paid_in_instalments", date(2026, 4, 2)),))
    move_to(world, datetime(2026, 5, 2, tzinfo=UTC))
    [way] = one.available().ways
    assert (way.savings, way.match_vested) == (2 * (2_994_000 // 240), 2 * (13_500 // 240))
    one.go(one.ask(way.total))
    move_to(world, datetime(2046, 3, 2, tzinfo=UTC))
    [way] = one.available().ways
    assert way.total == 3_992_000 + 18_000 - 1_002_500 - 2 * (2_994_000 // 240 + 13_500 // 240)
    assert shown(one)[2] == ()


def test_nobody_sees_what_another_may_withdraw(world: World) -> None:
    one, _ = saver(world)
    with world.databases.worker.begin() as tx:
        member = find(tx, world.books.keyring, one.person.link_id)
        with pytest.raises(NotFound):
            available(tx, world.books.programmes, member, new_id(), on=one.today)
