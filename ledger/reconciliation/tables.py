"""The tables of pairing in schema `ledger`: items, pairings, what stands, and the rules of each bank account."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, CHAR
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from ledger.models import Base, Xid8


class ItemRow(Base):
    """What a statement line may be the other side of: a posting, a payment sent, or what a partner owes of one day."""

    __tablename__ = "item"
    __table_args__ = (
        CheckConstraint("source IN ('booked', 'payout', 'settlement')", name="source"),
        CheckConstraint("amount <> 0", name="amount"),
        CheckConstraint("(source = 'booked') = (transaction_id IS NOT NULL)", name="booked"),
        CheckConstraint("(transaction_id IS NULL) = (seq IS NULL)", name="posting"),
        UniqueConstraint("transaction_id", "seq", "bank_account_id"),
        Index("item_days", "bank_account_id", "on_date", "id"),
        Index(
            "item_expected",
            "source",
            "id",
            postgresql_where=text("closed_at IS NULL AND source <> 'booked'"),
        ),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    source: Mapped[str]
    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.bank_account.id"))
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    on_date: Mapped[date]
    day: Mapped[date | None]
    kind: Mapped[str]
    end_to_end: Mapped[str | None]
    reference: Mapped[str | None]
    identifiers: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    party: Mapped[str | None]
    batch: Mapped[str | None]
    subject: Mapped[str | None]
    transaction_id: Mapped[UUID | None]
    seq: Mapped[int | None] = mapped_column(SmallInteger)
    closed_at: Mapped[datetime | None]


class PairingRulesRow(Base):
    """A version of the rules by which a bank account's lines are paired."""

    __tablename__ = "pairing_rules"
    __table_args__ = (CheckConstraint("version > 0", name="version"), {"schema": "ledger"})

    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.bank_account.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]]
    applied_by: Mapped[str]
    applied_at: Mapped[datetime]


class PairingRunRow(Base):
    """The rules tried once over one bank account, and how many pairings each made."""

    __tablename__ = "pairing_run"
    __table_args__ = (Index("pairing_run_of", "bank_account_id", "id"), {"schema": "ledger"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID]
    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.bank_account.id"))
    rules_version: Mapped[int] = mapped_column(Integer)
    made_by: Mapped[str]
    made_at: Mapped[datetime]
    by_rule: Mapped[dict[str, Any]]
    proposals: Mapped[int] = mapped_column(Integer)


class PairingRow(Base):
    """Lines and items that belong together, by which rule and on what evidence; and whether it was taken back."""

    __tablename__ = "pairing"
    __table_args__ = (
        CheckConstraint("cardinality(lines) > 0 OR amount = 0 AND cardinality(items) > 1", name="lines"),
        CheckConstraint("cardinality(items) > 0", name="items"),
        Index("pairing_horizon", "era", "xid", "id"),
        Index("pairing_undone", "bank_account_id", postgresql_where=text("undone_at IS NOT NULL")),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    bank_account_id: Mapped[UUID]
    run_id: Mapped[UUID | None]
    rule: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    amount: Mapped[int]
    lines: Mapped[list[UUID]] = mapped_column(ARRAY(PG_UUID(as_uuid=True)))
    items: Mapped[list[UUID]] = mapped_column(ARRAY(PG_UUID(as_uuid=True)))
    made_by: Mapped[str]
    made_at: Mapped[datetime]
    undone_at: Mapped[datetime | None]
    undone_by: Mapped[str | None]
    undone_remark: Mapped[str | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class PairedLineRow(Base):
    """A line that stands in a pairing. Written by triggers alone."""

    __tablename__ = "paired_line"
    __table_args__ = ({"schema": "ledger"},)

    line_id: Mapped[UUID] = mapped_column(primary_key=True)
    pairing_id: Mapped[UUID]


class PairedItemRow(Base):
    """An item that stands in a pairing. Written by triggers alone."""

    __tablename__ = "paired_item"
    __table_args__ = ({"schema": "ledger"},)

    item_id: Mapped[UUID] = mapped_column(primary_key=True)
    pairing_id: Mapped[UUID]
