"""The contract server of Stripe's API on a socket of loopback: answers, silence, resets, and nobody there."""

import re
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ledger.clock import FixedClock
from tests.integration.rails.stripe_contract import FakeStripe, Planned, Request, error

_NAME = re.compile(r"([^\[]+)|\[([^\]]*)\]")


def _form(text: str) -> dict[str, Any]:
    """``a[b]=1`` as ``{"a": {"b": "1"}}``."""
    made: dict[str, Any] = {}
    for name, values in parse_qs(text, strict_parsing=bool(text)).items():
        assert len(values) == 1, "no name is given twice"
        parts = [first or second for first, second in _NAME.findall(name)]
        place = made
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = values[0]
    return made


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        self._serve(Request("GET", split.path, _form(split.query), self._headers()))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self._serve(Request("POST", self.path, _form(body), self._headers()))

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _serve(self, request: Request) -> None:
        stripe = self.server.stripe
        planned = self._planned(f"{request.method} {request.path}")
        if planned and planned.fault == "request_lost":
            select.select([self.connection], [], [], self.server.silence_seconds)
            return
        if planned and planned.refusal:
            stripe.requests.append(request)
            self._answer(*error(planned.refusal))
            return
        status, body, replayed = stripe.answer(request)
        if planned and planned.fault == "answer_lost":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # a reset
            return
        if planned and planned.fault == "error_after_success":
            status, body = stripe.failed_after_all(request)
        if planned and planned.answer is not None:
            status, body = 200, planned.answer
        self._answer(status, body, replayed)

    def _planned(self, asked: str) -> Planned | None:
        stripe = self.server.stripe
        with stripe.lock:
            for planned in stripe.planned:
                if planned.matches.fullmatch(asked) and planned.times != 0:
                    if planned.times is not None:
                        planned.times -= 1
                    return planned
        return None

    def _answer(self, status: int, body: bytes, replayed: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if replayed:
            self.send_header("Idempotent-Replayed", "true")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that it overrides
        """Nothing: tests say what went wrong."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stripe: FakeStripe
    silence_seconds: float = 0.0
    """How long a request that is lost is held before its connection is closed, unless whoever waits has had enough."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up, or a connection that we reset: what the tests are about."""


@dataclass
class Served:
    """The server while it runs; `down` stops it from listening, on the same port."""

    stripe: FakeStripe
    server: _Server
    thread: threading.Thread

    @contextmanager
    def down(self) -> Iterator[None]:
        """Connections are refused until the block ends."""
        address = self.server.server_address
        self._stop()
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)  # bound and not listening: nobody else gets the port, and whoever calls is refused
        try:
            yield
        finally:
            held.listen(64)
            self.server.socket = held
            self.thread = _serving(self.server)

    def _stop(self) -> None:
        self.server.shutdown()
        self.thread.join(10)
        self.server.socket.close()


def _serving(server: _Server) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    return thread


@contextmanager
def fake_stripe(clock: FixedClock) -> Iterator[Served]:
    """Stripe on loopback until the block ends."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.stripe = FakeStripe(clock)
        server.stripe.url = f"http://127.0.0.1:{server.server_port}"
        served = Served(server.stripe, server, _serving(server))
        try:
            yield served
        finally:
            served._stop()
