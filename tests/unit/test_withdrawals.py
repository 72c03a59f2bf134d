"""The ways out: the published rules' edges, and what holds of every product of the catalogue on any day."""

from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from products.programmes.loader import catalogue, load
from products.programmes.model import Product
from products.savings import ways
from products.savings.ways import Locked, Standing, Taken, Way, month_after, open_ways
from tests.unit.programmes.world import changed, faults, programme

BORN = date(1990, 5, 1)
JOINED = date(2026, 3, 2)
DAY = timedelta(days=1)
AT_55 = date(2045, 5, 1)

EVERY = [product for slug in sorted(catalogue()) for product in programme(slug).products]
SAVINGS = [product for product in EVERY if product.destination.kind == "savers"]
HELD_BACK = load(
    changed(
        "pm-sym",
        ("interest: savings_bank", "rest_over_years: 2"),
        ('lump_sum: "100"', 'lump_sum: "40"'),
        ('lump_sum: "100"', 'lump_sum: "60"'),
    )
).products[0]
"""A product whose ways out do all at once: shares, instalments and forfeiture."""

days = st.dates(date(2026, 3, 2), date(2090, 1, 1))
births = st.one_of(st.none(), st.dates(date(1950, 1, 1), date(2008, 1, 1)))


def product_of(slug: str, code: str | None = None) -> Product:
    products = programme(slug).products
    return products[0] if code is None else next(one for one in products if one.code == code)


def standing(savings: int, **known: Any) -> Standing:
    return replace(Standing(savings, 0, JOINED, BORN), **known)


def locked(product: Product, savings: int, on: date, **known: Any) -> tuple[Locked, ...]:
    return ways.locked(product, standing(savings, **known), on)


def out(product: Product, savings: int, on: date, **known: Any) -> dict[str, tuple[int, int, int]]:
    """By way: own savings, vested match, and what is forfeited."""
    found = open_ways(product, standing(savings, **known), on)
    return {way.code: (way.savings, way.match_vested, way.forfeits) for way in found}


class TestEjoHeza:
    """At 55: RWF 4 million or more → 25 % at once, the rest monthly over 20 years; below it, all may be taken."""

    product = product_of("ejoheza")

    def test_nothing_leaves_before_the_fifty_fifth_birthday(self) -> None:
        assert locked(self.product, 1_000, AT_55 - DAY) == (Locked(1_000, "before_age_55", AT_55),)
        assert out(self.product, 1_000, AT_55 - DAY) == {}

    def test_below_four_million_all_may_be_taken(self) -> None:
        assert out(self.product, 3_999_999, AT_55) == {"retirement-small": (3_999_999, 0, 0)}
        assert locked(self.product, 3_999_999, AT_55) == ()

    def test_from_four_million_a_quarter_leaves_and_the_rest_waits_for_its_instalments(self) -> None:
        assert out(self.product, 4_000_000, AT_55) == {"retirement": (1_000_000, 0, 0)}
        assert locked(self.product, 4_000_000, AT_55) == (Locked(3_000_000, "paid_in_instalments", None),)

    def test_vested_match_is_part_of_the_balance_and_leaves_in_the_same_part(self) -> None:
        assert out(self.product, 3_982_000, AT_55, vested=18_000) == {"retirement": (995_500, 4_500, 0)}

    def test_what_was_taken_does_not_make_the_balance_small(self) -> None:
        taken = (Taken("retirement", 1_000_000, 0, AT_55),)
        assert out(self.product, 3_000_000, AT_55, taken=taken) == {}
        month_later = date(2045, 6, 1)
        assert locked(self.product, 3_000_000, AT_55, taken=taken) == (
            Locked(3_000_000, "paid_in_instalments", month_later),
        )
        assert out(self.product, 3_000_000, month_later, taken=taken) == {"retirement": (12_500, 0, 0)}

    def test_instalments_add_up_and_the_last_takes_the_rest(self) -> None:
        there = 4_000_100
        taken: tuple[Taken, ...] = (Taken("retirement", 1_000_025, 0, AT_55),)
        there -= 1_000_025
        paid = []
        for month in range(1, 241):
            on = month_after(AT_55, month)
            (savings, _, _) = out(self.product, there, on, taken=taken)["retirement"]
            paid.append(savings)
            taken += (Taken("retirement", savings, 0, on),)
            there -= savings
        assert (set(paid[:-1]), paid[-1], there) == ({12_500}, 12_575, 0)

    def test_instalments_not_asked_for_add_up(self) -> None:
        taken = (Taken("retirement", 1_000_000, 0, AT_55),)
        assert out(self.product, 3_000_000, date(2046, 5, 1), taken=taken)["retirement"][0] == 150_000
        assert out(self.product, 3_000_000, date(2065, 5, 1), taken=taken)["retirement"][0] == 3_000_000
        assert locked(self.product, 3_000_000, date(2065, 5, 1), taken=taken) == ()

    def test_what_is_saved_after_the_first_withdrawal_counts_as_if_it_had_been_there(self) -> None:
        taken = (Taken("retirement", 1_000_000, 0, AT_55),)
        assert out(self.product, 3_400_000, AT_55, taken=taken)["retirement"][0] == 100_000

    def test_without_a_birth_date_the_reason_is_that_it_is_needed(self) -> None:
        on = date(2050, 1, 1)
        assert locked(self.product, 1_000, on, birth_date=None) == (Locked(1_000, "birth_date_needed", None),)


