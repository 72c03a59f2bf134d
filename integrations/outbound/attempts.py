"""Claiming what is due and recording what came of it: the database's side of delivering.

A worker claims streams, not deliveries: a stream (a member's events for one endpoint) has one sender at a time, who sends
its oldest first and goes on only when that one is delivered or given up. A claim is a lease: it moves the stream's `due_at`
ahead, so what a killed worker held is due again when the lease ends, with the same ids and in the same order.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal
from uuid import UUID

from integrations.outbound import endpoints
from integrations.outbound.transport import Answer
from integrations.partners.standard_webhooks import SymmetricSecret
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.ids import new_id
from products.keyring import Keyring

SCHEDULE: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""How long after the attempt before it each one is made: the schedule that Standard Webhooks recommends. Ten attempts, three days."""
JITTER: Final = 0.1
"""By how much, at most, a wait is longer or shorter, so that what failed together doesn't come back together."""
RETRY_AFTER_MAX: Final = timedelta(days=1)
FAILING_MAX: Final = timedelta(days=5)
"""An endpoint to which nothing was delivered for so long is disabled."""
LEASE: Final = timedelta(seconds=75)
"""Longer than the `START_WITHIN` of a claim and the time limit of an attempt together."""
START_WITHIN: Final = timedelta(seconds=30)
"""A claimed stream that was not begun by then is given back."""
EVENTS_OF_STREAM_MAX: Final = 8
"""Events that one claim takes of a stream: the next claim goes on with it."""
GONE: Final = 410

Outcome = Literal["delivered", "again", "exhausted", "gone"]


@dataclass(frozen=True, slots=True)
class Destination:
    """An endpoint that has something due."""

    endpoint_id: UUID
    partner_id: UUID
    failing: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that waits for one endpoint. `attempts`: made so far; `tries`: of those, since it was queued last."""

    event_id: UUID
    type: str
    occurred_at: datetime
    data: dict[str, Any]
    attempts: int
    tries: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A stream that is ours until the lease ends, with its oldest events in order."""

    stream: UUID
    pending: tuple[Pending, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one `claim` took, with what it takes to send it."""

    id: UUID
    endpoint_id: UUID
    url: str
    secrets: tuple[SymmetricSecret, ...]
    at: datetime
    streams: tuple[Claimed, ...]


@dataclass(frozen=True, slots=True)
class Attempted:
    """One attempt that was made: at `started_at`, with what `answer`, and what follows."""

    event: Pending
    started_at: datetime
    answer: Answer
    outcome: Outcome
    due_at: datetime | None = None


@dataclass(slots=True)
class Done:
    """A claimed stream that is finished with for now; nothing attempted: given back."""

    claim: UUID
    endpoint_id: UUID
    stream: UUID
    attempts: list[Attempted] = field(default_factory=list)


def destinations(tx: Tx, now: datetime, *, limit: int, besides: Sequence[UUID] = ()) -> list[Destination]:
    """The enabled endpoints with something due, those that work first; `besides`: not these."""
    rows = cursor(tx).execute(
        """
        SELECT w.id, w.partner_id, w.failing_since IS NOT NULL FROM integrations.webhook_endpoint w
        WHERE w.state = 'enabled' AND NOT w.id = ANY (%(besides)s) AND EXISTS (
            SELECT FROM integrations.event_stream s WHERE s.endpoint_id = w.id AND s.due_at <= %(now)s)
        ORDER BY w.failing_since NULLS FIRST, w.id LIMIT %(limit)s
        """,
        {"now": now, "besides": list(besides), "limit": limit},
    )
    return [Destination(*row) for row in rows]


def claim(tx: Tx, keyring: Keyring, clock: Clock, endpoint_id: UUID, *, streams: int) -> Claim | None:
    """Take up to `streams` streams of an endpoint that are due; None when none is, or it is not enabled any more."""
    now, claim_id = clock.now(), new_id()
    sql = cursor(tx)
    endpoint = sql.execute(
        "SELECT url FROM integrations.webhook_endpoint WHERE id = %s AND state = 'enabled'", (endpoint_id,)
    ).fetchone()
    if endpoint is None:
        return None
    sql.execute(
        """
        WITH due AS MATERIALIZED (
            SELECT stream FROM integrations.event_stream WHERE endpoint_id = %(endpoint)s AND due_at <= %(now)s
            ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )
        UPDATE integrations.event_stream s SET due_at = %(lease)s, claim = %(claim)s FROM due
        WHERE s.endpoint_id = %(endpoint)s AND s.stream = due.stream RETURNING s.stream
        """,
        {
            "endpoint": endpoint_id,
            "now": now,
            "lease": now + LEASE,
            "claim": claim_id,
            "limit": streams,
        },
    )
    taken = [row[0] for row in sql.fetchall()]
    if not taken:
        return None
    heads: dict[UUID, list[Pending]] = {stream: [] for stream in taken}
    # in a new statement: what the stream's last holder finished is seen as finished
    sql.execute(
        """
        SELECT s.stream, e.id, e.type, e.occurred_at, e.data, d.attempts, d.tries
        FROM unnest(%(streams)s::uuid[]) AS s (stream)
        CROSS JOIN LATERAL (
            SELECT event_id, attempts, tries FROM integrations.event_delivery
            WHERE endpoint_id = %(endpoint)s AND stream = s.stream AND state = 'waiting' ORDER BY seq LIMIT %(limit)s
        ) AS d
        JOIN integrations.event e ON e.id = d.event_id ORDER BY e.seq
        """,
        {"streams": taken, "endpoint": endpoint_id, "limit": EVENTS_OF_STREAM_MAX},
    )
    for stream, *rest in sql:
        heads[stream].append(Pending(*rest))
    secrets = endpoints.secrets_of(tx, keyring, [endpoint_id], now).get(endpoint_id, [])
    return Claim(
        claim_id,
        endpoint_id,
        endpoint[0],
        tuple(secrets),
        now,
        tuple(Claimed(stream, tuple(pending)) for stream, pending in heads.items()),
    )


def judge(event: Pending, started_at: datetime, answer: Answer, now: datetime) -> Attempted:
    """What follows from an answer: delivered by 2xx alone; again as the schedule and `Retry-After` say; given up after the last."""
    if answer.error is None:
        return Attempted(event, started_at, answer, "delivered")
    if answer.status == GONE:
        return Attempted(event, started_at, answer, "gone")
    made = event.tries + 1
    if made >= len(SCHEDULE):
        return Attempted(event, started_at, answer, "exhausted")
    wait = SCHEDULE[made] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  not a secret
    asked = retry_after(answer.retry_after, now)
    return Attempted(event, started_at, answer, "again", now + max(wait, asked))


def retry_after(header: str | None, now: datetime) -> timedelta:
    """What a ``Retry-After`` asks for, in seconds or as a date (RFC 9110 §10.2.3), a day at most; none when it can't be read."""
    if header is None:
        return timedelta()
    if header.isascii() and header.isdigit():
        asked = timedelta(seconds=min(int(header), RETRY_AFTER_MAX.total_seconds()))
    else:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return timedelta()
        asked = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(asked, timedelta()), RETRY_AFTER_MAX)


