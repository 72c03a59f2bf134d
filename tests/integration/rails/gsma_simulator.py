"""A provider of the GSMA Mobile Money API 1.2 on real HTTP, honest and strict unless rules tell it to misbehave.

In a thread of a test (`simulator()`), or as a process of its own that outlives a killed worker:
``python -m tests.integration.rails.gsma_simulator --book FILE --seed 7`` prints one line of JSON with its addresses, `url` for the
rail and `control` for the test:

=================================  =====================================================================================
``POST /control/rules``            a list of `gsma_books.Rule` as objects; replaces those that are
``GET /control/payments``          every payment: correlation id, amount, currency, state, how often sent and told
``GET /control/requests``          every request that was read, answered or not: method and path
``POST /control/settle``           what is pending comes to its outcome now
``POST /control/reverse``          ``{"correlation_id"}``: what was completed is reversed (``/control/fail``: fails), and told
``POST /control/accounts``         ``{msisdn: {"status", "name"}}``; a number that isn't named is available and has no name
``POST /control/down``, ``/up``    the rail's port closes, with its connections; opens again
=================================  =====================================================================================
"""

import argparse
import hashlib
import heapq
import itertools
import json
import re
import signal
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import httpx

from tests.integration.rails.gsma_books import Books, Payment, Rule, error, instant
from tests.integration.rails.gsma_http import Answer, Handler, Hang, RailServer, Refused, Reset, Server

API_KEY = "the-funds-own-api-key"
CLIENT_ID = "mizan-test"
CALLBACK_KEY = "the-providers-key-for-callbacks"
CALLBACK_TRIES = 3
AMOUNT = re.compile(r"^([0]|([1-9][0-9]{0,17}))([.][0-9]{0,3}[0-9])?$")


