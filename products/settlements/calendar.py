"""When a partner's money is expected: business days of the countries that it crosses, pure but for the holidays' tables.

Public holidays and weekends come from the library `holidays`, by ISO 3166-1 alpha-2 code: a weekend is Friday and Saturday
in Dhaka and Cairo, Saturday and Sunday in Kigali. A day is a business day when it is one in every country.

What is collected after the cut-off, or on a day that is none, counts as received on the next business day, and the money
is expected so many business days after that: as payment orders are received under Article 78 of Directive (EU) 2015/2366.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

import holidays

from ledger.errors import InvalidInput

CLOSED_RUN_DAYS_MAX: Final = 60
"""No country closes for longer; a calendar that does is a fault of ours."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The business days of some countries, by code, sorted; of none, every day but Saturday and Sunday."""

    countries: tuple[str, ...]

    def is_open(self, day: date) -> bool:
        """Whether money moves on this day in every one of the countries."""
        if not self.countries:
            return day.weekday() < 5
        return all(day not in _closed(country, day.year) for country in self.countries)

    def on_or_after(self, day: date) -> date:
        """The first business day from this one on."""
        for ahead in range(CLOSED_RUN_DAYS_MAX):
            candidate = day + timedelta(days=ahead)
            if self.is_open(candidate):
                return candidate
        raise LookupError(
            f"{', '.join(self.countries)} would be closed from {day} for {CLOSED_RUN_DAYS_MAX} days"
        )

    def after(self, day: date, business_days: int) -> date:
        """So many business days after a day; a day that is none counts as the next one that is."""
        found = self.on_or_after(day)
        for _ in range(business_days):
            found = self.on_or_after(found + timedelta(days=1))
        return found


def is_known(country: str) -> bool:
    """Whether a calendar of this country's holidays is known."""
    return country in holidays.list_supported_countries(include_aliases=False)


def business_days(countries: Collection[str]) -> Calendar:
    """The calendar of some countries. Raises InvalidInput for a code that no calendar is known of."""
    for position, country in enumerate(countries):
        if not is_known(country):
            raise InvalidInput(
                f"there is no calendar of holidays of “{country}”: name countries by ISO 3166-1, such as RW or AE",
                pointer=f"/countries/{position}",
            )
    return Calendar(tuple(sorted(set(countries))))


@lru_cache(maxsize=1_024)
def _closed(country: str, year: int) -> frozenset[date]:
    """The days of a year on which banks of a country are closed: its weekends and its public holidays."""
    table = holidays.country_holidays(country, years=year)
    first = date(year, 1, 1)
    days = (first + timedelta(days=n) for n in range(366))
    return frozenset(
        day for day in days if day.year == year and (day.weekday() in table.weekend or day in table)
    )
