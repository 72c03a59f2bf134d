"""Group commit: shared fsyncs, bounded waiting, and nobody told what isn't so."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import psycopg
import pytest

from integrations.inbox.group_commit import GroupCommit, NotStored, QueueFull
from integrations.inbox.received import Received
from integrations.inbox.store import Receipt
from integrations.inbox.wake_up import WakeUp
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox
from tests.patience import eventually


@pytest.fixture
def inbox(databases: Databases, clock: FixedClock) -> Inbox:
    return Inbox(databases, clock)


async def send(commits: GroupCommit, batch: Sequence[Received]) -> list[Receipt | BaseException]:
    return await asyncio.gather(*(commits.submit(one) for one in batch), return_exceptions=True)


def run(
    inbox: Inbox,
    batch: Sequence[Received],
    store: Callable[[Sequence[Received]], list[Receipt]] | None = None,
) -> list[Receipt | BaseException]:
    async def main() -> list[Receipt | BaseException]:
        commits = GroupCommit(store or inbox.store, committed=lambda: None)
        commits.start()
        try:
            return await send(commits, batch)
        finally:
            await commits.close()

    return asyncio.run(main())


def test_what_arrives_together_is_committed_together(inbox: Inbox) -> None:
    groups: list[int] = []

    def store(group: Sequence[Received]) -> list[Receipt]:
        groups.append(len(group))
        return inbox.store(group)

    answers = run(inbox, [inbox.received(f"r-{number}") for number in range(100)], store)
    assert all(isinstance(answer, Receipt) and answer.status == "stored" for answer in answers)
    assert groups == [100]
    assert inbox.queued() == 100


def test_one_delivery_that_the_database_refuses_takes_no_other_with_it(inbox: Inbox) -> None:
    batch = [inbox.received(f"r-{number}") for number in range(20)]
    refused = inbox.received("bad")
    object.__setattr__(refused, "event_type", "nul\x00")  # what no adapter lets through
    answers = run(inbox, [*batch[:13], refused, *batch[13:]])
    assert isinstance(answers[13], NotStored)
    assert sum(isinstance(answer, Receipt) for answer in answers) == 20
    assert inbox.queued() == 20


def test_while_the_database_is_away_nothing_is_acknowledged_and_afterwards_everything_is(
    inbox: Inbox,
) -> None:
    away = threading.Event()
    away.set()

    def store(group: Sequence[Received]) -> list[Receipt]:
        if away.is_set():
            with inbox.databases.superuser.begin() as tx:
                tx.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mizan_api'"
                )
            raise psycopg.OperationalError("the server closed the connection")
        return inbox.store(group)

    batch = [inbox.received(f"r-{number}") for number in range(10)]
    assert all(isinstance(answer, NotStored) for answer in run(inbox, batch, store))
    assert inbox.queued() == 0
    away.clear()
    assert all(isinstance(answer, Receipt) for answer in run(inbox, batch, store))


def test_whoever_gives_up_waiting_disturbs_nobody(inbox: Inbox) -> None:
    async def main() -> Receipt:
        commits = GroupCommit(inbox.store, committed=lambda: None, gather_seconds=0.05)
        commits.start()
        impatient = commits.submit(inbox.received("r-0"))
        patient = commits.submit(inbox.received("r-1"))
        impatient.cancel()
        receipt = await patient
        await commits.close()
        return receipt

    assert asyncio.run(main()).status == "stored"
    assert inbox.queued() == 1


def test_the_queue_is_bounded_and_closing_commits_what_waits(inbox: Inbox) -> None:
    async def main() -> list[Receipt]:
        commits = GroupCommit(inbox.store, committed=lambda: None, queue_max=3)
        waiting = [commits.submit(inbox.received(f"r-{number}")) for number in range(3)]
        with pytest.raises(QueueFull):
            commits.submit(inbox.received("r-3"))
        commits.start()
        await commits.close()
        with pytest.raises(QueueFull):
            commits.submit(inbox.received("r-4"))
        return [future.result() for future in waiting]

    assert [receipt.status for receipt in asyncio.run(main())] == ["stored"] * 3


def test_wake_ups_are_coalesced_and_outlive_a_broker_that_fails() -> None:
    called: list[float] = []

    def publish() -> None:
        called.append(time.monotonic())
        if len(called) == 1:
            raise ConnectionError

    wake_up = WakeUp(publish, interval_seconds=0.05)
    wake_up.start()

    def is_asked_for_again() -> bool:
        wake_up()
        return len(called) > 3

    eventually(is_asked_for_again)
    wake_up.close()
    assert all(later - earlier >= 0.04 for earlier, later in pairwise(called))
