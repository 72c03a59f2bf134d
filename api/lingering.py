"""Answers to bodies that are still arriving: said at once, and not cut off.

A server that closes a connection on bytes that it hasn't read resets it, and a client that sends before it reads then never sees why
it was refused (RFC 9112, section 9.6). One that leaves it open, and gives up on the rest later, ends it under the client's next request.
So such an answer says that the connection ends with it; what still comes is taken in and dropped, for a while; then it ends.
"""

import asyncio
from contextlib import suppress
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from api.connections import UNREAD_BYTES_MAX

DROPPED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What is taken in after an answer. Who sends more sees a reset, and has the answer before it."""
DROPPED_SECONDS_MAX: Final = 10.0
SILENCE_SECONDS_MAX: Final = 2.0
"""How long nothing may come: who waits for the answer before the body (``Expect: 100-continue``) sends none."""


class Lingering:
    """One request's `receive` and `send`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._arriving = _may_be_long(scope["headers"])
        self._lingers = False

    async def receive(self) -> Message:
        """What comes next of the request."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._arriving = False
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer; at its end, wait for the body's."""
        if message["type"] == "http.response.start":
            self._lingers = self._arriving
            if self._lingers:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await self._send(message)
        elif self._lingers and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop()
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await self._send(message)

    async def _drop(self) -> None:
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DROPPED_SECONDS_MAX):
                while self._arriving and dropped < DROPPED_BYTES_MAX:
                    async with asyncio.timeout(SILENCE_SECONDS_MAX):
                        dropped += len((await self.receive()).get("body", b""))


def _may_be_long(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body may be longer than what the connection drops by itself (`api.connections`) and lives on."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length" and value.isdigit() and int(value[:20]) > UNREAD_BYTES_MAX:
            return True
    return False