class Simulator:
    """The provider: its books, its clockwork, its two servers."""

    def __init__(
        self,
        *,
        seed: int = 1,
        book: Path | None = None,
        settles_seconds: float = 0.02,
        poll_limit: int = 1000,
        api_key: str = API_KEY,
        client_id: str = CLIENT_ID,
        callback_key: str = CALLBACK_KEY,
        port: int = 0,
        control_port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.books = Books(seed, book)
        self.settles_seconds = settles_seconds
        self.poll_limit = poll_limit
        self.api_key, self.client_id, self.callback_key = api_key, client_id, callback_key
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.broken: list[str] = []
        self._tries: Counter[str] = Counter()
        self._tls = tls
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._wakes = threading.Condition()
        self._ends = False
        self._callbacks = ThreadPoolExecutor(8, thread_name_prefix="gsma-callback")
        self._http = httpx.Client(timeout=10, trust_env=False)
        self._server: RailServer | None = self._listen(port)
        self.port = self._server.server_address[1]
        self._control = Server(("127.0.0.1", control_port), ControlHandler, self)
        threading.Thread(target=self._control.serve_forever, args=(0.05,), daemon=True).start()
        self._clockwork = threading.Thread(target=self._run, daemon=True)
        self._clockwork.start()
        for payment in self.books.pending():
            self._after(self.settles_seconds, partial(self.settle, payment))

    @property
    def url(self) -> str:
        """The API's address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1.2/mm"

    @property
    def control_url(self) -> str:
        """The address of the tests' own door."""
        return f"http://127.0.0.1:{self._control.server_address[1]}/control"

    def misbehave(self, *rules: Rule) -> None:
        """Replace the rules."""
        self.books.rules = rules

    def down(self) -> None:
        """Close the rail's port and its connections."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            server.drop()

    def up(self) -> None:
        """Open the port again."""
        if self._server is None:
            self._server = self._listen(self.port)

    def close(self) -> None:
        """End servers, clockwork and callbacks."""
        self.down()
        with self._wakes:
            self._ends = True
            self._wakes.notify()
        self._clockwork.join()
        self._control.shutdown()
        self._control.server_close()
        self._callbacks.shutdown(cancel_futures=True)
        self._http.close()
        self.books.close()

    def submit(self, headers: Mapping[str, str], body: dict[str, Any]) -> Answer:
        """``POST /transactions/type/disbursement``."""
        correlation = headers["x-correlationid"]
        with self.books.lock:
            self._tries[correlation] += 1
            tries = self._tries[correlation]
        self._misbehave(self.books.chosen("before", correlation, tries, body))
        payment = self.books.accept(correlation, body, headers.get("x-callback-url"))
        if payment is None:
            return 400, error("businessRule", "duplicateRequest"), {}
        after = self.books.chosen_for("after", payment)
        telling = self.books.chosen_for("callback", payment)
        if (after and after.fault == "synchronous") or (telling and telling.fault == "before_answer"):
            self.settle(payment, tell_now=True)
        else:
            self._after(self.settles_seconds, lambda: self.settle(payment))
        if after is not None and after.fault == "synchronous":
            return 201, payment.transaction(), {}
        self._misbehave(after)
        answer = payment.request_state("callback" if payment.callback_url else "polling", self.poll_limit)
        if after is not None and after.fault == "broken_answer":
            return 202, b'{"serverCorrelationId": "', {}
        return 202, answer, {"x-content-hash": "0" * 64} if after and after.fault == "wrong_hash" else {}

    def settle(self, payment: Payment, *, tell_now: bool = False) -> None:
        """What becomes of a pending payment, told as the rules say."""
        outcome = self.books.chosen_for("outcome", payment)
        if outcome is not None and outcome.fault == "never":
            return
        if outcome is not None and outcome.fault == "fails":
            changed = self.books.change(payment, "pending", "failed", outcome.code)
        else:
            changed = self.books.change(payment, "pending", "completed")
        if not changed:
            return
        told = (
            payment.transaction()
            if payment.state == "completed"
            else error("businessRule", payment.code or "")
        )
        later = {"fails_later": "failed_late", "reverses": "reversed"}.get(outcome.fault if outcome else "")
        telling = self.books.chosen_for("callback", payment)
        if telling is not None and telling.fault == "out_of_order" and later is not None:
            self.undo(payment, later)
            self._after(telling.seconds, lambda: self._tell(payment, told))
            return
        if later is not None and outcome is not None:
            self._after(outcome.seconds, lambda: self.undo(payment, later))
        match telling.fault if telling else "":
            case "none":
                return
            case "late" | "out_of_order" if telling is not None:
                self._after(telling.seconds, lambda: self._tell(payment, told))
            case "repeated" if telling is not None:
                for number in range(telling.times):
                    self._after(number * 0.01, lambda: self._tell(payment, told))
            case _ if tell_now:
                self._put(payment, told)
            case _:
                self._tell(payment, told)

    def undo(self, payment: Payment, state: str) -> None:
        """What was completed is reversed, or fails, and that is told."""
        if self.books.change(payment, "completed", state):
            self._tell(payment, payment.transaction())

    def answer_about(self, kind: str, name: str) -> Answer:
        """``GET /requeststates/…``, ``/transactions/…``, ``/responses/…``."""
        books = self.books
        holder = {"requeststates": books.by_server_id, "transactions": books.by_reference}.get(
            kind, books.payments
        )
        payment = holder.get(name)
        if payment is None or (kind == "transactions" and payment.state in ("pending", "failed")):
            return 404, error("identification", "identifierError"), {}
        payment.polls += 1
        rule = books.chosen_for("ask", payment, payment.polls)
        self._misbehave(rule)
        wrong = {"x-content-hash": "0" * 64} if rule and rule.fault == "wrong_hash" else {}
        if kind == "transactions":
            return 200, payment.transaction(), wrong
        if kind == "requeststates":
            if payment.polls > self.poll_limit:
                return 400, error("businessRule", "rateLimitError"), {}
            return 200, payment.request_state("callback", self.poll_limit), wrong
        made = payment.state not in ("pending", "failed")
        place = (
            f"transactions/{payment.reference}" if made else f"requeststates/{payment.server_correlation_id}"
        )
        return 200, {"link": f"https://elsewhere.example/v1.2/mm/{place}"}, wrong

    def account(self, msisdn: str, about: str) -> Answer:
        """``GET /accounts/msisdn/…/status`` and ``…/accountname``."""
        self._misbehave(self.books.chosen("ask", msisdn, 1, {}))
        account = self.books.accounts.get(msisdn, {})
        status, name = account.get("status", "available"), account.get("name")
        if status == "unknown" or (about == "accountname" and name is None):
            return 404, error("identification", "identifierError"), {}
        return 200, {"accountStatus": status} if about == "status" else {"name": name}, {}

    def listed(self, query: Mapping[str, list[str]]) -> Answer:
        """``GET /accounts/{…}/transactions``."""
        asked = {name: values[0] for name, values in query.items()}
        self._misbehave(self.books.chosen("ask", json.dumps(asked), 1, {}))
        page, whole = self.books.page(
            asked.get("fromDateTime"),
            asked.get("toDateTime"),
            int(asked.get("offset", "0")),
            int(asked.get("limit", "50")),
        )
        counts = {"x-records-available-count": str(whole), "x-records-returned-count": str(len(page))}
        return 200, [payment.transaction() for payment in page], counts

    def _misbehave(self, rule: Rule | None) -> None:
        """Do the fault, if it is one that ends the request. Raises `Hang`, `Reset`, `Refused`."""
        match rule.fault if rule else "":
            case "time_out" if rule is not None:
                raise Hang(rule.seconds)
            case "reset":
                raise Reset
            case "slow" if rule is not None:
                time.sleep(rule.seconds)
            case "error_500":
                raise Refused(500, error("internal", "genericError"))
            case "error_503" if rule is not None and rule.when == "before":
                raise Refused(503, error("serviceUnavailable", "genericError"), {"retry-after": "1"})
            case "error_503":
                raise Refused(503, b"<html>Bad gateway</html>")
            case "rate_limited":
                raise Refused(429, error("businessRule", "rateLimitError"), {"retry-after": "1"})
            case "unauthorised":
                raise Refused(401, error("authorisation", "clientAuthorisationError"))
            case "refuse" if rule is not None:
                raise Refused(rule.status, error(rule.category, rule.code))

    def _tell(self, payment: Payment, body: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # ending
            self._callbacks.submit(self._put, payment, body)

    def _put(self, payment: Payment, body: dict[str, Any]) -> None:
        """One callback, tried again while it isn't taken."""
        if payment.callback_url is None:
            return
        content = json.dumps(body).encode()
        headers = {
            "content-type": "application/json",
            "x-api-key": self.callback_key,
            "x-correlationid": payment.correlation_id,
            "x-content-hash": hashlib.sha256(content).hexdigest(),
            "x-date": formatdate(usegmt=True),
        }
        for number in range(CALLBACK_TRIES):
            try:
                status = self._http.put(payment.callback_url, content=content, headers=headers).status_code
            except (httpx.HTTPError, RuntimeError):
                status = 0
            self.books.told(payment, status)
            if 200 <= status < 300 or self._ends:
                return
            time.sleep(0.1 * (number + 1))

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        with self._wakes:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))
            self._wakes.notify()

    def _run(self) -> None:
        while True:
            with self._wakes:
                if self._ends:
                    return
                if not self._due or self._due[0][0] > time.monotonic():
                    self._wakes.wait(self._due[0][0] - time.monotonic() if self._due else None)
                    continue
                _, _, action = heapq.heappop(self._due)
            action()

    def _listen(self, port: int) -> "RailServer":
        server = RailServer(("127.0.0.1", port), RailHandler, self, self._tls)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


