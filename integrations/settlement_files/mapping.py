"""How a partner's settlement file is to be read: encoding, columns, signs, totals. Data, validated by a JSON Schema; no code.

The schema is published (`schema`): `mizan settlement mapping --schema` prints it. A column is named as in the file's header, or
counted from 1 where the file has none.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from jsonschema import Draft202012Validator
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ledger.errors import InvalidInput, InvalidMoney
from ledger.money import exponent

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Place = Name | Annotated[int, Field(ge=1, le=200)]
Kind = Literal["collection", "reversal"]
ISO: Final = "iso"
"""The format of times as ISO 8601 has them."""

MAPPING_BYTES_MAX: Final = 64 * 1024


class InvalidMapping(InvalidInput):
    """A mapping that no file can be read by. `pointer` leads to the fault in the mapping."""

    code = "invalid_settlement_mapping"


def _known_currency(value: str) -> str:
    try:
        exponent(value)
    except InvalidMoney:
        raise ValueError("it is no currency (ISO 4217)") from None
    return value


Code = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_known_currency)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Column(_Part):
    """A column whose text is taken as it is, without space around it."""

    column: Place


class CurrencyColumn(_Part):
    """A column with a currency, or with a word for one."""

    column: Place
    values: Annotated[dict[Name, Code], Field(max_length=50)] = Field(default_factory=dict)
    """What stands for a currency; anything else is one itself (ISO 4217)."""


class Currency(_Part):
    """The currency of the whole file."""

    constant: Code


class KindColumn(_Part):
    """A column that says what a row is."""

    column: Place
    values: Annotated[
        dict[Name, Literal["collection", "reversal", "ignore"]], Field(min_length=1, max_length=50)
    ]
    """What each text means; rows that are to be ignored are not compared. Any other text is a fault."""


class OneKind(_Part):
    """What every row of the file is."""

    constant: Kind = "collection"


class Time(_Part):
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


class Trailer(_Part):
    """The last row, which repeats how many rows there are and what they add up to."""

    column: Place
    equals: Name
    """The row is the trailer where this column says this. A file without it is cut off."""
    count: Place | None = None
    total: Place | None = None
    total_of: Literal["net", "gross"] = "net"
    """``net``: collections less reversals; ``gross``: both added."""


class SettlementMapping(_Part):
    """How a partner's settlement file is read."""

    encoding: Literal["utf-8", "utf-16", "iso-8859-1", "iso-8859-15", "windows-1252"] = "utf-8"
    """A byte order mark is skipped."""
    delimiter: Literal[",", ";", "\t", "|"] = ","
    quote: Literal['"', "'"] | None = '"'
    skip_rows: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows before the header, or before the first row where there is none."""
    header: bool = True
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    minor_units: bool = False
    """Amounts are written in minor units, without decimals."""

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
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands marks differ")
        if self.sign == "by_sign" and isinstance(self.kind, KindColumn):
            raise ValueError("a row's kind is told by its sign or by a column, not by both")
        if self.sign == "reversals_negative" and not isinstance(self.kind, KindColumn):
            raise ValueError("which rows are reversals is told by a column `kind`, or by_sign")
        if not self.header and any(isinstance(place, str) for place in self.places):
            raise ValueError("a file without a header has columns by number")
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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **SettlementMapping.model_json_schema(),
    }


def parse(given: Mapping[str, Any]) -> SettlementMapping:
    """A mapping, validated by the schema and then as a whole. Raises `InvalidMapping`, with a pointer to the first fault."""
    fault = next(
        iter(sorted(Draft202012Validator(schema()).iter_errors(given), key=lambda one: one.json_path)), None
    )
    if fault is not None:
        raise InvalidMapping(
            f"The mapping is not as its schema says: {fault.message[:300]}.",
            pointer="".join(f"/{part}" for part in fault.absolute_path),
        )
    try:
        return SettlementMapping.model_validate_json(json.dumps(given))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidMapping(
            f"The mapping can't be used: {first['msg']}.",
            pointer="".join(f"/{part}" for part in first["loc"]),
        ) from None
