"""camt.053 (bank to customer statement, versions 02 to 13), read in a stream.

Elements are found by their local names and paths: the versions differ in their namespaces, in a few optional levels (a party's
``Pty``, a status' ``Cd``), and in nothing else that is read here. What an entry is worth is the entry's own amount; its details
say what it is made of.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

from integrations import xml_stream
from integrations.bank_statements import canonical
from integrations.bank_statements.assembly import Balance, Held, Page, Spool
from integrations.bank_statements.camt053_entries import DETAIL_PATHS, is_booked, is_reversal, lines_of
from integrations.bank_statements.camt053_records import Record, day_of, direction, magnitude, signed
from integrations.bank_statements.canonical import InvalidStatement, UnknownFormat, statement_at
from integrations.bank_statements.control_totals import Of, Tally, Total
from integrations.strict_xml import NotStrictXml

VERSIONS: Final = range(2, 14)
DETAILS_MAX: Final = 50_000
"""Of one entry: they are in memory until the entry ends."""
BALANCES_MAX: Final = 1_000
DETAILS_CHARACTERS_MAX: Final = 32 * 1024 * 1024

_NAMESPACE = re.compile(r"(?:.*[:/])?(?P<message>[a-z]{4}\.[0-9]{3})\.[0-9]{3}\.(?P<version>[0-9]{2})")
_MESSAGE: Final = "BkToCstmrStmt"
OTHER_MESSAGES: Final = {
    "BkToCstmrAcctRpt": "camt.052, an account report within the day",
    "BkToCstmrDbtCdtNtfctn": "camt.054, a notification of debits and credits",
    "CstmrCdtTrfInitn": "pain.001, a payment order",
    "CstmrPmtStsRpt": "pain.002, a bank's answer to a payment order",
    "CstmrDrctDbtInitn": "pain.008, a direct debit order",
    "AcctRptgReq": "camt.060, a request for a statement",
}
_SKIPPED: Final = frozenset({"RltdAcct", "SplmtryData", "Intrst", "AddtlStmtInf"})
"""Of a statement: what is not read."""
_OPENED: Final = {"Stmt": {"Bal", "Ntry", "TxsSummry"}, "Ntry": {"NtryDtls/TxDtls"}}
"""Paths, by record, at which a record of its own begins."""
_SUMMARIES: Final[dict[Of, str]] = {
    "entries": "TtlNtries",
    "credits": "TtlCdtNtries",
    "debits": "TtlDbtNtries",
}
_WANTED: Final = {
    "TxDtls": DETAIL_PATHS,
    "TxsSummry": frozenset(f"{path}/{one}" for path in _SUMMARIES.values() for one in ("NbOfNtries", "Sum")),
}
"""Of records of which not everything is kept: what is."""

OPENINGS: Final = ("OPBD", "PRCD")
CLOSING: Final = "CLBD"
INTERIM: Final = "ITBD"


def pages(chunks: Iterable[bytes], spool: Spool) -> Iterator[Page]:
    """Every statement of the file, or page of one; one for each currency where a statement has several.

    Raises `InvalidStatement`, `UnknownFormat`.
    """
    reader = _Reader(spool)
    try:
        for _ in xml_stream.parse(chunks, reader):
            yield from reader.taken()
    except NotStrictXml as fault:
        raise InvalidStatement(f"the XML is not read: {fault}", where=reader.where) from None
    if not reader.found:
        raise UnknownFormat("This is XML, but no camt.053: it has no element BkToCstmrStmt.")
    if not reader.statements:
        raise InvalidStatement("there is no statement in it")


@dataclass(slots=True)
class _Statement:
    position: int
    account: str | None = None
    lines: dict[str, Held] = field(default_factory=dict)
    skipped: int = 0
    balances: list[Record] = field(default_factory=list)
    entries: int = 0
    summary: Record | None = None
    tally: Tally = field(default_factory=Tally)


class _Reader:
    """Told of elements; gathers records, and pages from them."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pages: list[Page] = []
        self._records: list[Record] = []
        self._skipping = 0
        self.statements = 0
        self._statement: _Statement | None = None
        self._details: list[Record] = []
        self._characters = 0
        self._message = ""
        self.found = False

    @property
    def where(self) -> str | None:
        """How far the reading has come."""
        if self._statement is None:
            return f"after {statement_at(self.statements)}" if self.statements else None
        return statement_at(self._statement.position, self._statement.entries or None)

    def taken(self) -> list[Page]:
        """The pages that are whole, once."""
        taken, self._pages = self._pages, []
        return taken

    def start(self, name: str, namespace: str, attributes: Mapping[str, str]) -> None:
        """An element starts."""
        if self._skipping:
            self._skipping += 1
            return
        if not self._records:
            self._outside(name, namespace)
            return
        record = self._records[-1]
        path = self._entered(record, name, attributes)
        if record.kind == "Stmt" and path in _SKIPPED:
            self._skipping = 1
        elif path in _OPENED.get(record.kind, ()):
            self._records.append(Record(name, _WANTED.get(name)))
            if name == "Ntry" and self._statement is not None:
                self._statement.entries += 1

    def _entered(self, record: Record, name: str, attributes: Mapping[str, str]) -> str:
        try:
            return record.enter(name, attributes.get("Ccy") if attributes else None)
        except ValueError as fault:
            raise InvalidStatement(str(fault), where=self.where) from None

    def end(self, name: str, text: str) -> None:
        """An element ends."""
        if self._skipping:
            self._skipping -= 1
            if self._skipping == 0:
                self._records[-1].leave("")
            return
        if not self._records:
            if name == _MESSAGE:
                self._message = ""
            return
        if self._records[-1].inside:
            try:
                self._records[-1].leave(text)
            except ValueError as fault:
                raise InvalidStatement(str(fault), where=self.where) from None
            return
        record = self._records.pop()
        if self._records:
            self._records[-1].leave("")
        self._ended(record)

    def _outside(self, name: str, namespace: str) -> None:
        if name == _MESSAGE:
            found = _NAMESPACE.fullmatch(namespace)
            if found is not None and (
                found["message"] != "camt.053" or int(found["version"]) not in VERSIONS
            ):
                raise UnknownFormat(
                    f"This is {found['message']} in version {found['version']}; of camt.053 the versions 02 to 13 are read."
                )
            self._message, self.found = name, True
        elif name in OTHER_MESSAGES and not self._message:
            raise UnknownFormat(f"This is {OTHER_MESSAGES[name]}; statements are read from camt.053.")
        elif name == "Stmt" and self._message:
            self.statements += 1
            self._statement = _Statement(self.statements)
            self._records.append(Record("Stmt"))

    def _ended(self, record: Record) -> None:
        statement = self._statement
        if statement is None:
            return
        match record.kind:
            case "Bal":
                statement.balances.append(record)
                if len(statement.balances) > BALANCES_MAX:
                    raise InvalidStatement(f"it has more than {BALANCES_MAX} balances", where=self.where)
            case "TxsSummry":
                statement.summary = record
            case "TxDtls":
                self._details.append(record)
                self._characters += record.characters
                if len(self._details) > DETAILS_MAX or self._characters > DETAILS_CHARACTERS_MAX:
                    raise InvalidStatement(
                        f"it has more than {DETAILS_MAX} details, or {DETAILS_CHARACTERS_MAX} characters in them",
                        where=self.where,
                    )
            case "Ntry":
                details, self._details, self._characters = self._details, [], 0
                self._entry(statement, record, details)
            case _:
                self._statement = None
                self._pages += self._of(statement, record)

    def _entry(self, statement: _Statement, entry: Record, details: list[Record]) -> None:
        if statement.account is None:
            # The account stands before the entries; it tells which of an entry's two parties is the other one.
            statement.account = _account(self._records[0], None)
        found, currency = lines_of(
            entry,
            details,
            where=lambda detail: statement_at(statement.position, statement.entries, detail),
            number=statement.entries,
            account=statement.account,
        )
        if statement.summary is not None:
            where = self.where or ""
            statement.tally.add(
                signed(entry, where)[0],
                credit=direction(entry, where) > 0,
                reversal=is_reversal(entry),
                booked=is_booked(entry),
            )
        if not found:
            statement.skipped += 1
            return
        held = statement.lines.get(currency)
        if held is None:
            held = statement.lines[currency] = self._spool.held()
        for line in found:
            held.add(line)

    def _of(self, statement: _Statement, record: Record) -> Iterator[Page]:
        where = statement_at(statement.position)
        balances = _balances(statement.balances, where)
        told = canonical.known_currency(record.first("Acct/Ccy"))
        currencies = _currencies(balances, statement.lines, told)
        if not currencies:
            raise InvalidStatement("it has no balances", where=where)
        if statement.summary is not None and len(set(currencies)) == 1 and not _is_a_page(record):
            said = list(_totals(statement.summary, currencies[0], where))
            statement.tally.check(said, currencies[0], where)
        account = _account(record, currencies[0])
        if account is None:
            raise InvalidStatement("it names no account", where=where)
        period = record.first("FrToDt/FrDtTm", "FrToDt/FrDt"), record.first("FrToDt/ToDtTm", "FrToDt/ToDt")
        for currency in dict.fromkeys(currencies):
            own = _own(balances, currency)
            if not own and balances:
                raise InvalidStatement(
                    f"it has entries in {currency}, from entry {_first(statement.lines[currency])} on, and no balance in {currency}",
                    where=where,
                )
            opening, closing = _ends(own)
            if opening is None or closing is None:
                which = "opening" if opening is None else "closing"
                raise InvalidStatement(f"it has no booked {which} balance in {currency}", where=where)
            yield Page(
                account=account,
                currency=currency,
                opening=opening,
                closing=closing,
                lines=statement.lines.get(currency) or self._spool.held(),
                identification=canonical.reference_of(record.first("Id")),
                number=canonical.text_of(record.first("ElctrncSeqNb", "LglSeqNb"))[:35] or None,
                sequence=_number(record.first("StmtPgntn/PgNb")),
                goes_on=_goes_on(record),
                from_on=day_of(period[0]),
                to_on=_last_day(period[1], day_of(period[0]), closing.on),
                created=_moment(record.first("CreDtTm")),
                skipped=statement.skipped,
                reversals_either_way=True,
            )
            statement.skipped = 0


