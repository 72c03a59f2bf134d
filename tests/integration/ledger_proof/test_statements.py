"""A statement is one unchanging walk, complete up to its horizon, whose balances follow from line to line."""

from datetime import timedelta
from uuid import UUID

import pytest

from ledger.balances import balances
from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id
from ledger.statements import Line, Page, Position, statement
from tests.integration.ledger_proof.conftest import DAY, Books


@pytest.fixture
def books(own_fund: Books) -> Books:
    return own_fund


def walk(books: Books, account: UUID, limit: int) -> list[Line]:
    """All pages of a statement, each asked for in a transaction of its own."""
    lines: list[Line] = []
    position: Position | None = None
    while True:
        page = page_of(books, account, limit, position)
        lines += page.lines
        if page.next is None:
            return lines
        assert len(page.lines) == limit
        position = Position.from_json(page.next.to_json())


def page_of(books: Books, account: UUID, limit: int = 50, after: Position | None = None) -> Page:
    with books.databases.auditor.begin() as tx:
        return statement(tx, account, limit=limit, after=after)


def test_an_account_without_history_has_an_empty_page(books: Books) -> None:
    page = page_of(books, books.bank)
    assert (page.lines, page.next, page.currency) == ((), None, "RWF")


def test_lines_tell_what_happened_newest_first_with_the_balance_after_it(books: Books) -> None:
    member = books.members[0]
    (first,) = books.post(books.contribution(0, 1_000, on=DAY - timedelta(days=3)))
    books.clock.advance(timedelta(hours=1))
    (second,) = books.post(books.payment(member, books.bank, 200))
    newest, oldest = page_of(books, member).lines
    assert newest == Line(
        second,
        1,
        "payment",
        f"{books.code}:payment:2",
        DAY,
        books.clock.now(),
        books.bank,
        "bank",
        amount=-200,
        balance=300,
    )
    assert (oldest.transaction_id, oldest.seq, oldest.amount, oldest.balance) == (first, 1, 500, 500)
    assert (oldest.kind, oldest.reference, oldest.effective_on) == (
        "contribution",
        f"{books.code}:remittance:1",
        DAY - timedelta(days=3),
    )
    assert (oldest.counter_account, oldest.counter_code) == (books.receivable, "partner_receivable")


def test_an_assets_balance_grows_by_debits(books: Books) -> None:
    books.post(books.contribution(0, 1_000))
    books.post(books.payment(books.bank, books.receivable, 400))
    assert [(line.amount, line.balance) for line in walk(books, books.receivable, 2)] == [
        (-400, 600), (500, 1_000), (500, 500),
    ]  # fmt: skip


def test_pages_of_any_size_show_each_posting_once_and_their_balances_add_up(books: Books) -> None:
    for _ in range(3):
        books.post(*[books.contribution(i % 5, 100 + i) for i in range(9)])
        books.post(books.payment(books.bank, books.receivable, 50))
    for limit in (1, 2, 3, 7, 200):
        lines = walk(books, books.receivable, limit)
        places = [(line.transaction_id, line.seq) for line in lines]
        assert len(places) == 3 * (9 * 2 + 1)
        assert places == sorted(set(places), reverse=True)
        with books.databases.auditor.begin() as tx:
            assert lines[0].balance == balances(tx, [books.receivable])[books.receivable].posted
        for line, older in zip(lines, [*lines[1:], None], strict=True):
            assert line.balance == line.amount + (older.balance if older is not None else 0)


def test_what_is_posted_during_a_walk_belongs_to_the_next_one(books: Books) -> None:
    books.post(*[books.contribution(0, 100) for _ in range(6)])
    first = page_of(books, books.receivable, 5)
    books.post(books.payment(books.bank, books.receivable, 1))
    second = page_of(books, books.receivable, 200, first.next)
    assert [line.amount for line in first.lines + second.lines] == [50] * 12
    assert second.lines[-1].balance == 50
    assert len(walk(books, books.receivable, 200)) == 13


