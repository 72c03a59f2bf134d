"""SWIFT MT940 (customer statement message) as banks send it: with or without SWIFT's envelope, one message or a thousand.

The grammar of fields is that of the library `mt-940`, and so is what becomes of a structured field 86. The file is not given to it as
a whole: it reads whole files into memory, takes ``1.234,56`` for 1, and logs what it can't read. See docs/decisions.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

import mt940

from integrations.bank_statements import canonical
from integrations.bank_statements.assembly import Balance, Held, Page, Spool
from integrations.bank_statements.canonical import InvalidStatement, UnknownFormat, UnreadableAmount
from integrations.bank_statements.control_totals import Of, Tally, Total
from integrations.bank_statements.mt940_details import LINE_FULL, details_of
from ledger.reconciliation.statements import Line

FIELD_LINES_MAX: Final = 1_000
FIELD_CHARACTERS_MAX: Final = 64 * 1024

_FIELD = re.compile(r":([0-9]{2}[A-Z]?|NS):(.*)", re.DOTALL)
_KNOWN: Final = frozenset(
    {"13", "20", "21", "25", "28", "34", "60", "61", "62", "64", "65", "86", "90", "NS"}
)
_TYPE = re.compile(r"\{2:[IO]?([0-9]{3})")
_TOTAL = re.compile(r"(?P<number>[0-9]{1,5})(?P<currency>[A-Z]{3})(?P<amount>[0-9][0-9.,' ]*)")
"""Field 90: it belongs to MT942, and some banks end their MT940 with it."""
_ENTRY_BEGINS = re.compile(r"[0-9]{6}")


class _BalanceField(mt940.tags.BalanceBase):
    """Field 60 or 62, its amount with whatever marks there are."""

    pattern = r"""^
    (?P<status>[DC])
    (?P<year>\d{2})(?P<month>\d{2})(?P<day>\d{2})
    (?P<currency>[A-Z]{3})
    (?P<amount>[0-9.,' ]+)
    $"""


class _EntryField(mt940.tags.Statement):
    """Field 61, its amount with whatever marks there are and references of any length."""

    pattern = r"""^
    (?P<year>\d{2})(?P<month>\d{2})(?P<day>\d{2})
    (?:(?P<entry_month>\d{2})(?P<entry_day>\d{2})|[ ]{4})?
    (?P<status>R?[DC])
    (?P<funds_code>[A-Z])?
    [\n ]?
    (?P<amount>[0-9.,' ]+)
    (?!NONREF)(?P<id>[A-Z][A-Z0-9 ]{3})?
    (?P<customer_reference>(?:(?!//)[^\n])*)
    (?://(?P<bank_reference>[^\n]*))?
    (?:\n(?P<extra_details>[\s\S]*))?
    $"""


_BALANCE: Final = _BalanceField()
_ENTRY: Final = _EntryField()
_NUMBER: Final = re.compile(r"(?P<number>[0-9]{1,9})(?:/(?P<sequence>[0-9]{1,5}))?", re.ASCII)
"""Field 28: the number may be longer than the five digits that the standard has."""
_ELSEWHERE: Final = frozenset({"EREF", "KREF", "MARF", "MREF", "PREF"})
"""What field 61 has instead of a reference that stands in field 86, under this very word."""
_MOMENT: Final = mt940.tags.DateTimeIndication()


def pages(lines: Iterable[str], spool: Spool, today: date) -> Iterator[Page]:
    """Every message of the file; `today` tells the century of its dates. Raises `InvalidStatement`, `UnknownFormat`."""
    reader = _Reader(spool, today)
    for tag, value, line in _fields(lines):
        yield from reader.field(tag, value, line)
    yield from reader.end()


def _fields(lines: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Each field's tag, value and first line. The tags ``{`` and ``}`` stand for the beginning and the end of a message's text."""
    tag: str | None = None
    value: list[str] = []
    begun = characters = 0

    def ended() -> Iterator[tuple[str, str, int]]:
        if tag is not None:
            yield tag, "\n".join(value), begun

    for number, written in enumerate(lines, 1):
        line = _without_padding(written.rstrip("\n"))
        closes = line == "-" or line.startswith("-}")
        opens = "{1:" in line if closes else line.startswith(("{1:", "{4:"))
        opens = opens or (tag is None and line in ("{", "{1"))  # a file that is cut off there
        if closes or opens:
            yield from ended()
            tag, value = None, []
            if closes:
                yield "}", "", number
            if opens:
                kind = _TYPE.search(line)
                yield "{", kind[1] if kind else "", number
            line = line.partition("{4:")[2]
        found = _FIELD.fullmatch(line.lstrip("\ufeff"))
        if found is not None and _begins(tag, found[1], found[2]):
            yield from ended()
            tag, value, begun, characters = found[1], [found[2]], number, len(found[2])
        elif tag is not None and line:
            value.append(line)
            characters += len(line)
            if len(value) > FIELD_LINES_MAX or characters > FIELD_CHARACTERS_MAX:
                raise InvalidStatement(
                    f"a field has more than {FIELD_LINES_MAX} lines, or {FIELD_CHARACTERS_MAX} characters",
                    where=f"line {begun}",
                )
    yield from ended()


def _without_padding(line: str) -> str:
    """The line without space at its end; a single space at the end of a full line stands between two words."""
    stripped = line.rstrip()
    return f"{stripped} " if len(line) >= LINE_FULL and len(line) == len(stripped) + 1 else stripped


def _begins(inside: str | None, tag: str, value: str) -> bool:
    """Whether a line with a tag begins a field; free text may have lines that look so."""
    if tag.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") not in _KNOWN and tag not in _KNOWN:
        return inside is None
    return inside != "86" or tag != "61" or _ENTRY_BEGINS.match(value) is not None


@dataclass(slots=True)
class _Message:
    """What was read of the message so far."""

    lines: Held
    identification: str | None = None
    account: str | None = None
    number: str | None = None
    sequence: int | None = None
    created: datetime | None = None
    currency: str = ""
    opening: Balance | None = None
    closing: Balance | None = None
    entries: int = 0
    skipped: int = 0
    entry: "re.Match[str] | None" = None
    entry_line: int = 0
    details: str = ""
    tally: Tally = field(default_factory=Tally)
    totals: list[Total] = field(default_factory=list)


class _Reader:
    """Takes fields in their order; gives a page for each message that is whole."""

    def __init__(self, spool: Spool, today: date) -> None:
        self._spool = spool
        self._today = today
        self._count = 0
        self._message: _Message | None = None
        self._in_block = False

    def field(self, tag: str, value: str, line: int) -> Iterator[Page]:
        """One field; the page that it completes."""
        match tag:
            case "{":
                yield from self._ended(line)
                if value not in ("", "940"):
                    raise UnknownFormat(
                        f"There is an MT{value} in line {line}; statements are read from MT940."
                    )
                self._in_block = True
            case "}":
                yield from self._ended(line)
                self._in_block = False
            case "20":
                yield from self._ended(line)
                self._begun().identification = canonical.reference_of(value)
            case "25" | "25P":
                yield from self._next(line, account_follows=True)
                self._begun().account = value
            case "28" | "28C":
                yield from self._next(line)
                self._numbered(value)
            case "60" | "60F" | "60M":
                yield from self._next(line)
                self._opened(tag, value, line)
            case "61":
                self._entered(value, line)
            case "86":
                self._detailed(value)
            case "62" | "62F" | "62M":
                self._closed(tag, value, line)
            case "13" | "13D":
                self._dated(value)
            case "90C":
                self._totalled("credits", value, line)
            case "90D":
                self._totalled("debits", value, line)

    def end(self) -> Iterator[Page]:
        """The file has ended."""
        if self._in_block:
            raise InvalidStatement("the message has no end: the file is cut off", where=self._where())
        yield from self._ended(None)
        if self._count == 0:
            raise UnknownFormat("This is no MT940: it has no field 20.")

    def _begun(self) -> _Message:
        if self._message is None:
            self._count += 1
            self._message = _Message(self._spool.held())
        return self._message

    def _where(self, line: int | None = None) -> str:
        entry = self._message.entries if self._message is not None else 0
        where = canonical.statement_at(max(self._count, 1), entry or None)
        return where if line is None else f"{where} (line {line})"

    def _next(self, line: int, account_follows: bool = False) -> Iterator[Page]:
        """Some banks write several statements after one field 20: what stands behind a closing balance begins another."""
        message = self._message
        if message is None or message.closing is None:
            return
        yield from self._ended(line)
        following = self._begun()
        following.identification, following.created = message.identification, message.created
        if not account_follows:
            following.account = message.account

    def _ended(self, line: int | None) -> Iterator[Page]:
        """The message ends: it is whole, or the file is refused."""
        message, where = self._message, self._where(line)
        if message is None:
            return
        if message.opening is None:
            raise InvalidStatement("it has no opening balance (field 60F)", where=where)
        if message.closing is None:
            raise InvalidStatement("it has no closing balance (field 62F): it is cut off", where=where)
        if message.totals and not (message.opening.intermediate or message.closing.intermediate):
            message.tally.check(message.totals, message.currency, where)
        self._message = None
        account = canonical.account_of((message.account or "").partition("\n")[0], message.currency)
        if account is None:
            raise InvalidStatement("it names no account (field 25)", where=where)
        yield Page(
            account=account,
            currency=message.currency,
            opening=message.opening,
            closing=message.closing,
            lines=message.lines,
            identification=message.identification,
            number=message.number,
            sequence=message.sequence,
            created=message.created,
            skipped=message.skipped,
        )

    def _numbered(self, value: str) -> None:
        message = self._begun()
        found = _NUMBER.fullmatch(value.strip())
        if found is None:
            message.number = canonical.text_of(value)[:35] or None
            return
        message.number = found["number"]
        message.sequence = int(found["sequence"]) if found["sequence"] else None

    def _dated(self, value: str) -> None:
        found = _MOMENT.re.match(value.strip())
        on = self._day(found) if found is not None else None
        if found is None or on is None:
            return
        try:
            moment = datetime(on.year, on.month, on.day, int(found["hour"]), int(found["minute"]), tzinfo=UTC)
        except ValueError:
            return
        ahead = found["offset"]
        offset = timedelta(hours=int(ahead[:2]), minutes=int(ahead[2:])) if ahead else timedelta()
        self._begun().created = moment + offset if found["offset_sign"] == "-" else moment - offset

    def _opened(self, tag: str, value: str, line: int) -> None:
        message = self._begun()
        if message.opening is not None:
            raise InvalidStatement(
                "it has a second opening balance and no closing one", where=self._where(line)
            )
        message.opening, message.currency = self._balance(tag, value, line)

    def _closed(self, tag: str, value: str, line: int) -> None:
        message = self._begun()
        if message.opening is None or message.closing is not None:
            which = "no opening balance" if message.opening is None else "two closing balances"
            raise InvalidStatement(f"it has {which}", where=self._where(line))
        self._write_entry()
        message.closing, currency = self._balance(tag, value, line)
        if currency != message.currency:
            raise InvalidStatement(
                f"it opens in {message.currency} and closes in {currency}", where=self._where(line)
            )

    def _balance(self, tag: str, value: str, line: int) -> tuple[Balance, str]:
        found = _BALANCE.re.match(value.strip())
        currency = canonical.known_currency(found["currency"]) if found else None
        on = self._day(found) if found else None
        if found is None or currency is None or on is None:
            raise InvalidStatement(
                f"field {tag} is no balance: a mark, a date, a currency and an amount",
                where=self._where(line),
            )
        amount = self._amount(found["amount"], currency, line)
        signed = -amount if found["status"].upper() == "D" else amount
        return Balance(signed, on, intermediate=tag.endswith("M")), currency

    def _entered(self, value: str, line: int) -> None:
        message = self._begun()
        self._write_entry()
        message.entries += 1
        if message.opening is None or message.closing is not None:
            raise InvalidStatement("the entry stands outside of the balances", where=self._where(line))
        message.entry, message.entry_line = _ENTRY.re.match(value), line
        if message.entry is None:
            raise InvalidStatement(
                "field 61 is no entry: a date, a mark, an amount, a type and references",
                where=self._where(line),
            )

    def _detailed(self, value: str) -> None:
        """Of the entry before it; behind the closing balance it is about the statement, and not kept."""
        message = self._message
        if message is not None and message.entry is not None:
            message.details = f"{message.details}\n{value}" if message.details else value

    def _totalled(self, of: Of, value: str, line: int) -> None:
        """Control totals, as far as they can be read and are of the statement's currency."""
        message, found = self._message, _TOTAL.fullmatch(value.strip())
        if message is not None and found is not None and found["currency"] == message.currency:
            total = self._amount(found["amount"], message.currency, line)
            message.totals.append(Total(of, int(found["number"]), total))

    def _write_entry(self) -> None:
        """The entry is whole: another one follows, or the closing balance."""
        message = self._begun()
        found, details, line = message.entry, message.details, message.entry_line
        message.entry, message.details = None, ""
        if found is None:
            return
        value_on = self._day(found)
        if value_on is None:
            raise InvalidStatement("its date is none", where=self._where(line))
        booked_on: date | None = value_on
        if found["entry_month"]:
            booked_on = _nearest(found, value_on)
        if booked_on is None:
            raise InvalidStatement("its entry date is none", where=self._where(line))
        amount = self._amount(found["amount"], message.currency, line)
        status = found["status"].upper()
        message.tally.add(amount, credit=status.endswith("C"), reversal=status.startswith("R"))
        if amount == 0:
            message.skipped += 1
            return
        told = details_of(details)
        owners = canonical.reference_of(found["customer_reference"])
        if owners is not None and owners.removesuffix("+") in _ELSEWHERE:
            owners = None
        reference = canonical.reference_of(found["bank_reference"])
        end_to_end = told.end_to_end or owners
        message.lines.add(
            Line(
                entry=message.entries,
                detail=0,
                booked_on=booked_on,
                value_on=value_on,
                amount=amount if status in ("C", "RD") else -amount,
                currency=message.currency,
                kind=canonical.text_of(found["id"]).upper() or None,
                reversal=status.startswith("R"),
                end_to_end=end_to_end,
                reference=reference,
                references=canonical.references_of(
                    [owners, *told.references], besides=(end_to_end, reference)
                ),
                counterparty=told.counterparty,
                counterparty_account=told.counterparty_account,
                text=canonical.text_of(told.text, found["extra_details"]),
            )
        )

    def _amount(self, written: str, currency: str, line: int) -> int:
        try:
            return canonical.minor_units(written, currency, decimal=",")
        except UnreadableAmount as fault:
            raise InvalidStatement(f"the amount can't be read: {fault}", where=self._where(line)) from None

    def _day(self, found: "re.Match[str]") -> date | None:
        """A date of six digits: within fifty years of today."""
        year = 2000 + int(found["year"])
        try:
            return date(
                year if year <= self._today.year + 50 else year - 100, int(found["month"]), int(found["day"])
            )
        except ValueError:
            return None


def _nearest(found: "re.Match[str]", value_on: date) -> date | None:
    """An entry date has no year: it is the one nearest to the value date, over New Year too."""
    try:
        return canonical.nearest_year(int(found["entry_month"]), int(found["entry_day"]), value_on)
    except ValueError:
        return None
