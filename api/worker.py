"""The background: Celery's application, its schedule, and tasks of a few lines that call services.

A task is a hint that there is work, never the work itself: all of it is in the database. So tasks are acknowledged
early, expire, carry no arguments and leave no result, and losing or doubling one changes nothing but the lag.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from billiard import pool
from celery import Celery
from celery.signals import worker_process_shutdown, worker_shutting_down
from kombu.entity import Queue

from integrations.inbox.absence import database_is_away

log = logging.getLogger("mizan.worker")

T = TypeVar("T")

QUEUE: Final = "mizan"
DRAIN_INBOX: Final = "mizan.drain_inbox"
WAKE_UP_EXPIRES_SECONDS: Final = 10
WAKE_UPS_QUEUED_MAX: Final = 20
"""With as many waiting already, one more tells the workers nothing; without workers, they must not pile up."""
COUNT_SECONDS: Final = 1.0
HOUR_SECONDS: Final = 3600.0
STOP_SECONDS_MAX: Final = 20.0
"""How long a worker that is asked to end may take: longer than its longest piece of work."""
CONFIRMATION_SECONDS_MAX: Final = 2.0
"""How long a child that ends waits for the worker to confirm what it reported: our tasks have no results to lose."""
FAILED_STOP_SECONDS_MAX: Final = 5.0
"""How long a worker that met an error it can't get over may take to stop."""
FAILED_EXIT_CODE: Final = 70  # EX_SOFTWARE of sysexits.h


@dataclass(frozen=True, slots=True)
class Jobs:
    """What the background does, each a call without arguments that opens its own transactions and may run anywhere,
    also twice at once. `drain_inbox` says whether there is more; `close` gives back connections."""

    drain_inbox: Callable[[], bool]
    drain_funds: Callable[[], object]
    book_claims: Callable[[], object]
    warn_sponsors: Callable[[], object]
    retry_waiting: Callable[[], object]
    reevaluate: Callable[[], object]
    vest: Callable[[], object]
    expire_holds: Callable[[], object]
    fold_balances: Callable[[], object]
    seal: Callable[[], object]
    verify: Callable[[], object]
    ensure_partitions: Callable[[], object]
    destroy_inbox_keys: Callable[[], object]
    forget_answers: Callable[[], object]
    send_notices: Callable[[], object]
    apply_changes: Callable[[], object]
    destroy_audit_keys: Callable[[], object]
    requests: Callable[[], object]
    forget_tokens: Callable[[], object]
    pair_settlements: Callable[[], object]
    watch_partners: Callable[[], object]
    take_statements: Callable[[], object]
    open_balances: Callable[[], object]
    destroy_statement_files: Callable[[], object]
    reconcile: Callable[[], object]
    submit_payouts: Callable[[], object]
    ask_payouts: Callable[[], object]
    expire_payouts: Callable[[], object]
    expand_events: Callable[[], object]
    deliver_events: Callable[[], object]
    forget_events: Callable[[], object]
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Every:
    """How often beat asks for each job, in seconds."""

    sweep: float = 5
    drain_funds: float = 5
    book_claims: float = 5
    warn_sponsors: float = 60
    retry_waiting: float = 5
    reevaluate: float = 30
    vest: float = 30
    expire_holds: float = 60
    fold: float = 5
    seal: float = 10
    verify: float = 15
    ensure_partitions: float = HOUR_SECONDS
    destroy_inbox_keys: float = HOUR_SECONDS
    forget_answers: float = HOUR_SECONDS
    send_notices: float = 15
    apply_changes: float = 60
    destroy_audit_keys: float = HOUR_SECONDS
    requests: float = 10
    forget_tokens: float = HOUR_SECONDS
    pair_settlements: float = 5
    watch_partners: float = 15
    take_statements: float = 15
    open_balances: float = 5
    destroy_statement_files: float = HOUR_SECONDS
    reconcile: float = 60
    submit_payouts: float = 2
    ask_payouts: float = 2
    expire_payouts: float = 60
    expand_events: float = 1
    deliver_events: float = 2
    forget_events: float = 60


def create_worker(broker_url: str, jobs: Callable[[], Jobs], every: Every | None = None) -> Celery:
    """The Celery application on `broker_url` (Celery's spelling: see `Settings.broker_url`).

    `jobs` is called once in each process that runs tasks, at its first one: database connections don't survive a fork.
    """
    app = _application(broker_url)
    here = cache(jobs)

    def drain_inbox() -> None:
        if _run(DRAIN_INBOX, here().drain_inbox):
            app.send_task(DRAIN_INBOX, expires=WAKE_UP_EXPIRES_SECONDS)

    def task_of(job: str) -> Callable[[], None]:
        def run() -> None:
            _run(job, getattr(here(), job))

        return run

    def close(**_: object) -> None:
        if here.cache_info().currsize:
            here().close()

    app.task(name=DRAIN_INBOX, shared=False)(drain_inbox)
    intervals = every or Every()
    schedule: dict[str, tuple[str, float]] = {"sweep": (DRAIN_INBOX, intervals.sweep)}
    for job, seconds in (
        ("drain_funds", intervals.drain_funds),
        ("book_claims", intervals.book_claims),
        ("warn_sponsors", intervals.warn_sponsors),
        ("retry_waiting", intervals.retry_waiting),
        ("reevaluate", intervals.reevaluate),
        ("vest", intervals.vest),
        ("expire_holds", intervals.expire_holds),
        ("fold_balances", intervals.fold),
        ("seal", intervals.seal),
        ("verify", intervals.verify),
        ("ensure_partitions", intervals.ensure_partitions),
        ("destroy_inbox_keys", intervals.destroy_inbox_keys),
        ("forget_answers", intervals.forget_answers),
        ("send_notices", intervals.send_notices),
        ("apply_changes", intervals.apply_changes),
        ("destroy_audit_keys", intervals.destroy_audit_keys),
        ("requests", intervals.requests),
        ("forget_tokens", intervals.forget_tokens),
        ("pair_settlements", intervals.pair_settlements),
        ("watch_partners", intervals.watch_partners),
        ("take_statements", intervals.take_statements),
        ("open_balances", intervals.open_balances),
        ("destroy_statement_files", intervals.destroy_statement_files),
        ("reconcile", intervals.reconcile),
        ("submit_payouts", intervals.submit_payouts),
        ("ask_payouts", intervals.ask_payouts),
        ("expire_payouts", intervals.expire_payouts),
        ("expand_events", intervals.expand_events),
        ("deliver_events", intervals.deliver_events),
        ("forget_events", intervals.forget_events),
    ):
        app.task(name=f"mizan.{job}", shared=False)(task_of(job))
        schedule[job] = (f"mizan.{job}", seconds)
    app.conf.beat_schedule = {
        name: {"task": task, "schedule": seconds, "options": {"expires": max(seconds, 1.0)}}
        for name, (task, seconds) in schedule.items()
    }

    worker_process_shutdown.connect(close, weak=False)
    return app


