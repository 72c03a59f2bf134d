"""A delivery as the hook hands it to the inbox, before it is stored."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from integrations.partners.port import Fault, Reading
from ledger.ids import new_id

LANES: Final = 16
FAULTS_KEPT_MAX: Final = 20

Kind = Literal["new", "ignored", "rejected", "evidence"]


@dataclass(frozen=True, slots=True)
class Received:
    """One authentic delivery. `key` is what may exist once per partner; `detail` explains what is not `new`."""

    id: UUID
    partner_id: UUID
    webhook_id: str
    body: bytes
    kind: Kind
    key: bytes
    event_type: str
    lane: int
    digest: bytes
    received_at: datetime
    reason: str | None = None
    detail: dict[str, Any] | None = None

    @property
    def body_digest(self) -> bytes:
        """SHA-256 of the raw body: what remains when the body's key is destroyed."""
        return hashlib.sha256(self.body).digest()


def understood(partner_id: UUID, webhook_id: str, body: bytes, reading: Reading, at: datetime) -> Received:
    """A delivery whose event was read: it takes its id, to be processed or, for an unknown type, to be ignored."""
    ignored = reading.event is None
    return Received(
        id=new_id(),
        partner_id=partner_id,
        webhook_id=webhook_id,
        body=body,
        kind="ignored" if ignored else "new",
        key=hashlib.sha256(b"id\0" + webhook_id.encode()).digest(),
        event_type=reading.event_type,
        lane=zlib.crc32(reading.order_key.encode()) % LANES,
        digest=reading.digest,
        received_at=at,
        reason="unknown_type" if ignored else None,
    )


def rejected(
    partner_id: UUID,
    webhook_id: str,
    body: bytes,
    at: datetime,
    *,
    reason: str,
    event_type: str = "",
    faults: Sequence[Fault] = (),
) -> Received:
    """An authentic delivery that can't be understood: kept with its reason, and its id left free for a better body."""
    errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in faults[:FAULTS_KEPT_MAX]]
    return Received(
        id=new_id(),
        partner_id=partner_id,
        webhook_id=webhook_id,
        body=body,
        kind="rejected",
        key=_key_of_body(webhook_id, body),
        event_type=event_type,
        lane=0,
        digest=hashlib.sha256(body).digest(),
        received_at=at,
        reason=reason,
        detail={"errors": errors},
    )


def evidence(received: Received, of: UUID) -> Received:
    """`received`, whose id was taken by the delivery `of` with another event: kept beside it."""
    return Received(
        id=received.id,
        partner_id=received.partner_id,
        webhook_id=received.webhook_id,
        body=received.body,
        kind="evidence",
        key=_key_of_body(received.webhook_id, received.body),
        event_type=received.event_type,
        lane=received.lane,
        digest=received.digest,
        received_at=received.received_at,
        reason="delivery_conflict",
        detail={"delivery": str(of)},
    )


def _key_of_body(webhook_id: str, body: bytes) -> bytes:
    return hashlib.sha256(b"body\0%b\0%b" % (webhook_id.encode(), hashlib.sha256(body).digest())).digest()
