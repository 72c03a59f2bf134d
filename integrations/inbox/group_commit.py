"""Group commit: deliveries that arrive together share one insert and one fsync.

The one asynchronous part of Mizan. Requests put what they received into a bounded queue and await its receipt; a
supervised loop takes what has gathered and has a thread of its own store it. While one group commits, the next one
gathers, so the groups grow with the load and nothing is tuned.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from integrations.inbox.absence import database_is_away
from integrations.inbox.received import Received
from integrations.inbox.store import Receipt
from ledger.errors import Unavailable

log = logging.getLogger("mizan.inbox")

GROUP_BYTES_MAX: Final = 8 * 1024 * 1024
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
RESTART_SECONDS: Final = 0.1

Waiting = tuple[Received, "asyncio.Future[Receipt]"]


class QueueFull(Unavailable):
    """As many deliveries wait for their commit as may: the sender is asked to come back."""

    def __init__(self) -> None:
        super().__init__("Too many deliveries are waiting to be stored.")


class NotStored(Unavailable):
    """The group did not commit. Nothing was acknowledged; the delivery may be sent again."""

    def __init__(self) -> None:
        super().__init__("The delivery could not be stored.")


class GroupCommit:
    """Stores deliveries in groups of at most `group_max`, by calling `store` in a thread of its own.

    `store` commits a group and gives its receipts in order, or raises and has stored nothing. A group that the
    database refuses is halved until what it refuses stands alone; a database that is not there fails the whole group
    at once. `gather_seconds` is how long the first delivery of a quiet moment waits for others; `committed` is called
    from the thread after each commit, and must not block.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Received]], list[Receipt]],
        *,
        committed: Callable[[], None],
        queue_max: int = 4096,
        group_max: int = 512,
        gather_seconds: float = 0.0015,
    ) -> None:
        self._store = store
        self._committed = committed
        self._queue_max = queue_max
        self._group_max = group_max
        self._gather_seconds = gather_seconds
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="group-commit")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to commit. Call it in the event loop that will submit."""
        self._loop = asyncio.create_task(self._supervise(), name="group-commit")

    async def close(self) -> None:
        """Commit what waits, refuse what comes, and end."""
        self._closing = True
        self._arrived.set()
        if self._loop is not None:
            await self._loop
        self._thread.shutdown()

    def submit(self, received: Received) -> "asyncio.Future[Receipt]":
        """The receipt of `received`, once it is committed; the future raises `NotStored`. Raises `QueueFull`."""
        size = len(received.body)
        if (
            self._closing
            or len(self._waiting) >= self._queue_max
            or self._waiting_bytes + size > QUEUE_BYTES_MAX
        ):
            raise QueueFull
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((received, future))
        self._waiting_bytes += size
        self._arrived.set()
        return future

    async def _supervise(self) -> None:
        while True:
            try:
                return await self._run()
            except Exception:
                log.exception("the group commit loop failed and is started again")
                await asyncio.sleep(RESTART_SECONDS)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(self._gather_seconds)
            group = self._take()
            try:
                answers = await loop.run_in_executor(self._thread, self._commit, [one[0] for one in group])
            except BaseException:
                _settle(group, [NotStored() for _ in group])
                raise
            _settle(group, answers)

    def _take(self) -> list[Waiting]:
        group: list[Waiting] = []
        size = 0
        while self._waiting and len(group) < self._group_max and size < GROUP_BYTES_MAX:
            received, future = self._waiting.popleft()
            size += len(received.body)
            # Whoever gave up waiting gets nothing stored behind their back; they will send it again.
            if not future.done():
                group.append((received, future))
        self._waiting_bytes -= size
        return group

    def _commit(self, group: list[Received]) -> list[Receipt | NotStored]:
        """In the thread: store the group, or halve it around what can't be stored."""
        if not group:
            return []
        try:
            receipts = self._store(group)
        except Exception as error:
            if database_is_away(error):
                log.warning("%d deliveries could not be stored: %s", len(group), type(error).__name__)
                return [NotStored() for _ in group]
            if len(group) == 1:
                log.exception("a delivery of partner %s can't be stored", group[0].partner_id)
                return [NotStored()]
            middle = len(group) // 2
            return self._commit(group[:middle]) + self._commit(group[middle:])
        self._committed()
        return list(receipts)


def _settle(group: list[Waiting], answers: Sequence[Receipt | NotStored]) -> None:
    for (_, future), answer in zip(group, answers, strict=True):
        if future.done():  # cancelled while its group was being committed
            continue
        if isinstance(answer, NotStored):
            future.set_exception(answer)
        else:
            future.set_result(answer)
