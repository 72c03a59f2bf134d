"""Facts: dated, corrected by later records, and of the declared type."""

from datetime import UTC, date, datetime

import pytest

from products.facts import Fact, Facts, FactScalar, InvalidFact, read_value
from tests.unit.programmes.world import programme


def fact(value: FactScalar, since: str, recorded: int) -> Fact:
    return Fact("income_category", value, date.fromisoformat(since), datetime(2026, 1, recorded, tzinfo=UTC))


def test_a_value_holds_from_its_day_until_a_later_one_replaces_it() -> None:
    facts = Facts([fact(3, "2026-06-01", 2), fact(1, "2026-01-01", 1)])
    assert facts.value("income_category", date(2025, 12, 31)) is None
    assert facts.value("income_category", date(2026, 1, 1)) == 1
    assert facts.value("income_category", date(2026, 5, 31)) == 1
    assert facts.value("income_category", date(2026, 6, 1)) == 3
    assert facts.on(date(2026, 7, 1)) == {"income_category": 3}
    assert facts.on(date(2025, 7, 1)) == {}


def test_the_value_recorded_later_for_the_same_day_wins_in_any_order() -> None:
    first, correction = fact(1, "2026-01-01", 1), fact(2, "2026-01-01", 9)
    for order in ([first, correction], [correction, first]):
        assert Facts(order).value("income_category", date(2026, 2, 1)) == 2


def test_a_correction_of_the_past_leaves_what_came_after() -> None:
    facts = Facts([fact(3, "2026-06-01", 2), fact(2, "2026-01-01", 9)])
    assert facts.value("income_category", date(2026, 7, 1)) == 3


def test_a_false_value_is_a_value() -> None:
    assert Facts([fact(False, "2026-01-01", 1)]).on(date(2026, 1, 1)) == {"income_category": False}


def test_values_are_read_as_declared() -> None:
    assert read_value(programme("ejoheza").facts, "RWF", "income_category", 1) == 1
    income = {"amount": 1_500_000, "currency": "INR"}
    assert read_value(programme("pm-sym").facts, "INR", "monthly_income", income) == 1_500_000
    few = programme("few-nepal").facts
    assert read_value(few, "NPR", "contract_end", "2028-02-29") == date(2028, 2, 29)
    assert read_value(programme("apy").facts, "INR", "paid_regularly", True) is True


@pytest.mark.parametrize(
    ("slug", "name", "raw", "pointer"),
    [
        ("ejoheza", "shoe_size", 40, "/facts/0/name"),
        ("ejoheza", "income_category", 5, "/facts/0/value"),
        ("ejoheza", "income_category", True, "/facts/0/value"),
        ("ejoheza", "income_category", "1", "/facts/0/value"),
        ("ejoheza", "income_category", 1.0, "/facts/0/value"),
        ("ejoheza", "income_category", 2**60, "/facts/0/value"),
        ("pm-sym", "monthly_income", 15000, "/facts/0/value"),
        ("pm-sym", "monthly_income", {"amount": 1, "currency": "USD"}, "/facts/0/value/currency"),
        ("pm-sym", "monthly_income", {"amount": -1, "currency": "INR"}, "/facts/0/value/amount"),
        ("few-nepal", "contract_months", 0, "/facts/0/value"),
        ("few-nepal", "contract_months", 121, "/facts/0/value"),
        ("few-nepal", "contract_end", "2027-02-29", "/facts/0/value"),
        ("apy", "paid_regularly", 1, "/facts/0/value"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_pointer(
    slug: str, name: str, raw: object, pointer: str
) -> None:
    loaded = programme(slug)
    with pytest.raises(InvalidFact) as caught:
        read_value(loaded.facts, loaded.currency, name, raw, pointer="/facts/0")
    assert caught.value.pointer == pointer
