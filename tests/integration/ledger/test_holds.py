"""Holds: set aside, then captured, released or expired, once."""

from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from ledger import holds
from ledger.accounts import close_account
from ledger.clock import FixedClock
from ledger.database import cursor
from ledger.errors import AccountError, HoldError, InvalidInput, NotFound
from ledger.holds import HeldFunds
from ledger.ids import new_id
from ledger.posting import Outcome
from tests.conftest import Databases
from tests.integration.ledger.books import NOON, Books, transfer


@pytest.fixture
def books(databases: Databases) -> Books:
    return Books.open(databases.worker)


@pytest.fixture
def savings(books: Books) -> UUID:
    account = books.account("savings", floor=0)
    books.fund_account(account, 100)
    return account


def place(
    books: Books, account: UUID, amount: int, reference: str = "h", until: datetime | None = None
) -> HeldFunds:
    with books.database.begin() as tx:
        return holds.place(tx, account, amount, reference=reference, clock=books.clock, expires_at=until)


def capture(books: Books, hold: HeldFunds, amount: int, reference: str = "c") -> Outcome:
    payout = transfer(reference, hold.account_id, books.account("payout clearing"), amount)
    with books.database.begin() as tx:
        return holds.capture(tx, hold.id, payout, clock=books.clock)


def release(books: Books, hold: HeldFunds) -> HeldFunds:
    with books.database.begin() as tx:
        return holds.release(tx, hold.id, clock=books.clock)


def state(books: Books, hold: HeldFunds) -> HeldFunds:
    with books.database.begin() as tx:
        return holds.get(tx, hold.id)


def test_held_funds_are_not_available(books: Books, savings: UUID) -> None:
    place(books, savings, 60)
    assert books.row(savings) == (0, 100, 60)
    payable = books.account("payable")
    assert books.post(transfer("41", savings, payable, 41))[0].reason == "insufficient_funds"
    assert books.post(transfer("40", savings, payable, 40))[0].status == "posted"


def test_no_more_is_held_than_is_available(books: Books, savings: UUID) -> None:
    place(books, savings, 60)
    with pytest.raises(HoldError) as refused:
        place(books, savings, 41, "more")
    assert refused.value.code == "insufficient_funds"
    assert books.row(savings)[2] == 60
    assert books.count("hold") == 1


def test_placing_again_gives_the_same_hold(books: Books, savings: UUID) -> None:
    assert place(books, savings, 60) == place(books, savings, 60)
    with pytest.raises(HoldError) as refused:
        place(books, savings, 61)
    assert refused.value.code == "reference_conflict"
    assert books.row(savings)[2] == 60


def test_a_capture_posts_and_ends_the_hold(books: Books, savings: UUID) -> None:
    hold = place(books, savings, 100)
    outcome = capture(books, hold, 100)
    assert outcome.status == "posted"
    assert books.row(savings) == (100, 100, 0)
    ended = state(books, hold)
    assert (ended.state, ended.captured, ended.transaction_id) == ("captured", 100, outcome.transaction_id)
    assert ended.ended_at == NOON
    assert capture(books, hold, 100) == Outcome("replayed", outcome.transaction_id)
    assert capture(books, hold, 100, "again").reason == "hold_ended"
    with pytest.raises(HoldError):
        release(books, hold)


def test_a_partial_capture_gives_the_rest_back(books: Books, savings: UUID) -> None:
    hold = place(books, savings, 60)
    assert capture(books, hold, 25).status == "posted"
    assert books.row(savings) == (25, 100, 0)
    assert state(books, hold).captured == 25


def test_no_more_is_captured_than_was_held(books: Books, savings: UUID) -> None:
    hold = place(books, savings, 60)
    assert capture(books, hold, 61).reason == "hold_exceeded"
    assert state(books, hold).state == "active"
    assert books.row(savings) == (0, 100, 60)


def test_a_capture_that_the_books_refuse_leaves_the_hold(books: Books, savings: UUID) -> None:
    hold = place(books, savings, 60)
    books.account("payout clearing", ceiling=10)
    assert capture(books, hold, 60).reason == "ceiling_exceeded"
    assert state(books, hold).state == "active"
    assert books.count("reference", "reference = 'c'") == 0


def test_a_release_gives_all_back_once(books: Books, savings: UUID) -> None:
    hold = place(books, savings, 60)
    assert release(books, hold).state == "released"
    assert books.row(savings) == (0, 100, 0)
    with pytest.raises(HoldError) as refused:
        release(books, hold)
    assert refused.value.code == "hold_ended"
    assert capture(books, hold, 1).reason == "hold_ended"


def test_holds_expire_by_the_clock(books: Books, savings: UUID) -> None:
    soon = place(books, savings, 10, "soon", NOON + timedelta(minutes=1))
    late = place(books, savings, 20, "late", NOON + timedelta(hours=1))
    never = place(books, savings, 30, "never")
    clock = FixedClock(NOON + timedelta(minutes=1))
    with books.database.begin() as tx:
        assert holds.expire(tx, clock=clock) == [soon.id]
    with books.database.begin() as tx:
        assert holds.expire(tx, clock=clock) == []
    assert books.row(savings)[2] == 50
    assert [state(books, hold).state for hold in (soon, late, never)] == ["expired", "active", "active"]


def test_what_is_not_there_cannot_be_held_or_ended(books: Books, savings: UUID) -> None:
    with pytest.raises(NotFound):
        place(books, new_id(), 1)
    with books.database.begin() as tx, pytest.raises(NotFound):
        holds.release(tx, new_id(), clock=books.clock)
    for amount in (0, -1, True, 2**53):
        with pytest.raises(InvalidInput):
            place(books, savings, amount)


def test_an_account_with_held_funds_or_money_stays_open(books: Books, savings: UUID) -> None:
    empty = books.account("empty")
    hold = place(books, empty, 5)
    for account in (savings, empty):
        with pytest.raises(AccountError), books.database.begin() as tx:
            close_account(tx, account, at=NOON)
    release(books, hold)
    with books.database.begin() as tx:
        close_account(tx, empty, at=NOON)
    with pytest.raises(HoldError) as refused:
        place(books, empty, 5, "later")
    assert refused.value.code == "account_closed"


@pytest.mark.parametrize(
    "change",
    [
        "state = 'released', ended_at = now(), transaction_id = null, captured = 0",
        "state = 'active', ended_at = null, transaction_id = null, captured = 0",
    ],
)
def test_the_database_ends_a_hold_once(books: Books, savings: UUID, change: str) -> None:
    hold = place(books, savings, 60)
    capture(books, hold, 60)
    with pytest.raises(psycopg.Error, match="ends once"), books.database.begin() as tx:
        cursor(tx).execute(f"update ledger.hold set {change}")


def test_the_database_wants_the_capturing_transaction(books: Books, savings: UUID) -> None:
    place(books, savings, 60)
    with pytest.raises(psycopg.Error, match="posted with it"), books.database.begin() as tx:
        cursor(tx).execute(
            "update ledger.hold set state = 'captured', captured = 1, ended_at = now(), transaction_id ="
            " (select id from ledger.transaction)"
        )
    assert books.row(savings)[2] == 60
