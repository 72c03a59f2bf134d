"""Reading a partner's settlement file by its mapping, row by row, with every fault named by row and column.

Nothing of the file is quoted in a fault: what stands in a row may be about a person. What no mapping names is not kept.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from integrations.settlement_files.mapping import (
    ISO,
    Currency,
    CurrencyColumn,
    KindColumn,
    OneKind,
    Place,
    SettlementMapping,
    Time,
    Trailer,
)
from ledger.errors import InvalidInput, InvalidMoney
from ledger.money import AMOUNT_MAX, exponent
from products.settlements.comparison import FileLine, Kind

ROWS_MAX: Final = 500_000
COLUMNS_MAX: Final = 200
FIELD_CHARACTERS_MAX: Final = 1_000
FAULTS_TOLD_MAX: Final = 10

_REMITTANCE_ID = re.compile(r"[!-~]{1,128}", re.ASCII)


class InvalidSettlementFile(InvalidInput):
    """The file can't be read by its mapping: the first faults, by row and column. Nothing of it is kept."""

    code = "invalid_settlement_file"


class _Fault(Exception):
    def __init__(self, what: str, place: Place | None = None) -> None:
        super().__init__(what)
        self.what, self.place = what, place


@dataclass(slots=True)
class _Totals:
    """What the rows so far add up to, minor units; of one currency, or it is not known."""

    rows: int = 0
    net: int = 0
    gross: int = 0
    currencies: set[str] = field(default_factory=set)

    def add(self, line: FileLine) -> None:
        self.rows += 1
        self.net += line.amount if line.kind == "collection" else -line.amount
        self.gross += line.amount
        self.currencies.add(line.currency)


def read(content: bytes, mapping: SettlementMapping) -> list[FileLine]:
    """The lines of a file, in its order; `position` is the row in the file, from 1, as a spreadsheet counts.

    Raises `InvalidSettlementFile` with up to ten faults.
    """
    faults: list[str] = []
    lines: list[FileLine] = []
    reader = _Reader(mapping)
    try:
        for number, row in _rows(content, mapping):
            try:
                line = reader.line(number, row)
            except _Fault as fault:
                faults.append(_told(number, fault))
                if len(faults) == FAULTS_TOLD_MAX:
                    break
                continue
            if line is not None:
                lines.append(line)
        if not faults:
            reader.end()
    except _Fault as fault:
        faults.append(fault.what)
    if faults:
        raise InvalidSettlementFile(" ".join(faults))
    return lines


def _told(number: int, fault: _Fault) -> str:
    if fault.place is None:
        return f"Row {number}: {fault.what}."
    column = f"column {fault.place}" if isinstance(fault.place, int) else f"column “{fault.place}”"
    return f"Row {number}, {column}: {fault.what}."


def _rows(content: bytes, mapping: SettlementMapping) -> Iterator[tuple[int, list[str]]]:
    """Each row with its number; empty ones are skipped."""
    encoding = "utf-8-sig" if mapping.encoding == "utf-8" else mapping.encoding
    text = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    parser = csv.reader(
        text,
        delimiter=mapping.delimiter,
        quotechar=mapping.quote,
        quoting=csv.QUOTE_MINIMAL if mapping.quote else csv.QUOTE_NONE,
        strict=True,
    )
    number = 0
    while True:
        try:
            row = next(parser, None)
        except UnicodeError:
            raise _Fault(f"After row {number} the file is not {mapping.encoding}.") from None
        except csv.Error:
            raise _Fault(
                f"Row {number + 1} is no row of CSV: its quotes don't match, or it is too long."
            ) from None
        if row is None:
            return
        number += 1
        if number > ROWS_MAX:
            raise _Fault(f"The file has more than {ROWS_MAX} rows.")
        if len(row) > COLUMNS_MAX or any(len(cell) > FIELD_CHARACTERS_MAX for cell in row):
            raise _Fault(
                f"Row {number} has more than {COLUMNS_MAX} columns, or a field of over {FIELD_CHARACTERS_MAX} characters."
            )
        if number > mapping.skip_rows and any(row):
            yield number, row


