"""Periods, accounts' openings, the outbox and the horizon."""

import threading
from datetime import UTC, date, datetime, timedelta

import pytest

from ledger import outbox
from ledger.accounts import AccountSpec, open_accounts, open_fund
from ledger.database import cursor
from ledger.errors import AccountError, InvalidMoney, NotFound, PeriodError
from ledger.horizon import START, horizon
from ledger.ids import new_id
from ledger.outbox import Message, publish
from ledger.periods import close_period, closed_through, effective_day, open_day, reopen_period
from tests.conftest import Databases
from tests.integration.ledger.books import DAY, Books, transfer

FEBRUARY = date(2026, 2, 28)


@pytest.fixture
def books(databases: Databases) -> Books:
    return Books.open(databases.worker)


def close(books: Books, through: date) -> None:
    with books.database.begin() as tx:
        close_period(tx, books.fund_id, through, actor="manager", clock=books.clock)


def test_nothing_is_posted_into_a_closed_period(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    close(books, DAY)
    closed, open_ = books.post(
        transfer("a", bank, savings, 1), transfer("b", bank, savings, 2, on=DAY + timedelta(days=1))
    )
    assert (closed.reason, open_.status) == ("period_closed", "posted")
    assert books.balance(savings) == 2


def test_a_funds_period_is_its_own(books: Books, databases: Databases) -> None:
    pool = Books.open(databases.worker, "pool")
    close(pool, DAY)
    assert (
        books.post(transfer("a", books.account("bank", "asset"), books.account("savings"), 1))[0].status
        == "posted"
    )


def test_the_next_open_day_is_open_in_all_funds(books: Books, databases: Databases) -> None:
    pool = Books.open(databases.worker, "pool")
    close(books, FEBRUARY)
    with books.database.begin() as tx:
        assert open_day(tx, [books.fund_id, pool.fund_id], date(2026, 2, 3)) == date(2026, 3, 1)
        assert open_day(tx, [pool.fund_id], date(2026, 2, 3)) == date(2026, 2, 3)
        assert open_day(tx, [books.fund_id], DAY) == DAY
        with pytest.raises(NotFound):
            open_day(tx, [new_id()], DAY)


def test_closing_moves_on_and_reopening_moves_back_for_a_reason(books: Books) -> None:
    close(books, FEBRUARY)
    with pytest.raises(PeriodError):
        close(books, FEBRUARY)
    with books.database.begin() as tx, pytest.raises(PeriodError, match="reason"):
        reopen_period(tx, books.fund_id, date(2026, 1, 31), actor="m", clock=books.clock, reason=" ")
    with books.database.begin() as tx, pytest.raises(PeriodError):
        reopen_period(tx, books.fund_id, FEBRUARY, actor="m", clock=books.clock, reason="late bank statement")
    with books.database.begin() as tx:
        reopen_period(
            tx, books.fund_id, date(2026, 1, 31), actor="m", clock=books.clock, reason="late bank statement"
        )
        assert closed_through(tx, books.fund_id) == date(2026, 1, 31)
    assert books.count("period_event", "kind = 'close' and actor = 'manager'") == 1
    assert books.count("period_event", "kind = 'reopen' and remark = 'late bank statement'") == 1


def test_a_fund_that_is_not_there_has_no_period(books: Books) -> None:
    with books.database.begin() as tx, pytest.raises(NotFound):
        close_period(tx, new_id(), DAY, actor="m", clock=books.clock)


def test_a_day_is_that_of_the_funds_time_zone() -> None:
    assert effective_day(datetime(2025, 12, 31, 16, 30, tzinfo=UTC), "Asia/Manila") == date(2026, 1, 1)
    with pytest.raises(ValueError, match="zone"):
        effective_day(datetime(2025, 12, 31, 16, 30), "Asia/Manila")  # noqa: DTZ001


def test_opening_an_account_again_gives_the_same_one(books: Books) -> None:
    specs = [AccountSpec(books.fund_id, "savings", f"m{n}", "liability", "PHP") for n in range(5)]
    with books.database.begin() as tx:
        first = open_accounts(tx, specs)
        assert open_accounts(tx, [*reversed(specs), specs[0]]) == [*reversed(first), first[0]]
        assert open_accounts(tx, []) == []
    assert books.count("account") == books.count("account_balance") == 5


def test_an_account_is_not_opened_as_another_kind(books: Books) -> None:
    books.account("savings")
    with pytest.raises(AccountError):
        books.account("savings", "asset")
    with pytest.raises(InvalidMoney):
        books.account("savings", currency="XXX")
    with pytest.raises(AccountError), books.database.begin() as tx:
        open_fund(tx, "savers", "Savers", "Africa/Kigali")


def test_two_who_open_the_same_accounts_at_once_get_the_same(books: Books) -> None:
    specs = [AccountSpec(books.fund_id, "savings", f"m{n}", "liability", "PHP") for n in range(50)]
    opened: list[list[object]] = []

    def open_them(order: list[AccountSpec]) -> None:
        with books.database.begin() as tx:
            opened.append(list(open_accounts(tx, order)))

    threads = [threading.Thread(target=open_them, args=(order,)) for order in (specs, list(reversed(specs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(opened[0]) == set(opened[1])
    assert books.count("account") == 50


def test_messages_are_read_in_order_once_nothing_before_them_can_commit(
    books: Books, databases: Databases
) -> None:
    with databases.worker.begin() as early:
        publish(early, [Message("a", "1", {"n": 1})])
        with databases.worker.begin() as late:
            publish(late, [Message("b", "2", {"n": 2}), Message("b", "3", {"n": 3})])
        with databases.worker.begin() as tx:
            assert outbox.read(tx, START) == []
    with databases.worker.begin() as tx:
        read = outbox.read(tx, START)
        assert [published.message.key for published in read] == ["1", "2", "3"]
        assert [p.message.key for p in outbox.read(tx, read[0].position)] == ["2", "3"]
        assert len(outbox.read(tx, START, limit=1)) == 1
        assert outbox.read(tx, read[-1].position) == []
        assert publish(tx, []) == []
        assert horizon(tx).xid > read[-1].position.xid


def test_another_cluster_begins_another_era(books: Books, databases: Databases) -> None:
    with databases.superuser.begin() as tx:
        cursor(tx).execute("update ledger.era set system_identifier = 1")
    with databases.owner.begin() as tx:
        assert cursor(tx).execute("select ledger.ensure_era()").fetchone() == (2,)
        assert cursor(tx).execute("select ledger.ensure_era()").fetchone() == (2,)
    books.post(transfer("a", books.account("bank", "asset"), books.account("savings"), 1))
    with databases.worker.begin() as tx:
        publish(tx, [Message("a", "1", {})])
    assert books.count("transaction", "era = 2") == books.count("outbox", "era = 2") == 1
