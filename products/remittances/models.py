"""Remittances and contributions as they stand on record."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from products.savings.match import StateKey


@dataclass(frozen=True, slots=True)
class Existing:
    """A remittance that is on record already."""

    id: UUID
    partner_id: UUID
    status: str
    reason: str | None
    digest: bytes | None
    programme_id: UUID | None
    member_id: UUID | None
    link_id: UUID | None
    transaction_id: UUID | None
    reversed_at: datetime | None
    reversal_reason: str | None
    parked_account: UUID | None


@dataclass(frozen=True, slots=True)
class Contributed:
    """One contribution on record, as a reversal needs it."""

    remittance: UUID
    position: int
    destination: str
    enrolment_id: UUID | None
    fund_id: UUID
    debited: UUID
    credited: UUID
    amount: int
    currency: str
    contributed_at: datetime
    window_start: date | None
    tier: int | None
    state: str
    owed: bool
    settled_by: UUID | None
    contributed_on: date
    fee: int
    guaranteed: bool
    settlement_part: int | None
    remittal_line: UUID | None
    settlement_kind: str | None

    @property
    def key(self) -> StateKey | None:
        """The match state that it counts in, if any."""
        if self.enrolment_id is None or self.window_start is None:
            return None
        return self.enrolment_id, self.window_start