def _account(record: Record, currency: str | None) -> str | None:
    return canonical.account_of(
        record.first("Acct/Id/IBAN", "Acct/Id/Othr/Id", "Acct/Id/PrtryAcct/Id", "Acct/Id/BBAN"), currency
    )


def _is_a_page(record: Record) -> bool:
    """Whether the statement goes on in another one: then nobody knows of which of them its control totals are."""
    number = _number(record.first("StmtPgntn/PgNb"))
    return number is not None and (number > 1 or _goes_on(record))


def _goes_on(record: Record) -> bool:
    """Whether the statement says that it is not its last page."""
    return (record.first("StmtPgntn/LastPgInd") or "true") not in ("true", "1")


def _totals(summary: Record, currency: str, where: str) -> Iterator[Total]:
    for of, path in _SUMMARIES.items():
        number, total = summary.first(f"{path}/NbOfNtries"), summary.first(f"{path}/Sum")
        yield Total(
            of,
            int(number) if number and number.isascii() and number.isdigit() else None,
            magnitude(total, currency, f"{where}, control totals") if total else None,
        )


def _first(held: Held) -> int:
    return next(held.lines()).entry


def _balances(records: list[Record], where: str) -> list[tuple[str, str, Balance]]:
    """Currency, code and balance, of the booked ones."""
    found = []
    for record in records:
        code = (record.first("Tp/CdOrPrtry/Cd", "Tp/Cd", "Tp/CdOrPrtry/Prtry") or "").upper()
        if code not in (*OPENINGS, CLOSING, INTERIM):
            continue
        named = f"{where}, balance {code}"
        amount, currency = signed(record, named)
        found.append((currency, code, Balance(amount, day_of(record.first("Dt/Dt", "Dt/DtTm")))))
    return found


