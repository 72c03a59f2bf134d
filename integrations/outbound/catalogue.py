"""The types of events that partners are told, by name: the list that filters, schemas and the reference are made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

EventType = Literal[
    "remittance.allocated",
    "remittance.unallocated",
    "remittance.parked",
    "remittance.reversed",
    "contributions.settled",
    "contributions.returned",
    "settlement.returned",
    "remittal.returned",
    "match.accrued",
    "match.vested",
    "cover.changed",
    "payout.requested",
    "payout.awaiting_member",
    "payout.awaiting_operators",
    "payout.approved",
    "payout.submitted",
    "payout.in_transit",
    "payout.paid",
    "payout.failed",
    "payout.returned",
    "payout.cancelled",
    "payout.unknown",
    "endpoint.disabled",
]

Shape = Literal[
    "remittance",
    "contributions",
    "contributions-returned",
    "settlement",
    "remittal",
    "match",
    "vesting",
    "cover",
    "payout",
    "endpoint",
]
"""What an event's `data` is; `api.event_shapes` has the schema of each."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of event: the shape of its data, and when it is sent. `sent`: False where nothing makes it happen yet."""

    shape: Shape
    meaning: str
    sent: bool = True


CATALOGUE: Final[Mapping[EventType, Kind]] = {
    "remittance.allocated": Kind("remittance", "A remittance was split over the member's products."),
    "remittance.unallocated": Kind(
        "remittance",
        "A remittance was recorded, but its money waits: the member is unknown or has nothing to pay for.",
    ),
    "remittance.parked": Kind("remittance", "A remittance, or its reversal, waits; `reason` says what for."),
    "remittance.reversed": Kind("remittance", "A remittance was taken back."),
    "contributions.settled": Kind(
        "contributions", "A settlement turned a member's pending contributions to a product into savings."
    ),
    "contributions.returned": Kind(
        "contributions-returned",
        "A settlement was returned: what it had settled of a member's contributions is pending again.",
    ),
    "settlement.returned": Kind(
        "settlement", "A settlement of yours was returned, and all of it is taken back."
    ),
    "remittal.returned": Kind(
        "remittal", "An agency sent back a member's contribution: the money is the member's, unapplied."
    ),
    "match.accrued": Kind(
        "match", "A contribution earned match for a product; a remittance of many products, one each."
    ),
    "match.vested": Kind("vesting", "Match became the member's own."),
    "cover.changed": Kind(
        "cover",
        "A member's cover began, changed or ended. Published now, so that receivers can be built; sent once insurance is there.",
        sent=False,
    ),
    "payout.requested": Kind("payout", "A payout was recorded and its money is held."),
    "payout.awaiting_member": Kind("payout", "A payout waits for the member's proof."),
    "payout.awaiting_operators": Kind("payout", "A payout above the limit waits for two operators."),
    "payout.approved": Kind("payout", "A payout may leave."),
    "payout.submitted": Kind("payout", "A payout was handed to its rail."),
    "payout.in_transit": Kind("payout", "A payout is on its way to the payee."),
    "payout.paid": Kind(
        "payout", "A payout arrived. It may still come back for days: `payout.failed`, `payout.returned`."
    ),
    "payout.failed": Kind("payout", "A payout failed; the money is back where it came from."),
    "payout.returned": Kind("payout", "A payout came back; the money is where it came from."),
    "payout.cancelled": Kind("payout", "A payout was cancelled before it left; the money is free again."),
    "payout.unknown": Kind(
        "payout", "Whether a payout left is not known yet; it is asked about until it is."
    ),
    "endpoint.disabled": Kind("endpoint", "We stopped sending to one of your endpoints; `reason` says why."),
}

EVENT_TYPES: Final = get_args(EventType)
