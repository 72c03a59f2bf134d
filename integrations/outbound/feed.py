"""The feed: every event of a partner in the order of its numbers, whatever became of its deliveries.

Numbers are dealt by one writer at a time, to what was read behind the settled horizon: nothing appears behind a cursor later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound

_COLUMNS = "id, seq, partner_id, link_id, type, data, occurred_at"


@dataclass(frozen=True, slots=True)
class Event:
    """An event, as its partner is told it."""

    id: UUID
    seq: int
    partner_id: UUID
    link_id: UUID | None
    type: str
    data: dict[str, Any]
    occurred_at: datetime


def events(
    tx: Tx,
    partner_id: UUID,
    *,
    types: Sequence[str] = (),
    link_id: UUID | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[Event]:
    """A partner's events after a number, oldest first; of these types, and of one member, where that is said."""
    rows = cursor(tx).execute(
        f"""
        SELECT {_COLUMNS} FROM integrations.event
        WHERE partner_id = %(partner)s AND seq > %(after)s
          AND (cardinality(%(types)s::text[]) = 0 OR type = ANY (%(types)s::text[]))
          {"AND link_id = %(link)s" if link_id is not None else ""}
        ORDER BY seq LIMIT %(limit)s
        """,
        {"partner": partner_id, "after": after, "types": list(types), "link": link_id, "limit": limit},
    )
    return [Event(*row) for row in rows]


def event(tx: Tx, event_id: UUID, partner_id: UUID) -> Event:
    """One event of a partner. Raises NotFound, also for one that is older than events are kept."""
    row = (
        cursor(tx)
        .execute(
            f"SELECT {_COLUMNS} FROM integrations.event WHERE id = %s AND partner_id = %s",
            (event_id, partner_id),
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such event.")
    return Event(*row)
