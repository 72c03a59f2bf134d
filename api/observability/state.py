"""How the work stands in the database: what waits, for how long, and how far folding and sealing have come.

One look is one short statement, however much there is: every part reads an index or a table of what waits. The metrics,
readiness and the doctor all look with it.
"""

import time
from dataclasses import dataclass
from typing import Final

from ledger.database import Tx, cursor

SECONDS_MAX: Final = 2
"""A look that takes longer is given up: whoever watches must not be one more load."""

_LOOK: Final = """
SELECT
    (SELECT count(*) FROM (SELECT FROM integrations.delivery_queue LIMIT 1000000) waiting),
    (SELECT extract(epoch FROM clock_timestamp() - min(d.received_at))::float8 FROM generate_series(0, 15) AS g (lane)
        CROSS JOIN LATERAL (SELECT q.id FROM integrations.delivery_queue q WHERE q.lane = g.lane::smallint
                            ORDER BY q.id LIMIT 1) oldest
        JOIN integrations.delivery d ON d.id = oldest.id),
    (SELECT count(*) FILTER (WHERE o.state = 'quarantined') FROM attention o),
    (SELECT count(*) FILTER (WHERE o.state = 'parked') FROM attention o),
    (SELECT extract(epoch FROM clock_timestamp() - o.recorded_at)::float8 FROM ledger.outbox o
        WHERE (o.era, o.xid) >= (SELECT here.era, here.xmin FROM here) ORDER BY o.era, o.xid, o.id LIMIT 1),
    (SELECT extract(epoch FROM clock_timestamp() - t.recorded_at)::float8 FROM ledger.transaction t
        WHERE (t.era, t.xid) >= (SELECT sealed.era, sealed.xid FROM sealed) ORDER BY t.era, t.xid LIMIT 1),
    (SELECT extract(epoch FROM clock_timestamp() - t.recorded_at)::float8 FROM ledger.transaction t
        WHERE (t.era, t.xid) >= (SELECT folded.era, folded.xid FROM folded) ORDER BY t.era, t.xid LIMIT 1),
    (SELECT here.xmin::text::bigint FROM here),
    (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint),
    (SELECT extract(epoch FROM clock_timestamp() - o.recorded_at)::float8 FROM ledger.outbox o
        WHERE (o.era, o.xid, o.id) > (SELECT p.era, p.xid, p.message_id FROM integrations.outbox_position p
                                      WHERE p.name = 'events') ORDER BY o.era, o.xid, o.id LIMIT 1),
    (SELECT extract(epoch FROM max(clock_timestamp() - first.due_at))::float8 FROM integrations.webhook_endpoint w
        CROSS JOIN LATERAL (SELECT s.due_at FROM integrations.event_stream s WHERE s.endpoint_id = w.id
                            ORDER BY s.due_at LIMIT 1) first
        WHERE w.state = 'enabled' AND w.failing_since IS NULL AND first.due_at < clock_timestamp()),
    (SELECT count(*) FROM integrations.webhook_endpoint w WHERE w.state = 'enabled' AND w.failing_since IS NULL),
    (SELECT count(*) FROM integrations.webhook_endpoint w WHERE w.state = 'enabled' AND w.failing_since IS NOT NULL),
    (SELECT count(*) FROM integrations.webhook_endpoint w WHERE w.state = 'disabled'),
    (SELECT count(*) FROM products.partner_warning w WHERE w.ended_at IS NULL AND w.kind = 'exposure'),
    (SELECT count(*) FROM products.partner_warning w WHERE w.ended_at IS NULL AND w.kind = 'prefund_low'),
    (SELECT extract(epoch FROM clock_timestamp() - min(s.recorded_at))::float8 FROM products.settlement s
        WHERE s.state IN ('recorded', 'pairing', 'returning'))
"""
_WITH: Final = """
WITH here AS (SELECT ledger.current_era() AS era, ledger.settled_xid() AS xmin),
sealed AS (
    SELECT coalesce(max(s.era), 0::int2) AS era, coalesce(max(s.to_xid), '0'::xid8) AS xid
    FROM (SELECT era, to_xid FROM ledger.seal ORDER BY number DESC LIMIT 1) s
), folded AS (
    SELECT coalesce(max(f.era), 0::int2) AS era, coalesce(max(f.xid), '0'::xid8) AS xid
    FROM ledger.fold f WHERE f.name = 'movements'
), attention AS (
    SELECT o.state FROM integrations.delivery_outcome o WHERE o.state IN ('quarantined', 'parked')
    AND NOT EXISTS (SELECT FROM integrations.delivery_outcome n
                    WHERE n.delivery_id = o.delivery_id AND n.attempt > o.attempt)
)
"""


@dataclass(frozen=True, slots=True)
class State:
    """One look. Ages are in seconds; None: nothing is waiting."""

    inbox_deliveries: int
    inbox_seconds: float | None
    quarantined: int
    parked: int
    outbox_seconds: float | None
    unsealed_seconds: float | None
    unfolded_seconds: float | None
    horizon_xid: int
    next_xid: int
    events_unread_seconds: float | None
    events_due_seconds: float | None
    endpoints_enabled: int
    endpoints_failing: int
    endpoints_disabled: int
    partners_near_ceiling: int
    prefunds_low: int
    settlements_seconds: float | None

    @property
    def transactions_behind(self) -> int:
        """How many transaction ids the settled horizon is behind: 0 when nothing is under way."""
        return max(0, self.next_xid - self.horizon_xid)


def look(tx: Tx) -> State:
    """How things stand, as a role that sees every row. Raises what the database raises, a timeout too."""
    with cursor(tx) as sql:
        sql.execute(f"SET LOCAL statement_timeout = '{SECONDS_MAX}s'")
        row = sql.execute((_WITH + _LOOK).encode()).fetchone()
    if row is None:
        raise RuntimeError("a statement without FROM gives one row")
    ages = [None if one is None else max(0.0, one) for one in (row[1], row[4], row[5], row[6])]
    return State(row[0], ages[0], row[2], row[3], ages[1], ages[2], ages[3], *row[7:])


class HorizonWatch:
    """How long the settled horizon has stood still with something under way: longer than any transaction should take."""

    def __init__(self) -> None:
        self._stood_at = 0
        self._since = time.monotonic()

    def lag_seconds(self, state: State) -> float:
        """Seconds since the horizon was first seen where it is; 0 when nothing is under way."""
        if state.horizon_xid != self._stood_at or not state.transactions_behind:
            self._stood_at, self._since = state.horizon_xid, time.monotonic()
            return 0.0
        return time.monotonic() - self._since
