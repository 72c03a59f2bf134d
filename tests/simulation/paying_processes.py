"""Payouts to wallets by real processes: the provider, the API that takes its callbacks, and workers that may be killed at any moment."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

import httpx

from api import serving
from api.bootstrap import Services, bootstrap
from api.embedded import EmbeddedServers
from api.serving import Serving
from api.settings import Settings
from integrations.rails.configured import keep_secrets
from integrations.rails.directory import validated
from integrations.rails.work import Pace, RailWork
from ledger.clock import FixedClock, SystemClock
from ledger.errors import MizanError
from products.payouts import funding, registry
from products.payouts.approve import Approval, approve_many
from products.payouts.registry import ConfiguredRail, NewRail
from products.payouts.request import NewPayout, request_many
from products.payouts.terms import Arrival, Fee, Limits
from products.programmes.registry import Programmes
from products.remittances.context import Books
from tests.conftest import databases_of, settings_of
from tests.integration.payouts.paying import Paying
from tests.integration.rails.gsma_books import Rule
from tests.integration.rails.gsma_world import options, secrets
from tests.world import Person

Job = Literal["submit", "ask"]

SLUG: Final = "momo"
FEE: Final = 10
"""What the member bears of each payout, minor units."""
TOP_UP: Final = 1_000_000_000
QUEUE_MAX: Final = 150
TOGETHER: Final = 500
PACE: Final = Pace(
    seconds_max=1.0,
    lease=timedelta(seconds=1),
    open_for=timedelta(seconds=0.5),
    probe_lease=timedelta(seconds=1),
)
"""Impatient, so that what a killed worker leaves is looked after within the test."""
_Item = TypeVar("_Item")
_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.simulation.paying_processes"])


def work(settings: Settings, jobs: Sequence[Job], ready: Connection) -> None:
    """A worker's process: these jobs of the rails, again and again, until it is killed."""
    services = bootstrap(settings, name="payouts")
    rails = RailWork(services.worker, services.books, services.rails, PACE)
    todo = {"submit": rails.submit, "ask": rails.ask}
    ready.send(True)
    while True:
        if not sum(todo[job]() for job in jobs):
            time.sleep(0.03)


@dataclass(slots=True)
class Provider:
    """The process of the provider, and its control door."""

    process: subprocess.Popen[str]
    url: str
    control: str

    def does(self, *rules: Rule) -> None:
        """Misbehave by these rules from now on."""
        self._post("rules", [asdict(rule) for rule in rules])

    def settle(self) -> None:
        """Bring to its outcome what is pending."""
        self._post("settle")

    def down(self) -> None:
        """Close the port."""
        self._post("down")

    def up(self) -> None:
        """Open it again."""
        self._post("up")

    def payments(self) -> list[dict[str, Any]]:
        """The provider's own list, whole: also what it never made."""
        listed: list[dict[str, Any]] = httpx.get(f"{self.control}/payments", timeout=30).json()
        return listed

    def asked_to_pay(self) -> int:
        """How many requests to pay it has read, whatever became of them."""
        requests = httpx.get(f"{self.control}/requests", timeout=30).json()
        return sum(method == "POST" for method, _ in requests)

    def _post(self, what: str, body: object = None) -> None:
        httpx.post(f"{self.control}/{what}", json=body, timeout=30).raise_for_status()


@contextmanager
def provider_process(book: Path, seed: int) -> Iterator[Provider]:
    """A provider with a durable book."""
    arguments = ["--book", str(book), "--seed", str(seed)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.rails.gsma_simulator", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Provider(process, **json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.communicate(timeout=20)


@dataclass(slots=True)
class Workers:
    """Processes that work, and how they were ended."""

    settings: Settings
    running: list[BaseProcess] = field(default_factory=list)
    killed: int = 0
    frozen: int = 0

    def start(self, *jobs: Job, settings: Settings | None = None) -> BaseProcess:
        """Another one."""
        heard, ready = _PROCESSES.Pipe(duplex=False)
        process = _PROCESSES.Process(
            target=work, args=(settings or self.settings, jobs or ("submit", "ask"), ready), daemon=True
        )
        process.start()
        with heard, ready:
            assert heard.poll(60), "a worker never came to its work"
        self.running.append(process)
        return process

    def kill(self, process: BaseProcess) -> None:
        """SIGKILL; it must not have ended by itself."""
        assert process.exitcode is None, f"a worker ended with {process.exitcode}"
        process.kill()
        process.join()
        self.running.remove(process)
        self.killed += 1

    def freeze(self, process: BaseProcess, seconds: float) -> None:
        """Nothing of it moves for a while (SIGSTOP); then it goes on where it was, although others took over meanwhile."""
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGCONT)
        self.frozen += 1

    def end(self) -> None:
        """Kill whoever is left."""
        for process in list(self.running):
            self.kill(process)

    @contextmanager
    def killed_at_random(self, count: int, seed: int) -> Iterator[None]:
        """So many work for the length of the block; all the time one of them is killed and another started, some are frozen."""
        for _ in range(count):
            self.start()
        ends = threading.Event()
        drawn = random.Random(seed)

        def disturb() -> None:
            while not ends.wait(drawn.uniform(0.1, 0.6)):
                victim = drawn.choice(self.running)
                if drawn.random() < 0.1:
                    self.freeze(victim, PACE.lease.total_seconds() * drawn.uniform(0.5, 2))
                else:
                    self.kill(victim)
                    self.start()

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        try:
            yield
        finally:
            ends.set()
            disturbing.join()


