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


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def canonical(event: Event) -> bytes:
    """The event as a JSON array of its fields in a fixed order: equal events give equal bytes, whatever the partner's
    spelling (digests use this)."""
    if isinstance(event, RemittanceReversed):
        fields: list[Any] = [
            "remittance.reversed",
            event.remittance_id,
            _instant(event.reversed_at),
            event.reason,
        ]
        return _encode(fields).encode()
    fields = [
        "remittance.completed",
        event.remittance_id,
        event.member.kind,
        event.member.value,
        *_money(event.sent),
        *_money(event.received),
        *_money(event.fee),
        *_money(event.collected),
        event.origin_country,
        event.destination_country,
        _instant(event.completed_at),
        str(event.quote_id) if event.quote_id else None,
    ]
    return _encode(fields).encode()


def _money(money: Money | None) -> tuple[int | None, str | None]:
    return (None, None) if money is None else (money.amount, money.currency)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
