"""The Stripe rail against localstripe, which is somebody else's idea of Stripe: payouts in EUR, and its signed events.

Localstripe knows no connected accounts, idempotency keys, pinned versions, balances and spans of time: those are the contract
server's (`stripe_contract`).
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import httpx
import pytest
import stripe

from integrations.rails.stripe import API_VERSION
from ledger.clock import SystemClock
from ledger.ids import new_id
from products.payouts.rails import Callback, CallbackRefused, Instruction, Rail, RailPayee, Report, Sent
from tests.integration.rails.stripe_bench import stripe_rail
from tests.integration.rails.stripe_contract import API_KEY, PLATFORM_SECRET

# On a socket that is ours already, on loopback, and without its file in the system's folder for temporary files.
LAUNCH = """
import socket, sys
from aiohttp import web
from localstripe import resources, server
resources.Store.dump_to_disk = lambda store: None
web.run_app(server.app, sock=socket.socket(fileno=int(sys.argv[1])), print=None)
"""
WAIT_SECONDS = 15


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A localstripe of our own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", LAUNCH, str(listener.fileno())],
            pass_fds=[listener.fileno()],
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)


@pytest.fixture(scope="module")
def deliveries(url: str) -> Iterator[Queue[Callback]]:
    """What localstripe sends to a webhook endpoint of ours."""
    with _receiver() as (endpoint, queue):
        configured = httpx.post(
            f"{url}/_config/webhooks/mizan",
            json={"url": endpoint, "secret": PLATFORM_SECRET},
            timeout=WAIT_SECONDS,
            trust_env=False,
        )
        assert configured.status_code == 200
        yield queue


@contextmanager
def _receiver() -> Iterator[tuple[str, Queue[Callback]]]:
    queue: Queue[Callback] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            queue.put(Callback("POST", "events", headers, body, "127.0.0.1"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name that it overrides
            """Nothing: tests say what went wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hooks/rails/stripe/events", queue
        finally:
            server.shutdown()
            thread.join(WAIT_SECONDS)


@pytest.fixture
def rail(url: str) -> Iterator[Rail]:
    made = stripe_rail(SystemClock(), url, "payout", timeout_seconds=WAIT_SECONDS)
    yield made
    made.close()


def change(url: str, payout_id: str, **to: str) -> None:
    """What a bank would have made of a payout, written by hand."""
    client = stripe.StripeClient(API_KEY, stripe_version=API_VERSION, base_addresses={"api": url})
    client.raw_request("post", f"/v1/payouts/{payout_id}", **to)


def told(rail: Rail, deliveries: Queue[Callback], kind: str) -> list[Report]:
    """What the next event of this kind says, once it has arrived."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        callback = deliveries.get(timeout=WAIT_SECONDS)
        if f'"type": "{kind}"'.encode() in callback.body:
            with pytest.raises(CallbackRefused):
                rail.read(Callback("POST", "events", callback.headers, callback.body + b" ", "127.0.0.1"))
            return rail.read(callback)
    raise AssertionError(f"no {kind} within {WAIT_SECONDS} s")


def test_a_payout_is_made_paid_and_fails_late_by_localstripes_own_events(
    url: str, rail: Rail, deliveries: Queue[Callback]
) -> None:
    payment = Instruction(
        new_id(), "pay_1", 43_21, "EUR", RailPayee("Aline Uwase", "card", {"token": "ba_1"})
    )
    now = SystemClock().now()
    [first] = rail.submit(new_id(), [payment], now.date())
    assert (first.state, first.amount, first.currency) == ("accepted", 43_21, "EUR")
    assert first.rail_reference is not None
    sent = Sent(payment.attempt, new_id(), first.rail_reference, now)
    [created] = told(rail, deliveries, "payout.created")
    assert (created.state, created.attempt, created.at) == ("accepted", payment.attempt, first.at)

    change(url, first.rail_reference, status="paid")
    [paid] = told(rail, deliveries, "payout.updated")
    assert (paid.state, paid.rail_reference) == ("paid", first.rail_reference)
    assert [report.state for report in rail.ask([sent])] == ["paid"]

    change(url, first.rail_reference, status="failed", failure_code="account_closed")
    [failed] = told(rail, deliveries, "payout.updated")
    assert (failed.state, failed.reason, failed.code) == ("failed", "payee_closed", "account_closed")
    assert [report.state for report in rail.ask([sent])] == ["failed"]


def test_a_payout_that_is_canceled_comes_back_and_other_currencies_are_refused(
    url: str, rail: Rail, deliveries: Queue[Callback]
) -> None:
    payee = RailPayee("Aline Uwase", "card", {"token": "ba_1"})
    payments = [Instruction(new_id(), "pay_2", 10_00, currency, payee) for currency in ("EUR", "USD")]
    first, refused = rail.submit(new_id(), payments, SystemClock().now().date())
    assert (refused.state, refused.reason) == ("failed", "other")  # localstripe gives no code
    change(url, f"{first.rail_reference}/cancel")
    [canceled] = told(rail, deliveries, "payout.canceled")
    assert (canceled.state, canceled.code, canceled.attempt) == ("failed", "canceled", first.attempt)


def test_localstripes_own_list_of_events_knows_the_payout(url: str, rail: Rail) -> None:
    client = stripe.StripeClient(API_KEY, stripe_version=API_VERSION, base_addresses={"api": url})
    payment = Instruction(new_id(), "pay_3", 5_00, "EUR", RailPayee("Aline Uwase", "card", {"token": "ba_1"}))
    [first] = rail.submit(new_id(), [payment], SystemClock().now().date())
    events = client.v1.events.list({"type": "payout.created", "limit": 100}).auto_paging_iter()
    about = [event.data.object for event in events]
    assert [one["amount"] for one in about if one["id"] == first.rail_reference] == [5_00]
