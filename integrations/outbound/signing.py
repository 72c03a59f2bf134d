"""What one attempt carries: the body, the same in every attempt, and Standard Webhooks headers with a new timestamp."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from integrations.partners.standard_webhooks import SymmetricSecret, sign
from ledger.clock import rfc3339
from ledger.ids import public_id

EVENT_PREFIX: Final = "evt"
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode


def body_of(event_id: UUID, type_: str, occurred_at: datetime, data: Mapping[str, Any]) -> bytes:
    """The event as it is delivered, byte for byte the same each time: ``{"data", "id", "timestamp", "type"}``."""
    return _encode(
        {
            "id": public_id(EVENT_PREFIX, event_id),
            "type": type_,
            "timestamp": rfc3339(occurred_at),
            "data": data,
        }
    ).encode()


def headers_of(
    secrets: Sequence[SymmetricSecret], event_id: UUID, at: datetime, body: bytes
) -> dict[str, str]:
    """The headers of one attempt at `at`; every valid secret signs, so that a receiver may hold either of two."""
    delivery_id = public_id(EVENT_PREFIX, event_id)
    return {
        "content-type": "application/json",
        "user-agent": "Mizan-Webhooks/1",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(sign(secret, delivery_id, at, body) for secret in secrets),
    }
