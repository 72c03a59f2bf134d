"""What Mizan counts and times, by name: the catalogue that the code increments and the reference is made from.

Labels take few, fixed values: routes as they are declared, states, budgets. Never an id, an address or anything of a
person. Several processes count into the files of one folder (PROMETHEUS_MULTIPROC_DIR, which `mizan serve` and `mizan
worker` set before anything is imported); `api.observability.scrape` adds them up.
"""

import sys
import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from sqlalchemy import event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.observability import payouts
from integrations.outbound.attempts import Attempted
from ledger.database import Database, Tx
from products.remittances.process import Delivery, Verdict

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS: Final = Histogram(
    "mizan_request_seconds",
    "Requests by declared route, method and class of status: how many, and how long each took to its last byte.",
    ["route", "method", "status"],
    buckets=_SECONDS,
)
HOOKS: Final = Counter(
    "mizan_hook_answers", "Deliveries answered by the hook, by what the answer means.", ["outcome"]
)
PROCESSED: Final = Counter(
    "mizan_deliveries_processed", "Deliveries that workers have decided, by their state.", ["state"]
)
TASKS: Final = Histogram(
    "mizan_task_seconds",
    "The workers' tasks by name and outcome: how many, and how long each took.",
    ["task", "outcome"],
    buckets=(*_SECONDS, 30, 60, 300),
)
POOL: Final = Gauge(
    "mizan_pool_connections_used",
    "Connections to PostgreSQL in use, by pool; each process has at most MIZAN_DATABASE_POOL_SIZE in each.",
    ["pool"],
    multiprocess_mode="livesum",
)
RATE_LIMITED: Final = Counter(
    "mizan_rate_limit_refusals", "Requests refused with 429, by the budget that was spent.", ["budget"]
)
MESSAGES: Final = Counter(
    "mizan_messages_sent",
    "Messages to members handed to their sender, by kind (`code`, `notice`) and outcome (`sent`, `failed`).",
    ["kind", "outcome"],
)
ATTEMPTS: Final = Histogram(
    "mizan_event_attempt_seconds",
    "Attempts to deliver events to partners' endpoints by outcome (`delivered`, `again`, `exhausted`, `gone`): how many, and how"
    " long each took.",
    ["outcome"],
    buckets=(*_SECONDS, 15, 20, 30),
)

COUNTED: Final = (REQUESTS, HOOKS, PROCESSED, TASKS, POOL, RATE_LIMITED, MESSAGES, ATTEMPTS)

MEASURED: Final = {
    "mizan_up": "1 if it answered within the time limit of this scrape, else 0; by `part`: `database`, `valkey`.",
    "mizan_scrape_seconds": "How long the database took for this scrape's measurements.",
    "mizan_inbox_deliveries": "Deliveries that wait for a worker.",
    "mizan_inbox_oldest_seconds": "Age of the oldest of them; 0 when none waits.",
    "mizan_deliveries_attention": "Deliveries that need a person, or wait for something; by `state`: `quarantined`, `parked`.",
    "mizan_outbox_oldest_seconds": "Age of the oldest message that is not behind the settled horizon yet; 0 when there is none.",
    "mizan_settled_horizon_lag_seconds": "How long the settled horizon has stood still with a transaction under way.",
    "mizan_seal_lag_seconds": "Age of the oldest transaction without a seal; 0 when all are sealed.",
    "mizan_fold_lag_seconds": "Age of the oldest transaction that isn't folded into daily movements; 0 when all are.",
    "mizan_events_unread_seconds": "Age of the oldest message of the outbox that is not an event yet; 0 when all are.",
    "mizan_events_due_seconds": "For how long the longest-waiting event for a working endpoint has been due; 0 when none is.",
    "mizan_endpoints": "Partners' endpoints by `state`: `enabled`, `failing` (enabled, and nothing arrives), `disabled`.",
    "mizan_partner_warnings": "Partners' accounts near their limit by `kind`: `exposure` (of the ceiling), `prefund_low`.",
    "mizan_settlements_unpaired_seconds": "Age of the oldest settlement that is being paired, or returned; 0 when none is.",
    **payouts.MEASURED,
    "mizan_queue_tasks": "Tasks in the broker's queue that no worker has taken.",
}
"""Gauges that are measured at each scrape."""


