"""The books, for managers and auditors: accounts, transactions, trial balance, and the published seals."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from api.csv_export import CSV, AsCsv, columns, export, file, flat
from api.deps import Call, calling, path_id, services
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, Day, Instant, MoneyOut, Out, Page, errors
from ledger import listing
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import public_id
from ledger.seals import heads, public_keys
from ledger.statements import Position as StatementPosition
from ledger.statements import statement
from ledger.trial_balance import trial_balance

router = APIRouter(tags=["ledger"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("ledger:read")]
FundCode = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[!-~]+$", description="a fund's code", examples=["ejoheza/savers"]),
]
AccountCode = Annotated[
    str | None,
    Query(max_length=100, pattern=r"^[a-z0-9_]+$", description="an account's code", examples=["bank"]),
]


class LedgerAccountOut(Out):
    """An account and what it holds now, on its normal side."""

    id: Annotated[str, Field(examples=[f"acc_{'0' * 26}"])]
    fund: str
    code: str
    owner: Annotated[str, Field(description="a pseudonym; empty for the fund's own accounts")]
    kind: str
    posted: MoneyOut
    held: MoneyOut
    available: MoneyOut
    closed_at: Instant | None


class PostingOut(Out):
    """One amount from one debited to one credited account."""

    debit: str
    debit_code: str | None
    credit: str
    credit_code: str | None
    amount: MoneyOut


class TransactionOut(Out):
    """An atomic, ordered list of postings."""

    id: Annotated[str, Field(examples=[f"txn_{'0' * 26}"])]
    reference: str
    kind: str
    effective_on: Day
    recorded_at: Instant
    reverses: str | None
    belongs_on: Annotated[
        Day | None,
        Field(description="the day that it belongs to, whose period was closed when it was booked"),
    ]
    postings: list[PostingOut]


class LineOut(Out):
    """One posting as an account sees it; the amount is positive when the account's normal side grew."""

    transaction: str
    kind: str
    effective_on: Day
    recorded_at: Instant
    counter_code: str | None
    amount: MoneyOut
    balance: MoneyOut


class TrialLine(Out):
    """All accounts of one code."""

    code: str
    kind: str
    debit: int
    credit: int


class TrialFund(Out):
    """One fund in one currency; the totals are equal."""

    fund: str
    currency: str
    accounts: list[TrialLine]
    debit_total: int
    credit_total: int


class TrialBalanceOut(Out):
    """The trial balance, by fund and currency, in minor units."""

    as_of: Annotated[
        str, Field(description="the day asked for, or else the time of this answer", examples=["2026-03-02"])
    ]
    data: list[TrialFund]


class SealsOut(Out):
    """Published seals, oldest first, and every key that ever signed one."""

    keys: Annotated[dict[str, str], Field(description="Ed25519 public keys by id, in hexadecimal")]
    seals: list[dict[str, Any]]
    next_after: Annotated[int | None, Field(description="`after` of the next page; null on the last")]


