"""The tables of what is expected at the bank and of what pairing does, in schema `products`; grants and policies: migration 0022."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_BANK_ACCOUNT = "ledger.bank_account.id"
_PAIRING = "ledger.pairing.id"


class SponsorPaymentRow(Base):
    """What a sponsor called its payment."""

    __tablename__ = "sponsor_payment"
    __table_args__ = ({"schema": "products"},)

    transaction_id: Mapped[UUID] = mapped_column(primary_key=True)
    sponsor_id: Mapped[UUID] = mapped_column(ForeignKey("products.sponsor.id"))
    reference: Mapped[str]


class ExpectedSettlementRow(Base):
    """The item that stands for what a partner owes of one day at one bank account."""

    __tablename__ = "expected_settlement"
    __table_args__ = (
        UniqueConstraint("partner_id", "programme_id", "bank_account_id", "day"),
        {"schema": "products"},
    )

    item_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.item.id"), primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey("products.partner.id"))
    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"))
    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey(_BANK_ACCOUNT))
    day: Mapped[date]


class ReceiptRow(Base):
    """Money on a bank account whose sender or purpose is not known; it lies in unidentified receipts."""

    __tablename__ = "receipt"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("state IN ('open', 'identified', 'taken_back')", name="state"),
        CheckConstraint("(state = 'open') = (ended_at IS NULL)", name="ended"),
        CheckConstraint("state <> 'identified' OR settlement_id IS NOT NULL", name="identified"),
        Index("receipt_open", "bank_account_id", "id", postgresql_where=text("state = 'open'")),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey(_BANK_ACCOUNT))
    fund_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.fund.id"))
    currency: Mapped[str] = mapped_column(CHAR(3))
    amount: Mapped[int]
    line_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.statement_line.id"))
    transaction_id: Mapped[UUID]
    booked_on: Mapped[date]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    settlement_id: Mapped[UUID | None] = mapped_column(ForeignKey("products.settlement.id"))
    recorded_by: Mapped[str]
    recorded_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class PairingEffectRow(Base):
    """What a pairing did to the books."""

    __tablename__ = "pairing_effect"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('payout', 'settlement', 'charge', 'receipt', 'conversion', 'booked')", name="kind"
        ),
        Index("pairing_effect_of", "pairing_id"),
        Index("pairing_effect_transaction", "transaction_id"),
        Index(
            "pairing_effect_unbalanced",
            "id",
            postgresql_where=text("undone_at IS NOT NULL AND balanced_by IS NULL"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    pairing_id: Mapped[UUID] = mapped_column(ForeignKey(_PAIRING))
    kind: Mapped[str]
    subject: Mapped[UUID | None]
    transaction_id: Mapped[UUID]
    undone_at: Mapped[datetime | None]
    balanced_by: Mapped[UUID | None] = mapped_column(ForeignKey(_PAIRING))
