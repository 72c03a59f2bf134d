"""The split of a remittance: the parts always add up, in priority order, within what was collected."""

from collections.abc import Sequence
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.facts import Facts
from products.programmes.loader import load
from products.programmes.model import Choice, Programme
from products.remittances.allocate import (
    Allocation,
    Enrolled,
    InvalidChoice,
    Limit,
    allocate,
    entry_terms,
    validate_choice,
)
from tests.unit.programmes.world import NOTHING, changed, chosen, known, percent, programme

MARCH = date(2026, 3, 2)


def split(
    of: Programme,
    *enrolled: Enrolled,
    received: int,
    collected: int | None = None,
    facts: Facts | None = None,
    on: date = MARCH,
    limit: Limit | None = None,
) -> Allocation:
    return allocate(
        of,
        received=received,
        collected=collected,
        enrolments=enrolled,
        facts=facts or Facts(),
        contributed_on=on,
        limit=limit,
    )


def amounts(allocation: Allocation) -> list[int]:
    return [leg.amount for leg in allocation.legs]


def saver(choice: Choice = NOTHING) -> Enrolled:
    return Enrolled("savings", choice, None)


def pensioner(entry_age: int, already: int = 0) -> Enrolled:
    return Enrolled("pension", NOTHING, entry_age, already)


def insured(already: int = 0) -> Enrolled:
    return Enrolled("social-security", NOTHING, None, already)


# --- what is wanted and what was collected ---


def test_five_per_cent_is_rounded_to_the_nearest_unit_as_in_the_contracts_example() -> None:
    # 5 % of PHP 7,654.32 is 382.716; the partner collected 382.72.
    allocation = split(programme("ejoheza"), saver(percent("5")), received=765_432, collected=38_272)
    assert amounts(allocation) == [38_272]
    assert allocation.unapplied == 0


def test_without_a_collected_amount_exactly_what_the_rules_want_is_collected() -> None:
    allocation = split(programme("ejoheza"), saver(percent("7.5")), received=100_000)
    assert (amounts(allocation), allocation.collected, allocation.unapplied) == ([7_500], 7_500, 0)
    assert allocation.trace["by_rule"] is True


def test_a_member_who_chose_nothing_gives_what_the_product_suggests() -> None:
    assert amounts(split(programme("ejoheza"), saver(), received=100_000)) == [5_000]


def test_an_excess_is_unapplied() -> None:
    allocation = split(programme("ejoheza"), saver(percent("5")), received=100_000, collected=6_000)
    assert (amounts(allocation), allocation.unapplied) == ([5_000], 1_000)


def test_a_shortfall_is_cut() -> None:
    allocation = split(programme("ejoheza"), saver(percent("5")), received=100_000, collected=3_000)
    assert (amounts(allocation), allocation.legs[0].wanted, allocation.unapplied) == ([3_000], 5_000, 0)
    assert allocation.trace["products"][0]["because"] == ["shortfall"]


def test_money_for_nobodys_product_is_unapplied() -> None:
    allocation = split(programme("ejoheza"), received=100_000, collected=500)
    assert (allocation.legs, allocation.unapplied) == ((), 500)


def test_nothing_collected_gives_nothing() -> None:
    allocation = split(programme("ejoheza"), saver(), received=100_000, collected=0)
    assert (amounts(allocation), allocation.unapplied) == ([0], 0)


def test_negative_amounts_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        split(programme("ejoheza"), received=1, collected=-1)


# --- several products ---

TWO_SAVERS = load(
    changed(
        "ejoheza",
        ('ceiling: "20"', 'ceiling: "40"'),
        (
            "products:\n",
            """products:
  - {code: second, name: Second, kind: savings, custody: held, fund: savers, priority: 5,
     contribution: {rule: percent, of: received, basis: per_remittance, percent: "5"}}
""",
        ),
    )
)


def second() -> Enrolled:
    return Enrolled("second", NOTHING, None)


def test_percentages_are_rounded_together_and_the_tie_goes_to_the_higher_priority() -> None:
    # Twice 5 % of 110 is 11 in all, 5.5 each: the unit left over is the first product's, however enrolments are given.
    assert amounts(split(TWO_SAVERS, saver(percent("5")), second(), received=110)) == [5, 6]
    assert amounts(split(TWO_SAVERS, second(), saver(percent("5")), received=110)) == [6, 5]


