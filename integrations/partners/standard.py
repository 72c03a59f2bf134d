"""The native format: Standard Webhooks carrying ``remittance.completed`` and ``remittance.reversed``.

Fields that we don't know are ignored, so that a partner may send more. Checked by hand: the decoder has to see the
bytes anyway to refuse duplicate keys, and this costs a quarter of a second model over the same values.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from integrations.partners import standard_webhooks
from integrations.partners.port import EventInvalid, Fault, Reading
from integrations.partners.standard_webhooks import Secret
from integrations.strict_json import loads
from ledger.errors import InvalidId, InvalidMoney
from ledger.ids import parse_public_id
from ledger.money import AMOUNT_MAX, Money, exponent
from products.remittances.events import (
    Event,
    MemberKey,
    MemberKeyKind,
    RemittanceCompleted,
    RemittanceReversed,
)

EVENT_TYPE = re.compile(r"[A-Za-z0-9_.]{1,128}")
_REFERENCE = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,128}")
_REASON = re.compile(r"[^\x00-\x08\x0e-\x1f\x7f-\x9f]{1,500}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MEMBER_KEYS: Final[dict[MemberKeyKind, tuple[re.Pattern[str], str]]] = {
    "id": (re.compile(r"mem_[0-9A-Za-z_-]{1,60}"), "must be a member id, mem_…"),
    "phone": (
        re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII),
        "must be a phone number in E.164, as in +971501234567",
    ),
    "partner_reference": (_REFERENCE, "must be a text of 1 to 128 characters without control characters"),
}


class StandardFormat:
    """`PartnerFormat` for ``--format standard``."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], now: datetime
    ) -> str:
        """See `standard_webhooks.verify`."""
        return standard_webhooks.verify(headers, body, secrets, now)

    def read(self, body: bytes) -> Reading:
        """The event in `body`. Raises `NotStrictJson` and `EventInvalid`, the latter naming every fault at once.

        Amounts are integers from 1 to 2^53 − 1. `fee` and `collected` may be 0: a free transfer, and nothing taken
        for the member's products (null would mean *as the terms say*). `collected` never exceeds `received` in the
        same currency.
        """
        value = loads(body)
        if not isinstance(value, dict):
            raise EventInvalid([Fault("", "must be an object")])
        event_type = value.get("type")
        if not isinstance(event_type, str) or not EVENT_TYPE.fullmatch(event_type):
            raise EventInvalid([Fault("/type", "must name an event type, as in remittance.completed")])
        if event_type not in _READERS:
            return Reading(
                event_type, None, json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
            )
        faults: list[Fault] = []
        _time(value, "timestamp", "", faults)
        data = value.get("data")
        if not isinstance(data, dict):
            faults.append(Fault("/data", "must be an object"))
            raise EventInvalid(faults, event_type)
        event = _READERS[event_type](data, faults)
        if event is None:
            raise EventInvalid(faults, event_type)
        return Reading(event_type, event)


def _completed(data: dict[str, Any], faults: list[Fault]) -> Event | None:
    remittance_id = _text(data, "remittance_id", _REFERENCE, "must be a text of 1 to 128 characters", faults)
    member = _member(data, faults)
    sent = _money(data, "sent", faults)
    received = _money(data, "received", faults)
    fee = _money(data, "fee", faults, least=0) if data.get("fee") is not None else None
    collected = _money(data, "collected", faults, least=0) if data.get("collected") is not None else None
    origin = _text(data, "origin_country", _COUNTRY, "must be an ISO 3166 country code, as in AE", faults)
    destination = _text(
        data, "destination_country", _COUNTRY, "must be an ISO 3166 country code, as in PH", faults
    )
    completed_at = _time(data, "completed_at", "/data", faults)
    quote_id = _quote(data, faults)
    if (
        collected is not None
        and received is not None
        and collected.currency == received.currency
        and collected.amount > received.amount
    ):
        faults.append(Fault("/data/collected/amount", "must not be more than what is received"))
    if (
        faults
        or remittance_id is None
        or member is None
        or sent is None
        or received is None
        or origin is None
        or destination is None
        or completed_at is None
    ):
        return None
    return RemittanceCompleted(
        remittance_id=remittance_id,
        member=member,
        sent=sent,
        received=received,
        fee=fee,
        collected=collected,
        origin_country=origin,
        destination_country=destination,
        completed_at=completed_at,
        quote_id=quote_id,
    )