class TestHabaHaba:
    """Half after 5 years with at least KES 4,800 a year; the rest at 50; all on disability."""

    product = product_of("haba-haba")
    five_years = date(2031, 3, 2)
    saved = (480_000,) * 5

    def test_half_leaves_after_five_years_and_the_rest_at_fifty(self) -> None:
        assert out(self.product, 2_400_001, self.five_years, saved=self.saved) == {
            "half-after-five-years": (1_200_000, 0, 0)
        }
        assert locked(self.product, 2_400_001, self.five_years, saved=self.saved) == (
            Locked(1_200_001, "before_age_50", date(2040, 5, 1)),
        )

    def test_half_of_the_rest_does_not_leave_after_the_half(self) -> None:
        taken = (Taken("half-after-five-years", 1_200_000, 0, self.five_years),)
        assert out(self.product, 1_200_000, self.five_years, saved=self.saved, taken=taken) == {}
        # what is saved later: half of that
        more = out(self.product, 1_300_000, self.five_years, saved=self.saved, taken=taken)
        assert more == {"half-after-five-years": (50_000, 0, 0)}
        assert out(self.product, 1_200_000, date(2040, 5, 1), taken=taken) == {
            "retirement": (1_200_000, 0, 0)
        }

    @pytest.mark.parametrize(
        ("saved", "on"),
        [
            ((480_000, 480_000, 479_999, 480_000, 480_000), five_years),  # one cent short in one year
            ((480_000,) * 4, five_years),
            (saved, five_years - DAY),
            (saved, date(2040, 5, 1)),  # from fifty on, all
        ],
    )
    def test_the_half_is_closed(self, saved: tuple[int, ...], on: date) -> None:
        assert "half-after-five-years" not in out(self.product, 2_400_000, on, saved=saved)

    def test_a_year_saved_too_little_in_is_not_made_good_by_time(self) -> None:
        short = (480_000, 100, 480_000, 480_000, 480_000)
        assert locked(self.product, 1_000, self.five_years, saved=short) == (
            Locked(1_000, "before_age_50", date(2040, 5, 1)),
        )

    def test_all_leaves_on_disability_that_is_proven(self) -> None:
        assert out(self.product, 1_000, JOINED, events=frozenset({"disability"})) == {
            "disability": (1_000, 0, 0)
        }
        assert locked(self.product, 1_000, JOINED, events=frozenset({"disability"})) == ()


class TestPmSym:
    """Leaving before 60: own share, the match is forfeited."""

    product = product_of("pm-sym")

    @pytest.mark.parametrize("on", [JOINED, date(2036, 3, 1), date(2036, 3, 2)])
    def test_the_own_share_leaves_and_the_match_is_lost(self, on: date) -> None:
        way = "before-ten-years" if on < date(2036, 3, 2) else "after-ten-years"
        assert out(self.product, 15_000, on, losable=15_000) == {way: (15_000, 0, 15_000)}
        assert locked(self.product, 15_000, on) == ()

    def test_a_part_that_leaves_loses_as_large_a_part(self) -> None:
        [way] = open_ways(self.product, standing(15_000, losable=10_001), JOINED)
        assert (way.forfeits_with(5_000), way.forfeits_with(1), way.forfeits_with(15_000)) == (
            3_333,
            0,
            10_001,
        )

    def test_each_way_says_until_when_it_is_open(self) -> None:
        [before] = open_ways(self.product, standing(15_000), JOINED)
        [after] = open_ways(self.product, standing(15_000), date(2036, 3, 2))
        assert (before.until, after.until) == (date(2036, 3, 1), date(2050, 4, 30))

    def test_at_sixty_the_plan_pays_and_no_way_out_is_open(self) -> None:
        assert locked(self.product, 15_000, date(2050, 5, 1)) == (Locked(15_000, "conditions_not_met", None),)


