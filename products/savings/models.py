"""The tables of matched savings in schema `products`: entitlement, what sponsors owe of it, and what waits for them."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Index, Integer, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8


class MatchStateRow(Base):
    """Entitlement of one enrolment in one window, from totals per tier (element 1: unmatched, then tier 0…)."""

    __tablename__ = "match_state"
    __table_args__ = (
        CheckConstraint("entitled >= 0", name="entitled"),
        Index(
            "match_state_grants",
            "grants_on",
            postgresql_where=text("grants_on IS NOT NULL AND NOT window_over"),
        ),
        {"schema": "products"},
    )

    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    window_start: Mapped[date] = mapped_column(primary_key=True)
    window_end: Mapped[date]
    by_tier: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    settled_by_tier: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    entitled: Mapped[int]
    rule_version: Mapped[int] = mapped_column(Integer)
    revision: Mapped[int] = mapped_column(Integer)
    grants_on: Mapped[date | None]
    window_over: Mapped[bool] = mapped_column(server_default=text("false"))


class MatchShareRow(Base):
    """One sponsor's part of an entitlement: committed + unvested + vested + awaiting + forfeited."""

    __tablename__ = "match_share"
    __table_args__ = (
        CheckConstraint("committed >= 0", name="committed"),
        CheckConstraint("unvested >= 0", name="unvested"),
        CheckConstraint("vested >= 0", name="vested"),
        CheckConstraint("awaiting >= 0", name="awaiting"),
        CheckConstraint("certified >= 0", name="certified"),
        CheckConstraint("forfeited >= 0", name="forfeited"),
        Index("match_share_vests", "vests_on", postgresql_where=text("unvested > 0")),
        {"schema": "products"},
    )

    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    window_start: Mapped[date] = mapped_column(primary_key=True)
    sponsor_id: Mapped[UUID] = mapped_column(primary_key=True)
    committed: Mapped[int]
    unvested: Mapped[int]
    vested: Mapped[int]
    awaiting: Mapped[int]
    certified: Mapped[int] = mapped_column(server_default=text("0"))
    forfeited: Mapped[int] = mapped_column(server_default=text("0"))
    vests_on: Mapped[date] = mapped_column(server_default=text("'0001-01-01'"))


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
        CheckConstraint("certified >= 0", name="certified"),
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
    certified: Mapped[int] = mapped_column(server_default=text("0"))
    decided_at: Mapped[datetime | None]
    owed: Mapped[int] = mapped_column(server_default=text("0"))


class WithdrawalRow(Base):
    """What a payout takes out of an enrolment, from its request on. ``left_at``: it is out of the member's accounts."""

    __tablename__ = "withdrawal"
    __table_args__ = (
        CheckConstraint("savings >= 0", name="savings"),
        CheckConstraint("match >= 0", name="match"),
        CheckConstraint("forfeits >= 0", name="forfeits"),
        CheckConstraint("savings + match > 0", name="something"),
        Index("withdrawal_enrolment", "enrolment_id", postgresql_where=text("undone_at IS NULL")),
        {"schema": "products"},
    )

    payout_id: Mapped[UUID] = mapped_column(primary_key=True)
    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    way: Mapped[str]
    savings: Mapped[int]
    match: Mapped[int]
    forfeits: Mapped[int]
    taken_on: Mapped[date]
    recorded_at: Mapped[datetime]
    left_at: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]


class ForfeitureRow(Base):
    """Match lost with a payout, by window and sponsor; ``received``: what of it was granted and went to who receives it."""

    __tablename__ = "forfeiture"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("received BETWEEN 0 AND amount", name="received"),
        Index("forfeiture_enrolment", "enrolment_id"),
        {"schema": "products"},
    )

    payout_id: Mapped[UUID] = mapped_column(primary_key=True)
    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    window_start: Mapped[date] = mapped_column(primary_key=True)
    sponsor_id: Mapped[UUID] = mapped_column(primary_key=True)
    amount: Mapped[int]
    received: Mapped[int]


class ReevaluationRow(Base):
    """A member whose facts changed, for the job that derives entitlement anew."""

    __tablename__ = "reevaluation"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID]
    requested_at: Mapped[datetime]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