def wake_up_publisher(broker_url: str) -> Callable[[], None]:
    """What an API process calls to wake the workers (from `WakeUp`'s thread). Raises when the broker is away."""
    app = _application(broker_url)

    # The published types say of a bound queue's declaration that it returns its name.
    queue: Callable[..., Any] = Queue(QUEUE)
    counted_at, waiting = float("-inf"), 0

    def publish() -> None:
        nonlocal counted_at, waiting
        with app.producer_pool.acquire(block=True) as producer:
            # While they are too many, each time: by now they may all have been taken, and nobody would find what just came.
            if waiting >= WAKE_UPS_QUEUED_MAX or time.monotonic() - counted_at > COUNT_SECONDS:
                # Declaring an existing queue tells its length, on every broker; it costs as much as publishing.
                waiting = queue(producer.channel).queue_declare().message_count
                counted_at = time.monotonic()
            if waiting < WAKE_UPS_QUEUED_MAX:
                app.send_task(DRAIN_INBOX, expires=WAKE_UP_EXPIRES_SECONDS, retry=False, producer=producer)

    return publish


def run_worker(app: Celery, *, processes: int, loglevel: str = "WARNING") -> None:
    """Run tasks in `processes` child processes until SIGTERM or SIGINT; what runs then is finished first.

    A worker that can't go on ends the process, with an exit code other than 0, so that whoever watches it starts another.
    """

    failed = threading.Event()

    class Worker(app.Worker):  # type: ignore[misc, name-defined]  # a class that Celery makes at run time
        def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
            # Losing the broker with a message in hand makes the Redis transport fail while it closes (seen); Celery then
            # stops in good order, and with a broker that is gone that may wait for ever.
            if exitcode:
                failed.set()
                _end_within(FAILED_STOP_SECONDS_MAX)
            super().stop(in_sighandler, exitcode)

    # What was handed to a child just before the stop is done, but its confirmation never comes (seen: the worker has
    # forgotten the task). Left to itself the child would wait 30 s for it, longer than a stop may take.
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = round(
        CONFIRMATION_SECONDS_MAX / pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
    )
    worker_shutting_down.connect(_asked_to_end, weak=False)
    app.Worker = Worker  # type: ignore[misc]  # Celery's own way to another class; its types say read-only
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={processes}",
            f"--loglevel={loglevel}",
            # nobody listens to workers' gossip, and a small machine feels it
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )
    if failed.is_set():  # Celery's command returns as if all were well
        raise SystemExit(FAILED_EXIT_CODE)


def run_beat(app: Celery, *, loglevel: str = "WARNING") -> None:
    """Ask for the scheduled jobs until SIGTERM or SIGINT. The schedule is all intervals: nothing is kept on disk."""
    app.Beat(scheduler="celery.beat:Scheduler", loglevel=loglevel, quiet=True).run()


def _end_within(seconds: float) -> None:
    """End this process then, if it hasn't ended by itself. What its children are at is in transactions of the database."""

    def end() -> None:
        time.sleep(seconds)
        log.error("the worker didn't stop in time and is ended")
        os._exit(FAILED_EXIT_CODE)

    threading.Thread(target=end, name="end", daemon=True).start()


def _asked_to_end(**_: object) -> None:
    _end_within(STOP_SECONDS_MAX)


def _run(name: str, job: Callable[[], T]) -> T | None:
    try:
        return job()
    except Exception as error:
        if not database_is_away(error):
            raise
        # The sweep asks again in seconds; a stack trace for each of them would bury what matters.
        log.warning("%s has to wait: the database is away (%s)", name, type(error).__name__)
        return None


def _application(broker_url: str) -> Celery:
    app = Celery("mizan", broker=broker_url, set_as_current=False)
    app.conf.update(_CONFIGURATION)
    return app


_CONFIGURATION: Final[Mapping[str, Any]] = {
    "task_default_queue": QUEUE,
    "task_ignore_result": True,
    "task_acks_late": False,
    "task_serializer": "json",
    "accept_content": ["json"],
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {
        "priority_steps": [0],
        "socket_connect_timeout": 1,
        "socket_timeout": 5,
        "health_check_interval": 30,
    },
    "timezone": "UTC",
}
