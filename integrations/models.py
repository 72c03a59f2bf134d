"""The tables of schema `integrations`: webhook secrets, inbox keys, deliveries and what became of them.

Grants, policies and the triggers that keep deliveries and outcomes unchanged are written by hand in the migration.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8


class WebhookSecretRow(Base):
    """What a partner signs with, sealed by the keyring; valid until `expires_at`, where it is set."""

    __tablename__ = "webhook_secret"
    __table_args__ = (Index("webhook_secret_partner", "partner_id"), {"schema": "integrations"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey("products.partner.id"))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class InboxKeyRow(Base):
    """A day's key of delivery bodies, wrapped by the keyring until it is destroyed."""

    __tablename__ = "inbox_key"
    __table_args__ = (
        CheckConstraint("(wrapped IS NULL) = (destroyed_at IS NOT NULL)", name="wrapped"),
        Index("inbox_key_newest", "created_at"),
        {"schema": "integrations"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    wrapped: Mapped[bytes | None]
    created_at: Mapped[datetime]
    destroyed_at: Mapped[datetime | None]


class DeliveryRow(Base):
    """One received webhook: never changed, never deleted."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("partner_id", "delivery_key"),
        Index("delivery_horizon", "partner_id", "era", "xid", "id"),
        Index("delivery_inbox_key", "inbox_key_id"),
        CheckConstraint("octet_length(delivery_key) = 32", name="delivery_key"),
        CheckConstraint("kind IN ('new', 'ignored', 'rejected', 'evidence')", name="kind"),
        CheckConstraint("lane BETWEEN 0 AND 15", name="lane"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("octet_length(body_digest) = 32", name="body_digest"),
        {"schema": "integrations"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    delivery_key: Mapped[bytes]
    kind: Mapped[str]
    event_type: Mapped[str]
    lane: Mapped[int] = mapped_column(SmallInteger)
    digest: Mapped[bytes]
    body_digest: Mapped[bytes]
    body_sealed: Mapped[bytes]
    inbox_key_id: Mapped[UUID]
    received_at: Mapped[datetime]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class DeliveryQueueRow(Base):
    """A delivery that waits for a worker."""

    __tablename__ = "delivery_queue"
    __table_args__ = ({"schema": "integrations"},)

    lane: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    approved: Mapped[bool] = mapped_column(server_default=text("false"))


class DeliveryOutcomeRow(Base):
    """What became of a delivery at one attempt; the highest attempt stands."""

    __tablename__ = "delivery_outcome"
    __table_args__ = (
        CheckConstraint(
            "state IN ('posted', 'duplicate', 'reversed', 'unallocated', 'quarantined', 'parked', 'ignored',"
            " 'conflict', 'replayed')",
            name="state",
        ),
        Index(
            "delivery_outcome_attention",
            "state",
            "delivery_id",
            postgresql_where=text("state IN ('quarantined', 'parked')"),
        ),
        {"schema": "integrations"},
    )

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    partner_id: Mapped[UUID]
    state: Mapped[str]
    reason: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]
    remittance_id: Mapped[UUID | None]
    processed_at: Mapped[datetime]
