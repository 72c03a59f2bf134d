"""The outbox: messages written with what they announce, and read behind the settled horizon."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.horizon import AFTER, SETTLED, Position
from ledger.ids import new_id

READ_MAX = 1_000
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Message:
    """What happened: a topic, the key of what it happened to, and a JSON payload without personal data."""

    topic: str
    key: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """A message in the outbox."""

    position: Position
    message: Message
    recorded_at: datetime


def publish(tx: Tx, messages: Sequence[Message]) -> list[UUID]:
    """Write the messages with whatever else ``tx`` does; their ids, in order."""
    if not messages:
        return []
    ids = [new_id() for _ in messages]
    cursor(tx).execute(
        "insert into ledger.outbox (id, topic, key, payload)"
        " select id, topic, key, payload::jsonb"
        " from unnest(%b::uuid[], %b::text[], %b::text[], %b::text[]) as m (id, topic, key, payload)",
        [
            ids,
            [m.topic for m in messages],
            [m.key for m in messages],
            [_encode(m.payload) for m in messages],
        ],
    )
    return ids


def read(tx: Tx, after: Position, *, limit: int = READ_MAX) -> list[Published]:
    """Settled messages after a position, in the one order that loses none; at most ``limit``."""
    rows = cursor(tx).execute(
        "select era, xid::text, id, topic, key, payload, recorded_at from ledger.outbox"
        f" where {AFTER} and {SETTLED} order by era, xid, id limit %(limit)s",
        {**after.parameters, "limit": min(limit, READ_MAX)},
    )
    return [
        Published(Position(era, int(xid), id_), Message(topic, key, payload), recorded_at)
        for era, xid, id_, topic, key, payload, recorded_at in rows
    ]
