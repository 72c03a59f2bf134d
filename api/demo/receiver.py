"""A partner's endpoint in little: it listens on loopback, and checks each signature with the independent library."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from standardwebhooks import Webhook, WebhookVerificationError

BODY_MAX: Final = 1024 * 1024
WAIT_SECONDS_MAX: Final = 60.0


@dataclass
class Receiver:
    """What came in, by the event's id: at least once means that one may come twice.

    `secret` is known once the endpoint is registered; what comes before waits for it.
    """

    url: str
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    unsigned: int = 0
    _registered: threading.Event = field(default_factory=threading.Event)
    _signer: Webhook | None = None

    def registered(self, secret: str) -> None:
        """From now on, what `secret` signs is taken."""
        self._signer = Webhook(secret)
        self._registered.set()

    def take(self, headers: dict[str, str], body: bytes) -> bool:
        """Whether a request is signed; what is, is kept."""
        self._registered.wait(WAIT_SECONDS_MAX)
        if self._signer is None:
            return False
        try:
            self._signer.verify(body, headers)
        except WebhookVerificationError:
            self.unsigned += 1
            return False
        self.events[headers["webhook-id"]] = json.loads(body)
        return True

    def types_of(self, name: str, value: str) -> list[str]:
        """The types of the events whose data say `value` in `name`, in the order in which they came."""
        return [one["type"] for one in list(self.events.values()) if one["data"].get(name) == value]

    def wait_for(self, name: str, value: str, count: int) -> None:
        """Until so many events of something are here, or the time is over."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while len(self.types_of(name, value)) < count and time.monotonic() < deadline:
            time.sleep(0.05)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length", "0")), BODY_MAX)
            headers = {name.lower(): value for name, value in self.headers.items()}
            taken = receiver.take(headers, self.rfile.read(length))
            self.send_response(204 if taken else 401)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing of what came in."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/mizan-events")
    thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