@dataclass(slots=True)
class Payouts:
    """Everything that runs, and the members who are paid."""

    paying: Paying
    services: Services
    settings: Settings
    provider: Provider
    rail: ConfiguredRail
    workers: Workers
    url: str
    people: list[tuple[Person, UUID]] = field(default_factory=list)
    made: list[UUID] = field(default_factory=list)

    def approved(self, count: int) -> list[UUID]:
        """So many payouts, each of an amount of its own, spread over the members: asked for and approved, in sets."""
        first = len(self.made)
        asked = []
        for number in range(first, first + count):
            person, payee = self.people[number % len(self.people)]
            asked.append(
                NewPayout(person.link_id, payee, 1_000 + number, "RWF", "savings", "test", rail=SLUG)
            )
        ids = [_taken(answer) for these in _sets(asked) for answer in self._ask(these)]
        self.made += ids
        approvals = [
            Approval(id_, one.link_id, one.payee_id, one.amount, FEE, "RWF", False, None)
            for id_, one in zip(ids, asked, strict=True)
        ]
        assert not [refused for these in _sets(approvals) for refused in self._approve(these) if refused]
        return ids

    def _ask(self, asked: Sequence[NewPayout]) -> list[UUID | MizanError]:
        return self.services.worker.run(lambda tx: request_many(tx, self.services.books, asked))

    def _approve(self, approvals: Sequence[Approval]) -> list[MizanError | None]:
        return self.services.worker.run(lambda tx: approve_many(tx, self.services.books, approvals))

    def states(self, payouts: Sequence[UUID] = ()) -> dict[str, int]:
        """How many payouts are in each state; of all, if none are named."""
        rows = self.paying.rows(
            "SELECT state, count(*) AS many FROM products.payout WHERE id = ANY (%s::uuid[]) GROUP BY 1",
            list(payouts or self.made),
        )
        return {row["state"]: row["many"] for row in rows}

    def queued(self) -> int:
        """How many wait for the rail."""
        return self.states().get("approved", 0)

    def breaker(self) -> dict[str, Any]:
        """The rail's breaker."""
        (row,) = self.paying.rows("SELECT * FROM products.rail_breaker WHERE rail_id = %s", self.rail.id)
        return row

    def under_way(self) -> int:
        """How many have no last word yet."""
        return sum(
            many for state, many in self.states().items() if state not in ("paid", "failed", "returned")
        )


def _sets(items: Sequence[_Item]) -> list[Sequence[_Item]]:
    return [items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER)]


def _taken(answer: UUID | MizanError) -> UUID:
    if isinstance(answer, MizanError):
        raise answer
    return answer


def payee_number(place: int) -> str:
    """The wallet that the so-many-th member's payouts go to."""
    return f"+25078812{1000 + place}"


def _fund_members(paying: Paying, count: int, saved: int) -> list[tuple[Person, UUID]]:
    """Members with settled savings, and a payee each that is in effect."""
    people = [paying.person(number, saved=saved) for number in range(count)]
    payees = [
        paying.payee(person, ending=payee_number(place)[-4:], waited=False)
        for place, person in enumerate(people)
    ]
    paying.clock.advance(timedelta(hours=72))
    return list(zip(people, payees, strict=True))


@contextmanager
def paying_processes(
    servers: EmbeddedServers, folder: Path, *, members: int, saved: int, seed: int
) -> Iterator[Payouts]:
    """A provider and an API that takes its callbacks, over a fresh database of these servers; no worker yet."""
    servers.create_database("payouts_killed", "mizan")
    databases = databases_of(servers, "payouts_killed")
    listener = serving.listen("127.0.0.1", 0)
    host, port = listener.getsockname()[:2]
    settings = settings_of(servers, databases, servers.redis_url).model_copy(
        update={"public_url": f"http://{host}:{port}", "metrics_port": None}
    )
    services = bootstrap(settings, name="test")
    paying = Paying.on(databases, FixedClock(SystemClock().now() - timedelta(days=5)))
    paying.world.books = Books(paying.clock, services.keyring, Programmes())
    people = _fund_members(paying, members, saved)
    children = Serving(settings, listener, roles=("api",))
    with ExitStack() as stack:
        stack.callback(databases.close)
        stack.callback(services.close)
        provider = stack.enter_context(provider_process(folder / "provider.jsonl", seed))
        rail = _rail(paying, services, provider)
        workers = Workers(settings)
        stack.callback(children.stop, hurry=threading.Event())
        stack.callback(workers.end)
        children.start()
        yield Payouts(paying, services, settings, provider, rail, workers, children.url, people)


def _rail(paying: Paying, services: Services, provider: Provider) -> ConfiguredRail:
    kept, keys = validated(
        "mobile_money",
        options(provider.url, timeout_seconds=0.8, asks_after_seconds=0.1, forgets_after_seconds=1.5),
        secrets(),
    )
    new = NewRail(
        slug=SLUG,
        kind="mobile_money",
        payee_kinds=("mobile_money",),
        checks_payees=False,
        funded="float",
        fee=Fee(FEE, 0, "member"),
        arrival=Arrival("minutes", 0, 5, ()),
        limits=Limits(
            amount_min=FEE + 1,
            amount_max=None,
            per_member_day=None,
            per_day=None,
            release_above=None,
            queue_max=QUEUE_MAX,
        ),
        options=kept,
    )
    with services.worker.begin() as tx:
        rail = registry.create(tx, paying.world.programmes["ejoheza"], new, clock=services.clock)
        keep_secrets(tx, services.keyring, services.clock, rail.id, keys)
        funding.top_up(tx, services.books, rail, TOP_UP, reference="first")
    return rail
