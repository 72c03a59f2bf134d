"""The declarative base of the project, and the ledger's tables.

What a table can't say here (triggers, grants, policies, partitions) is written by hand in the migration.
"""

from datetime import date, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import CHAR, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

_ERA = text("1")
_XID = text("pg_current_xact_id()")
_NOW = text("now()")


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "xid8"


PGDialect.ischema_names["xid8"] = Xid8  # so that comparing the models with a database knows it


class Base(DeclarativeBase):
    """The base of every table; each part keeps its tables in a PostgreSQL schema of its own."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: PG_UUID(as_uuid=True),
        str: Text,
        int: BigInteger,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        date: Date,
        dict[str, Any]: JSONB,
    }


class EraRow(Base):
    """A cluster in which transactions were numbered: ids of transactions are never compared across eras."""

    __tablename__ = "era"
    __table_args__ = ({"schema": "ledger"},)

    era: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    system_identifier: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class FundRow(Base):
    """Money that must balance by itself."""

    __tablename__ = "fund"
    __table_args__ = (UniqueConstraint("code"), UniqueConstraint("number"), {"schema": "ledger"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    time_zone: Mapped[str]
    number: Mapped[int] = mapped_column(Identity(always=True))
    closed_through: Mapped[date] = mapped_column(server_default=text("'0001-01-01'"))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class PeriodEventRow(Base):
    """A fund's books closed through a day, or reopened from it."""

    __tablename__ = "period_event"
    __table_args__ = (
        CheckConstraint("kind in ('close', 'reopen')", name="kind"),
        Index(None, "fund_id", "recorded_at"),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    fund_id: Mapped[UUID] = mapped_column(ForeignKey(FundRow.id))
    through: Mapped[date]
    kind: Mapped[str]
    remark: Mapped[str]
    actor: Mapped[str]
    recorded_at: Mapped[datetime]


class AccountRow(Base):
    """An account of one fund in one currency; rows with a `partner_id` are visible to that partner."""

    __tablename__ = "account"
    __table_args__ = (
        UniqueConstraint("fund_id", "code", "owner", "currency"),
        CheckConstraint("kind in ('asset', 'liability', 'equity', 'income', 'expense')", name="kind"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("floor <= ceiling", name="limits"),
        Index(None, "owner", postgresql_where=text("owner <> ''")),
        Index("account_hot", "fund_id", postgresql_where=text("hot")),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    fund_id: Mapped[UUID] = mapped_column(ForeignKey(FundRow.id))
    code: Mapped[str]
    owner: Mapped[str] = mapped_column(Text(collation="C"), server_default=text("''"))
    kind: Mapped[str]
    currency: Mapped[str] = mapped_column(CHAR(3))
    hot: Mapped[bool] = mapped_column(server_default=text("false"))
    floor: Mapped[int | None]
    ceiling: Mapped[int | None]
    closed_at: Mapped[datetime | None]
    partner_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class AccountBalanceRow(Base):
    """What the account's postings and active holds add up to. Changed by triggers only."""

    __tablename__ = "account_balance"
    __table_args__ = ({"schema": "ledger"},)

    account_id: Mapped[UUID] = mapped_column(ForeignKey(AccountRow.id), primary_key=True)
    debits: Mapped[int] = mapped_column(server_default=text("0"))
    credits: Mapped[int] = mapped_column(server_default=text("0"))
    held: Mapped[int] = mapped_column(server_default=text("0"))


class TransactionRow(Base):
    """An atomic, ordered list of postings."""

    __tablename__ = "transaction"
    __table_args__ = (
        Index(None, "era", "xid", "id"),
        {"schema": "ledger", "postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    reference: Mapped[str]
    kind: Mapped[str]
    effective_on: Mapped[date]
    recorded_at: Mapped[datetime]
    reverses: Mapped[UUID | None]
    postings: Mapped[int] = mapped_column(SmallInteger)
    details: Mapped[dict[str, Any] | None]
    salt: Mapped[bytes]
    leaf: Mapped[bytes]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=_ERA)
    xid: Mapped[int] = mapped_column(Xid8, server_default=_XID)


class PostingRow(Base):
    """One amount from one debited account to one credited account."""

    __tablename__ = "posting"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("debit_account <> credit_account", name="accounts"),
        Index(None, "debit_account", "transaction_id"),
        Index(None, "credit_account", "transaction_id"),
        {"schema": "ledger", "postgresql_partition_by": "RANGE (transaction_id)"},
    )

    transaction_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    debit_account: Mapped[UUID]
    credit_account: Mapped[UUID]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    effective_on: Mapped[date]


class ReferenceRow(Base):
    """Every reference ever posted: unique for ever, with the digest of what was asked."""

    __tablename__ = "reference"
    __table_args__ = ({"schema": "ledger"},)

    reference: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    transaction_id: Mapped[UUID]
    digest: Mapped[bytes]


class HoldRow(Base):
    """Funds set aside, then captured, released or expired: once."""

    __tablename__ = "hold"
    __table_args__ = (
        UniqueConstraint("reference"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("captured between 0 and amount", name="captured"),
        CheckConstraint("state in ('active', 'captured', 'released', 'expired')", name="state"),
        CheckConstraint("(state = 'active') = (ended_at is null)", name="ended"),
        CheckConstraint("(state = 'captured') = (transaction_id is not null)", name="transaction"),
        CheckConstraint("(state = 'captured') = (captured > 0)", name="capture"),
        Index(None, "account_id", postgresql_where=text("state = 'active'")),
        Index(None, "expires_at", postgresql_where=text("state = 'active'")),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(Text(collation="C"))
    account_id: Mapped[UUID] = mapped_column(ForeignKey(AccountRow.id))
    amount: Mapped[int]
    captured: Mapped[int] = mapped_column(server_default=text("0"))
    state: Mapped[str] = mapped_column(server_default=text("'active'"))
    expires_at: Mapped[datetime | None]
    transaction_id: Mapped[UUID | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class OutboxRow(Base):
    """A message written in the transaction that did what it announces."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "era", "xid", "id"), {"schema": "ledger"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    topic: Mapped[str]
    key: Mapped[str]
    payload: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    era: Mapped[int] = mapped_column(SmallInteger, server_default=_ERA)
    xid: Mapped[int] = mapped_column(Xid8, server_default=_XID)


class FoldRow(Base):
    """How far the folder has read: everything before (era, xid) is in the folded movements."""

    __tablename__ = "fold"
    __table_args__ = ({"schema": "ledger"},)

    name: Mapped[str] = mapped_column(primary_key=True)
    era: Mapped[int] = mapped_column(SmallInteger)
    xid: Mapped[int] = mapped_column(Xid8)


class AccountDayRow(Base):
    """An account's movements effective on one day; not cumulative."""

    __tablename__ = "account_day"
    __table_args__ = ({"schema": "ledger"},)

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    debits: Mapped[int]
    credits: Mapped[int]


class AccountMonthRow(Base):
    """An account's movements effective in one month (its first day); not cumulative."""

    __tablename__ = "account_month"
    __table_args__ = ({"schema": "ledger"},)

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    debits: Mapped[int]
    credits: Mapped[int]


class SealKeyRow(Base):
    """A public key with which seals were signed; kept for ever."""

    __tablename__ = "seal_key"
    __table_args__ = ({"schema": "ledger"},)

    key_id: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[bytes]
    created_at: Mapped[datetime]


class SealRow(Base):
    """A signed block of the tamper-evident chain over the transactions of [from_xid, to_xid)."""

    __tablename__ = "seal"
    __table_args__ = (UniqueConstraint("previous"), {"schema": "ledger"})

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    previous: Mapped[bytes]
    root: Mapped[bytes]
    head: Mapped[bytes]
    era: Mapped[int] = mapped_column(SmallInteger)
    from_xid: Mapped[int] = mapped_column(Xid8)
    to_xid: Mapped[int] = mapped_column(Xid8)
    transactions: Mapped[int]
    postings: Mapped[int]
    total_transactions: Mapped[int]
    total_postings: Mapped[int]
    sealed_at: Mapped[datetime]
    key_id: Mapped[str] = mapped_column(ForeignKey(SealKeyRow.key_id))
    signature: Mapped[bytes]
    audit_root: Mapped[bytes | None]
    audit_entries: Mapped[int | None]
    total_audit_entries: Mapped[int | None]


class AuditEntryRow(Base):
    """One act in the audit log: never changed, never deleted; its values are sealed under keys that are destroyed."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        CheckConstraint(
            "actor_kind IN ('operator', 'staff', 'partner', 'member', 'cli', 'system')", name="actor_kind"
        ),
        CheckConstraint("outcome IN ('done', 'refused')", name="outcome"),
        CheckConstraint("octet_length(salt) = 16", name="salt"),
        CheckConstraint("octet_length(leaf) = 32", name="leaf"),
        CheckConstraint("(before IS NULL) = (before_digest IS NULL)", name="before"),
        CheckConstraint("(after IS NULL) = (after_digest IS NULL)", name="after"),
        Index(None, "era", "xid", "id"),
        Index("audit_entry_actor_idx", "actor", "era", "xid", "id"),
        Index("audit_entry_object_idx", "object", "era", "xid", "id"),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    actor_kind: Mapped[str]
    actor: Mapped[str]
    action: Mapped[str]
    object: Mapped[str]
    outcome: Mapped[str]
    address: Mapped[str | None]
    request_id: Mapped[str | None]
    programme_id: Mapped[UUID | None]
    before: Mapped[bytes | None]
    after: Mapped[bytes | None]
    before_digest: Mapped[bytes | None]
    after_digest: Mapped[bytes | None]
    detail: Mapped[dict[str, Any] | None]
    recorded_at: Mapped[datetime]
    salt: Mapped[bytes]
    leaf: Mapped[bytes]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=_ERA)
    xid: Mapped[int] = mapped_column(Xid8, server_default=_XID)


class VerificationRow(Base):
    """A run of the verification: asked for, then carried out, with one verdict."""

    __tablename__ = "verification"
    __table_args__ = (
        Index("verification_last", "verified_at", postgresql_where=text("verified_at IS NOT NULL")),
        Index(
            "verification_asked",
            text("(verified_at IS NULL)"),
            unique=True,
            postgresql_where=text("verified_at IS NULL"),
        ),
        {"schema": "ledger"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    asked_by: Mapped[str]
    asked_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    ok: Mapped[bool | None]
    transactions: Mapped[int | None]
    postings: Mapped[int | None]
    unsealed: Mapped[int | None]
    findings: Mapped[list[Any] | None] = mapped_column(JSONB)
    era: Mapped[int | None] = mapped_column(SmallInteger)
    horizon: Mapped[int | None] = mapped_column(Xid8)
