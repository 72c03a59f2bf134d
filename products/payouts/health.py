"""How rails do: what waits for them, what is under way, what is unknown, and their breakers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ledger.database import Tx, cursor


@dataclass(frozen=True, slots=True)
class Health:
    """A rail's queue (approved payouts that wait), payouts under way and, of those, unknown ones; and its breaker."""

    queued: int
    under_way: int
    unknown: int
    failures: int
    opened_at: datetime | None
    last_failure: str | None


def health_of(tx: Tx, rail_ids: Sequence[UUID]) -> dict[UUID, Health]:
    """How rails do, as far as `tx` may see their payouts."""
    rows = cursor(tx).execute(
        """
        SELECT r.id, (SELECT count(*) FROM products.payout p WHERE p.rail_id = r.id AND p.state = 'approved'),
               o.under_way, o.unknown, coalesce(b.failures, 0), b.opened_at, b.last_failure
        FROM products.rail r
        LEFT JOIN products.rail_breaker b ON b.rail_id = r.id
        CROSS JOIN LATERAL (
            SELECT count(*) AS under_way, count(*) FILTER (WHERE p.state = 'unknown') AS unknown
            FROM products.payout p WHERE p.rail_id = r.id AND p.state IN ('submitted', 'in_transit', 'unknown')) AS o
        WHERE r.id = ANY (%s)
        """,
        [list(rail_ids)],
    )
    return {row[0]: Health(*row[1:]) for row in rows}