def test_a_shortfall_cuts_the_last_product_first() -> None:
    allocation = split(TWO_SAVERS, saver(percent("5")), second(), received=100_000, collected=6_000)
    assert amounts(allocation) == [1_000, 5_000]


def test_the_ceiling_cuts_what_is_wanted_in_waterfall_order() -> None:
    few = programme("few-nepal")  # at most 30 % of the remittance
    both = (Enrolled("term-life", NOTHING, 30), Enrolled("welfare", NOTHING, None))
    allocation = split(few, *both, received=1_000_000, facts=known(contract_months=24))
    assert amounts(allocation) == [150_000, 150_000]
    assert allocation.trace["ceiling"] == {"share": "30", "amount": 300_000}
    assert allocation.trace["products"][1]["because"] == ["ceiling"]


def test_several_enrolments_of_one_product_keep_their_places() -> None:
    allocation = split(
        programme("mp2"),
        Enrolled("mp2", chosen(60_000), None),
        Enrolled("mp2", chosen(50_000), None),
        received=1_000_000,
        collected=100_000,
    )
    # The second is cut below PHP 500, so it takes nothing.
    assert (amounts(allocation), allocation.unapplied) == ([60_000, 0], 40_000)


# --- minimum, step, period ---


def test_less_than_the_minimum_is_not_taken_and_left_to_the_next_or_unapplied() -> None:
    allocation = split(
        programme("mp2"), Enrolled("mp2", chosen(50_000), None), received=1_000_000, collected=49_999
    )
    assert (amounts(allocation), allocation.unapplied) == ([0], 49_999)
    assert allocation.trace["products"][0]["because"] == ["shortfall", "below_minimum"]


def test_with_accumulate_less_than_the_minimum_is_taken_all_the_same() -> None:
    adding = load(changed("mp2", ("below_minimum: skip", "below_minimum: accumulate")))
    allocation = split(adding, Enrolled("mp2", chosen(50_000), None), received=1_000_000, collected=49_999)
    assert (amounts(allocation), allocation.unapplied) == ([49_999], 0)


def test_a_part_that_completes_a_periods_minimum_is_taken() -> None:
    strict = load(changed("ssf-nepal", ('maximum: "6006"', 'maximum: "6006"\n      minimum: "2002"')))
    pay = known(basic_pay=1_500_000)
    first = split(strict, insured(), received=5_000_000, collected=200_200, facts=pay)
    rest = split(strict, insured(200_200), received=5_000_000, facts=pay)
    assert (amounts(first), amounts(rest)) == ([200_200], [119_750])


def test_amounts_are_whole_steps() -> None:
    saving = Enrolled("savings", chosen(10_000), None)
    allocation = split(programme("haba-haba"), saving, received=1_000_000, collected=9_999)
    assert (amounts(allocation), allocation.unapplied) == ([7_500], 2_499)


def test_a_monthly_instalment_is_taken_once_a_month() -> None:
    sym = programme("pm-sym")
    assert amounts(split(sym, pensioner(29), received=1_000_000)) == [10_000]
    assert amounts(split(sym, pensioner(29, already=4_000), received=1_000_000)) == [6_000]
    again = split(sym, pensioner(29, already=10_000), received=1_000_000, collected=10_000)
    assert (amounts(again), again.unapplied) == ([0], 10_000)
    assert again.trace["products"][0]["because"] == ["period_complete"]


def test_a_period_limits_a_part_of_what_is_received_by_its_maximum_only() -> None:
    monthly = load(
        changed(
            "ejoheza",
            (
                "basis: per_remittance",
                'basis: per_period\n      period: {kind: month}\n      maximum: "8000"',
            ),
        )
    )
    before = Enrolled("savings", percent("5"), None, 5_000)
    assert amounts(split(monthly, before, received=100_000)) == [3_000]


def test_what_is_not_in_the_table_is_not_wanted() -> None:
    allocation = split(programme("few-nepal"), Enrolled("welfare", NOTHING, None), received=1_000_000)
    assert amounts(allocation) == [0]
    assert allocation.trace["products"][0] == {
        "product": "welfare",
        "rule": "table",
        "inputs": {"contract_months": None},
        "due": 0,
        "wanted": 0,
        "amount": 0,
        "because": ["outside_the_table"],
    }


def test_a_table_may_go_by_the_age_on_the_day() -> None:
    ageing = load(changed("few-nepal", ("by: entry_age", "by: age")))
    member = Enrolled("term-life", NOTHING, 30, age=36)
    assert amounts(split(ageing, member, received=10_000_000)) == [493_000]


