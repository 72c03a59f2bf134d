"""A partner's side of the hook: a real server in a thread, and deliveries signed by the independent library."""

import json
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import uvicorn
from fastapi import FastAPI
from standardwebhooks import Webhook
from starlette.types import ASGIApp

from api.connections import bounded
from api.hooks import Hooks
from api.problems import add_problems
from integrations.partners.secrets import create_secret
from integrations.partners.standard_webhooks import SymmetricSecret, sign
from ledger.clock import Clock
from ledger.database import Database
from ledger.ids import new_id
from products.keyring import Keyring
from products.remittances.partners import create_partner
from tests import planted


def completed(**data: object) -> dict[str, Any]:
    """A good event; `data` replaces fields."""
    return {
        "type": "remittance.completed",
        "timestamp": "2026-03-02T09:30:00Z",
        "data": {
            "remittance_id": "ACME-000123",
            "member": {"phone": planted.PHONE},
            "sent": {"amount": 50000, "currency": "AED"},
            "received": {"amount": 765432, "currency": "PHP"},
            "fee": {"amount": 1500, "currency": "AED"},
            "collected": {"amount": 38272, "currency": "PHP"},
            "origin_country": "AE",
            "destination_country": "PH",
            "completed_at": "2026-03-02T09:29:41Z",
            "quote_id": None,
        }
        | data,
    }


@dataclass(frozen=True, slots=True)
class Signer:
    """A partner that signs and sends."""

    id: UUID
    slug: str
    secret: str
    clock: Clock
    client: httpx.Client

    def headers(self, body: bytes, delivery_id: str) -> dict[str, str]:
        """The headers of one attempt, signed by the library `standardwebhooks` (by us what it can't sign: no text)."""
        now = self.clock.now()
        try:
            signature = Webhook(self.secret).sign(delivery_id, now, body.decode())
        except UnicodeDecodeError:
            signature = sign(
                SymmetricSecret(b64decode(self.secret.removeprefix("whsec_"))), delivery_id, now, body
            )
        return {
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }

    def send(self, event: object, delivery_id: str | None = None, **more: Any) -> httpx.Response:
        """Send an event (bytes: as they are), signed."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = self.headers(body, delivery_id or f"msg_{new_id()}") | more.pop("headers", {})
        return self.client.post(f"/hooks/{self.slug}", content=body, headers=headers, **more)


@dataclass(slots=True)
class World:
    """A running hook over one database."""

    hooks: Hooks
    database: Database
    keyring: Keyring
    clock: Clock
    client: httpx.Client
    woken: list[None] = field(default_factory=list)

    def partner(self, slug: str = "acme") -> Signer:
        """A new partner with a secret."""
        with self.database.begin() as tx:
            partner = create_partner(tx, slug=slug, name=slug, format_="standard", clock=self.clock)
            secret = create_secret(tx, self.keyring, self.clock, partner.id)
        return Signer(partner.id, slug, secret, self.clock, self.client)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query of the worker finds."""
        with self.database.begin() as tx:
            return [tuple(row) for row in tx.exec_driver_sql(query)]


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The base URL of `app`, served by uvicorn as in production, in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        # asyncio does not do it for a socket that was made elsewhere, and an answer in two writes then waits 40 ms
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,
            http=bounded(connections_max=20_000),
            loop="asyncio",
            log_level="warning",
            log_config=None,  # as in production: what it logs goes where all is watched
            lifespan="on",
            proxy_headers=False,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@contextmanager
def hooked(
    api: Database,
    worker: Database,
    keyring: Keyring,
    clock: Clock,
    publish: Callable[[], object] | None = None,
    in_front: bool = True,
    **limits: Any,
) -> Iterator[World]:
    """A world whose hook commits as the API's role; partners are created as the worker's."""
    woken: list[None] = []
    hooks = Hooks(api, keyring, clock, publish=publish or (lambda: woken.append(None)), **limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        async with hooks.running():
            yield

    app = FastAPI(lifespan=lifespan)
    add_problems(app)
    app.include_router(hooks.router)
    with (
        serving(hooks.in_front_of(app) if in_front else app) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield World(hooks, worker, keyring, clock, client, woken)
