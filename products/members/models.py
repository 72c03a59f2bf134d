"""What the registry holds about people: plain types, and the errors of the registry."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from ledger.errors import Conflict, InvalidInput
from ledger.money import Money
from products.facts import Fact

Sex = Literal["female", "male", "other"]

Purpose = Literal["contributions", "whole_view", "casework"]
"""What a consent is for: deducting contributions and showing what came of them, showing this partner the member's whole
account, letting an organisation see it."""


class InvalidPhone(InvalidInput):
    """Not an international phone number."""

    code = "invalid_phone"


class InvalidRegistration(InvalidInput):
    """What was said about a person contradicts itself or lies outside what a person can be."""


class MemberExists(Conflict):
    """The partner registered this phone number or reference in the programme before, as `link_id`."""

    code = "member_exists"

    def __init__(self, link_id: UUID) -> None:
        super().__init__("This phone number or partner reference is registered in the programme already.")
        self.link_id = link_id


class AlreadyEnrolled(Conflict):
    """The member has an active enrolment in this product, which lets a member have one."""

    code = "already_enrolled"


class MandateRequired(Conflict):
    """No mandate of the member is in force, so nothing may be deducted."""

    code = "mandate_required"


@dataclass(frozen=True, slots=True)
class NewMandate:
    """The member's consent, as the partner recorded it.

    `evidence` says where the partner keeps the proof (a document number, a recording); `limit_per_month` caps what may
    be deducted in a calendar month. `proof` is the challenge by which the member proved to want it; `cooling_off_until`
    is when the member can no longer take it back as if it had not been given.
    """

    text_version: str
    language: str
    given_at: datetime | None = None
    evidence: str | None = None
    limit_per_month: Money | None = None
    purpose: Purpose = "contributions"
    proof: UUID | None = None
    cooling_off_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Mandate:
    """A mandate as it stands: in force from `given_at` until `withdrawn_at`, asleep while `paused_at` is set."""

    id: UUID
    text_version: str
    language: str
    given_at: datetime
    limit_per_month: Money | None
    paused_at: datetime | None
    withdrawn_at: datetime | None
    purpose: Purpose = "contributions"
    cooling_off_until: datetime | None = None

    def in_force(self, at: datetime) -> bool:
        """Whether the mandate lets what it is for happen at `at` (a deduction: when the migrant paid)."""
        return (
            self.given_at <= at
            and (self.withdrawn_at is None or at < self.withdrawn_at)
            and (self.paused_at is None or at < self.paused_at)
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """A person as a partner registers them; at least a phone number or the partner's own reference."""

    phone: str | None = None
    partner_reference: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    birth_date: date | None = None
    sex: Sex | None = None
    origin_country: str | None = None
    residence_country: str | None = None
    facts: tuple[Fact, ...] = ()
    mandate: NewMandate | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """The outcome of one registration: the ids, and whether the partner had registered the person before."""

    link_id: UUID
    member_id: UUID
    created: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A member as one partner sees them: `link_id` is the ``mem_`` id of that partner."""

    link_id: UUID
    member_id: UUID
    partner_id: UUID
    programme_id: UUID
    phone: str | None
    partner_reference: str | None
    birth_date: date | None
    sex: Sex | None
    origin_country: str | None
    residence_country: str | None
    linked_at: datetime
    ended_at: datetime | None
    erased: bool
    given_name: str | None = None
    family_name: str | None = None
    facts: tuple[Fact, ...] = ()
    mandates: tuple[Mandate, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountHolder:
    """What reading a member's money needs to know of a member. `shows_whole`: a consent to see more is in force.

    `facts` are read where the programme's ways out depend on some.
    """

    link_id: UUID
    member_id: UUID
    partner_id: UUID
    programme_id: UUID
    birth_date: date | None
    shows_whole: bool
    facts: tuple[Fact, ...] = ()


@dataclass(slots=True)
class MemberRecord:
    """What the rules need to know of a member, as `products.members.batch.load_members` reads it.

    Not frozen: thousands a second are made, and a frozen one takes three times as long. Nobody changes one.
    `active` is False once the partner ended its link or the member was erased.
    """

    link_id: UUID
    member_id: UUID
    partner_id: UUID
    programme_id: UUID
    active: bool
    birth_date: date | None
    unapplied_account: UUID
    receivable_account: UUID
    facts: list[Fact] = field(default_factory=list)
    mandates: list[Mandate] = field(default_factory=list)

    def mandate_at(self, at: datetime) -> Mandate | None:
        """The mandate that let a deduction happen at `at`, if any."""
        return next((mandate for mandate in self.mandates if mandate.in_force(at)), None)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A member in a product. `terms` is what the rules fixed at entry; `choice` is the member's own."""

    id: UUID
    programme_id: UUID
    member_id: UUID
    partner_id: UUID
    product: str
    choice: dict[str, object]
    terms: dict[str, object]
    rule_version: int
    enrolled_at: datetime
    enrolled_on: date
    ended_at: datetime | None