def _currencies(
    balances: list[tuple[str, str, Balance]], lines: Mapping[str, Held], told: str | None
) -> list[str]:
    """The account's own currency first: as told, or of the first balances that are both there. Then those with entries or both
    balances; a single balance in another currency is what the account is worth in it."""
    seen = list(dict.fromkeys([*(currency for currency, _, _ in balances), *lines])) or [told or ""]
    whole = [one for one in seen if None not in _ends(_own(balances, one))]
    main = told if told in seen else next(iter(whole), seen[0])
    return [one for one in (main, *seen) if one and (one == main or one in lines or one in whole)]


def _own(balances: list[tuple[str, str, Balance]], currency: str) -> list[tuple[str, Balance]]:
    return [(code, balance) for one, code, balance in balances if one == currency]


def _ends(balances: list[tuple[str, Balance]]) -> tuple[Balance | None, Balance | None]:
    """Opening and closing balance, as far as there are. Interim ones stand for those that are missing: the first opens a page, the last closes it."""
    interim = [
        Balance(balance.amount, balance.on, intermediate=True)
        for code, balance in balances
        if code == INTERIM
    ]
    if len(interim) > 1 and interim[0].on and interim[-1].on and interim[0].on > interim[-1].on:
        interim.reverse()
    opening = next((found for wanted in OPENINGS if (found := _earliest(balances, wanted)) is not None), None)
    closing = _latest(balances, CLOSING)
    if opening is None and interim:
        opening = interim.pop(0)
    if closing is None and interim:
        closing = interim.pop()
    return opening, closing


def _earliest(balances: list[tuple[str, Balance]], wanted: str) -> Balance | None:
    """The first of a kind: a statement of several days may repeat the balances of each."""
    return min(
        (one for code, one in balances if code == wanted), key=lambda one: one.on or date.min, default=None
    )


def _latest(balances: list[tuple[str, Balance]], wanted: str) -> Balance | None:
    return max(
        (one for code, one in balances if code == wanted), key=lambda one: one.on or date.min, default=None
    )


def _moment(written: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat((written or "").strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _last_day(written: str | None, first: date | None, closing_on: date | None) -> date | None:
    """The period's last day. Midnight ends the day before it, unless the closing balance is of that day."""
    last = day_of(written)
    if last is None or "T00:00:00" not in (written or "") or first is None or first >= last:
        return last
    return last if closing_on is not None and closing_on >= last else last - timedelta(days=1)


def _number(written: str | None) -> int | None:
    return int(written) if written and written.isascii() and written.isdigit() and len(written) <= 5 else None
