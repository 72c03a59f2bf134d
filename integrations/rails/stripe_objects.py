"""Stripe's transfers and payouts, as far as we read them, and what they amount to for a payment of ours.

The attempt's id is in the metadata of both, and is the transfer's group. On a connected account a payment is two steps: a
transfer takes the money from the platform's balance to the account's, a payout takes it from there to the bank. What is told of
it follows the fund's money: a payout that failed has left the money on the connected account, and is not *failed* before the
transfer is reversed.
"""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field

from integrations.rails import stripe_amounts, stripe_reasons
from ledger.errors import InvalidMoney
from products.payouts.rails import FailureReason, Report, ReportState

ATTEMPT: Final = "attempt"
"""The key of our attempt's id in Stripe's metadata; beside it the rail's slug, the payout's id and, on a payout, the transfer."""
RAIL: Final = "rail"
REFERENCE: Final = "reference"
TRANSFER: Final = "transfer"
WHY: Final = "why"

_ON_ITS_WAY: Final[dict[str, ReportState]] = {
    "pending": "accepted",
    "in_transit": "in_transit",
    "paid": "paid",
}


class _Moved(BaseModel):
    id: str
    amount: int = Field(gt=0)
    currency: str = Field(pattern="^[a-z]{3}$")
    created: int
    metadata: dict[str, str] = Field(default_factory=dict)
    balance_transaction: str | None = None

    @property
    def attempt(self) -> UUID | None:
        """The attempt of ours that it belongs to."""
        return attempt_in(self.metadata)

    @property
    def created_at(self) -> datetime:
        """When Stripe recorded it."""
        return datetime.fromtimestamp(self.created, UTC)


class Reversal(BaseModel):
    """Money of a transfer that came back to the platform."""

    metadata: dict[str, str] = Field(default_factory=dict)


class Reversals(BaseModel):
    """The latest reversals of a transfer."""

    data: list[Reversal] = Field(default_factory=list)


class Transfer(_Moved):
    """From the platform's balance to a connected account's."""

    destination: str
    amount_reversed: int = 0
    reversals: Reversals = Field(default_factory=Reversals)

    @property
    def is_reversed(self) -> bool:
        """Whether all of it came back."""
        return self.amount_reversed >= self.amount

    @property
    def why_reversed(self) -> str | None:
        """The code under which we reversed it."""
        return next((one.metadata[WHY] for one in self.reversals.data if one.metadata.get(WHY)), None)

    def now_reversed(self, why: str) -> "Transfer":
        """The same after a reversal of all of it."""
        reversals = Reversals(data=[Reversal(metadata={WHY: why})])
        return self.model_copy(update={"amount_reversed": self.amount, "reversals": reversals})


class Payout(_Moved):
    """From a Stripe balance to a bank account or card."""

    status: str
    failure_code: str | None = None
    reversed_by: str | None = None

    @property
    def came_back(self) -> bool:
        """Whether its money is in the Stripe balance again that it left."""
        return self.status in ("failed", "canceled") or self.reversed_by is not None

    @property
    def why(self) -> str:
        """Stripe's word for why it came back."""
        return self.failure_code or ("payout_reversed" if self.reversed_by else self.status)


class _Schedule(BaseModel):
    interval: str | None = None


class _PayoutSettings(BaseModel):
    schedule: _Schedule = Field(default_factory=_Schedule)


class _Settings(BaseModel):
    payouts: _PayoutSettings = Field(default_factory=_PayoutSettings)


class _Person(BaseModel):
    first_name: str | None = None
    last_name: str | None = None


class Account(BaseModel):
    """A connected account: whether it can be paid, and whose it is, where the platform may know."""

    payouts_enabled: bool = False
    capabilities: dict[str, str] = Field(default_factory=dict)
    settings: _Settings = Field(default_factory=_Settings)
    individual: _Person | None = None

    @property
    def holder(self) -> str | None:
        """The person's name."""
        if self.individual is None:
            return None
        return (
            " ".join(part for part in (self.individual.first_name, self.individual.last_name) if part) or None
        )

    @property
    def unreachable(self) -> str | None:
        """Why no payment of ours would get through it: a code; None if one would."""
        if self.capabilities.get("transfers") != "active":
            return "transfers_inactive"
        if not self.payouts_enabled:
            return "payouts_disabled"
        if self.settings.payouts.schedule.interval != "manual":
            return "automatic_payouts"  # they would sweep the balance before our payout takes it
        return None


class ExternalAccount(BaseModel):
    """A bank account or card that a connected account is paid out to."""

    currency: str | None = None
    status: str | None = None
    account_holder_name: str | None = None

    def takes(self, currency: str) -> bool:
        """Whether a payout in the ISO 4217 `currency` can go there."""
        return self.currency == currency.lower() and self.status not in ("errored", "verification_failed")


def attempt_in(metadata: object, rail: str | None = None) -> UUID | None:
    """The attempt that an object's metadata names; None where it is no payment of ours, or of another rail than `rail`."""
    if not isinstance(metadata, dict) or rail not in (None, metadata.get(RAIL)):
        return None
    named = metadata.get(ATTEMPT)
    try:
        return UUID(named) if isinstance(named, str) and len(named) == len(str(UUID(int=0))) else None
    except ValueError:
        return None


def told_of_payout(payout: Payout, attempt: UUID) -> Report:
    """What a payout from the platform's own balance amounts to: what came back is with us again."""
    if payout.came_back:
        state: ReportState = "returned" if payout.status == "paid" else "failed"
        return _said(payout, attempt, state, stripe_reasons.of_payout(payout.why), payout.why)
    return _under_way(payout, payout, attempt)


def told_of_transfer(transfer: Transfer, payout: Payout | None, attempt: UUID) -> Report:
    """What a transfer and the payout that goes on from it amount to; without a payout yet, Stripe has accepted it."""
    if transfer.is_reversed:
        if payout is not None and payout.came_back:
            reason, code = stripe_reasons.of_payout(payout.why), payout.why
        else:
            code = transfer.why_reversed or "transfer_reversed"
            reason = stripe_reasons.of_request(code)
        was_paid = payout is not None and payout.status == "paid"
        return _said(transfer, attempt, "returned" if was_paid else "failed", reason, code)
    if transfer.amount_reversed:
        return _said(transfer, attempt, "unknown", None, "partly_reversed")
    if payout is None:
        return _said(transfer, attempt, "accepted")
    if payout.came_back:
        return _said(transfer, attempt, "unknown", None, "to_be_reversed")
    return _under_way(payout, transfer, attempt)


def _under_way(payout: Payout, moved: _Moved, attempt: UUID) -> Report:
    state = _ON_ITS_WAY.get(payout.status)
    if state is None:
        return _said(moved, attempt, "unknown", None, payout.status)
    return _said(moved, attempt, state)


def _said(
    moved: _Moved,
    attempt: UUID,
    state: ReportState,
    reason: FailureReason | None = None,
    code: str | None = None,
) -> Report:
    currency = moved.currency.upper()
    return Report(
        state,
        attempt,
        moved.id,
        moved.created_at if state == "accepted" else None,
        reason,
        code,
        _minor_units(moved.amount, currency),
        currency,
    )


def _minor_units(amount: int, currency: str) -> int | None:
    """None for an amount that no payment of ours can have: what is known of it is told all the same."""
    try:
        return stripe_amounts.from_stripe(amount, currency)
    except (stripe_amounts.AmountNotPayable, InvalidMoney):
        return None
