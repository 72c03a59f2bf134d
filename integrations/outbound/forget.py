"""Forgetting: events after their retention with all that was delivered of them, ended secrets, and what was read of the outbox."""

from datetime import timedelta
from typing import Final

from ledger.clock import Clock
from ledger.database import Tx, cursor

EVENTS_MAX: Final = 2_000
"""Events that one transaction forgets."""
MESSAGES_MAX: Final = 5_000
MESSAGES_KEPT: Final = timedelta(days=7)
"""How long a message stays in the outbox at least after it became events: for whoever traces what was told."""


def forget(tx: Tx, clock: Clock, *, retention: timedelta) -> int:
    """Delete the oldest events past their retention, with deliveries and attempts; how many. Call it until none is left."""
    sql = cursor(tx)
    # ids sort by time: the oldest are looked at, and only they
    sql.execute(
        """
        SELECT id FROM (SELECT id, occurred_at FROM integrations.event ORDER BY id LIMIT %s) AS oldest
        WHERE occurred_at < %s
        """,
        (EVENTS_MAX, clock.now() - retention),
    )
    ids = [row[0] for row in sql.fetchall()]
    if ids:
        sql.execute(
            """
            DELETE FROM integrations.event_attempt a USING integrations.event_delivery d
            WHERE d.event_id = ANY (%s) AND a.endpoint_id = d.endpoint_id AND a.event_id = d.event_id
            """,
            (ids,),
        )
        sql.execute("DELETE FROM integrations.event_delivery WHERE event_id = ANY (%s)", (ids,))
        sql.execute("DELETE FROM integrations.event WHERE id = ANY (%s)", (ids,))
    sql.execute("DELETE FROM integrations.endpoint_secret WHERE expires_at < %s", (clock.now(),))
    return len(ids)


def prune_outbox(tx: Tx, *, keep: timedelta = MESSAGES_KEPT) -> int:
    """Delete the oldest messages that were read and are older than `keep`; how many. Call it until none is left."""
    row = cursor(tx).execute("SELECT integrations.prune_outbox(%s, %s)", (keep, MESSAGES_MAX)).fetchone()
    return int(row[0]) if row else 0
