"""The tables of bank accounts and their statements, in schema `ledger`."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Integer, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_ACCOUNT = "ledger.bank_account.id"
_FILE = "ledger.statement_file.id"


class BankAccountRow(Base):
    """An account at a bank (or a rail's wallet), and the ledger account that mirrors it."""

    __tablename__ = "bank_account"
    __table_args__ = (
        UniqueConstraint("identification", "currency"),
        CheckConstraint("identification <> ''", name="identification"),
        CheckConstraint("statements_until >= statements_since", name="statements"),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    fund_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.fund.id"))
    account_id: Mapped[UUID] = mapped_column(ForeignKey("ledger.account.id"), unique=True)
    currency: Mapped[str] = mapped_column(CHAR(3))
    identification: Mapped[str]
    also_known_as: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    servicer: Mapped[str | None]
    statements_since: Mapped[date]
    statements_until: Mapped[date | None]
    statement_mapping: Mapped[dict[str, Any] | None]
    opened_at: Mapped[datetime]


class StatementFileRow(Base):
    """One file that came in, once by its content, and the wrapped key that its content and its lines' texts rest under."""

    __tablename__ = "statement_file"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("bytes > 0", name="bytes"),
        CheckConstraint("statements >= 0", name="statements"),
        CheckConstraint("skipped >= 0", name="skipped"),
        CheckConstraint("(wrapped_key IS NULL) = (destroyed_at IS NOT NULL)", name="destroyed"),
        Index("statement_file_kept", "received_at", postgresql_where=text("destroyed_at IS NULL")),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(unique=True)
    name: Mapped[str]
    format: Mapped[str]
    received_at: Mapped[datetime]
    received_by: Mapped[str]
    statements: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    skipped: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    wrapped_key: Mapped[bytes | None]
    destroyed_at: Mapped[datetime | None]
    bytes: Mapped[int]  # the last, as its name hides the type's


class StatementPieceRow(Base):
    """A piece of a file, sealed under the file's key."""

    __tablename__ = "statement_piece"
    __table_args__ = ({"schema": "ledger"},)

    file_id: Mapped[UUID] = mapped_column(ForeignKey(_FILE), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sealed: Mapped[bytes]


class BankStatementRow(Base):
    """One statement of one account: opening + its lines = closing. What is withdrawn counts nowhere."""

    __tablename__ = "bank_statement"
    __table_args__ = (
        CheckConstraint("position > 0", name="position"),
        CheckConstraint("lines >= 0", name="lines"),
        CheckConstraint("from_on <= to_on", name="days"),
        CheckConstraint(
            "(withdrawn_at IS NULL) = (withdrawn_by IS NULL) AND (withdrawn_at IS NULL) = (withdrawn_because IS NULL)",
            name="withdrawn",
        ),
        Index(
            "bank_statement_place",
            "file_id",
            "position",
            unique=True,
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
        Index("bank_statement_days", "bank_account_id", "from_on", "to_on"),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    file_id: Mapped[UUID] = mapped_column(ForeignKey(_FILE))
    position: Mapped[int] = mapped_column(Integer)
    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey(_ACCOUNT))
    identification: Mapped[str | None]
    number: Mapped[str | None]
    from_on: Mapped[date]
    to_on: Mapped[date]
    opening: Mapped[int]
    closing: Mapped[int]
    lines: Mapped[int] = mapped_column(Integer)
    made_at: Mapped[datetime | None]
    imported_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]
    withdrawn_because: Mapped[str | None]


class StatementLineRow(Base):
    """One line of a statement; `text_sealed` is the free text and the other side's name and account.

    With a `duplicate_of` it takes part in nothing: the line that does in its stead, or itself, when its statement was withdrawn.
    """

    __tablename__ = "statement_line"
    __table_args__ = (
        UniqueConstraint("statement_id", "entry", "detail"),
        CheckConstraint("entry > 0", name="entry"),
        CheckConstraint("detail >= 0", name="detail"),
        CheckConstraint("amount <> 0", name="amount"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint"),
        Index("statement_line_days", "bank_account_id", "booked_on", "id"),
        Index("statement_line_fingerprint", "bank_account_id", "fingerprint"),
        Index(
            "statement_line_nobody",
            "bank_account_id",
            "counterparty_index",
            postgresql_where=text("party IS NULL AND counterparty_index IS NOT NULL"),
        ),
        Index("statement_line_duplicate", "duplicate_of", postgresql_where=text("duplicate_of IS NOT NULL")),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    # the head of a statement is written after its lines, once it is known whole
    statement_id: Mapped[UUID] = mapped_column(
        ForeignKey("ledger.bank_statement.id", deferrable=True, initially="DEFERRED")
    )
    bank_account_id: Mapped[UUID]
    entry: Mapped[int] = mapped_column(Integer)
    detail: Mapped[int] = mapped_column(Integer)
    booked_on: Mapped[date]
    value_on: Mapped[date]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    kind: Mapped[str | None]
    reversal: Mapped[bool]
    end_to_end: Mapped[str | None]
    reference: Mapped[str | None]
    identifiers: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    party: Mapped[str | None]
    counterparty_index: Mapped[bytes | None]
    fingerprint: Mapped[bytes]
    duplicate_of: Mapped[UUID | None] = mapped_column(ForeignKey("ledger.statement_line.id"))
    text_sealed: Mapped[bytes | None]


class BankCounterpartyRow(Base):
    """Whose account the other side of a line is."""

    __tablename__ = "bank_counterparty"
    __table_args__ = (
        CheckConstraint("octet_length(account_index) = 32", name="account_index"),
        CheckConstraint("source IN ('entered', 'learned')", name="source"),
        Index(
            "bank_counterparty_of",
            "bank_account_id",
            "account_index",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    bank_account_id: Mapped[UUID] = mapped_column(ForeignKey(_ACCOUNT))
    account_index: Mapped[bytes]
    ending: Mapped[str]
    party: Mapped[str]
    source: Mapped[str]
    added_by: Mapped[str]
    added_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