def test_mp2_opens_five_years_after_its_first_payment() -> None:
    product = product_of("mp2")
    assert locked(product, 500, date(2031, 3, 1)) == (Locked(500, "before_5_years", date(2031, 3, 2)),)
    assert locked(product, 500, date(2031, 3, 2)) == ()
    later = {"since": date(2026, 9, 1)}
    assert locked(product, 500, date(2031, 3, 2), **later) == (
        Locked(500, "before_5_years", date(2031, 9, 1)),
    )


def test_apys_match_is_payable_whatever_becomes_of_the_savings() -> None:
    ways_out = out(product_of("apy"), 42_000, JOINED, vested=21_000)
    assert ways_out == {"any_time": (42_000, 0, 0), "match_paid_out": (0, 21_000, 0)}


def test_what_an_agency_or_a_pool_holds_is_locked_by_who_holds_it() -> None:
    assert locked(product_of("ssf-nepal"), 100, JOINED) == (Locked(100, "held_by_agency", None),)
    assert locked(product_of("few-nepal"), 100, JOINED) == (Locked(100, "held_by_pool", None),)
    assert out(product_of("few-nepal"), 100, JOINED) == {}


def test_without_rules_everything_may_leave() -> None:
    assert locked(product_of("three-for-one"), 100, JOINED) == ()


def test_a_month_is_complete_when_its_last_day_is_past() -> None:
    assert [month_after(date(2027, 1, 31), months) for months in (1, 2, 13)] == [
        date(2027, 3, 1),
        date(2027, 3, 31),
        date(2028, 3, 1),
    ]
    assert [ways.complete_months(date(2027, 1, 31), on) for on in (date(2027, 2, 28), date(2027, 3, 1))] == [
        0,
        1,
    ]


@pytest.mark.parametrize("product", EVERY, ids=lambda product: product.code)
def test_nothing_is_locked_where_nothing_is_saved(product: Product) -> None:
    assert locked(product, 0, JOINED) == ()


taken_before = st.lists(
    st.builds(
        Taken,
        way=st.sampled_from(["retirement", "half-after-five-years", "before-ten-years", "maturity"]),
        savings=st.integers(0, 10**9),
        match=st.integers(0, 10**6),
        on=st.dates(date(2026, 3, 2), date(2080, 1, 1)),
    ),
    max_size=3,
).map(tuple)
standings = st.builds(
    Standing,
    savings=st.integers(1, 10**9),
    vested=st.integers(0, 10**7),
    since=st.just(JOINED),
    birth_date=births,
    losable=st.integers(0, 10**7),
    taken=taken_before,
    saved=st.lists(st.integers(0, 10**6), max_size=5).map(tuple),
    events=st.sets(st.sampled_from(["disability", "death", "return"])).map(frozenset),
)


@given(st.sampled_from([*EVERY, HELD_BACK]), standings, days)
def test_available_and_locked_are_all_there_is_and_nothing_is_negative(
    product: Product, one: Standing, on: date
) -> None:
    ways_out, parts = open_ways(product, one, on), ways.locked(product, one, on)
    best = ways.best(ways_out)
    assert (0 if best is None else best.savings) + sum(part.amount for part in parts) == one.savings
    for way in ways_out:
        assert way.total > 0
        assert 0 <= way.savings <= one.savings
        assert 0 <= way.match_vested <= one.vested
        assert 0 <= way.forfeits <= one.losable
    for part in parts:
        assert part.amount > 0
        assert part.reason
        assert part.until is None or part.until > on


@given(st.sampled_from([*SAVINGS, HELD_BACK]), standings, days)
def test_on_the_day_that_a_lock_names_some_of_it_is_free_and_on_none_before(
    product: Product, one: Standing, on: date
) -> None:
    assume(
        all(taken.on <= on for taken in one.taken)
    )  # nobody has taken anything later than the day that is asked about
    for part in ways.locked(product, one, on):
        if part.until is None:
            continue
        free = one.savings - part.amount

        def freed(day: date, standing: Standing = one) -> int:
            best = ways.best(open_ways(product, standing, day))
            return 0 if best is None else best.savings

        assert freed(part.until) > free
        assert freed(part.until - DAY) <= free


