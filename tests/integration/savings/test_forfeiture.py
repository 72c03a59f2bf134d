"""Leaving early loses the match: in proportion, to whom the programme says, once, and not for good if the payout fails."""

import random
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from products.programmes.loader import catalogue
from products.savings.shares import Share
from tests.integration.remittances.seen import journal
from tests.integration.savings.taking import Asked, another, saver, vest
from tests.world import World

A_POOL = """  - code: cover
    name: Cover
    kind: insurance
    custody: held
    fund: pool
    pool: rescue
    priority: 20
    contribution:
      rule: fixed
      basis: per_remittance
      amount: "1"
products:
"""


Line = tuple[str, str, str, int]
"""Debited account, credited account, fund, amount."""


def pm_sym(forfeit_to: str = "sponsor") -> str:
    text = catalogue()["pm-sym"].replace("forfeit_to: sponsor", f"forfeit_to: {forfeit_to}")
    if forfeit_to == "pool":
        first, _, rest = text.partition("products:\n")
        text = first + "products:\n" + A_POOL.replace("products:\n", "") + rest
    return text


def lines(world: World, kind: str) -> list[Line]:
    return [(one.debit, one.credit, one.fund, one.amount) for one in journal(world) if one.kind == kind]


def test_all_the_match_goes_back_to_the_sponsor_with_all_the_savings(world: World) -> None:
    one, partner = saver(world, "pm-sym")
    one.save(partner, 15_000)
    way = one.available().way(15_000)
    assert way is not None
    assert (way.code, way.forfeits) == ("before-ten-years", 15_000)
    asked = one.ask(15_000)
    assert one.available().total == 0
    one.go(asked)
    assert one.shares() == (0, 0, 0, 0, 15_000)
    assert lines(world, "match_forfeited") == [("match_unvested", "sponsor_uncommitted", "savers", 15_000)]
    assert world.balance("sponsor_uncommitted", "gov-in", programme="pm-sym") == 10_000_000
    # what was lost is not granted again by what comes later; what is new is matched
    world.clock.advance(timedelta(days=31))
    one.save(partner, 15_000)
    assert one.shares() == (0, 15_000, 0, 0, 15_000)


def test_a_part_of_the_savings_takes_as_large_a_part_of_the_match(world: World) -> None:
    one, partner = saver(world, "pm-sym")
    one.save(partner, 15_000)
    first = one.ask(5_000)
    second = one.ask(5_000)  # half of what is left: what the first will lose is spoken for
    one.go(first)
    assert one.shares() == (0, 10_000, 0, 0, 5_000)
    one.cancel(second)
    assert one.shares() == (0, 10_000, 0, 0, 5_000)
    one.go(one.ask(10_000))
    assert one.shares() == (0, 0, 0, 0, 15_000)


@pytest.mark.parametrize(
    ("forfeit_to", "out", "back"),
    [
        (
            "savers",
            [("match_unvested", "return_for_allocation", "savers", 15_000)],
            [("return_for_allocation", "sponsor_uncommitted", "savers", 15_000)],
        ),
        (
            "pool",
            [
                ("match_unvested", "due_to_funds", "savers", 15_000),
                ("due_from_funds", "forfeited_match", "pool:rescue", 15_000),
            ],
            [
                ("forfeited_match", "due_from_funds", "pool:rescue", 15_000),
                ("due_to_funds", "sponsor_uncommitted", "savers", 15_000),
            ],
        ),
        (
            "administrator",
            [
                ("match_unvested", "due_to_funds", "savers", 15_000),
                ("due_from_funds", "forfeited_match", "elsewhere", 15_000),
            ],
            [
                ("forfeited_match", "due_from_funds", "elsewhere", 15_000),
                ("due_to_funds", "sponsor_uncommitted", "savers", 15_000),
            ],
        ),
    ],
)
def test_what_is_lost_goes_where_the_programme_says_and_comes_back_from_there(
    world: World, forfeit_to: str, out: list[Line], back: list[Line]
) -> None:
    one, partner = saver(world, "pm-sym", source=pm_sym(forfeit_to))
    one.save(partner, 15_000)
    asked = one.ask(15_000)
    one.go(asked)
    assert lines(world, "match_forfeited") == out
    one.back(asked)
    assert lines(world, "match_restored") == back
    assert one.shares() == (0, 0, 0, 15_000, 0)  # it awaits its sponsor's funds,
    world.drain()
    assert one.shares() == (0, 15_000, 0, 0, 0)  # and the queue grants it again
    assert one.available().way(15_000) is not None


def test_what_is_back_waits_where_its_sponsor_has_spent_the_money_meanwhile(world: World) -> None:
    one, partner = saver(world, "pm-sym", funds=15_000)
    one.save(partner, 15_000)
    asked = one.ask(15_000)
    one.go(asked)
    another(world, partner, "pm-sym").save(partner, 15_000)
    one.back(asked)
    world.drain()
    assert one.shares() == (0, 0, 0, 15_000, 0)
    world.fund(15_000, programme="pm-sym", sponsor="gov-in", reference="second")
    world.drain()
    assert one.shares() == (0, 15_000, 0, 0, 0)


