"""Telling the workers, after a commit, that there is something to do.

A wake-up may be lost, doubled or late: the rows are the truth and a sweep finds them all. So publishing happens in a
thread of its own, at most once per interval, and its failure (no broker) is nobody's problem but the lag's.
"""

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

log = logging.getLogger("mizan.inbox")

INTERVAL_SECONDS: Final = 0.05


class WakeUp:
    """Calls `publish` soon after each `__call__`, at most once per `interval_seconds`, never in the caller's thread."""

    def __init__(self, publish: Callable[[], object], *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._publish = publish
        self._interval_seconds = interval_seconds
        self._wanted = Event()
        self._closing = Event()
        self._failing = False
        self._thread = Thread(target=self._run, name="wake-up", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def close(self, timeout_seconds: float = 2) -> None:
        """End, after a last wake-up; does not wait longer for a broker that hangs."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(timeout_seconds)

    def __call__(self) -> None:
        """Ask for a wake-up. Returns at once."""
        self._wanted.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._publish()
            except Exception as error:
                if not self._failing:
                    log.warning(
                        "workers can't be woken (%s); the sweep will find the deliveries",
                        type(error).__name__,
                    )
                self._failing = True
            else:
                self._failing = False
            self._closing.wait(self._interval_seconds)
