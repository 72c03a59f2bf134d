"""The tables of breaks in schema `products`; migration 0023 says what each is for."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import CHAR, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_BREAK = "products.break.id"


class BreakRow(Base):
    """What does not tie, and why: one row for each subject while it lasts."""

    __tablename__ = "break"
    __table_args__ = (
        Index("break_of", "subject_kind", "subject", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("break_subject", "subject_kind", "subject", "id"),
        Index(
            "break_open",
            "currency",
            text("abs(amount) DESC"),
            "id",
            postgresql_where=text("ended_at IS NULL"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    programme_id: Mapped[UUID]
    bank_account_id: Mapped[UUID | None]
    fund_id: Mapped[UUID]
    partner_id: Mapped[UUID | None]
    subject_kind: Mapped[str]
    subject: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    on_date: Mapped[date]
    facts: Mapped[bytes]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    found_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    owner: Mapped[str | None]
    waits_until: Mapped[date | None]
    remark: Mapped[str | None]
    ended_at: Mapped[datetime | None]


class BreakFoundRow(Base):
    """What one refresh finds, until it is compared with the breaks on record."""

    __tablename__ = "break_found"
    __table_args__ = ({"schema": "products"},)

    subject_kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    programme_id: Mapped[UUID]
    bank_account_id: Mapped[UUID | None]
    fund_id: Mapped[UUID]
    partner_id: Mapped[UUID | None]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    on_date: Mapped[date]
    items: Mapped[list[UUID]] = mapped_column(ARRAY(PG_UUID(as_uuid=True)), server_default=text("'{}'"))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)


class BreakEventRow(Base):
    """What happened to a break."""

    __tablename__ = "break_event"
    __table_args__ = (Index("break_event_of", "break_id", "id"), {"schema": "products"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    break_id: Mapped[UUID] = mapped_column(ForeignKey(_BREAK))
    what: Mapped[str]
    by_whom: Mapped[str]
    at: Mapped[datetime]
    remark: Mapped[str] = mapped_column(server_default=text("''"))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))


class BreakResolutionRow(Base):
    """How somebody would end a break, or has."""

    __tablename__ = "break_resolution"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount"),
        Index("break_resolution_of", "break_id", "id"),
        Index(
            "break_resolution_standing",
            "break_id",
            unique=True,
            postgresql_where=text("state = 'done' AND method <> 'wait'"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    break_id: Mapped[UUID] = mapped_column(ForeignKey(_BREAK))
    method: Mapped[str]
    choice: Mapped[dict[str, Any]] = mapped_column(JSONB)
    preview: Mapped[dict[str, Any]] = mapped_column(JSONB)
    digest: Mapped[bytes]
    amount: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=text("'previewed'"))
    previewed_by: Mapped[str]
    previewed_at: Mapped[datetime]
    remark: Mapped[str | None]
    confirmed_by: Mapped[str | None]
    confirmed_at: Mapped[datetime | None]
    approved_by: Mapped[str | None]
    transactions: Mapped[list[UUID]] = mapped_column(
        ARRAY(PG_UUID(as_uuid=True)), server_default=text("'{}'")
    )
    pairings: Mapped[list[UUID]] = mapped_column(ARRAY(PG_UUID(as_uuid=True)), server_default=text("'{}'"))
    undone_by: Mapped[str | None]
    undone_at: Mapped[datetime | None]
    undone_remark: Mapped[str | None]


class BreakLimitRow(Base):
    """From which value on a second person decides a resolution."""

    __tablename__ = "break_limit"
    __table_args__ = (
        CheckConstraint("second_person_above >= 0", name="second_person_above"),
        {"schema": "products"},
    )

    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"), primary_key=True)
    currency: Mapped[str] = mapped_column(CHAR(3), primary_key=True)
    second_person_above: Mapped[int]
    changed_at: Mapped[datetime]
