"""A mobile money rail as configured, its simulated provider, and a hook that takes what the provider puts."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

from integrations.rails import mobile_money
from integrations.rails.mobile_money import MobileMoney
from integrations.rails.setting import Setting
from ledger.clock import SystemClock
from ledger.database import Database
from ledger.ids import new_id, public_id
from products.keyring import Keyring
from products.payouts.rails import (
    Callback,
    CallbackMalformed,
    CallbackRefused,
    Instruction,
    RailPayee,
    Report,
    Sent,
)
from tests import planted
from tests.integration.rails.gsma_simulator import API_KEY, CALLBACK_KEY, CLIENT_ID, Simulator, simulator
from tests.patience import PATIENCE_SECONDS

PATH_KEY = "what-the-paths-of-callbacks-are-made-with"
PREFIX = "/hooks/rails/momo/"
TIMEOUT_SECONDS = 1.5
SILENCE_SECONDS = 600.0
"""Longer than anybody waits."""


def instruction(
    amount: int = 1500, currency: str = "RWF", number: int = 1, **destination: str
) -> Instruction:
    """One payment to the member `number`."""
    attempt = new_id()
    destination = {"phone": planted.phone(number)} | destination
    payee = RailPayee(f"{planted.GIVEN_NAME} {planted.FAMILY_NAME}", "mobile_money", destination)
    return Instruction(attempt, public_id("pay", attempt), amount, currency, payee)


def sent(one: Instruction, report: Report | None = None) -> Sent:
    """The payment, to be asked about; without a report its answer was lost."""
    return Sent(one.attempt, one.attempt, report.rail_reference if report else None, datetime.now(UTC))


def eventually(question: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What a question comes to answer."""
    ends_at = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < ends_at, "it never came"
        time.sleep(0.01)
    return answer


def setting(public_url: str = "http://127.0.0.1:9", environment: str = "sandbox") -> Setting:
    """The deployment around the rail; it keeps nothing in the database."""
    return Setting(
        clock=SystemClock(),
        environment=environment,
        public_url=public_url,
        database=Database("postgresql://nobody@127.0.0.1:9/none", application_name="unused"),
        keyring=Keyring({"k1": bytes(32)}, "k1"),
        slug="momo",
        currency="RWF",
    )


def secrets(**other: str) -> dict[str, str]:
    """The rail's secrets."""
    return {"api_key": API_KEY, "callback_api_key": CALLBACK_KEY, "callback_path_key": PATH_KEY} | other


def options(url: str, **other: object) -> dict[str, object]:
    """The rail's options: it waits so long only because an answer that is there may take its time."""
    return {
        "base_url": url,
        "client_id": CLIENT_ID,
        "debit_party": [{"key": "organisationid", "value": "mizan"}],
        "timeout_seconds": TIMEOUT_SECONDS,
    } | other


@dataclass
class Hook:
    """The place where callbacks come in: it reads them as the edge does, and keeps what was read."""

    url: str = ""
    rail: MobileMoney | None = None
    reports: list[Report] = field(default_factory=list)
    callbacks: list[Callback] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def take(self, callback: Callback) -> int:
        """The status that the edge would answer."""
        assert self.rail is not None
        self.callbacks.append(callback)
        try:
            self.reports += self.rail.read(callback)
        except CallbackRefused:
            return 401
        except CallbackMalformed:
            return 400
        return 204

    def of(self, attempt: UUID) -> list[Report]:
        """What was read of one payment."""
        return [one for one in self.reports if one.attempt == attempt]


@dataclass(frozen=True)
class Wallets:
    """A rail, its provider and its hook."""

    rail: MobileMoney
    provider: Simulator
    hook: Hook

    def submit(self, *instructions: Instruction) -> list[Report]:
        """Send a batch."""
        return self.rail.submit(new_id(), instructions, date(2026, 3, 2))

    def pay(self, one: Instruction) -> Report:
        """Send one payment."""
        [report] = self.submit(one)
        return report

    def ask(self, one: Instruction, report: Report | None = None) -> Report:
        """Ask about one."""
        [told] = self.rail.ask([sent(one, report)])
        return told

    def ask_until(self, state: str, one: Instruction, report: Report | None = None) -> Report:
        """Ask about one until it is in a state."""

        def answer() -> Report | None:
            told = self.ask(one, report)
            return told if told.state == state else None

        told: Report = eventually(answer)
        return told


@contextmanager
def hook() -> Iterator[Hook]:
    """A hook on loopback HTTP."""
    taking = Hook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = taking.take(Callback("PUT", self.path.removeprefix(PREFIX), headers, body, "127.0.0.1"))
            taking.statuses.append(status)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taking.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield taking
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def wallets(
    keys: dict[str, str] | None = None, provider: dict[str, Any] | None = None, **other: object
) -> Iterator[Wallets]:
    """A rail with its provider and hook; `provider` are the simulator's options, `other` the rail's."""
    with ExitStack() as stack:
        taking = stack.enter_context(hook())
        running = stack.enter_context(simulator(**(provider or {})))
        around = setting(taking.url)
        rail = mobile_money.build(options(running.url, **other), keys or secrets(), around)
        stack.callback(around.database.close)
        stack.callback(rail.close)
        taking.rail = rail
        yield Wallets(rail, running, taking)