def test_entitlement_that_nobody_has_granted_yet_is_lost_as_well(world: World) -> None:
    one, partner = saver(world, "pm-sym", funds=10_000)
    one.save(partner, 15_000)  # more than the sponsor has: all of it awaits funds
    assert one.shares() == (0, 0, 0, 15_000, 0)
    one.go(one.ask(7_500))
    assert one.shares() == (0, 0, 0, 7_500, 7_500)
    world.fund(10_000, programme="pm-sym", sponsor="gov-in", reference="second")
    world.drain()
    assert one.shares() == (0, 7_500, 0, 0, 7_500)


def test_what_is_pending_keeps_its_match(world: World) -> None:
    one, partner = saver(world, "pm-sym", terms="net")
    one.save(partner, 15_000)
    world.settle(partner, 15_000, currency="INR")
    world.clock.advance(timedelta(days=31))
    one.save(partner, 15_000)
    assert one.shares() == (15_000, 15_000, 0, 0, 0)
    one.go(one.ask(15_000))
    assert one.shares() == (15_000, 0, 0, 0, 15_000)


def test_what_has_vested_is_not_lost(world: World) -> None:
    source = catalogue()["pm-sym"].replace(
        '- vested: "100"\n          from_age: 60', '- vested: "40"\n          after_years: 0'
    )
    one, partner = saver(world, "pm-sym", source=source)
    one.save(partner, 15_000)
    vest(world)
    assert one.shares() == (0, 9_000, 6_000, 0, 0)
    one.go(one.ask(21_000))  # the vested match leaves with the savings
    assert one.shares() == (0, 0, 6_000, 0, 9_000)
    assert (one.balance("match_vested"), one.balance("member_savings")) == (0, 0)


def test_losing_twice_and_coming_back_twice_change_nothing_more(world: World) -> None:
    one, partner = saver(world, "pm-sym")
    one.save(partner, 15_000)
    asked = one.ask(15_000)
    one.go(asked)
    again = Asked(asked.id, 0, 0, ())
    one.go(again)
    assert one.shares() == (0, 0, 0, 0, 15_000)
    one.back(asked)
    one.back(again)
    assert one.shares() == (0, 0, 0, 15_000, 0)


def test_the_match_adds_up_whatever_comes_in_whichever_order(world: World) -> None:
    """Saving, taking back, paying in, vesting, leaving in parts, and payouts that fail: the world verifies the books."""
    source = (
        catalogue()["pm-sym"]
        .replace('- vested: "100"\n          from_age: 60', '- vested: "25"\n          after_years: 0')
        .replace("match_base: due", "match_base: paid")
    )
    steps = st.lists(
        st.sampled_from(
            ["save", "save", "reverse", "settle", "vest", "ask", "go", "back", "cancel", "drain", "fund"]
        ),
        min_size=4,
        max_size=14,
    )
    one, partner = saver(world, "pm-sym", source=source, terms="net", funds=40_000)
    saved: list[str] = []
    asked: list[Asked] = []
    gone: list[Asked] = []
    count = Counter[str]()

    @settings(
        max_examples=8,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(steps, st.randoms(use_true_random=False))
    def holds(script: list[str], chance: random.Random) -> None:
        for step in script:
            count[step] += 1
            if step == "save":
                world.clock.advance(timedelta(days=31))
                saved.append(one.save(partner, 15_000))
            elif step == "reverse" and saved:
                name = saved.pop(chance.randrange(len(saved)))
                world.send(partner, world.reversed(name), approved=True)
            elif step == "settle":
                world.settle(
                    partner,
                    15_000 * chance.randint(1, 3),
                    currency="INR",
                    through=date(2100, 1, count["settle"] % 28 + 1),
                )
            elif step == "vest":
                vest(world, limit=100)
            elif step == "ask" and (there := one.available().total):
                asked.append(one.ask(chance.randint(1, there)))
            elif step == "go" and asked:
                gone.append(asked.pop())
                one.go(gone[-1])
            elif step == "back" and gone:
                one.back(gone.pop(chance.randrange(len(gone))))
            elif step == "cancel" and asked:
                one.cancel(asked.pop())
            elif step == "drain":
                world.drain()
            elif step == "fund":
                world.fund(20_000, programme="pm-sym", sponsor="gov-in", reference=str(sum(count.values())))
            check()

    def check() -> None:
        with world.databases.owner.begin() as tx:
            for entitled, *parts in tx.execute(
                text(
                    "SELECT s.entitled, h.committed, h.unvested, h.vested, h.awaiting, h.certified, h.forfeited"
                    " FROM products.match_state s JOIN products.match_share h USING (enrolment_id, window_start)"
                )
            ):
                share = Share(*parts)
                assert share.entitled == max(entitled, share.vested + share.forfeited)
        offer = one.available()
        assert offer.savings + offer.held + sum(part.amount for part in offer.locked) == offer.settled

    holds()
    assert min(count["go"], count["back"]) > 0
