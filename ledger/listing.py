"""The books, page by page, for those who read them: accounts by id, transactions in the journal's settled order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from ledger.balances import Balance, balances
from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.horizon import AFTER, SETTLED, START, Position
from ledger.periods import BELONGS_ON


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """An account with its present balance; `owner` is a pseudonym, or empty for the fund's own accounts."""

    id: UUID
    fund: str
    code: str
    owner: str
    closed_at: datetime | None
    balance: Balance


@dataclass(frozen=True, slots=True)
class ListedPosting:
    """One posting, by the ids and codes of its accounts; a code is None where the account is hidden."""

    debit: UUID
    debit_code: str | None
    credit: UUID
    credit_code: str | None
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class ListedTransaction:
    """A transaction with its postings in order; `position` is its place in the journal.

    ``belongs_on``: the day that it belongs to, when that day's period was closed before it was booked.
    """

    id: UUID
    reference: str
    kind: str
    effective_on: date
    recorded_at: datetime
    reverses: UUID | None
    belongs_on: date | None
    postings: tuple[ListedPosting, ...]
    position: Position


def accounts(
    tx: Tx, *, fund: str | None = None, code: str | None = None, after: UUID | None = None, limit: int = 50
) -> list[ListedAccount]:
    """Accounts in the order of their ids, of one fund or code where these are given."""
    rows = (
        cursor(tx)
        .execute(
            "SELECT a.id, f.code, a.code, a.owner, a.closed_at FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
            " WHERE a.id > %(after)s AND (%(fund)s::text IS NULL OR f.code = %(fund)s)"
            " AND (%(code)s::text IS NULL OR a.code = %(code)s) ORDER BY a.id LIMIT %(limit)s",
            {"after": after or UUID(int=0), "fund": fund, "code": code, "limit": limit},
        )
        .fetchall()
    )
    held = balances(tx, [row[0] for row in rows])
    return [_account(row, held[row[0]]) for row in rows]


def account(tx: Tx, account_id: UUID) -> ListedAccount:
    """One account. Raises NotFound, also for one that row-level security hides."""
    row = (
        cursor(tx)
        .execute(
            "SELECT a.id, f.code, a.code, a.owner, a.closed_at FROM ledger.account a"
            " JOIN ledger.fund f ON f.id = a.fund_id WHERE a.id = %s",
            (account_id,),
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such account.")
    return _account(row, balances(tx, [account_id])[account_id])


def transactions(tx: Tx, *, after: Position | None = None, limit: int = 50) -> list[ListedTransaction]:
    """Transactions behind the settled horizon, in the journal's order (era, xid, id)."""
    rows = (
        cursor(tx)
        .execute(
            f"SELECT {_COLUMNS} FROM ledger.transaction WHERE {SETTLED} AND {AFTER}"
            " ORDER BY era, xid, id LIMIT %(limit)s",
            {**(after or START).parameters, "limit": limit},
        )
        .fetchall()
    )
    return _with_postings(tx, rows)


def transaction(tx: Tx, transaction_id: UUID) -> ListedTransaction:
    """One transaction, settled or not. Raises NotFound."""
    rows = (
        cursor(tx)
        .execute(f"SELECT {_COLUMNS} FROM ledger.transaction WHERE id = %s", (transaction_id,))
        .fetchall()
    )
    if not rows:
        raise NotFound("There is no such transaction.")
    return _with_postings(tx, rows)[0]


def touches(tx: Tx, transaction_id: UUID, account_ids: Sequence[UUID]) -> bool:
    """Whether a transaction debits or credits one of these accounts."""
    row = (
        cursor(tx)
        .execute(
            "SELECT 1 FROM ledger.posting WHERE transaction_id = %(id)s"
            " AND (debit_account = ANY(%(accounts)s) OR credit_account = ANY(%(accounts)s)) LIMIT 1",
            {"id": transaction_id, "accounts": list(account_ids)},
        )
        .fetchone()
    )
    return row is not None


_COLUMNS = f"""id, reference, kind, effective_on, recorded_at, reverses, (details->>'{BELONGS_ON}')::date, era, xid::text::bigint"""


def _with_postings(tx: Tx, rows: Sequence[tuple[Any, ...]]) -> list[ListedTransaction]:
    postings: dict[UUID, list[ListedPosting]] = {row[0]: [] for row in rows}
    found = cursor(tx).execute(
        "SELECT p.transaction_id, p.debit_account, d.code, p.credit_account, c.code, p.amount, p.currency"
        " FROM ledger.posting p LEFT JOIN ledger.account d ON d.id = p.debit_account"
        " LEFT JOIN ledger.account c ON c.id = p.credit_account"
        " WHERE p.transaction_id = ANY(%s) ORDER BY p.transaction_id, p.seq",
        (list(postings),),
    )
    for transaction_id, *posting in found:
        postings[transaction_id].append(ListedPosting(*posting))
    return [
        ListedTransaction(
            id_,
            reference,
            kind,
            effective_on,
            recorded_at,
            reverses,
            belongs_on,
            tuple(postings[id_]),
            Position(era, xid, id_),
        )
        for id_, reference, kind, effective_on, recorded_at, reverses, belongs_on, era, xid in rows
    ]


def _account(row: tuple[Any, ...], balance: Balance) -> ListedAccount:
    id_, fund, code, owner, closed_at = row
    return ListedAccount(id_, fund, code, owner, closed_at, balance)
