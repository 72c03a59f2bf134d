"""The edge: what is true of every request and answer, whatever route it takes.

* every request has an id, taken from ``X-Request-Id`` or made, and every answer says it;
* what could never be read is refused before a route sees it (NUL characters, bodies too large, compressed or too slow);
* the victim of a deadlock is served again, as a whole, from the body that was kept;
* no exception leaves as anything but a problem document.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from ledger.database import sqlstate
from ledger.ids import new_id, public_id

log = logging.getLogger("mizan.api")

BODY_SECONDS_MAX: Final = 30.0
ATTEMPTS_MAX: Final = 4
HOOKS: Final = "/hooks/"
"""Hooks read their own bodies: what a partner signed is judged, and counted, by their own table."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}", re.ASCII)
_REPEATABLE = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_BUSY = frozenset(
    {"55P03", "57014", "57P01", "57P02", "57P03", "53300"}
)  # lock, statement, shutdown, connections


class Edge:
    """The outermost ASGI application. `environment` is told in every answer."""

    def __init__(self, app: ASGIApp, *, environment: str, body_bytes_max: int) -> None:
        self._app = app
        self._environment = environment.encode()
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other scopes (lifespan) pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        request_id = _request_id(headers)
        state = dict(scope.get("state") or {})
        state["request_id"] = request_id
        state["answer_headers"] = {}
        scope["state"] = state
        answer = _Answer(send, request_id, self._environment, state["answer_headers"])
        if _unreadable(scope):
            await self._problem(
                scope, answer, "malformed_request", "The address or a header holds a NUL character."
            )
            return
        if scope["path"].startswith(HOOKS):
            await self._serve(scope, receive, answer)
            return
        if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers):
            await self._problem(
                scope, answer, "unsupported_media_type", "Send the body without Content-Encoding."
            )
            return
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await _read(receive, headers, self._body_bytes_max)
        except TimeoutError:
            await self._problem(scope, answer, "request_timeout", "The body was not received in time.")
            return
        except _TooLarge:
            await self._problem(
                scope, answer, "content_too_large", f"A body has at most {self._body_bytes_max} bytes."
            )
            return
        if body is None:
            return  # the client went away
        state["body"] = body
        for attempt in range(1, ATTEMPTS_MAX + 1):
            last = attempt == ATTEMPTS_MAX
            if await self._serve(scope, _replay(body, receive), answer, repeatable=not last):
                return
            await asyncio.sleep(0.01 * 2**attempt)

    async def _serve(
        self, scope: Scope, receive: Receive, answer: "_Answer", *, repeatable: bool = False
    ) -> bool:
        """Run the application; False when it was a deadlock's victim and may run again."""
        try:
            # routing writes into the scope: each attempt starts from a clean one
            await self._app({**scope, "state": scope["state"]}, receive, answer)
        except Exception as error:
            found = sqlstate(error) if isinstance(error, (DBAPIError, psycopg.Error)) else None
            if repeatable and found in _REPEATABLE and not answer.started:
                log.info("request %s met %s and is served again", scope["state"]["request_id"], found)
                return False
            log.exception("request %s failed", scope["state"]["request_id"])
            if answer.started:
                raise
            if _is_unavailable(error, found):
                await self._problem(
                    scope,
                    answer,
                    "unavailable",
                    "The database is busy or cannot be reached.",
                    {"Retry-After": "1"},
                )
            else:
                await self._problem(scope, answer, "internal_error", "An error that we did not foresee.")
        return True

    async def _problem(
        self, scope: Scope, answer: "_Answer", code: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        response = problems.render(code, detail, scope["state"]["request_id"], headers=headers)
        await response(scope, _nothing_more, answer)


class _Answer:
    """`send`, adding the headers that every answer has, and knowing whether the answer has begun."""

    def __init__(
        self,
        send: Callable[[Message], Awaitable[None]],
        request_id: str,
        environment: bytes,
        extra: dict[str, str],
    ) -> None:
        self._send = send
        self._headers = [(b"x-request-id", request_id.encode()), (b"mizan-environment", environment)]
        self._extra = extra
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            extra = [(name.lower().encode(), value.encode()) for name, value in self._extra.items()]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers, *extra]}
        await self._send(message)


class _TooLarge(Exception):
    """The body passed its limit while it was read."""


async def _read(receive: Receive, headers: list[tuple[bytes, bytes]], bytes_max: int) -> bytes | None:
    """The whole body, counted while reading; None when the client went away."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > bytes_max:
            raise _TooLarge
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise _TooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the kept body once, then whatever the client does next."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return public_id("req", new_id())


def _unreadable(scope: Scope) -> bool:
    query: bytes = scope.get("query_string", b"")
    with suppress(UnicodeEncodeError):
        scope["path"].encode()
        return (
            "\x00" in scope["path"]
            or b"\x00" in query
            or b"%00" in query
            or any(b"\x00" in value for _, value in scope["headers"])
        )
    return True


def _is_unavailable(error: Exception, found: str | None) -> bool:
    if isinstance(error, PoolTimeout):
        return True
    original = error.orig if isinstance(error, DBAPIError) else error
    # no SQLSTATE: the server was never reached, or the connection broke
    return isinstance(original, psycopg.OperationalError) and (found is None or found in _BUSY | _REPEATABLE)
