"""Storing: what may exist once, what is kept as evidence, and what nobody may change or read."""

import threading
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from integrations.inbox.keys import BodyUnreadable, destroy_keys
from integrations.inbox.queries import content, deliveries, delivery, replay
from integrations.inbox.received import rejected
from integrations.inbox.store import Receipt
from ledger.clock import FixedClock
from ledger.database import Database
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox, Journal


@pytest.fixture
def inbox(databases: Databases, clock: FixedClock) -> Inbox:
    return Inbox(databases, clock)


def refused(database: Database, statement: str) -> str:
    """The SQLSTATE with which the database refuses a statement."""
    with pytest.raises((DBAPIError, psycopg.Error)) as error, database.begin() as tx:
        tx.exec_driver_sql(statement)
    original = error.value.orig if isinstance(error.value, DBAPIError) else error.value
    assert isinstance(original, psycopg.Error)
    return str(original.sqlstate)


def test_repetitions_and_conflicts_within_one_group_are_judged_like_those_between_groups(
    inbox: Inbox,
) -> None:
    first, again, other = inbox.received("r-1", "m"), inbox.received("r-1", "m"), inbox.received("r-2", "m")
    expected = [Receipt(first.id, "stored"), Receipt(first.id, "duplicate"), Receipt(first.id, "conflict")]
    assert inbox.store([first, again, other]) == expected
    assert inbox.store([again, other]) == expected[1:]
    assert inbox.queued() == 1
    assert inbox.outcomes() == {"conflict delivery_conflict": 1}


def test_groups_with_the_same_deliveries_in_any_order_never_deadlock_and_store_each_once(
    inbox: Inbox,
) -> None:
    inbox.keys.current()
    receipts: list[Receipt] = []

    def send(reverse: bool) -> None:
        for round_ in range(10):
            group = [inbox.received(f"r-{number}", f"m-{round_}-{number}") for number in range(30)]
            receipts.extend(inbox.store(group[::-1] if reverse else group))

    threads = [threading.Thread(target=send, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [receipt.status for receipt in receipts]
    assert (statuses.count("stored"), statuses.count("duplicate")) == (300, 900)
    assert len({receipt.id for receipt in receipts}) == inbox.queued() == 300


def test_what_was_received_and_what_became_of_it_cannot_be_changed_by_anybody(inbox: Inbox) -> None:
    inbox.fill(1)
    inbox.drain(Journal(inbox.databases))
    for table in ("delivery", "delivery_outcome"):
        for statement in (
            "UPDATE integrations.{} SET partner_id = partner_id",
            "DELETE FROM integrations.{}",
        ):
            assert refused(inbox.databases.owner, statement.format(table)) == "MZ201"
            for role in (inbox.databases.api, inbox.databases.worker):
                assert refused(role, statement.format(table)) == "42501"
        assert refused(inbox.databases.owner, f"TRUNCATE integrations.{table}") == "MZ201"


def test_roles_see_and_do_no_more_than_they_need(inbox: Inbox) -> None:
    (delivery_id,) = inbox.fill(1)
    stranger = new_id()
    for setting, visible in (("", 0), (str(stranger), 0), (str(inbox.partner_id), 1)):
        with inbox.databases.api.begin() as tx:
            tx.exec_driver_sql("SELECT set_config('mizan.partner', %s, true)", (setting,))
            assert len(deliveries(tx)) == visible
    with inbox.databases.api.begin() as tx, pytest.raises(NotFound):
        delivery(tx, delivery_id)
    for statement in (
        "SELECT sealed FROM integrations.webhook_secret",
        "SELECT wrapped FROM integrations.inbox_key",
        "INSERT INTO integrations.delivery_queue (lane, id) VALUES (1, gen_random_uuid())",
    ):
        assert refused(inbox.databases.auditor, statement) == "42501"
    assert refused(inbox.databases.api, "DELETE FROM integrations.delivery_queue") == "42501"
    assert refused(inbox.databases.api, "UPDATE integrations.inbox_key SET wrapped = NULL") == "42501"


def test_lists_page_in_the_order_of_the_settled_horizon_and_filter_by_state(inbox: Inbox) -> None:
    ids = inbox.fill(5)
    inbox.drain(Journal(inbox.databases, poison=["r-2"]))
    ids += [receipt.id for receipt in inbox.store([inbox.received("later")])]
    with inbox.databases.worker.begin() as tx:
        first = deliveries(tx, inbox.partner_id, limit=4)
        last = first[-1]
        rest = deliveries(tx, inbox.partner_id, after=(last.era, last.xid, last.id))
        assert [one.id for one in first + rest] == ids
        assert [one.id for one in deliveries(tx, states=["quarantined"])] == [ids[2]]
        assert [one.id for one in deliveries(tx, states=["queued"])] == [ids[5]]
        assert deliveries(tx, new_id()) == []


def test_a_list_never_shows_what_something_uncommitted_could_still_precede(inbox: Inbox) -> None:
    with inbox.databases.owner.begin() as early:
        early.exec_driver_sql("SELECT pg_current_xact_id()")
        ids = inbox.fill(1)
        with inbox.databases.worker.begin() as tx:
            assert deliveries(tx) == []
    with inbox.databases.worker.begin() as tx:
        assert [one.id for one in deliveries(tx)] == ids


def test_a_body_can_be_read_back_until_its_key_is_destroyed(inbox: Inbox) -> None:
    (delivery_id,) = inbox.fill(1)
    inbox.drain(Journal(inbox.databases))

    def read() -> tuple[str, bytes]:
        with inbox.databases.worker.begin() as tx:
            return content(tx, inbox.keyring, delivery_id)

    webhook_id, body = read()
    assert webhook_id == "r-0"
    assert b"remittance.completed" in body
    inbox.clock.advance(timedelta(days=90))
    assert inbox.databases.worker.run(lambda tx: destroy_keys(tx, inbox.clock)) == 0
    inbox.clock.advance(timedelta(days=1, seconds=1))
    assert inbox.databases.worker.run(lambda tx: destroy_keys(tx, inbox.clock)) == 1
    with pytest.raises(BodyUnreadable):
        read()
    with inbox.databases.worker.begin() as tx:
        assert delivery(tx, delivery_id).state == "posted"


def test_a_key_outlives_what_still_waits_under_it(inbox: Inbox) -> None:
    inbox.fill(1)
    inbox.clock.advance(timedelta(days=200))
    assert inbox.databases.worker.run(lambda tx: destroy_keys(tx, inbox.clock)) == 0


def test_every_day_has_its_key(inbox: Inbox) -> None:
    first = inbox.keys.current().id
    assert inbox.keys.current().id == first
    inbox.clock.advance(timedelta(days=1))
    assert inbox.keys.current().id != first


def test_a_body_moved_to_another_row_does_not_open(inbox: Inbox) -> None:
    key = inbox.keys.current()
    sealed = key.seal(new_id(), inbox.partner_id, "m", b"{}")
    with pytest.raises(BodyUnreadable):
        key.open(new_id(), inbox.partner_id, sealed)


def test_what_never_took_its_id_cannot_be_replayed(inbox: Inbox) -> None:
    broken = rejected(inbox.partner_id, "m", b"{", inbox.clock.now(), reason="not_strict_json")
    (receipt,) = inbox.store([broken])
    ids: list[UUID] = [receipt.id]
    with inbox.databases.worker.begin() as tx, pytest.raises(Conflict):
        replay(tx, ids, actor="maria", clock=inbox.clock)
