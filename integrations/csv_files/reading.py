"""Rows, cells and amounts of CSV files that are laid out as a mapping says.

Nothing of a file is quoted in a fault: what stands in a row may be about a person.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from integrations.csv_files.mapping import CurrencyColumn, Layout, Place
from ledger.errors import InvalidMoney
from ledger.money import AMOUNT_MAX, exponent

COLUMNS_MAX: Final = 200
FIELD_CHARACTERS_MAX: Final = 1_000
FAULTS_TOLD_MAX: Final = 10


class Fault(Exception):
    """What is wrong, and in which column; `at` puts the row before it."""

    def __init__(self, what: str, place: Place | None = None) -> None:
        super().__init__(what)
        self.what, self.place = what, place

    def at(self, number: int) -> str:
        """The fault, for people, in a row."""
        if self.place is None:
            return f"Row {number}: {self.what}."
        column = f"column {self.place}" if isinstance(self.place, int) else f"column “{self.place}”"
        return f"Row {number}, {column}: {self.what}."


def rows(lines: Iterable[str], layout: Layout, *, rows_max: int) -> Iterator[tuple[int, list[str]]]:
    """Each row with its number in the file, from 1, as a spreadsheet counts; empty ones are skipped. Raises `Fault`."""
    parser = csv.reader(
        lines,
        delimiter=layout.delimiter,
        quotechar=layout.quote,
        quoting=csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
        strict=True,
    )
    number = 0
    while True:
        try:
            row = next(parser, None)
        except csv.Error:
            raise Fault(
                f"Row {number + 1} is no row of CSV: its quotes don't match, or it is too long."
            ) from None
        if row is None:
            return
        number += 1
        if number > rows_max:
            raise Fault(f"The file has more than {rows_max} rows.")
        if len(row) > COLUMNS_MAX or any(len(cell) > FIELD_CHARACTERS_MAX for cell in row):
            raise Fault(
                f"Row {number} has more than {COLUMNS_MAX} columns, or a field of over {FIELD_CHARACTERS_MAX} characters."
            )
        if any(row):
            yield number, row


class Columns:
    """Where each column is, once the header was read; without a header, columns are counted."""

    def __init__(self, wanted: Iterable[Place]) -> None:
        self._wanted = tuple(wanted)
        self._header: dict[str, int] = {}

    def read(self, row: Sequence[str]) -> None:
        """Take the header. Raises `Fault` where a wanted column is missing, or there twice."""
        header: dict[str, int] = {}
        for index, cell in enumerate(row):
            name = cell.strip()
            # given twice: fine, as long as nobody asks for it
            header[name] = -1 if name in header else index
        for place in self._wanted:
            if isinstance(place, str) and header.get(place, -1) < 0:
                raise Fault("the header has no such column, or has it twice", place)
        self._header = header

    def cell(self, row: Sequence[str], place: Place) -> str:
        """The cell's text, without space around it. Raises `Fault` where the row is too short."""
        index = place - 1 if isinstance(place, int) else self._header[place]
        if index >= len(row):
            raise Fault("the row is too short", place)
        return row[index].strip()


class Amounts:
    """Reads amounts as a layout has them: digits in threes, in twos before the last three (``1,20,000``), or in one; and decimals
    unless it is minor units."""

    def __init__(self, layout: Layout) -> None:
        mark = re.escape(layout.thousands)
        lakhs = rf"[0-9]{{1,2}}(?:{mark}[0-9]{{2}}){{1,8}}{mark}[0-9]{{3}}"
        grouped = rf"{lakhs}|[0-9]{{1,3}}(?:{mark}[0-9]{{3}}){{0,6}}|" if mark else ""
        decimals = (
            "(?P<decimals>)"
            if layout.minor_units
            else rf"(?:{re.escape(layout.decimal)}(?P<decimals>[0-9]{{0,12}}))?"
        )
        self._pattern = re.compile(rf"(?P<sign>[+-]?)(?P<whole>{grouped}[0-9]{{1,16}}){decimals}", re.ASCII)
        self._thousands = layout.thousands
        self._in_minor_units = layout.minor_units

    def read(self, written: str, currency: str, place: Place | None) -> int:
        """An amount in minor units, with its sign. Raises `Fault`."""
        found = self._pattern.fullmatch(written)
        if found is None:
            raise Fault("this is no amount as the mapping describes them", place)
        whole, decimals = found["whole"], found["decimals"] or ""
        digits = whole.replace(self._thousands, "") if self._thousands else whole
        places = 0 if self._in_minor_units else exponent(currency)
        if decimals[places:].strip("0"):
            raise Fault(f"{currency} has {places} decimals", place)
        amount = int(digits + decimals[:places].ljust(places, "0"))
        if amount > AMOUNT_MAX:
            raise Fault("the amount is larger than 2^53−1 minor units", place)
        return -amount if found["sign"] == "-" else amount


def currency_in(mapped: CurrencyColumn, cell: str) -> str:
    """The currency that a cell says. Raises `Fault`."""
    currency = mapped.values.get(cell, cell)
    try:
        exponent(currency)
    except InvalidMoney:
        raise Fault(
            "this is no currency (ISO 4217), and the mapping has no value for it", mapped.column
        ) from None
    return currency
