"""`api`: authenticated reads of a member's balances, beside a bare route that checks the same token and reads one row.

One API process each, as in production (`api.serving`: uvicorn, uvloop, httptools), embedded PostgreSQL and Valkey, and a
generator in a process of its own with 32 connections. Rounds of the two are interleaved. Then each step of a read is
timed by itself in one thread, and shown as its share of a read over one connection; what is left is HTTP, routing,
threads and the way through the operating system.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import cycle
from statistics import quantiles
from typing import Final, TypeVar
from uuid import UUID

import aiohttp
import psutil
from fastapi import FastAPI, HTTPException, Request
from sqlalchemy import text

from api.auth import clients, standing
from api.auth.tokens import InvalidToken
from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.bootstrap import Services, bootstrap
from api.migrations.run import migrate
from api.serving import run_api
from api.settings import Environment, Settings, load
from api.v1.balances import rendered
from ledger.database import Database, Tx
from ledger.ids import new_id, parse_public_id, public_id
from ledger.money import Money
from products.facts import Fact
from products.members import registry
from products.members.enrolments import Joining, enrol_many
from products.members.models import AccountHolder, NewMandate, Registration
from products.programmes.loader import catalogue
from products.programmes.registry import apply
from products.remittances.context import Books
from products.remittances.events import MemberKey, RemittanceCompleted
from products.remittances.partners import create_partner, join_programme
from products.remittances.process import Delivery, process
from products.savings.queries import MemberBalances, member_balances
from products.savings.sponsors import fund_sponsor

T = TypeVar("T")

CONNECTIONS: Final = 32
SECONDS_MAX: Final = 20
"""A read that takes longer ends the run: its process did not start."""
_TOKEN, _MEMBERS = "BENCH_TOKEN", "BENCH_MEMBERS"
_SETTINGS: Final = {"requests_per_minute": 10_000_000, "log_level": "warning"}


@dataclass(frozen=True, slots=True)
class Size:
    """How many members are read, how often in a round, and how often each step is timed."""

    members: int = 500
    remittances: int = 3
    reads: int = 3_000
    warm_up: int = 300
    steps: int = 300


def run(rounds: int, size: Size | None = None) -> Report:
    """Balance reads per second, the API beside a bare FastAPI route."""
    how_many = size or Size()
    with temporary_servers() as servers:
        migrate(servers.settings)  # stamps it: the API starts on no other
        settings = servers.settings.model_copy(update=_SETTINGS)
        services = bootstrap(settings, name="bench")
        try:
            token, members = _world(services, how_many)
            environment = settings.variables() | {_TOKEN: token, _MEMBERS: ",".join(members)}
            with _serving("mizan", environment) as mizan, _serving("bare", environment) as bare:
                for target in (mizan, bare):
                    _generate(target, how_many.warm_up, CONNECTIONS, environment)
                measured = [_round(mizan, bare, how_many, environment) for _ in range(rounds)]
                alone = [_generate(mizan, how_many.steps, 1, environment)["p50"] * 1e6 for _ in range(rounds)]
            steps = [_steps(services, token, members, how_many.steps) for _ in range(rounds)]
            for figures, whole, step in zip(measured, alone, steps, strict=True):
                figures["alone_microseconds"] = whole
                figures |= {f"{name}_microseconds": value for name, value in step.items()}
                figures |= {f"{name}_share": value / whole for name, value in step.items()}
                figures["rest_share"] = max(0.0, 1 - sum(step.values()) / whole)
        finally:
            services.close()
        return Report("api", medians(measured), machine(libpq(servers.superuser_url)))


def _world(services: Services, size: Size) -> tuple[str, list[str]]:
    """A guaranteed partner of EjoHeza with members who have saved: its token, and their ``mem_`` ids."""
    clock, books, now = services.clock, services.books, services.clock.now()
    facts = (Fact("income_category", 1, date(2020, 1, 1), now, "institution"),)
    born = date(1990, 5, 1)
    with services.worker.begin() as tx:
        programme = apply(tx, catalogue()["ejoheza"], clock=clock).programme_id
        partner = create_partner(tx, slug="bench", name="Bench", format_="standard", clock=clock)
        join_programme(tx, partner, programme, terms="guaranteed", collection="as_reported", clock=clock)
        fund_sponsor(tx, books, programme="ejoheza", sponsor="gov-rw", amount=10**12, reference="bench")
        client = clients.create_client(
            tx, name="bench", partner_id=partner.id, environment=Environment.SANDBOX, at=now
        )
        people = [
            Registration(
                phone=f"+25078{number:07d}",
                partner_reference=f"A-{number}",
                birth_date=born,
                sex="female",
                origin_country="RW",
                residence_country="AE",
                facts=facts,
                mandate=NewMandate("2026-1", "rw", now - timedelta(days=1)),
            )
            for number in range(size.members)
        ]
        registered = registry.register_many(tx, services.keyring, programme, partner.id, people, now)
        joining = [Joining(one.member_id, partner.id, born, facts, "savings") for one in registered]
        enrol_many(tx, books.programmes, programme, joining, now)
    members = [public_id("mem", one.link_id) for one in registered]
    for round_number in range(size.remittances):
        _remit(services.worker, books, partner.id, members, round_number)
    with services.api.begin() as tx:
        granted = clients.find(tx, client.client_id)
    if granted is None:
        raise RuntimeError("the client is active")
    token = services.tokens.issue(
        subject=granted.client_id, client_id=granted.client_id, scopes=granted.scopes
    )
    return token, members


def _remit(worker: Database, books: Books, partner: UUID, members: list[str], round_number: int) -> None:
    now = books.clock.now()
    deliveries = [
        Delivery(
            new_id(),
            partner,
            RemittanceCompleted(
                remittance_id=f"B-{round_number}-{number}",
                member=MemberKey("id", member),
                sent=Money(100_000, "AED"),
                received=Money(400_000, "RWF"),
                fee=None,
                collected=Money(20_000, "RWF"),
                origin_country="AE",
                destination_country="RW",
                completed_at=now - timedelta(minutes=1),
                quote_id=None,
            ),
            False,
        )
        for number, member in enumerate(members)
    ]
    verdicts = worker.run(lambda tx: process(tx, deliveries, books=books))
    if {verdict.state for verdict in verdicts} != {"posted"}:
        raise RuntimeError("the remittances are not all posted")


@dataclass(frozen=True, slots=True)
class _Target:
    port: int
    path: str
    process: psutil.Process


def _round(mizan: _Target, bare: _Target, size: Size, environment: dict[str, str]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, target in (("bare_", bare), ("", mizan)):
        before = sum(target.process.cpu_times()[:2])
        answer = _generate(target, size.reads, CONNECTIONS, environment)
        cpu = sum(target.process.cpu_times()[:2]) - before
        figures[f"{name}reads_per_second"] = size.reads / answer["seconds"]
        figures[f"{name}p50_milliseconds"] = answer["p50"] * 1e3
        figures[f"{name}p99_milliseconds"] = answer["p99"] * 1e3
        figures[f"{name}server_cpu_microseconds"] = cpu / size.reads * 1e6
        figures[f"{name}errors"] = answer["errors"]
    return figures | {"ratio": figures["reads_per_second"] / figures["bare_reads_per_second"]}


@contextmanager
def _serving(name: str, environment: Mapping[str, str]) -> Iterator[_Target]:
    """One API process on a port of its own."""
    path = {"mizan": "/v1/members/{}/balances", "bare": "/{}"}[name]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        server = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "api.bench.api", "serve", name, str(listener.fileno())],
            env=os.environ | environment,
            pass_fds=[listener.fileno()],
        )
        try:
            yield _Target(listener.getsockname()[1], path, psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait(60)


def _generate(
    target: _Target, reads: int, connections: int, environment: Mapping[str, str]
) -> dict[str, float]:
    arguments = [str(target.port), target.path, str(reads), str(connections)]
    done = subprocess.run(  # noqa: S603  our own module
        [sys.executable, "-m", "api.bench.api", "generate", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


# -- the steps, each by itself ------------------------------------------------------------------------------------


def _steps(services: Services, token: str, members: list[str], times: int) -> dict[str, float]:
    """The median microseconds of each step of a read, in one thread."""
    spent: dict[str, list[float]] = {}

    def step(name: str, work: Callable[..., T], *arguments: object) -> T:
        began = time.perf_counter()
        made = work(*arguments)
        spent.setdefault(name, []).append((time.perf_counter() - began) * 1e6)
        return made

    for _, member in zip(range(times), cycle(members), strict=False):
        claims = step("token_check", services.tokens.check, token)
        opened = services.api.begin()
        # the first statement sends the BEGIN too
        tx = step("transaction_begin", _begun, opened)
        stands = step("standing_and_row_level_security", standing.of, tx, claims, services.clock.now())
        if stands is None:
            raise RuntimeError("the token holds")
        step("rate_limit", services.limits.by_client, stands.client.client_id)
        link = parse_public_id("mem", member)
        person = step(
            "member", registry.find_account_holder, tx, services.keyring, link, services.clock.now()
        )
        shown = step("balances", _balances, services, tx, person)
        step("rendering", lambda person, shown: rendered(person, shown).model_dump_json(), person, shown)
        step("transaction_end", opened.__exit__, None, None, None)
    return {name: statistics.median(values) for name, values in spent.items()}


def _begun(opened: AbstractContextManager[Tx]) -> Tx:
    tx = opened.__enter__()
    tx.exec_driver_sql("SELECT 1")
    return tx


def _balances(services: Services, tx: Tx, person: AccountHolder) -> MemberBalances:
    today = services.clock.now().date()
    return member_balances(tx, services.books.programmes, person, today=today)


# -- the servers' processes ---------------------------------------------------------------------------------------


def bare_app(settings: Settings) -> FastAPI:
    """What the API is measured against: FastAPI, the same token checked, one row by its primary key."""
    services = bootstrap(settings, name="bench bare")
    app = FastAPI()

    @app.get("/{member}")
    def read(member: str, request: Request) -> dict[str, object]:
        try:
            services.tokens.check(request.headers["authorization"].removeprefix("Bearer "))
        except InvalidToken as error:
            raise HTTPException(401) from error
        with services.worker.begin() as tx:
            row = tx.execute(
                text("SELECT id, linked_at FROM products.member_link WHERE id = :id"),
                {"id": parse_public_id("mem", member)},
            ).one()
        return {"id": str(row.id), "linked_at": row.linked_at}

    return app


def _serve(name: str, descriptor: int) -> None:
    settings = load(_env_file=None)
    listener = socket.socket(fileno=descriptor)
    if name == "mizan":
        run_api(settings, listener)
    else:
        import uvicorn

        config = uvicorn.Config(bare_app(settings), access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])


# -- the generator's process --------------------------------------------------------------------------------------


async def _read_all(port: int, path: str, reads: int, connections: int) -> dict[str, float]:
    members = cycle(os.environ[_MEMBERS].split(","))
    headers = {"Authorization": f"Bearer {os.environ[_TOKEN]}"}
    left = iter(range(reads))
    latencies: list[float] = []
    errors = 0

    async def read_on_one_connection(session: aiohttp.ClientSession) -> None:
        nonlocal errors
        for _ in left:
            began = time.perf_counter()
            async with session.get(path.format(next(members)), headers=headers) as answer:
                await answer.read()
                errors += answer.status != 200
            latencies.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=SECONDS_MAX)
    base = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(base, connector=connector, timeout=timeout) as session:
        began = time.perf_counter()
        await asyncio.gather(*(read_on_one_connection(session) for _ in range(connections)))
        seconds = time.perf_counter() - began
    cuts = quantiles(latencies, n=100)
    return {"seconds": seconds, "p50": cuts[49], "p99": cuts[98], "errors": errors}


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["generate"]:
        port, path, reads, connections = sys.argv[2:6]
        print(json.dumps(asyncio.run(_read_all(int(port), path, int(reads), int(connections)))))
    else:
        command(run, rounds=3)
