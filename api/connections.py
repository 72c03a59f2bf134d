"""Connections that an attacker keeps for himself: bounded before there is a request that could be refused.

uvicorn waits for ever for the head of a request, keeps as much of it as comes, and reads on when an answer was given
before its body had ended. Here a head has so many seconds and bytes, what comes after an answer is soon cut off, a peer
that doesn't read is not waited for, and a process has so many connections. Bodies are the edge's (`api.middleware`).
"""

import asyncio
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS_MAX: Final = 20.0
"""From the connection, or the first byte of a later request, to the end of its head."""
HEAD_BYTES_MAX: Final = 64 * 1024
UNREAD_BYTES_MAX: Final = 1024 * 1024
"""How much of a body is taken in and dropped after its answer, so that the answer arrives."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with bounds on what precedes and follows a request."""

    connections_max: ClassVar[int] = 20_000
    head_seconds_max: ClassVar[float] = HEAD_SECONDS_MAX

    _since: float | None = None
    """Since when a message has been coming in; None between messages."""
    _in_head = True
    _head_bytes = 0
    _unread_bytes = 0
    _closing = False
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """Refuse what is too many, and begin to watch."""
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            transport.abort()
            return
        self._since = self.loop.time()
        # one timer for all requests of the connection, as setting one for each would cost more than most requests
        self._watch = self.loop.call_later(self.head_seconds_max, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and give up on a head that doesn't end."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._in_head = True
        self._head_bytes = self._unread_bytes = 0

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body; of one that is answered already only so much."""
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > UNREAD_BYTES_MAX:
                self.transport.abort()

    def on_message_complete(self) -> None:
        """The message has ended."""
        self._since = None
        super().on_message_complete()

    def _look(self) -> None:
        """Cut off a head that takes too long, a body that goes on after its answer, and a peer that takes nothing."""
        left = self.head_seconds_max
        if self._since is not None:
            left += self._since - self.loop.time()
        answered = self.cycle is None or self.cycle.response_complete
        if self._closing or (left <= 0 and (self._in_head or answered)):
            self.transport.abort()
            return
        self._closing = self.transport.is_closing()
        self._watch = self.loop.call_later(left if left > 0 else self.head_seconds_max, self._look)


def bounded(connections_max: int, head_seconds_max: float = HEAD_SECONDS_MAX) -> type[asyncio.Protocol]:
    """The protocol for `uvicorn.Config(http=…)`, with these bounds."""
    bounds: dict[str, Any] = {"connections_max": connections_max, "head_seconds_max": head_seconds_max}
    return type("BoundedProtocol", (BoundedProtocol,), bounds)
