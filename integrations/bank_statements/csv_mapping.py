"""How a bank's CSV is to be read: layout, columns, where balances stand. Data, validated by a JSON Schema; no code.

The schema is published: `schema`, and `mapping.schema.json` beside this file. A column is named as in the file's header, or counted
from 1 where the file has none. What the file doesn't say (its account, its balances), the caller says.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from integrations.csv_files.mapping import (
    ISO,
    Column,
    Currency,
    CurrencyColumn,
    Encoding,
    Layout,
    Name,
    Part,
    Place,
    schema_of,
    validated,
)
from ledger.errors import InvalidInput

ROWS_MAX: Final = 5_000_000

_DAY_OF_MONTH = re.compile(r"%-?[dejxcD]|%F")
_MONTH = re.compile(r"%-?[mbBhjxcD]|%F")
_YEAR = re.compile(r"%[yYGcxDF]")


class InvalidStatementMapping(InvalidInput):
    """A mapping that no statement can be read by. `pointer` leads to the fault in the mapping."""

    code = "invalid_statement_mapping"


class Cell(Part):
    """A cell outside of the rows of entries: in a row by its number, or in the row that has a label in any of its cells."""

    column: Annotated[int, Field(ge=1, le=200)]
    row: Annotated[int, Field(ge=1, le=200)] | None = None
    label: Name | None = None
    """As it stands in the file, without space around it or a colon at its end, whatever its case."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.row is None) == (self.label is None):
            raise ValueError("a cell is found by its row, or by a label in its row")
        return self


def _has_day_and_month(value: str) -> str:
    if value != ISO and not (_DAY_OF_MONTH.search(value) and _MONTH.search(value)):
        raise ValueError("a format says at least the day and the month")
    if value != ISO:
        whole = value if _YEAR.search(value) else f"{value} %Y"
        try:
            datetime.strptime(datetime(2000, 2, 29, 13, 45).strftime(whole), whole)  # noqa: DTZ001, DTZ007  any moment will do
        except (ValueError, re.error):
            raise ValueError("dates can't be read by this format (strptime)") from None
    return value


class _Dated(Part):
    format: Annotated[str, StringConstraints(min_length=2, max_length=60)] = ISO
    """``iso``, or as in ``%d/%m/%Y`` (strptime). Without a year (``%d.%m.``) a date is the one nearest to the statement's days."""

    _checked = field_validator("format")(_has_day_and_month)

    @property
    def has_year(self) -> bool:
        """Whether the format says the year."""
        return self.format == ISO or _YEAR.search(self.format) is not None


class DateColumn(_Dated):
    """A column with a date, or a time of which the day is taken."""

    column: Place


class DateCell(_Dated, Cell):
    """A date outside of the rows of entries, with its year."""

    @model_validator(mode="after")
    def _says_the_year(self) -> Self:
        if not self.has_year:
            raise ValueError("the date of a cell has a year")
        return self


class Account(Part):
    """The account of the whole file."""

    constant: Name


class Amount(Part):
    """One column with the amount: with its sign (also behind it, or in brackets), or with a column that says the side."""

    column: Place
    side: Place | None = None
    credit: Annotated[list[Name], Field(min_length=1, max_length=20)] | None = None
    """What the side says of money that came in."""
    debit: Annotated[list[Name], Field(min_length=1, max_length=20)] | None = None
    inverted: bool = False
    """Money that came in is negative."""

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        if (self.side is None) != (self.credit is None) or (self.side is None) != (self.debit is None):
            raise ValueError("a column with the side takes the words for credit and for debit")
        if self.side is not None and (self.inverted or set(self.credit or ()) & set(self.debit or ())):
            raise ValueError("the side says the sign, in words that differ")
        return self


class CreditAndDebit(Part):
    """One column with what came in, and one with what went out; the other of the two is empty, or zero."""

    credit: Place
    debit: Place


class Status(Part):
    """A column that says whether an entry is booked; what is pending is counted, and is no line. Any other text is a fault."""

    column: Place
    values: Annotated[dict[Name, Literal["booked", "pending"]], Field(min_length=1, max_length=50)]


