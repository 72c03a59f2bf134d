"""Inbound webhooks: `POST /hooks/{slug}` verifies raw bytes, commits the delivery to the inbox, then answers.

The route is FastAPI's in the OpenAPI document only: its handler takes the request as it comes, because a second look at
the body costs as much as storing it, and a signature covers bytes, not models.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import MEDIA_TYPE, ProblemError, render, request_id
from integrations.inbox.group_commit import GroupCommit
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import Received, rejected, understood
from integrations.inbox.store import Receipt, store
from integrations.inbox.wake_up import WakeUp
from integrations.partners.directory import Directory, Sender
from integrations.partners.formats import FORMATS
from integrations.partners.port import EventInvalid, Reading, SignatureInvalid, SignatureStale
from integrations.strict_json import NotStrictJson
from ledger.clock import Clock
from ledger.database import Database
from ledger.errors import Unavailable
from ledger.ids import public_id
from products.keyring import Keyring

log = logging.getLogger("mizan.hooks")

BODY_BYTES_MAX: Final = 256 * 1024
BODY_SECONDS_MAX: Final = 30
DIRECTORY_SECONDS: Final = 1.0
"""How long a disabled partner or an ended secret may still pass."""
DIRECTORY_SECONDS_MIN: Final = 0.2
"""How often refused deliveries may make us look at the partners again."""
RETRY_AFTER_SECONDS: Final = 1
_PREFIX: Final = "/hooks/"
_COUNTED: Final = {"unsupported_media_type": "encoded", "content_too_large": "too_large"}
"""Bodies that are refused before anything is verified: how each problem is counted."""


_NOBODY: Final = Sender(UUID(int=0), FORMATS["standard"], ())
"""Who an unknown address belongs to: without secrets nothing is ever proven, after the usual work."""


class HookAnswer(BaseModel):
    """What an accepted delivery is answered."""

    id: str = Field(
        description="the delivery, as in `GET /v1/deliveries/{id}`", examples=["dlv_06a1f0000000000000000000"]
    )
    duplicate: bool = Field(description="whether the same event was accepted under this id before")


class RawRoute(APIRoute):
    """A route whose endpoint answers the request itself: nothing is parsed, solved or serialised around it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