def record(tx: Tx, clock: Clock, done: Sequence[Done]) -> None:
    """Write what became of claimed streams: their attempts, where each delivery stands, and when the stream is due next.

    A stream that somebody else has claimed since (our lease had ended) keeps their claim; its attempts are history all the
    same, and what was delivered is.
    """
    if not done:
        return
    ordered = sorted(done, key=lambda one: (one.endpoint_id, one.stream))
    ours = _hold(tx, ordered)
    attempts = [(one, attempt) for one in ordered for attempt in one.attempts]
    _write_attempts(tx, attempts)
    _write_deliveries(tx, attempts, clock.now())
    _give_back(tx, [one for one in ordered if (one.endpoint_id, one.stream) in ours], clock.now())


def judge_endpoint(tx: Tx, clock: Clock, endpoint_id: UUID, attempts: Sequence[Attempted]) -> None:
    """Keep since when an endpoint has been failing; disable it when it is gone, or has failed for days.

    In a transaction of its own, after `record`: whoever queues events holds the endpoint first and its streams second.
    """
    endpoint = endpoints.find_any(tx, endpoint_id)
    if endpoint is None or endpoint.state != "enabled":
        return
    now = clock.now()
    if any(attempt.outcome == "gone" for attempt in attempts):
        endpoints.disable(tx, clock, endpoint, "gone")
    elif any(attempt.outcome == "delivered" for attempt in attempts):
        if endpoint.failing_since is not None:
            endpoints.note_failing(tx, endpoint_id, None)
    elif endpoint.failing_since is None:
        endpoints.note_failing(tx, endpoint_id, min(attempt.started_at for attempt in attempts))
    elif now - endpoint.failing_since >= FAILING_MAX:
        endpoints.disable(tx, clock, endpoint, "failing")


def _hold(tx: Tx, done: Sequence[Done]) -> set[tuple[UUID, UUID]]:
    rows = cursor(tx).execute(
        """
        SELECT s.endpoint_id, s.stream FROM integrations.event_stream s
        JOIN unnest(%b::uuid[], %b::uuid[], %b::uuid[]) AS t (endpoint, stream, claim)
            ON s.endpoint_id = t.endpoint AND s.stream = t.stream AND s.claim = t.claim
        ORDER BY s.endpoint_id, s.stream FOR UPDATE OF s
        """,
        _columns((one.endpoint_id, one.stream, one.claim) for one in done),
    )
    return {(row[0], row[1]) for row in rows}