class RailHandler(Handler):
    """The provider's API."""

    def answer(self, owner: Simulator, method: str, path: str, body: bytes) -> Answer:
        """Route, after the checks that the specification asks for."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        parts = urlsplit(path)
        owner.requests.append((method, parts.path, headers))
        if (headers.get("x-api-key"), headers.get("x-client-id")) != (owner.api_key, owner.client_id):
            return 401, error("authorisation", "clientAuthorisationError"), {}
        steps = [unquote(step) for step in parts.path.removeprefix("/v1.2/mm/").split("/")]
        if "x-date" not in headers or parsedate_to_datetime(headers["x-date"]).tzinfo is None:
            return 400, error("validation", "mandatoryValueNotSupplied"), {}
        match method, steps:
            case "POST", ["transactions", "type", "disbursement"]:
                return owner.submit(headers, _valid(headers, body))
            case "GET", ["requeststates" | "transactions" | "responses" as kind, name]:
                return owner.answer_about(kind, name)
            case "GET", ["accounts", "msisdn", msisdn, "status" | "accountname" as about]:
                return owner.account(msisdn, about)
            case "GET", ["accounts", *_, "transactions"]:
                return owner.listed(parse_qs(parts.query))
            case _:
                return 404, b"<html>Not here</html>", {}


def _valid(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The request of a disbursement. Raises `Refused` for what the specification forbids."""
    try:
        UUID(headers.get("x-correlationid", ""))
        asked = json.loads(body)
        whole = all(
            isinstance(asked[party], list) and all(set(one) == {"key", "value"} for one in asked[party])
            for party in ("creditParty", "debitParty")
        )
        numbers = [one["value"] for one in asked["creditParty"] if one["key"] == "msisdn"]
        fits = whole and AMOUNT.match(asked["amount"]) and re.fullmatch(r"[0-9]{6,15}", numbers[0])
    except (ValueError, KeyError, TypeError, IndexError):
        fits = None
    if not fits or hashlib.sha256(body).hexdigest() != headers.get("x-content-hash"):
        raise Refused(400, error("validation", "formatError"))
    return dict(asked)


