"""The whole system as processes over servers that may be killed: API, workers and beat, watched as `mizan serve` does."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil

from api import serving
from api.bootstrap import Services, bootstrap
from api.embedded import EmbeddedServers
from api.jobs import fold_and_seal_all
from api.seal_key import sealing_key
from api.serving import Role, Serving
from api.settings import Settings
from ledger.clock import FixedClock, SystemClock
from ledger.report import Report
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from tests.conftest import Databases, databases_of, settings_of
from tests.world import World

COMES_BACK_SECONDS_MAX = 60.0


def eventually(condition: Callable[[], bool], what: str, seconds: float = COMES_BACK_SECONDS_MAX) -> None:
    """Wait until something has come about."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"within {seconds:.0f} s it never came about that {what}"
        time.sleep(0.05)


@dataclass(slots=True)
class System:
    """The running processes over one database, and the world that the test puts into it."""

    servers: EmbeddedServers
    databases: Databases
    settings: Settings
    services: Services
    world: World
    serving: Serving

    @property
    def url(self) -> str:
        """Where the API listens."""
        return self.serving.url

    def kill(self, role: Role) -> None:
        """SIGKILL a process of ours, and wait until it has been started again."""
        before = self.serving.pid(role)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.serving.pid(role) != before, f"{role} was started again")

    def kill_worker_children(self) -> None:
        """SIGKILL every process that Celery has forked, as soon as there are any."""
        worker = psutil.Process(self.serving.pid("worker"))
        eventually(lambda: worker.children() != [], "the worker had forked its processes")
        for child in worker.children():
            child.kill()

    @contextmanager
    def worker_stopped(self) -> Iterator[None]:
        """Nobody works for the length of the block (SIGSTOP), so that much waits at its end."""
        group = self.serving.pid("worker")
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds, as the worker's role."""
        with self.databases.worker.begin() as tx:
            return [tuple(row) for row in tx.exec_driver_sql(query)]

    def queued(self) -> int:
        """How many deliveries wait for a worker."""
        return int(self.rows("SELECT count(*) FROM integrations.delivery_queue")[0][0])

    def prove(self) -> Report:
        """Fold, seal and verify everything, beside the schedule."""
        fold_and_seal_all(
            self.databases.worker, self.databases.sealer, sealing_key(self.settings), SystemClock()
        )
        with self.databases.auditor.read() as tx:
            return verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])


@contextmanager
def running_system(servers: EmbeddedServers, name: str) -> Iterator[System]:
    """Start everything on a fresh database of these servers, and end it in order.

    The schedule is quicker than in earnest, and batches are smaller, so that a kill hits many of them.
    """
    servers.create_database(name, "mizan")
    databases = databases_of(servers, name)
    settings = settings_of(servers, databases, servers.redis_url).model_copy(
        update={"sweep_seconds": 0.5, "fold_seconds": 1.0, "seal_seconds": 1.0, "worker_batch_max": 100}
    )
    services = bootstrap(settings, name="test")
    world = World(databases, FixedClock(SystemClock().now() - timedelta(minutes=1)))
    world.books = services.books
    children = Serving(settings, serving.listen("127.0.0.1", 0))
    asked = threading.Event()
    watcher = threading.Thread(target=children.wait, args=(asked,), name="serve")
    try:
        children.start()
        watcher.start()
        yield System(servers, databases, settings, services, world, children)
    finally:
        asked.set()
        if watcher.ident is not None:
            watcher.join()
        children.stop()
        services.close()
        databases.close()
