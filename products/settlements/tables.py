"""The tables of partners' settlement files in schema `products`; grants and policies stand in migration 0015."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_PARTNER = "products.partner.id"
_PROGRAMME = "products.programme.id"
_FILE = "products.settlement_file.id"


class SettlementMappingRow(Base):
    """How a partner's files for a programme are read; the latest holds."""

    __tablename__ = "settlement_mapping"
    __table_args__ = (
        Index("settlement_mapping_of", "partner_id", "programme_id", "id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    mapping: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime]


class SettlementFileRow(Base):
    """One file, once as read by one mapping for the same days."""

    __tablename__ = "settlement_file"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("lines >= 0", name="lines"),
        CheckConstraint("first_on <= last_on", name="days"),
        UniqueConstraint("partner_id", "programme_id", "digest", "mapping_id", "first_on", "last_on"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    mapping_id: Mapped[UUID] = mapped_column(ForeignKey("products.settlement_mapping.id"))
    digest: Mapped[bytes]
    first_on: Mapped[date]
    last_on: Mapped[date]
    lines: Mapped[int] = mapped_column(Integer)
    compared_at: Mapped[datetime]


class SettlementFileLineRow(Base):
    """One event of a file, as the partner has it."""

    __tablename__ = "settlement_file_line"
    __table_args__ = (
        CheckConstraint("kind IN ('collection', 'reversal')", name="kind"),
        CheckConstraint("amount >= 0", name="amount"),
        {"schema": "products"},
    )

    file_id: Mapped[UUID] = mapped_column(ForeignKey(_FILE), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    remittance_id: Mapped[str] = mapped_column(Text(collation="C"))
    kind: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    at: Mapped[datetime | None]


class SettlementDifferenceRow(Base):
    """Where a file and the books differ about one event."""

    __tablename__ = "settlement_difference"
    __table_args__ = (
        CheckConstraint(
            "type IN ('missing_here', 'missing_there', 'amount', 'currency', 'duplicate')", name="type"
        ),
        CheckConstraint("kind IN ('collection', 'reversal')", name="kind"),
        CheckConstraint("state IN ('open', 'explained')", name="state"),
        CheckConstraint(
            "(state = 'explained') = (remark IS NOT NULL AND explained_at IS NOT NULL)", name="explained"
        ),
        {"schema": "products"},
    )

    file_id: Mapped[UUID] = mapped_column(ForeignKey(_FILE), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    type: Mapped[str]
    kind: Mapped[str]
    remittance_id: Mapped[str] = mapped_column(Text(collation="C"))
    remittance: Mapped[UUID | None]
    position: Mapped[int | None] = mapped_column(Integer)
    there_amount: Mapped[int | None]
    there_currency: Mapped[str | None] = mapped_column(CHAR(3))
    here_amount: Mapped[int | None]
    here_currency: Mapped[str | None] = mapped_column(CHAR(3))
    here_state: Mapped[str | None]
    here_reason: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    remark: Mapped[str | None]
    explained_by: Mapped[str | None]
    explained_at: Mapped[datetime | None]