def test_while_no_pay_is_declared_nothing_is_taken() -> None:
    allocation = split(programme("ssf-nepal"), insured(), received=5_000_000, collected=100)
    assert (amounts(allocation), allocation.unapplied) == ([0], 100)
    assert allocation.trace["products"][0]["because"] == ["fact_unknown"]


def test_the_trace_tells_inputs_dates_and_version() -> None:
    trace = split(
        programme("ssf-nepal"), insured(), received=5_000_000, facts=known(basic_pay=1_500_000)
    ).trace
    assert (trace["programme"], trace["version"], trace["contributed_on"]) == ("ssf-nepal", 1, "2026-03-02")
    assert trace["products"][0]["inputs"] == {
        "percent": "21.33",
        "basic_pay": 1_500_000,
        "already_in_period": 0,
    }


# --- always ---

PROGRAMMES = {
    slug: programme(slug) for slug in ("ejoheza", "mp2", "flexi-fund", "few-nepal", "ssf-nepal")
} | {"two-savers": TWO_SAVERS}
AMOUNTS = st.integers(0, 10**9)


@st.composite
def enrolments(draw: st.DrawFn, of: Programme) -> Sequence[Enrolled]:
    some = draw(st.lists(st.sampled_from(of.products), max_size=5))
    return [
        Enrolled(
            product.code,
            percent(str(draw(st.integers(1, 20))))
            if product.contribution.rule == "percent"
            else chosen(draw(AMOUNTS)),
            draw(st.none() | st.integers(0, 90)),
            draw(AMOUNTS),
        )
        for product in some
    ]


@given(st.data(), st.sampled_from(sorted(PROGRAMMES)), AMOUNTS, st.none() | AMOUNTS)
def test_parts_add_up_and_none_is_negative_or_more_than_wanted(
    data: st.DataObject, slug: str, received: int, collected: int | None
) -> None:
    of = PROGRAMMES[slug]
    facts = data.draw(
        st.just(Facts())
        | st.builds(
            lambda pay, months: known(basic_pay=pay, contract_months=months), AMOUNTS, st.integers(1, 120)
        )
    )
    enrolled = data.draw(enrolments(of))
    allocation = split(of, *enrolled, received=received, collected=collected, facts=facts)
    assert sum(amounts(allocation)) + allocation.unapplied == allocation.collected
    assert collected is None or allocation.collected == collected
    assert allocation.unapplied >= 0
    assert all(0 <= leg.amount <= leg.wanted for leg in allocation.legs)
    assert [leg.product_code for leg in allocation.legs] == [one.product for one in enrolled]
    assert 2 * sum(leg.wanted for leg in allocation.legs) <= 2 * of.ceiling * received + 1
    if collected is None:
        assert allocation.unapplied == 0


@given(st.data(), st.sampled_from(sorted(PROGRAMMES)), AMOUNTS, st.none() | AMOUNTS, AMOUNTS)
def test_a_limit_bounds_all_products_together_and_what_it_keeps_out_is_unapplied(
    data: st.DataObject, slug: str, received: int, collected: int | None, most: int
) -> None:
    of = PROGRAMMES[slug]
    enrolled = data.draw(enrolments(of))
    limit = Limit("mandate_limit", most)
    limited = split(of, *enrolled, received=received, collected=collected, limit=limit)
    free = split(of, *enrolled, received=received, collected=collected)
    assert sum(amounts(limited)) <= min(most, sum(amounts(free)))
    assert sum(amounts(limited)) + limited.unapplied == limited.collected
    assert limited.limited_by in (None, "mandate_limit")
    if sum(amounts(free)) <= most and amounts(limited) == amounts(free):
        assert limited.unapplied == free.unapplied
    elif sum(amounts(limited)) < sum(amounts(free)):
        assert limited.limited_by == "mandate_limit"


@given(st.integers(1, 10**12), st.lists(st.integers(1, 40), min_size=1, max_size=2))
def test_rounded_percentages_differ_from_the_exact_ones_by_less_than_a_unit(
    received: int, halves: list[int]
) -> None:
    enrolled = [saver(Choice(percent=Fraction(halves[0], 200))), second()][: len(halves)]
    legs = split(TWO_SAVERS, *enrolled, received=received).legs
    exact = [Fraction(halves[0], 200) * received, Fraction(received, 20)]
    assert all(abs(leg.amount - share) < 1 for leg, share in zip(legs, exact, strict=False))


