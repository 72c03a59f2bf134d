"""Money: exact, in one currency, and divided so that the parts always add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import InvalidMoney
from ledger.money import AMOUNT_MAX, Money, exponent, largest_remainder, share

amounts = st.integers(0, AMOUNT_MAX)


@pytest.mark.parametrize(
    ("currency", "places"),
    [
        ("PHP", 2),
        ("JPY", 0),
        ("RWF", 0),
        ("UGX", 0),
        ("KWD", 3),
        ("BHD", 3),
        ("OMR", 3),
        ("USD", 2),
        ("CLF", 4),
    ],
)
def test_the_minor_unit_is_that_of_iso_4217(currency: str, places: int) -> None:
    assert exponent(currency) == places


@pytest.mark.parametrize("text", ["", "php", "XXX", "XAU", "ZZZ", "PHPP", "PH", "€"])
def test_what_is_no_currency_is_refused(text: str) -> None:
    with pytest.raises(InvalidMoney):
        Money(1, text)


@pytest.mark.parametrize("amount", [AMOUNT_MAX + 1, -AMOUNT_MAX - 1, 1.0, True, "1", None])
def test_an_amount_is_an_integer_that_every_reader_can_hold(amount: object) -> None:
    with pytest.raises(InvalidMoney):
        Money(amount, "PHP")  # type: ignore[arg-type]


def test_sums_and_order_stay_within_a_currency() -> None:
    assert Money(5, "PHP") + Money(2, "PHP") - Money(3, "PHP") == Money(4, "PHP")
    assert -Money(5, "PHP") < Money(0, "PHP") <= Money(0, "PHP")
    assert Money(5, "PHP") > Money(4, "PHP") >= Money(4, "PHP")
    assert not Money(0, "PHP")
    assert Money(1, "PHP") != Money(1, "USD")
    for mix in ("__add__", "__sub__", "__lt__", "__le__", "__gt__", "__ge__"):
        with pytest.raises(InvalidMoney):
            getattr(Money(1, "PHP"), mix)(Money(1, "USD"))
    with pytest.raises(InvalidMoney):
        Money(AMOUNT_MAX, "PHP") + Money(1, "PHP")


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money(123_456, "PHP"), "1,234.56 PHP"),
        (Money(-5, "KWD"), "-0.005 KWD"),
        (Money(1_500, "JPY"), "1,500 JPY"),
        (Money(0, "USD"), "0.00 USD"),
        (Money(AMOUNT_MAX, "USD"), "90,071,992,547,409.91 USD"),
    ],
)
def test_money_is_written_for_people(money: Money, text: str) -> None:
    assert str(money) == text


@given(amounts, st.lists(st.integers(0, 10_000), min_size=1, max_size=12).filter(any))
def test_parts_add_up_and_none_is_a_unit_off(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert part in (total * weight // sum(weights), total * weight // sum(weights) + 1)
        assert weight or not part


def test_units_left_over_go_to_the_largest_remainder_then_to_the_first() -> None:
    assert largest_remainder(10, [1, 1, 1]) == [4, 3, 3]
    assert largest_remainder(100, [1, 2, 3]) == [17, 33, 50]
    assert largest_remainder(0, [1, 2]) == [0, 0]


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, []), (1, [0, 0]), (1, [2, -1])])
def test_what_cannot_be_divided_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="divided"):
        largest_remainder(total, weights)


@given(amounts, st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_share_is_rounded_down(amount: int, numerator: int, denominator: int) -> None:
    part = share(amount, numerator, denominator)
    assert part * denominator <= amount * numerator < (part + 1) * denominator


@pytest.mark.parametrize("wrong", [(-1, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_a_share_of_less_than_nothing_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="share"):
        share(*wrong)
