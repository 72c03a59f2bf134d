"""Statements whose truth is known, and writers that put them down as camt.053, MT940 or CSV, the way banks do."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby
from typing import Any
from xml.sax.saxutils import escape

from integrations.bank_statements.canonical import Format
from integrations.bank_statements.csv_mapping import parse
from integrations.bank_statements.reading import read
from ledger.money import exponent, in_major_units
from ledger.reconciliation.statements import Line, StatementEnd, StatementHead

IBAN = "GB82WEST12345698765432"
OTHER_IBAN = "NL91ABNA0417164300"
TODAY = date(2026, 3, 10)
DAY = date(2026, 3, 2)


@dataclass(frozen=True)
class Detail:
    """One transaction of an entry; `amount` signed as the entry's."""

    amount: int
    end_to_end: str | None = None
    reference: str | None = None
    name: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Entry:
    """One movement of the balance, of as many transactions as it has details."""

    details: tuple[Detail, ...]
    booked_on: date = DAY
    value_on: date = DAY
    reversal: bool = False

    @property
    def amount(self) -> int:
        return sum(detail.amount for detail in self.details)


@dataclass(frozen=True)
class Statement:
    """What a bank knows of an account's days."""

    entries: tuple[Entry, ...] = ()
    opening: int = 0
    account: str = IBAN
    currency: str = "EUR"
    identification: str = "S-1"
    number: str = "41"
    from_on: date = DAY
    to_on: date = DAY

    @property
    def closing(self) -> int:
        return self.opening + sum(entry.amount for entry in self.entries)


@dataclass
class Read:
    """One statement as it was read."""

    head: StatementHead
    lines: list[Line] = field(default_factory=list)
    end: StatementEnd | None = None

    @property
    def amounts(self) -> list[int]:
        return [line.amount for line in self.lines]


