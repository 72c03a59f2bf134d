"""The shapes that resources share: strict on the way in, exact on the way out."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Path
from fastapi.routing import APIRoute
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.functional_validators import AfterValidator

from api.pagination import CURSOR_CHARACTERS_MAX
from api.problems import MEDIA_TYPE, ProblemDocument
from api.strict import StrictRoute
from ledger.money import AMOUNT_MAX, Money

Responses = dict[int | str, dict[str, Any]]

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class In(BaseModel):
    """What comes in: unknown fields are refused, and nothing is coerced into another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Out(BaseModel):
    """What goes out."""

    model_config = ConfigDict(extra="forbid")


def _instant(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("a time is written in RFC 3339 with its zone, as in 2026-03-02T09:30:00Z")
    # Python reads microseconds; finer fractions are cut
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper()))


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies beyond the years 1 to 9999") from None


def _day(value: object) -> object:
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError("a date is written as in 2026-03-02")
    return date.fromisoformat(value)


Instant = Annotated[AwareDatetime, BeforeValidator(_instant), AfterValidator(_utc)]
"""An instant, RFC 3339 with a zone; in UTC once read."""

Day = Annotated[date, BeforeValidator(_day)]
"""A calendar date, ``2026-03-02``."""

Text = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", strict=True)
]
"""A line of text, without control characters."""

Reference = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[!-~]+$", strict=True)]
"""A partner's own identifier: printable ASCII without spaces."""

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$", strict=True)]
"""A country, ISO 3166-1 alpha-2."""

Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$", strict=True)]
"""A currency, ISO 4217."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", strict=True)]
"""A name in an address: lower-case letters, digits and hyphens."""

ProductCode = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$", strict=True)]
"""A product's code in its programme."""

MemberId = Annotated[
    str, Path(max_length=64, description="a member's id, `mem_…`", examples=[f"mem_{'0' * 26}"])
]


class MoneyIn(In):
    """An amount of minor units in one currency (ISO 4217): PHP 1,500.00 is 150000."""

    amount: Annotated[int, Field(ge=0, le=AMOUNT_MAX, examples=[150000])]
    currency: Annotated[Currency, Field(examples=["PHP"])]

    def money(self) -> Money:
        """As the domain's money. Raises InvalidMoney for an unknown currency."""
        return Money(self.amount, self.currency)


class MoneyOut(Out):
    """An amount of minor units in one currency (ISO 4217): PHP 1,500.00 is 150000."""

    amount: int
    currency: str

    @classmethod
    def of(cls, amount: int, currency: str) -> "MoneyOut":
        """The amount in the currency."""
        return cls(amount=amount, currency=currency)


Item = TypeVar("Item", bound=BaseModel)


class Page(Out, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    next_cursor: Annotated[
        str | None, Field(max_length=CURSOR_CHARACTERS_MAX, description="null on the last page")
    ]


ROUTE_CLASS: Final[type[APIRoute]] = StrictRoute

_MEANINGS: Final = {
    400: "The request cannot be read.",
    401: "The token is missing or not valid.",
    403: "The token lacks the scope.",
    404: "There is nothing here for you.",
    408: "The body took too long to arrive.",
    409: "The present state forbids it.",
    413: "The body is over 256 KiB.",
    415: "The body has a Content-Encoding.",
    422: "A value is not as the schema says.",
    429: "Too many requests; wait as `Retry-After` says.",
    503: "Not available right now; retry after `Retry-After`.",
}


def problem(description: str) -> dict[str, Any]:
    """A response that is a problem document, for OpenAPI."""
    return {"description": description, "model": ProblemDocument, "content": {MEDIA_TYPE: {}}}


def errors(*more: int) -> Responses:
    """The problems that every authorised route may answer with, and `more`."""
    statuses = {400, 401, 403, 404, 408, 413, 415, 422, 429, 503, *more}
    return {status: problem(_MEANINGS[status]) for status in sorted(statuses)}


REPLAYED: Final[dict[str, Any]] = {
    "headers": {
        "Idempotency-Replayed": {
            "description": "`true` when this is the stored first answer",
            "schema": {"type": "string", "const": "true"},
        }
    }
}
