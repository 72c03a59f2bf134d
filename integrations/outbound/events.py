"""Outbox → events: each message becomes what its partner is told, in the words of that partner's own ids.

One reader at a time holds the row of `outbox_position`; messages are read behind the settled horizon, so none is passed by.
The events, who is to get them, and the new position are one transaction: however often it is tried, each message is told
once. What would only repeat the last event of the same thing is folded away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from integrations.outbound.drafts import Draft, drafts_of, encode
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.horizon import Position
from ledger.ids import new_id
from ledger.outbox import read

CONSUMER: Final = "events"
MESSAGES_MAX: Final = 1_000
"""Messages that one transaction turns into events."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """What one `expand` did; `more` when it stopped at its limit."""

    messages: int
    events: int
    deliveries: int
    more: bool


def expand(tx: Tx, clock: Clock, *, retention: timedelta, limit: int = MESSAGES_MAX) -> Expanded:
    """Turn the next messages of the outbox into events, and queue them for the endpoints that want them.

    Does nothing while another transaction is at it. Messages older than `retention` are passed over: their events would be
    forgotten at once.
    """
    row = (
        cursor(tx)
        .execute(
            "SELECT era, xid::text::bigint, message_id, seq FROM integrations.outbox_position WHERE name = %s"
            " FOR UPDATE SKIP LOCKED",
            (CONSUMER,),
        )
        .fetchone()
    )
    if row is None:
        return Expanded(0, 0, 0, more=False)
    messages = read(tx, Position(row[0], row[1], row[2]), limit=limit)
    if not messages:
        return Expanded(0, 0, 0, more=False)
    since = clock.now() - retention
    drafts = drafts_of(tx, [one for one in messages if one.recorded_at > since])
    fresh = _folded(tx, drafts)
    deliveries = _write(tx, fresh, row[3], clock.now()) if fresh else 0
    last = messages[-1].position
    cursor(tx).execute(
        "UPDATE integrations.outbox_position"
        " SET era = %s, xid = %s::text::xid8, message_id = %s, seq = %s, read_at = %s WHERE name = %s",
        (last.era, str(last.xid), last.id, row[3] + len(fresh), clock.now(), CONSUMER),
    )
    return Expanded(len(messages), len(fresh), deliveries, more=len(messages) >= limit)


def _folded(tx: Tx, drafts: Sequence[Draft]) -> list[Draft]:
    """Without those that say of their subject what the last event of that type said already."""
    if not drafts:
        return []
    last = _last_digests(tx, {draft.key for draft in drafts})
    fresh: list[Draft] = []
    for draft in drafts:
        digest = draft.digest
        if last.get(draft.key) != digest:
            last[draft.key] = digest
            fresh.append(draft)
    return fresh


def _last_digests(tx: Tx, keys: Iterable[tuple[UUID, str, str]]) -> dict[tuple[UUID, str, str], bytes]:
    wanted = sorted(keys)
    rows = cursor(tx).execute(
        """
        SELECT k.partner, k.subject, k.type, e.digest
        FROM unnest(%b::uuid[], %b::text[], %b::text[]) AS k (partner, subject, type)
        CROSS JOIN LATERAL (
            SELECT digest FROM integrations.event e
            WHERE e.partner_id = k.partner AND e.subject = k.subject AND e.type = k.type ORDER BY e.seq DESC LIMIT 1
        ) AS e
        """,
        ([key[0] for key in wanted], [key[1] for key in wanted], [key[2] for key in wanted]),
    )
    return {(row[0], row[1], row[2]): bytes(row[3]) for row in rows}


def _write(tx: Tx, fresh: Sequence[Draft], seq: int, now: datetime) -> int:
    """Number and store the events, and queue them for the endpoints that want them; how many deliveries."""
    ids = [new_id() for _ in fresh]
    sql = cursor(tx)
    sql.execute(
        """
        INSERT INTO integrations.event
            (id, seq, partner_id, stream, link_id, type, subject, digest, data, occurred_at)
        SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[],
                             %b::bytea[], %b::text[]::jsonb[], %b::timestamptz[])
        """,
        (
            ids,
            list(range(seq + 1, seq + 1 + len(fresh))),
            [one.partner_id for one in fresh],
            [one.stream for one in fresh],
            [one.link_id for one in fresh],
            [one.type for one in fresh],
            [one.subject for one in fresh],
            [one.digest for one in fresh],
            [encode(one.data) for one in fresh],
            [one.occurred_at for one in fresh],
        ),
    )
    # Held, so that an endpoint which is disabled meanwhile is seen so here, or sees these deliveries there.
    sql.execute(
        "SELECT id FROM integrations.webhook_endpoint WHERE partner_id = ANY (%s) AND state = 'enabled'"
        " ORDER BY id FOR SHARE",
        (sorted({one.partner_id for one in fresh}),),
    )
    endpoints = [row[0] for row in sql.fetchall()]
    wanted = {"ids": ids, "endpoints": endpoints, "now": now}
    return queue(tx, _NEW, wanted) if endpoints else 0


_NEW: Final = """
SELECT w.id AS endpoint_id, e.id AS event_id, e.partner_id, e.stream, e.seq
FROM integrations.event e JOIN integrations.webhook_endpoint w ON w.partner_id = e.partner_id
WHERE e.id = ANY (%(ids)s) AND w.id = ANY (%(endpoints)s)
  AND (cardinality(w.event_types) = 0 OR e.type = ANY (w.event_types))
"""


def queue(tx: Tx, wanted: str, parameters: Mapping[str, Any], *, again: bool = False) -> int:
    """Queue what a query finds (endpoint_id, event_id, partner_id, stream, seq) to be sent at ``now``; how many.

    What is queued already stays as it is; what was delivered or given up begins anew. `again`: somebody asks for it, so a
    stream that waits for its next attempt waits no longer.

    A stream's row is taken before its deliveries, by everyone who writes them: whoever finishes a stream either sees them or
    leaves the row to be made here.
    """
    sql = cursor(tx)
    sql.execute(
        f"""
        INSERT INTO integrations.event_stream (endpoint_id, stream, partner_id, due_at)
        SELECT DISTINCT endpoint_id, stream, partner_id, %(now)s::timestamptz FROM ({wanted}) AS wanted
        ORDER BY endpoint_id, stream
        ON CONFLICT (endpoint_id, stream) DO UPDATE SET due_at =
            CASE WHEN %(again)s AND event_stream.claim IS NULL THEN excluded.due_at ELSE event_stream.due_at END
        """,
        {**parameters, "again": again},
    )
    sql.execute(
        f"""
        INSERT INTO integrations.event_delivery AS d
            (endpoint_id, event_id, partner_id, stream, seq, state, queued_at)
        SELECT endpoint_id, event_id, partner_id, stream, seq, 'waiting', %(now)s FROM ({wanted}) AS wanted
        ORDER BY endpoint_id, event_id
        ON CONFLICT (endpoint_id, event_id) DO UPDATE
            SET state = 'waiting', reason = NULL, tries = 0, queued_at = excluded.queued_at, finished_at = NULL
            WHERE d.state <> 'waiting'
        """,
        parameters,
    )
    return max(0, sql.rowcount)
