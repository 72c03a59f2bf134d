"""Accounts at banks: which ledger account each mirrors, whose accounts are on the other side, and what is missing of their statements."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints
from starlette.responses import Response

from api import bank_statements
from api.csv_export import CSV, AsCsv, export
from api.deps import Call, calling, path_id, writing
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.v1.schemas import (
    ROUTE_CLASS,
    Currency,
    Day,
    In,
    Instant,
    MoneyOut,
    Out,
    Page,
    Slug,
    Text,
    errors,
)
from integrations.bank_statements import csv_mapping
from ledger.ids import parse_public_id, public_id
from ledger.reconciliation import bank_accounts, counterparties, gaps
from ledger.reconciliation.bank_accounts import BankAccount, NewBankAccount
from ledger.reconciliation.counterparties import Counterparty, Source
from ledger.reconciliation.gaps import Gap, GapKind

router = APIRouter(prefix="/v1/bank-accounts", tags=["reconciliation"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("reconciliation:read")]
Writing = Annotated[Call, writing("reconciliation:write")]
AccountSlug = Annotated[Slug, Path(description="the bank account's name", examples=["kigali-savers"])]
CounterpartyId = Annotated[str, Path(max_length=64, examples=[f"{bank_statements.COUNTERPARTY}_{'0' * 26}"])]
Number = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=bank_accounts.IDENTIFICATION_CHARACTERS_MAX,
        pattern=r"^[^\x00-\x1f\x7f]*[!-~][^\x00-\x1f\x7f]*$",
        strict=True,
    ),
]
Numbers = Annotated[list[Number], Field(max_length=bank_accounts.NAMES_MAX)]


class BankAccountIn(In):
    """An account at a bank, or a rail's wallet, and the books' account that mirrors it: the fund's bank, or the rail's float."""

    slug: Annotated[Slug, Field(examples=["kigali-savers"])]
    name: Annotated[Text, Field(examples=["Savers, Bank of Kigali"])]
    fund: Annotated[str, Field(max_length=200, description="the fund's code", examples=["ejoheza/savers"])]
    currency: Annotated[Currency, Field(examples=["RWF"])]
    rail: Annotated[
        Slug | None, Field(description="the rail whose float it holds; null: it is the fund's bank account")
    ] = None
    identification: Annotated[
        Number, Field(description="IBAN, or the bank's own number", examples=["RW38 0001"])
    ]
    also_known_as: Annotated[
        Numbers, Field(default_factory=list, description="other ways in which the bank's files write it")
    ]
    servicer: Annotated[Text | None, Field(description="the bank", examples=["BKIGRWRW"])] = None
    statements_since: Annotated[Day, Field(description="the first day that statements are expected for")]
    statements_until: Annotated[
        Day | None, Field(description="the last day; null: for as long as it is open")
    ] = None


class BankAccountChangeIn(In):
    """What is to be changed; what is left out stays. `null` takes away what may be absent."""

    name: Annotated[Text | None, Field(description="what it is called")] = None
    also_known_as: Numbers | None = None
    servicer: Text | None = None
    statements_since: Day | None = None
    statements_until: Day | None = None
    statement_mapping: Annotated[
        dict[str, Any] | None,
        Field(
            description="how its CSV files are read, as its JSON Schema says: `mizan reconcile account mapping --schema`"
        ),
    ] = None


class BankAccountOut(Out):
    """An account at a bank."""

    id: Annotated[str, Field(examples=[f"{bank_statements.ACCOUNT}_{'0' * 26}"])]
    slug: str
    name: str
    fund: str
    currency: str
    account: Annotated[str, Field(description="the books' account that mirrors it, `acc_…`")]
    rail: str | None
    identification: str
    also_known_as: list[str]
    servicer: str | None
    statements_since: Day
    statements_until: Day | None
    statement_mapping: dict[str, Any] | None
    opened_at: Instant


class GapOut(Out):
    """What doesn't fit between two statements, in the order of days. `harmless`: it leaves nothing in doubt."""

    kind: GapKind
    harmless: bool
    from_on: Day
    to_on: Day
    before: Annotated[str | None, Field(description="the statement before, `bst_…`")]
    statement: Annotated[str | None, Field(description="the statement after, `bst_…`")]
    expected: Annotated[MoneyOut | None, Field(description="the balance that it should open with")]
    found: Annotated[MoneyOut | None, Field(description="the balance that it opens with")]
    first_number: Annotated[int | None, Field(description="the first number that is left out")]
    last_number: Annotated[int | None, Field(description="the last number that is left out")]