def _write_attempts(tx: Tx, attempts: Sequence[tuple[Done, Attempted]]) -> None:
    if not attempts:
        return
    cursor(tx).execute(
        """
        INSERT INTO integrations.event_attempt
            (endpoint_id, event_id, number, partner_id, started_at, milliseconds, status, error)
        SELECT t.endpoint, t.event, t.number, d.partner_id, t.started_at, t.milliseconds, t.status, t.error
        FROM unnest(%b::uuid[], %b::uuid[], %b::int2[], %b::timestamptz[], %b::int4[], %b::int2[], %b::text[])
            AS t (endpoint, event, number, started_at, milliseconds, status, error)
        JOIN integrations.event_delivery d ON d.endpoint_id = t.endpoint AND d.event_id = t.event
        ON CONFLICT DO NOTHING
        """,
        _columns(
            (
                one.endpoint_id,
                attempt.event.event_id,
                attempt.event.attempts + 1,
                attempt.started_at,
                attempt.answer.milliseconds,
                attempt.answer.status,
                attempt.answer.error,
            )
            for one, attempt in attempts
        ),
    )


def _write_deliveries(tx: Tx, attempts: Sequence[tuple[Done, Attempted]], now: datetime) -> None:
    if not attempts:
        return
    sql = cursor(tx)
    named = sorted((one.endpoint_id, attempt.event.event_id) for one, attempt in attempts)
    sql.execute(
        """
        SELECT FROM integrations.event_delivery WHERE (endpoint_id, event_id) IN (SELECT * FROM unnest(%b::uuid[], %b::uuid[]))
        ORDER BY endpoint_id, event_id FOR UPDATE
        """,
        _columns(named),
    )
    # What was given up meanwhile, because the endpoint was disabled, stays given up; what arrived has arrived.
    sql.execute(
        """
        UPDATE integrations.event_delivery d
        SET attempts = greatest(d.attempts, t.attempts), tries = t.tries,
            state = CASE WHEN t.outcome = 'delivered' THEN 'delivered' WHEN t.outcome = 'again' THEN d.state ELSE 'failed' END,
            reason = CASE t.outcome WHEN 'delivered' THEN NULL WHEN 'exhausted' THEN 'exhausted'
                                    WHEN 'gone' THEN 'endpoint_gone' ELSE d.reason END,
            finished_at = CASE WHEN t.outcome = 'again' THEN d.finished_at ELSE %b::timestamptz END
        FROM unnest(%b::uuid[], %b::uuid[], %b::int2[], %b::int2[], %b::text[]) AS t (endpoint, event, attempts, tries, outcome)
        WHERE d.endpoint_id = t.endpoint AND d.event_id = t.event
          AND (d.state = 'waiting' OR t.outcome = 'delivered')
        """,
        [
            now,
            *_columns(
                (
                    one.endpoint_id,
                    attempt.event.event_id,
                    attempt.event.attempts + 1,
                    attempt.event.tries + 1,
                    attempt.outcome,
                )
                for one, attempt in attempts
            ),
        ],
    )


def _give_back(tx: Tx, done: Sequence[Done], now: datetime) -> None:
    """Let go of streams: each is due when its oldest event may be tried again, at once if that one was not tried; or is over."""
    if not done:
        return
    due = [
        (one.endpoint_id, one.stream, (one.attempts[-1].due_at if one.attempts else None) or now)
        for one in done
    ]
    sql = cursor(tx)
    sql.execute(
        """
        UPDATE integrations.event_stream s SET due_at = t.due_at, claim = NULL
        FROM unnest(%b::uuid[], %b::uuid[], %b::timestamptz[]) AS t (endpoint, stream, due_at)
        WHERE s.endpoint_id = t.endpoint AND s.stream = t.stream AND EXISTS (
            SELECT FROM integrations.event_delivery d
            WHERE d.endpoint_id = s.endpoint_id AND d.stream = s.stream AND d.state = 'waiting')
        RETURNING s.endpoint_id, s.stream
        """,
        _columns(due),
    )
    kept = {(row[0], row[1]) for row in sql.fetchall()}
    over = [(one.endpoint_id, one.stream) for one in done if (one.endpoint_id, one.stream) not in kept]
    if over:
        sql.execute(
            "DELETE FROM integrations.event_stream WHERE (endpoint_id, stream) IN"
            " (SELECT * FROM unnest(%b::uuid[], %b::uuid[]))",
            _columns(over),
        )


def _columns(rows: Any) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
