"""Rows of a spreadsheet as its user sees them: cells by the names of their columns, and where each is.

Nothing of a cell is quoted in a fault: what stands in it may be about a person.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from ledger.money import AMOUNT_MAX, exponent

_SPACES: Final = "\u0020\u00a0\u202f\u2009'\u2019"
_NUMBER: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)*", re.ASCII)

Value = str | date | Decimal | None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: the sheet and the cell (``C17``; a row alone, ``17``; nothing: the sheet, or the file)."""

    sheet: str
    cell: str
    what: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.sheet and f"“{self.sheet}”", self.cell) if part)
        return f"{where}: {self.what}" if where else self.what


class Faulty(Exception):
    """A fault in one cell, on its way to whoever collects them."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(what)
        self.column, self.what = column, what


@dataclass(frozen=True, slots=True)
class Row:
    """One row with something in it: its cells by the header's name, and where they are."""

    sheet: str
    line: int
    cells: Mapping[str, Value]
    columns: Mapping[str, str]

    def text(self, column: str) -> str:
        """A cell's text, empty where there is none. Raises `Faulty` for a day."""
        value = self.cells.get(column)
        if isinstance(value, date):
            raise Faulty(column, "this is a day, and text is meant")
        return f"{value:f}" if isinstance(value, Decimal) else value or ""

    def day(self, column: str) -> date | None:
        """A cell's day: a spreadsheet's own, or ISO 8601 text (2025-12-31); None where there is none. Raises `Faulty`."""
        value = self.cells.get(column)
        if value is None or isinstance(value, date):
            return value
        try:
            if isinstance(value, str) and len(value) == 10:
                return date.fromisoformat(value)
        except ValueError:
            pass
        raise Faulty(column, "this is no day: write it as 2025-12-31, or as a spreadsheet's own day")

    def amount(self, column: str, currency: str) -> int | None:
        """A cell's amount of a currency in minor units, with its sign; None where there is none. Raises `Faulty`."""
        value = self.cells.get(column)
        written = self.text(column)
        if not written:
            return None
        try:
            if isinstance(value, Decimal):
                return _exactly(value, exponent(currency))
            return minor_units(written, exponent(currency))
        except ValueError as error:
            raise Faulty(column, str(error)) from None

    @property
    def place(self) -> str:
        """Where it stands, as people find it: ``members!5``, or ``row 5`` of a file that has no sheets."""
        return f"{self.sheet}!{self.line}" if self.sheet else f"row {self.line}"

    def fault(self, faulty: Faulty) -> Fault:
        """A fault in one of its cells, told with its place."""
        return Fault(self.sheet, f"{self.columns.get(faulty.column, '')}{self.line}", faulty.what)


def minor_units(written: str, places: int) -> int:
    """An amount in major units, as people and spreadsheets write it, in minor units. Raises ValueError, with what is wrong.

    Thousands may be set apart by spaces, apostrophes, commas or points, in threes throughout; decimals by the other of comma and
    point. Negative: a minus in front or behind, or brackets.
    """
    text = written.translate({ord(one): None for one in _SPACES}).replace("\u2212", "-")
    negative = False
    if text.startswith("(") and text.endswith(")"):
        text, negative = text[1:-1], True
    elif text.endswith("-"):
        text, negative = text[:-1], True
    elif text[:1] in ("-", "+"):
        text, negative = text[1:], text[0] == "-"
    if not _NUMBER.fullmatch(text):
        raise ValueError("this is no amount")
    digits, decimals = _apart(text, places)
    if decimals[places:].strip("0"):
        raise ValueError(f"it has more than {places} decimals")
    amount = int(digits + decimals[:places].ljust(places, "0"))
    if amount > AMOUNT_MAX:
        raise ValueError("it is more than 2^53−1 minor units")
    return -amount if negative else amount


def _exactly(number: Decimal, places: int) -> int:
    """A spreadsheet's own number in minor units: there is nothing to guess about its decimals."""
    minor = number.scaleb(places)
    if minor != minor.to_integral_value():
        raise ValueError(f"it has more than {places} decimals")
    if abs(minor) > AMOUNT_MAX:
        raise ValueError("it is more than 2^53−1 minor units")
    return int(minor)


def _apart(text: str, places: int) -> tuple[str, str]:
    """The whole part and the decimals of digits with commas and points."""
    marks = [one for one in text if one in ".,"]
    if not marks:
        return text, ""
    last = marks[-1]
    head, _, tail = text.rpartition(last)
    if len(set(marks)) == 2:  # the last one is the decimal mark, the other sets thousands apart
        other = "," if last == "." else "."
        if last in head:
            raise ValueError("its points and commas contradict each other")
        return _grouped(head, other), tail
    if len(marks) > 1:
        return _grouped(text, last), ""
    if len(tail) != 3 or not 1 <= len(head) <= 3 or head == "0":
        return head, tail
    if places >= 3:
        raise ValueError(
            f"“{last}” may set thousands apart here, or decimals: write it without thousands apart, and with all decimals"
        )
    return head + tail, ""


def _grouped(text: str, mark: str) -> str:
    first, *rest = text.split(mark)
    if not 1 <= len(first) <= 3 or any(len(one) != 3 for one in rest):
        raise ValueError("its thousands are not set apart in threes")
    return "".join((first, *rest))
