"""Bank statements read in a stream: bytes in, statements out, whatever the format."""

from collections.abc import Iterator
from datetime import date
from typing import BinaryIO

from integrations.bank_statements import camt053, csv_reading, mt940_messages
from integrations.bank_statements.assembly import Page, Spool, statements
from integrations.bank_statements.canonical import Format, InvalidStatement, Progress, Told
from integrations.bank_statements.csv_mapping import StatementMapping
from integrations.bank_statements.detect import detect
from integrations.bank_statements.sources import Source
from ledger.reconciliation.statements import StatementEvent


def read(
    stream: BinaryIO,
    fmt: Format | None,
    *,
    mapping: StatementMapping | None = None,
    today: date,
    told: Told | None = None,
    progress: Progress | None = None,
) -> Iterator[StatementEvent]:
    """The statements of a file: for each its head, its lines and its end, when it is whole.

    `fmt` None: the content tells. `mapping` says how CSV is read, and `told` what such a file doesn't say itself. `today` is the day
    by which dates without a year or a century are understood. `progress` is told the bytes read so far. Memory is bounded,
    whatever the file's length. That a statement's lines lead from its opening to its closing balance is for the taker to check.
    Raises `UnknownFormat`, `InvalidStatement`.
    """
    source = Source(stream, progress)
    with Spool() as spool:
        yield from statements(
            _pages(source, fmt or detect(source.head), spool, mapping, told or Told(), today)
        )


def _pages(
    source: Source, fmt: Format, spool: Spool, mapping: StatementMapping | None, told: Told, today: date
) -> Iterator[Page]:
    match fmt:
        case Format.CAMT053:
            return camt053.pages(source.chunks(), spool)
        case Format.MT940:
            return mt940_messages.pages(source.lines(), spool, today)
        case Format.CSV:
            if mapping is None:
                raise InvalidStatement("CSV is read by a mapping, and there is none")
            return csv_reading.pages(source, spool, mapping, told, today)
