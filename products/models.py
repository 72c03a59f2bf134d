"""The tables of schema `products`: programmes, partners, sponsors, the registry, remittances. Match has its own beside its rules.

What a table can't say here (triggers, grants, policies) is written by hand in the migration.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    CheckConstraint,
    Date,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import Mapped, mapped_column

from ledger.models import Base, Xid8

_PROGRAMME = "products.programme.id"
_PARTNER = "products.partner.id"
_MEMBER = "products.member.id"


class ProgrammeRow(Base):
    """A scheme described as versioned data."""

    __tablename__ = "programme"
    __table_args__ = (UniqueConstraint("slug"), {"schema": "products"})

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]
    currency: Mapped[str] = mapped_column(CHAR(3))
    time_zone: Mapped[str]
    created_at: Mapped[datetime]


class ProgrammeVersionRow(Base):
    """One version of a programme's rules: immutable once applied, but for `reevaluated`."""

    __tablename__ = "programme_version"
    __table_args__ = (
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("applies_to IN ('new_windows', 'open_windows', 'since')", name="applies_to"),
        {"schema": "products"},
    )

    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[bytes]
    source: Mapped[str]
    in_force_from: Mapped[date]
    applies_to: Mapped[str]
    applied_at: Mapped[datetime]
    reevaluated: Mapped[bool] = mapped_column(server_default=text("false"))


class ProgrammeFundRow(Base):
    """A fund of a programme by its role: savers, agency, or pool and its code."""

    __tablename__ = "programme_fund"
    __table_args__ = (UniqueConstraint("fund_id"), {"schema": "products"})

    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    fund_id: Mapped[UUID]


class PartnerRow(Base):
    """A fintech or telecom partner, or an organisation, which registers people and sends no money."""

    __tablename__ = "partner"
    __table_args__ = (
        UniqueConstraint("slug"),
        CheckConstraint("state IN ('active', 'disabled')", name="state"),
        CheckConstraint("kind IN ('remitter', 'organisation')", name="kind"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]
    format: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'active'"))
    created_at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(server_default=text("'remitter'"))


class PartnerProgrammeRow(Base):
    """A partner in a programme, on which terms."""

    __tablename__ = "partner_programme"
    __table_args__ = (
        CheckConstraint("terms IN ('net', 'prefunded', 'guaranteed')", name="terms"),
        CheckConstraint("collection IN ('as_reported', 'by_quote', 'by_rule')", name="collection"),
        {"schema": "products"},
    )

    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER), primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME), primary_key=True)
    terms: Mapped[str]
    collection: Mapped[str]
    joined_at: Mapped[datetime]


