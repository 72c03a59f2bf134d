"""`/metrics`: what the processes have counted, added up, and what the database says now, on a listener of its own."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from wsgiref.simple_server import WSGIServer

import redis
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from api.observability import payouts
from api.observability.metrics import MEASURED
from api.observability.state import HorizonWatch, State, look
from api.settings import Settings, reveal
from ledger.database import Database
from ledger.errors import Unavailable

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
FOLDER_PREFIX: Final = "mizan-metrics-"
SECONDS_BETWEEN_LOOKS: Final = 1.0
"""However often somebody scrapes, the database is asked no more often than this."""
VALKEY_SECONDS_MAX: Final = 0.5
QUEUE: Final = "mizan"


class MetricsUnavailable(Unavailable):
    """`/metrics` can't be listened on; the detail says why."""

    code = "serve_failed"


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for the counts of several processes, removed at the end of the block.

    A process counts into it when `FOLDER` named it in its environment before `prometheus_client` was imported.
    """
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def listening(settings: Settings, folder: Path | None = None) -> Iterator[str | None]:
    """Answer scrapes for the length of the block, if the settings name a port; the URL.

    Shows what was counted in `folder`, else in this process. Raises `MetricsUnavailable`.
    """
    if settings.metrics_port is None:
        yield None
        return
    gauges = Gauges(settings)
    registry = CollectorRegistry()
    if folder is not None:
        registry.register(_Together(folder))
    else:
        registry.register(REGISTRY)
    registry.register(gauges)
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        raise MetricsUnavailable(
            f"MIZAN_METRICS_PORT {settings.metrics_port} can't be listened on: {error.strerror}"
        ) from None
    try:
        yield _url(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        gauges.close()


def _url(server: WSGIServer) -> str:
    host, port = server.server_address[:2]
    return f"http://{f'[{host!s}]' if ':' in str(host) else str(host)}:{port}/metrics"


class _Together:
    """What all processes have counted; a process that was killed holds no connection any more."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is shows when it is collected."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Add up."""
        for file in Path(self._folder).glob("gauge_live*_*.db"):
            pid = file.stem.rpartition("_")[2]
            if pid.isdigit() and not _lives(int(pid)):
                mark_process_dead(int(pid), self._folder)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        added: Iterable[Metric] = MultiProcessCollector(None, self._folder).collect()  # type: ignore[no-untyped-call]  # as above
        return added


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Gauges:
    """Measures the database and the queue when somebody scrapes."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(
            reveal(settings.database_url_worker, "MIZAN_DATABASE_URL_WORKER"),
            application_name="mizan metrics",
            pool_size=1,
            pool_timeout_seconds=2,
            statement_timeout_ms=2_000,
        )
        self._valkey = redis.Redis.from_url(
            reveal(settings.redis_url, "MIZAN_REDIS_URL"),
            socket_timeout=VALKEY_SECONDS_MAX,
            socket_connect_timeout=VALKEY_SECONDS_MAX,
        )
        self._horizon = HorizonWatch()
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._last: list[Metric] = []

    def close(self) -> None:
        """Give back the connections."""
        self._database.close()
        self._valkey.close()

    def describe(self) -> Iterable[Metric]:
        """Names, without asking anybody."""
        return [GaugeMetricFamily(name, meaning) for name, meaning in MEASURED.items()]

    def collect(self) -> Iterable[Metric]:
        """Measure, or give what was measured a moment ago."""
        with self._lock:
            if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
                self._last = list(self._measure())
                self._looked_at = time.monotonic()
            return self._last

    def _measure(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("mizan_up", MEASURED["mizan_up"], labels=["part"])
        began = time.perf_counter()
        try:
            with self._database.begin() as tx:
                state = look(tx)
                paying = payouts.read(tx)
        except Exception:  # whatever the reason, there is nothing to show, and that is what is shown
            up.add_metric(["database"], 0)
        else:
            up.add_metric(["database"], 1)
            yield from self._shown(state, time.perf_counter() - began)
            yield from payouts.shown(paying)
        try:
            waiting = int(self._valkey.llen(QUEUE))
        except redis.RedisError:
            up.add_metric(["valkey"], 0)
        else:
            up.add_metric(["valkey"], 1)
            yield _gauge("mizan_queue_tasks", waiting)
        yield up

    def _shown(self, state: State, seconds: float) -> Iterator[Metric]:
        yield _gauge("mizan_scrape_seconds", seconds)
        yield _gauge("mizan_inbox_deliveries", state.inbox_deliveries)
        yield _gauge("mizan_inbox_oldest_seconds", state.inbox_seconds)
        attention = GaugeMetricFamily(
            "mizan_deliveries_attention", MEASURED["mizan_deliveries_attention"], labels=["state"]
        )
        attention.add_metric(["quarantined"], state.quarantined)
        attention.add_metric(["parked"], state.parked)
        yield attention
        yield _gauge("mizan_outbox_oldest_seconds", state.outbox_seconds)
        yield _gauge("mizan_settled_horizon_lag_seconds", self._horizon.lag_seconds(state))
        yield _gauge("mizan_seal_lag_seconds", state.unsealed_seconds)
        yield _gauge("mizan_fold_lag_seconds", state.unfolded_seconds)
        yield _gauge("mizan_events_unread_seconds", state.events_unread_seconds)
        yield _gauge("mizan_events_due_seconds", state.events_due_seconds)
        endpoints = GaugeMetricFamily("mizan_endpoints", MEASURED["mizan_endpoints"], labels=["state"])
        endpoints.add_metric(["enabled"], state.endpoints_enabled)
        endpoints.add_metric(["failing"], state.endpoints_failing)
        endpoints.add_metric(["disabled"], state.endpoints_disabled)
        yield endpoints
        warned = GaugeMetricFamily(
            "mizan_partner_warnings", MEASURED["mizan_partner_warnings"], labels=["kind"]
        )
        warned.add_metric(["exposure"], state.partners_near_ceiling)
        warned.add_metric(["prefund_low"], state.prefunds_low)
        yield warned
        yield _gauge("mizan_settlements_unpaired_seconds", state.settlements_seconds)


def _gauge(name: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, MEASURED[name], value=value or 0)
