"""Races between real connections: whoever wins, the books are right and nobody waits for ever."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from uuid import UUID

import pytest

from ledger import holds
from ledger.accounts import close_account, set_limits
from ledger.database import Tx
from ledger.errors import AccountError, HoldError
from ledger.periods import close_period, open_day, reopen_period
from ledger.posting import Outcome, Posting, Transaction, post, reverse
from tests.conftest import Databases
from tests.integration.ledger.books import DAY, Books, transaction, transfer
from tests.racing import at_once

ROUNDS = 12


@pytest.fixture
def books(databases: Databases) -> Books:
    return Books.open(databases.worker)


def poster(books: Books, batch: Sequence[Transaction], answers: list[Outcome]) -> Callable[[], None]:
    """Work that posts the batch in one unit without another attempt: a deadlock would fail the test."""

    def work() -> None:
        answers.extend(books.post(*batch))

    return work


def test_two_batches_with_the_same_references_post_each_once(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    for round_number in range(ROUNDS):
        batch = [transfer(f"{round_number}/{n}", bank, savings, 1) for n in range(40)]
        one: list[Outcome] = []
        two: list[Outcome] = []
        at_once(poster(books, batch, one), poster(books, list(reversed(batch)), two))
        assert Counter(o.status for o in one + two) == {"posted": 40, "replayed": 40}
        assert {o.transaction_id for o in one} == {o.transaction_id for o in two}
    assert books.balance(savings) == 40 * ROUNDS


def test_the_same_reference_with_other_contents_posts_one_and_tells_the_other(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    for round_number in range(ROUNDS):
        answers: list[Outcome] = []
        works = [poster(books, [transfer(f"{round_number}", bank, savings, n)], answers) for n in (1, 2, 3)]
        at_once(*works)
        assert Counter(o.status for o in answers) == {"posted": 1, "conflict": 2}


def test_a_fund_that_runs_out_pays_exactly_what_it_has(books: Books) -> None:
    uncommitted = books.account("uncommitted", hot=True, floor=0)
    committed = books.account("committed", hot=True)
    for round_number in range(ROUNDS):
        books.fund_account(uncommitted, 50, f"funding {round_number}")
        answers: list[Outcome] = []
        works = [
            poster(
                books,
                [transfer(f"{round_number}/{w}/{n}", uncommitted, committed, 7) for n in range(10)],
                answers,
            )
            for w in range(3)
        ]
        at_once(*works)
        spent = sum(o.status == "posted" for o in answers) * 7
        before = 50 * round_number - books.balance(committed) + spent
        assert 0 <= before + 50 - spent < 7
        assert {o.reason for o in answers if o.status != "posted"} == {"insufficient_funds"}
    assert books.balance(uncommitted) + books.balance(committed) == 50 * ROUNDS


def test_a_ceiling_is_never_passed(books: Books) -> None:
    savings = books.account("savings")
    for round_number in range(ROUNDS):
        receivable = books.account("receivable", "asset", owner=f"{round_number}", ceiling=100)
        answers: list[Outcome] = []
        works = [
            poster(
                books,
                [transfer(f"{round_number}/{w}/{n}", receivable, savings, 9) for n in range(8)],
                answers,
            )
            for w in range(3)
        ]
        at_once(*works)
        assert sum(o.status == "posted" for o in answers) == 11
        assert books.row(receivable)[0] == 99


def test_what_is_not_available_is_never_taken_twice(books: Books) -> None:
    owed, bank = books.account("member receivable", "asset"), books.account("bank", "asset")
    for round_number in range(ROUNDS):
        savings = books.account("savings", owner=f"{round_number}", floor=0)
        books.fund_account(savings, 30)
        answers: list[Outcome] = []
        batches = [
            [transaction(f"{round_number}/{n}", Posting(savings, bank, 20, "PHP", rest_from=owed))]
            for n in range(3)
        ]
        at_once(*(poster(books, batch, answers) for batch in batches))
        assert {o.status for o in answers} == {"posted"}
        assert books.balance(savings) == 0
    assert books.row(owed)[0] == 30 * ROUNDS


def test_nothing_is_posted_behind_a_close(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    for round_number in range(ROUNDS):
        day = DAY + timedelta(days=round_number)
        answers: list[Outcome] = []
        posted_at_close: list[int] = []

        def close(day: date = day, seen: list[int] = posted_at_close) -> None:
            with books.database.begin() as tx:
                close_period(tx, books.fund_id, day, actor="m", clock=books.clock)
            seen.append(books.count("posting", "effective_on = %s", [day]))

        batches = [
            [transfer(f"{round_number}/{w}/{n}", bank, savings, 1, on=day) for n in range(20)] for w in "ab"
        ]
        at_once(close, *(poster(books, batch, answers) for batch in batches))
        posted = sum(o.status == "posted" for o in answers)
        assert posted_at_close == [books.count("posting", "effective_on = %s", [day])] == [posted]
        assert {o.reason for o in answers if o.status != "posted"} <= {"period_closed"}


def test_a_day_that_was_found_open_stays_open(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    for round_number in range(ROUNDS):
        day = DAY + timedelta(days=round_number * 2)
        answers: list[Outcome] = []

        def find_and_post(
            day: date = day, found: list[Outcome] = answers, name: str = f"{round_number}"
        ) -> None:
            with books.database.begin() as tx:
                on = open_day(tx, [books.fund_id], day)
                found.extend(post(tx, [transfer(name, bank, savings, 1, on=on)], clock=books.clock))

        def close(day: date = day) -> None:
            with books.database.begin() as tx:
                close_period(tx, books.fund_id, day, actor="m", clock=books.clock)

        at_once(find_and_post, close)
        assert answers[0].status == "posted"
    with books.database.begin() as tx:
        reopen_period(tx, books.fund_id, DAY, actor="m", clock=books.clock, reason="test")


def test_a_transaction_is_reversed_once(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    for round_number in range(ROUNDS):
        (original,) = books.post(transfer(f"{round_number}", bank, savings, 5))
        answers: list[Outcome] = []

        def undo(
            name: str, original: UUID | None = original.transaction_id, seen: list[Outcome] = answers
        ) -> None:
            assert original is not None
            with books.database.begin() as tx:
                seen.append(
                    reverse(
                        tx,
                        original,
                        reference=name,
                        digest=b"r" * 32,
                        kind="reversal",
                        effective_on=DAY,
                        clock=books.clock,
                    )
                )

        names = [f"undo {round_number}/{n}" for n in range(3)]
        at_once(*(lambda name=name: undo(name) for name in names))
        assert Counter(o.reason for o in answers) == {None: 1, "already_reversed": 2}
    assert books.balance(savings) == 0


def test_a_hold_ends_once_whoever_ends_it(books: Books) -> None:
    clearing = books.account("payout clearing")
    for round_number in range(ROUNDS):
        savings = books.account("savings", owner=f"{round_number}", floor=0)
        books.fund_account(savings, 10)
        with books.database.begin() as tx:
            hold = holds.place(
                tx, savings, 10, reference=f"{round_number}", clock=books.clock, expires_at=books.clock.now()
            )
        ended: list[str] = []

        def capture(
            name: str, hold_id: UUID = hold.id, savings: UUID = savings, ended: list[str] = ended
        ) -> None:
            with books.database.begin() as tx:
                outcome = holds.capture(tx, hold_id, transfer(name, savings, clearing, 10), clock=books.clock)
            ended.extend([outcome.status] if outcome.status == "posted" else [])

        def release(hold_id: UUID = hold.id, ended: list[str] = ended) -> None:
            try:
                with books.database.begin() as tx:
                    holds.release(tx, hold_id, clock=books.clock)
                ended.append("released")
            except HoldError:
                pass

        def expire(ended: list[str] = ended) -> None:
            with books.database.begin() as tx:
                ended.extend("expired" for _ in holds.expire(tx, clock=books.clock))

        at_once(
            lambda n=round_number: capture(f"c{n}"), lambda n=round_number: capture(f"d{n}"), release, expire
        )
        assert len(ended) == 1
        assert books.row(savings) == ((10, 10, 0) if ended == ["posted"] else (0, 10, 0))


def test_crossing_hot_and_cold_accounts_never_deadlock(books: Books, databases: Databases) -> None:
    hot = [books.account("hot", owner=f"{n}", hot=True, floor=-40) for n in range(3)]
    cold = [books.account("cold", owner=f"{n}") for n in range(12)]
    answers: list[Outcome] = []

    def batches(writer: int) -> Callable[[], None]:
        chance = random.Random(writer)

        def work() -> None:
            for batch in range(ROUNDS):
                transactions = []
                for n in range(30):
                    debit, credit = chance.sample(hot + cold, 2)
                    other = chance.choice([a for a in hot + cold if a not in (debit, credit)])
                    rest = other if chance.random() < 0.1 else None
                    name = f"{writer}/{batch}/{n}"
                    transactions.append(
                        transaction(name, Posting(debit, credit, chance.randint(1, 9), "PHP", rest))
                    )
                answers.extend(books.post(*transactions))

        return work

    at_once(*(batches(writer) for writer in range(4)))
    assert {o.status for o in answers} == {"posted", "rejected"}
    assert sum(books.balance(account) for account in hot + cold) == 0
    assert min(books.balance(account) for account in hot) >= -40


def test_a_new_limit_waits_for_postings_under_way(books: Books) -> None:
    bank = books.account("bank", "asset")
    for round_number in range(ROUNDS):
        receivable = books.account("receivable", owner=f"{round_number}")
        answers: list[Outcome] = []
        refused: list[str] = []

        def limit(account: UUID = receivable, refused: list[str] = refused) -> None:
            def work(tx: Tx) -> None:
                set_limits(tx, account, floor=None, ceiling=0)

            try:
                books.database.run(work)
            except AccountError as error:
                refused.append(error.code)

        at_once(poster(books, [transfer(f"{round_number}", bank, receivable, 5)], answers), limit)
        later = books.post(transfer(f"{round_number} later", bank, receivable, 5))[0]
        if refused:
            assert (refused, answers[0].status) == (["limit_beyond_balance"], "posted")
            assert (later.status, books.balance(receivable)) == ("posted", 10)
        else:
            assert (answers[0].reason, later.reason) == ("ceiling_exceeded", "ceiling_exceeded")
            assert books.balance(receivable) == 0


def start(work: Callable[[], None], books: Books) -> threading.Thread:
    """Start the work and return once it waits for a fund's books."""
    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 60
    while not books.count(
        "fund", "exists (select from pg_locks where locktype = 'advisory' and not granted)"
    ):
        assert thread.is_alive(), "it did not wait"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return thread


