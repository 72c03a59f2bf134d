"""Real Celery workers on Valkey: woken, killed at any moment, stopped with grace."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import psutil
import pytest
from kombu import Connection

from api.settings import Settings
from api.worker import COUNT_SECONDS, QUEUE, WAKE_UPS_QUEUED_MAX, Jobs, create_worker, wake_up_publisher
from ledger.clock import FixedClock, SystemClock
from products.keyring import Keyring
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox, Journal
from tests.patience import PATIENCE_SECONDS, eventually

KEY = bytes(range(32))


@pytest.fixture
def inbox(databases: Databases) -> Inbox:
    return Inbox(databases, FixedClock(SystemClock().now()), Keyring.of(KEY))


@contextmanager
def worker(settings: Settings, databases: Databases) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.integration.inbox.worker_process",
            settings.broker_url,
            databases.urls["worker"],
            KEY.hex(),
        ],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def woken_until(condition: Callable[[], bool], publish: Callable[[], None]) -> None:
    """Wake the worker until something came about: one that starts slowly finds its first wake-up expired, as a sweep would not."""

    def woken() -> bool:
        publish()
        time.sleep(0.2)
        return condition()

    publish()
    eventually(lambda: condition() or woken(), seconds=100)


def wake_ups(settings: Settings) -> int:
    """How many wait for a worker."""
    with Connection(settings.broker_url) as broker:
        return int(broker.default_channel.queue_declare(QUEUE).message_count)


@pytest.mark.timeout(400)
def test_killed_workers_lose_and_double_nothing_and_a_woken_one_works_and_ends_with_grace(
    settings: Settings, databases: Databases, inbox: Inbox
) -> None:
    journal = Journal(databases)
    publish = wake_up_publisher(settings.broker_url)
    inbox.fill(600)
    for target in (50, 200):
        with worker(settings, databases) as doomed:
            woken_until(lambda target=target: len(journal.done()) >= target, publish)  # type: ignore[misc]
            os.killpg(doomed.pid, signal.SIGKILL)
    assert len(journal.done()) < 600
    with worker(settings, databases) as last:
        woken_until(lambda: inbox.queued() == 0, publish)
        done = journal.done()
        assert len(set(done)) == len(done) == 600
        assert inbox.outcomes() == {"posted": 600}

        inbox.store([inbox.received("after")])
        woken_until(lambda: inbox.queued() == 0, publish)  # no sweep would find it: there is none

        last.terminate()
        assert last.wait(PATIENCE_SECONDS) == 0


def test_a_task_handed_over_as_a_worker_is_asked_to_end_is_finished_and_the_worker_ends_with_grace(
    settings: Settings, databases: Databases, inbox: Inbox
) -> None:
    publish = wake_up_publisher(settings.broker_url)
    inbox.fill(1)
    with worker(settings, databases) as asked:
        woken_until(lambda: inbox.queued() == 0, publish)
        eventually(lambda: wake_ups(settings) == 0)
        children = psutil.Process(asked.pid).children()
        assert len(children) == 2
        for child in children:
            child.suspend()
        inbox.store([inbox.received("handed over")])
        publish()
        eventually(lambda: wake_ups(settings) == 0)
        time.sleep(0.5)  # until it is in a child's pipe
        asked.terminate()
        time.sleep(1)  # the worker has forgotten what no child took up
        for child in children:
            child.resume()
        assert asked.wait(PATIENCE_SECONDS) == 0
    assert inbox.queued() == 0


def test_wake_ups_do_not_pile_up_while_nobody_works_and_are_published_as_soon_as_somebody_does(
    settings: Settings,
) -> None:
    publish = wake_up_publisher(settings.broker_url)
    for _ in range(WAKE_UPS_QUEUED_MAX):
        publish()
    assert wake_ups(settings) == WAKE_UPS_QUEUED_MAX
    time.sleep(COUNT_SECONDS)
    for _ in range(5):
        publish()
    assert wake_ups(settings) == WAKE_UPS_QUEUED_MAX
    with Connection(settings.broker_url) as broker:
        broker.default_channel.queue_purge(QUEUE)
    publish()
    assert wake_ups(settings) == 1
    app = create_worker(settings.broker_url, lambda: pytest.fail("nothing runs here"))
    assert app.conf.worker_prefetch_multiplier == 1


def test_beat_asks_for_every_job_at_its_interval_and_lets_the_request_expire(settings: Settings) -> None:
    app = create_worker(settings.broker_url, lambda: pytest.fail("nothing runs here"))
    schedule = app.conf.beat_schedule
    asked_for = {field.name for field in fields(Jobs)} - {"drain_inbox", "close"}
    assert set(schedule) == asked_for | {"sweep"}
    assert all(entry["task"] in app.tasks for entry in schedule.values())
    assert all(entry["options"]["expires"] for entry in schedule.values())


def test_a_broker_that_is_away_is_given_up(tmp_path: object) -> None:
    """Kombu and its client retry for some seconds; unbounded, they would for ever."""
    publish = wake_up_publisher(f"redis+socket://{tmp_path}/nobody?virtual_host=0")
    with pytest.raises(Exception, match=r"nobody|No such file"):
        publish()
