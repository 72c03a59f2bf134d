"""Stripe's amounts, codes and signatures, as its documentation has them."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
import stripe as library
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import raw_table

from integrations.rails import stripe, stripe_reasons
from integrations.rails.stripe_amounts import AmountNotPayable, from_stripe, to_stripe
from integrations.rails.stripe_events import read_event, verify
from ledger.errors import InvalidMoney
from ledger.money import AMOUNT_MAX, exponent
from products.payouts.rails import Callback, CallbackMalformed, CallbackRefused, FailureReason

CURRENCIES = sorted(code for code, about in raw_table.items() if str(about.get("CcyMnrUnts")).isdigit())
NO_DECIMALS_THERE = {"MGA"} | {code for code in CURRENCIES if exponent(code) == 0} - {"ISK", "UGX"}
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@given(st.sampled_from(CURRENCIES), st.integers(1, AMOUNT_MAX))
def test_an_amount_is_told_exactly_or_not_at_all(currency: str, amount: int) -> None:
    try:
        told = to_stripe(amount, currency)
    except AmountNotPayable:
        return
    assert from_stripe(told, currency) == amount
    decimals_there = 0 if currency in NO_DECIMALS_THERE else max(exponent(currency), 2)
    assert told * 10 ** exponent(currency) == amount * 10**decimals_there  # the same money in both units


@pytest.mark.parametrize(
    ("amount", "currency", "told"),
    [
        (12_34, "EUR", 12_34),
        (500, "JPY", 500),
        (18_000, "RWF", 18_000),
        (500, "UGX", 500_00),
        (5, "ISK", 5_00),
        (5_120, "KWD", 5_120),
        (10, "BHD", 10),
        (1_230, "OMR", 1_230),
        (1_00, "MGA", 1),
        (10_00, "HUF", 10_00),
        (300_00, "TWD", 300_00),
    ],
)
def test_amounts_as_stripe_writes_them(amount: int, currency: str, told: int) -> None:
    assert to_stripe(amount, currency) == told
    assert from_stripe(told, currency) == amount


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (5_124, "KWD"),
        (1, "BHD"),
        (1_235, "OMR"),
        (1_01, "MGA"),
        (10_45, "HUF"),
        (1_50, "TWD"),
        (10, "IQD"),  # three decimals that Stripe doesn't document
        (10, "CLF"),
        (0, "EUR"),
        (-5, "EUR"),
        (AMOUNT_MAX + 1, "EUR"),
    ],
)
def test_what_stripe_can_not_be_told_exactly_is_refused(amount: int, currency: str) -> None:
    with pytest.raises(AmountNotPayable):
        to_stripe(amount, currency)


def test_no_money_is_made_of_what_is_none() -> None:
    with pytest.raises(InvalidMoney):
        to_stripe(5, "XXX")
    with pytest.raises(AmountNotPayable):
        from_stripe(5_01, "ISK")


PAYOUT_FAILURES = [
    "account_closed",
    "account_frozen",
    "bank_account_restricted",
    "bank_ownership_changed",
    "could_not_process",
    "debit_not_authorized",
    "declined",
    "insufficient_funds",
    "invalid_account_number",
    "incorrect_account_holder_name",
    "incorrect_account_holder_address",
    "incorrect_account_holder_tax_id",
    "invalid_currency",
    "no_account",
    "unsupported_card",
]


@pytest.mark.parametrize("code", PAYOUT_FAILURES)
def test_every_failure_code_of_a_payout_is_known(code: str) -> None:
    assert code in stripe_reasons._OF_PAYOUTS
    assert stripe_reasons.of_payout(code) in get_args(FailureReason)


def test_what_stripe_adds_later_is_other() -> None:
    assert stripe_reasons.of_payout("moon_phase") == "other"
    assert stripe_reasons.of_payout(None) == "other"
    assert stripe_reasons.of_request("moon_phase") == "other"


def test_the_version_that_we_read_is_the_one_that_the_library_is_made_for() -> None:
    # When an update of the library fails this: read Stripe's changelog, then move both.
    assert library.api_version == stripe.API_VERSION


def _header(body: bytes, secret: str, at: datetime) -> str:
    seconds = int(at.timestamp())
    mac = hmac.new(secret.encode(), b"%d.%b" % (seconds, body), hashlib.sha256)
    return f"t={seconds},v1={mac.hexdigest()}"


def test_any_of_several_signatures_under_any_of_the_secrets_proves() -> None:
    header = _header(b"{}", "whsec_new", NOW)
    for secrets in (["whsec_new"], ["whsec_old", "whsec_new"], ["whsec_new", "whsec_old"]):
        verify(header, b"{}", secrets, NOW)
        verify(header.replace(",v1", f",v1={'0' * 64},v0=abc,v1"), b"{}", secrets, NOW)
        verify(header.replace(",v1", ", v1"), b"{}", secrets, NOW)
    with pytest.raises(CallbackRefused):
        verify(header, b"{}", ["whsec_old"], NOW)


def test_the_librarys_own_check_agrees_with_ours() -> None:
    now = datetime.now(UTC)
    body = b'{"type": "payout.paid"}'
    header = _header(body, "whsec_base64==not-decoded", now)
    library.WebhookSignature.verify_header(body.decode(), header, "whsec_base64==not-decoded", 300)
    verify(header, body, ["whsec_base64==not-decoded"], now)


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_in_both_directions_pass(seconds: int) -> None:
    verify(_header(b"{}", "whsec_1", NOW + timedelta(seconds=seconds)), b"{}", ["whsec_1"], NOW)


@pytest.mark.parametrize("seconds", [-301, 301, -86_400, 86_400])
def test_more_than_five_minutes_in_either_direction_do_not(seconds: int) -> None:
    with pytest.raises(CallbackRefused):
        verify(_header(b"{}", "whsec_1", NOW + timedelta(seconds=seconds)), b"{}", ["whsec_1"], NOW)


@given(st.text(max_size=200))
def test_no_header_breaks_the_check(header: str) -> None:
    with pytest.raises(CallbackRefused):
        verify(header, b"{}", ["whsec_1"], NOW)


@given(st.binary(max_size=200))
def test_an_authentic_body_is_an_event_or_malformed(body: bytes) -> None:
    header = {"stripe-signature": _header(body, "whsec_1", NOW)}
    with pytest.raises(CallbackMalformed):
        read_event(Callback("POST", "events", header, body, "127.0.0.1"), ["whsec_1"], NOW)
