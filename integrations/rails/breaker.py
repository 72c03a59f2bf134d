"""The circuit breaker of a rail: one row in the database, shared by every process that sends or asks.

Closed, everything passes. After `FAILURES_MAX` calls in a row that failed in the network's way it opens: nothing is called, what
is approved waits in the queue. After a while one process may probe with one call; if that succeeds it closes again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from products.payouts.rails import Report

FAILURES_MAX: Final = 5
OPEN_FOR: Final = timedelta(seconds=30)
PROBE_LEASE: Final = timedelta(seconds=60)


Admission = Literal["free", "probe", "refused"]
"""Whether a rail may be called: as one likes, with one call to find out whether it is back, or not at all."""


def admission(tx: Tx, rail_id: UUID, now: datetime, *, lease: timedelta = PROBE_LEASE) -> Admission:
    """Whether the rail may be called now. An open breaker lets one caller probe, and no other until that has an answer.

    A prober that died is waited for as long as `lease`.
    """
    cur = cursor(tx)
    row = cur.execute("SELECT opened_at FROM products.rail_breaker WHERE rail_id = %s", [rail_id]).fetchone()
    if row is None or row[0] is None:
        return "free"
    cur.execute(
        "UPDATE products.rail_breaker SET probe_at = %s WHERE rail_id = %s AND probe_at <= %s",
        [now + lease, rail_id, now],
    )
    return "probe" if cur.rowcount else "refused"


def unused(tx: Tx, rail_id: UUID, now: datetime) -> None:
    """Give a probe back for which there was nothing to call."""
    cursor(tx).execute(
        "UPDATE products.rail_breaker SET probe_at = %s WHERE rail_id = %s AND opened_at IS NOT NULL",
        [now, rail_id],
    )


def failed(reports: Sequence[Report]) -> str | None:
    """The network's failure that a call's reports show, if every one of them is one."""
    if reports and all(one.state in ("not_sent", "unknown") for one in reports):
        return reports[0].code or reports[0].state
    return None


def telling(reports: Sequence[Report]) -> list[Report]:
    """The reports that say something of the rail: not those that left a payment open for a reason of its own, or for want of time."""
    return [one for one in reports if not (one.of_payment and one.state in ("not_sent", "unknown"))]


def note(
    tx: Tx, rail_id: UUID, failure: str | None, now: datetime, *, open_for: timedelta = OPEN_FOR
) -> None:
    """Count what became of a call: None is a success, which closes the breaker; open, it stays so for `open_for`."""
    cur = cursor(tx)
    if failure is None:
        cur.execute(
            "UPDATE products.rail_breaker SET failures = 0, opened_at = NULL, probe_at = NULL"
            " WHERE rail_id = %s AND failures > 0",
            [rail_id],
        )
        return
    cur.execute(
        "UPDATE products.rail_breaker SET failures = failures + 1, last_failure = %(failure)s,"
        " opened_at = CASE WHEN failures + 1 >= %(max)s THEN coalesce(opened_at, %(now)s) ELSE opened_at END,"
        " probe_at = CASE WHEN failures + 1 >= %(max)s THEN %(again)s ELSE probe_at END WHERE rail_id = %(rail)s",
        {
            "failure": failure[:200],
            "max": FAILURES_MAX,
            "now": now,
            "again": now + open_for,
            "rail": rail_id,
        },
    )
