"""The shapes of three-way rows and of rails' days."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from api import bank_statements
from api.v1.schemas import Day, MoneyOut, Out, Page
from ledger.ids import public_id
from products.reconciliation import rail_days, three_way
from products.reconciliation.evidence import BankLine
from products.reconciliation.rail_days import RailDay
from products.reconciliation.three_way import Amounts, Row

SHOWN: Final = (
    "announced",
    *Amounts.__slots__,
    "announced_less_settled",
    "settled_less_bank",
)
"""The amounts of a three-way row."""


class ThreeWayAmounts(Out):
    """Amounts of a day: `announced` = `collected` − `reversed` = `prefunded` + `settled` + `written_off` + `announced_less_settled`."""

    announced: Annotated[MoneyOut, Field(description="what the partner collected and did not take back")]
    collected: Annotated[MoneyOut, Field(description="by the partner's business day")]
    reversed: MoneyOut
    credited: Annotated[
        MoneyOut, Field(description="of that, after it had been settled: the partner's credit")
    ]
    prefunded: Annotated[MoneyOut, Field(description="paid from the partner's prefund")]
    settled: Annotated[MoneyOut, Field(description="paid by its settlements, gross")]
    fees: Annotated[MoneyOut, Field(description="what of that the partner kept")]
    written_off: Annotated[MoneyOut, Field(description="borne by others in its stead")]
    fees_open: Annotated[MoneyOut, Field(description="what of what is open it will keep")]
    owed: Annotated[MoneyOut, Field(description="still to come, less that")]
    beyond: Annotated[
        MoneyOut, Field(description="what settlements booked on this day brought beyond whole contributions")
    ]
    credits: Annotated[
        MoneyOut, Field(description="what settlements booked on this day left out for credits")
    ]
    charges: Annotated[MoneyOut, Field(description="what the bank kept of them")]
    bank: Annotated[MoneyOut, Field(description="what statement lines show of all that was settled")]
    unmatched: Annotated[
        MoneyOut,
        Field(description="lines of the partner's that pay for nothing yet, by the bank's booking date"),
    ]
    announced_less_settled: MoneyOut
    settled_less_bank: Annotated[
        MoneyOut,
        Field(
            description="`settled` − `fees` + `beyond` − `credits` − `charges` − `bank`: not seen at the bank"
        ),
    ]


class ThreeWayOut(ThreeWayAmounts):
    """What a partner announced, what it settled and what the bank shows, of one fund, currency and day."""

    on: Day
    partner: str
    programme: str
    fund: Annotated[str, Field(examples=["ejoheza/savers"])]
    currency: str
    state: Annotated[three_way.State, Field(description="what is to be done about it first")]
    expected_on: Annotated[Day | None, Field(description="when the money is expected")]
    days_since: int
    days_overdue: int
    booked_from: Annotated[Day | None, Field(description="the first booking date of its statement lines")]
    booked_to: Day | None
    value_from: Annotated[Day | None, Field(description="the first value date of its statement lines")]
    value_to: Day | None
    settlements: Annotated[list[str], Field(description="`stl_…`, at `/v1/settlements/{settlement}`")]


class BankLineOut(Out):
    """A statement line behind a row, with both of its dates."""

    id: Annotated[str, Field(examples=[f"{bank_statements.LINE}_{'0' * 26}"])]
    bank_account: str
    booked_on: Day
    value_on: Day
    amount: MoneyOut
    paired: bool


class ThreeWayRowOut(ThreeWayOut):
    """The same with the statement lines that show it, or wait for it."""

    lines: list[BankLineOut]


class ThreeWayTotalsOut(ThreeWayAmounts):
    """What all rows of the days and filters add up to, on every page, in one currency."""

    currency: str
    rows: int


class ThreeWayPage(Page[ThreeWayRowOut]):
    """One page of rows, and what all rows add up to."""

    since: Day
    through: Day
    totals: list[ThreeWayTotalsOut]


class RailDayAmounts(Out):
    """`asked` = `submitted` + `unknown` + `not_sent`; `submitted` = `confirmed` + `back` + `under_way`."""

    asked: MoneyOut
    not_sent: Annotated[MoneyOut, Field(description="certainly not at the rail, to be sent again")]
    unknown: Annotated[MoneyOut, Field(description="may be at the rail or not")]
    submitted: Annotated[MoneyOut, Field(description="the rail has it, or had it")]
    confirmed: Annotated[MoneyOut, Field(description="the rail paid it")]
    back: Annotated[MoneyOut, Field(description="failed or returned")]
    under_way: MoneyOut
    bank: Annotated[MoneyOut, Field(description="of what is confirmed, what statement lines show")]
    confirmed_less_bank: MoneyOut


class RailDayOut(RailDayAmounts):
    """What a rail was asked to pay on one day, and what became of it."""

    on: Day
    rail: str
    programme: str
    fund: str
    currency: str
    payments: int
    state: rail_days.State
    days_since: int


class RailTotalsOut(RailDayAmounts):
    """What all rows of the days and filters add up to, in one currency."""

    currency: str
    rows: int


class RailDaysPage(Page[RailDayOut]):
    """One page of rails' days, and what all of them add up to."""

    since: Day
    through: Day
    totals: list[RailTotalsOut]


def three_way_row(row: Row) -> ThreeWayRowOut:
    """A row with its lines."""
    return ThreeWayRowOut(
        **_three_way(row),
        lines=[_line(one) for one in sorted(row.lines, key=lambda one: (one.booked_on, one.id))],
    )


def three_way_flat(row: Row) -> ThreeWayOut:
    """A row on one line."""
    return ThreeWayOut(**_three_way(row))


def three_way_totals(currency: str, amounts: Amounts, rows: int) -> ThreeWayTotalsOut:
    """What rows add up to."""
    return ThreeWayTotalsOut(
        **{name: MoneyOut.of(getattr(amounts, name), currency) for name in SHOWN},
        currency=currency,
        rows=rows,
    )


def _three_way(row: Row) -> dict[str, object]:
    booked = [one.booked_on for one in row.lines]
    value = [one.value_on for one in row.lines]
    return {
        **{name: MoneyOut.of(getattr(row.amounts, name), row.currency) for name in SHOWN},
        **{
            name: getattr(row, name)
            for name in (
                "on", "partner", "programme", "fund", "currency", "state", "expected_on", "days_since", "days_overdue"
            )
        },
        "booked_from": min(booked, default=None),
        "booked_to": max(booked, default=None),
        "value_from": min(value, default=None),
        "value_to": max(value, default=None),
        "settlements": [public_id("stl", one) for one in row.settlements],
    }  # fmt: skip


def _line(one: BankLine) -> BankLineOut:
    return BankLineOut(
        id=public_id(bank_statements.LINE, one.id),
        bank_account=one.bank_account,
        booked_on=one.booked_on,
        value_on=one.value_on,
        amount=MoneyOut.of(one.amount, one.currency),
        paired=one.pairing is not None,
    )


def rail_day(day: RailDay) -> RailDayOut:
    """A rail's day."""
    return RailDayOut(
        **{name: MoneyOut.of(getattr(day, name), day.currency) for name in RailDayAmounts.model_fields},
        **{
            name: getattr(day, name)
            for name in ("on", "rail", "programme", "fund", "currency", "payments", "state", "days_since")
        },
    )


def rail_totals(currency: str, amounts: Mapping[str, int], rows: int) -> RailTotalsOut:
    """What rails' days add up to."""
    return RailTotalsOut(
        **{name: MoneyOut.of(amounts[name], currency) for name in RailDayAmounts.model_fields},
        currency=currency,
        rows=rows,
    )
