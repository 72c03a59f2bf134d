"""Days and periods: which day the books give to an instant, and through which day they are closed."""

from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import NotFound, PeriodError
from ledger.ids import new_id

BELONGS_ON: Final = "belongs_on"
"""In a transaction's details: the day that it belongs to, whose period was closed when it was booked."""


class BookDay(date):
    """The day on which something is booked, and the one that it belongs to where that one was closed already.

    It is made by `open_day` alone; posting writes `belongs_on` into the details of the transaction.
    """

    belongs_on: date | None = None


def effective_day(at: datetime, time_zone: str) -> date:
    """The day of an aware instant in an IANA time zone: Manila's New Year belongs to Manila's year."""
    if at.tzinfo is None:
        raise ValueError("an instant needs a zone")
    return at.astimezone(ZoneInfo(time_zone)).date()


def open_day(tx: Tx, fund_ids: Collection[UUID], day: date) -> BookDay:
    """``day``, or the first day after it on which all these funds are open; it stays open until ``tx`` ends.

    What is booked on a later day than it belongs to points back: see `BookDay`.
    """
    wanted = list(set(fund_ids))
    tx.execute(text("select ledger.share_books(:funds)"), {"funds": wanted})
    # In a new statement: the one that waited for the books would still see the period as it was.
    found = tx.execute(
        text("select count(*), max(closed_through) from ledger.fund where id = any(:funds)"),
        {"funds": wanted},
    ).one()
    if found[0] != len(wanted) or not wanted:
        raise NotFound("no such fund")
    closed: date = found[1]
    asked = day.belongs_on if isinstance(day, BookDay) and day.belongs_on else day
    booked = BookDay.fromordinal(max(day, closed + timedelta(days=1)).toordinal())
    if booked != asked:
        booked.belongs_on = date.fromordinal(asked.toordinal())
    return booked


def closed_through(tx: Tx, fund_id: UUID) -> date:
    """The last day for which the fund's books are closed; `date.min` when none is."""
    through: date | None = tx.execute(
        text("select closed_through from ledger.fund where id = :id"), {"id": fund_id}
    ).scalar()
    if through is None:
        raise NotFound("no such fund")
    return through


def close_period(tx: Tx, fund_id: UUID, through: date, *, actor: str, clock: Clock, remark: str = "") -> None:
    """Close the fund's books through a day. Waits for postings under way; raises `PeriodError` if closed so far already."""
    if not _move(tx, fund_id, through, "close", remark, actor, clock):
        raise PeriodError("the books are closed through that day already")


def reopen_period(tx: Tx, fund_id: UUID, through: date, *, actor: str, clock: Clock, reason: str) -> None:
    """Leave the fund's books closed only through an earlier day, for a reason that is kept.

    Raises `PeriodError` without a reason, or when ``through`` is not before the day through which they are closed.
    """
    if not reason.strip():
        raise PeriodError("reopening a period needs a reason")
    if not _move(tx, fund_id, through, "reopen", reason, actor, clock):
        raise PeriodError("the books are not closed beyond that day")


def _move(
    tx: Tx,
    fund_id: UUID,
    through: date,
    kind: Literal["close", "reopen"],
    remark: str,
    actor: str,
    clock: Clock,
) -> bool:
    closed_through(tx, fund_id)
    moved = tx.execute(
        text("select ledger.move_period(:fund, :event, :through, :kind, :remark, :actor, :at)"),
        {
            "fund": fund_id,
            "event": new_id(),
            "through": through,
            "kind": kind,
            "remark": remark,
            "actor": actor,
            "at": clock.now(),
        },
    )
    return moved.scalar_one() is not None
