"""The tables of opening balances in schema `products`; migration 0025 says what each is for."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, ForeignKey, Index, Integer, SmallInteger, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_LOAD = "products.opening_load.id"


class OpeningLoadRow(Base):
    """One file of opening balances and how far it is in the books."""

    __tablename__ = "opening_load"
    __table_args__ = (
        CheckConstraint("rows > 0", name="rows"),
        Index(
            "opening_load_digest",
            "programme_id",
            "digest",
            unique=True,
            postgresql_where=text("state <> 'taken_back'"),
        ),
        Index(
            "opening_load_at_work",
            "id",
            postgresql_where=text("state IN ('committing', 'taking_back')"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"))
    name: Mapped[str]
    digest: Mapped[bytes]
    effective_on: Mapped[date]
    rows: Mapped[int] = mapped_column(Integer)
    batches: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    state: Mapped[str] = mapped_column(server_default=text("'loaded'"))
    loaded_by: Mapped[str]
    loaded_at: Mapped[datetime]
    committed_by: Mapped[str | None]
    committed_at: Mapped[datetime | None]
    final_by: Mapped[str | None]
    final_at: Mapped[datetime | None]
    taken_back_by: Mapped[str | None]
    taken_back_at: Mapped[datetime | None]
    taken_back_because: Mapped[str | None]


class OpeningRowRow(Base):
    """One row of the file, resolved to accounts, members and windows; `number` counts over all sheets."""

    __tablename__ = "opening_row"
    __table_args__ = (
        Index("opening_row_batch", "load_id", "batch", "number"),
        Index("opening_row_account", "account_id"),
        {"schema": "products"},
    )

    load_id: Mapped[UUID] = mapped_column(ForeignKey(_LOAD), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    batch: Mapped[int] = mapped_column(Integer)
    sheet: Mapped[str]
    line: Mapped[int] = mapped_column(Integer)
    code: Mapped[str]
    fund_id: Mapped[UUID]
    control_id: Mapped[UUID]
    account_id: Mapped[UUID | None]
    against: Mapped[UUID | None]
    currency: Mapped[str] = mapped_column(CHAR(3))
    amount: Mapped[int]
    partner_id: Mapped[UUID | None]
    member_id: Mapped[UUID | None]
    link_id: Mapped[UUID | None]
    enrolment_id: Mapped[UUID | None]
    product: Mapped[str | None]
    sponsor_id: Mapped[UUID | None]
    contributed_on: Mapped[date | None]
    contributed: Mapped[int] = mapped_column(server_default=text("0"))
    window_start: Mapped[date | None]
    tier: Mapped[int | None] = mapped_column(SmallInteger)
    rule_version: Mapped[int | None] = mapped_column(Integer)
    remittance_id: Mapped[str | None]
    remittance: Mapped[UUID | None]
    transaction_id: Mapped[UUID | None]
    reversal_id: Mapped[UUID | None]


class OpeningWindowRow(Base):
    """Match of one enrolment in one window, as the file's contributions earn it."""

    __tablename__ = "opening_window"
    __table_args__ = (Index("opening_window_batch", "load_id", "batch"), {"schema": "products"})

    load_id: Mapped[UUID] = mapped_column(ForeignKey(_LOAD), primary_key=True)
    batch: Mapped[int] = mapped_column(Integer)
    enrolment_id: Mapped[UUID] = mapped_column(primary_key=True)
    window_start: Mapped[date] = mapped_column(primary_key=True)
    window_end: Mapped[date]
    by_tier: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    settled_by_tier: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    entitled: Mapped[int]
    rule_version: Mapped[int] = mapped_column(Integer)
    grants_on: Mapped[date | None]
    window_over: Mapped[bool]
