"""Storing deliveries: one multi-row insert per transaction, and the judgement of what was there before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from integrations.inbox.keys import InboxKey
from integrations.inbox.received import Received, evidence
from ledger.database import Tx, cursor

# Sorted by the caller, so that two processes with the same deliveries wait for each other instead of deadlocking.
_INSERT = """
WITH stored AS (
    INSERT INTO integrations.delivery
        (id, partner_id, delivery_key, kind, event_type, lane, digest, body_digest, body_sealed, inbox_key_id, received_at)
    SELECT u.*
    FROM unnest(%b::uuid[], %b::uuid[], %b::bytea[], %b::text[], %b::text[], %b::int2[], %b::bytea[], %b::bytea[],
                %b::bytea[], %b::uuid[], %b::timestamptz[]) AS u
    ON CONFLICT (partner_id, delivery_key) DO NOTHING
    RETURNING id, kind, lane
), queued AS (
    INSERT INTO integrations.delivery_queue (lane, id) SELECT lane, id FROM stored WHERE kind = 'new'
)
SELECT id FROM stored
"""
_FIND = """
SELECT d.partner_id, d.delivery_key, d.id, d.digest
FROM unnest(%b::uuid[], %b::bytea[]) AS u (partner_id, delivery_key)
JOIN integrations.delivery d USING (partner_id, delivery_key)
"""
_OUTCOME = """
INSERT INTO integrations.delivery_outcome (delivery_id, attempt, partner_id, state, reason, detail, processed_at)
VALUES (%s, 1, %s, %s, %s, %s, %s)
"""
_STATE_OF = {"ignored": "ignored", "rejected": "quarantined", "evidence": "conflict"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the inbox says to one delivery: `id` is of the row that stands for it, old or new."""

    id: UUID
    status: Literal["stored", "duplicate", "conflict"]


def store(tx: Tx, batch: Sequence[Received], key: InboxKey) -> list[Receipt]:
    """Store `batch` and say of each delivery, in its order, whether it is new, known, or known with another event.

    Repetitions inside the batch are judged like those against the table: the first of an id wins. What conflicts is
    stored as evidence. Nothing is acknowledged before the caller's commit.
    """
    first: dict[tuple[UUID, bytes], Received] = {}
    for received in batch:
        first.setdefault((received.partner_id, received.key), received)
    with cursor(tx) as sql:
        stored = _insert(sql, list(first.values()), key)
        standing = {place: (one.id, one.digest) for place, one in first.items() if one.id in stored}
        known = [place for place in first if place not in standing]
        if known:
            # A new statement, as the first one's snapshot may be older than the row that it lost to.
            sql.execute(_FIND, ([place[0] for place in known], [place[1] for place in known]))
            standing |= {(row[0], row[1]): (row[2], row[3]) for row in sql}
        receipts, conflicting = [], []
        for received in batch:
            winner, digest = standing[received.partner_id, received.key]
            if winner == received.id:
                receipts.append(Receipt(winner, "stored"))
            elif digest == received.digest:
                receipts.append(Receipt(winner, "duplicate"))
            else:
                receipts.append(Receipt(winner, "conflict"))
                conflicting.append(evidence(received, of=winner))
        if conflicting:
            stored |= _insert(
                sql, list({(one.partner_id, one.key): one for one in conflicting}.values()), key
            )
        explained = [one for one in (*first.values(), *conflicting) if one.kind != "new" and one.id in stored]
        if explained:
            sql.executemany(_OUTCOME, [_outcome(one) for one in explained])
    return receipts


def _insert(sql: psycopg.Cursor[tuple[Any, ...]], rows: list[Received], key: InboxKey) -> set[UUID]:
    rows.sort(key=lambda one: (one.partner_id, one.key))
    parameters = (
        [one.id for one in rows],
        [one.partner_id for one in rows],
        [one.key for one in rows],
        [one.kind for one in rows],
        [one.event_type for one in rows],
        [one.lane for one in rows],
        [one.digest for one in rows],
        [one.body_digest for one in rows],
        [key.seal(one.id, one.partner_id, one.webhook_id, one.body) for one in rows],
        [key.id] * len(rows),
        [one.received_at for one in rows],
    )
    # One round trip for begin, access and insert.
    with sql.connection.pipeline():
        sql.connection.execute("SELECT set_config('mizan.access', 'hook', true)")
        sql.execute(_INSERT, parameters, prepare=True)
        return {row[0] for row in sql}


def _outcome(one: Received) -> tuple[Any, ...]:
    detail = None if one.detail is None else Jsonb(one.detail)
    return one.id, one.partner_id, _STATE_OF[one.kind], one.reason, detail, one.received_at