def _reversed(data: dict[str, Any], faults: list[Fault]) -> Event | None:
    remittance_id = _text(data, "remittance_id", _REFERENCE, "must be a text of 1 to 128 characters", faults)
    reversed_at = _time(data, "reversed_at", "/data", faults)
    reason = _text(data, "reason", _REASON, "must be a text of 1 to 500 characters", faults)
    if faults or remittance_id is None or reversed_at is None or reason is None:
        return None
    return RemittanceReversed(remittance_id=remittance_id, reversed_at=reversed_at, reason=reason)


_READERS: Final = {"remittance.completed": _completed, "remittance.reversed": _reversed}


def _text(
    data: dict[str, Any],
    key: str,
    pattern: re.Pattern[str],
    expected: str,
    faults: list[Fault],
    at: str = "/data",
) -> str | None:
    value = data.get(key)
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    faults.append(Fault(f"{at}/{key}", "is required" if value is None else expected))
    return None


def _time(data: dict[str, Any], key: str, at: str, faults: list[Fault]) -> datetime | None:
    value = data.get(key)
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # the 30th of February, or a zone that leads out of the calendar: the fault below says enough
    expected = "must be a time with a zone, as in 2026-03-02T09:29:41Z (RFC 3339)"
    faults.append(Fault(f"{at}/{key}", "is required" if value is None else expected))
    return None


def _money(data: dict[str, Any], key: str, faults: list[Fault], least: int = 1) -> Money | None:
    value = data.get(key)
    if not isinstance(value, dict):
        expected = (
            'must be an amount in minor units with its currency, as in {"amount": 150000, "currency": "PHP"}'
        )
        faults.append(Fault(f"/data/{key}", "is required" if value is None else expected))
        return None
    amount, currency = value.get("amount"), value.get("currency")
    # `type`, as True is an int too.
    amount_is_good = type(amount) is int and least <= amount <= AMOUNT_MAX
    if not amount_is_good:
        faults.append(
            Fault(f"/data/{key}/amount", f"must be a whole number of minor units from {least} to 2^53 - 1")
        )
    if not isinstance(currency, str) or not _is_currency(currency):
        faults.append(Fault(f"/data/{key}/currency", "must be an ISO 4217 currency code, as in PHP"))
        return None
    return Money(amount, currency) if type(amount) is int and amount_is_good else None


def _is_currency(code: str) -> bool:
    try:
        exponent(code)
    except InvalidMoney:
        return False
    return True


def _member(data: dict[str, Any], faults: list[Fault]) -> MemberKey | None:
    value = data.get("member")
    if not isinstance(value, dict):
        faults.append(Fault("/data/member", "is required" if value is None else "must be an object"))
        return None
    given: list[MemberKeyKind] = [kind for kind in _MEMBER_KEYS if value.get(kind) is not None]
    if len(given) != 1:
        faults.append(Fault("/data/member", "must hold exactly one of id, phone and partner_reference"))
        return None
    kind = given[0]
    pattern, expected = _MEMBER_KEYS[kind]
    text = _text(value, kind, pattern, expected, faults, at="/data/member")
    return None if text is None else MemberKey(kind, text)


def _quote(data: dict[str, Any], faults: list[Fault]) -> UUID | None:
    value = data.get("quote_id")
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return parse_public_id("quo", value)
        except InvalidId:
            pass  # named below, as any other value that is not a quote's id
    faults.append(Fault("/data/quote_id", "must be a quote's id, quo_…, or null"))
    return None
