"""The workers' loop: each delivery once, members in order, and nothing stuck behind what can't be processed."""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from integrations.inbox.drain import drain
from integrations.inbox.queries import WAITING, backlog, delivery, history, replay, requeue
from ledger.clock import FixedClock
from ledger.database import Database, Tx
from ledger.errors import Conflict
from products.remittances.process import Delivery, Verdict
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox, Journal


@pytest.fixture
def inbox(databases: Databases, clock: FixedClock) -> Inbox:
    return Inbox(databases, clock)


def test_everything_is_processed_once_and_the_queue_is_empty(inbox: Inbox) -> None:
    inbox.fill(250)
    journal = Journal(inbox.databases)
    assert inbox.drain(journal, batch=40) == 250
    assert sorted(journal.done()) == sorted(f"r-{number}" for number in range(250))
    assert all(len(batch) <= 40 for batch in journal.batches)
    assert (inbox.outcomes(), inbox.queued()) == ({"posted": 250}, 0)
    assert inbox.drain(journal) == 0


def test_a_members_events_are_processed_in_the_order_of_their_arrival(inbox: Inbox) -> None:
    inbox.fill(120, members=3)
    journal = Journal(inbox.databases)
    inbox.drain(journal, batch=7)
    for member in range(3):
        mine = [int(name[2:]) for name in journal.done() if int(name[2:]) % 3 == member]
        assert mine == sorted(mine)


def test_what_cannot_be_processed_is_quarantined_alone_with_its_reason(inbox: Inbox) -> None:
    ids = inbox.fill(60)
    journal = Journal(inbox.databases, poison=["r-7", "r-8", "r-41"])
    inbox.drain(journal)
    assert inbox.outcomes() == {"posted": 57, "quarantined internal_error": 3}
    assert len(journal.done()) == 57
    assert inbox.queued() == 0
    with inbox.databases.worker.begin() as tx:
        assert delivery(tx, ids[7]).detail == {"error": "ZeroDivisionError"}


def test_what_is_quarantined_can_be_replayed_and_keeps_its_history(inbox: Inbox) -> None:
    ids = inbox.fill(3)
    inbox.drain(Journal(inbox.databases, poison=["r-1"]))
    with inbox.databases.worker.begin() as tx:
        assert replay(tx, [ids[1]], actor="maria", clock=inbox.clock) == 1
        assert delivery(tx, ids[1]).state == "queued"
    inbox.drain(Journal(inbox.databases))
    with inbox.databases.worker.begin() as tx:
        assert [one.state for one in history(tx, ids[1])] == ["quarantined", "replayed", "posted"]
        assert history(tx, ids[1])[1].detail == {"actor": "maria", "approved": False}
        assert delivery(tx, ids[1]).state == "posted"
    with inbox.databases.worker.begin() as tx, pytest.raises(Conflict):
        replay(tx, [ids[1]], actor="maria", clock=inbox.clock)


def test_what_is_quarantined_is_not_tried_again_unasked(inbox: Inbox) -> None:
    ids = inbox.fill(1)
    inbox.drain(Journal(inbox.databases, poison=["r-0"]))
    with inbox.databases.worker.begin() as tx:
        assert requeue(tx, ids, actor="system", clock=inbox.clock, states=WAITING) == 0
        assert requeue(tx, ids, actor="maria", clock=inbox.clock) == 1


def test_a_replay_asked_for_twice_at_once_happens_once(inbox: Inbox) -> None:
    ids = inbox.fill(1)
    inbox.drain(Journal(inbox.databases, poison=["r-0"]))
    refused: list[Exception] = []

    def ask() -> None:
        try:
            inbox.databases.worker.run(lambda tx: replay(tx, ids, actor="x", clock=inbox.clock))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert inbox.queued() == 1


def test_two_workers_at_once_share_the_work_and_do_nothing_twice(inbox: Inbox) -> None:
    inbox.fill(400, members=200)
    journal = Journal(inbox.databases)

    def slowly(tx: Tx, deliveries: Sequence[Delivery]) -> Sequence[Verdict]:
        time.sleep(0.02)
        return journal(tx, deliveries)

    counts = [0, 0]

    def work(number: int) -> None:
        counts[number] = inbox.drain(slowly, batch=20, seconds_max=30)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 400
    assert min(counts) > 0
    assert len(set(journal.done())) == len(journal.done()) == 400


def test_a_worker_that_dies_in_the_middle_of_a_batch_loses_and_doubles_nothing(inbox: Inbox) -> None:
    inbox.fill(30)
    journal = Journal(inbox.databases)
    doomed = Database(inbox.databases.urls["worker"], application_name="doomed")

    def die_before_the_commit(tx: Tx, deliveries: Sequence[Delivery]) -> Sequence[Verdict]:
        verdicts = journal(tx, deliveries)
        with inbox.databases.superuser.begin() as other:
            other.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed'"
            )
        return verdicts

    with pytest.raises((DBAPIError, psycopg.OperationalError)):
        drain(doomed, die_before_the_commit, inbox.clock, inbox.keyring)
    doomed.close()
    assert (journal.done(), inbox.queued()) == ([], 30)
    inbox.drain(journal)
    assert len(journal.done()) == 30


def test_a_deadlock_is_tried_again_as_a_whole(inbox: Inbox) -> None:
    inbox.fill(5)
    journal = Journal(inbox.databases)
    failures = iter([True, True])

    def unlucky(tx: Tx, deliveries: Sequence[Delivery]) -> Sequence[Verdict]:
        verdicts = journal(tx, deliveries)
        if next(failures, False):
            raise psycopg.errors.DeadlockDetected
        return verdicts

    assert inbox.drain(unlucky) == 5
    assert len(journal.batches) == 3
    assert len(journal.done()) == 5


def test_a_body_whose_key_is_destroyed_is_quarantined_and_its_digest_stays(inbox: Inbox) -> None:
    ids = inbox.fill(2)
    with inbox.databases.owner.begin() as tx:
        tx.exec_driver_sql("UPDATE integrations.inbox_key SET wrapped = NULL, destroyed_at = now()")
    assert inbox.drain(Journal(inbox.databases)) == 2
    assert inbox.outcomes() == {"quarantined body_destroyed": 2}
    with inbox.databases.worker.begin() as tx:
        assert delivery(tx, ids[0]).state == "quarantined"


def test_draining_stops_for_the_time_and_says_that_there_is_more(inbox: Inbox) -> None:
    inbox.fill(20)
    done = drain(
        inbox.databases.worker, Journal(inbox.databases), inbox.clock, inbox.keyring, batch=5, seconds_max=0.0
    )
    assert done.more
    assert inbox.queued() == 20


def test_the_backlog_says_how_much_waits_and_since_when(inbox: Inbox) -> None:
    with inbox.databases.worker.begin() as tx:
        assert backlog(tx).deliveries == 0
    since = inbox.clock.now()
    inbox.fill(3)
    inbox.clock.advance(timedelta(minutes=1))
    inbox.store([inbox.received("later")])
    with inbox.databases.worker.begin() as tx:
        assert backlog(tx).deliveries == 4
        assert backlog(tx).oldest_received_at == since
