"""Folding and balances as of a day: the same as adding up every posting, whatever goes on meanwhile."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from threading import Barrier, Event
from uuid import UUID

import pytest
from sqlalchemy import text

from ledger.balances import balances, balances_as_of
from ledger.database import Tx
from ledger.fold import fold, watermark
from ledger.holds import place
from ledger.ids import new_id
from ledger.trial_balance import trial_balance
from tests.integration.ledger_proof.conftest import DAY, Books


def added_up(tx: Tx, accounts: list[UUID], day: date) -> dict[UUID, int]:
    """The definition: every posting through the day, on the normal side (the world's first two are assets)."""
    sums: Counter[UUID] = Counter(dict.fromkeys(accounts, 0))
    for debit, credit, amount in tx.execute(
        text("SELECT debit_account, credit_account, amount FROM ledger.posting WHERE effective_on <= :day"),
        {"day": day},
    ):
        sums[debit] -= amount
        sums[credit] += amount
    assets = set(accounts[:2])
    return {account: -sums[account] if account in assets else sums[account] for account in accounts}


def accounts_of(books: Books) -> list[UUID]:
    return [books.bank, books.receivable, *books.members]


def test_a_balance_tells_posted_held_and_available(books: Books) -> None:
    books.post(books.contribution(0, 1_000))
    with books.databases.worker.begin() as tx:
        place(tx, books.members[0], 120, reference="hold:1", clock=books.clock)
    with books.databases.auditor.begin() as tx:
        known = balances(tx, [books.members[0], books.receivable, new_id()])
    saved, owed = known[books.members[0]], known[books.receivable]
    assert (saved.posted, saved.held, saved.available, saved.currency) == (500, 120, 380, "RWF")
    assert (owed.posted, owed.held, owed.available) == (1_000, 0, 1_000)
    assert len(known) == 2


def test_as_of_is_the_sum_of_the_postings_folded_or_not(books: Books) -> None:
    random.seed(7)
    days = [DAY + timedelta(days=offset) for offset in (-400, -61, -30, -1, 0, 1, 29, 300)]
    for folded_so_far in (False, True, True):
        books.post(
            *[books.contribution(i % 5, random.randint(2, 900), on=random.choice(days)) for i in range(40)]
        )
        with books.databases.auditor.read() as tx:
            for day in days:
                assert balances_as_of(tx, accounts_of(books), day) == added_up(tx, accounts_of(books), day)
        if folded_so_far:
            assert books.fold(limit=11) > 0
            assert books.fold() == 0
    assert books.verify().ok


def test_a_back_dated_posting_changes_the_past_at_once_and_after_folding(books: Books) -> None:
    books.post(books.contribution(0, 1_000))
    books.fold()
    month_ago = DAY - timedelta(days=30)
    books.post(books.contribution(0, 10, on=month_ago))

    def owed(day: date) -> int:
        with books.databases.auditor.begin() as tx:
            return balances_as_of(tx, [books.receivable], day)[books.receivable]

    for _ in range(2):
        assert [owed(month_ago - timedelta(days=1)), owed(month_ago), owed(DAY)] == [0, 10, 1_010]
        books.fold()


def test_accounts_that_never_moved_stand_at_nothing_and_unknown_ones_are_left_out(books: Books) -> None:
    with books.databases.auditor.begin() as tx:
        assert balances_as_of(tx, [books.bank, new_id()], DAY) == {books.bank: 0}


def test_a_late_commit_of_an_older_transaction_is_folded_once(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.worker.begin() as late:
        late.exec_driver_sql("SELECT pg_current_xact_id()")
        books.post(books.contribution(1, 200))
        assert books.fold() == 2  # what is before the open transaction, and not what is behind it
        books.post_in(late, [books.contribution(2, 400)])
    with books.databases.auditor.begin() as tx:
        assert balances_as_of(tx, [books.receivable], DAY) == {books.receivable: 700}
    assert books.fold() == 4
    with books.databases.auditor.begin() as tx:
        assert balances_as_of(tx, [books.receivable], DAY) == {books.receivable: 700}
    assert books.verify().ok


def test_of_two_folders_one_works_and_the_other_leaves(books: Books) -> None:
    books.post(*[books.contribution(0, 100) for _ in range(4)])
    with books.databases.worker.begin() as first, books.databases.worker.begin() as second:
        assert fold(first, limit=10) == 8
        assert fold(second, limit=10) == 0
    assert books.fold() == 0
    assert books.verify().ok


def test_a_folding_that_is_rolled_back_never_was(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.worker.engine.connect() as tx:
        before = watermark(tx)
        assert fold(tx, limit=10) == 2
        assert watermark(tx) > before
        tx.rollback()
        assert watermark(tx) == before
    assert books.fold() == 2
    assert books.verify().ok


def test_a_limit_below_one_is_refused(books: Books) -> None:
    with books.databases.worker.begin() as tx, pytest.raises(ValueError, match="limit"):
        fold(tx, limit=0)


def test_as_of_stays_right_while_posting_and_folding_go_on(books: Books) -> None:
    """The two assets' balances and the members' always mirror each other, in every snapshot that a reader gets."""
    stop, start = Event(), Barrier(5)
    far = DAY + timedelta(days=400)

    def poster(seed: int) -> int:
        chance, posted = random.Random(seed), 0
        start.wait()
        while not stop.is_set() and posted < 1_000:
            batch = [
                books.contribution(
                    chance.randrange(5),
                    chance.randint(2, 99),
                    on=DAY - timedelta(days=chance.randrange(90)),
                    tag=f"{seed}-",
                )
                for _ in range(chance.randint(1, 9))
            ]
            with books.databases.worker.begin() as tx:
                tx.exec_driver_sql("SELECT pg_current_xact_id()")
                stop.wait(chance.random() / 100)
                posted += len(books.post_in(tx, batch))
        return posted

    def folder() -> int:
        folded = 0
        start.wait()
        while not stop.is_set():
            folded += books.fold(limit=13)
        return folded

    def reader() -> int:
        last = 0
        start.wait()
        try:
            for _ in range(150):
                with books.databases.auditor.begin() as tx:
                    known = balances_as_of(tx, accounts_of(books), far)
                owed = known[books.receivable]
                assert owed == sum(known[member] for member in books.members)
                assert owed >= last
                last = owed
        finally:
            stop.set()
        return last

    with ThreadPoolExecutor(5) as pool:
        posting = [pool.submit(poster, seed) for seed in (1, 2, 3)]
        folding, reading = pool.submit(folder), pool.submit(reader)
        assert reading.result() > 0
        assert sum(one.result() for one in posting) > 0
        assert folding.result() > 0
    books.fold()
    report = books.verify()
    assert report.ok, list(report.findings())
    with books.databases.auditor.read() as tx:
        assert balances_as_of(tx, accounts_of(books), far) == added_up(tx, accounts_of(books), far)


def test_the_trial_balance_ties_now_and_on_any_day(books: Books) -> None:
    books.post(books.contribution(0, 1_000), books.contribution(1, 10, on=DAY - timedelta(days=40)))
    books.fold()
    books.post(books.payment(books.bank, books.receivable, 300, on=DAY + timedelta(days=1)))
    with books.databases.auditor.begin() as tx:
        (now,) = trial_balance(tx)
        (today,) = trial_balance(tx, as_of=DAY, fund=books.fund)
        (before,) = trial_balance(tx, as_of=DAY - timedelta(days=1))
        assert trial_balance(tx, as_of=DAY - timedelta(days=90)) == []
        assert trial_balance(tx, fund=new_id()) == []
    assert now.to_json() == {
        "fund": "savers",
        "currency": "RWF",
        "accounts": [
            {"code": "bank", "kind": "asset", "debit": 300, "credit": 0},
            {"code": "member_savings", "kind": "liability", "debit": 0, "credit": 1_010},
            {"code": "partner_receivable", "kind": "asset", "debit": 710, "credit": 0},
        ],
        "debit_total": 1_010,
        "credit_total": 1_010,
    }
    assert [line.code for line in today.accounts] == ["member_savings", "partner_receivable"]
    assert (today.debit_total, today.credit_total) == (1_010, 1_010)
    assert (before.debit_total, before.credit_total) == (10, 10)


def test_what_one_account_owes_is_not_set_off_against_another_of_its_code(books: Books) -> None:
    books.tamper("UPDATE ledger.account SET floor = NULL")
    books.post(books.payment(books.members[0], books.members[1], 70))
    with books.databases.auditor.begin() as tx:
        (fund,) = trial_balance(tx)
    assert [(line.code, line.debit, line.credit) for line in fund.accounts] == [("member_savings", 70, 70)]
