"""An account is always within its limits: none is set, or opened with, that it is beyond already."""

import pytest
from sqlalchemy.exc import DBAPIError

from ledger import holds
from ledger.accounts import AccountKind, AccountSpec, open_accounts, set_limits
from ledger.errors import AccountError
from ledger.verify import verify
from tests.conftest import Databases
from tests.integration.ledger.books import Books, transfer


@pytest.fixture
def books(databases: Databases) -> Books:
    return Books.open(databases.worker)


@pytest.mark.parametrize("kind", ["liability", "asset"])
@pytest.mark.parametrize(("floor", "ceiling"), [(31, None), (None, 29)])
def test_a_limit_that_the_balance_is_beyond_is_refused(
    books: Books, databases: Databases, kind: AccountKind, floor: int | None, ceiling: int | None
) -> None:
    limited, other = books.account("limited", kind), books.account("other")
    books.post(transfer("a", *((other, limited) if kind == "liability" else (limited, other)), 30))
    with pytest.raises(AccountError) as refused, databases.worker.begin() as tx:
        set_limits(tx, limited, floor=floor, ceiling=ceiling)
    assert refused.value.code == "limit_beyond_balance"
    with databases.auditor.read() as tx:
        assert verify(tx).ok


def test_what_is_held_counts_for_a_floor_and_not_for_a_ceiling(books: Books, databases: Databases) -> None:
    savings = books.account("savings")
    books.fund_account(savings, 30)
    with databases.worker.begin() as tx:
        holds.place(tx, savings, 10, reference="h", clock=books.clock)
    with pytest.raises(AccountError), databases.worker.begin() as tx:
        set_limits(tx, savings, floor=21, ceiling=None)
    with pytest.raises(AccountError), databases.worker.begin() as tx:
        set_limits(tx, savings, floor=None, ceiling=29)
    with databases.worker.begin() as tx:
        set_limits(tx, savings, floor=20, ceiling=30)


def test_an_account_is_stopped_where_it_stands(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    books.fund_account(savings, 30)
    with databases.worker.begin() as tx:
        set_limits(tx, savings, floor=30, ceiling=30)
    answers = books.post(transfer("more", bank, savings, 1), transfer("less", savings, bank, 1))
    assert [answer.reason for answer in answers] == ["ceiling_exceeded", "insufficient_funds"]


@pytest.mark.parametrize(("floor", "ceiling"), [(1, None), (None, -1)])
def test_an_account_opens_within_its_limits(
    books: Books, databases: Databases, floor: int | None, ceiling: int | None
) -> None:
    with pytest.raises(AccountError) as refused, databases.worker.begin() as tx:
        open_accounts(
            tx,
            [AccountSpec(books.fund_id, "s", "", "liability", "PHP", floor=floor, ceiling=ceiling)],
        )
    assert refused.value.code == "limit_beyond_balance"
    with pytest.raises(DBAPIError, match="opens within its limits"), databases.worker.begin() as tx:
        tx.exec_driver_sql(
            "insert into ledger.account (id, fund_id, code, kind, currency, floor, ceiling)"
            " values (gen_random_uuid(), %s, 's', 'liability', 'PHP', %s, %s)",
            (books.fund_id, floor, ceiling),
        )
