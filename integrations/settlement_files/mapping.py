"""How a partner's settlement file is to be read: encoding, columns, signs, totals. Data, validated by a JSON Schema; no code.

The schema is published (`schema`): `mizan settlement mapping --schema` prints it. A column is named as in the file's header, or
counted from 1 where the file has none.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

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

Kind = Literal["collection", "reversal"]


class InvalidMapping(InvalidInput):
    """A mapping that no file can be read by. `pointer` leads to the fault in the mapping."""

    code = "invalid_settlement_mapping"


class KindColumn(Part):
    """A column that says what a row is."""

    column: Place
    values: Annotated[
        dict[Name, Literal["collection", "reversal", "ignore"]], Field(min_length=1, max_length=50)
    ]
    """What each text means; rows that are to be ignored are not compared. Any other text is a fault."""


class OneKind(Part):
    """What every row of the file is."""

    constant: Kind = "collection"


class Time(Part):
    """A column with the time at which the remittance was paid, or reversed."""

    column: Place
    format: Annotated[str, StringConstraints(min_length=2, max_length=60)] = ISO
    """``iso``, or as in ``%d/%m/%Y %H:%M`` (strptime)."""
    zone: Name = "UTC"
    """The time zone (IANA) of times that say none."""

    @field_validator("format")
    @classmethod
    def _has_a_day(cls, value: str) -> str:
        if value != ISO and not re.search(r"%[dcxj]|%D|%F", value):
            raise ValueError("a format says at least the day")
        return value

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("it is no time zone (IANA)") from None
        return value


class Trailer(Part):
    """The last row, which repeats how many rows there are and what they add up to."""

    column: Place
    equals: Name
    """The row is the trailer where this column says this. A file without it is cut off."""
    count: Place | None = None
    total: Place | None = None
    total_of: Literal["net", "gross"] = "net"
    """``net``: collections less reversals; ``gross``: both added."""


class SettlementMapping(Layout):
    """How a partner's settlement file is read."""

    encoding: Encoding = "utf-8"
    """A byte order mark is skipped."""

    remittance_id: Column
    amount: Column
    currency: CurrencyColumn | Currency
    kind: KindColumn | OneKind = OneKind()
    at: Time | None = None
    sign: Literal["positive", "by_sign", "reversals_negative"] = "positive"
    """``positive``: no amount has a sign. ``by_sign``: a negative amount is a reversal. ``reversals_negative``: reversals are
    negative, and nothing else is."""
    reversals: Literal["listed", "left_out"] = "listed"
    """``left_out``: what was collected and reversed within the file's days is in it neither way."""
    trailer: Trailer | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sign == "by_sign" and isinstance(self.kind, KindColumn):
            raise ValueError("a row's kind is told by its sign or by a column, not by both")
        if self.sign == "reversals_negative" and not isinstance(self.kind, KindColumn):
            raise ValueError("which rows are reversals is told by a column `kind`, or by_sign")
        return self

    @property
    def places(self) -> tuple[Place, ...]:
        """Every column that is read of each row."""
        named = (self.remittance_id, self.amount, self.currency, self.kind, self.at)
        return tuple(
            one.column for one in named if isinstance(one, Column | CurrencyColumn | KindColumn | Time)
        )


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of mappings."""
    return schema_of(SettlementMapping)


def parse(given: Mapping[str, Any]) -> SettlementMapping:
    """A mapping, validated by the schema and then as a whole. Raises `InvalidMapping`, with a pointer to the first fault."""
    return validated(SettlementMapping, schema(), given, InvalidMapping)
