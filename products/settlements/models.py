"""The tables of settlements in schema `products`, beside `settlement` itself: terms, parts, credits, warnings."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Integer, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_PARTNER = "products.partner.id"
_PROGRAMME = "products.programme.id"
_SETTLEMENT = "products.settlement.id"


class SettlementTermsRow(Base):
    """On which terms a partner pays in, from a day on; of two for the same day the later recorded one holds."""

    __tablename__ = "settlement_terms"
    __table_args__ = (
        CheckConstraint("terms IN ('net', 'prefunded', 'guaranteed')", name="terms"),
        CheckConstraint("cut_off_minutes BETWEEN 1 AND 1440", name="cut_off_minutes"),
        CheckConstraint("business_days BETWEEN 0 AND 60", name="business_days"),
        CheckConstraint("pays IN ('gross', 'net_of_fees')", name="pays"),
        CheckConstraint("fee_fixed >= 0", name="fee_fixed"),
        CheckConstraint("fee_borne_by IN ('administrator', 'partner')", name="fee_borne_by"),
        CheckConstraint("exposure_ceiling >= 0", name="exposure_ceiling"),
        CheckConstraint("warning_percent BETWEEN 1 AND 100", name="warning_percent"),
        CheckConstraint("prefund_warning >= 0", name="prefund_warning"),
        CheckConstraint("pays = 'gross' OR fee_borne_by = 'administrator'", name="netted"),
        Index("settlement_terms_of", "partner_id", "programme_id", "since", "id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    since: Mapped[date]
    terms: Mapped[str]
    currency: Mapped[str] = mapped_column(CHAR(3))
    time_zone: Mapped[str]
    cut_off_minutes: Mapped[int] = mapped_column(SmallInteger)
    business_days: Mapped[int] = mapped_column(SmallInteger)
    countries: Mapped[list[str]] = mapped_column(ARRAY(Text))
    pays: Mapped[str]
    fee_fixed: Mapped[int]
    fee_percent: Mapped[str]
    fee_borne_by: Mapped[str]
    exposure_ceiling: Mapped[int | None]
    warning_percent: Mapped[int] = mapped_column(SmallInteger)
    prefund_warning: Mapped[int | None]
    guarantor: Mapped[str | None]
    recorded_at: Mapped[datetime]


class SettlementPartRow(Base):
    """What one database transaction paired, and its transaction of cash."""

    __tablename__ = "settlement_part"
    __table_args__ = ({"schema": "products"},)

    settlement_id: Mapped[UUID] = mapped_column(ForeignKey(_SETTLEMENT), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    contributions: Mapped[int] = mapped_column(Integer)
    paired: Mapped[int]
    cash: Mapped[UUID | None]
    paired_at: Mapped[datetime]
    returned_at: Mapped[datetime | None]


class SettlementItemRow(Base):
    """A remittance that a settlement was said to pay for."""

    __tablename__ = "settlement_item"
    __table_args__ = ({"schema": "products"},)

    settlement_id: Mapped[UUID] = mapped_column(ForeignKey(_SETTLEMENT), primary_key=True)
    remittance: Mapped[UUID] = mapped_column(primary_key=True)


class SettlementCreditRow(Base):
    """What a fund owes a partner for money paid in whose remittance was reversed later: signed entries."""

    __tablename__ = "settlement_credit"
    __table_args__ = (
        CheckConstraint("amount <> 0", name="amount"),
        CheckConstraint("reason IN ('reversed', 'netted', 'returned', 'carried')", name="reason"),
        Index("settlement_credit_of", "partner_id", "programme_id", "fund_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    programme_id: Mapped[UUID]
    fund_id: Mapped[UUID]
    currency: Mapped[str] = mapped_column(CHAR(3))
    amount: Mapped[int]
    reason: Mapped[str]
    remittance: Mapped[UUID | None]
    position: Mapped[int | None] = mapped_column(SmallInteger)
    settlement_id: Mapped[UUID | None]
    settlement_part: Mapped[int | None] = mapped_column(Integer)
    recorded_at: Mapped[datetime]


class PartnerWarningRow(Base):
    """A partner came close to what it may owe, or its prefund runs low; one row for each crossing."""

    __tablename__ = "partner_warning"
    __table_args__ = (
        CheckConstraint("kind IN ('exposure', 'prefund_low')", name="kind"),
        Index(
            "partner_warning_open",
            "account_id",
            "kind",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    programme_id: Mapped[UUID]
    account_id: Mapped[UUID]
    kind: Mapped[str]
    balance: Mapped[int]
    level: Mapped[int]
    raised_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
