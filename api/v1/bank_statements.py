"""Bank statements: bringing files in, and reading what they said."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from api import bank_statements, uploads
from api.bank_statements import Ask
from api.csv_export import CSV, AsCsv, export
from api.deps import Call, calling, path_id, writing
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, Day, In, Instant, MoneyOut, Out, Page, Slug, errors
from integrations.bank_statements.canonical import Format, Told
from ledger.database import Database
from ledger.errors import NotFound
from ledger.ids import parse_public_id, public_id
from ledger.money import AMOUNT_MAX
from ledger.reconciliation import bank_accounts, files, reading, withdrawals
from ledger.reconciliation.files import StatementFile
from ledger.reconciliation.importing import Imported
from ledger.reconciliation.pairings import REMARK_MAX
from ledger.reconciliation.reading import BankStatement, StatementLine
from ledger.reconciliation.sealing import LineText
from products.keyring import Keyring

router = APIRouter(tags=["reconciliation"], route_class=ROUTE_CLASS)

PREFIX: Final = bank_statements.STATEMENT
MEDIA_TYPE: Final = "application/octet-stream"

Reading = Annotated[Call, calling("reconciliation:read")]
Writing = Annotated[Call, writing("reconciliation:write")]
StatementId = Annotated[
    str, Path(max_length=64, description="a statement's id, `bst_…`", examples=[f"{PREFIX}_{'0' * 26}"])
]
OfAccount = Annotated[Slug | None, Query(description="only this bank account's")]
Balance = Annotated[
    int | None,
    Query(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="in minor units, for CSV without balances"),
]
FormatName = Literal["camt.053", "mt940", "csv"]


class InStatementOut(Out):
    """One statement that came in. `duplicates`: lines of it that overlapping statements had before."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    bank_account: str
    lines: int
    duplicates: int


class ImportedOut(Out):
    """What became of a file. `duplicate`: it is here already, and nothing changed."""

    file: Annotated[str, Field(examples=[f"{bank_statements.FILE}_{'0' * 26}"])]
    sha256: str
    duplicate: bool
    statements: list[InStatementOut]
    lines: int
    skipped: Annotated[
        int,
        Field(description="statements of other accounts, left out; they come in when the file comes again"),
    ]
    skipped_accounts: list[str]


class StatementWithdrawalOut(Out):
    """Who withdrew a statement that came in by mistake, and why."""

    at: Instant
    by: str
    remark: str


class StatementWithdrawalIn(In):
    """Why the statement is withdrawn."""

    remark: Annotated[str, Field(min_length=1, max_length=REMARK_MAX, examples=["another fund's account"])]


class BankStatementOut(Out):
    """A statement of one account: its opening balance and its lines make its closing balance."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    bank_account: str
    identification: Annotated[str | None, Field(description="the bank's id of it")]
    number: Annotated[str | None, Field(description="the bank's running number")]
    from_on: Day
    to_on: Day
    opening: MoneyOut
    closing: MoneyOut
    lines: int
    duplicates: int
    made_at: Annotated[Instant | None, Field(description="by the bank's clock")]
    imported_at: Instant
    file: str
    file_name: str
    format: str
    sha256: str
    position: Annotated[int, Field(description="which statement of the file it is")]
    withdrawn: Annotated[
        StatementWithdrawalOut | None,
        Field(description="it came in by mistake: it counts nowhere, and its lines take part in nothing"),
    ]


class StatementLineOut(Out):
    """A line of a statement. What is personal in it is null once its member is erased, or the file's time is over."""

    id: Annotated[str, Field(examples=[f"{bank_statements.LINE}_{'0' * 26}"])]
    entry: int
    detail: Annotated[int, Field(description="0: an entry without details")]
    booked_on: Day
    value_on: Day
    amount: Annotated[MoneyOut, Field(description="positive when money came in")]
    kind: Annotated[str | None, Field(description="the bank's code")]
    reversal: bool
    end_to_end: str | None
    reference: str | None
    identifiers: Annotated[
        list[str], Field(description="its other references, and what the rules found in its text")
    ]
    party: Annotated[str | None, Field(description="whose the other side is, where that is known")]
    duplicate_of: Annotated[
        str | None,
        Field(description="the same line of an overlapping statement: this one takes part in nothing"),
    ]
    text: str | None
    counterparty: str | None
    counterparty_account: str | None


