"""The tables of payment files in schema `integrations`; grants and policies stand in migration 0019."""

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base


class PaymentFileRow(Base):
    """One file of one batch of payments, as the bank gets it."""

    __tablename__ = "payment_file"
    __table_args__ = (
        CheckConstraint("payments > 0", name="payments"),
        CheckConstraint("control_sum > 0", name="control_sum"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("state IN ('made', 'fetched', 'accepted', 'part', 'rejected')", name="state"),
        CheckConstraint(
            "state <> 'made' OR fetched_at IS NULL AND answered_at IS NULL", name="payment_file_check"
        ),
        Index("payment_file_rail", "rail", "id"),
        {"schema": "integrations"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    rail: Mapped[str]
    batch: Mapped[UUID] = mapped_column(unique=True)
    message_id: Mapped[str] = mapped_column(unique=True)
    payments: Mapped[int] = mapped_column(Integer)
    control_sum: Mapped[Decimal] = mapped_column(Numeric())
    execution_on: Mapped[date]
    digest: Mapped[bytes]
    content_sealed: Mapped[bytes]
    inbox_key_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(server_default=text("'made'"))
    made_at: Mapped[datetime]
    fetched_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]


class PaymentFileLineRow(Base):
    """One payment of a file."""

    __tablename__ = "payment_file_line"
    __table_args__ = (
        UniqueConstraint("file_id", "position"),
        CheckConstraint("position > 0", name="position"),
        CheckConstraint("part > 0", name="part"),
        CheckConstraint("amount > 0", name="amount"),
        {"schema": "integrations"},
    )

    attempt: Mapped[UUID] = mapped_column(primary_key=True)
    file_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.payment_file.id"))
    position: Mapped[int] = mapped_column(Integer)
    part: Mapped[int] = mapped_column(SmallInteger)
    amount: Mapped[int]
    currency: Mapped[str]


class PaymentAnswerRow(Base):
    """One file that came back from a bank."""

    __tablename__ = "payment_answer"
    __table_args__ = (
        UniqueConstraint("rail", "digest"),
        CheckConstraint("kind IN ('status', 'returns')", name="kind"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        {"schema": "integrations"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    rail: Mapped[str]
    kind: Mapped[str]
    digest: Mapped[bytes]
    content_sealed: Mapped[bytes]
    inbox_key_id: Mapped[UUID]
    said_at: Mapped[datetime]
    received_at: Mapped[datetime]


class PaymentAnswerLineRow(Base):
    """What an answer says of one payment."""

    __tablename__ = "payment_answer_line"
    __table_args__ = (
        Index("payment_answer_line_attempt", "attempt"),
        {"schema": "integrations"},
    )

    answer_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.payment_answer.id"), primary_key=True)
    attempt: Mapped[UUID] = mapped_column(
        ForeignKey("integrations.payment_file_line.attempt"), primary_key=True
    )
    file_id: Mapped[UUID] = mapped_column(ForeignKey("integrations.payment_file.id"))
    status: Mapped[str]
    code: Mapped[str | None]
    amount: Mapped[int | None]
    currency: Mapped[str | None]
