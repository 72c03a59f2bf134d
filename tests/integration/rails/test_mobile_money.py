"""The mobile money rail against a simulated provider on real HTTP: what is said is what is true, whatever the network does."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from uuid import UUID

import pytest

from products.payouts.rails import ListUnavailable, RailPayee
from tests import planted
from tests.integration.rails.gsma_books import Rule
from tests.integration.rails.gsma_simulator import API_KEY, CLIENT_ID
from tests.integration.rails.gsma_world import (
    PREFIX,
    SILENCE_SECONDS,
    Wallets,
    eventually,
    instruction,
    wallets,
)


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[Wallets]:
    with wallets() as running:
        yield running


@pytest.fixture
def momo(one_for_all: Wallets) -> Wallets:
    """The rail and its provider, which behaves until a test says otherwise."""
    one_for_all.provider.api_key = API_KEY
    one_for_all.provider.up()
    one_for_all.provider.misbehave()
    one_for_all.provider.requests.clear()
    return one_for_all


def test_a_disbursement_is_asked_for_as_the_specification_says(momo: Wallets) -> None:
    one = instruction(150_050, "PHP", operator="tigo")
    report = momo.pay(one)
    assert report.state == "accepted"
    method, path, headers = momo.provider.requests[0]
    assert (method, path) == ("POST", "/v1.2/mm/transactions/type/disbursement")
    assert headers["x-correlationid"] == str(one.attempt)
    assert (headers["x-api-key"], headers["x-client-id"]) == (API_KEY, CLIENT_ID)
    assert abs(parsedate_to_datetime(headers["x-date"]) - datetime.now(UTC)) < timedelta(seconds=5)
    assert headers["x-callback-url"].startswith(f"{momo.hook.url}{PREFIX}{one.attempt.hex}/")
    payment = momo.provider.books.payments[str(one.attempt)]
    assert (payment.amount, payment.currency) == ("1500.50", "PHP")
    assert payment.credit_party == [
        {"key": "msisdn", "value": planted.phone(1).removeprefix("+")},
        {"key": "serviceprovider", "value": "tigo"},
    ]
    assert payment.debit_party == [{"key": "organisationid", "value": "mizan"}]
    told = momo.ask_until("paid", one, report)
    assert report.rail_reference == f"requeststates/{payment.server_correlation_id}"
    assert (told.rail_reference, told.amount, told.currency, told.fee) == (
        report.rail_reference,
        150_050,
        "PHP",
        100,
    )
    assert told.at is not None
    assert momo.ask(one, told) == told


def test_the_body_of_every_sending_is_the_same_and_the_provider_pays_once(momo: Wallets) -> None:
    one = instruction()
    momo.provider.misbehave(Rule("after", "time_out", seconds=SILENCE_SECONDS, first=1))
    assert momo.pay(one).state == "unknown"
    again = momo.pay(one)
    assert again.state in ("in_transit", "paid")
    hashes = {h["x-content-hash"] for method, _, h in momo.provider.requests if method == "POST"}
    assert len(hashes) == 1
    assert momo.provider.books.payments[str(one.attempt)].sendings == 2
    assert momo.ask_until("paid", one).amount == 1500


@pytest.mark.parametrize(
    "fault", ["time_out", "reset", "error_500", "error_503", "broken_answer", "wrong_hash"]
)
def test_what_goes_wrong_after_accepting_is_unknown_and_found_again_by_the_correlation_id(
    momo: Wallets, fault: str
) -> None:
    one = instruction()
    momo.provider.misbehave(Rule("after", fault, seconds=SILENCE_SECONDS))
    assert momo.pay(one).state == "unknown"
    momo.provider.misbehave()
    assert momo.ask_until("paid", one).amount == 1500


@pytest.mark.parametrize("fault", ["time_out", "reset", "error_500"])
def test_what_goes_wrong_before_accepting_is_unknown_until_the_provider_says_that_it_has_nothing(
    momo: Wallets, fault: str
) -> None:
    one = instruction()
    momo.provider.misbehave(Rule("before", fault, seconds=SILENCE_SECONDS))
    assert momo.pay(one).state == "unknown"
    assert momo.ask(one).state == "not_found"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("rate_limited", "rateLimitError"),
        ("unauthorised", "clientAuthorisationError"),
        ("error_503", "service_unavailable"),
    ],
)
def test_what_the_provider_turned_away_at_its_door_was_not_sent(momo: Wallets, fault: str, code: str) -> None:
    one = instruction()
    momo.provider.misbehave(Rule("before", fault))
    report = momo.pay(one)
    assert (report.state, report.code, report.reason) == ("not_sent", code, None)
    momo.provider.misbehave()
    assert momo.pay(one).state == "accepted"


def test_a_wrong_key_of_ours_and_a_wrong_address_are_no_payees_fault(momo: Wallets) -> None:
    momo.provider.api_key = "another"
    assert momo.pay(instruction()).state == "not_sent"
    assert momo.ask(instruction()).state == "unknown"
    with wallets(base_url=f"{momo.provider.url}/nowhere") as lost:
        report = lost.pay(instruction())
        assert (report.state, report.code) == ("not_sent", "clientAuthorisationError")
        momo.provider.api_key = API_KEY
        report = lost.pay(instruction())
        assert (report.state, report.code) == ("not_sent", "http_404")
        assert lost.ask(instruction()).state == "unknown"


def test_a_provider_that_is_down_was_sent_nothing_and_can_be_asked_nothing(momo: Wallets) -> None:
    assert momo.pay(instruction()).state == "accepted"
    momo.provider.down()
    one = instruction()
    eventually(lambda: momo.pay(one).state == "not_sent")
    assert momo.pay(one).code == "ConnectError"
    assert momo.ask(one).state == "unknown"
    assert momo.rail.check(one.payee) is None
    momo.provider.up()
    assert momo.pay(one).state == "accepted"


@pytest.mark.parametrize(
    ("status", "category", "code", "reason"),
    [
        (400, "businessRule", "insufficientFunds", "insufficient_float"),
        (400, "BusinessRule", "MaxBalanceExceeded", "payee_limit"),
        (400, "businessRule", "incorrectState", "payee_closed"),
        (400, "businessRule", "greaterThanTransactionMaxValue", "rail_limit"),
        (400, "validation", "currencyNotSupported", "refused"),
        (401, "authorisation", "requestDeclined", "refused"),
        (404, "identification", "identifierError", "payee_unknown"),
    ],
)
def test_a_refusal_is_final_and_says_why_but_only_if_the_provider_has_nothing_under_the_id(
    momo: Wallets, status: int, category: str, code: str, reason: str
) -> None:
    refusing = Rule("before", "refuse", status=status, category=category, code=code)
    one, known = instruction(), instruction()
    momo.provider.misbehave(refusing)
    refused = momo.pay(one)
    assert (refused.state, refused.reason, refused.code) == ("failed", reason, code)
    momo.provider.misbehave()
    momo.pay(known)
    momo.provider.misbehave(refusing)
    assert momo.pay(known).state in ("in_transit", "paid")
    momo.provider.misbehave(refusing, Rule("ask", "error_500"))
    assert momo.pay(known).state == "unknown"


def test_a_duplicate_is_never_a_failure(momo: Wallets) -> None:
    late = instruction()
    momo.provider.misbehave(Rule("outcome", "fails", code="duplicateRequest"))
    report = momo.pay(late)
    eventually(lambda: not momo.provider.books.pending())
    assert (momo.ask(late, report).state, momo.ask(late).state) == ("unknown", "unknown")
    one = instruction()
    momo.provider.misbehave(Rule("before", "refuse", code="duplicateRequest"))
    assert (momo.pay(one).state, momo.pay(one).code) == ("unknown", "duplicateRequest")


def test_what_fails_later_and_what_comes_back_is_said_whenever_it_is_asked(momo: Wallets) -> None:
    fails, comes_back, breaks = instruction(1), instruction(2), instruction(3)
    momo.provider.misbehave(
        Rule("outcome", "fails", amount="1", code="maxBalanceExceeded"),
        Rule("outcome", "reverses", amount="2", seconds=0.1),
        Rule("outcome", "fails_later", amount="3", seconds=0.1),
    )
    reports = momo.submit(fails, comes_back, breaks)
    assert [one.attempt for one in reports] == [fails.attempt, comes_back.attempt, breaks.attempt]
    failed = momo.ask_until("failed", fails, reports[0])
    assert (failed.reason, failed.code) == ("payee_limit", "maxBalanceExceeded")
    paid = momo.ask_until("paid", comes_back, reports[1])
    returned = momo.ask_until("returned", comes_back, paid)
    assert (returned.amount, returned.currency, returned.rail_reference) == (2, "RWF", paid.rail_reference)
    assert momo.ask_until("failed", breaks).amount == 3
    assert momo.ask_until("failed", fails).reason == "payee_limit"


def test_a_provider_that_answers_at_once_is_believed_at_once(momo: Wallets) -> None:
    momo.provider.misbehave(Rule("after", "synchronous"))
    assert momo.pay(instruction(7)).state == "paid"
    momo.provider.misbehave(Rule("after", "synchronous"), Rule("outcome", "reverses"))
    assert momo.pay(instruction(7)).amount == 7


def test_who_has_polled_as_often_as_allowed_asks_by_the_correlation_id() -> None:
    with wallets(provider={"poll_limit": 1, "settles_seconds": 0.3}) as momo:
        one = instruction()
        report = momo.pay(one)
        assert momo.ask(one, report).state == "in_transit"
        assert momo.ask_until("paid", one, report).amount == 1500


@pytest.mark.parametrize(
    "fault", ["time_out", "reset", "error_500", "error_503", "rate_limited", "wrong_hash"]
)
def test_asking_that_goes_wrong_leaves_the_payment_unknown(momo: Wallets, fault: str) -> None:
    one = instruction()
    report = momo.pay(one)
    momo.provider.misbehave(Rule("ask", fault, seconds=SILENCE_SECONDS))
    told = momo.ask(one, report)
    assert (told.state, told.rail_reference) == ("unknown", report.rail_reference)


def test_a_payment_that_the_provider_had_and_has_no_longer_is_unknown_never_not_found(momo: Wallets) -> None:
    one = instruction()
    report = momo.pay(one)
    for known in (
        momo.provider.books.payments,
        momo.provider.books.by_server_id,
        momo.provider.books.by_reference,
    ):
        known.clear()
    assert momo.ask(one, report).state == "unknown"
    assert momo.ask(one).state == "not_found"


def test_of_a_batch_that_takes_too_long_the_rest_was_not_sent() -> None:
    with wallets(at_once=2, batch_seconds=1.0, timeout_seconds=30) as momo:
        momo.provider.misbehave(Rule("before", "slow", seconds=1.2))
        many = [instruction(number=number) for number in range(12)]
        reports = momo.submit(*many)
        assert [one.attempt for one in reports] == [one.attempt for one in many]
        late = [one for one in reports if one.state == "not_sent"]
        assert {one.code for one in late} == {"no_time"}
        assert Counter(one.state for one in reports)["accepted"] == len(many) - len(late) == 2
        assert not {str(one.attempt) for one in late} & set(momo.provider.books.payments)


def test_the_list_has_every_payment_of_the_time_once_page_by_page() -> None:
    with wallets(page_size=7) as momo:
        since = datetime.now(UTC)
        many = {one.attempt: one for one in (instruction(amount, number=amount) for amount in range(1, 31))}
        momo.submit(*many.values())
        for one in many.values():
            momo.ask_until("paid", one)
        listed = list(momo.rail.listed(since, datetime.now(UTC)))
        assert [one.attempt for one in reversed(listed)] == [
            UUID(one["correlation_id"]) for one in momo.provider.books.listing()
        ]
        assert {one.attempt: one.amount for one in listed} == {
            one.attempt: one.amount for one in many.values()
        }
        assert list(momo.rail.listed(since - timedelta(days=1), since)) == []
        reports = momo.rail.listed(since, datetime.now(UTC))
        next(reports)
        momo.provider.down()
        with pytest.raises(ListUnavailable):
            list(reports)


def test_a_payee_is_looked_up_before_anything_is_paid(momo: Wallets) -> None:
    def says(number: int, full: str | None = None, **account: object) -> tuple[bool, str] | None:
        phone = planted.phone(number)
        named = {"name": {"fullName": full}} if full else {}
        momo.provider.books.accounts[phone.removeprefix("+")] = {**named, **account}
        payee = RailPayee(f"{planted.GIVEN_NAME} {planted.FAMILY_NAME}", "mobile_money", {"phone": phone})
        checked = momo.rail.check(payee)
        return (checked.reachable, checked.name) if checked else None

    assert says(1) == (True, "not_checked")
    assert says(2, f"{planted.FAMILY_NAME.upper()}, {planted.GIVEN_NAME}") == (True, "matches")
    assert says(3, "Somebody Else") == (True, "differs")
    assert says(4, "G*** U***") == (True, "not_checked")
    assert says(5, status="unavailable") == (False, "not_checked")
    assert says(6, status="unregistered") == (False, "not_checked")
    assert says(7, status="unknown") == (False, "not_checked")
    parts = {"firstName": planted.GIVEN_NAME, "middleName": "Keza", "lastName": planted.FAMILY_NAME}
    assert says(8, name=parts) == (True, "matches")
