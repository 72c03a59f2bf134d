"""`hooks`: signed deliveries acknowledged after their commit, beside a bare route that only reads and checks the HMAC.

One API process as in production (uvicorn, uvloop, httptools), embedded PostgreSQL and Valkey, and a generator in a process
of its own that signs everything before the clock starts. Rounds of the two are interleaved.
"""

import asyncio
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Final

import aiohttp
import psutil
import psycopg
import uvicorn
from fastapi import FastAPI, Request
from starlette.types import ASGIApp

from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.connections import bounded
from api.hooks import Hooks
from api.middleware import Edge
from api.problems import add_problems
from api.worker import wake_up_publisher
from integrations.partners.secrets import create_secret
from integrations.partners.standard_webhooks import SymmetricSecret, parse_secret, sign
from ledger.clock import SystemClock
from ledger.database import Database
from ledger.ids import new_id
from products.keyring import Keyring
from products.remittances.partners import create_partner

CONNECTIONS: Final = 64
DELIVERIES: Final = 10_000
WARM_UP: Final = 1_000
_DATABASE, _BROKER, _KEY, _SECRET = "BENCH_DATABASE", "BENCH_BROKER", "BENCH_KEY", "BENCH_SECRET"


@dataclass(frozen=True, slots=True)
class Size:
    """How much one round sends."""

    deliveries: int = DELIVERIES
    warm_up: int = WARM_UP


def run(rounds: int, size: Size | None = None) -> Report:
    """Deliveries acknowledged per second, the hook beside a bare FastAPI route."""
    how_many = size or Size()
    with temporary_servers() as servers:
        key = os.urandom(32)
        worker = Database(servers.url("mizan_worker"), application_name="bench")
        with worker.begin() as tx:
            partner = create_partner(tx, slug="bench", name="Bench", format_="standard", clock=SystemClock())
            secret = create_secret(tx, Keyring.of(key), SystemClock(), partner.id)
        worker.close()
        environment = {
            _DATABASE: servers.url("mizan_api"),
            _BROKER: servers.settings.broker_url,
            _KEY: key.hex(),
            _SECRET: secret,
        }
        with _serving("hook", environment) as hook, _serving("bare", environment) as bare:
            for target in (hook, bare):
                _generate(target, how_many.warm_up, environment)
            measured = [_round(hook, bare, how_many.deliveries, environment) for _ in range(rounds)]
        with psycopg.connect(libpq(servers.superuser_url)) as connection:
            (stored,) = connection.execute("SELECT count(*) FROM integrations.delivery").fetchone() or (0,)
        if stored != how_many.warm_up + rounds * how_many.deliveries:
            raise RuntimeError(f"acknowledged and stored differ: {stored} are stored")
        return Report("hooks", medians(measured), machine(libpq(servers.superuser_url)))


@dataclass(frozen=True, slots=True)
class _Target:
    port: int
    process: psutil.Process