@router.get("/v1/ledger/accounts", operation_id="list_accounts", summary="List accounts", responses=errors())
def list_accounts(
    call: Reading,
    fund: FundCode = None,
    code: AccountCode = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[LedgerAccountOut]:
    """Accounts in the order in which they were opened, with their present balances."""
    at = call.read_cursor(cursor, "accounts", fund=fund, code=code)
    rows = listing.accounts(
        call.tx, fund=fund, code=code, after=UUID(str(at[0])) if at else None, limit=limit + 1
    )
    shown = rows[:limit]
    position: list[int | str] | None = [str(shown[-1].id)] if len(rows) > limit else None
    return Page(
        data=[account_out(row) for row in shown],
        next_cursor=call.write_cursor(position, "accounts", fund=fund, code=code),
    )


@router.get(
    "/v1/ledger/accounts/{account}", operation_id="get_account", summary="Read an account", responses=errors()
)
def get_account(account: Annotated[str, Path(max_length=64)], call: Reading) -> LedgerAccountOut:
    """One account with its present balance."""
    return account_out(listing.account(call.tx, path_id("acc", account)))


@router.get(
    "/v1/ledger/accounts/{account}/statement",
    operation_id="get_account_statement",
    summary="Read an account's statement",
    response_model=Page[LineOut],
    responses={200: CSV, **errors()},
)
def get_account_statement(
    account: Annotated[str, Path(max_length=64)],
    call: Reading,
    as_csv: AsCsv,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[LineOut] | Response:
    """What moved on the account, newest first, each line with the balance after it."""
    return statement_of(call, "account_statement", path_id("acc", account), limit, cursor, as_csv=as_csv)


@router.get(
    "/v1/ledger/transactions",
    operation_id="list_transactions",
    summary="List transactions",
    response_model=Page[TransactionOut],
    responses={200: CSV, **errors()},
)
def list_transactions(
    call: Reading, as_csv: AsCsv, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[TransactionOut] | Response:
    """Transactions behind the settled horizon, in the order of the journal: nothing appears behind a cursor later.

    As CSV each posting has a row of its own.
    """
    if as_csv:
        return export(
            call, "transactions", TransactionOut, lambda after: _transactions(call, LIMIT_MAX, after), cursor
        )
    return _transactions(call, limit, cursor)


def _transactions(call: Call, limit: int, cursor: str | None) -> Page[TransactionOut]:
    after = call.read_position(cursor, "transactions")
    rows = listing.transactions(call.tx, after=after, limit=limit + 1)
    shown = rows[:limit]
    last = shown[-1].position if len(rows) > limit else None
    return Page(
        data=[transaction_out(row) for row in shown],
        next_cursor=call.write_position(last, "transactions"),
    )


@router.get(
    "/v1/ledger/transactions/{transaction}",
    operation_id="get_transaction",
    summary="Read a transaction",
    responses=errors(),
)
def get_transaction(transaction: Annotated[str, Path(max_length=64)], call: Reading) -> TransactionOut:
    """One transaction with its postings."""
    return transaction_out(listing.transaction(call.tx, path_id("txn", transaction)))


@router.get(
    "/v1/ledger/trial-balance",
    operation_id="get_trial_balance",
    summary="Read the trial balance",
    response_model=TrialBalanceOut,
    responses={200: CSV, **errors()},
)
def get_trial_balance(
    call: Reading, as_csv: AsCsv, as_of: Day | None = None, fund: FundCode = None
) -> TrialBalanceOut | Response:
    """Every fund, or one, in each of its currencies: debits beside credits, and that they tie."""
    chosen = _fund(call.tx, fund) if fund is not None else None
    found = trial_balance(call.tx, as_of=as_of, fund=chosen)
    shown_as_of = (as_of or call.now).isoformat()
    data = [TrialFund.model_validate(one.to_json()) for one in found]
    if as_csv:
        name = f"trial-balance-{shown_as_of[:10]}"
        return file(name, columns(TrialFund), (row for one in data for row in flat(one)))
    return TrialBalanceOut(as_of=shown_as_of, data=data)


@router.get(
    "/.well-known/mizan-seals",
    operation_id="get_seals",
    summary="The published seals",
    responses={status: shown for status, shown in errors().items() if status in (400, 413, 415, 422, 503)},
)
def get_seals(
    request: Request,
    after: Annotated[int, Query(ge=0, le=2**62, description="the last seal's number that you have")] = 0,
) -> SealsOut:
    """The chain's heads, for whoever keeps a copy outside our reach; old keys stay for ever."""
    with services(request).api.begin() as tx:
        found = heads(tx, after=after, limit=SEALS_MAX + 1)
        keys = public_keys(tx)
    more = len(found) > SEALS_MAX
    return SealsOut(
        keys={key_id: key.hex() for key_id, key in keys.items()},
        seals=[one.to_json() for one in found[:SEALS_MAX]],
        next_after=found[SEALS_MAX - 1].number if more else None,
    )


SEALS_MAX = 200


def statement_of(
    call: Call, route: str, account_id: UUID, limit: int, cursor: str | None, *, as_csv: bool
) -> Page[LineOut] | Response:
    """An account's statement: a page of it, or all that is left of it as CSV."""
    if not as_csv:
        return statement_page(call, route, account_id, limit, cursor)
    return export(
        call,
        "statement",
        LineOut,
        lambda after: statement_page(call, route, account_id, LIMIT_MAX, after),
        cursor,
    )


def statement_page(
    call: Call, route: str, account_id: UUID, limit: int, cursor: str | None, **filters: object
) -> Page[LineOut]:
    """A page of an account's statement, as a list of the API."""
    at = call.read_cursor(cursor, route, account=account_id, **filters)
    after = StatementPosition.from_json(at) if at is not None else None
    page = statement(call.tx, account_id, limit=limit, after=after)
    position = page.next.to_json() if page.next is not None else None
    return Page(
        data=[
            LineOut(
                transaction=public_id("txn", line.transaction_id),
                kind=line.kind,
                effective_on=line.effective_on,
                recorded_at=line.recorded_at,
                counter_code=line.counter_code,
                amount=MoneyOut.of(line.amount, page.currency),
                balance=MoneyOut.of(line.balance, page.currency),
            )
            for line in page.lines
        ],
        next_cursor=call.write_cursor(position, route, account=account_id, **filters),
    )


def account_out(account: listing.ListedAccount) -> LedgerAccountOut:
    """An account in the API's shape."""
    balance = account.balance
    return LedgerAccountOut(
        id=public_id("acc", account.id),
        fund=account.fund,
        code=account.code,
        owner=account.owner,
        kind=balance.kind,
        posted=MoneyOut.of(balance.posted, balance.currency),
        held=MoneyOut.of(balance.held, balance.currency),
        available=MoneyOut.of(balance.available, balance.currency),
        closed_at=account.closed_at,
    )


def transaction_out(transaction: listing.ListedTransaction) -> TransactionOut:
    """A transaction in the API's shape."""
    return TransactionOut(
        id=public_id("txn", transaction.id),
        reference=transaction.reference,
        kind=transaction.kind,
        effective_on=transaction.effective_on,
        recorded_at=transaction.recorded_at,
        reverses=public_id("txn", transaction.reverses) if transaction.reverses else None,
        belongs_on=transaction.belongs_on,
        postings=[
            PostingOut(
                debit=public_id("acc", posting.debit),
                debit_code=posting.debit_code,
                credit=public_id("acc", posting.credit),
                credit_code=posting.credit_code,
                amount=MoneyOut.of(posting.amount, posting.currency),
            )
            for posting in transaction.postings
        ],
    )


def _fund(tx: Tx, code: str) -> UUID:
    found: UUID | None = tx.exec_driver_sql("SELECT id FROM ledger.fund WHERE code = %s", (code,)).scalar()
    if found is None:
        raise NotFound("There is no such fund.")
    return found