@router.post(
    uploads.BANK_STATEMENTS,
    operation_id="import_bank_statement",
    summary="Bring in a bank's file",
    status_code=201,
    openapi_extra=uploads.described(
        MEDIA_TYPE, "camt.053 (02 to 13), MT940, or CSV as its account's mapping says"
    ),
    responses={
        200: {"model": ImportedOut, "description": "The same file is here already; nothing changed."},
        **errors(),
    },
)
def import_bank_statement(
    call: Writing,
    response: Response,
    account: Annotated[
        Slug | None, Query(description="the bank account that the file is of, where it doesn't say so: CSV")
    ] = None,
    only: Annotated[
        list[Slug] | None,
        Query(
            max_length=100, description="bring in these bank accounts' statements, and leave out all others"
        ),
    ] = None,
    name: Annotated[str, Query(max_length=200, description="the file's name")] = "statement",
    format: Annotated[  # noqa: A002  the parameter's published name
        FormatName | None, Query(description="the content tells when left out")
    ] = None,
    opening: Balance = None,
    closing: Balance = None,
    from_on: Annotated[Day | None, Query(description="the first day, for CSV that doesn't say it")] = None,
    to_on: Annotated[Day | None, Query(description="the last day, for CSV that doesn't say it")] = None,
) -> ImportedOut:
    """Bring in a bank's file, of up to 256 MiB: all statements in it, or nothing.

    Each must add up (opening balance + lines = closing balance), and be of a bank account that was added. The same file a
    second time changes nothing and is answered with 200.
    """
    content = uploads.spooled(call)
    # a refusal is found in the audit log by the file
    call.request.state.audit_object = f"sha256:{bank_statements.digest_of(content)[0].hex()}"
    imported, digest = bank_statements.bring_in(
        call.tx,
        call.services,
        content,
        Ask(
            name=name,
            by=call.actor.id,
            account=account,
            only=frozenset(only) if only else None,
            fmt=Format(format) if format is not None else None,
            told=Told(opening=opening, closing=closing, from_on=from_on, to_on=to_on),
            funds=_funds(call),
        ),
    )
    shown = imported_out(imported, digest)
    call.audit(
        "bank_statement.imported",
        shown.file,
        sha256=digest,
        statements=len(shown.statements),
        lines=shown.lines,
        duplicate=shown.duplicate,
    )
    if shown.duplicate:
        response.status_code = 200
    return shown


