"""The native format: what an event must say, and how each fault is named."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from integrations.partners.port import EventInvalid
from integrations.partners.standard import StandardFormat
from ledger.ids import new_id, public_id
from ledger.money import Money
from products.remittances.events import MemberKey, RemittanceCompleted, RemittanceReversed

READ = StandardFormat().read
COMPLETED: dict[str, Any] = {
    "type": "remittance.completed",
    "timestamp": "2026-03-02T09:30:00Z",
    "data": {
        "remittance_id": "ACME-000123",
        "member": {"phone": "+971501234567"},
        "sent": {"amount": 50000, "currency": "AED"},
        "received": {"amount": 765432, "currency": "PHP"},
        "fee": {"amount": 1500, "currency": "AED"},
        "collected": {"amount": 38272, "currency": "PHP"},
        "origin_country": "AE",
        "destination_country": "PH",
        "completed_at": "2026-03-02T09:29:41Z",
        "quote_id": None,
    },
}
REVERSED: dict[str, Any] = {
    "type": "remittance.reversed",
    "timestamp": "2026-03-02T09:30:00Z",
    "data": {
        "remittance_id": "ACME-000123",
        "reversed_at": "2026-03-02T13:29:41+04:00",
        "reason": "cancelled",
    },
}


def event(base: dict[str, Any] = COMPLETED, **data: object) -> bytes:
    changed = copy.deepcopy(base)
    changed["data"].update(data)
    return json.dumps(changed).encode()


def faults(body: bytes) -> dict[str, str]:
    with pytest.raises(EventInvalid) as refused:
        READ(body)
    return {fault.pointer: fault.detail for fault in refused.value.faults}


def test_a_completed_remittance_is_read() -> None:
    quote = new_id()
    reading = READ(event(quote_id=public_id("quo", quote)))
    assert reading.event == RemittanceCompleted(
        remittance_id="ACME-000123",
        member=MemberKey("phone", "+971501234567"),
        sent=Money(50000, "AED"),
        received=Money(765432, "PHP"),
        fee=Money(1500, "AED"),
        collected=Money(38272, "PHP"),
        origin_country="AE",
        destination_country="PH",
        completed_at=datetime(2026, 3, 2, 9, 29, 41, tzinfo=UTC),
        quote_id=quote,
    )


def test_a_reversal_is_read() -> None:
    at = datetime(2026, 3, 2, 9, 29, 41, tzinfo=UTC)
    assert READ(event(REVERSED)).event == RemittanceReversed("ACME-000123", at, "cancelled")


def test_the_same_event_in_another_spelling_has_the_same_digest_and_another_event_has_not() -> None:
    spelled = copy.deepcopy(COMPLETED)
    spelled["data"] = dict(reversed(spelled["data"].items()))
    spelled["data"]["completed_at"] = "2026-03-02T13:29:41.000+04:00"
    spelled["timestamp"] = "2026-03-02T10:00:00Z"
    spelled["note"] = "a retry"
    assert READ(json.dumps(spelled, indent=2).encode()).digest == READ(event()).digest
    assert READ(event(remittance_id="ACME-000124")).digest != READ(event()).digest


def test_a_members_events_share_a_lane_key() -> None:
    assert READ(event()).order_key == READ(event(remittance_id="other")).order_key == "phone:+971501234567"


def test_unknown_fields_and_unknown_types_are_ignored() -> None:
    assert READ(event(extra={"deep": [1.5]})).event is not None
    reading = READ(b'{"type": "payout.created", "data": {"a": 1.5}}')
    assert reading.event is None
    assert reading.digest == READ(b'{"data": {"a": 1.50}, "type": "payout.created"}').digest


def test_what_may_be_absent_may_be_null() -> None:
    body = copy.deepcopy(COMPLETED)
    for optional in ("fee", "collected", "quote_id"):
        del body["data"][optional]
    assert READ(json.dumps(body).encode()) == READ(event(fee=None, collected=None))


def test_nothing_collected_and_no_fee_are_facts() -> None:
    reading = READ(
        event(fee={"amount": 0, "currency": "AED"}, collected={"amount": 0, "currency": "PHP"})
    ).event
    assert isinstance(reading, RemittanceCompleted)
    assert (reading.fee, reading.collected) == (Money(0, "AED"), Money(0, "PHP"))


@pytest.mark.parametrize("amount", [0, -1, 2**53, 10**19, 1.0, 1.5, "1", True, None, [], {}])
def test_an_amount_is_a_whole_number_from_1_to_the_limit(amount: object) -> None:
    assert list(faults(event(received={"amount": amount, "currency": "PHP"}))) == ["/data/received/amount"]
    if amount != 0:
        assert list(faults(event(collected={"amount": amount, "currency": "PHP"}))) == [
            "/data/collected/amount"
        ]


def test_the_limit_itself_is_an_amount() -> None:
    assert READ(event(received={"amount": 2**53 - 1, "currency": "PHP"})).event


@pytest.mark.parametrize("currency", ["php", "XXY", "PH", "", "PHP ", None, 608, "XAU"])
def test_a_currency_is_one_of_iso_4217(currency: object) -> None:
    assert list(faults(event(sent={"amount": 1, "currency": currency}))) == ["/data/sent/currency"]


def test_no_more_is_collected_than_is_received() -> None:
    assert list(faults(event(collected={"amount": 765433, "currency": "PHP"}))) == ["/data/collected/amount"]
    assert READ(event(collected={"amount": 765432, "currency": "PHP"})).event
    assert READ(
        event(collected={"amount": 800000, "currency": "AED"})
    ).event  # whose currency is judged later


@pytest.mark.parametrize(
    "time",
    [
        "2026-03-02T09:29:41",
        "2026-03-02 09:29:41",
        "2026-03-02",
        "2026-02-30T09:29:41Z",
        "2026-03-02T09:29:41+25:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "20260302T092941Z",
        "2026-W10-1T09:29:41Z",
        "٢٠٢٦-03-02T09:29:41Z",
        1772443781,
        None,
        "",
    ],
)
def test_a_time_has_a_zone_and_exists(time: object) -> None:
    assert list(faults(event(completed_at=time))) == ["/data/completed_at"]


@pytest.mark.parametrize(
    "time", ["2026-03-02t09:29:41z", "2026-03-02T09:29:41.123456789Z", "2026-03-01T23:59:41-09:30"]
)
def test_every_time_of_rfc_3339_is_read(time: str) -> None:
    assert READ(event(completed_at=time)).event


@pytest.mark.parametrize(
    "member",
    [
        {},
        {"phone": "0501234567"},
        {"phone": "+971 50"},
        {"phone": 971501234567},
        {"id": "someone"},
        {"partner_reference": ""},
        {"partner_reference": "a\tb"},
        {"phone": "+971501234567", "partner_reference": "A-17"},
        "mem_1",
        None,
    ],
)
def test_a_member_is_named_in_exactly_one_way(member: object) -> None:
    (pointer,) = faults(event(member=member))
    assert pointer.startswith("/data/member")


@pytest.mark.parametrize(
    "member", [{"partner_reference": "A-17 é"}, {"id": "mem_0"}, {"phone": "+9715012", "id": None}]
)
def test_each_way_of_naming_a_member_is_read(member: object) -> None:
    assert READ(event(member=member)).event


def test_every_fault_is_named_at_once() -> None:
    named = faults(event(remittance_id=7, origin_country="ae", destination_country=None, quote_id="quo_x"))
    assert set(named) == {
        "/data/remittance_id",
        "/data/origin_country",
        "/data/destination_country",
        "/data/quote_id",
    }
    assert named["/data/destination_country"] == "is required"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"[]", ""),
        (b"1", ""),
        (b"{}", "/type"),
        (b'{"type": 1}', "/type"),
        (b'{"type": "a b"}', "/type"),
        (b'{"type": "remittance.completed", "timestamp": "2026-03-02T09:30:00Z"}', "/data"),
        (event(REVERSED, reason=""), "/data/reason"),
        (event(REVERSED, reversed_at="yesterday"), "/data/reversed_at"),
        (json.dumps(COMPLETED | {"timestamp": "now"}).encode(), "/timestamp"),
    ],
)
def test_the_envelope_and_reversals_are_checked_too(body: bytes, pointer: str) -> None:
    assert list(faults(body)) == [pointer]