class CounterpartyIn(In):
    """An account on the other side, and whose it is."""

    identification: Annotated[
        Number, Field(description="IBAN, or its bank's own number", examples=["AE07 0331"])
    ]
    party: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[!-~]+$",
            description="a partner's slug, or a name of yours",
            examples=["acme"],
        ),
    ]


class CounterpartyOut(Out):
    """An account that is known as a party's; of its number the last characters alone are told."""

    id: Annotated[str, Field(examples=[f"{bank_statements.COUNTERPARTY}_{'0' * 26}"])]
    ending: str
    party: str
    source: Source
    added_by: str
    added_at: Instant


@router.post(
    "",
    operation_id="add_bank_account",
    summary="Add a bank account",
    status_code=201,
    responses=errors(409),
)
def add_bank_account(body: BankAccountIn, call: Writing) -> BankAccountOut:
    """Say which account at a bank the books' account mirrors. One for each fund and currency, and one for each rail's float."""
    mirrored = bank_statements.mirrored_account(
        call.tx, body.fund, body.currency, body.rail, funds=_funds(call)
    )
    added = bank_accounts.add(
        call.tx,
        call.services.clock,
        NewBankAccount(
            body.slug,
            body.name,
            mirrored,
            body.identification,
            body.statements_since,
            tuple(body.also_known_as),
            body.servicer,
            body.statements_until,
        ),
    )
    call.audit("bank_account.added", added.slug, fund=added.fund, identification=added.identification)
    return shown(added)