class ControlHandler(Handler):
    """The tests' own door."""

    def answer(self, owner: Simulator, method: str, path: str, body: bytes) -> Answer:
        """Do it, and say how it stands."""
        asked = json.loads(body) if body else {}
        match method, path.removeprefix("/control/"):
            case "POST", "rules":
                owner.misbehave(*(Rule(**one) for one in asked))
            case "GET", "payments":
                return 200, owner.books.listing(), {}
            case "GET", "requests":
                return 200, [[method, path] for method, path, _ in owner.requests], {}
            case "POST", "settle":
                for payment in owner.books.pending():
                    owner.settle(payment)
            case "POST", "reverse" | "fail" as what:
                state = "reversed" if what == "reverse" else "failed_late"
                owner.undo(owner.books.payments[asked["correlation_id"]], state)
            case "POST", "accounts":
                owner.books.accounts.update(asked)
            case "POST", "down":
                owner.down()
            case "POST", "up":
                owner.up()
            case _:
                return 404, {}, {}
        return 200, {"at": instant()}, {}


@contextmanager
def simulator(**options: Any) -> Iterator[Simulator]:
    """A provider in threads of this process; what it failed in itself fails the test."""
    running = Simulator(**options)
    try:
        yield running
    finally:
        running.close()
    assert not running.broken


def main() -> None:
    """A provider as a process of its own, until it is asked to end."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--book", type=Path, help="the file that keeps the payments; a process begun on it goes on"
    )
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--control-port", type=int, default=0)
    options.add_argument("--settles-seconds", type=float, default=0.02)
    options.add_argument("--rules", default="[]", help="rules from the start, as JSON")
    options.add_argument("--api-key", default=API_KEY)
    options.add_argument("--client-id", default=CLIENT_ID)
    options.add_argument("--callback-key", default=CALLBACK_KEY)
    given = options.parse_args()
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    running = Simulator(
        seed=given.seed,
        book=given.book,
        port=given.port,
        control_port=given.control_port,
        settles_seconds=given.settles_seconds,
        api_key=given.api_key,
        client_id=given.client_id,
        callback_key=given.callback_key,
    )
    running.misbehave(*(Rule(**one) for one in json.loads(given.rules)))
    sys.stdout.write(json.dumps({"url": running.url, "control": running.control_url}) + "\n")
    sys.stdout.flush()
    ends.wait()
    running.close()


if __name__ == "__main__":
    main()
