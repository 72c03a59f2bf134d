"""Whoever loads, posts or takes back opening balances is killed at any step, again and again: each batch is in whole and once."""

from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import text

from api import opening
from ledger.clock import FixedClock
from ledger.database import Database
from products.keyring import Keyring
from products.opening import load
from products.opening.load import Load
from products.programmes.registry import Programmes
from products.remittances.context import Books
from tests.dying import Step, die_after, expect_killed
from tests.integration.opening.conftest import EVE, Opening
from tests.integration.opening.test_opening_balances import whole
from tests.tying import expect_all_ties

BATCH: Final = 3
STAGING: Final[tuple[Step, ...]] = (
    "products.opening.load:_unopened",
    "products.opening.load:_copy_rows",
    "products.opening.load:_copy_windows",
)
POSTING: Final[tuple[Step, ...]] = (
    "products.opening.posting:_claim",
    "products.opening.posting:_open_shares",
    "products.opening.posting:_contribute",
    "products.opening.posting:post_whole",
    "products.opening.posting:post_next",  # all of the first batch is done, and not committed
    "ledger.database:Database.run",  # it is committed, and nobody was told
)
TAKING_BACK: Final[tuple[Step, ...]] = (
    "products.opening.taking_back:_close_windows",
    "products.opening.taking_back:_release",
    "products.opening.taking_back:post_whole",
    "products.opening.taking_back:take_back_next",
    "ledger.database:Database.run",
)


def _at_work(url: str, clock: FixedClock, step: Step, load_id: UUID | None, file: Path) -> None:
    """Load the file, or go on with a load, until killed; runs in a process of its own."""
    pytest.MonkeyPatch().setattr(load, "ROWS_TOGETHER", BATCH)
    worker = Database(url, application_name="killed")
    books = Books(clock, Keyring({"test": bytes(range(32))}, "test"), Programmes())
    die_after(step)
    if load_id is not None:
        opening.work_on(worker, books, load_id)
        return
    content = file.read_bytes()
    worker.run(
        lambda tx: opening.stage(
            tx, books, content, programme="ejoheza", name="x", effective_on=EVE, by="anna"
        )
    )


def test_opening_balances_whose_loading_posting_and_taking_back_are_killed_are_in_once_in_the_end(
    books_to_open: Opening, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    books, world = books_to_open, books_to_open.world
    monkeypatch.setattr(load, "ROWS_TOGETHER", BATCH)
    content, anna, berta = whole(books)
    file = tmp_path / "balances.xlsx"
    file.write_bytes(content)

    def kill(step: Step, load_id: UUID | None = None) -> None:
        expect_killed(_at_work, world.databases.urls["worker"], world.clock, step, load_id, file)
        expect_all_ties(world.databases)

    for step in STAGING:
        kill(step)
        assert books.loads() == []
    staged, _ = books.stage(content)
    assert staged.batches == 4

    def kill_and_post(one: Load) -> None:
        books.begin_commit(one)
        for step in POSTING:
            before = books.loads()[0].done
            kill(step, one.id)
            assert books.loads()[0].done == before + (step == POSTING[-1])
            expect_posted(books, one.id)
        assert books.commit(one).done == 4
        expect_posted(books, one.id)

    kill_and_post(staged)
    books.begin_take_back(staged)
    for step in TAKING_BACK:
        before = books.loads()[0].done
        kill(step, staged.id)
        assert books.loads()[0].done == before - (step == TAKING_BACK[-1])
    assert books.take_back(staged).state == "taken_back"
    assert books.balances() == {}

    staged, _ = books.stage(content)
    books.commit(staged)
    assert books.finalise(staged).state == "final"
    assert world.balance("member_savings", anna.enrolments["savings"]) == 75_000
    assert world.balance("sponsor_committed", "gov-rw") == 18_000
    assert world.balance("member_contributions_pending", berta.enrolments["savings"]) == 12_000
    books.require_verified()


def expect_posted(books: Opening, load_id: UUID) -> None:
    """Each row of the batches that are done has its transaction, of its own; no other row has one."""
    with books.world.databases.owner.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT r.batch <= l.done, count(*) FILTER (WHERE r.account_id IS NOT NULL AND r.amount <> 0),"
                " count(DISTINCT t.id), count(r.transaction_id)"
                " FROM products.opening_row r JOIN products.opening_load l ON l.id = r.load_id"
                " LEFT JOIN ledger.transaction t ON t.id = r.transaction_id OR t.reference = 'opening:' || l.id || ':' || r.number"
                " WHERE l.id = :load GROUP BY 1"
            ),
            {"load": load_id},
        ).all()
    for done, expected, transactions, known in rows:
        assert (transactions, known) == ((expected, expected) if done else (0, 0))