async def raw_body(request: Request, headers: Mapping[str, str], bytes_max: int) -> bytes:
    """The raw body, counted while it is read: a declared length is believed only when it is too much.

    Raises ProblemError: encoded, too large, too slow or cut short.
    """
    if "content-encoding" in headers:
        raise ProblemError("unsupported_media_type", "The body must come without a Content-Encoding.")
    length = headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:20]) > bytes_max:
        raise _too_large(bytes_max)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                chunks.append(chunk)
    except TimeoutError:
        raise ProblemError("request_timeout", "The body did not arrive in time.") from None
    except ClientDisconnect:
        raise ProblemError("malformed_request", "The body ended too soon.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(bytes_max: int) -> ProblemError:
    # What is still arriving is dropped after the answer (`api.lingering`).
    return ProblemError("content_too_large", f"The body is over {bytes_max} bytes.")


class Hooks:
    """The inbound webhooks of one API process: include `router` in the application, put `in_front_of` it, and live
    inside `running`.

    `publish` wakes the workers; it is called from a thread, at most every 50 ms, and may fail. `counts` counts answers
    by what they mean, for the metrics; `traced` is told of each delivery that was stored, with the time (in nanoseconds
    since 1970) at which it arrived and the sender's ``traceparent``.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        clock: Clock,
        *,
        publish: Callable[[], object],
        body_bytes_max: int = BODY_BYTES_MAX,
        queue_max: int = 4096,
        group_max: int = 512,
        gather_seconds: float = 0.0015,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.traced: Callable[[Received, Receipt, int, str | None], None] | None = None
        self._database = database
        self._clock = clock
        self._publish = publish
        self._body_bytes_max = body_bytes_max
        self._limits = {"queue_max": queue_max, "group_max": group_max}
        self._gather_seconds = gather_seconds
        self._keys = InboxKeys(database, keyring, clock)
        self._directory = _FreshDirectory(Directory(database, keyring, clock))
        self._commits: GroupCommit | None = None
        self.router = self._routes()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commit deliveries until the block ends; what was taken in by then is committed and answered first."""
        wake_up = WakeUp(self._publish)
        self._commits = GroupCommit(
            self._store, committed=wake_up, gather_seconds=self._gather_seconds, **self._limits
        )
        wake_up.start()
        self._commits.start()
        keeping_fresh = asyncio.create_task(self._directory.keep_fresh(), name="partners")
        try:
            yield
        finally:
            keeping_fresh.cancel()
            await asyncio.gather(keeping_fresh, return_exceptions=True)
            await self._directory.settle()
            await self._commits.close()
            await asyncio.to_thread(wake_up.close)
            self._commits = None

    def in_front_of(self, app: ASGIApp) -> ASGIApp:
        """An application that answers deliveries itself and leaves everything else to `app`.

        A delivery then costs neither middleware nor routing nor exit stacks, which together cost more than its
        verification. `app` still has the route (from `router`), which documents it and answers all the same.
        """

        async def front(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(_PREFIX):
                slug = scope["path"][len(_PREFIX) :]
                if slug and "/" not in slug:
                    response = await self.receive(Request(scope, receive), slug)
                    await response(scope, receive, send)
                    return
            await app(scope, receive, send)

        return front

    async def receive(self, request: Request, slug: str) -> Response:
        """Verify, store and answer one delivery; the contract's table, row by row."""
        try:
            return await self._receive(request, slug)
        except ProblemError as error:
            return render(
                error.code, error.detail, request_id(request), headers=error.headers, members=error.members
            )
        except (SignatureInvalid, SignatureStale) as error:
            return render(error.code, error.detail, request_id(request))
        except Unavailable as error:
            # A full queue must not fill the log as well.
            self.counts["unavailable"] += 1
            retry_after = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return render(error.code, error.detail, request_id(request), headers=retry_after)

    async def _receive(self, request: Request, slug: str) -> Response:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]
        }
        began = time.time_ns()
        try:
            body = await raw_body(request, headers, self._body_bytes_max)
        except ProblemError as error:
            if error.code in _COUNTED:
                self.counts[_COUNTED[error.code]] += 1
            raise
        sender, webhook_id = await self._verify(slug, headers, body)
        now = self._clock.now()
        try:
            reading = sender.format.read(body)
        except NotStrictJson as error:
            received = rejected(sender.partner_id, webhook_id, body, now, reason="not_strict_json")
            receipt = await self._commit(received, began, headers)
            self.counts["not_strict_json"] += 1
            raise ProblemError(
                "malformed_request", f"The body is not strict JSON: {error}.", delivery=_name(receipt)
            ) from None
        except EventInvalid as error:
            receipt = await self._commit(_invalid(sender, webhook_id, body, now, error), began, headers)
            self.counts["invalid_event"] += 1
            raise ProblemError(
                error.code,
                error.detail,
                delivery=_name(receipt),
                errors=[{"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults[:20]],
            ) from None
        receipt = await self._commit(
            understood(sender.partner_id, webhook_id, body, reading, now), began, headers
        )
        return self._answer(receipt, reading)

    def _answer(self, receipt: Receipt, reading: Reading) -> Response:
        name = _name(receipt)
        if receipt.status == "conflict":
            self.counts["conflict"] += 1
            raise ProblemError(
                "delivery_conflict", f"{name} was accepted under this id with another event.", delivery=name
            )
        duplicate = receipt.status == "duplicate"
        self.counts["duplicate" if duplicate else "ignored" if reading.event is None else "accepted"] += 1
        content = b'{"id": "%b", "duplicate": %b}' % (name.encode(), b"true" if duplicate else b"false")
        return Response(content, 202, media_type="application/json")

    async def _verify(self, slug: str, headers: Mapping[str, str], body: bytes) -> tuple[Sender, str]:
        """The partner that signed `body`, and its id for it.

        Whoever is refused is looked at a second time, with partners and secrets as the database has them now: one that
        was created or rotated a moment ago passes, and unknown and wrong take the same path and time.
        """
        arrived = asyncio.get_running_loop().time()
        try:
            return self._verify_now(slug, headers, body)
        except SignatureInvalid:
            try:
                await self._directory.fresh_since(arrived)
            except Exception as error:
                log.warning("partners can't be read: %s", type(error).__name__)
                raise Unavailable("The sender can't be checked now.") from None
        try:
            return self._verify_now(slug, headers, body)
        except SignatureInvalid:
            self.counts["unsigned"] += 1
            raise

    def _verify_now(self, slug: str, headers: Mapping[str, str], body: bytes) -> tuple[Sender, str]:
        sender = self._directory.find(slug) or _NOBODY
        now = self._clock.now()
        try:
            return sender, sender.format.verify(headers, body, sender.valid_secrets(now), now)
        except SignatureStale:
            self.counts["stale"] += 1
            raise

    async def _commit(self, received: Received, began: int, headers: Mapping[str, str]) -> Receipt:
        if self._commits is None:
            raise Unavailable("The service is starting or ending.")
        receipt = await self._commits.submit(received)
        if self.traced is not None:
            self.traced(received, receipt, began, headers.get("traceparent"))
        return receipt

    def _store(self, group: Sequence[Received]) -> list[Receipt]:
        key = self._keys.current()
        return self._database.run(lambda tx: store(tx, group, key))

    def _routes(self) -> APIRouter:
        async def receive_delivery(request: Request) -> Response:
            return await self.receive(request, request.path_params["slug"])

        router = APIRouter(route_class=RawRoute, tags=["hooks"])
        router.add_api_route(
            "/hooks/{slug}",
            receive_delivery,
            methods=["POST"],
            operation_id="receive_delivery",
            summary="Send an event",
            description=_DESCRIPTION,
            status_code=202,
            response_model=HookAnswer,
            responses=_RESPONSES,
            openapi_extra=_OPENAPI,
        )
        return router


class _FreshDirectory:
    """The directory of partners, read anew in the background and when somebody is refused."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.find = directory.find
        self._read_from = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def keep_fresh(self) -> None:
        """Read the partners every second, for ever; a database that is away leaves them as they were."""
        while True:
            try:
                await self._read()
            except Exception as error:
                log.warning("partners can't be read: %s", type(error).__name__)
            await asyncio.sleep(DIRECTORY_SECONDS)

    async def fresh_since(self, moment: float) -> None:
        """Return once the partners have been read by a query that began after `moment` (the loop's time)."""
        while self._read_from < moment:
            await self._read()

    async def settle(self) -> None:
        """Wait for a reading that is under way."""
        if self._reading is not None:
            await asyncio.wait([self._reading])

    def _read(self) -> Awaitable[None]:
        """The reading that is under way or about to begin: all that ask meanwhile share it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_soon())
        return asyncio.shield(self._reading)

    async def _read_soon(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._read_from + DIRECTORY_SECONDS_MIN - loop.time()))
        began = loop.time()
        await asyncio.to_thread(self._directory.refresh)
        self._read_from = began


def _name(receipt: Receipt) -> str:
    return public_id("dlv", receipt.id)


def _invalid(sender: Sender, webhook_id: str, body: bytes, at: datetime, error: EventInvalid) -> Received:
    return rejected(
        sender.partner_id,
        webhook_id,
        body,
        at,
        reason=error.code,
        event_type=error.event_type,
        faults=error.faults,
    )


_DESCRIPTION: Final = """\
A delivery signed by Standard Webhooks 1.0 over its raw bytes, at most 256 KiB. It is answered when it is stored; what
became of it is at `GET /v1/deliveries/{id}`. Only 2xx means stored: repeat anything else, with the same `webhook-id`.
Fields that we don't know are ignored; events of an unknown `type` are accepted and ignored.
"""

_EVENT: Final = {
    "type": "remittance.completed",
    "timestamp": "2026-03-02T09:30:00Z",
    "data": {
        "remittance_id": "ACME-000123",
        "member": {"phone": "+971501234567"},
        "sent": {"amount": 50000, "currency": "AED"},
        "received": {"amount": 765432, "currency": "PHP"},
        "fee": {"amount": 1500, "currency": "AED"},
        "collected": {"amount": 38272, "currency": "PHP"},
        "origin_country": "AE",
        "destination_country": "PH",
        "completed_at": "2026-03-02T09:29:41Z",
        "quote_id": None,
    },
}


def _header(name: str, description: str, pattern: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
    }


_OPENAPI: Final[dict[str, Any]] = {
    "security": [],
    "parameters": [
        {
            "name": "slug",
            "in": "path",
            "required": True,
            "description": "the partner's address",
            "schema": {"type": "string"},
        },
        _header(
            "webhook-id", "the sender's id of the delivery, the same for every attempt", "^[!-~]{1,255}$"
        ),
        _header(
            "webhook-timestamp",
            "whole Unix seconds of this attempt, within 5 minutes of ours",
            "^[0-9]{1,12}$",
        ),
        _header(
            "webhook-signature", "`v1,` and base64 of HMAC-SHA-256; several separated by spaces", "^v1a?,.+$"
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EVENT}},
    },
}


def problem_response(description: str) -> dict[str, Any]:
    """A problem among a route's responses in the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    400: problem_response(
        "Authentic, but not strict JSON (`malformed_request`) or against the schema (`invalid_event`)."
    ),
    401: problem_response(
        "Not signed by an active partner (`signature_invalid`), or `timestamp_out_of_tolerance`."
    ),
    408: problem_response("The body did not arrive in time."),
    409: problem_response("The id was accepted with another event (`delivery_conflict`)."),
    413: problem_response("The body is over 256 KiB."),
    415: problem_response("The body has a Content-Encoding."),
    503: problem_response("Not stored now: send it again after `Retry-After`."),
}
