"""The tables of events out: endpoints and their secrets, events, deliveries, streams and attempts.

Grants, policies and the function that prunes the outbox are written by hand in migration 0018.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8

_SCHEMA = {"schema": "integrations"}


class WebhookEndpointRow(Base):
    """Where a partner wants its events. `failing_since`: no attempt succeeded since then."""

    __tablename__ = "webhook_endpoint"
    __table_args__ = (
        CheckConstraint("length(url) BETWEEN 1 AND 2048", name="url"),
        CheckConstraint("state IN ('enabled', 'disabled', 'removed')", name="state"),
        CheckConstraint("reason IN ('asked', 'gone', 'failing')", name="reason"),
        Index("webhook_endpoint_partner", "partner_id", "id"),
        _SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey("products.partner.id"))
    url: Mapped[str]
    description: Mapped[str]
    event_types: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    state: Mapped[str]
    reason: Mapped[str | None]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    failing_since: Mapped[datetime | None]


class EndpointSecretRow(Base):
    """What we sign an endpoint's events with, sealed; valid until `expires_at`, where it is set."""

    __tablename__ = "endpoint_secret"
    __table_args__ = (Index("endpoint_secret_endpoint", "endpoint_id"), _SCHEMA)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.webhook_endpoint.id"))
    partner_id: Mapped[UUID]
    sealed: Mapped[bytes]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class EventRow(Base):
    """What a partner is told, once, in the order of `seq`."""

    __tablename__ = "event"
    __table_args__ = (
        UniqueConstraint("partner_id", "seq"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        Index("event_member", "partner_id", "link_id", "seq", postgresql_where=text("link_id IS NOT NULL")),
        Index("event_subject", "partner_id", "subject", "type", "seq"),
        Index("event_occurred", "partner_id", "occurred_at"),
        _SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    partner_id: Mapped[UUID]
    stream: Mapped[UUID]
    link_id: Mapped[UUID | None]
    type: Mapped[str]
    subject: Mapped[str]
    digest: Mapped[bytes]
    data: Mapped[dict[str, Any]]
    occurred_at: Mapped[datetime]


class EventDeliveryRow(Base):
    """One event for one endpoint."""

    __tablename__ = "event_delivery"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name="state"),
        CheckConstraint(
            "reason IN ('exhausted', 'endpoint_gone', 'endpoint_disabled', 'endpoint_removed')", name="reason"
        ),
        Index(
            "event_delivery_waiting",
            "endpoint_id",
            "stream",
            "seq",
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("event_delivery_seq", "endpoint_id", "seq"),
        Index("event_delivery_event", "event_id"),
        _SCHEMA,
    )

    endpoint_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    stream: Mapped[UUID]
    seq: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str]
    reason: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    tries: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    queued_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class EventStreamRow(Base):
    """A stream with something waiting for an endpoint, and when its oldest is due; later while it is leased."""

    __tablename__ = "event_stream"
    __table_args__ = (Index("event_stream_due", "endpoint_id", "due_at"), _SCHEMA)

    endpoint_id: Mapped[UUID] = mapped_column(primary_key=True)
    stream: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    due_at: Mapped[datetime]
    claim: Mapped[UUID | None]


class EventAttemptRow(Base):
    """One try to deliver: what was answered, or what went wrong, and how long it took. No bodies."""

    __tablename__ = "event_attempt"
    __table_args__ = (_SCHEMA,)

    endpoint_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    partner_id: Mapped[UUID]
    started_at: Mapped[datetime]
    milliseconds: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None]


class OutboxPositionRow(Base):
    """How far the outbox was read by whoever turns its messages into events, and the last number it dealt."""

    __tablename__ = "outbox_position"
    __table_args__ = (_SCHEMA,)

    name: Mapped[str] = mapped_column(primary_key=True)
    era: Mapped[int] = mapped_column(SmallInteger)
    xid: Mapped[int] = mapped_column(Xid8)
    message_id: Mapped[UUID]
    seq: Mapped[int] = mapped_column(BigInteger)
    read_at: Mapped[datetime]
