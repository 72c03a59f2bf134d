"""When a partner's money is expected, for which day it counts, and what the partner keeps: rules, without a database."""

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import InvalidInput
from products.settlements.calendar import Calendar, business_days
from products.settlements.cash import arriving, netting
from products.settlements.obligations import bucket_of
from products.settlements.terms import ALWAYS, SettlementTerms, checked, on_day, parse_cut_off

DAYS = st.dates(date(2015, 1, 1), date(2035, 12, 31))
COUNTRIES = st.lists(
    st.sampled_from(["RW", "AE", "BD", "NP", "PH", "EG", "SA", "KE", "MX", "IN"]), max_size=2
)
FUNDS = [UUID(int=number) for number in range(1, 4)]
SIGNED = st.dictionaries(st.sampled_from(FUNDS), st.integers(-1_000, 1_000))
NATURAL = st.dictionaries(st.sampled_from(FUNDS), st.integers(0, 1_000), min_size=1)


@settings(deadline=None)  # the first look into a country's table takes its time
@given(COUNTRIES, DAYS, st.integers(0, 10))
def test_money_is_expected_on_a_day_on_which_both_countries_work_and_never_before(
    countries: list[str], day: date, days: int
) -> None:
    calendar = business_days(countries)
    expected = calendar.after(day, days)
    assert calendar.is_open(expected)
    opened = [day + timedelta(days=n) for n in range((expected - day).days + 1)]
    assert sum(calendar.is_open(one) for one in opened) == days + 1
    assert calendar.after(day + timedelta(days=1), days) >= expected
    assert all(Calendar((country,)).is_open(expected) for country in countries)


@pytest.mark.parametrize(
    ("countries", "collected", "days", "expected"),
    [
        (["RW"], date(2026, 3, 6), 1, date(2026, 3, 9)),  # Friday: the weekend is Saturday and Sunday
        (["BD"], date(2026, 3, 5), 1, date(2026, 3, 8)),  # Thursday: in Dhaka it is Friday and Saturday
        (["BD", "RW"], date(2026, 3, 5), 1, date(2026, 3, 9)),  # closed in one is closed
        (["RW"], date(2026, 3, 7), 1, date(2026, 3, 10)),  # a Saturday's counts as received on Monday
        (["RW"], date(2026, 3, 7), 0, date(2026, 3, 9)),
        (["RW"], date(2026, 4, 6), 1, date(2026, 4, 9)),  # Easter Monday, then Tutsi Genocide Memorial Day
        ([], date(2026, 4, 6), 1, date(2026, 4, 7)),
    ],
)
def test_weekends_and_holidays_are_those_of_the_countries(
    countries: list[str], collected: date, days: int, expected: date
) -> None:
    assert business_days(countries).after(collected, days) == expected


def test_a_country_that_no_calendar_is_known_of_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no calendar of holidays of “XX”"):
        business_days(["RW", "XX"])


def agreed(**changes: object) -> SettlementTerms:
    standing: dict[str, object] = {
        "since": ALWAYS,
        "terms": "net",
        "currency": "RWF",
        "time_zone": "Asia/Dubai",
    }
    return SettlementTerms(**standing | changes)  # type: ignore[arg-type]  # values of a test


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 3, 2, 12, 59, tzinfo=UTC), date(2026, 3, 2)),  # 16:59 in Dubai
        (datetime(2026, 3, 2, 13, 0, tzinfo=UTC), date(2026, 3, 3)),  # 17:00
        (datetime(2026, 3, 2, 20, 30, tzinfo=UTC), date(2026, 3, 3)),  # 00:30 of the 3rd
    ],
)
def test_what_is_collected_at_the_cut_off_or_later_counts_for_the_next_day(at: datetime, day: date) -> None:
    terms = agreed(cut_off_minutes=parse_cut_off("17:00"))
    assert terms.collected_on(at) == day
    assert agreed().collected_on(datetime(2026, 3, 2, 19, 59, tzinfo=UTC)) == date(2026, 3, 2)


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.fractions(min_value=0, max_value=1, max_denominator=10_000),
)
def test_the_parts_fees_add_up_to_the_remittances_and_never_exceed_what_was_collected(
    parts: list[int], fixed: int, percent: Fraction
) -> None:
    terms = agreed(pays="net_of_fees", fee_borne_by="administrator", fee_fixed=fixed, fee_percent=percent)
    kept = terms.fees(parts)
    assert sum(kept) == min(sum(parts), fixed + int(percent * sum(parts)))
    assert all(0 <= fee <= part for fee, part in zip(kept, parts, strict=True))
    assert not any(agreed().fees(parts))


@given(SIGNED, NATURAL, st.integers(0, 5_000))
def test_credits_pay_no_more_than_is_due_and_what_arrives_is_what_is_left(
    standing: dict[UUID, int], due: dict[UUID, int], cash: int
) -> None:
    used = netting(standing, due, cash)
    for fund, amount in used.items():
        assert abs(amount) <= abs(standing[fund])
        assert amount * standing[fund] >= 0
    debts = -sum(amount for amount in used.values() if amount < 0)
    assert sum(amount for amount in used.values() if amount > 0) <= sum(due.values()) + debts
    left = {fund: due.get(fund, 0) - used.get(fund, 0) for fund in {*due, *used}}
    if sum(left.values()) >= 0:
        shares = arriving(left)
        assert sum(shares.values()) == sum(left.values())
        assert all(0 <= amount <= max(left[fund], 0) for fund, amount in shares.items())


def test_terms_of_a_day_are_the_latest_that_had_begun() -> None:
    history = [
        agreed(),
        agreed(since=date(2026, 3, 1), business_days=2),
        agreed(since=date(2026, 4, 1), business_days=3),
    ]
    assert [
        on_day(history, day).business_days for day in (date(2020, 1, 1), date(2026, 3, 31), date(2026, 4, 1))
    ] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"time_zone": "Mars/Olympus"}, "/time_zone"),
        ({"countries": ("ZZ",)}, "/countries/0"),
        ({"pays": "net_of_fees", "fee_borne_by": "partner"}, "/pays"),
        ({"pays": "net_of_fees", "fee_borne_by": "administrator", "terms": "prefunded"}, "/pays"),
        ({"fee_borne_by": "member"}, "/fee_borne_by"),
        ({"warning_percent": 0}, "/warning_percent"),
        ({"business_days": 61}, "/business_days"),
        ({"exposure_ceiling": -1}, "/exposure_ceiling"),
        ({"guarantor": "Big Bank"}, "/guarantor"),
        ({"guarantor": "bank", "terms": "prefunded"}, "/guarantor"),
        ({"fee_percent": Fraction(2)}, "/fee_percent"),
    ],
)
def test_terms_that_cannot_be_agreed_are_refused(changes: dict[str, object], pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked(agreed(**changes))
    assert refused.value.pointer == pointer


@pytest.mark.parametrize("written", ["24:01", "00:00", "7:00", "12:60", "noon"])
def test_a_cut_off_is_a_time_of_the_day(written: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cut_off(written)
    assert parse_cut_off("24:00") == 1440


def test_lateness_falls_into_buckets() -> None:
    assert [bucket_of(days) for days in (0, 1, 7, 8, 30, 31, 90, 91)] == [
        "not_due", "1-7", "1-7", "8-30", "8-30", "31-90", "31-90", "over_90"
    ]  # fmt: skip
