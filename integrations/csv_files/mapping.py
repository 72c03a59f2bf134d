"""What mappings of CSV files have in common: layout, columns, currencies, and how a mapping is validated.

A column is named as in the file's header, or counted from 1 where the file has none.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from jsonschema import Draft202012Validator
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ledger.errors import InvalidInput, InvalidMoney
from ledger.money import exponent

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Place = Name | Annotated[int, Field(ge=1, le=200)]
Encoding = Literal["utf-8", "utf-16", "iso-8859-1", "iso-8859-15", "windows-1252"]
ISO: Final = "iso"
"""The format of times as ISO 8601 has them."""

MAPPING_BYTES_MAX: Final = 64 * 1024

Mapped = TypeVar("Mapped", bound="Layout")


def _known_currency(value: str) -> str:
    try:
        exponent(value)
    except InvalidMoney:
        raise ValueError("it is no currency (ISO 4217)") from None
    return value


Code = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_known_currency)]


class Part(BaseModel):
    """A part of a mapping: nothing in it that is not known, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Column(Part):
    """A column whose text is taken as it is, without space around it."""

    column: Place


class CurrencyColumn(Part):
    """A column with a currency, or with a word for one."""

    column: Place
    values: Annotated[dict[Name, Code], Field(max_length=50)] = Field(default_factory=dict)
    """What stands for a currency; anything else is one itself (ISO 4217)."""


class Currency(Part):
    """The currency of the whole file."""

    constant: Code


class Layout(Part):
    """How rows, and the numbers in them, are written."""

    delimiter: Literal[",", ";", "\t", "|"] = ","
    quote: Literal['"', "'"] | None = '"'
    skip_rows: Annotated[int, Field(ge=0, le=100)] = 0
    """Rows before the header, or before the first row where there is none."""
    header: bool = True
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    minor_units: bool = False
    """Amounts are written in minor units, without decimals."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Every column that is read of each row."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _is_laid_out(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands marks differ")
        if not self.header and any(isinstance(place, str) for place in self.places):
            raise ValueError("a file without a header has columns by number")
        return self


def schema_of(mapped: type[Layout]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a kind of mappings."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **mapped.model_json_schema()}


def validated(
    mapped: type[Mapped], schema: Mapping[str, Any], given: Mapping[str, Any], refusal: type[InvalidInput]
) -> Mapped:
    """A mapping, validated by its schema and then as a whole. Raises `refusal`, with a pointer to the first fault."""
    fault = next(
        iter(sorted(Draft202012Validator(schema).iter_errors(given), key=lambda one: one.json_path)), None
    )
    if fault is not None:
        raise refusal(
            f"The mapping is not as its schema says: {fault.message[:300]}.",
            pointer="".join(f"/{part}" for part in fault.absolute_path),
        )
    try:
        return mapped.model_validate_json(json.dumps(given))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise refusal(
            f"The mapping can't be used: {first['msg']}.",
            pointer="".join(f"/{part}" for part in first["loc"]),
        ) from None
