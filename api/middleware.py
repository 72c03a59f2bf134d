"""The edge: what is true of every request and answer, whatever route it takes.

* every request has an id, taken from ``X-Request-Id`` or made, and every answer says it;
* what could never be read is refused before a route sees it (NUL characters, heads and bodies too large, bodies that are
  compressed or too slow);
* who proves nothing is counted by address, and so is every proof that was refused (`api.limits`);
* a process has so many requests under way at once, each for so long;
* the victim of a deadlock is served again, as a whole, from the body that was kept;
* no exception leaves as anything but a problem document, and no answer without what browsers have to be told
  (`api.security_headers`). No other site may read an answer: there are no CORS headers.
"""

import asyncio
import logging
import random
import re
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import IO, Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.addresses import X_FORWARDED_FOR, Network, client_address, counted_address
from api.limits import REFUSED_COSTS, Limits, Standing
from api.lingering import Lingering
from api.problems import ProblemError
from api.security_headers import POLICIES, security_headers
from ledger.database import sqlstate
from ledger.ids import new_id, public_id

log = logging.getLogger("mizan.api")

ATTEMPTS_MAX: Final = 4
HEADERS_MAX: Final = 100
HEAD_BYTES_MAX: Final = 32 * 1024
"""Names and values of all headers together."""
ADDRESS_BYTES_MAX: Final = 8 * 1024
BUFFERED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bodies that one process holds at once while they are read and served."""
SPOOLED_MAX: Final = 8
"""Uploads that one process writes to disk, and serves from there, at once."""
HOOKS: Final = "/hooks/"
"""Hooks read their own bodies: what a partner signed is judged, and counted, by their own table."""
TOKENS: Final = "/oauth/token"
UNCOUNTED: Final = frozenset({"/healthz", "/readyz"})
"""For whoever watches over the process, whose address may be that of all the world (a node's, in a cluster)."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}", re.ASCII)
_REPEATABLE = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_BUSY = frozenset(
    {"55P03", "57014", "57P01", "57P02", "57P03", "53300"}
)  # lock, statement, shutdown, connections


class Edge:
    """The outermost ASGI application. `environment` is told in every answer.

    At the addresses `uploads` a posted body may have `upload_bytes_max`, anywhere else `body_bytes_max`. At the addresses
    `spooled`, of those who may (`may_spool`), it may have `spooled_bytes_max`, is written to disk while it arrives (an unnamed
    file in the system's folder for such), and may take `spooled_seconds_max` to arrive, and again to be served. A method and
    address in `slow` may take as many seconds to be served as it says; whoever reads its answer still takes each piece of it
    within `request_seconds_max`.
    `limits` counts by address (None: nobody is counted); `https` says that the outside reaches us by it alone; `trusted`
    and `forwarded` are `api.addresses`'.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        environment: str,
        body_bytes_max: int,
        uploads: Collection[str] = (),
        upload_bytes_max: int = 0,
        spooled: Collection[str] = (),
        spooled_bytes_max: int = 0,
        spooled_seconds_max: float = 600.0,
        may_spool: Callable[[Scope], bool] = lambda _: False,
        slow: Mapping[tuple[str, str], float] | None = None,
        limits: Limits | None = None,
        trusted: Sequence[Network] = (),
        forwarded: bytes = X_FORWARDED_FOR,
        https: bool = False,
        body_seconds_max: float = 30.0,
        concurrency_max: int = 256,
        request_seconds_max: float = 60.0,
    ) -> None:
        self._app = app
        self._always = [(b"mizan-environment", environment.encode()), *security_headers(https=https)]
        self._body_bytes_max = body_bytes_max
        self._uploads = frozenset(uploads)
        self._upload_bytes_max = upload_bytes_max
        self._spooled = frozenset(spooled)
        self._spooled_bytes_max = spooled_bytes_max
        self._spooled_seconds_max = spooled_seconds_max
        self._may_spool = may_spool
        self._slow = dict(slow or {})
        self._spooling = 0
        self._body_seconds_max = body_seconds_max
        self._limits = limits
        self._trusted = trusted
        self._forwarded = forwarded
        self._concurrency_max = concurrency_max
        self._request_seconds_max = request_seconds_max
        self._under_way = 0
        self.buffered_bytes = 0

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
        state["address"] = client_address(scope, self._trusted, self._forwarded)
        scope["state"] = state
        # an answer may be given before the body has come: to what is too large, or proves nothing
        lingering = Lingering(scope, receive, send)
        receive = lingering.receive
        answer = _Answer(lingering.send, scope, self._always, self._limits)
        try:
            _require_readable(scope)
            if scope["path"].startswith(HOOKS):
                await self._serve(scope, receive, answer)
            else:
                await self._rest(scope, receive, answer)
        except ProblemError as refused:
            await answer.problem(refused.code, refused.detail, refused.headers)

    async def _rest(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        """Count, read and serve what is no delivery. Raises the problem of what can't be served."""
        headers = scope["headers"]
        if self._limits is not None:
            await _count_before(scope, self._limits)
        if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers):
            raise ProblemError("unsupported_media_type", "Send the body without Content-Encoding.")
        if self.buffered_bytes >= BUFFERED_BYTES_MAX:
            raise _busy("Too much is being received.")
        if scope["path"] in self._spooled and scope["method"] == "POST" and await self._is_spooler(scope):
            await self._spool(scope, receive, answer)
            return
        body = _Body(self)
        try:
            uploaded = scope["path"] in self._uploads and scope["method"] == "POST"
            bytes_max = self._upload_bytes_max if uploaded else self._body_bytes_max
            read = await body.read(receive, headers, bytes_max, self._body_seconds_max)
            if read is None:
                return  # the client went away
            seconds_max = self._slow.get((scope["method"], scope["path"]), self._request_seconds_max)
            await self._serve_read(scope, receive, answer, read, seconds_max)
        finally:
            self.buffered_bytes -= body.size

    async def _is_spooler(self, scope: Scope) -> bool:
        try:
            return await run_in_threadpool(self._may_spool, scope)
        except (DBAPIError, psycopg.Error) as error:
            log.warning("who sends a file cannot be told: %s", type(error).__name__)
            raise _busy("The database is busy or cannot be reached.") from error

    async def _spool(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        """Write a body to disk while it arrives, and serve it from there."""
        if self._spooling >= SPOOLED_MAX:
            raise _busy("Too many files are being received.")
        self._spooling += 1
        try:
            with tempfile.TemporaryFile() as file:
                body = _Body(self, file)
                read = await body.read(
                    receive, scope["headers"], self._spooled_bytes_max, self._spooled_seconds_max
                )
                if read is not None:
                    file.seek(0)
                    scope["state"]["upload"] = file
                    await self._serve_read(scope, receive, answer, read, self._spooled_seconds_max)
        finally:
            self._spooling -= 1

    async def _serve_read(
        self, scope: Scope, receive: Receive, answer: "_Answer", body: bytes, seconds_max: float
    ) -> None:
        scope["state"]["body"] = body
        if self._under_way >= self._concurrency_max:
            raise _busy("Too many requests are under way.")
        self._under_way += 1
        try:
            await self._attempts(scope, receive, answer, body, seconds_max)
        finally:
            self._under_way -= 1

    async def _attempts(
        self, scope: Scope, receive: Receive, answer: "_Answer", body: bytes, seconds_max: float
    ) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        until = loop.time() + seconds_max
        late: asyncio.TimerHandle

        def look() -> None:
            nonlocal late
            now = loop.time()
            if now >= until or answer.untaken_seconds(now) >= self._request_seconds_max:
                answer.too_late(task)
            else:
                late = loop.call_at(min(until, now + self._request_seconds_max), look)

        late = loop.call_at(min(until, loop.time() + self._request_seconds_max), look)
        try:
            for attempt in range(1, ATTEMPTS_MAX + 1):
                last = attempt == ATTEMPTS_MAX
                if await self._serve(scope, _replay(body, receive), answer, repeatable=not last):
                    return
                await asyncio.sleep(0.01 * 2**attempt)
        except asyncio.CancelledError:
            if not answer.given_up:
                raise
            log.warning("request %s was not read to its end in time", scope["state"]["request_id"])
        finally:
            late.cancel()

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
                await answer.problem(
                    "unavailable", "The database is busy or cannot be reached.", {"Retry-After": "1"}
                )
            else:
                await answer.problem("internal_error", "An error that we did not foresee.")
        return True


class _Body:
    """One body while it is read: into `file`, or into memory, counted with all others of the process there."""

    def __init__(self, edge: Edge, file: IO[bytes] | None = None) -> None:
        self._edge = edge
        self._file = file
        self.size = 0

    async def read(
        self, receive: Receive, headers: list[tuple[bytes, bytes]], bytes_max: int, seconds_max: float
    ) -> bytes | None:
        """The whole body, counted while reading (nothing, of one that goes into a file); None when the client went away."""
        try:
            async with asyncio.timeout(seconds_max):
                return await self._read(receive, headers, bytes_max)
        except TimeoutError:
            raise ProblemError("request_timeout", "The body was not received in time.") from None

    async def _read(
        self, receive: Receive, headers: list[tuple[bytes, bytes]], bytes_max: int
    ) -> bytes | None:
        too_large = ProblemError("content_too_large", f"A body has at most {bytes_max} bytes.")
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > bytes_max:
                raise too_large
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk: bytes = message.get("body", b"")
            self.size += len(chunk)
            if self._file is None:
                self._edge.buffered_bytes += len(chunk)
            if self.size > bytes_max:
                raise too_large
            if self._file is None:
                chunks.append(chunk)
            else:
                try:
                    await run_in_threadpool(self._file.write, chunk)
                except OSError:
                    log.exception("an upload could not be written to disk")
                    raise _busy("There is no room for the file now.") from None
            if not message.get("more_body", False):
                return b"".join(chunks)


class _Answer:
    """`send`, adding the headers that every answer has, and knowing whether the answer has begun.

    A refused proof is counted on its way out, and is a 429 once its address has had too many refused.
    """

    def __init__(
        self,
        send: Callable[[Message], Awaitable[None]],
        scope: Scope,
        always: list[tuple[bytes, bytes]],
        limits: Limits | None,
    ) -> None:
        self._send = send
        self._scope = scope
        self._state = scope["state"]
        self._always = always
        self._limits = limits
        self._late: asyncio.Task[None] | None = None
        self._sending_since: float | None = None
        self.started = False
        self.given_up = False

    async def __call__(self, message: Message) -> None:
        if self.given_up:
            return
        if message["type"] == "http.response.start":
            cost = _costs(self._scope, message["status"])
            if self._limits is not None and cost:
                standing = await _spend(self._state, self._limits, cost)
                if self.given_up:
                    return
                if not standing.allowed:
                    await self._instead(standing.problem(REFUSED_TOO_OFTEN))
                    return
            self.started = True
            message = {**message, "headers": self._complete(message.get("headers", ()))}
        self._sending_since = asyncio.get_running_loop().time()
        await self._send(message)
        self._sending_since = None

    def untaken_seconds(self, now: float) -> float:
        """For how many seconds a piece of the answer has not been taken."""
        return 0.0 if self._sending_since is None else now - self._sending_since

    def _complete(self, own: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        said = {name.lower() for name, _ in own}
        headers = [*own, (b"x-request-id", self._state["request_id"].encode())]
        policy = POLICIES.get(self._scope["path"])
        if policy is not None and b"content-security-policy" not in said:
            said.add(b"content-security-policy")
            headers.append((b"content-security-policy", policy.encode()))
        headers += [header for header in self._always if header[0] not in said]
        for name, value in self._state["answer_headers"].items():
            if name.lower().encode() not in said:
                headers.append((name.lower().encode(), value.encode()))
        return headers

    async def problem(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        """Answer with a problem of the edge's own, counting nothing."""
        if not self.given_up:
            await self._problem(code, detail, headers)

    async def _instead(self, said: ProblemError) -> None:
        """Answer this, and nothing that the application still says."""
        self.given_up = True
        await self._problem(said.code, said.detail, said.headers)

    async def _problem(self, code: str, detail: str, headers: dict[str, str] | None) -> None:
        response = problems.render(code, detail, self._state["request_id"], headers=headers)
        self.started = True
        complete = self._complete(response.raw_headers)
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": complete})
        await self._send({"type": "http.response.body", "body": response.body})

    def too_late(self, task: "asyncio.Task[None] | None") -> None:
        """The request's time is over: say so, or end an answer that nobody reads.

        What runs in a thread goes on and keeps its place among the requests under way: it may not be torn from its
        database transaction. What it would still say is not sent.
        """
        if self.started:
            self.given_up = True
            if task is not None:
                task.cancel()
            return
        log.warning("request %s took too long", self._state["request_id"])
        busy = _busy("The request took too long; it may still take effect.")
        self._late = asyncio.ensure_future(self._instead(busy))


REFUSED_TOO_OFTEN: Final = "Too many proofs from this address were refused."


async def _count_before(scope: Scope, limits: Limits) -> None:
    """Count a request without a token; at the tokens' own address only ask, as most callers there prove themselves."""
    if scope["path"] in UNCOUNTED:
        return
    if scope["path"] == TOKENS:
        cost, detail = 0, REFUSED_TOO_OFTEN
    elif _has_credentials(scope["headers"]):
        return
    else:
        cost, detail = 1, "Too many requests without a token from this address."
    standing = await _spend(scope["state"], limits, cost)
    if not standing.allowed:
        raise standing.problem(detail)
    if cost:
        scope["state"]["answer_headers"].update(standing.headers)


async def _spend(state: dict[str, str], limits: Limits, cost: int) -> Standing:
    caller = counted_address(state["address"])
    known = limits.spent(caller)
    return known if known is not None else await run_in_threadpool(limits.by_address, caller, cost)


def _has_credentials(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        (name == b"authorization" and value[:7].lower() == b"bearer ")
        or (name == b"cookie" and b"mizan_session=" in value)
        for name, value in headers
    )


def _costs(scope: Scope, status: int) -> int:
    """What an answer costs the address: a refused proof, or a request for a token that nobody could read."""
    if status == 401:
        return REFUSED_COSTS
    return 1 if status == 400 and scope["path"] == TOKENS else 0


def _busy(detail: str) -> ProblemError:
    pause = str(random.randint(1, 3))  # noqa: S311  a pause, no secret
    return ProblemError("unavailable", detail, headers={"Retry-After": pause})


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


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return public_id("req", new_id())


def _require_readable(scope: Scope) -> None:
    """Refuse heads that no route should see."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    query: bytes = scope.get("query_string", b"")
    if len(headers) > HEADERS_MAX or sum(len(name) + len(value) for name, value in headers) > HEAD_BYTES_MAX:
        raise ProblemError(
            "headers_too_large",
            f"A request has at most {HEADERS_MAX} headers of {HEAD_BYTES_MAX} bytes together.",
        )
    path: str = scope["path"]
    if len(path) + len(query) > ADDRESS_BYTES_MAX:
        raise ProblemError("address_too_long", f"An address has at most {ADDRESS_BYTES_MAX} bytes.")
    with suppress(UnicodeEncodeError):
        path.encode()
        if not (
            "\x00" in path
            or b"\x00" in query
            or b"%00" in query
            or any(b"\x00" in value for _, value in headers)
        ):
            return
    raise ProblemError("malformed_request", "The address or a header holds a NUL character.")


def _is_unavailable(error: Exception, found: str | None) -> bool:
    if isinstance(error, PoolTimeout):
        return True
    original = error.orig if isinstance(error, DBAPIError) else error
    # no SQLSTATE: the server was never reached, or the connection broke
    return isinstance(original, psycopg.OperationalError) and (found is None or found in _BUSY | _REPEATABLE)
