"""Callbacks of the mobile money rail: who may call, and that a callback alone says nothing about money."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import httpx
import pytest

from ledger.ids import new_id
from products.payouts.rails import Callback, CallbackMalformed, CallbackRefused, Report
from tests.integration.rails.gsma_books import Rule
from tests.integration.rails.gsma_simulator import CALLBACK_KEY
from tests.integration.rails.gsma_world import PATH_KEY, Wallets, eventually, instruction, secrets, wallets


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[Wallets]:
    with wallets() as running:
        yield running


@pytest.fixture
def momo(one_for_all: Wallets) -> Wallets:
    """The rail and its provider, which behaves until a test says otherwise."""
    one_for_all.provider.misbehave()
    one_for_all.provider.up()
    return one_for_all


def told(momo: Wallets, attempt: UUID, count: int) -> list[Report]:
    """What callbacks said of a payment, once so many came."""
    eventually(lambda: len(momo.hook.of(attempt)) >= count)
    return momo.hook.of(attempt)


def callback(momo: Wallets, attempt: UUID, body: object = None, **headers: str) -> Callback:
    """A callback as the provider would put it."""
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Callback(
        "PUT",
        momo.rail.callback_path(attempt),
        {"x-api-key": CALLBACK_KEY, "x-correlationid": str(attempt)} | named,
        content,
        "127.0.0.1",
    )


def test_a_callback_is_put_to_the_payments_own_path_and_confirmed_before_it_counts(momo: Wallets) -> None:
    one = instruction(2500)
    momo.pay(one)
    [report] = told(momo, one.attempt, 1)
    payment = momo.provider.books.payments[str(one.attempt)]
    assert (report.state, report.amount, report.rail_reference) == ("paid", 2500, None)
    asked = [path.rpartition("/")[2] for method, path, _ in momo.provider.requests if method == "GET"]
    assert payment.reference in asked
    eventually(lambda: payment.callback_statuses == [204])


def test_failures_and_late_returns_are_told_by_callback_too(momo: Wallets) -> None:
    fails, comes_back = instruction(1), instruction(2)
    momo.provider.misbehave(
        Rule("outcome", "fails", amount="1", code="insufficientFunds"),
        Rule("outcome", "reverses", amount="2", seconds=0.2),
    )
    momo.submit(fails, comes_back)
    [failed] = told(momo, fails.attempt, 1)
    assert (failed.state, failed.reason) == ("failed", "insufficient_float")
    assert [one.state for one in told(momo, comes_back.attempt, 2)] == ["paid", "returned"]


def test_a_callback_before_the_answer_and_repeated_ones_say_the_same(momo: Wallets) -> None:
    early, repeated = instruction(3), instruction(4)
    momo.provider.misbehave(
        Rule("callback", "before_answer", amount="3"), Rule("callback", "repeated", amount="4", times=4)
    )
    assert (
        momo.pay(early).state == "paid"
    )  # the request's state says completed by then, so it is asked at once
    assert [one.state for one in momo.hook.of(early.attempt)] == ["paid"]
    momo.pay(repeated)
    assert {(one.state, one.amount) for one in told(momo, repeated.attempt, 4)} == {("paid", 4)}


def test_callbacks_out_of_order_say_what_is_true_when_they_come(momo: Wallets) -> None:
    one = instruction(5)
    momo.provider.misbehave(
        Rule("outcome", "reverses", amount="5"), Rule("callback", "out_of_order", amount="5", seconds=0.1)
    )
    momo.pay(one)
    assert [report.state for report in told(momo, one.attempt, 2)] == ["returned", "returned"]


def test_a_callback_that_lies_pays_nothing(momo: Wallets) -> None:
    momo.provider.misbehave(Rule("outcome", "never"), Rule("callback", "none"))
    one, unheard = instruction(6), instruction(7)
    momo.pay(one)
    lie = {
        "transactionReference": "MP-LIE",
        "transactionStatus": "completed",
        "amount": "6",
        "currency": "RWF",
        "type": "disbursement",
    }
    assert [report.state for report in momo.rail.read(callback(momo, one.attempt, lie))] == ["in_transit"]
    assert momo.rail.read(callback(momo, unheard.attempt, lie)) == []
    momo.provider.down()
    [unconfirmed] = momo.rail.read(callback(momo, one.attempt, lie))
    assert (unconfirmed.state, unconfirmed.code) == ("unknown", "callback_unconfirmed")
    assert unconfirmed.ask_again_at is not None, "what was paid is asked about again too"


def test_only_the_provider_on_the_payments_own_path_is_heard(momo: Wallets) -> None:
    one, other = instruction(8), instruction(9)
    momo.pay(one)
    good = callback(momo, one.attempt)
    asked = len(momo.provider.requests)
    stolen = momo.rail.callback_path(other.attempt).partition("/")[2]
    for wrong in [
        replace(good, headers={}),
        replace(good, headers={**good.headers, "x-api-key": CALLBACK_KEY[:-1]}),
        replace(good, headers={**good.headers, "x-api-key": "\udcff"}),
        replace(good, path=f"{one.attempt.hex}/{stolen}"),
        replace(good, path=good.path[:-1]),
        replace(good, path=one.attempt.hex),
        replace(good, path=""),
        replace(good, method="POST"),
        replace(good, method="GET"),
        replace(good, headers={**good.headers, "x-content-hash": "0" * 64}),
    ]:
        with pytest.raises(CallbackRefused):
            momo.rail.read(wrong)
    assert len(momo.provider.requests) == asked, "who isn't proven makes us ask nothing"


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"a": 1, "a": 2}', b"7", b'{"a": NaN}'])
def test_an_authentic_callback_that_cannot_be_read_is_malformed(momo: Wallets, body: bytes) -> None:
    with pytest.raises(CallbackMalformed):
        momo.rail.read(callback(momo, new_id(), body))


def test_a_callback_that_names_another_payment_than_its_path_is_malformed(momo: Wallets) -> None:
    attempt = new_id()
    with pytest.raises(CallbackMalformed):
        momo.rail.read(callback(momo, attempt, x_correlationid=str(new_id())))
    with pytest.raises(CallbackMalformed):
        momo.rail.read(callback(momo, attempt, {"requestingOrganisationTransactionReference": str(new_id())}))


def test_two_keys_are_valid_at_once_while_one_replaces_the_other(momo: Wallets) -> None:
    newer = secrets(
        callback_api_key=f"the-key-that-comes-next {CALLBACK_KEY}",
        callback_path_key=f"the-paths-that-come-next {PATH_KEY}",
    )
    one = instruction(10)
    momo.pay(one)
    eventually(lambda: momo.hook.of(one.attempt))
    old = callback(momo, one.attempt)
    with wallets(keys=newer, base_url=momo.provider.url) as rotated:
        assert rotated.rail.callback_path(one.attempt) != old.path
        assert [report.state for report in rotated.rail.read(old)] == ["paid"]
        new = replace(old, path=rotated.rail.callback_path(one.attempt))
        new = replace(new, headers={**new.headers, "x-api-key": "the-key-that-comes-next"})
        assert [report.state for report in rotated.rail.read(new)] == ["paid"]
        with pytest.raises(CallbackRefused):
            momo.rail.read(new)


def test_a_provider_of_its_own_process_keeps_its_payments_and_obeys_its_control(momo: Wallets) -> None:
    """The control that another process uses is the one that is documented."""
    control = momo.provider.control_url
    one = instruction(11)
    with httpx.Client(trust_env=False) as client:
        rules = [{"when": "before", "fault": "rate_limited", "amount": "11"}]
        assert client.post(f"{control}/rules", json=rules).status_code == 200
        assert momo.pay(one).state == "not_sent"
        assert client.post(f"{control}/rules", json=[]).status_code == 200
        momo.pay(one)
        eventually(lambda: momo.hook.of(one.attempt))
        assert client.post(f"{control}/reverse", json={"correlation_id": str(one.attempt)}).status_code == 200
        assert [report.state for report in told(momo, one.attempt, 2)][-1] == "returned"
        [listed] = [
            payment
            for payment in client.get(f"{control}/payments").json()
            if payment["correlation_id"] == str(one.attempt)
        ]
        assert (listed["amount"], listed["state"], listed["sendings"]) == ("11", "reversed", 1)


def test_a_slow_provider_that_calls_a_lot_does_not_take_every_thread(momo: Wallets) -> None:
    one = instruction(12)
    momo.pay(one)
    eventually(lambda: momo.hook.of(one.attempt))
    good = callback(momo, one.attempt)
    momo.provider.misbehave(Rule("ask", "slow", seconds=0.3))
    with ThreadPoolExecutor(20) as many:
        said = [reports[0] for reports in many.map(momo.rail.read, [good] * 20)]
    told = Counter(one.state for one in said)
    assert (told["paid"] + told["unknown"], bool(told["paid"]), told["unknown"] >= 10) == (20, True, True)
    assert all(one.ask_again_at for one in said if one.state == "unknown")
    momo.provider.misbehave()
    assert [report.state for report in momo.rail.read(good)] == ["paid"]
