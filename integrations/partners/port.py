"""What every partner's format is to the inbox: raw bytes and headers in, a proven and canonical event out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from ledger.errors import MizanError
from products.remittances.events import Event

if TYPE_CHECKING:
    from integrations.partners.standard_webhooks import Secret


class SignatureInvalid(MizanError):
    """Nobody we know signed this. Deliberately silent about why: unknown partner and bad signature look the same."""

    code = "signature_invalid"
    status = 401

    def __init__(self) -> None:
        super().__init__("The delivery is not signed by a partner that may send here.")


class SignatureStale(MizanError):
    """The signature is good; its time is more than five minutes from ours."""

    code = "timestamp_out_of_tolerance"
    status = 401

    def __init__(self) -> None:
        super().__init__("The signed timestamp is more than 5 minutes from our clock.")


@dataclass(frozen=True, slots=True)
class Fault:
    """One place (JSON Pointer, RFC 6901) where an event breaks its schema, and what is expected there."""

    pointer: str
    detail: str


class EventInvalid(MizanError):
    """Authentic JSON that breaks the schema of its event type; `faults` says where."""

    code = "invalid_event"
    status = 400

    def __init__(self, faults: Sequence[Fault], event_type: str = "") -> None:
        super().__init__("The event breaks its schema: see errors.")
        self.faults = tuple(faults)
        self.event_type = event_type


@dataclass(frozen=True, slots=True)
class Reading:
    """A body understood. `event` is None for a type that we don't act on; `digest` is equal for equal events.

    `shares_order_with` names what must be processed in order with it: the member, or what little is known.
    """

    event_type: str
    event: Event | None
    digest: bytes
    shares_order_with: str


class PartnerFormat(Protocol):
    """One partner's way to send events. Pure: no clock, no database; the same bytes always read the same."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: "Sequence[Secret]", now: datetime
    ) -> str:
        """The sender's id of this delivery. Raises `SignatureInvalid`, `SignatureStale`; with no secrets, the former
        after the usual work."""

    def read(self, body: bytes) -> Reading:
        """The event in a proven body. Raises `NotStrictJson`, `EventInvalid`."""
