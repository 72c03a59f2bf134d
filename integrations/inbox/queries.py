"""What came in and what became of it: for `GET /v1/deliveries`, the command line and the metrics; and replay."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from integrations.inbox.keys import BodyUnreadable, open_keys
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from products.keyring import Keyring

_COLUMNS = """
d.id, d.partner_id, d.kind, d.event_type, d.received_at,
CASE WHEN o.state IS NULL OR o.state = 'replayed' THEN 'queued' ELSE o.state END,
o.reason, o.detail, o.remittance_id, o.processed_at, coalesce(o.attempt, 0), d.era, d.xid::text::bigint
"""
_LATEST = """
integrations.delivery d LEFT JOIN LATERAL (
    SELECT * FROM integrations.delivery_outcome WHERE delivery_id = d.id ORDER BY attempt DESC LIMIT 1
) o ON true
"""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A delivery and its standing outcome. `state` is ``queued`` until there is one; `attempts` counts outcomes.

    `era` and `xid` are its place before the settled horizon, for cursors.
    """

    id: UUID
    partner_id: UUID
    kind: str
    event_type: str
    received_at: datetime
    state: str
    reason: str | None
    detail: dict[str, Any] | None
    remittance_id: UUID | None
    processed_at: datetime | None
    attempts: int
    era: int
    xid: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One outcome in a delivery's history."""

    attempt: int
    state: str
    reason: str | None
    detail: dict[str, Any] | None
    remittance_id: UUID | None
    processed_at: datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much waits for the workers, and since when."""

    deliveries: int
    oldest_received_at: datetime | None


def deliveries(
    tx: Tx,
    partner_id: UUID | None = None,
    *,
    states: Sequence[str] = (),
    after: tuple[int, int, UUID] | None = None,
    limit: int = 50,
) -> list[DeliveryView]:
    """Deliveries behind the settled horizon in their order (era, xid, id), from `after` on.

    Of one partner, or of all that row-level security shows. `states` filters by the standing state.
    """
    era, xid, last = after or (0, 0, UUID(int=0))
    with cursor(tx) as sql:
        sql.execute(
            f"""
            SELECT {_COLUMNS} FROM {_LATEST}
            WHERE (d.era, d.xid, d.id) > (%(era)s::int2, %(xid)s::text::xid8, %(last)s)
              AND (d.era < (SELECT max(era) FROM ledger.era) OR d.xid < pg_snapshot_xmin(pg_current_snapshot()))
              AND (%(partner)s::uuid IS NULL OR d.partner_id = %(partner)s)
              AND (cardinality(%(states)s::text[]) = 0 OR
                   CASE WHEN o.state IS NULL OR o.state = 'replayed' THEN 'queued' ELSE o.state END
                   = ANY(%(states)s::text[]))
            ORDER BY d.era, d.xid, d.id LIMIT %(limit)s
            """,
            {
                "era": era,
                "xid": str(xid),
                "last": last,
                "partner": partner_id,
                "states": list(states),
                "limit": limit,
            },
        )
        return [DeliveryView(*row) for row in sql]


def delivery(tx: Tx, delivery_id: UUID) -> DeliveryView:
    """One delivery. Raises `NotFound`, also for one that row-level security hides."""
    with cursor(tx) as sql:
        row = sql.execute(f"SELECT {_COLUMNS} FROM {_LATEST} WHERE d.id = %s", (delivery_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such delivery")
    return DeliveryView(*row)


def history(tx: Tx, delivery_id: UUID) -> list[Attempt]:
    """Every outcome that a delivery has had, oldest first; replays are among them."""
    with cursor(tx) as sql:
        sql.execute(
            "SELECT attempt, state, reason, detail, remittance_id, processed_at FROM integrations.delivery_outcome"
            " WHERE delivery_id = %s ORDER BY attempt",
            (delivery_id,),
        )
        return [Attempt(*row) for row in sql]


def content(tx: Tx, keyring: Keyring, delivery_id: UUID) -> tuple[str, bytes]:
    """The sender's ``webhook-id`` and the raw body. Raises `NotFound`; `BodyUnreadable` once its key is destroyed."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT partner_id, inbox_key_id, body_sealed FROM integrations.delivery WHERE id = %s",
            (delivery_id,),
        ).fetchone()
    if row is None:
        raise NotFound("there is no such delivery")
    partner_id, key_id, sealed = row
    key = open_keys(tx, keyring, [key_id]).get(key_id)
    if key is None:
        raise BodyUnreadable("the key of this day's bodies has been destroyed")
    return key.open(delivery_id, partner_id, sealed)


