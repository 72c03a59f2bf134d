"""Reading a bank's CSV by its mapping, row by row; each account and currency in it is a statement.

Faults are named by row and column, up to ten at once, and quote nothing.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from integrations.bank_statements import canonical
from integrations.bank_statements.assembly import Balance, Held, Page, Spool
from integrations.bank_statements.canonical import InvalidStatement, Told, shown
from integrations.bank_statements.csv_mapping import (
    ROWS_MAX,
    Account,
    Amount,
    Cell,
    CreditAndDebit,
    DateColumn,
    Ignored,
    StatementMapping,
)
from integrations.bank_statements.sources import Source
from integrations.csv_files.mapping import ISO, Column, Currency, CurrencyColumn
from integrations.csv_files.reading import FAULTS_TOLD_MAX, Amounts, Columns, Fault, currency_in, rows
from ledger.reconciliation.statements import Line

STATEMENTS_MAX: Final = 1_000

_BRACKETED = re.compile(r"\((.+)\)")
_SIGN_BEHIND = re.compile(r"(.*[0-9.,])\s*([+-])")


def pages(source: Source, spool: Spool, mapping: StatementMapping, told: Told, today: date) -> Iterator[Page]:
    """The statements of a file. Raises `InvalidStatement`."""
    reader = _Reader(spool, mapping, told, today)
    faults: list[str] = []
    try:
        for number, row in rows(source.lines(mapping.encoding), mapping, rows_max=ROWS_MAX):
            try:
                reader.row(number, row)
            except Fault as fault:
                faults.append(fault.at(number))
                if len(faults) == FAULTS_TOLD_MAX or reader.is_above_entries:
                    break
    except Fault as fault:
        faults.append(fault.what)
    if faults:
        raise InvalidStatement(" ".join(faults))
    return reader.pages()


@dataclass(slots=True)
class _Statement:
    """One account in one currency, as far as it was read."""

    account: str
    currency: str
    lines: Held
    moved: int = 0
    """What the rows so far add up to."""
    newest: int | None = None
    """The balance that the first row tells, where the newest is first; it closes the statement."""
    opening: int | None = None
    last: int | None = None
    """The balance of the row read last."""
    rows: int = 0
    skipped: int = 0


class _Reader:
    def __init__(self, spool: Spool, mapping: StatementMapping, told: Told, today: date) -> None:
        self._spool = spool
        self._mapping = mapping
        self._told = told
        self._today = today
        self._columns = Columns(mapping.places)
        self._amounts = Amounts(mapping)
        self._labels = {
            _label(cell.label): name for name, cell in mapping.cells.items() if cell.label is not None
        }
        self._found: dict[str, str] = {}
        self._statements: dict[tuple[str, str], _Statement] = {}
        self._ended = False
        self.is_above_entries = True
        self._booked = _dates(mapping.booked_on)
        self._value = _dates(mapping.value_on) if mapping.value_on is not None else None

    def row(self, number: int, row: Sequence[str]) -> None:
        """One row. Raises `Fault`."""
        mapping = self._mapping
        if self.is_above_entries:
            for name, cell in mapping.cells.items():
                if cell.row == number:
                    self._find(name, cell, row)
        if self._is_labelled(row):
            return
        if self.is_above_entries:
            if number <= mapping.skip_rows:
                return
            if mapping.header:
                self._columns.read(row)
            self.is_above_entries = False
            if mapping.header:
                return
        if self._ended:
            return
        if mapping.footer is not None and self._is(row, mapping.footer):
            self._ended = True
            return
        if not any(self._is(row, ignored) for ignored in mapping.ignore):
            self._entry(row)

    def pages(self) -> Iterator[Page]:
        """What was read, when the file has ended. Raises `InvalidStatement`."""
        mapping, told = self._mapping, self._told
        if mapping.header and self.is_above_entries:
            raise InvalidStatement("The file has no header")
        missing = [
            cell.label for name, cell in mapping.cells.items() if cell.label and name not in self._found
        ]
        if missing:
            raise InvalidStatement(f"No row has the label “{missing[0]}”")
        try:
            if not self._statements:
                self._statement(self._account(()), self._currency(()))
        except Fault as fault:
            raise InvalidStatement(f"The file has no entries, and {fault.what}") from None
        if len(self._statements) > 1 and (told.opening is not None or told.closing is not None):
            raise InvalidStatement(
                "The balances that were told are those of one account; the file has several"
            )
        for statement in self._statements.values():
            yield self._page(statement)

    def _entry(self, row: Sequence[str]) -> None:
        mapping = self._mapping
        statement = self._statement(self._account(row), self._currency(row))
        statement.rows += 1
        if mapping.status is not None:
            said = mapping.status.values.get(self._columns.cell(row, mapping.status.column))
            if said is None:
                raise Fault("the mapping has no value for what is here", mapping.status.column)
            if said == "pending":
                statement.skipped += 1
                return
        amount = self._amount(row, statement.currency)
        reversal = False
        if mapping.reversals is not None:
            reversal = self._columns.cell(row, mapping.reversals.column) in mapping.reversals.values
            if reversal and mapping.reversals.turns_sign:
                amount = -amount
        self._check_balance(statement, row, amount)
        if amount == 0:
            statement.skipped += 1
            return
        booked_on = self._date(row, mapping.booked_on, self._booked)
        value_on = booked_on
        if (
            mapping.value_on is not None
            and self._value is not None
            and self._text(row, Column(column=mapping.value_on.column))
        ):
            value_on = self._date(row, mapping.value_on, self._value)
        end_to_end = canonical.reference_of(self._text(row, mapping.end_to_end))
        reference = canonical.reference_of(self._text(row, mapping.reference))
        statement.lines.add(
            Line(
                entry=statement.rows,
                detail=0,
                booked_on=booked_on,
                value_on=value_on,
                amount=amount,
                currency=statement.currency,
                kind=canonical.text_of(self._text(row, mapping.kind))[:70] or None,
                reversal=reversal,
                end_to_end=end_to_end,
                reference=reference,
                references=canonical.references_of(
                    (self._text(row, one) for one in mapping.references), besides=(end_to_end, reference)
                ),
                counterparty=canonical.text_of(self._text(row, mapping.counterparty))[:140] or None,
                counterparty_account=canonical.account_of(self._text(row, mapping.counterparty_account)),
                text=canonical.text_of(*(self._text(row, one) for one in mapping.text)),
            )
        )

    def _statement(self, account: str, currency: str) -> _Statement:
        statement = self._statements.get((account, currency))
        if statement is None:
            if len(self._statements) == STATEMENTS_MAX:
                raise Fault(f"there are more than {STATEMENTS_MAX} accounts and currencies")
            statement = _Statement(account, currency, self._spool.held())
            self._statements[account, currency] = statement
        return statement

    def _account(self, row: Sequence[str]) -> str:
        mapped = self._mapping.account
        written = self._told.account
        if isinstance(mapped, Account):
            written = mapped.constant
        elif isinstance(mapped, Cell):
            written = self._found.get("account", written)
        elif mapped is not None and row:
            written = self._columns.cell(row, mapped.column)
        account = canonical.account_of(written)
        if account is None:
            raise Fault(
                "nothing says of which account", mapped.column if isinstance(mapped, Column) else None
            )
        return account

    def _currency(self, row: Sequence[str]) -> str:
        mapped = self._mapping.currency
        if isinstance(mapped, Currency):
            return mapped.constant
        if isinstance(mapped, CurrencyColumn) and row:
            return currency_in(mapped, self._columns.cell(row, mapped.column))
        written = self._told.currency
        if isinstance(mapped, Cell):
            written = self._found.get("currency", written)
        currency = canonical.known_currency(written)
        if currency is None:
            raise Fault("nothing says in which currency (ISO 4217)")
        return currency

    def _amount(self, row: Sequence[str], currency: str) -> int:
        mapped = self._mapping.amount
        if isinstance(mapped, CreditAndDebit):
            return self._of_two(row, mapped, currency)
        amount = self._read(self._columns.cell(row, mapped.column), currency, mapped)
        if mapped.side is None:
            return -amount if mapped.inverted else amount
        side = self._columns.cell(row, mapped.side)
        if side in (mapped.credit or ()):
            return amount
        if side in (mapped.debit or ()):
            # Some banks write the sign beside the word for it.
            return -abs(amount)
        raise Fault("the mapping has no value for what is here", mapped.side)

    def _of_two(self, row: Sequence[str], mapped: CreditAndDebit, currency: str) -> int:
        found = {}
        for place in (mapped.credit, mapped.debit):
            written = self._columns.cell(row, place)
            if written:
                found[place] = self._amounts.read(_signed(written), currency, place)
        if not found:
            raise Fault("there is neither a credit nor a debit", mapped.credit)
        credit, debit = found.get(mapped.credit, 0), found.get(mapped.debit, 0)
        if credit and debit:
            raise Fault("there is a credit and a debit", mapped.debit)
        return credit - abs(debit)

    def _read(self, written: str, currency: str, mapped: Amount) -> int:
        return self._amounts.read(_signed(written), currency, mapped.column)

    def _check_balance(self, statement: _Statement, row: Sequence[str], amount: int) -> None:
        """The balance after each row is the one before it and the row's amount. Raises `Fault`, with the difference."""
        mapped = self._mapping.balance
        newest_first = self._mapping.order == "newest_first"
        before = statement.moved
        statement.moved += amount
        if mapped is None:
            return
        written = self._columns.cell(row, mapped.column)
        if not written:
            statement.last = None
            return
        balance = self._amounts.read(_signed(written), statement.currency, mapped.column)
        statement.last = balance
        if newest_first:
            statement.newest = balance + before if statement.newest is None else statement.newest
            expected = statement.newest - before
            statement.opening = statement.newest - statement.moved
        else:
            statement.opening = balance - statement.moved if statement.opening is None else statement.opening
            expected = statement.opening + statement.moved
        if balance != expected:
            raise Fault(
                f"the balance is off from that of the rows before it by {shown(balance - expected, statement.currency)}",
                mapped.column,
            )

    def _page(self, statement: _Statement) -> Page:
        currency, told = statement.currency, self._told
        where = f"account {statement.account} in {currency}" if len(self._statements) > 1 else None
        opening = self._cell_amount("opening", currency)
        closing = self._cell_amount("closing", currency)
        by_rows = statement.opening
        if by_rows is not None and opening is not None and by_rows != opening:
            raise InvalidStatement(
                f"it opens with {shown(opening, currency)}, and its rows begin with {shown(by_rows, currency)}",
                where=where,
            )
        last = statement.newest if self._mapping.order == "newest_first" else statement.last
        for candidate in (by_rows, told.opening):
            opening = candidate if opening is None else opening
        for candidate in (last, told.closing):
            closing = candidate if closing is None else closing
        if opening is None or closing is None:
            which = "opening" if opening is None else "closing"
            raise InvalidStatement(f"nothing says what the {which} balance is", where=where)
        return Page(
            account=statement.account,
            currency=currency,
            opening=Balance(opening),
            closing=Balance(closing),
            lines=statement.lines,
            identification=canonical.reference_of(self._found.get("identification")),
            number=canonical.text_of(self._found.get("number"))[:35] or None,
            from_on=self._cell_date("from_on") or told.from_on,
            to_on=self._cell_date("to_on") or told.to_on,
            skipped=statement.skipped,
        )

    def _date(self, row: Sequence[str], mapped: DateColumn, read: "Callable[[str], date]") -> date:
        try:
            found = read(self._columns.cell(row, mapped.column))
        except (ValueError, OverflowError):
            raise Fault("this is no date as the mapping describes them", mapped.column) from None
        if mapped.has_year:
            return found
        on = _in_its_year(found, *self._days(mapped), self._today)
        if on is None:
            raise Fault("there is no such day in the statement's years", mapped.column)
        return on

    def _days(self, mapped: DateColumn) -> tuple[date | None, date | None]:
        """The statement's days, by which dates without a year are understood."""
        for name in ("from_on", "to_on"):
            if name in self._mapping.cells and name not in self._found:
                raise Fault("dates without a year need the statement's days above them", mapped.column)
        return (
            self._cell_date("from_on") or self._told.from_on,
            self._cell_date("to_on") or self._told.to_on,
        )

    def _cell_amount(self, name: str, currency: str) -> int | None:
        written = self._found.get(name)
        if written is None:
            return None
        try:
            return self._amounts.read(_signed(written), currency, None)
        except Fault as fault:
            raise InvalidStatement(f"The {name} balance can't be read: {fault.what}") from None

    def _cell_date(self, name: str) -> date | None:
        cell = self._mapping.from_on if name == "from_on" else self._mapping.to_on
        written = self._found.get(name)
        if cell is None or written is None:
            return None
        try:
            return _parsed(written, cell.format)
        except (ValueError, OverflowError):
            raise InvalidStatement(f"The date {name} can't be read as the mapping describes it") from None

    def _is_labelled(self, row: Sequence[str]) -> bool:
        """Whether the row has labels; then it is no entry, and its cells are taken."""
        if not self._labels:
            return False
        names = [self._labels[label] for cell in row if (label := _label(cell)) in self._labels]
        for name in names:
            self._find(name, self._mapping.cells[name], row)
        return bool(names)

    def _find(self, name: str, cell: Cell, row: Sequence[str]) -> None:
        if cell.column > len(row) or not row[cell.column - 1].strip():
            raise Fault(f"the cell for {name} is empty", cell.column)
        if name in self._found:
            raise Fault(f"the label for {name} is there twice", cell.column)
        self._found[name] = row[cell.column - 1].strip()

    def _is(self, row: Sequence[str], ignored: Ignored) -> bool:
        try:
            return self._columns.cell(row, ignored.column) in ignored.values
        except Fault:
            return "" in ignored.values

    def _text(self, row: Sequence[str], mapped: Column | None) -> str | None:
        """A text that may be missing, as short rows leave out what is empty at their end."""
        if mapped is None:
            return None
        try:
            return self._columns.cell(row, mapped.column)
        except Fault:
            return None