@pytest.mark.parametrize("judged", ["in sets", "one by one"])
def test_a_close_waits_for_what_is_being_posted(books: Books, judged: str) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    refused = [transfer("too much", savings, bank, 9)] if judged == "one by one" else []

    def close() -> None:
        with books.database.begin() as tx:
            close_period(tx, books.fund_id, DAY, actor="m", clock=books.clock)

    with books.database.begin() as tx:
        outcomes = post(tx, [*refused, transfer("a", bank, savings, 1)], clock=books.clock)
        closing = start(close, books)
    closing.join(60)
    assert outcomes[-1].status == "posted"
    assert books.count("posting") == books.count("period_event") == 1


@pytest.mark.parametrize("judged", ["in sets", "one by one"])
def test_a_posting_waits_for_a_close_and_is_then_refused(books: Books, judged: str) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    refused = [transfer("too much", savings, bank, 9)] if judged == "one by one" else []
    answers: list[Outcome] = []
    with books.database.begin() as tx:
        close_period(tx, books.fund_id, DAY, actor="m", clock=books.clock)
        posting = start(poster(books, [*refused, transfer("a", bank, savings, 1)], answers), books)
    posting.join(60)
    assert {answer.reason for answer in answers} == {"period_closed"}
    assert books.count("posting") == 0


def test_a_posting_waits_for_a_new_limit_and_obeys_it(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    answers: list[Outcome] = []
    with books.database.begin() as tx:
        set_limits(tx, savings, floor=None, ceiling=0)
        posting = start(poster(books, [transfer("a", bank, savings, 1)], answers), books)
    posting.join(60)
    assert answers[0].reason == "ceiling_exceeded"


def test_a_hold_waits_for_the_closing_of_its_account(books: Books) -> None:
    savings = books.account("savings")
    refused: list[str] = []

    def place() -> None:
        try:
            with books.database.begin() as tx:
                holds.place(tx, savings, 1, reference="h", clock=books.clock)
        except HoldError as error:
            refused.append(error.code)

    with books.database.begin() as tx:
        close_account(tx, savings, at=books.clock.now())
        placing = start(place, books)
    placing.join(60)
    assert refused == ["account_closed"]