def backlog(tx: Tx) -> Backlog:
    """What is queued now."""
    with cursor(tx) as sql:
        sql.execute(
            """
            SELECT (SELECT count(*) FROM integrations.delivery_queue),
                   (SELECT min(d.received_at) FROM integrations.delivery d
                    WHERE d.id IN (SELECT (SELECT id FROM integrations.delivery_queue q
                                           WHERE q.lane = lane.lane ORDER BY id LIMIT 1)
                                   FROM generate_series(0, 15) AS lane (lane)))
            """
        )
        count, oldest = sql.fetchone() or (0, None)
    return Backlog(count, oldest)


REPLAYABLE: Final = ("quarantined", "parked", "unallocated")
WAITING: Final = ("parked", "unallocated")
"""What may be tried again unasked: a quarantined delivery would only be quarantined again, for ever."""


def replay(tx: Tx, delivery_ids: Sequence[UUID], *, actor: str, clock: Clock, approved: bool = False) -> int:
    """Queue quarantined, parked or unallocated deliveries again; how many. Each one's history says so, and who did it.

    `approved`: a manager lets them do what is otherwise only a request (reverse what is settled).
    Raises `Conflict` when one of them is neither, or was never accepted (its sender has to correct and resend it).
    """
    replayed = requeue(tx, delivery_ids, actor=actor, clock=clock, approved=approved)
    if replayed != len(set(delivery_ids)):
        raise Conflict("only accepted deliveries that are quarantined, parked or unallocated can be replayed")
    return replayed


def requeue(
    tx: Tx,
    delivery_ids: Sequence[UUID],
    *,
    actor: str,
    clock: Clock,
    approved: bool = False,
    states: Sequence[str] = REPLAYABLE,
) -> int:
    """As `replay`, passing over deliveries whose standing state is none of `states`; how many were queued."""
    with cursor(tx) as sql:
        sql.execute(
            """
            WITH standing AS (
                SELECT DISTINCT ON (o.delivery_id) o.delivery_id, o.attempt, o.state
                FROM integrations.delivery_outcome o WHERE o.delivery_id = ANY(%(ids)s)
                ORDER BY o.delivery_id, o.attempt DESC
            ), replayed AS (
                INSERT INTO integrations.delivery_outcome
                    (delivery_id, attempt, partner_id, state, reason, detail, processed_at)
                SELECT d.id, s.attempt + 1, d.partner_id, 'replayed', NULL, %(detail)s, %(now)s
                FROM standing s JOIN integrations.delivery d ON d.id = s.delivery_id
                WHERE s.state = ANY(%(replayable)s) AND d.kind = 'new'
                  AND NOT EXISTS (SELECT 1 FROM integrations.delivery_queue q WHERE q.lane = d.lane AND q.id = d.id)
                ORDER BY d.id
                ON CONFLICT DO NOTHING
                RETURNING delivery_id, attempt
            )
            INSERT INTO integrations.delivery_queue (lane, id, attempt, approved)
            SELECT d.lane, d.id, r.attempt + 1, %(approved)s FROM replayed r JOIN integrations.delivery d ON d.id = r.delivery_id
            """,
            {
                "ids": list(set(delivery_ids)),
                "detail": Jsonb({"actor": actor, "approved": approved}),
                "now": clock.now(),
                "approved": approved,
                "replayable": list(states),
            },
        )
        return sql.rowcount
