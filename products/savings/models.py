"""The tables of matched savings in schema `products`: entitlement, what sponsors owe of it, and what waits for them."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Index, Integer, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8


class MatchStateRow(Base):
    """Entitlement of one enrolment in one window, from totals per tier (element 1: unmatched, then tier 0…)."""

    __tablename__ = "match_state"
    __table_args__ = (CheckConstraint("entitled >= 0", name="entitled"), {"schema": "products"})

    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    window_start: Mapped[date] = mapped_column(primary_key=True)
    window_end: Mapped[date]
    by_tier: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    settled_by_tier: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    entitled: Mapped[int]
    rule_version: Mapped[int] = mapped_column(Integer)
    revision: Mapped[int] = mapped_column(Integer)


class MatchShareRow(Base):
    """One sponsor's part of an entitlement: committed + unvested + vested + awaiting."""

    __tablename__ = "match_share"
    __table_args__ = (
        CheckConstraint("committed >= 0", name="committed"),
        CheckConstraint("unvested >= 0", name="unvested"),
        CheckConstraint("vested >= 0", name="vested"),
        CheckConstraint("awaiting >= 0", name="awaiting"),
        {"schema": "products"},
    )

    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    window_start: Mapped[date] = mapped_column(primary_key=True)
    sponsor_id: Mapped[UUID] = mapped_column(primary_key=True)
    committed: Mapped[int]
    unvested: Mapped[int]
    vested: Mapped[int]
    awaiting: Mapped[int]


class MatchQueueRow(Base):
    """Entitlement that waits for its sponsor's money."""

    __tablename__ = "match_queue"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        Index("match_queue_order", "sponsor_id", "contributed_at", "id"),
        Index("match_queue_of_share", "enrolment_id", "window_start", "sponsor_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sponsor_id: Mapped[UUID]
    enrolment_id: Mapped[UUID]
    window_start: Mapped[date]
    contributed_at: Mapped[datetime]
    amount: Mapped[int]


class MatchAdjustmentRow(Base):
    """What is vested beyond entitlement, for approval: vested match never falls by itself."""

    __tablename__ = "match_adjustment"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("state IN ('proposed', 'approved', 'refused', 'withdrawn')", name="state"),
        Index(
            "match_adjustment_proposed",
            "enrolment_id",
            "window_start",
            "sponsor_id",
            unique=True,
            postgresql_where=text("state = 'proposed'"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sponsor_id: Mapped[UUID]
    enrolment_id: Mapped[UUID]
    window_start: Mapped[date]
    amount: Mapped[int]
    reason: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'proposed'"))
    recorded_at: Mapped[datetime]


class ReevaluationRow(Base):
    """A member whose facts changed, for the job that derives entitlement anew."""

    __tablename__ = "reevaluation"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID]
    requested_at: Mapped[datetime]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
