"""Sheets of a spreadsheet (XLSX) or of a CSV file, cell by cell, with a header in the first row of each.

A cell is text, or a day where the spreadsheet says that it is one. Formulas are refused: what they come to stands in the file only if
the program that saved it has computed it, so values are to be pasted over them. Numbers are taken to 15 significant digits, which is
what spreadsheets keep; longer ones are to be text.
"""

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from products.opening.given import Fault, Row, Value

ROWS_MAX: Final = 250_000
COLUMNS_MAX: Final = 50
CELL_CHARACTERS_MAX: Final = 300
UNPACKED_BYTES_MAX: Final = 512 * 1024 * 1024
"""What an XLSX file may come to when it is unpacked: it is a ZIP archive, and a small one can hold a great deal."""
EMPTY_ROWS_MAX: Final = 1_000
"""How many empty rows in a sequence end a sheet: programs write a million of them for a formatted column."""
SHEETS_MAX: Final = 50
FAULTS_MAX: Final = 1_000
"""How many faults are told; what is beyond is counted."""

_EXACT: Final = Decimal(10) ** 15


class NotASpreadsheet(Exception):
    """The file can't be read at all."""


class Sheets:
    """A file's rows; faults that belong to cells and sheets are collected while they are read."""

    def __init__(
        self, content: bytes, *, required: frozenset[str], known: frozenset[str], rows_max: int = ROWS_MAX
    ) -> None:
        self._content, self._rows_max = content, rows_max
        self._required, self._known = required, known
        self.faults: list[Fault] = []
        self.faulty = 0

    def add(self, fault: Fault) -> None:
        """Take one more fault; those beyond `FAULTS_MAX` are counted only."""
        self.faulty += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)

    def __iter__(self) -> Iterator[Row]:
        """Every row with something in it. Raises `NotASpreadsheet`."""
        if self._content[:4] == b"PK\x03\x04":
            yield from self._workbook()
        else:
            yield from self._rows("", self._csv())

    def _workbook(self) -> Iterator[Row]:
        try:
            with zipfile.ZipFile(io.BytesIO(self._content)) as packed:
                if sum(one.file_size for one in packed.infolist()) > UNPACKED_BYTES_MAX:
                    raise NotASpreadsheet(f"The file unpacks to more than {UNPACKED_BYTES_MAX >> 20} MiB.")
            # formulas are to be seen, not what they once came to
            book = load_workbook(io.BytesIO(self._content), read_only=True, data_only=False, keep_links=False)
        except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
            raise NotASpreadsheet("The file is no spreadsheet (XLSX), or a damaged one.") from error
        with closing(book):
            if len(book.worksheets) > SHEETS_MAX:
                raise NotASpreadsheet(f"The file has more than {SHEETS_MAX} sheets.")
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what programs write there is not always true
                yield from self._rows(sheet.title, self._cells(sheet))

    def _cells(self, sheet: Any) -> Iterator[tuple[int, list[Value]]]:
        """A worksheet's rows as values."""
        empty = 0
        for number, row in enumerate(sheet.iter_rows(max_col=COLUMNS_MAX), start=1):
            values = [self._value(sheet.title, number, cell) for cell in row]
            empty = 0 if any(value is not None for value in values) else empty + 1
            if empty > EMPTY_ROWS_MAX:
                return
            yield number, values

    def _value(self, sheet: str, number: int, cell: Any) -> Value:
        value = cell.value
        if value is None:
            return None
        what = None
        if cell.data_type == "f":
            what = "this is a formula: paste its value over it"
        elif cell.data_type == "e":
            what = "this is an error of the spreadsheet"
        elif isinstance(value, bool):
            return "yes" if value else "no"
        elif isinstance(value, datetime):
            if value.time() == datetime.min.time():
                return value.date()
            what = "this is a time of day, and a day is meant"
        elif isinstance(value, int | float):
            number_ = Decimal(repr(value))
            if abs(number_) < _EXACT:
                return Decimal(f"{number_:.15g}")  # what the program itself would show
            what = "this number has more digits than spreadsheets keep: write it as text"
        elif isinstance(value, str):
            if len(value) <= CELL_CHARACTERS_MAX:
                return value.strip() or None
            what = f"it has more than {CELL_CHARACTERS_MAX} characters"
        self.add(
            Fault(sheet, f"{cell.column_letter}{number}", what or "this is neither text, number nor day")
        )
        return ""

    def _csv(self) -> Iterator[tuple[int, list[Value]]]:
        try:
            text = self._content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise NotASpreadsheet("The file is neither a spreadsheet (XLSX) nor CSV in UTF-8.") from None
        if "\x00" in text:
            raise NotASpreadsheet("The file is neither a spreadsheet (XLSX) nor CSV.")
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        try:
            for number, row in enumerate(
                csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
            ):
                cells: list[Value] = []
                for index, cell in enumerate(row[:COLUMNS_MAX]):
                    fits = len(cell) <= CELL_CHARACTERS_MAX
                    if not fits:
                        where = f"{get_column_letter(index + 1)}{number}"
                        self.add(Fault("", where, f"it has more than {CELL_CHARACTERS_MAX} characters"))
                    cells.append(cell.strip() or None if fits else "")
                yield number, cells
        except csv.Error:
            raise NotASpreadsheet(
                "The file is no CSV: its quotes don't match, or a field is too long."
            ) from None

    def _rows(self, sheet: str, cells: Iterator[tuple[int, list[Value]]]) -> Iterator[Row]:
        names: dict[int, str] | None = None
        columns: dict[str, str] = {}
        seen = told = 0
        for number, values in cells:
            before, told = told, self.faulty
            if all(value is None for value in values):
                continue
            if names is None:
                names = self._header(sheet, number, values)
                columns = {name: get_column_letter(index + 1) for index, name in names.items()}
                if not names:
                    return
                continue
            seen += 1
            if seen > self._rows_max:
                raise NotASpreadsheet(f"A sheet has at most {self._rows_max} rows.")
            for index, value in enumerate(values):
                if value is not None and index not in names:
                    self.add(
                        Fault(
                            sheet,
                            f"{get_column_letter(index + 1)}{number}",
                            "its column has no name in the first row",
                        )
                    )
            told = self.faulty
            if told > before:  # what can't be read is told once, and the row goes no further
                continue
            yield Row(
                sheet,
                number,
                {name: values[index] for index, name in names.items() if index < len(values)},
                columns,
            )

    def _header(self, sheet: str, number: int, values: list[Value]) -> dict[int, str]:
        """The names of the columns, by place; none where the header has a fault."""
        names: dict[int, str] = {}
        before = self.faulty
        for index, value in enumerate(values):
            if value is None:
                continue
            name = str(value).strip().lower().replace(" ", "_")
            where = f"{get_column_letter(index + 1)}{number}"
            if name not in self._known:
                self.add(Fault(sheet, where, f"no such column; there are {', '.join(sorted(self._known))}"))
            elif name in names.values():
                self.add(Fault(sheet, where, "this column is there twice"))
            else:
                names[index] = name
        missing = self._required - set(names.values())
        if missing:
            self.add(Fault(sheet, f"{number}", f"the first row lacks {', '.join(sorted(missing))}"))
        return names if self.faulty == before else {}
