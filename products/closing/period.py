"""A programme's month and its funds: what a check-list is judged for, and what a close closes."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.periods import effective_day
from products import chart

LOCK_CLASS: Final = 0x4D63
"""Advisory lock: one close or reopening of a programme at a time."""
_MONTH: Final = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)


class PeriodNotOver(Conflict):
    """The month is not over yet in the programme's time zone."""

    code = "period_not_over"


@dataclass(frozen=True, slots=True)
class Fund:
    """A fund of the programme; `role` as in the chart (savers, agency, pool:…, administrator)."""

    id: UUID
    code: str
    role: str
    name: str
    closed_through: date


@dataclass(frozen=True, slots=True)
class Period:
    """A programme's month, from `month` (its first day) to `through`, and the funds that it is closed for."""

    programme_id: UUID
    programme: str
    name: str
    time_zone: str
    currency: str
    month: date
    funds: tuple[Fund, ...]

    @property
    def through(self) -> date:
        """The month's last day."""
        return next_month(self.month) - timedelta(days=1)

    @property
    def label(self) -> str:
        """``2026-03``."""
        return label(self.month)

    @property
    def fund_ids(self) -> list[UUID]:
        """The funds' ids, in the order of their codes."""
        return [fund.id for fund in self.funds]

    @property
    def closed(self) -> bool:
        """Whether every fund is closed through the month's end."""
        return all(fund.closed_through >= self.through for fund in self.funds)

    def require_over(self, now: datetime) -> None:
        """Raises `PeriodNotOver` while the month goes on in the programme's time zone."""
        if effective_day(now, self.time_zone) <= self.through:
            raise PeriodNotOver(f"{self.label} is not over yet in {self.time_zone}.")


def month_of(text: str) -> date:
    """The first day of ``2026-03``. Raises `InvalidInput`."""
    found = _MONTH.fullmatch(text)
    if found is None or found[1] == "0000":
        raise InvalidInput("a month is written as in 2026-03", pointer="/month")
    return date(int(found[1]), int(found[2]), 1)


def label(month: date) -> str:
    """A month as it is written: ``2026-03``."""
    return f"{month:%Y-%m}"


def next_month(month: date) -> date:
    """The first day of the month after."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


def find(
    tx: Tx, programme: str, month: date, *, programmes: Collection[UUID] | None = None, lock: bool = False
) -> Period:
    """A programme's month. ``programmes``: those that the caller may see, None for all. Raises `NotFound`.

    With ``lock``, of two who close or reopen at once the second waits until ``tx`` ends, and sees what the first did.
    """
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT id, name, time_zone, currency FROM products.programme WHERE slug = %s", (programme,)
        ).fetchone()
        if row is None or (programmes is not None and row[0] not in programmes):
            raise NotFound(f"There is no programme “{programme}”.")
        programme_id, name, time_zone, currency = row
        if lock:
            sql.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK_CLASS, programme))
        funds = sql.execute(
            "SELECT f.id, f.code, p.role, f.name, f.closed_through FROM ledger.fund f"
            " JOIN products.programme_fund p ON p.fund_id = f.id WHERE p.programme_id = %(programme)s"
            " UNION ALL SELECT f.id, f.code, %(role)s, f.name, f.closed_through FROM ledger.fund f"
            " WHERE f.code = %(code)s ORDER BY code",
            {
                "programme": programme_id,
                "role": chart.ADMINISTRATOR,
                "code": f"{programme}/{chart.ADMINISTRATOR}",
            },
        ).fetchall()
    return Period(
        programme_id,
        programme,
        name,
        time_zone,
        currency,
        month.replace(day=1),
        tuple(Fund(*fund) for fund in funds),
    )


def funds_of(tx: Tx, programmes: Collection[UUID]) -> list[UUID]:
    """The funds of programmes, those of their administrators too."""
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT fund_id FROM products.programme_fund WHERE programme_id = ANY (%(programmes)s)"
            " UNION SELECT f.id FROM ledger.fund f JOIN products.programme g ON f.code = g.slug || %(role)s"
            " WHERE g.id = ANY (%(programmes)s)",
            {"programmes": list(programmes), "role": f"/{chart.ADMINISTRATOR}"},
        ).fetchall()
    return [row[0] for row in rows]
