"""Bank statements: `mizan reconcile import|statements|gaps|withdraw|file`."""

import os
from dataclasses import asdict, replace
from datetime import date, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from api import auditing, bank_statements
from api.bank_statements import Ask
from api.bootstrap import Services
from api.cli import acting, output, session
from api.cli.csv_mappings import mapping_in
from api.cli.reconcile_accounts import A_DAY, Slug, accounts, others
from api.v1.bank_statements import ImportedOut, imported_out
from integrations.bank_statements.canonical import Format, Told
from ledger.audit import Act
from ledger.database import Tx
from ledger.errors import MizanError
from ledger.ids import parse_public_id, public_id
from ledger.money import AMOUNT_MAX
from ledger.reconciliation import bank_accounts, files, reading, withdrawals
from ledger.reconciliation import gaps as between
from ledger.reconciliation.gaps import Gap
from ledger.reconciliation.reading import BankStatement

app = typer.Typer(
    name="reconcile", help="Bank statements, and what they prove of the books.", no_args_is_help=True
)
app.add_typer(accounts)
app.add_typer(others)


@app.command("import")
@session.command
def import_files(
    given: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Files from banks.", exists=True, dir_okay=False)
    ],
    account: Annotated[
        str | None,
        typer.Option(help="The bank account that they are of, where they don't say so.", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these bank accounts' statements; all others are left out.", show_default=False
        ),
    ] = None,
    fmt: Annotated[
        Format | None, typer.Option("--format", help="The content tells when left out.", show_default=False)
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="How CSV is read, as JSON; the bank account's own when left out.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    opening: Annotated[
        int | None,
        typer.Option(help="The opening balance in minor units, for CSV without one.", show_default=False),
    ] = None,
    closing: Annotated[
        int | None,
        typer.Option(help="The closing balance in minor units, for CSV without one.", show_default=False),
    ] = None,
    from_on: Annotated[
        datetime | None,
        typer.Option(formats=A_DAY, help="The first day, for CSV that doesn't say it.", show_default=False),
    ] = None,
    to_on: Annotated[
        datetime | None,
        typer.Option(formats=A_DAY, help="The last day, for CSV that doesn't say it.", show_default=False),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Bring in banks' files: camt.053, MT940 or CSV. Each whole or not at all; the same file twice changes nothing.

    A refused file ends with exit code 1; those before it are in, and those after it are not.
    """
    ask = Ask(
        name="",
        by=session.actor(),
        account=account,
        only=frozenset(only) if only else None,
        fmt=fmt,
        mapping=mapping_in(mapping) if mapping is not None else None,
        told=Told(opening=opening, closing=closing, from_on=_day(from_on), to_on=_day(to_on)),
    )
    if any(abs(balance) > AMOUNT_MAX for balance in (opening, closing) if balance is not None):
        raise session.Refused("a balance is at most 2^53−1 minor units")
    done: list[ImportedOut] = []
    with session.services() as services:
        for path in given:
            done.append(_bring_in(services, path, replace(ask, name=path.name)))
            if not as_json:
                _show(path, done[-1])
    if as_json:
        output.as_json(
            [one.model_dump() | {"path": str(path)} for path, one in zip(given, done, strict=True)]
        )


def _bring_in(services: Services, path: Path, ask: Ask) -> ImportedOut:
    """Bring in one file; what is refused is in the audit log too."""
    size = path.stat().st_size
    with path.open("rb") as content, output.progress(path.name, size) as steps:

        def work(tx: Tx) -> ImportedOut:
            imported, digest = bank_statements.bring_in(
                tx,
                services,
                content,
                ask,
                progress=lambda read: steps.show(read, size, path.name),
                watch=lambda lines: steps.show(size, size, f"{path.name}: {lines} lines"),
            )
            return imported_out(imported, digest)

        def audited(tx: Tx) -> ImportedOut:
            made = work(tx)
            acting.note(
                tx,
                services,
                "bank_statement.imported",
                made.file,
                sha256=made.sha256,
                statements=len(made.statements),
                lines=made.lines,
                duplicate=made.duplicate,
            )
            return made

        try:
            return services.worker.run(audited)
        except MizanError as error:
            digest, _ = bank_statements.digest_of(content) if size else (b"", 0)
            auditing.refused(
                services,
                Act(
                    session.actor(),
                    "cli",
                    "bank_statement.imported",
                    f"sha256:{digest.hex()}",
                    "refused",
                    detail={"code": error.code},
                ),
            )
            raise


@app.command()
@session.command
def statements(
    account: Annotated[str | None, typer.Option(help="Only this bank account's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: session.AsJson = False,
) -> None:
    """Bank statements that came in, the latest first."""
    with session.services() as services, services.worker.read() as tx:
        of = bank_accounts.by_slug(tx, account).id if account is not None else None
        found = reading.statements(tx, bank_account_id=of, limit=limit)
    if as_json:
        output.as_json(
            [
                asdict(one)
                | {
                    "id": public_id(bank_statements.STATEMENT, one.id),
                    "file_id": public_id(bank_statements.FILE, one.file_id),
                    "bank_account_id": public_id(bank_statements.ACCOUNT, one.bank_account_id),
                    "digest": one.digest.hex(),
                }
                for one in found
            ]
        )
        return
    output.table(
        [
            "statement",
            "account",
            "number",
            "from",
            "to",
            "opening>",
            "closing>",
            "lines>",
            "duplicates>",
            "file",
        ],
        [
            [
                public_id(bank_statements.STATEMENT, one.id),
                one.account,
                one.number,
                one.from_on,
                one.to_on,
                output.amount_in(one.opening, one.currency),
                f"{output.amount_in(one.closing, one.currency)} {one.currency}",
                one.lines,
                one.duplicates if one.withdrawn_at is None else "withdrawn",
                one.file,
            ]
            for one in found
        ],
    )


@app.command()
@session.command
def gaps(
    account: Slug,
    through: Annotated[
        datetime | None,
        typer.Option(formats=A_DAY, help="The day that statements should have reached.", show_default=False),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """What doesn't fit between an account's statements. Exit code 1: something is in doubt."""
    with session.services() as services, services.worker.read() as tx:
        of = bank_accounts.by_slug(tx, account)
        found = between.gaps(tx, of.id, through=_day(through))
    if as_json:
        output.as_json([_gap_json(one) for one in found])
    elif found:
        output.table(
            ["what", "from", "to", "expected>", "found>", "numbers", "after", "statement"],
            [
                [
                    one.kind.replace("_", " "),
                    one.from_on,
                    one.to_on,
                    output.amount_in(one.expected, of.currency) if one.expected is not None else None,
                    output.amount_in(one.found, of.currency) if one.found is not None else None,
                    f"{one.numbers[0]}-{one.numbers[1]}" if one.numbers else None,
                    public_id(bank_statements.STATEMENT, one.before) if one.before else None,
                    public_id(bank_statements.STATEMENT, one.statement) if one.statement else None,
                ]
                for one in found
            ],
        )
    else:
        print("Nothing is missing.")
    if any(not one.harmless for one in found):
        raise typer.Exit(1)


@app.command()
@session.command
def withdraw(
    given: Annotated[
        list[str], typer.Argument(metavar="STATEMENT…", help="Statements that came in by mistake: bst_…")
    ],
    remark: Annotated[str, typer.Option(help="Why; it stays on record.")],
    as_json: session.AsJson = False,
) -> None:
    """Take back statements that came in by mistake, while no line of them stands in a pairing and no day of them is closed.

    They stay on record and count nowhere. The same files may come again, as of other accounts or by other mappings.
    """
    done: list[dict[str, object]] = []
    with session.services() as services:
        for statement in given:
            statement_id = parse_public_id(bank_statements.STATEMENT, statement)

            def work(tx: Tx, statement_id: UUID = statement_id) -> BankStatement:
                return withdrawals.withdraw(
                    tx, statement_id, remark=remark, by=session.actor(), clock=services.clock
                )

            one = acting.run(services, work, "bank_statement.withdrawn", statement)
            done.append({"statement": statement, "account": one.account, "lines": one.lines})
            if not as_json:
                print(f"{statement}: withdrawn; its {one.lines} lines take part in nothing.")
    if as_json:
        output.as_json(done)


@app.command("file")
@session.command
def fetch_file(
    statement: Annotated[str, typer.Argument(help="A statement's id: bst_…")],
    to: Annotated[
        Path,
        typer.Option(help="The new file to write. It holds names and account numbers: only you can read it."),
    ],
    as_json: session.AsJson = False,
) -> None:
    """Write the file that a statement came in, as it came."""
    statement_id = parse_public_id(bank_statements.STATEMENT, statement)
    opened = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with session.services() as services, os.fdopen(opened, "wb") as written:

        def work(tx: Tx) -> str:
            file = files.by_id(tx, reading.statement(tx, statement_id).file_id)
            written.seek(0)
            for piece in files.content(tx, services.keyring, file):
                written.write(piece)
            return file.digest.hex()

        digest = acting.run(services, work, "bank_statement_file.fetched", statement)
    if as_json:
        output.as_json({"statement": statement, "path": str(to), "sha256": digest})
        return
    output.fields({"statement": statement, "written to": to, "sha256": digest})


def _day(at: datetime | None) -> date | None:
    return at.date() if at is not None else None


def _show(path: Path, done: ImportedOut) -> None:
    if done.duplicate:
        print(f"{path.name}: it is here already; nothing changed.")
        return
    repeated = sum(one.duplicates for one in done.statements)
    print(
        f"{path.name}: {output.counted(len(done.statements), 'statement')} with {output.counted(done.lines, 'line')}."
    )
    if repeated:
        print(f"  {repeated} of the lines were in overlapping statements before, and take part in nothing.")
    if done.skipped:
        print(
            f"  left out: {output.counted(done.skipped, 'statement')} of {', '.join(done.skipped_accounts)}."
        )


def _gap_json(one: Gap) -> dict[str, object]:
    return {
        "kind": one.kind,
        "harmless": one.harmless,
        "from_on": one.from_on,
        "to_on": one.to_on,
        "before": public_id(bank_statements.STATEMENT, one.before) if one.before else None,
        "statement": public_id(bank_statements.STATEMENT, one.statement) if one.statement else None,
        "expected": one.expected,
        "found": one.found,
        "numbers": one.numbers,
    }
