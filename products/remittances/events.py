"""The canonical remittance events: what every partner's format is turned into before any rule sees it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from ledger.money import Money

MemberKeyKind = Literal["id", "phone", "partner_reference"]


@dataclass(frozen=True, slots=True)
class MemberKey:
    """How a partner names the member: our id for this partner, an E.164 phone, or the partner's own reference."""

    kind: MemberKeyKind
    value: str


@dataclass(frozen=True, slots=True)
class RemittanceCompleted:
    """A remittance that the migrant has paid for.

    ``sent``, ``received`` and ``fee`` are amounts of the transfer; ``collected`` is what the partner took for the
    member's products, in the programme's currency (None: as the partner's terms say). ``completed_at`` is aware: it
    becomes the contribution's *contributed at*.
    """

    remittance_id: str
    member: MemberKey
    sent: Money
    received: Money
    fee: Money | None
    collected: Money | None
    origin_country: str
    destination_country: str
    completed_at: datetime
    quote_id: UUID | None


@dataclass(frozen=True, slots=True)
class RemittanceReversed:
    """A remittance taken back by the partner; it may arrive before the remittance itself."""

    remittance_id: str
    reversed_at: datetime
    reason: str


Event = RemittanceCompleted | RemittanceReversed


def canonical(event: Event) -> bytes:
    """The event as stable JSON: equal events give equal bytes, whatever the partner's spelling (digests use this)."""
    return json.dumps(_plain(event), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _plain(event: Event) -> dict[str, Any]:
    if isinstance(event, RemittanceReversed):
        return {
            "type": "remittance.reversed",
            "remittance_id": event.remittance_id,
            "reversed_at": _instant(event.reversed_at),
            "reason": event.reason,
        }
    return {
        "type": "remittance.completed",
        "remittance_id": event.remittance_id,
        "member": [event.member.kind, event.member.value],
        "sent": _money(event.sent),
        "received": _money(event.received),
        "fee": _money(event.fee),
        "collected": _money(event.collected),
        "origin_country": event.origin_country,
        "destination_country": event.destination_country,
        "completed_at": _instant(event.completed_at),
        "quote_id": str(event.quote_id) if event.quote_id else None,
    }


def _money(money: Money | None) -> list[Any] | None:
    return None if money is None else [money.amount, money.currency]


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