def _signed(written: str) -> str:
    """An amount with its sign before it, and plain spaces and marks, however a spreadsheet shows it."""
    plain = written.replace("\u00a0", " ").replace("\u202f", " ").replace("’", "'").replace("−", "-").strip()
    bracketed = _BRACKETED.fullmatch(plain)
    if bracketed is not None:
        return f"-{bracketed[1].strip()}"
    behind = _SIGN_BEHIND.fullmatch(plain)
    if behind is not None and not plain.startswith(("+", "-")):
        return f"{behind[2]}{behind[1]}"
    return plain[0] + plain[1:].lstrip() if plain.startswith(("+", "-")) else plain


def _label(written: str | None) -> str:
    return " ".join((written or "").split()).removesuffix(":").strip().casefold()


def _dates(mapped: DateColumn) -> Callable[[str], date]:
    """Reads dates of a column; those without a year are put into a leap year."""
    if mapped.has_year:
        return lambda cell: _parsed(cell, mapped.format)
    return lambda cell: _parsed(f"{cell} 2000", f"{mapped.format} %Y")


def _parsed(cell: str, format_: str) -> date:
    if format_ == ISO:
        return date.fromisoformat(cell) if len(cell) <= 10 else datetime.fromisoformat(cell).date()
    return datetime.strptime(cell, format_).date()  # noqa: DTZ007  a day in the bank's own calendar


def _in_its_year(found: date, from_on: date | None, to_on: date | None, today: date) -> date | None:
    """A day and month in the year that brings them nearest to the statement's days; without those, the last one until today."""
    if from_on is None and to_on is None:
        past = [
            on for year in range(today.year - 4, today.year + 1) if (on := _on(found, year)) and on <= today
        ]
        return max(past, default=None)
    first, last = from_on or to_on or today, to_on or from_on or today
    near = [on for year in range(first.year - 1, last.year + 2) if (on := _on(found, year)) is not None]
    return min(near, key=lambda on: max((first - on).days, (on - last).days, 0), default=None)


def _on(found: date, year: int) -> date | None:
    try:
        return found.replace(year=year)
    except ValueError:
        return None
