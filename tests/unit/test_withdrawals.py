"""What withdrawal rules keep locked: the published rules' edges, and what holds of every catalogue product."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.programmes.loader import catalogue
from products.programmes.model import Product
from products.savings.withdrawals import Locked, locked
from tests.unit.programmes.world import programme

BORN = date(1990, 5, 1)
JOINED = date(2026, 3, 2)
DAY = timedelta(days=1)

EVERY = [product for slug in sorted(catalogue()) for product in programme(slug).products]
SAVINGS = [product for product in EVERY if product.destination.kind == "savers"]

days = st.dates(date(2026, 3, 2), date(2090, 1, 1))
births = st.one_of(st.none(), st.dates(date(1950, 1, 1), date(2008, 1, 1)))


def at(product: Product, savings: int, on: date, born: date | None = BORN) -> tuple[Locked, ...]:
    return locked(product, savings, birth_date=born, joined_on=JOINED, on=on)


def test_ejoheza_is_locked_until_the_day_of_the_fifty_fifth_birthday() -> None:
    [product] = programme("ejoheza").products
    birthday = date(2045, 5, 1)
    assert at(product, 1_000, birthday - DAY) == (Locked(1_000, "before_age_55", birthday),)
    assert at(product, 3_999_999, birthday) == ()
    assert at(product, 4_000_000, birthday) == (Locked(3_000_000, "paid_in_instalments", None),)


def test_without_a_birth_date_the_reason_is_that_it_is_needed() -> None:
    [product] = programme("ejoheza").products
    assert at(product, 1_000, date(2050, 1, 1), None) == (Locked(1_000, "birth_date_needed", None),)


def test_mp2_opens_five_years_after_joining() -> None:
    [product] = programme("mp2").products
    assert at(product, 500, date(2031, 3, 1)) == (Locked(500, "before_5_years", date(2031, 3, 2)),)
    assert at(product, 500, date(2031, 3, 2)) == ()


def test_pm_sym_lets_the_own_share_go_before_ten_years_and_after() -> None:
    [product] = programme("pm-sym").products
    for on in (JOINED, date(2036, 3, 1), date(2036, 3, 2)):
        assert at(product, 15_000, on) == ()


def test_what_an_agency_or_a_pool_holds_is_locked_by_who_holds_it() -> None:
    [agency] = programme("ssf-nepal").products
    assert at(agency, 100, JOINED) == (Locked(100, "held_by_agency", None),)
    assert at(programme("few-nepal").products[0], 100, JOINED) == (Locked(100, "held_by_pool", None),)


@pytest.mark.parametrize("product", EVERY, ids=lambda product: product.code)
def test_nothing_is_locked_where_nothing_is_saved(product: Product) -> None:
    assert at(product, 0, JOINED) == ()


@given(st.sampled_from(EVERY), st.integers(1, 10**9), births, days)
def test_at_most_what_is_saved_is_locked_each_with_a_reason(
    product: Product, savings: int, born: date | None, on: date
) -> None:
    parts = locked(product, savings, birth_date=born, joined_on=JOINED, on=on)
    assert 0 <= sum(part.amount for part in parts) <= savings
    for part in parts:
        assert part.amount > 0
        assert part.reason
        assert part.until is None or part.until > on


@given(st.sampled_from(SAVINGS), st.integers(1, 10**9), births, days)
def test_on_the_day_that_a_lock_names_less_is_locked(
    product: Product, savings: int, born: date | None, on: date
) -> None:
    before = locked(product, savings, birth_date=born, joined_on=JOINED, on=on)
    for part in before:
        if part.until is not None:
            then = locked(product, savings, birth_date=born, joined_on=JOINED, on=part.until)
            # another condition may still stand in the way, yet that day is no longer promised
            assert all(one.until is None or one.until > part.until for one in then)
