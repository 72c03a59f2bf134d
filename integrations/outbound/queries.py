"""What became of an endpoint's deliveries: lists, each attempt's history, and sending again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args
from uuid import UUID

from integrations.outbound.endpoints import Endpoint, EndpointDisabled
from integrations.outbound.events import queue
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import NotFound

State = Literal["waiting", "delivered", "failed"]
Which = Literal["all", "failed"]

REPLAYED_MAX: Final = 10_000
"""Events that one replay queues at most; it says where to go on."""

_SELECT: Final = """
SELECT d.event_id, d.seq, e.type, e.link_id, d.state, d.reason, d.attempts, d.queued_at, d.finished_at,
       CASE WHEN d.state = 'waiting' THEN s.due_at END, a.status, a.error
FROM integrations.event_delivery d
JOIN integrations.event e ON e.id = d.event_id
LEFT JOIN integrations.event_stream s ON s.endpoint_id = d.endpoint_id AND s.stream = d.stream
LEFT JOIN integrations.event_attempt a
    ON a.endpoint_id = d.endpoint_id AND a.event_id = d.event_id AND a.number = d.attempts
"""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """An event for one endpoint. `due_at`: when its stream is tried next; `status`, `error`: of the last attempt."""

    event_id: UUID
    seq: int
    type: str
    link_id: UUID | None
    state: State
    reason: str | None
    attempts: int
    queued_at: datetime
    finished_at: datetime | None
    due_at: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt: no bodies."""

    number: int
    started_at: datetime
    milliseconds: int
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay queued; `last`: the number of the last event, to go on after, when it stopped at its limit."""

    queued: int
    last: int | None


def deliveries(
    tx: Tx, endpoint: Endpoint, *, states: Sequence[State] = (), before: int | None = None, limit: int = 50
) -> list[DeliveryView]:
    """An endpoint's deliveries, the newest event first, before a number."""
    rows = cursor(tx).execute(
        f"""{_SELECT} WHERE d.endpoint_id = %(endpoint)s AND (%(before)s::bigint IS NULL OR d.seq < %(before)s)
            AND (cardinality(%(states)s::text[]) = 0 OR d.state = ANY (%(states)s::text[]))
            ORDER BY d.seq DESC LIMIT %(limit)s""",
        {"endpoint": endpoint.id, "before": before, "states": list(states), "limit": limit},
    )
    return [DeliveryView(*row) for row in rows]


def delivery(tx: Tx, endpoint: Endpoint, event_id: UUID) -> DeliveryView:
    """One delivery. Raises NotFound."""
    row = (
        cursor(tx)
        .execute(f"{_SELECT} WHERE d.endpoint_id = %s AND d.event_id = %s", (endpoint.id, event_id))
        .fetchone()
    )
    if row is None:
        raise NotFound("This event was not queued for this endpoint.")
    return DeliveryView(*row)


def history(tx: Tx, endpoint: Endpoint, event_id: UUID) -> list[AttemptView]:
    """Every attempt of a delivery, oldest first, those before a replay among them."""
    rows = cursor(tx).execute(
        "SELECT number, started_at, milliseconds, status, error FROM integrations.event_attempt"
        " WHERE endpoint_id = %s AND event_id = %s ORDER BY number",
        (endpoint.id, event_id),
    )
    return [AttemptView(*row) for row in rows]


def counts(tx: Tx, endpoint: Endpoint) -> dict[str, int]:
    """How many of an endpoint's deliveries are in each state."""
    rows = cursor(tx).execute(
        "SELECT state, count(*) FROM integrations.event_delivery WHERE endpoint_id = %s GROUP BY state",
        (endpoint.id,),
    )
    found = {row[0]: row[1] for row in rows}
    return {state: found.get(state, 0) for state in get_args(State)}


def replay(tx: Tx, clock: Clock, endpoint: Endpoint, event_id: UUID) -> None:
    """Send one event to the endpoint again, or for the first time, with the same id, before later ones of its member.

    Raises NotFound for an event that isn't the partner's, EndpointDisabled.
    """
    _require_enabled(endpoint)
    found = (
        cursor(tx)
        .execute(
            "SELECT FROM integrations.event WHERE id = %s AND partner_id = %s",
            (event_id, endpoint.partner_id),
        )
        .fetchone()
    )
    if found is None:
        raise NotFound("There is no such event.")
    queue(
        tx,
        "SELECT %(endpoint)s::uuid AS endpoint_id, id AS event_id, partner_id, stream, seq"
        " FROM integrations.event WHERE id = %(event)s",
        {"endpoint": endpoint.id, "event": event_id, "now": clock.now()},
        again=True,
    )


def replay_since(
    tx: Tx, clock: Clock, endpoint: Endpoint, since: datetime, which: Which = "all", *, after: int = 0
) -> Replayed:
    """Send again every event from `since` on that the endpoint's filter lets through, oldest first, at most `REPLAYED_MAX`.

    `failed`: only those that did not arrive: given up, or never queued because the endpoint wasn't there or was disabled.
    What waits already stays queued. `after`: the number that an earlier replay stopped at. Raises EndpointDisabled.
    """
    _require_enabled(endpoint)
    rows = cursor(tx).execute(
        """
        SELECT e.id, e.seq FROM integrations.event e
        WHERE e.partner_id = %(partner)s AND e.occurred_at >= %(since)s AND e.seq > %(after)s
          AND (cardinality(%(types)s::text[]) = 0 OR e.type = ANY (%(types)s::text[]))
          AND NOT EXISTS (
              SELECT FROM integrations.event_delivery d WHERE d.endpoint_id = %(endpoint)s AND d.event_id = e.id
              AND (d.state = 'waiting' OR (d.state = 'delivered' AND %(failed)s)))
        ORDER BY e.seq LIMIT %(limit)s
        """,
        {
            "partner": endpoint.partner_id,
            "endpoint": endpoint.id,
            "since": since,
            "after": after,
            "types": list(endpoint.event_types),
            "failed": which == "failed",
            "limit": REPLAYED_MAX + 1,
        },
    )
    found = rows.fetchall()
    chosen = found[:REPLAYED_MAX]
    queued = queue(
        tx,
        "SELECT %(endpoint)s::uuid AS endpoint_id, id AS event_id, partner_id, stream, seq"
        " FROM integrations.event WHERE id = ANY (%(ids)s::uuid[])",
        {"endpoint": endpoint.id, "ids": [row[0] for row in chosen], "now": clock.now()},
        again=True,
    )
    return Replayed(queued, chosen[-1][1] if len(found) > REPLAYED_MAX else None)


def _require_enabled(endpoint: Endpoint) -> None:
    if endpoint.state != "enabled":
        raise EndpointDisabled("The endpoint is disabled: enable it first.")
