"""Writing to members after the commit: codes once, notices until they went out.

A request hands over what its transaction recorded; a few threads of this process's own send it, so that a slow gateway
holds up neither requests nor answers. A code that is lost with the process is asked for again; notices wait in the
database for the job.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final
from uuid import UUID

import structlog

from api.observability import metrics
from integrations.codes.nobody import NobodySender
from ledger.clock import Clock
from ledger.database import Database
from ledger.ids import public_id
from products.keyring import Keyring
from products.members import challenges, waiting
from products.members.challenges import CodeNotSent, CodeSender
from products.members.messages import CodeMessage

log = structlog.get_logger()

THREADS: Final = 4
QUEUED_MAX: Final = 500
"""Messages that may wait in one process; beyond that a code is recorded as not sent."""


def _kind(about: str) -> str:
    return "code" if about.startswith("chl_") else "notice"


class Codes:
    """The sender of one process, with the threads that use it."""

    def __init__(self, sender: CodeSender, worker: Database, keyring: Keyring, clock: Clock) -> None:
        self._sender = sender
        self._worker = worker
        self._keyring = keyring
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mizan-codes")
        self._room = BoundedSemaphore(QUEUED_MAX)

    @property
    def available(self) -> bool:
        """Whether this deployment can write to members at all."""
        return not isinstance(self._sender, NobodySender)

    def send_code(self, challenge: UUID, message: CodeMessage) -> None:
        """Send a challenge's code soon; call it once its transaction has committed."""
        if not self._soon(lambda: self._code(challenge, message)):
            self._record(challenge, successfully=False)

    def send_notices_soon(self) -> None:
        """Send what notices are due soon; the job finds what this one misses."""
        self._soon(self.send_notices)

    def send_notices(self) -> int:
        """Send the notices that are due; how many went out. Safe in several processes at once."""
        with self._worker.begin() as tx:
            due = waiting.messages_due(tx, self._keyring, self._clock.now())
        went_out = 0
        for one in due:
            if self._hand_over(one.message, about=public_id("ntc", one.notice)):
                with self._worker.begin() as tx:
                    waiting.told(tx, one.notice, self._clock.now())
                went_out += 1
        return went_out

    def close(self) -> None:
        """Send what was handed over, and end."""
        self._threads.shutdown(wait=True)

    def _code(self, challenge: UUID, message: CodeMessage) -> None:
        self._record(challenge, successfully=self._hand_over(message, about=public_id("chl", challenge)))

    def _record(self, challenge: UUID, *, successfully: bool) -> None:
        with self._worker.begin() as tx:
            challenges.sent(tx, challenge, successfully=successfully)

    def _hand_over(self, message: CodeMessage, *, about: str) -> bool:
        try:
            self._sender.send(message.to, message.text, message.language)
        except CodeNotSent as error:
            log.warning("message_not_sent", object=about, error=str(error))
            metrics.MESSAGES.labels(_kind(about), "failed").inc()
            return False
        metrics.MESSAGES.labels(_kind(about), "sent").inc()
        return True

    def _soon(self, work: Callable[[], object]) -> bool:
        if not self._room.acquire(blocking=False):
            log.warning("message_not_sent", error="queue_full")
            return False

        def run() -> None:
            try:
                work()
            except Exception as error:  # a thread of nobody's: what it raised would be lost
                log.warning("message_not_sent", error=type(error).__name__)
            finally:
                self._room.release()

        self._threads.submit(run)
        return True