@router.get(
    uploads.BANK_STATEMENTS,
    operation_id="list_bank_statements",
    summary="List bank statements",
    response_model=Page[BankStatementOut],
    responses={200: CSV, **errors()},
)
def list_bank_statements(
    call: Reading,
    as_csv: AsCsv,
    account: OfAccount = None,
    from_on: Annotated[Day | None, Query(description="only those with days from this one on")] = None,
    to_on: Annotated[Day | None, Query(description="only those with days up to this one")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[BankStatementOut] | Response:
    """Statements, the latest that came in first."""
    of = bank_accounts.by_slug(call.tx, account).id if account is not None else None
    filters: dict[str, Any] = {"account": account, "from": str(from_on), "to": str(to_on)}

    def page(limit: int, cursor: str | None) -> Page[BankStatementOut]:
        at = call.read_cursor(cursor, "bank-statements", **filters)
        rows = reading.statements(
            call.tx,
            bank_account_id=of,
            from_on=from_on,
            to_on=to_on,
            before=parse_public_id(PREFIX, str(at[0])) if at else None,
            limit=limit + 1,
        )
        shown = rows[:limit]
        last: list[int | str] | None = [public_id(PREFIX, shown[-1].id)] if len(rows) > limit else None
        return Page(
            data=[_statement(one) for one in shown],
            next_cursor=call.write_cursor(last, "bank-statements", **filters),
        )

    if as_csv:
        return export(call, "bank-statements", BankStatementOut, lambda after: page(LIMIT_MAX, after), cursor)
    return page(limit, cursor)


@router.get(
    f"{uploads.BANK_STATEMENTS}/{{bank_statement}}",
    operation_id="get_bank_statement",
    summary="Read a bank statement",
    responses=errors(),
)
def get_bank_statement(bank_statement: StatementId, call: Reading) -> BankStatementOut:
    """Its days, its balances, and the file that it came in."""
    return _statement(reading.statement(call.tx, path_id(PREFIX, bank_statement)))


@router.get(
    f"{uploads.BANK_STATEMENTS}/{{bank_statement}}/lines",
    operation_id="list_statement_lines",
    summary="List a statement's lines",
    response_model=Page[StatementLineOut],
    responses={200: CSV, **errors()},
)
def list_statement_lines(
    bank_statement: StatementId,
    call: Reading,
    as_csv: AsCsv,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[StatementLineOut] | Response:
    """Lines in the order of the statement, with their texts."""
    of = reading.statement(call.tx, path_id(PREFIX, bank_statement))

    def page(limit: int, cursor: str | None) -> Page[StatementLineOut]:
        at = call.read_cursor(cursor, "statement-lines", statement=bank_statement)
        rows = reading.lines(
            call.tx, of.id, after=(int(at[0]), int(at[1])) if at else (0, 0), limit=limit + 1
        )
        shown = rows[:limit]
        texts = reading.texts(call.tx, call.services.keyring, [one.id for one in shown])
        last: list[int | str] | None = [shown[-1].entry, shown[-1].detail] if len(rows) > limit else None
        return Page(
            data=[_line(one, texts.get(one.id, LineText())) for one in shown],
            next_cursor=call.write_cursor(last, "statement-lines", statement=bank_statement),
        )

    if as_csv:
        return export(call, "statement-lines", StatementLineOut, lambda after: page(LIMIT_MAX, after), cursor)
    return page(limit, cursor)


@router.get(
    f"{uploads.BANK_STATEMENTS}/{{bank_statement}}/file",
    operation_id="get_bank_statement_file",
    summary="Fetch the file of a bank statement",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The file as it came.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **errors(409),
    },
)
def get_bank_statement_file(bank_statement: StatementId, call: Reading) -> StreamingResponse:
    """The file as it came, byte by byte; by its SHA-256 anybody can tell. Who fetches it is in the audit log.

    Who doesn't see all of its statements doesn't see the file.
    """
    of = reading.statement(call.tx, path_id(PREFIX, bank_statement))
    file = files.by_id(call.tx, of.file_id)
    if len(reading.of_file(call.tx, file.id)) < file.statements or (
        file.skipped and call.actor.sight(["reconciliation:read"]).programmes is not None
    ):
        raise NotFound("There is nothing of this id.")
    first = files.piece(call.tx, call.services.keyring, file, 1)
    call.audit("bank_statement_file.fetched", bank_statement, sha256=file.digest.hex())
    return StreamingResponse(
        _pieces(call.services.worker, call.services.keyring, file, first),
        media_type=MEDIA_TYPE,
        headers={
            "Content-Disposition": f'attachment; filename="{file.digest.hex()[:16]}.{_ENDINGS[Format(file.format)]}"',
            "Content-Length": str(file.size_bytes),
        },
    )


_ENDINGS: Final = {Format.CAMT053: "xml", Format.MT940: "sta", Format.CSV: "csv"}


def _pieces(database: Database, keyring: Keyring, file: StatementFile, first: bytes) -> Iterator[bytes]:
    """The file, each piece in a transaction of its own: nobody who reads slowly keeps one open."""
    yield first
    number = 2
    while True:
        with database.begin() as tx:
            piece = files.piece(tx, keyring, file, number)
        if not piece:
            return
        yield piece
        number += 1


@router.post(
    f"{uploads.BANK_STATEMENTS}/{{bank_statement}}/withdrawal",
    operation_id="withdraw_bank_statement",
    summary="Withdraw a bank statement",
    responses=errors(409),
)
def withdraw_bank_statement(
    bank_statement: StatementId, body: StatementWithdrawalIn, call: Writing
) -> BankStatementOut:
    """Take back a statement that came in by mistake, while none of its lines stands in a pairing and no day of it is closed.

    It stays on record and counts nowhere. The same file may come again, as of another account or by another mapping.
    """
    withdrawn = withdrawals.withdraw(
        call.tx,
        path_id(PREFIX, bank_statement),
        remark=body.remark,
        by=call.actor.id,
        clock=call.services.clock,
        funds=_funds(call),
    )
    call.audit(
        "bank_statement.withdrawn", bank_statement, sha256=withdrawn.digest.hex(), lines=withdrawn.lines
    )
    return _statement(withdrawn)


def imported_out(imported: Imported, digest: str) -> ImportedOut:
    """What became of a file, as it is told."""
    return ImportedOut(
        file=public_id(bank_statements.FILE, imported.file_id),
        sha256=digest,
        duplicate=imported.duplicate,
        statements=[
            InStatementOut(
                id=public_id(PREFIX, one.id),
                bank_account=one.account.slug,
                lines=one.lines,
                duplicates=one.duplicates,
            )
            for one in imported.statements
        ],
        lines=imported.lines,
        skipped=imported.skipped,
        skipped_accounts=list(imported.skipped_accounts),
    )


def _funds(call: Call) -> frozenset[UUID] | None:
    """The funds that the caller may write for; row-level security does not hold for who writes."""
    return bank_statements.funds_of(call.tx, call.actor.sight(["reconciliation:write"]).programmes)


def _statement(one: BankStatement) -> BankStatementOut:
    return BankStatementOut(
        id=public_id(PREFIX, one.id),
        bank_account=one.account,
        identification=one.identification,
        number=one.number,
        from_on=one.from_on,
        to_on=one.to_on,
        opening=MoneyOut.of(one.opening, one.currency),
        closing=MoneyOut.of(one.closing, one.currency),
        lines=one.lines,
        duplicates=one.duplicates,
        made_at=one.made_at,
        imported_at=one.imported_at,
        file=public_id(bank_statements.FILE, one.file_id),
        file_name=one.file,
        format=one.format,
        sha256=one.digest.hex(),
        position=one.position,
        withdrawn=_withdrawal(one),
    )


def _withdrawal(one: BankStatement) -> StatementWithdrawalOut | None:
    if one.withdrawn_at is None or one.withdrawn_by is None or one.withdrawn_because is None:
        return None
    return StatementWithdrawalOut(at=one.withdrawn_at, by=one.withdrawn_by, remark=one.withdrawn_because)


def _line(one: StatementLine, said: LineText) -> StatementLineOut:
    return StatementLineOut(
        id=public_id(bank_statements.LINE, one.id),
        entry=one.entry,
        detail=one.detail,
        booked_on=one.booked_on,
        value_on=one.value_on,
        amount=MoneyOut.of(one.amount, one.currency),
        kind=one.kind,
        reversal=one.reversal,
        end_to_end=one.end_to_end,
        reference=one.reference,
        identifiers=list(one.identifiers),
        party=one.party,
        duplicate_of=public_id(bank_statements.LINE, one.duplicate_of) if one.duplicate_of else None,
        text=said.text or None,
        counterparty=said.counterparty,
        counterparty_account=said.counterparty_account,
    )