def test_a_late_commit_with_an_older_id_is_in_no_walk_before_it_settles_and_in_every_one_after(
    books: Books,
) -> None:
    books.post(*[books.contribution(0, 100) for _ in range(3)])
    with books.databases.worker.begin() as late:
        late.exec_driver_sql("SELECT pg_current_xact_id()")
        early_id = new_id()
        (newer,) = books.post(books.payment(books.bank, books.receivable, 30))
        during = page_of(books, books.receivable, 4)
        # The newer one is committed, but not settled while an older transaction is open; balances agree with that.
        assert newer not in [line.transaction_id for line in during.lines]
        assert during.lines[0].balance == 300
        transaction = books.contribution(0, 500)
        old = type(transaction)(
            transaction.reference, "late", DAY, transaction.postings, transaction.digest, id=early_id
        )
        books.post_in(late, [old])
    rest = page_of(books, books.receivable, 200, during.next)
    assert len(during.lines + rest.lines) == 6
    after = walk(books, books.receivable, 2)
    assert [line.transaction_id for line in after][:3] == [newer, early_id, early_id]
    assert [line.balance for line in after][:3] == [770, 800, 550]


def test_a_transaction_with_many_postings_on_an_account_is_cut_anywhere(books: Books) -> None:
    transaction = books.contribution(0, 100)
    many = type(transaction)(
        transaction.reference, "many", DAY, transaction.postings * 20, transaction.digest
    )
    books.post(many)
    assert [line.seq for line in walk(books, books.receivable, 7)] == list(range(40, 0, -1))


def test_an_account_that_is_unknown_or_hidden_has_no_statement(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.auditor.begin() as tx, pytest.raises(NotFound):
        statement(tx, new_id())
    with books.databases.api.begin() as tx, pytest.raises(NotFound):
        statement(tx, books.receivable)
    with books.databases.api.begin() as tx:
        tx.exec_driver_sql("SELECT set_config('mizan.access', 'staff', true)")
        assert len(statement(tx, books.receivable).lines) == 2


def test_the_other_sides_code_is_told_only_to_who_may_see_it(books: Books) -> None:
    books.post(books.contribution(0, 100))
    partner = new_id()
    books.tamper(
        "UPDATE ledger.account SET partner_id = %(partner)s WHERE id = %(member)s",
        partner=partner,
        member=books.members[0],
    )
    with books.databases.api.begin() as tx:
        tx.exec_driver_sql("SELECT set_config('mizan.partner', %(partner)s, true)", {"partner": str(partner)})
        (line,) = statement(tx, books.members[0]).lines
        assert (line.amount, line.balance, line.counter_code) == (50, 50, None)
        assert set(balances(tx, [books.members[0], books.members[1]])) == {books.members[0]}


def test_a_page_of_a_long_history_reads_a_page_whatever_the_statistics_say(books: Books) -> None:
    for _ in range(5):
        books.post(*[books.contribution(i % 5, 100) for i in range(300)])
    with books.databases.auditor.begin() as tx:
        first = statement(tx, books.receivable, limit=20)
    with books.databases.auditor.engine.connect() as tx:
        before = rows_read(tx)
        # Often enough on one connection for the server to make a plan that fits any account.
        for run in range(1, 13):
            assert len(statement(tx, books.receivable, limit=20, after=first.next).lines) == 20
            assert 40 <= rows_read(tx) - before <= 100 * run


def rows_read(tx: Tx) -> int:
    """Rows of the journal that this connection has read lately."""
    return int(
        tx.exec_driver_sql(
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
            " WHERE schemaname = 'ledger' AND relname ~ '^(posting|transaction)_'"
        ).scalar_one()
    )


def test_planner_settings_are_left_as_they_were(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.auditor.begin() as tx:
        statement(tx, books.receivable)
        for name in ("enable_sort", "enable_seqscan", "enable_bitmapscan"):
            assert tx.exec_driver_sql(f"SHOW {name}").scalar_one() == "on"


def test_a_limit_outside_1_to_200_is_refused(books: Books) -> None:
    for limit in (0, 201):
        with pytest.raises(InvalidInput):
            page_of(books, books.bank, limit)


@pytest.mark.parametrize(
    "shown", [None, [], [1, 2, "x", 1, 1], ["1", 2, "x", 1, 1], [1, 2, 3, 4, 5], {"a": 1}]
)
def test_what_is_no_position_is_refused(shown: object) -> None:
    with pytest.raises(InvalidInput):
        Position.from_json(shown)