class _Reader:
    """Turns rows into lines, once the header is read."""

    def __init__(self, mapping: SettlementMapping) -> None:
        self._mapping = mapping
        self._header: dict[str, int] | None = None if mapping.header else {}
        self._totals = _Totals()
        self._ended = False
        self._amounts = _amount_pattern(mapping)
        self._seconds = _time_reader(mapping.at) if mapping.at else None

    def line(self, number: int, row: Sequence[str]) -> FileLine | None:
        """The line in a row; None for the header, the trailer and what is to be ignored."""
        mapping = self._mapping
        if self._header is None:
            self._header = self._read_header(row)
            return None
        if self._ended:
            raise _Fault("there is a row after the trailer")
        if mapping.trailer is not None and self._is_trailer(mapping.trailer, row):
            self._read_trailer(mapping.trailer, row)
            return None
        kind: Kind | None = "collection"
        if isinstance(mapping.kind, KindColumn):
            said = mapping.kind.values.get(self._cell(row, mapping.kind.column))
            if said is None:
                raise _Fault("the mapping has no value for what is here", mapping.kind.column)
            if said == "ignore":
                return None
            kind = said
        elif isinstance(mapping.kind, OneKind):
            kind = mapping.kind.constant
        remittance = self._cell(row, mapping.remittance_id.column)
        if not _REMITTANCE_ID.fullmatch(remittance):
            raise _Fault(
                "a remittance's id has 1 to 128 printable ASCII characters", mapping.remittance_id.column
            )
        currency = self._currency(row)
        amount = self._amount(row, mapping.amount.column, currency)
        match mapping.sign:
            case "by_sign":
                kind = "reversal" if amount < 0 else kind
            case "reversals_negative" if (amount < 0) != (kind == "reversal") and amount != 0:
                raise _Fault("a reversal is negative, and nothing else is", mapping.amount.column)
            case "positive" if amount < 0:
                raise _Fault("an amount has no sign here", mapping.amount.column)
        line = FileLine(number, remittance, kind, abs(amount), currency, self._at(row))
        self._totals.add(line)
        return line

    def end(self) -> None:
        """The file has ended: was it whole?"""
        if self._header is None:
            raise _Fault("The file has no header.")
        if self._mapping.trailer is not None and not self._ended:
            raise _Fault("The file has no trailer: it was cut off.")

    def _read_header(self, row: Sequence[str]) -> dict[str, int]:
        header: dict[str, int] = {}
        for index, cell in enumerate(row):
            name = cell.strip()
            if name in header:
                header[name] = -1  # given twice: fine, as long as nobody asks for it
            else:
                header[name] = index
        trailer = self._mapping.trailer
        wanted = [*self._mapping.places]
        if trailer is not None:
            wanted += [place for place in (trailer.column, trailer.count, trailer.total) if place is not None]
        for place in wanted:
            if isinstance(place, str) and header.get(place, -1) < 0:
                raise _Fault("the header has no such column, or has it twice", place)
        return header

    def _cell(self, row: Sequence[str], place: Place) -> str:
        index = place - 1 if isinstance(place, int) else (self._header or {})[place]
        if index >= len(row):
            raise _Fault("the row is too short", place)
        return row[index].strip()

    def _currency(self, row: Sequence[str]) -> str:
        mapped = self._mapping.currency
        if isinstance(mapped, Currency):
            return mapped.constant
        cell = self._cell(row, mapped.column)
        currency = _known_currency(mapped, cell)
        if currency is None:
            raise _Fault("this is no currency (ISO 4217), and the mapping has no value for it", mapped.column)
        return currency

    def _amount(self, row: Sequence[str], place: Place, currency: str) -> int:
        """An amount in minor units, with its sign."""
        written = self._amounts.fullmatch(self._cell(row, place))
        if written is None:
            raise _Fault("this is no amount as the mapping describes them", place)
        sign, whole, decimals = written["sign"], written["whole"], written["decimals"] or ""
        digits = whole.replace(self._mapping.thousands, "") if self._mapping.thousands else whole
        places = 0 if self._mapping.minor_units else exponent(currency)
        if decimals[places:].strip("0"):
            raise _Fault(f"{currency} has {places} decimals", place)
        amount = int(digits + decimals[:places].ljust(places, "0"))
        if amount > AMOUNT_MAX:
            raise _Fault("the amount is larger than 2^53−1 minor units", place)
        return -amount if sign == "-" else amount

    def _at(self, row: Sequence[str]) -> datetime | None:
        if self._mapping.at is None or self._seconds is None:
            return None
        place = self._mapping.at.column
        try:
            return self._seconds(self._cell(row, place))
        except (ValueError, OverflowError):
            raise _Fault("this is no time as the mapping describes them", place) from None

    def _is_trailer(self, trailer: Trailer, row: Sequence[str]) -> bool:
        try:
            return self._cell(row, trailer.column) == trailer.equals
        except _Fault:
            return False

    def _read_trailer(self, trailer: Trailer, row: Sequence[str]) -> None:
        """Compare what the trailer repeats with what was read."""
        self._ended = True
        totals = self._totals
        if trailer.count is not None:
            counted = self._cell(row, trailer.count)
            if not counted.isascii() or not counted.isdigit() or int(counted[:20]) != totals.rows:
                raise _Fault(
                    f"the trailer counts other rows than the {totals.rows} that were read", trailer.count
                )
        if trailer.total is not None:
            if len(totals.currencies) > 1:
                raise _Fault("a total of several currencies can't be compared", trailer.total)
            currency = next(iter(totals.currencies), None)
            wanted = totals.net if trailer.total_of == "net" else totals.gross
            told = self._amount(row, trailer.total, currency) if currency else 0
            if told != wanted:
                raise _Fault("the trailer's total is not what the rows add up to", trailer.total)


def _known_currency(mapped: CurrencyColumn, cell: str) -> str | None:
    currency = mapped.values.get(cell, cell)
    try:
        exponent(currency)
    except InvalidMoney:
        return None
    return currency


def _amount_pattern(mapping: SettlementMapping) -> re.Pattern[str]:
    """What an amount looks like: thousands in threes or none, and decimals unless it is minor units."""
    mark = re.escape(mapping.thousands)
    grouped = rf"[0-9]{{1,3}}(?:{mark}[0-9]{{3}}){{0,6}}|" if mark else ""
    decimals = "" if mapping.minor_units else rf"(?:{re.escape(mapping.decimal)}(?P<decimals>[0-9]{{0,12}}))?"
    pattern = rf"(?P<sign>[+-]?)(?P<whole>{grouped}[0-9]{{1,16}}){decimals}"
    return re.compile(pattern if decimals else pattern + "(?P<decimals>)", re.ASCII)


def _time_reader(mapped: Time) -> Callable[[str], datetime]:
    zone, format_ = ZoneInfo(mapped.zone), mapped.format

    def read_time(cell: str) -> datetime:
        at = datetime.fromisoformat(cell) if format_ == ISO else datetime.strptime(cell, format_)  # noqa: DTZ007  its zone follows
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)

    return read_time
