"""What every partner's format is to the inbox: raw bytes and headers in, a proven and canonical event out."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from ledger.errors import MizanError
from products.remittances.events import Event, RemittanceCompleted, canonical

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
    """A body understood: its event, or for a type that we don't act on, the whole of it as canonical JSON."""

    event_type: str
    event: Event | None
    ignored: bytes = b""

    @property
    def digest(self) -> bytes:
        """SHA-256 that is equal for equal events, whatever their spelling."""
        return hashlib.sha256(self.ignored if self.event is None else canonical(self.event)).digest()

    @property
    def order_key(self) -> str:
        """What must be processed in order with it: its member's events, or for a reversal what little it names."""
        if isinstance(self.event, RemittanceCompleted):
            return f"{self.event.member.kind}:{self.event.member.value}"
        return "" if self.event is None else self.event.remittance_id


class PartnerFormat(Protocol):
    """One partner's way to send events. Pure: no clock, no database; the same bytes always read the same."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: "Sequence[Secret]", now: datetime
    ) -> str:
        """The sender's id of this delivery. Raises `SignatureInvalid`, `SignatureStale`; with no secrets, the former
        after the usual work."""

    def read(self, body: bytes) -> Reading:
        """The event in a proven body. Raises `NotStrictJson`, `EventInvalid`."""
