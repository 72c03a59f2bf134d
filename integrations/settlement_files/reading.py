"""Reading a partner's settlement file by its mapping, row by row, with every fault named by row and column.

Nothing of the file is quoted in a fault: what stands in a row may be about a person. What no mapping names is not kept.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from integrations.csv_files.mapping import ISO, Currency, Place
from integrations.csv_files.reading import FAULTS_TOLD_MAX, Amounts, Columns, Fault, currency_in, rows
from integrations.settlement_files.mapping import KindColumn, OneKind, SettlementMapping, Time, Trailer
from ledger.errors import InvalidInput
from products.settlements.comparison import FileLine, Kind

ROWS_MAX: Final = 500_000

_REMITTANCE_ID = re.compile(r"[!-~]{1,128}", re.ASCII)


class InvalidSettlementFile(InvalidInput):
    """The file can't be read by its mapping: the first faults, by row and column. Nothing of it is kept."""

    code = "invalid_settlement_file"


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
            except Fault as fault:
                faults.append(fault.at(number))
                if len(faults) == FAULTS_TOLD_MAX:
                    break
                continue
            if line is not None:
                lines.append(line)
        if not faults:
            reader.end()
    except Fault as fault:
        faults.append(fault.what)
    if faults:
        raise InvalidSettlementFile(" ".join(faults))
    return lines


def _rows(content: bytes, mapping: SettlementMapping) -> Iterator[tuple[int, list[str]]]:
    """Each row below what is to be skipped, with its number."""
    encoding = "utf-8-sig" if mapping.encoding == "utf-8" else mapping.encoding
    text = io.TextIOWrapper(io.BytesIO(content), encoding, newline="")
    number = 0
    try:
        for number, row in rows(text, mapping, rows_max=ROWS_MAX):
            if number > mapping.skip_rows:
                yield number, row
    except UnicodeError:
        raise Fault(f"After row {number} the file is not {mapping.encoding}.") from None


class _Reader:
    """Turns rows into lines, once the header is read."""

    def __init__(self, mapping: SettlementMapping) -> None:
        self._mapping = mapping
        trailer = mapping.trailer
        told = (trailer.column, trailer.count, trailer.total) if trailer is not None else ()
        self._columns = Columns([*mapping.places, *(place for place in told if place is not None)])
        self._has_header = not mapping.header
        self._totals = _Totals()
        self._ended = False
        self._amounts = Amounts(mapping)
        self._seconds = _time_reader(mapping.at) if mapping.at else None

    def line(self, number: int, row: Sequence[str]) -> FileLine | None:
        """The line in a row; None for the header, the trailer and what is to be ignored."""
        mapping = self._mapping
        if not self._has_header:
            self._columns.read(row)
            self._has_header = True
            return None
        if self._ended:
            raise Fault("there is a row after the trailer")
        if mapping.trailer is not None and self._is_trailer(mapping.trailer, row):
            self._read_trailer(mapping.trailer, row)
            return None
        kind: Kind | None = "collection"
        if isinstance(mapping.kind, KindColumn):
            said = mapping.kind.values.get(self._cell(row, mapping.kind.column))
            if said is None:
                raise Fault("the mapping has no value for what is here", mapping.kind.column)
            if said == "ignore":
                return None
            kind = said
        elif isinstance(mapping.kind, OneKind):
            kind = mapping.kind.constant
        remittance = self._cell(row, mapping.remittance_id.column)
        if not _REMITTANCE_ID.fullmatch(remittance):
            raise Fault(
                "a remittance's id has 1 to 128 printable ASCII characters", mapping.remittance_id.column
            )
        currency = self._currency(row)
        amount = self._amount(row, mapping.amount.column, currency)
        match mapping.sign:
            case "by_sign":
                kind = "reversal" if amount < 0 else kind
            case "reversals_negative" if (amount < 0) != (kind == "reversal") and amount != 0:
                raise Fault("a reversal is negative, and nothing else is", mapping.amount.column)
            case "positive" if amount < 0:
                raise Fault("an amount has no sign here", mapping.amount.column)
        line = FileLine(number, remittance, kind, abs(amount), currency, self._at(row))
        self._totals.add(line)
        return line

    def end(self) -> None:
        """The file has ended: was it whole?"""
        if not self._has_header:
            raise Fault("The file has no header.")
        if self._mapping.trailer is not None and not self._ended:
            raise Fault("The file has no trailer: it was cut off.")

    def _cell(self, row: Sequence[str], place: Place) -> str:
        return self._columns.cell(row, place)

    def _currency(self, row: Sequence[str]) -> str:
        mapped = self._mapping.currency
        if isinstance(mapped, Currency):
            return mapped.constant
        return currency_in(mapped, self._cell(row, mapped.column))

    def _amount(self, row: Sequence[str], place: Place, currency: str) -> int:
        """An amount in minor units, with its sign."""
        return self._amounts.read(self._cell(row, place), currency, place)

    def _at(self, row: Sequence[str]) -> datetime | None:
        if self._mapping.at is None or self._seconds is None:
            return None
        place = self._mapping.at.column
        try:
            return self._seconds(self._cell(row, place))
        except (ValueError, OverflowError):
            raise Fault("this is no time as the mapping describes them", place) from None

    def _is_trailer(self, trailer: Trailer, row: Sequence[str]) -> bool:
        try:
            return self._cell(row, trailer.column) == trailer.equals
        except Fault:
            return False

    def _read_trailer(self, trailer: Trailer, row: Sequence[str]) -> None:
        """Compare what the trailer repeats with what was read."""
        self._ended = True
        totals = self._totals
        if trailer.count is not None:
            counted = self._cell(row, trailer.count)
            if not counted.isascii() or not counted.isdigit() or int(counted[:20]) != totals.rows:
                raise Fault(
                    f"the trailer counts other rows than the {totals.rows} that were read", trailer.count
                )
        if trailer.total is not None:
            if len(totals.currencies) > 1:
                raise Fault("a total of several currencies can't be compared", trailer.total)
            currency = next(iter(totals.currencies), None)
            wanted = totals.net if trailer.total_of == "net" else totals.gross
            told = self._amount(row, trailer.total, currency) if currency else 0
            if told != wanted:
                raise Fault("the trailer's total is not what the rows add up to", trailer.total)


def _time_reader(mapped: Time) -> Callable[[str], datetime]:
    zone, format_ = ZoneInfo(mapped.zone), mapped.format

    def read_time(cell: str) -> datetime:
        at = datetime.fromisoformat(cell) if format_ == ISO else datetime.strptime(cell, format_)  # noqa: DTZ007  its zone follows
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)

    return read_time
