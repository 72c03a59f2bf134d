"""The tables of remittals in schema `products`."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8


class AgencyRow(Base):
    """How an agency wants to be told what it is sent, and how it answers."""

    __tablename__ = "agency"
    __table_args__ = (
        CheckConstraint("without_number IN ('hold', 'send')", name="without_number"),
        CheckConstraint("second_person_above >= 0", name="second_person_above"),
        {"schema": "products"},
    )

    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"), primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    number_document: Mapped[str]
    without_number: Mapped[str]
    second_person_above: Mapped[int]
    columns: Mapped[dict[str, Any]]
    answer: Mapped[dict[str, Any]]
    changed_at: Mapped[datetime]


class RemittalRow(Base):
    """What one agency is sent at once: made, sent, cleared by the bank, or withdrawn before it was sent."""

    __tablename__ = "remittal"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("length(digest) = 32", name="digest"),
        CheckConstraint("state IN ('made', 'sent', 'cleared', 'withdrawn')", name="state"),
        UniqueConstraint("programme_id", "agency", "number"),
        Index("remittal_horizon", "era", "xid", "id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"))
    agency: Mapped[str]
    number: Mapped[int] = mapped_column(Integer)
    fund_id: Mapped[UUID]
    currency: Mapped[str] = mapped_column(CHAR(3))
    through: Mapped[date]
    lines: Mapped[int] = mapped_column(Integer)
    amount: Mapped[int]
    columns: Mapped[dict[str, Any]]
    answer: Mapped[dict[str, Any]]
    second_person_above: Mapped[int]
    digest: Mapped[bytes]
    state: Mapped[str] = mapped_column(server_default=text("'made'"))
    made_at: Mapped[datetime]
    bank_reference: Mapped[str | None]
    sent_on: Mapped[date | None]
    sent_at: Mapped[datetime | None]
    cleared_on: Mapped[date | None]
    cleared_at: Mapped[datetime | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class RemittalLineRow(Base):
    """What one enrolment paid for one month. `number` and `base` are encrypted under the member's key."""

    __tablename__ = "remittal_line"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("state IN ('sent', 'accepted', 'rejected', 'corrected')", name="state"),
        CheckConstraint("(state = 'sent') = (accepted IS NULL)", name="answered"),
        CheckConstraint("claimed >= 0", name="claimed"),
        UniqueConstraint("remittal_id", "position"),
        Index("remittal_line_member", "member_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    remittal_id: Mapped[UUID]
    position: Mapped[int] = mapped_column(Integer)
    programme_id: Mapped[UUID]
    partner_id: Mapped[UUID]
    member_id: Mapped[UUID]
    enrolment_id: Mapped[UUID]
    product: Mapped[str]
    applies_to: Mapped[date]
    paid_on: Mapped[date]
    number: Mapped[bytes | None]
    base: Mapped[bytes | None]
    rate: Mapped[str | None]
    amount: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=text("'sent'"))
    accepted: Mapped[int | None]
    claimed: Mapped[int] = mapped_column(server_default=text("0"))
    reason: Mapped[str | None]
    corrected_number: Mapped[bytes | None]
    answered_at: Mapped[datetime | None]


class RemittalAnswerRow(Base):
    """An answer that was taken in: the same one again changes nothing."""

    __tablename__ = "remittal_answer"
    __table_args__ = (CheckConstraint("length(digest) = 32", name="digest"), {"schema": "products"})

    remittal_id: Mapped[UUID] = mapped_column(ForeignKey("products.remittal.id"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID]
    lines: Mapped[int] = mapped_column(Integer)
    accepted: Mapped[int]
    returned: Mapped[int]
    claimed: Mapped[int]
    recorded_at: Mapped[datetime]