def _round(hook: _Target, bare: _Target, deliveries: int, environment: dict[str, str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, target in (("bare_", bare), ("", hook)):
        before = sum(target.process.cpu_times()[:2])
        answer = _generate(target, deliveries, environment)
        cpu = sum(target.process.cpu_times()[:2]) - before
        figures[f"{name}deliveries_per_second"] = deliveries / answer["seconds"]
        figures[f"{name}p50_milliseconds"] = answer["p50"] * 1e3
        figures[f"{name}p99_milliseconds"] = answer["p99"] * 1e3
        figures[f"{name}server_cpu_microseconds"] = cpu / deliveries * 1e6
        figures[f"{name}errors"] = answer["errors"]
    return figures | {"ratio": figures["deliveries_per_second"] / figures["bare_deliveries_per_second"]}


@contextmanager
def _serving(name: str, environment: dict[str, str]) -> Iterator[_Target]:
    """One API process on a port of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        server = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "api.bench.hooks", "serve", name, str(listener.fileno())],
            env=os.environ | environment,
            pass_fds=[listener.fileno()],
        )
        try:
            yield _Target(listener.getsockname()[1], psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait(30)


def _generate(target: _Target, deliveries: int, environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603  our own module
        [sys.executable, "-m", "api.bench.hooks", "generate", str(target.port), str(deliveries)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


# -- the server's process -----------------------------------------------------------------------------------------


def hook_app() -> ASGIApp:
    """The hook, under the edge that every request of the API passes."""
    keyring = Keyring.of(bytes.fromhex(os.environ[_KEY]))
    database = Database(os.environ[_DATABASE], application_name="bench api")
    hooks = Hooks(database, keyring, SystemClock(), publish=wake_up_publisher(os.environ[_BROKER]))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with hooks.running():
            yield

    app = FastAPI(lifespan=lifespan)
    add_problems(app)
    app.include_router(hooks.router)
    return Edge(hooks.in_front_of(app), environment="sandbox", body_bytes_max=1024 * 1024)


def bare_app() -> ASGIApp:
    """What the hook is measured against: FastAPI, the body, its HMAC, nothing kept."""
    key = b64decode(os.environ[_SECRET].removeprefix("whsec_"))
    app = FastAPI()

    @app.post("/hooks/{slug}", status_code=202)
    async def receive(slug: str, request: Request) -> dict[str, object]:
        body = await request.body()
        headers = request.headers
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        given = b64decode(headers["webhook-signature"].removeprefix("v1,"))
        if not hmac.compare_digest(hmac.digest(key, content, hashlib.sha256), given):
            raise ValueError(slug)
        return {"id": slug, "duplicate": False}

    return app


def _serve(name: str, descriptor: int) -> None:
    app = {"hook": hook_app, "bare": bare_app}[name]()
    http = bounded(CONNECTIONS * 2) if name == "hook" else "httptools"  # as `api.serving` has it
    uvicorn.run(app, fd=descriptor, loop="uvloop", http=http, access_log=False, log_level="warning")


# -- the generator's process --------------------------------------------------------------------------------------


async def _send_all(port: int, deliveries: int) -> dict[str, float]:
    prepared = iter(_prepared(deliveries))
    latencies: list[float] = []
    errors = 0

    async def send_from_one_connection(session: aiohttp.ClientSession) -> None:
        nonlocal errors
        for headers, body in prepared:
            began = time.perf_counter()
            async with session.post("/hooks/bench", data=body, headers=headers) as answer:
                await answer.read()
                errors += answer.status != 202
            latencies.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        began = time.perf_counter()
        await asyncio.gather(*(send_from_one_connection(session) for _ in range(CONNECTIONS)))
        seconds = time.perf_counter() - began
    cuts = quantiles(latencies, n=100)
    return {"seconds": seconds, "p50": cuts[49], "p99": cuts[98], "errors": errors}


def _prepared(deliveries: int) -> list[tuple[dict[str, str], bytes]]:
    secret = parse_secret(os.environ[_SECRET])
    if not isinstance(secret, SymmetricSecret):
        raise TypeError("the benchmark signs with a symmetric secret")
    now = SystemClock().now()
    prepared = []
    for number in range(deliveries):
        delivery_id = f"msg_{new_id()}"
        body = json.dumps(_event(delivery_id, number)).encode()
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": sign(secret, delivery_id, now, body),
        }
        prepared.append((headers, body))
    return prepared


def _event(name: str, number: int) -> dict[str, Any]:
    return {
        "type": "remittance.completed",
        "timestamp": "2026-03-02T09:30:00Z",
        "data": {
            "remittance_id": name,
            "member": {"phone": f"+9715{number % 10_000_000:08d}"},
            "sent": {"amount": 50_000, "currency": "AED"},
            "received": {"amount": 765_432, "currency": "PHP"},
            "fee": {"amount": 1_500, "currency": "AED"},
            "collected": {"amount": 38_272, "currency": "PHP"},
            "origin_country": "AE",
            "destination_country": "PH",
            "completed_at": "2026-03-02T09:29:41Z",
            "quote_id": None,
        },
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["generate"]:
        print(json.dumps(asyncio.run(_send_all(int(sys.argv[2]), int(sys.argv[3])))))
    else:
        command(run, rounds=5)