class SponsorRow(Base):
    """Who funds a programme's match; `queueing`: its fund ran out, and what is earned waits in `match_queue`."""

    __tablename__ = "sponsor"
    __table_args__ = (
        UniqueConstraint("programme_id", "slug"),
        CheckConstraint("funding IN ('prefunded', 'arrears')", name="funding"),
        CheckConstraint("warn_percent BETWEEN 0 AND 100", name="warn_percent"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    slug: Mapped[str]
    name: Mapped[str]
    funding: Mapped[str]
    fund_id: Mapped[UUID]
    uncommitted_account: Mapped[UUID]
    committed_account: Mapped[UUID]
    receivable_account: Mapped[UUID]
    queueing: Mapped[bool]
    warn_percent: Mapped[int] = mapped_column(SmallInteger, server_default=text("20"))
    filled_to: Mapped[int] = mapped_column(server_default=text("0"))
    warned_at: Mapped[datetime | None]


class MemberRow(Base):
    """A person in one programme: a pseudonym, and personal fields encrypted under a key that erasure destroys."""

    __tablename__ = "member"
    __table_args__ = (
        CheckConstraint("(wrapped_key IS NULL) = (erased_at IS NOT NULL)", name="erased"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    wrapped_key: Mapped[bytes | None]
    birth_date: Mapped[bytes | None]
    sex: Mapped[bytes | None]
    origin_country: Mapped[bytes | None]
    residence_country: Mapped[bytes | None]
    given_name: Mapped[bytes | None]
    family_name: Mapped[bytes | None]
    registered_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]
    unapplied_account: Mapped[UUID]
    receivable_account: Mapped[UUID]


_ACTIVE_LINK = text("ended_at IS NULL")


class MemberLinkRow(Base):
    """What one partner knows of a member; its id is the `mem_` id that this partner sees."""

    __tablename__ = "member_link"
    __table_args__ = (
        Index("member_link_member", "member_id"),
        Index("member_link_horizon", "partner_id", "era", "xid", "id"),
        Index(
            "member_link_phone",
            "partner_id",
            "phone_index",
            "programme_id",
            unique=True,
            postgresql_where=_ACTIVE_LINK,
        ),
        Index(
            "member_link_reference",
            "partner_id",
            "partner_reference_index",
            "programme_id",
            unique=True,
            postgresql_where=_ACTIVE_LINK,
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER, deferrable=True, initially="DEFERRED"))
    phone: Mapped[bytes | None]
    phone_index: Mapped[bytes | None]
    partner_reference: Mapped[bytes | None]
    partner_reference_index: Mapped[bytes | None]
    linked_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class MemberFactRow(Base):
    """A dated fact about a member with its evidence; the value is encrypted."""

    __tablename__ = "member_fact"
    __table_args__ = (
        CheckConstraint("evidence IN ('self_declared', 'document', 'institution')", name="evidence"),
        Index("member_fact_member", "member_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    name: Mapped[str]
    value: Mapped[bytes]
    since: Mapped[date]
    evidence: Mapped[str]
    recorded_at: Mapped[datetime]


class ConsentRow(Base):
    """A member's consent for one purpose, given as a mandate through one partner; one of each is in force at most."""

    __tablename__ = "consent"
    __table_args__ = (
        CheckConstraint("purpose IN ('contributions', 'whole_view', 'casework')", name="purpose"),
        CheckConstraint("purpose = 'contributions' OR proof IS NOT NULL", name="proven"),
        CheckConstraint("limit_per_month > 0", name="limit_per_month"),
        CheckConstraint("(limit_per_month IS NULL) = (limit_currency IS NULL)", name="limit"),
        Index(
            "consent_in_force",
            "member_id",
            "partner_id",
            "purpose",
            unique=True,
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    text_version: Mapped[str]
    language: Mapped[str]
    evidence: Mapped[bytes | None]
    limit_per_month: Mapped[int | None]
    limit_currency: Mapped[str | None] = mapped_column(CHAR(3))
    given_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]
    purpose: Mapped[str] = mapped_column(server_default=text("'contributions'"))
    proof: Mapped[UUID | None]
    cooling_off_until: Mapped[datetime | None]


class EnrolmentRow(Base):
    """A member in a product; `terms` is what the rules fixed at entry. Only a savings product has ledger accounts."""

    __tablename__ = "enrolment"
    __table_args__ = (
        Index(
            "enrolment_active",
            "member_id",
            "product",
            unique=True,
            postgresql_where=text("ended_at IS NULL AND NOT several"),
        ),
        Index("enrolment_member", "member_id"),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    member_id: Mapped[UUID] = mapped_column(ForeignKey(_MEMBER))
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    product: Mapped[str]
    several: Mapped[bool]
    choice: Mapped[dict[str, Any]]
    terms: Mapped[dict[str, Any]]
    rule_version: Mapped[int] = mapped_column(Integer)
    enrolled_at: Mapped[datetime]
    enrolled_on: Mapped[date]
    ended_at: Mapped[datetime | None]
    pending_account: Mapped[UUID | None]
    savings_account: Mapped[UUID | None]
    unvested_account: Mapped[UUID | None]
    vested_account: Mapped[UUID | None]


class RemittanceClaimRow(Base):
    """Who comes first with a remittance, its original or its reversal, claims it here."""

    __tablename__ = "remittance_claim"
    __table_args__ = ({"schema": "products"},)

    partner_id: Mapped[UUID] = mapped_column(primary_key=True)
    remittance_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    id: Mapped[UUID]


class RemittanceRow(Base):
    """A decided remittance. One that is `awaiting_original` knows its reversal only."""

    __tablename__ = "remittance"
    __table_args__ = (
        CheckConstraint(
            "status IN ('posted', 'reversed', 'unallocated', 'parked', 'awaiting_original')", name="status"
        ),
        Index("remittance_horizon", "partner_id", "era", "xid", "id"),
        Index(
            "remittance_unallocated",
            "partner_id",
            "member_key",
            postgresql_where=text("status = 'unallocated'"),
        ),
        Index("remittance_parked", "partner_id", "id", postgresql_where=text("status = 'parked'")),
        Index(
            "remittance_no_room",
            "parked_account",
            "contributed_at",
            "id",
            postgresql_where=text("parked_account IS NOT NULL AND status IN ('parked', 'unallocated')"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID]
    remittance_id: Mapped[str] = mapped_column(Text(collation="C"))
    status: Mapped[str]
    reason: Mapped[str | None]
    digest: Mapped[bytes | None]
    programme_id: Mapped[UUID | None]
    rule_version: Mapped[int | None] = mapped_column(Integer)
    member_id: Mapped[UUID | None]
    link_id: Mapped[UUID | None]
    member_key: Mapped[bytes | None]
    sent_amount: Mapped[int | None]
    sent_currency: Mapped[str | None] = mapped_column(CHAR(3))
    received_amount: Mapped[int | None]
    received_currency: Mapped[str | None] = mapped_column(CHAR(3))
    fee_amount: Mapped[int | None]
    fee_currency: Mapped[str | None] = mapped_column(CHAR(3))
    collected_amount: Mapped[int | None]
    collected_currency: Mapped[str | None] = mapped_column(CHAR(3))
    origin_country: Mapped[str | None] = mapped_column(CHAR(2))
    destination_country: Mapped[str | None] = mapped_column(CHAR(2))
    contributed_at: Mapped[datetime | None]
    unapplied: Mapped[int] = mapped_column(server_default=text("0"))
    transaction_id: Mapped[UUID | None]
    reversed_at: Mapped[datetime | None]
    reversal_reason: Mapped[str | None]
    reversal_transaction_id: Mapped[UUID | None]
    quote_id: Mapped[UUID | None]
    delivery_id: Mapped[UUID | None]
    trace: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    recorded_at: Mapped[datetime]
    parked_account: Mapped[UUID | None]
    parked_amount: Mapped[int | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))


class ContributionRow(Base):
    """One part of what was collected, and where it went; `owed`: the partner has not paid it in yet."""

    __tablename__ = "contribution"
    __table_args__ = (
        CheckConstraint(
            "destination IN ('savers', 'agency', 'pool', 'unapplied', 'unallocated')", name="destination"
        ),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("state IN ('pending', 'settled', 'reversed')", name="state"),
        Index(
            "contribution_owed",
            "partner_id",
            "currency",
            "contributed_at",
            "remittance",
            "position",
            postgresql_where=text("owed"),
        ),
        Index(
            "contribution_window",
            "enrolment_id",
            "window_start",
            postgresql_where=text("enrolment_id IS NOT NULL"),
        ),
        Index(
            "contribution_unapplied",
            "member_id",
            postgresql_where=text("destination = 'unapplied' AND owed"),
        ),
        Index(
            "contribution_to_remit",
            "fund_id",
            "contributed_on",
            postgresql_where=text("destination = 'agency' AND remittal_line IS NULL"),
        ),
        Index(
            "contribution_day",
            "collected_on",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": 32},
        ),
        Index(
            "contribution_settled",
            "settlement_id",
            "settlement_part",
            "remittance",
            "position",
            postgresql_where=text("settlement_id IS NOT NULL"),
        ),
        {"schema": "products"},
    )

    remittance: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    partner_id: Mapped[UUID]
    programme_id: Mapped[UUID]
    destination: Mapped[str]
    product: Mapped[str | None]
    enrolment_id: Mapped[UUID | None]
    member_id: Mapped[UUID | None]
    fund_id: Mapped[UUID]
    debited_account: Mapped[UUID]
    credited_account: Mapped[UUID]
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(CHAR(3))
    contributed_at: Mapped[datetime]
    contributed_on: Mapped[date]
    window_start: Mapped[date | None]
    tier: Mapped[int | None] = mapped_column(SmallInteger)
    entitled: Mapped[int] = mapped_column(server_default=text("0"))
    state: Mapped[str]
    owed: Mapped[bool]
    settlement_id: Mapped[UUID | None]
    collected_on: Mapped[date]
    fee: Mapped[int] = mapped_column(server_default=text("0"))
    guaranteed: Mapped[bool] = mapped_column(server_default=text("false"))
    settlement_part: Mapped[int | None] = mapped_column(Integer)
    remittal_line: Mapped[UUID | None]


class QuoteRow(Base):
    """What a remittance would mean, as shown before the migrant pays; used once, by `used_by`."""

    __tablename__ = "quote"
    __table_args__ = ({"schema": "products"},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    programme_id: Mapped[UUID]
    rule_version: Mapped[int] = mapped_column(Integer)
    link_id: Mapped[UUID]
    member_id: Mapped[UUID]
    sent_amount: Mapped[int]
    sent_currency: Mapped[str] = mapped_column(CHAR(3))
    received_amount: Mapped[int]
    received_currency: Mapped[str] = mapped_column(CHAR(3))
    collect: Mapped[int]
    collect_currency: Mapped[str] = mapped_column(CHAR(3))
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_by: Mapped[UUID | None]


class SettlementRow(Base):
    """A partner paid what it collected, or another does so in its stead; `reference` makes it happen once."""

    __tablename__ = "settlement"
    __table_args__ = (
        UniqueConstraint("partner_id", "reference"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("kind IN ('payment', 'default', 'fee')", name="kind"),
        CheckConstraint("state IN ('recorded', 'pairing', 'paired', 'returning', 'returned')", name="state"),
        Index("settlement_horizon", "era", "xid", "id"),
        Index(
            "settlement_unfinished",
            "partner_id",
            "programme_id",
            "recorded_at",
            "id",
            postgresql_where=text("state IN ('recorded', 'pairing', 'returning')"),
        ),
        CheckConstraint("carried >= 0", name="carried"),
        CheckConstraint("cardinality(days) > 0", name="days"),
        CheckConstraint("cardinality(funds) > 0", name="funds"),
        Index(
            "settlement_rest",
            "partner_id",
            "programme_id",
            postgresql_where=text("unidentified > 0 AND state = 'paired'"),
        ),
        {"schema": "products"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    partner_id: Mapped[UUID] = mapped_column(ForeignKey(_PARTNER))
    currency: Mapped[str] = mapped_column(CHAR(3))
    amount: Mapped[int]
    through: Mapped[date]
    reference: Mapped[str]
    paired: Mapped[int]
    unidentified: Mapped[int]
    contributions: Mapped[int] = mapped_column(Integer)
    recorded_at: Mapped[datetime]
    programme_id: Mapped[UUID] = mapped_column(ForeignKey(_PROGRAMME))
    kind: Mapped[str] = mapped_column(server_default=text("'payment'"))
    state: Mapped[str] = mapped_column(server_default=text("'paired'"))
    since: Mapped[date | None]
    listed: Mapped[bool] = mapped_column(server_default=text("false"))
    fees: Mapped[int] = mapped_column(server_default=text("0"))
    credits: Mapped[int] = mapped_column(server_default=text("0"))
    topped_up: Mapped[int] = mapped_column(server_default=text("0"))
    carried: Mapped[int] = mapped_column(server_default=text("0"))
    cash_fund: Mapped[UUID | None] = mapped_column(ForeignKey("ledger.fund.id"))
    days: Mapped[list[date] | None] = mapped_column(ARRAY(Date))
    funds: Mapped[list[UUID] | None] = mapped_column(ARRAY(PG_UUID(as_uuid=True)))
    parts: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    effective_on: Mapped[date]
    return_reason: Mapped[str | None]
    returned_on: Mapped[date | None]
    era: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    xid: Mapped[int] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
