"""The tables of payouts in schema `products`: rails, payouts with their parts, attempts and changes, and what rails said.

What a table can't say here (grants, policies, indexes) is written by hand in the migration.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ForeignKey, Integer, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8


class RailRow(Base):
    """A way of paying out, as configured: kind, terms, limits, options and its accounts. Amounts are minor units."""

    __tablename__ = "rail"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str]
    kind: Mapped[str]
    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"))
    currency: Mapped[str] = mapped_column(CHAR(3))
    payee_kinds: Mapped[list[str]] = mapped_column(ARRAY(Text))
    checks_payees: Mapped[bool]
    funded: Mapped[str]
    fee_fixed: Mapped[int]
    fee_basis_points: Mapped[int] = mapped_column(Integer)
    fee_bearer: Mapped[str]
    arrival_unit: Mapped[str]
    arrival_earliest: Mapped[int] = mapped_column(Integer)
    arrival_latest: Mapped[int] = mapped_column(Integer)
    arrival_countries: Mapped[list[str]] = mapped_column(ARRAY(Text))
    amount_min: Mapped[int]
    amount_max: Mapped[int | None]
    per_member_day: Mapped[int | None]
    per_day: Mapped[int | None]
    release_above: Mapped[int | None]
    queue_max: Mapped[int] = mapped_column(Integer)
    options: Mapped[dict[str, Any]]
    fund_id: Mapped[UUID]
    clearing_account: Mapped[UUID]
    bank_account: Mapped[UUID]
    float_account: Mapped[UUID]
    charges_account: Mapped[UUID]
    fees_account: Mapped[UUID]
    created_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]


class RailBreakerRow(Base):
    """The breaker of a rail, shared by all processes: closed while `opened_at` is null."""

    __tablename__ = "rail_breaker"
    __table_args__ = ({"schema": "products"},)

    rail_id: Mapped[UUID] = mapped_column(ForeignKey("products.rail.id"), primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    opened_at: Mapped[datetime | None]
    probe_at: Mapped[datetime | None]
    last_failure: Mapped[str | None]


class RailDayRow(Base):
    """What of a rail's limit of a day was asked for already."""

    __tablename__ = "rail_day"
    __table_args__ = ({"schema": "products"},)

    rail_id: Mapped[UUID] = mapped_column(ForeignKey("products.rail.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    amount: Mapped[int]


class PayoutRow(Base):
    """Money on its way to a payee: `amount` leaves the member's accounts, `fee` of it is what the member bears."""

    __tablename__ = "payout"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    programme_id: Mapped[UUID]
    link_id: Mapped[UUID] = mapped_column(ForeignKey("products.member_link.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("products.member.id"))
    enrolment_id: Mapped[UUID | None]
    product: Mapped[str | None]
    way: Mapped[str | None]
    rail_id: Mapped[UUID] = mapped_column(ForeignKey("products.rail.id"))
    payee_id: Mapped[UUID] = mapped_column(ForeignKey("products.payee.id"))
    amount: Mapped[int]
    fee: Mapped[int]
    rail_fee: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    arrival_earliest: Mapped[datetime]
    arrival_latest: Mapped[datetime]
    state: Mapped[str]
    reason: Mapped[str | None]
    payee_name: Mapped[str] = mapped_column(server_default=text("'not_checked'"))
    problem: Mapped[str | None]
    changes: Mapped[int] = mapped_column(SmallInteger)
    requested_by: Mapped[str]
    requested_at: Mapped[datetime]
    requested_on: Mapped[date]
    expires_at: Mapped[datetime]
    check_after: Mapped[datetime | None]
    approved_at: Mapped[datetime | None]
    proof: Mapped[UUID | None]
    submitted_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class PayoutPartRow(Base):
    """From which of the member's accounts a payout is taken; `fee` of `amount` goes to fees payable."""

    __tablename__ = "payout_part"
    __table_args__ = ({"schema": "products"},)

    payout_id: Mapped[UUID] = mapped_column(ForeignKey("products.payout.id"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    source: Mapped[str]
    account_id: Mapped[UUID]
    amount: Mapped[int]
    fee: Mapped[int]
    hold_id: Mapped[UUID]


class PayoutAttemptRow(Base):
    """A payout under the one id that its rail knows it by; `doubtful`: a sending may have arrived unseen."""

    __tablename__ = "payout_attempt"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    payout_id: Mapped[UUID] = mapped_column(ForeignKey("products.payout.id"))
    number: Mapped[int] = mapped_column(SmallInteger)
    rail_id: Mapped[UUID]
    batch_id: Mapped[UUID]
    asked_on: Mapped[date]
    amount: Mapped[int]
    state: Mapped[str]
    doubtful: Mapped[bool] = mapped_column(server_default=text("false"))
    sendings: Mapped[int] = mapped_column(SmallInteger)
    sent_at: Mapped[datetime]
    asked: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    next_at: Mapped[datetime | None]
    rail_reference: Mapped[str | None]
    reason: Mapped[str | None]
    code: Mapped[str | None]
    reported_at: Mapped[datetime | None]
    rail_fee: Mapped[int | None]
    money: Mapped[str]


class PayoutChangeRow(Base):
    """A state that a payout went through: when, why and by whom."""

    __tablename__ = "payout_change"
    __table_args__ = ({"schema": "products"},)

    payout_id: Mapped[UUID] = mapped_column(ForeignKey("products.payout.id"), primary_key=True)
    number: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    state: Mapped[str]
    reason: Mapped[str | None]
    actor: Mapped[str]
    at: Mapped[datetime]


class RailReportRow(Base):
    """What a rail said beyond the answer it was asked for: evidence, and what nothing was known for."""

    __tablename__ = "rail_report"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    rail_id: Mapped[UUID] = mapped_column(ForeignKey("products.rail.id"))
    callback_id: Mapped[UUID | None]
    source: Mapped[str]
    attempt_id: Mapped[UUID | None]
    payout_id: Mapped[UUID | None]
    rail_reference: Mapped[str | None]
    said: Mapped[str]
    reason: Mapped[str | None]
    code: Mapped[str | None]
    at: Mapped[datetime | None]
    amount: Mapped[int | None]
    currency: Mapped[str | None] = mapped_column(CHAR(3))
    fee: Mapped[int | None]
    outcome: Mapped[str]
    problem: Mapped[str | None]
    received_at: Mapped[datetime]