def statements_in(content: bytes | str, fmt: Format | None = None, **given: Any) -> list[Read]:
    """What is read of a file; heads, lines and ends in their order."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(given.get("mapping"), dict):
        given["mapping"] = parse(given["mapping"])
    found: list[Read] = []
    for event in read(io.BytesIO(content), fmt, **({"today": TODAY} | given)):
        match event:
            case StatementHead():
                assert not found or found[-1].end is not None
                found.append(Read(event))
                assert event.position == len(found)
            case Line():
                found[-1].lines.append(event)
            case StatementEnd():
                found[-1].end = event
                assert (event.lines, event.opening) == (len(found[-1].lines), found[-1].head.opening)
    assert not found or found[-1].end is not None
    return found


def statement_in(content: bytes | str, **given: Any) -> Read:
    """The one statement of a file."""
    (one,) = statements_in(content, **given)
    return one


def major(amount: int, currency: str) -> str:
    """An amount without its sign, with a decimal point."""
    return in_major_units(abs(amount), exponent(currency))


# camt.053


def camt(statements: Sequence[Statement], version: int = 8, *, turned: bool = True) -> str:
    """A camt.053. `turned`: a reversal has the indicator of what it takes back; otherwise that of its own direction."""
    written = "".join(_camt_statement(one, version, turned) for one in statements)
    return camt_document(written, version)


def camt_document(statements: str, version: int = 8) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version:02}"><BkToCstmrStmt>'
        f"<GrpHdr><MsgId>M-1</MsgId><CreDtTm>2026-03-03T01:00:00Z</CreDtTm></GrpHdr>{statements}</BkToCstmrStmt></Document>"
    )


def camt_balance(code: str, amount: int, currency: str, on: date | None) -> str:
    day = f"<Dt><Dt>{on}</Dt></Dt>" if on else ""
    return f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{camt_amount(amount, currency)}{side(amount)}{day}</Bal>"


def camt_amount(amount: int, currency: str) -> str:
    return f'<Amt Ccy="{currency}">{major(amount, currency)}</Amt>'


def side(amount: int) -> str:
    return f"<CdtDbtInd>{'CRDT' if amount >= 0 else 'DBIT'}</CdtDbtInd>"


def camt_head(one: Statement) -> str:
    return (
        f"<Id>{one.identification}</Id><ElctrncSeqNb>{one.number}</ElctrncSeqNb><CreDtTm>2026-03-03T01:00:00+01:00</CreDtTm>"
        f"<FrToDt><FrDtTm>{one.from_on}T00:00:00</FrDtTm><ToDtTm>{one.to_on}T23:59:59</ToDtTm></FrToDt>"
        f"<Acct><Id><IBAN>{one.account}</IBAN></Id><Ccy>{one.currency}</Ccy></Acct>"
    )


def _camt_statement(one: Statement, version: int, turned: bool) -> str:
    return (
        f"<Stmt>{camt_head(one)}"
        + camt_balance("OPBD", one.opening, one.currency, one.from_on - timedelta(days=1))
        + camt_balance("CLBD", one.closing, one.currency, one.to_on)
        + "".join(_camt_entry(entry, one.currency, version, turned) for entry in one.entries)
        + "</Stmt>"
    )


def _camt_entry(entry: Entry, currency: str, version: int, turned: bool) -> str:
    sign = -1 if entry.reversal and turned else 1
    status = "<Sts>BOOK</Sts>" if version < 8 else "<Sts><Cd>BOOK</Cd></Sts>"
    details = "".join(_camt_detail(detail, currency, version, sign) for detail in entry.details)
    return (
        f"<Ntry>{camt_amount(entry.amount, currency)}{side(sign * entry.amount)}"
        + ("<RvslInd>true</RvslInd>" if entry.reversal else "")
        + status
        + f"<BookgDt><Dt>{entry.booked_on}</Dt></BookgDt><ValDt><Dt>{entry.value_on}</Dt></ValDt>"
        + "<BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>"
        + f"<NtryDtls>{details}</NtryDtls></Ntry>"
    )


def _camt_detail(detail: Detail, currency: str, version: int, sign: int) -> str:
    amount = camt_amount(detail.amount, currency)
    refs = f"<AcctSvcrRef>{detail.reference}</AcctSvcrRef>" if detail.reference else ""
    refs += f"<EndToEndId>{detail.end_to_end or 'NOTPROVIDED'}</EndToEndId>"
    worth = (
        f"<AmtDtls><TxAmt>{amount}</TxAmt></AmtDtls>" if version < 4 else amount + side(sign * detail.amount)
    )
    party = ""
    if detail.name:
        role = "Dbtr" if sign * detail.amount > 0 else "Cdtr"
        named = f"<Nm>{escape(detail.name)}</Nm>"
        named = named if version < 8 else f"<Pty>{named}</Pty>"
        party = f"<RltdPties><{role}>{named}</{role}></RltdPties>"
    text = f"<RmtInf><Ustrd>{escape(detail.text)}</Ustrd></RmtInf>" if detail.text else ""
    return f"<TxDtls><Refs>{refs}</Refs>{worth}{party}{text}</TxDtls>"


# MT940


def mt940(statements: Sequence[Statement], *, structured: bool = True) -> str:
    """An MT940, in SWIFT's envelope; entries of several details are written as so many entries, as banks do."""
    return "\r\n".join(line for one in statements for line in _mt940_message(one, structured))


def mt940_balance(tag: str, amount: int, currency: str, on: date) -> str:
    mark = "C" if amount >= 0 else "D"
    return f":{tag}:{mark}{on:%y%m%d}{currency}{commas(amount, currency)}"


def commas(amount: int, currency: str) -> str:
    whole, _, decimals = major(amount, currency).partition(".")
    return f"{whole},{decimals}"


def _mt940_message(one: Statement, structured: bool) -> Iterator[str]:
    yield "{1:F01BANKBEBBAXXX0000000000}{2:I940CLIENTXXXXN}{4:"
    yield f":20:{one.identification}"
    yield f":25:{one.account}"
    yield f":28C:{one.number}/1"
    yield mt940_balance("60F", one.opening, one.currency, one.from_on - timedelta(days=1))
    for entry in one.entries:
        for detail in entry.details:
            mark = "C" if (detail.amount > 0) != entry.reversal else "D"
            yield (
                f":61:{entry.value_on:%y%m%d}{entry.booked_on:%m%d}{'R' if entry.reversal else ''}{mark}"
                f"{commas(detail.amount, one.currency)}NTRFNONREF"
                + (f"//{detail.reference}" if detail.reference else "")
            )
            yield from _mt940_details(detail, structured)
    yield mt940_balance("62F", one.closing, one.currency, one.to_on)
    yield "-}"