@router.get("", operation_id="list_bank_accounts", summary="List bank accounts", responses=errors())
def list_bank_accounts(
    call: Reading, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[BankAccountOut]:
    """Bank accounts by name."""
    at = call.read_cursor(cursor, "bank-accounts")
    rows = [one for one in bank_accounts.every(call.tx) if at is None or one.slug > str(at[0])]
    last: list[int | str] | None = [rows[limit - 1].slug] if len(rows) > limit else None
    return Page(
        data=[shown(one) for one in rows[:limit]], next_cursor=call.write_cursor(last, "bank-accounts")
    )


@router.get(
    "/{bank_account}",
    operation_id="get_bank_account",
    summary="Read a bank account",
    responses=errors(),
)
def get_bank_account(bank_account: AccountSlug, call: Reading) -> BankAccountOut:
    """The account, and how its files are read."""
    return shown(bank_accounts.by_slug(call.tx, bank_account))


@router.patch(
    "/{bank_account}",
    operation_id="change_bank_account",
    summary="Change a bank account",
    responses=errors(409),
)
def change_bank_account(
    bank_account: AccountSlug, body: BankAccountChangeIn, call: Writing
) -> BankAccountOut:
    """Change what it is called, how its files are read, and for which days statements are expected.

    Its number, its currency and the books' account stay for ever.
    """
    found = bank_accounts.by_slug(call.tx, bank_account, funds=_funds(call))
    given = {name: getattr(body, name) for name in body.model_fields_set}
    if given.get("statement_mapping") is not None:
        csv_mapping.parse(given["statement_mapping"])
    changed = bank_accounts.change(call.tx, found.id, **given)
    call.audit(
        "bank_account.changed", changed.slug, before=_values(found, given), after=_values(changed, given)
    )
    return shown(changed)


@router.get(
    "/{bank_account}/gaps",
    operation_id="list_statement_gaps",
    summary="List gaps between statements",
    response_model=Page[GapOut],
    responses={200: CSV, **errors()},
)
def list_statement_gaps(
    bank_account: AccountSlug,
    call: Reading,
    as_csv: AsCsv,
    through: Annotated[
        Day | None, Query(description="the day that statements should have reached; none when left out")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[GapOut] | Response:
    """Days without a statement, balances that don't continue, numbers left out, and overlaps."""
    account = bank_accounts.by_slug(call.tx, bank_account)
    found = gaps.gaps(call.tx, account.id, through=through)
    filters: dict[str, Any] = {"account": bank_account, "through": str(through)}

    def page(limit: int, cursor: str | None) -> Page[GapOut]:
        at = call.read_cursor(cursor, "statement-gaps", **filters)
        start = int(at[0]) if at else 0
        rows = found[start : start + limit]
        last: list[int | str] | None = [start + limit] if len(found) > start + limit else None
        return Page(
            data=[_gap(one, account.currency) for one in rows],
            next_cursor=call.write_cursor(last, "statement-gaps", **filters),
        )

    if as_csv:
        return export(call, "gaps", GapOut, lambda after: page(LIMIT_MAX, after), cursor)
    return page(limit, cursor)


@router.post(
    "/{bank_account}/counterparties",
    operation_id="add_bank_counterparty",
    summary="Say whose account the other side is",
    status_code=201,
    responses=errors(),
)
def add_bank_counterparty(bank_account: AccountSlug, body: CounterpartyIn, call: Writing) -> CounterpartyOut:
    """Know an account as a party's from now on. Lines here that name no party get it."""
    account = bank_accounts.by_slug(call.tx, bank_account, funds=_funds(call))
    added = counterparties.add(
        call.tx,
        call.services.keyring,
        call.services.clock,
        account.id,
        body.identification,
        body.party,
        by=call.actor.id,
    )
    call.audit("bank_counterparty.added", bank_account, party=body.party)
    return _counterparty(added)


@router.get(
    "/{bank_account}/counterparties",
    operation_id="list_bank_counterparties",
    summary="List known counterparties",
    responses=errors(),
)
def list_bank_counterparties(
    bank_account: AccountSlug, call: Reading, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[CounterpartyOut]:
    """Accounts on the other side whose owners are known, the newest first."""
    account = bank_accounts.by_slug(call.tx, bank_account)
    at = call.read_cursor(cursor, "bank-counterparties", account=bank_account)
    after = parse_public_id(bank_statements.COUNTERPARTY, str(at[0])) if at else None
    rows = counterparties.every(call.tx, account.id, after=after, limit=limit + 1)
    last: list[int | str] | None = (
        [public_id(bank_statements.COUNTERPARTY, rows[limit - 1].id)] if len(rows) > limit else None
    )
    return Page(
        data=[_counterparty(one) for one in rows[:limit]],
        next_cursor=call.write_cursor(last, "bank-counterparties", account=bank_account),
    )


@router.delete(
    "/{bank_account}/counterparties/{counterparty}",
    operation_id="end_bank_counterparty",
    summary="Know a counterparty no longer",
    status_code=204,
    responses=errors(),
)
def end_bank_counterparty(bank_account: AccountSlug, counterparty: CounterpartyId, call: Writing) -> None:
    """Lines that come in from now on get no party by this account; those here keep theirs."""
    account = bank_accounts.by_slug(call.tx, bank_account, funds=_funds(call))
    ended = path_id(bank_statements.COUNTERPARTY, counterparty)
    counterparties.end(call.tx, call.services.clock, account.id, ended)
    call.audit("bank_counterparty.ended", f"{bank_account}/{counterparty}")


def shown(one: BankAccount) -> BankAccountOut:
    """A bank account as it is told."""
    return BankAccountOut(
        id=public_id(bank_statements.ACCOUNT, one.id),
        slug=one.slug,
        name=one.name,
        fund=one.fund,
        currency=one.currency,
        account=public_id("acc", one.account_id),
        rail=one.owner or None,
        identification=one.identification,
        also_known_as=list(one.also_known_as),
        servicer=one.servicer,
        statements_since=one.statements_since,
        statements_until=one.statements_until,
        statement_mapping=dict(one.statement_mapping) if one.statement_mapping is not None else None,
        opened_at=one.opened_at,
    )


def _funds(call: Call) -> frozenset[UUID] | None:
    """The funds that the caller may write for; row-level security does not hold for who writes."""
    return bank_statements.funds_of(call.tx, call.actor.sight(["reconciliation:write"]).programmes)


def _values(one: BankAccount, given: Mapping[str, object]) -> dict[str, object]:
    return {name: getattr(one, name) for name in given}


def _gap(one: Gap, currency: str) -> GapOut:
    return GapOut(
        kind=one.kind,
        harmless=one.harmless,
        from_on=one.from_on,
        to_on=one.to_on,
        before=_statement(one.before),
        statement=_statement(one.statement),
        expected=_money(one.expected, currency),
        found=_money(one.found, currency),
        first_number=one.numbers[0] if one.numbers else None,
        last_number=one.numbers[1] if one.numbers else None,
    )


def _statement(one: UUID | None) -> str | None:
    return public_id(bank_statements.STATEMENT, one) if one is not None else None


def _money(amount: int | None, currency: str) -> MoneyOut | None:
    return MoneyOut.of(amount, currency) if amount is not None else None


def _counterparty(one: Counterparty) -> CounterpartyOut:
    return CounterpartyOut(
        id=public_id(bank_statements.COUNTERPARTY, one.id),
        ending=one.ending,
        party=one.party,
        source=one.source,
        added_by=one.added_by,
        added_at=one.added_at,
    )
