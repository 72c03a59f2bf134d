"""A programme's months: which are closed, which were closed and opened again, which are open."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.periods import effective_day
from products.closing.close import Close, closes
from products.closing.period import Period, find, next_month

State = Literal["open", "closed", "reopened"]


@dataclass(frozen=True, slots=True)
class Month:
    """A month and what became of it; ``close`` is its last, which stands unless the month was reopened."""

    period: Period
    state: State
    over: bool
    close: Close | None


def months(
    tx: Tx, programme: str, now: datetime, *, programmes: Collection[UUID] | None = None
) -> list[Month]:
    """Every month from the first that anything moved in to the present one, the newest first. Raises `NotFound`."""
    at = find(tx, programme, date.min, programmes=programmes)
    today = effective_day(now, at.time_zone)
    last: dict[date, Close] = {}
    for one in closes(tx, at.programme_id):
        last.setdefault(one.month, one)
    month = min(_first(tx, at) or today, *last, today).replace(day=1)
    found = []
    while month <= today:
        found.append(described(_in(at, month), last.get(month), today))
        month = next_month(month)
    return found[::-1]


def described(period: Period, last: Close | None, today: date) -> Month:
    """What became of a month whose last close is ``last``."""
    state: State = "closed" if period.closed else "open"
    if last is not None and not last.stands:
        state = "reopened"
    return Month(period, state, today > period.through, last)


def _in(at: Period, month: date) -> Period:
    return Period(at.programme_id, at.programme, at.name, at.time_zone, at.currency, month, at.funds)


def _first(tx: Tx, at: Period) -> date | None:
    """The first month in which a hot account of the funds moved; every event moves one, and they are few."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT min(moved.month) FROM ledger.account a CROSS JOIN LATERAL ("
            "SELECT m.month FROM ledger.account_month m WHERE m.account_id = a.id ORDER BY m.month LIMIT 1) AS moved"
            " WHERE a.fund_id = ANY (%s) AND a.hot",
            (at.fund_ids,),
        ).fetchone()
    return row[0] if row is not None else None
