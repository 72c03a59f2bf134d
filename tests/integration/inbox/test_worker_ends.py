"""A worker that can't go on ends, also when Celery's own way of stopping doesn't come to an end."""

import subprocess
import sys

import pytest

from api.worker import FAILED_EXIT_CODE

WORKER = """
import sys, threading
from celery import bootsteps
from api.worker import create_worker, run_worker

class Fails(bootsteps.StartStopStep):
    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, consumer):
        raise AttributeError("what a transport fails with when its broker is gone")

class NeverStops(bootsteps.StartStopStep):
    requires = {"celery.worker.components:Pool"}

    def stop(self, worker):
        if sys.argv[2] == "never":
            threading.Event().wait()

app = create_worker(sys.argv[1], lambda: None)
app.steps["consumer"].add(Fails)
app.steps["worker"].add(NeverStops)
run_worker(app, processes=1)
"""


@pytest.mark.parametrize("stops", ["at-once", "never"])
def test_a_worker_that_cannot_go_on_ends_the_process(redis_url: str, stops: str) -> None:
    broker = redis_url.replace("unix://", "redis+socket://")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WORKER, broker, stops],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == FAILED_EXIT_CODE, ended.stderr[-2000:]
    assert "Unrecoverable error" in ended.stderr
    assert ("is ended" in ended.stderr) == (stops == "never")