def _mt940_details(detail: Detail, structured: bool) -> Iterator[str]:
    if structured:
        purpose = f"EREF+{detail.end_to_end or 'NOTPROVIDED'}SVWZ+{detail.text}"
        pieces = [purpose[start : start + 27] for start in range(0, len(purpose), 27)]
        whole = "166?00" + "".join(f"?{20 + at}{piece}" for at, piece in enumerate(pieces[:10]))
        whole += f"?32{detail.name}" if detail.name else ""
    else:
        whole = f"/EREF/{detail.end_to_end or 'NOTPROVIDED'}"
        whole += f"/NAME/{detail.name}" if detail.name else ""
        whole += f"/REMI/USTD//{detail.text}"
    lines = [whole[start : start + 65] for start in range(0, len(whole), 65)]
    yield f":86:{lines[0]}"
    yield from lines[1:]


# CSV

CSV_MAPPING: dict[str, Any] = {
    "account": {"column": "Account"},
    "currency": {"column": "Currency"},
    "booked_on": {"column": "Booked", "format": "%d.%m.%Y"},
    "value_on": {"column": "Value", "format": "%d.%m.%Y"},
    "amount": {"column": "Amount"},
    "balance": {"column": "Balance"},
    "end_to_end": {"column": "End to end"},
    "reference": {"column": "Reference"},
    "counterparty": {"column": "Name"},
    "text": [{"column": "Text"}],
    "delimiter": ";",
    "decimal": ",",
    "thousands": ".",
}
_COLUMNS = (
    "Account",
    "Currency",
    "Booked",
    "Value",
    "Amount",
    "Balance",
    "End to end",
    "Reference",
    "Name",
    "Text",
)


def csv_file(statements: Sequence[Statement], *, newest_first: bool = False) -> str:
    """A table of all entries of all statements, with the balance after each."""
    rows: list[tuple[str, ...]] = []
    for one in statements:
        balance = one.opening
        own = []
        for entry in one.entries:
            for detail in entry.details:
                balance += detail.amount
                own.append(
                    (
                        *(
                            one.account,
                            one.currency,
                            f"{entry.booked_on:%d.%m.%Y}",
                            f"{entry.value_on:%d.%m.%Y}",
                        ),
                        *(_grouped(detail.amount, one.currency), _grouped(balance, one.currency)),
                        *(detail.end_to_end or "", detail.reference or "", detail.name or "", detail.text),
                    )
                )
        rows += reversed(own) if newest_first else own
    written = io.StringIO()
    csv.writer(written, delimiter=";").writerows([_COLUMNS, *rows])
    return written.getvalue()


def _grouped(amount: int, currency: str) -> str:
    whole, _, decimals = major(amount, currency).partition(".")
    reverse = [str(whole)[::-1][at : at + 3] for at in range(0, len(whole), 3)]
    shown = ".".join(reverse)[::-1] + (f",{decimals}" if decimals else "")
    return f"-{shown}" if amount < 0 else shown


def facts(lines: Sequence[Line]) -> list[tuple[Any, ...]]:
    """What every format says of a line."""
    return [
        (
            line.amount,
            line.currency,
            line.booked_on,
            line.value_on,
            line.end_to_end,
            line.reference,
            line.counterparty,
            line.text,
        )
        for line in lines
    ]


def truth(one: Statement) -> list[tuple[Any, ...]]:
    """The same of a statement."""
    return [
        (
            detail.amount,
            one.currency,
            entry.booked_on,
            entry.value_on,
            detail.end_to_end,
            detail.reference,
            detail.name,
            detail.text,
        )
        for entry in one.entries
        for detail in entry.details
    ]


def by_account(reads: Sequence[Read]) -> dict[tuple[str, str], list[Read]]:
    """What was read, by account and currency."""

    def key(one: Read) -> tuple[str, str]:
        return one.head.account, one.head.currency

    return {found: list(own) for found, own in groupby(sorted(reads, key=key), key=key)}
