"""The tables of closing; migration 0024 says what each is for, and has what a table can't say here."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from ledger.models import Base

_PROGRAMME = "products.programme.id"


class Snapshot(UserDefinedType[str]):
    """PostgreSQL's `pg_snapshot`."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "pg_snapshot"


PGDialect.ischema_names["pg_snapshot"] = Snapshot  # so that comparing the models with a database knows it


class ExplanationRow(Base):
    """A person's word about one finding of a check-list."""

    __tablename__ = "close_explanation"
    __table_args__ = (
        Index("close_explanation_of", "programme_id", "month", "item", "subject", "id"),
        CheckConstraint("remark <> ''", name="remark"),
        CheckConstraint("owner <> ''", name="owner"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    month: Mapped[date]
    item: Mapped[str]
    subject: Mapped[str]
    facts: Mapped[dict[str, Any]]
    remark: Mapped[str]
    owner: Mapped[str | None]
    explained_by: Mapped[str]
    explained_at: Mapped[datetime]


class CloseRow(Base):
    """One close of a programme's month."""

    __tablename__ = "close"
    __table_args__ = (
        UniqueConstraint("programme_id", "month", "revision"),
        Index(
            "close_standing",
            "programme_id",
            "month",
            unique=True,
            postgresql_where=text("reopened_at IS NULL"),
        ),
        Index("close_digest", "digest"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    month: Mapped[date]
    revision: Mapped[int] = mapped_column(Integer)
    through: Mapped[date]
    funds: Mapped[list[UUID]] = mapped_column(ARRAY(PG_UUID(as_uuid=True)))
    digest: Mapped[bytes]
    audit_entry: Mapped[UUID] = mapped_column(ForeignKey("ledger.audit_entry.id"))
    era: Mapped[int] = mapped_column(SmallInteger)
    snapshot: Mapped[str] = mapped_column(Snapshot)
    remark: Mapped[str]
    closed_by: Mapped[str]
    closed_at: Mapped[datetime]
    reopened_at: Mapped[datetime | None]
    reopened_by: Mapped[str | None]
    reopen_reason: Mapped[str | None]


class CloseFileRow(Base):
    """One form of a close's pack."""

    __tablename__ = "close_file"
    __table_args__ = (Index("close_file_digest", "digest"), {"schema": "products"})

    close_id: Mapped[UUID] = mapped_column(ForeignKey("products.close.id"), primary_key=True)
    format: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[bytes]
    digest: Mapped[bytes]