# --- what a member may choose ---


def test_a_choice_is_read_as_the_contract_writes_it() -> None:
    savings = programme("ejoheza").product("savings")
    assert validate_choice(savings, {"percent": "5"}) == percent("5")
    assert validate_choice(savings, {"percent": "7.5"}) == percent("7.5")
    assert validate_choice(savings, None) == NOTHING
    mp2 = programme("mp2").product("mp2")
    assert validate_choice(mp2, {"amount": {"amount": 50_000, "currency": "PHP"}}) == chosen(50_000)
    assert validate_choice(programme("pm-sym").product("pension"), {}) == NOTHING


@pytest.mark.parametrize(
    ("slug", "product", "choice", "pointer"),
    [
        ("ejoheza", "savings", {"percent": "0.5"}, "/choice/percent"),
        ("ejoheza", "savings", {"percent": "20.5"}, "/choice/percent"),
        ("ejoheza", "savings", {"percent": "5.2"}, "/choice/percent"),
        ("ejoheza", "savings", {"percent": 5}, "/choice/percent"),
        ("ejoheza", "savings", {"percent": "five"}, "/choice/percent"),
        ("ejoheza", "savings", {"percent": "5", "amount": 1}, "/choice/amount"),
        ("ejoheza", "savings", ["5"], "/choice"),
        ("mp2", "mp2", {"amount": {"amount": 49_999, "currency": "PHP"}}, "/choice/amount"),
        ("mp2", "mp2", {"amount": {"amount": 50_000, "currency": "USD"}}, "/choice/amount/currency"),
        ("mp2", "mp2", {"amount": {"amount": True, "currency": "PHP"}}, "/choice/amount/amount"),
        ("mp2", "mp2", {"amount": {"amount": 2**53, "currency": "PHP"}}, "/choice/amount/amount"),
        ("mp2", "mp2", {"amount": 50_000}, "/choice/amount"),
        ("mp2", "mp2", None, "/choice"),
        ("pm-sym", "pension", {"percent": "5"}, "/choice"),
    ],
)
def test_another_choice_is_refused_with_its_pointer(
    slug: str, product: str, choice: object, pointer: str
) -> None:
    with pytest.raises(InvalidChoice) as caught:
        validate_choice(programme(slug).product(product), choice)
    assert (caught.value.pointer, caught.value.status) == (pointer, 422)


# --- who may enrol ---

POOR = known(monthly_income=1_500_000)


@pytest.mark.parametrize(
    ("joined", "age", "refusals"),
    [
        (date(2026, 4, 30), 17, ["too_young"]),
        (date(2026, 5, 1), 18, []),
        (date(2049, 4, 30), 40, []),
        (date(2049, 5, 1), 41, ["too_old"]),
    ],
)
def test_a_pension_is_joined_from_the_18th_birthday_to_the_eve_of_the_41st(
    joined: date, age: int, refusals: list[str]
) -> None:
    terms = entry_terms(programme("pm-sym").product("pension"), POOR, joined, date(2008, 5, 1))
    assert (terms.entry_age, [one.reason for one in terms.refusals]) == (age, refusals)


def test_somebody_born_on_29_february_is_18_on_1_march() -> None:
    pension = programme("pm-sym").product("pension")
    assert entry_terms(pension, POOR, date(2026, 2, 28), date(2008, 2, 29)).entry_age == 17
    assert entry_terms(pension, POOR, date(2026, 3, 1), date(2008, 2, 29)).entry_age == 18


def test_all_reasons_of_a_refusal_are_told_at_once() -> None:
    pension = programme("pm-sym").product("pension")
    rich = entry_terms(pension, known(monthly_income=1_500_001), MARCH, date(1950, 1, 1))
    assert [one.reason for one in rich.refusals] == ["too_old", "condition_not_met"]
    unknown = entry_terms(pension, Facts(), MARCH, None)
    assert [one.reason for one in unknown.refusals] == ["birth_date_needed", "fact_needed"]
    assert unknown.refusals[1].detail == "“monthly_income” must be at most 1500000"


def test_a_product_without_ages_is_open_to_those_whose_birth_date_is_unknown() -> None:
    terms = entry_terms(programme("ejoheza").product("savings"), Facts(), MARCH, None)
    assert (terms.entry_age, terms.refusals) == (None, ())