@given(st.sampled_from([*SAVINGS, HELD_BACK]), standings, days, st.integers(0, 4_000))
def test_time_takes_nothing_back_where_no_way_closes(
    product: Product, one: Standing, on: date, later: int
) -> None:
    rules = tuple(replace(way, before_age=None, before_years=None) for way in product.withdrawals)
    product = replace(product, withdrawals=rules)
    # a balance is judged since an age was reached: what was taken before it counts no more
    assume(all(way.balance_at_least is None and way.balance_below is None for way in rules))
    now = {way.code: way for way in open_ways(product, one, on)}
    then = {way.code: way for way in open_ways(product, one, on + timedelta(days=later))}
    for code, way in now.items():
        assert code in then
        assert then[code].total >= way.total


@given(
    st.sampled_from([HELD_BACK, product_of("haba-haba"), product_of("ejoheza")]),
    st.integers(1, 10**8),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 10**7), st.integers(1, 100)), max_size=12),
)
def test_all_that_leaves_by_a_way_never_exceeds_its_promise(
    product: Product, savings: int, vested: int, steps: list[tuple[int, int, int]]
) -> None:
    """Wait, save more, take a part of what is offered by each way: again and again."""
    on = date(2045, 5, 1) if product.code == "savings" else JOINED
    born = BORN if product.currency == "RWF" else date(1996, 5, 1)
    one = standing(savings, vested=vested, birth_date=born, saved=(10**6,) * 5)
    if product.currency == "KES":
        on = date(2031, 3, 2)
    begun = on
    for wait, more, percent in steps:
        on += timedelta(days=wait)
        one = replace(one, savings=one.savings + more)
        for offered in open_ways(product, one, on):
            # taking by one way changes what the next offers
            way: Way | None = next(
                (way for way in open_ways(product, one, on) if way.code == offered.code), None
            )
            if way is None:
                continue
            own, match = way.savings * percent // 100, way.match_vested * percent // 100
            taken = Taken(way.code, own, match, on)
            one = replace(
                one, savings=one.savings - own, vested=one.vested - match, taken=(*one.taken, taken)
            )
        for rule in product.withdrawals:
            mine = [taken for taken in one.taken if taken.way == rule.code]
            own, match = sum(t.savings for t in mine), sum(t.match for t in mine)
            share = rule.lump_sum
            if rule.rest_over_years is not None and mine:
                months = Fraction(ways.complete_months(begun, on), rule.rest_over_years * 12)
                share += (1 - share) * min(months, Fraction(1))
            assert own <= share * (one.savings + own)
            assert match <= share * (one.vested + match)
    assert min(one.savings, one.vested) >= 0


@pytest.mark.parametrize(
    ("file", "at", "message"),
    [
        (
            changed("haba-haba", ("proven_by: disabled", "proven_by: ill")),
            "/products/0/withdrawals/0/proven_by",
            "the programme declares no fact “ill”",
        ),
        (
            changed("haba-haba", ("evidence: institution", "evidence: self_declared")),
            "/products/0/withdrawals/0/proven_by",
            "“disabled” counts on the member's word alone",
        ),
        (
            changed("haba-haba", ("type: boolean", "type: integer")),
            "/products/0/withdrawals/0/proven_by",
            "“disabled” is of type integer, not boolean",
        ),
        (
            changed("haba-haba", ("code: retirement", "code: any_time")),
            "/products/0/withdrawals/1/code",
            "this code is Mizan's own",
        ),
        (
            changed("apy", ('kind: financial_year\n        starts: "04-01"', "kind: enrolment")),
            "/products/0/match/granted",
            "a window of the whole enrolment doesn't end",
        ),
        (
            changed("pm-sym", ("forfeit_to: sponsor", "into: member_bank_account")),
            "/products/0/match/vesting",
            "what goes to the member's bank account is the member's at once",
        ),
        (
            changed("pm-sym", ("forfeit_to: sponsor", "forfeit_to: pool")),
            "/products/0/match/forfeit_to",
            "the programme has no pool",
        ),
    ],
)
def test_a_file_that_promises_what_cannot_be_is_refused(file: str, at: str, message: str) -> None:
    assert faults(file) == {at: message}
