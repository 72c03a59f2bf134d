"""How amounts, percentages and dates are written in programme files and choices, and their exact values."""

import re
from datetime import date
from fractions import Fraction
from functools import cache

from ledger.money import AMOUNT_MAX

_MONEY = re.compile(r"(0|[1-9][0-9]{0,14})(?:\.([0-9]{1,4}))?", re.ASCII)
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,4})(?:\.[0-9]{1,6})?", re.ASCII)
_RATIO = re.compile(r"([0-9]{1,9})/([1-9][0-9]{0,8})", re.ASCII)
_MONTH_DAY = re.compile(r"([0-9]{2})-([0-9]{2})", re.ASCII)


def parse_money(text: str, places: int) -> int:
    """Major units with at most ``places`` decimals, as minor units: ``"2002.50"`` → 200250. Raises ValueError."""
    written = _MONEY.fullmatch(text)
    if written is None:
        raise ValueError("an amount is written in major units, such as “15000” or “2002.50”")
    whole, decimals = written[1], written[2] or ""
    if len(decimals) > places:
        raise ValueError(f"the currency has {places} decimals, not {len(decimals)}")
    amount: int = int(whole) * 10**places + int(decimals.ljust(places, "0") or "0")
    if amount > AMOUNT_MAX:
        raise ValueError("the amount is larger than 2^53−1 minor units")
    return amount


def parse_percent(text: str) -> Fraction:
    """``"5"`` and ``"7.5"`` are per cent, ``"1/3"`` is the ratio itself; exact. Raises ValueError."""
    if _DECIMAL.fullmatch(text):
        return Fraction(text) / 100
    ratio = _RATIO.fullmatch(text)
    if ratio is None:
        raise ValueError("a percentage is written “5”, “7.5” or, as a ratio, “1/3”")
    return Fraction(int(ratio[1]), int(ratio[2]))


@cache
def format_percent(value: Fraction) -> str:
    """A fraction as `parse_percent` reads it: per cent where that is exact, else the ratio."""
    per_cent = value * 100
    for places in range(7):
        scaled = per_cent * 10**places
        if scaled.denominator == 1:
            whole, rest = divmod(scaled.numerator, 10**places)
            return f"{whole}.{rest:0{places}d}" if places else str(whole)
    return f"{value.numerator}/{value.denominator}"


def parse_date(text: str) -> date:
    """``"2026-01-31"``. Raises ValueError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is not a day of the calendar") from None


def parse_month_day(text: str) -> tuple[int, int]:
    """``"04-01"`` as (month, day), a day that every year has. Raises ValueError."""
    written = _MONTH_DAY.fullmatch(text)
    if written is None:
        raise ValueError("a month and day is written 04-01")
    month, day = int(written[1]), int(written[2])
    try:
        date(2001, month, day)
    except ValueError:
        raise ValueError(f"{text} is not a day that every year has") from None
    return month, day
