"""A partner's endpoint on loopback: a real HTTP server that keeps what it was sent, and answers as it is told."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Got:
    """One request that arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its ``webhook-id``."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """What it says."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request is answered: after `seconds` and once it is `time`, with a status."""

    status: int = 204
    seconds: float = 0.0
    time: Callable[[], bool] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Receiver:
    """A running endpoint; `reply` may be changed while it runs."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    reply: Callable[[Got], Reply] = lambda _: Reply()

    @property
    def ids(self) -> list[str]:
        """The ids in the order in which they arrived."""
        return [one.id for one in self.got]

    async def take(self, request: web.Request) -> web.Response:
        """Keep a request, and answer it."""
        one = Got(
            request.path,
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        self.got.append(one)
        reply = self.reply(one)
        if reply.seconds:
            await asyncio.sleep(reply.seconds)
        while reply.time is not None and not reply.time():
            await asyncio.sleep(0.01)
        return web.Response(status=reply.status, headers=dict(reply.headers))


@contextmanager
def receiving(
    reply: Callable[[Got], Reply] = lambda _: Reply(), tls: SSLContext | None = None
) -> Iterator[Receiver]:
    """Serve an endpoint on a free port of 127.0.0.1, in a thread of its own."""
    receiver = Receiver(reply=reply)
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        receiver.url = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{port}/events"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        asyncio.run_coroutine_threadsafe(_end(runner), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(runner: web.AppRunner) -> None:
    """Stop serving, also what is still being answered."""
    await runner.cleanup()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