def count_attempts(made: Sequence[Attempted]) -> None:
    """Count attempts to deliver events."""
    for attempt in made:
        ATTEMPTS.labels(attempt.outcome).observe(attempt.answer.milliseconds / 1000)


class HookCounts(Counts[str]):
    """The counter of a hook's answers that tells Prometheus as well."""

    def __setitem__(self, outcome: str, count: int) -> None:
        """Count."""
        more = count - self.get(outcome, 0)
        super().__setitem__(outcome, count)
        if more > 0:
            HOOKS.labels(outcome).inc(more)


class RouteNoted:
    """An ASGI application that tells `Timed` which route a request took: put it next to the router."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and keep its route in the state, which all copies of the scope share."""
        try:
            await self._app(scope, receive, send)
        finally:
            if "route" in scope and scope.get("state") is not None:
                scope["state"]["route"] = scope["route"]


class Timed:
    """An ASGI application that times the requests of another: put it outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._children: dict[tuple[str, str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve and time one request; other scopes pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, noting)
        finally:
            self._observe(_route(scope), scope["method"], status // 100, time.perf_counter() - began)

    def _observe(self, route: str, method: str, status: int, seconds: float) -> None:
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            known = method if method in _METHODS else "other"
            # 0: the client went away before there was an answer
            child = self._children[key] = REQUESTS.labels(route, known, f"{status}xx" if status else "none")
        child.observe(seconds)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _route(scope: Scope) -> str:
    """The declared path of the route that a request took; `other` when it took none."""
    if scope["path"].startswith("/hooks/"):
        return "/hooks/{slug}"
    route = (scope.get("state") or {}).get("route")
    return str(getattr(route, "path", "other"))


def watch_pool(database: Database, name: str) -> None:
    """Count the connections of a pool that are in use."""
    used = POOL.labels(name)

    def taken(*_: Any) -> None:
        used.inc()

    def given_back(*_: Any) -> None:
        used.dec()

    event.listen(database.engine, "checkout", taken)
    event.listen(database.engine, "checkin", given_back)


def counted(
    process: Callable[[Tx, Sequence[Delivery]], Sequence[Verdict]],
) -> Callable[[Tx, Sequence[Delivery]], Sequence[Verdict]]:
    """`process`, counting what it decides. A batch that is undone afterwards is counted again when it is repeated."""

    def counting(tx: Tx, batch: Sequence[Delivery]) -> Sequence[Verdict]:
        verdicts = process(tx, batch)
        for state, count in Counts(verdict.state for verdict in verdicts).items():
            PROCESSED.labels(state).inc(count)
        return verdicts

    return counting


def task_began(task_id: str) -> None:
    """A task of this process begins."""
    _began[task_id] = time.perf_counter()


def task_ended(task_id: str, task: str, outcome: str) -> None:
    """It has ended, in `outcome`."""
    began = _began.pop(task_id, None)
    if began is not None:
        TASKS.labels(task, outcome).observe(time.perf_counter() - began)


_began: dict[str, float] = {}


def reference() -> str:
    """The reference page, in Markdown."""
    lines = [_HEAD]
    for metric in COUNTED:
        family = next(iter(metric.collect()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "–"
        lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    lines += [f"| `{name}` | gauge | – | {meaning} |" for name, meaning in MEASURED.items()]
    return "\n".join(lines) + "\n"


_HEAD: Final = """# Metrics

Generated from the code by `python -m api.observability.metrics`; change `api/observability/metrics.py` instead.

`MIZAN_METRICS_PORT` gives `/metrics` a listener of its own, in Prometheus' text format; nothing is measured without it.
`mizan serve` adds up all of its processes; `mizan api` and `mizan worker` speak for themselves. Gauges of the database are
measured at the scrape, in one statement of at most 2 seconds; if it fails, `mizan_up` is 0 and they are absent. What to
alarm on: [watch Mizan](../how-to/watch-mizan.md).

| metric | type | labels | meaning |
|---|---|---|---|"""


if __name__ == "__main__":
    sys.stdout.write(reference())