class Reversals(Part):
    """A column that marks reversals."""

    column: Place
    values: Annotated[list[Name], Field(min_length=1, max_length=20)]
    turns_sign: bool = False
    """A reversal's amount is that of the entry it takes back, with its sign."""


class Ignored(Part):
    """Rows that are no entries: where the column says one of these; an empty text stands for an empty cell."""

    column: Place
    values: Annotated[
        list[Annotated[str, StringConstraints(max_length=200)]], Field(min_length=1, max_length=20)
    ]


class StatementMapping(Layout):
    """How a bank's CSV is read."""

    encoding: Encoding | None = None
    """A byte order mark is skipped. Where none is named: UTF-8, or what the bytes most likely are."""

    account: Account | Column | Cell | None = None
    currency: Currency | CurrencyColumn | Cell | None = None
    booked_on: DateColumn
    value_on: DateColumn | None = None
    amount: Amount | CreditAndDebit

    balance: Column | None = None
    """The balance after each row; empty cells are passed over."""
    order: Literal["oldest_first", "newest_first"] = "oldest_first"
    opening: Cell | None = None
    closing: Cell | None = None
    from_on: DateCell | None = None
    to_on: DateCell | None = None
    identification: Cell | None = None
    number: Cell | None = None

    end_to_end: Column | None = None
    reference: Column | None = None
    references: Annotated[list[Column], Field(max_length=20)] = Field(default_factory=list)
    counterparty: Column | None = None
    counterparty_account: Column | None = None
    text: Annotated[list[Column], Field(max_length=20)] = Field(default_factory=list)
    kind: Column | None = None
    status: Status | None = None
    reversals: Reversals | None = None
    ignore: Annotated[list[Ignored], Field(max_length=20)] = Field(default_factory=list)
    footer: Ignored | None = None
    """The first row that is like this ends the entries; what follows is looked at for labelled cells only."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.has_several and (self.opening is not None or self.closing is not None):
            raise ValueError(
                "balances in cells are those of one account in one currency, not of columns of them"
            )
        if any(cell.row is not None and cell.row > self.rows_above for cell in self.cells.values()):
            raise ValueError(
                "a cell by its row stands above the entries: in the rows skipped, or in the header"
            )
        return self

    @property
    def has_several(self) -> bool:
        """Whether rows may be of several accounts or currencies."""
        return isinstance(self.account, Column) or isinstance(self.currency, CurrencyColumn)

    @property
    def rows_above(self) -> int:
        """How many rows stand above the entries."""
        return self.skip_rows + (1 if self.header else 0)

    @property
    def cells(self) -> dict[str, Cell]:
        """Every cell outside of the entries, by its name in the mapping."""
        named: dict[str, object] = {
            "account": self.account,
            "currency": self.currency,
            "opening": self.opening,
            "closing": self.closing,
            "from_on": self.from_on,
            "to_on": self.to_on,
            "identification": self.identification,
            "number": self.number,
        }
        return {name: cell for name, cell in named.items() if isinstance(cell, Cell)}

    @property
    def places(self) -> tuple[Place, ...]:
        """Every column that is read of each row."""
        parts = (
            *(self.account, self.currency, self.booked_on, self.value_on, self.balance, self.end_to_end, self.reference),
            *(self.counterparty, self.counterparty_account, self.kind, self.status, self.reversals, self.footer),
            *(*self.references, *self.text, *self.ignore),
        )  # fmt: skip
        columns = Column | CurrencyColumn | DateColumn | Status | Reversals | Ignored
        read = [part.column for part in parts if isinstance(part, columns)]
        if isinstance(self.amount, CreditAndDebit):
            read += [self.amount.credit, self.amount.debit]
        else:
            read += [place for place in (self.amount.column, self.amount.side) if place is not None]
        return tuple(read)


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of mappings."""
    return schema_of(StatementMapping)


def parse(given: Mapping[str, Any]) -> StatementMapping:
    """A mapping, validated by the schema and then as a whole. Raises `InvalidStatementMapping`, with a pointer to the first fault."""
    return validated(StatementMapping, schema(), given, InvalidStatementMapping)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
