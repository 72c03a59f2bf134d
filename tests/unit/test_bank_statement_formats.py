"""Which format a file is in is told by its content; long files are read in bounded memory, and progress is told."""

import io
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integrations.bank_statements import assembly
from integrations.bank_statements.canonical import Format, UnknownFormat
from integrations.bank_statements.csv_mapping import parse
from integrations.bank_statements.detect import detect
from integrations.bank_statements.reading import read
from ledger.reconciliation.statements import StatementEnd
from tests.unit.bank_statement_writers import (
    CSV_MAPPING,
    DAY,
    IBAN,
    TODAY,
    Statement,
    camt,
    camt_amount,
    camt_balance,
    camt_head,
    csv_file,
    mt940,
    statements_in,
)

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:"


@pytest.mark.parametrize(
    ("content", "fmt"),
    [
        (camt([Statement()]), Format.CAMT053),
        (
            camt([Statement()]).replace("<", "<n:").replace("<n:/", "</n:").replace("<n:?", "<?"),
            Format.CAMT053,
        ),
        ("<Document><BkToCstmrStmt>", Format.CAMT053),
        (
            f"<Envelope xmlns='{NAMESPACE}head.001.001.02'><Document xmlns='{NAMESPACE}camt.053.001.08'>",
            Format.CAMT053,
        ),
        (mt940([Statement()]), Format.MT940),
        (f":20:X\r\n:25:{IBAN}\r\n:28C:1\r\n", Format.MT940),
        ("HEADER 940\n01\n:20:X\n:25P:Y\n", Format.MT940),
        (csv_file([]), Format.CSV),
        ("Date\tAmount\n2026-03-02\t5\n", Format.CSV),
        ("only,one,line", Format.CSV),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_the_format_is_told_by_the_content(content: str, fmt: Format, encoding: str) -> None:
    assert detect(content.encode(encoding)) is fmt


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b" \r\n ", "empty"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"PK\x03\x04....", "XLSX"),
        (b"\xd0\xcf\x11\xe0....", "XLS"),
        (b"\x1f\x8b....", "gzip"),
        (b"\x89PNG....", "picture"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"OFXHEADER:100\n", "OFX"),
        (b"<?xml version='1.0'?><OFX>", "OFX"),
        (b"!Type:Bank\n", "QIF"),
        (b'{"entries": []}', "JSON"),
        (f"<Document xmlns='{NAMESPACE}camt.052.001.08'>".encode(), "camt.052, an account report"),
        (f"<Document xmlns='{NAMESPACE}camt.054.001.08'>".encode(), "camt.054, a notification"),
        (f"<Document xmlns='{NAMESPACE}pain.001.001.09'>".encode(), "pain.001, a payment order"),
        (f"<Document xmlns='{NAMESPACE}pacs.008.001.08'>".encode(), "pacs.008"),
        (b"<Document><BkToCstmrAcctRpt>", "camt.052"),
        (b"<catalogue/>", "XML, but no camt.053"),
        (b"{1:F01BANKBEBBAXXX0000000000}{2:I942CLIENTXXXXN}{4:\r\n:20:X", "MT942"),
        (b"just a letter to the bank", "no bank statement"),
        (bytes(range(256)) * 4, "no bank statement"),
    ],
)
def test_what_is_no_statement_is_named(content: bytes, named: str) -> None:
    with pytest.raises(UnknownFormat, match=named):
        detect(content)
    with pytest.raises(UnknownFormat, match=named):
        statements_in(content)


def test_a_camt_052_behind_a_long_envelope_is_named_while_reading() -> None:
    content = (
        f"<Envelope><Hint>camt.053.</Hint>{' ' * 70_000}<Document><BkToCstmrAcctRpt/></Document></Envelope>"
    )
    with pytest.raises(UnknownFormat, match=r"camt\.052"):
        statements_in(content)
    with pytest.raises(UnknownFormat, match="BkToCstmrStmt"):
        statements_in(content.replace("BkToCstmrAcctRpt", "Nothing"))


class Endless(io.RawIOBase):
    """A stream that is written while it is read, and gives odd pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < min(size, 1_000):
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        taken, self._rest = self._rest[: min(size, 1_013)], self._rest[min(size, 1_013) :]
        return taken


def long_camt(entries: int) -> Iterator[bytes]:
    whole = camt([Statement()])
    head, tail = whole.split("<Stmt>")[0], "</Stmt></BkToCstmrStmt></Document>"
    balances = camt_balance("OPBD", 0, "EUR", DAY) + camt_balance("CLBD", 5 * entries, "EUR", DAY)
    yield f"{head}<Stmt>{camt_head(Statement())}{balances}".encode()
    for at in range(entries):
        details = f"<NtryDtls><TxDtls><Refs><EndToEndId>E-{at}</EndToEndId></Refs></TxDtls></NtryDtls>"
        yield (
            f"<Ntry>{camt_amount(5, 'EUR')}<CdtDbtInd>CRDT</CdtDbtInd><BookgDt><Dt>{DAY}</Dt></BookgDt>{details}</Ntry>"
        ).encode()
    yield tail.encode()


def long_mt940(entries: int) -> Iterator[bytes]:
    yield f":20:X\n:25:{IBAN}\n:28C:1\n:60F:C260301EUR0,\n".encode()
    for at in range(entries):
        yield f":61:260302C0,05NTRFE-{at}\n:86:hello\n".encode()
    yield f":62F:C260302EUR{entries * 5 // 100},{entries * 5 % 100:02}\n".encode()


def long_csv(entries: int) -> Iterator[bytes]:
    yield csv_file([]).encode()
    for at in range(entries):
        balance = f"{(at + 1) * 5 // 100},{(at + 1) * 5 % 100:02}"
        yield f"{IBAN};EUR;02.03.2026;02.03.2026;0,05;{balance};E-{at};;;hello\r\n".encode()


@pytest.mark.parametrize("written", [long_camt, long_mt940, long_csv])
def test_memory_does_not_grow_with_the_file(
    written: Callable[[int], Iterator[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "LINES_IN_MEMORY_MAX", 100)
    mapping = parse(CSV_MAPPING)

    entries = 2_500
    told: list[int] = []
    stream: Any = Endless(written(entries))
    tracemalloc.start()
    try:
        lines = 0
        for event in read(stream, None, mapping=mapping, today=TODAY, progress=told.append):
            lines += 1
            if isinstance(event, StatementEnd):
                assert (event.lines, event.closing) == (entries, 5 * entries)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines == entries + 2
    assert told == sorted(told)
    assert told[-1] == sum(map(len, written(entries)))
    assert most < 800_000, "as much as some hundred lines and two pieces of the file; all lines would be more"


def test_what_waits_on_disk_cannot_be_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "LINES_IN_MEMORY_MAX", 10)
    with assembly.Spool() as spool:
        held = spool.held()
        (found,) = statements_in(b"".join(long_mt940(50)))
        for line in found.lines:
            held.add(line)
        assert list(held.lines()) == found.lines
        assert list(held.lines()) == found.lines
        assert spool._file is not None
        spool._file.seek(0)
        content = spool._file.read()
    assert len(content) > 50 * 20
    assert b"hello" not in content
    assert b"E-1" not in content
