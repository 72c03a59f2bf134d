"""The tables of claim packs in schema `products`."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, SmallInteger, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8


class ClaimPackRow(Base):
    """What one sponsor is asked to certify, as it was signed, and how far it is booked once it is certified."""

    __tablename__ = "claim_pack"
    __table_args__ = (
        CheckConstraint("length(digest) = 32", name="digest"),
        CheckConstraint("length(public_key) = 32", name="public_key"),
        CheckConstraint("length(signature) = 64", name="signature"),
        CheckConstraint("state IN ('made', 'certified', 'withdrawn')", name="state"),
        CheckConstraint("(state = 'certified') = (certified_at IS NOT NULL)", name="certified"),
        UniqueConstraint("sponsor_id", "number"),
        Index(
            "claim_pack_open",
            "sponsor_id",
            unique=True,
            postgresql_where=text("state = 'made' OR state = 'certified' AND booked_at IS NULL"),
        ),
        Index("claim_pack_horizon", "era", "xid", "id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey("products.programme.id"))
    sponsor_id: Mapped[UUID] = mapped_column(ForeignKey("products.sponsor.id"))
    number: Mapped[int] = mapped_column(Integer)
    currency: Mapped[str] = mapped_column(CHAR(3))
    since: Mapped[date | None]
    through: Mapped[date]
    lines: Mapped[int] = mapped_column(Integer)
    adjustments: Mapped[int] = mapped_column(Integer)
    claimed: Mapped[int]
    adjusted: Mapped[int]
    digest: Mapped[bytes]
    key_id: Mapped[str]
    public_key: Mapped[bytes]
    signature: Mapped[bytes]
    made_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(server_default=text("'made'"))
    certification: Mapped[str | None]
    certified_on: Mapped[date | None]
    certified_at: Mapped[datetime | None]
    booked_lines: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    booked_at: Mapped[datetime | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class ClaimLineRow(Base):
    """One line of a pack: what awaited the sponsor for one enrolment's window, or an adjustment of what it certified."""

    __tablename__ = "claim_line"
    __table_args__ = (
        CheckConstraint("kind IN ('match', 'adjustment')", name="kind"),
        CheckConstraint("(kind = 'match') = (amount > 0)", name="amount"),
        CheckConstraint("(kind = 'adjustment') = (adjustment_id IS NOT NULL)", name="adjustment"),
        Index("claim_line_share", "enrolment_id", "window_start"),
        Index("claim_line_adjustment", "adjustment_id", postgresql_where=text("adjustment_id IS NOT NULL")),
        {"schema": "products"},
    )

    pack_id: Mapped[UUID] = mapped_column(ForeignKey("products.claim_pack.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    programme_id: Mapped[UUID]
    kind: Mapped[str]
    enrolment_id: Mapped[UUID]
    window_start: Mapped[date]
    window_end: Mapped[date]
    product: Mapped[str]
    member: Mapped[str]
    account: Mapped[str]
    contributions: Mapped[int] = mapped_column(Integer)
    contributed: Mapped[int]
    rate: Mapped[str]
    amount: Mapped[int]
    adjustment_id: Mapped[UUID | None]
