"""The registry's further tables in schema `products`: documents, verification, dependants, beneficiaries, likenesses.

What a table can't say here (grants, policies) is written by hand in the migration.
"""

from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base

_MEMBER: Final = "products.member.id"
_PARTNER: Final = "products.partner.id"


class MemberDocumentRow(Base):
    """A document that a member can be known by; everything but its type is encrypted."""

    __tablename__ = "member_document"
    __table_args__ = (
        CheckConstraint("checked IN ('number', 'nothing')", name="checked"),
        Index("member_document_member", "member_id"),
        Index(
            "member_document_number", "partner_id", "number_index", postgresql_where=text("ended_at IS NULL")
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    type: Mapped[str]
    country: Mapped[bytes]
    number: Mapped[bytes]
    expires_on: Mapped[bytes | None]
    number_index: Mapped[bytes | None]
    checked: Mapped[str]
    recorded_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class MemberVerificationRow(Base):
    """That somebody verified who a member is: how, when, by whom, and until when it holds."""

    __tablename__ = "member_verification"
    __table_args__ = (
        CheckConstraint("level IN ('phone', 'document', 'institution')", name="level"),
        Index("member_verification_member", "member_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    level: Mapped[str]
    verified_by: Mapped[str]
    evidence: Mapped[bytes | None]
    document_id: Mapped[UUID | None] = mapped_column(ForeignKey("products.member_document.id"))
    verified_at: Mapped[datetime]
    valid_until: Mapped[date | None]
    recorded_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class IdentityIndexRow(Base):
    """A blind index that is the same for every partner: read by the worker's role alone, to find duplicates."""

    __tablename__ = "identity_index"
    __table_args__ = (
        CheckConstraint("kind IN ('phone', 'document')", name="kind"),
        Index("identity_index_digest", "digest"),
        Index("identity_index_member", "member_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    kind: Mapped[str]
    source_id: Mapped[UUID]
    digest: Mapped[bytes]
    recorded_at: Mapped[datetime]


class DependantRow(Base):
    """Somebody whom a member provides for."""

    __tablename__ = "dependant"
    __table_args__ = (Index("dependant_member", "member_id"), {"schema": "products"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    relation: Mapped[bytes]
    given_name: Mapped[bytes]
    family_name: Mapped[bytes | None]
    birth_date: Mapped[bytes | None]
    sex: Mapped[bytes | None]
    residence_country: Mapped[bytes | None]
    added_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class BeneficiaryRow(Base):
    """Who gets a member's money after its death, and how much of it; 10,000 basis points are all."""

    __tablename__ = "beneficiary"
    __table_args__ = (
        CheckConstraint("share_basis_points BETWEEN 1 AND 10000", name="share"),
        Index("beneficiary_member", "member_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    relation: Mapped[bytes]
    given_name: Mapped[bytes]
    family_name: Mapped[bytes | None]
    phone: Mapped[bytes | None]
    share_basis_points: Mapped[int] = mapped_column(Integer)
    added_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
