"""The books: `mizan ledger verify|trial-balance|account|transaction|seal|fold`."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from api import books_export
from api.books_export import Format
from api.cli import output, session
from api.closing import EXTRA_CHECKS
from api.jobs import fold_all, seal_all
from api.seal_key import sealing_key
from api.settings import Settings
from ledger import horizon, listing, verification
from ledger.balances import balances, balances_as_of
from ledger.clock import SystemClock
from ledger.database import Tx
from ledger.errors import InvalidId, InvalidInput, NotFound
from ledger.export import Totals, Wanted
from ledger.ids import parse_public_id, public_id
from ledger.receipts import receipt
from ledger.report import Report
from ledger.seals import read_heads, write_heads
from ledger.statements import statement
from ledger.trial_balance import FundBalance, trial_balance
from ledger.verify import verify as verify_ledger

app = typer.Typer(name="ledger", help="The books.", no_args_is_help=True)

AsOf = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d"],
        help="What is effective on or before this day; now when left out.",
        show_default=False,
    ),
]


@app.command()
@session.command
def verify(
    against: Annotated[
        Path | None,
        typer.Option(
            help="Seals published earlier, one JSON object a line: nothing they cover can have been rewritten.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Replay everything: balances, limits, holds, references, remittances, chain and signatures. Exit code 1 at a lie.

    What is not sealed yet is said, and what that can't prove.
    """
    with session.running() as complete, output.progress("verifying") as steps:
        report = verified(complete, steps, against)
    if as_json:
        shown = report.to_json()
        contract = ("ok", "transactions", "postings", "unsealed", "checks")
        output.as_json({name: shown[name] for name in contract if report.ok} or shown)
        if report.caveat:
            session.say(report.caveat)
    else:
        show_report(report)
    if not report.ok:
        raise typer.Exit(session.FAILED)


@app.command("trial-balance")
@session.command
def trial_balance_(
    as_of: AsOf = None,
    fund: Annotated[str | None, typer.Option(help="One fund's code.", show_default=False)] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show what each account code holds, per fund and currency, and that debits and credits tie."""
    with session.services() as services:
        with services.worker.read() as tx:
            chosen = None if fund is None else _fund(tx, fund)
            found = trial_balance(tx, as_of=as_of.date() if as_of else None, fund=chosen)
        now = services.clock.now()
    if as_json:
        day = as_of.date().isoformat() if as_of else now.isoformat()
        output.as_json({"as_of": day, "data": [one.to_json() for one in found]})
    else:
        show_trial_balance(found)
    if any(one.debit_total != one.credit_total for one in found):
        session.say("debits and credits do not tie")
        raise typer.Exit(session.FAILED)


@app.command()
@session.command
def account(
    which: Annotated[
        str,
        typer.Argument(
            metavar="ACCOUNT", help="An account's id, or FUND:CODE[:OWNER], as in ejoheza/savers:bank."
        ),
    ],
    as_of: AsOf = None,
    lines: Annotated[int, typer.Option(help="Statement lines, the newest first.", min=1, max=200)] = 20,
    as_json: session.AsJson = False,
) -> None:
    """Show an account: its balance, limits, and the newest lines of its statement."""
    with session.services() as services, services.worker.read() as tx:
        row = find_account(tx, which)
        balance = balances(tx, [row.id])[row.id]
        then = balances_as_of(tx, [row.id], as_of.date())[row.id] if as_of else None
        page = statement(tx, row.id, limit=lines)
    currency = row.currency
    shown: dict[str, Any] = {
        "account": public_id("acc", row.id),
        "fund": row.fund,
        "code": row.code,
        "owner": row.owner or None,
        "kind": row.kind,
        "currency": currency,
        "posted": balance.posted,
        "held": balance.held,
        "available": balance.available,
        "floor": row.floor,
        "ceiling": row.ceiling,
    }
    if as_of:
        shown |= {"as_of": as_of.date().isoformat(), "posted_as_of": then}
    if as_json:
        shown["lines"] = [
            {
                "transaction": public_id("txn", line.transaction_id),
                "kind": line.kind,
                "effective_on": line.effective_on.isoformat(),
                "recorded_at": line.recorded_at.isoformat(),
                "counter_account": line.counter_code,
                "amount": line.amount,
                "balance": line.balance,
            }
            for line in page.lines
        ]
        output.as_json(shown)
        return
    money = ("posted", "held", "available", "floor", "ceiling", "posted_as_of")
    output.fields(
        {
            name: output.amount_in(value, currency) if name in money and isinstance(value, int) else value
            for name, value in shown.items()
            if value is not None
        }
    )
    output.table(
        ["effective on", "kind", "other side", "amount>", "balance>", "transaction"],
        [
            (
                line.effective_on,
                line.kind,
                line.counter_code,
                output.amount_in(line.amount, currency),
                output.amount_in(line.balance, currency),
                public_id("txn", line.transaction_id),
            )
            for line in page.lines
        ],
        empty="nothing has moved",
    )


@app.command()
@session.command
def transaction(
    which: Annotated[str, typer.Argument(metavar="TRANSACTION", help="Its id, txn_….")],
    proof: Annotated[
        bool, typer.Option("--receipt", help="Print its receipt instead: what anyone can check.")
    ] = False,
    as_json: session.AsJson = False,
) -> None:
    """Show a transaction with its postings, and whether it is sealed."""
    transaction_id = _id("txn", which)
    with session.services() as services, services.worker.read() as tx:
        found = receipt(tx, transaction_id)
        belongs_on = listing.transaction(tx, transaction_id).belongs_on
        named = {
            row.id: row
            for row in tx.exec_driver_sql(
                "select a.id, f.code as fund, a.code, a.owner from ledger.account a join ledger.fund f on f.id = a.fund_id"
                " where a.id = any(%s)",
                (list({side for one in found.postings for side in (one.debit, one.credit)}),),
            )
        }
    if proof:
        output.as_json(found.to_json())
        return

    def name(account_id: UUID) -> str:
        row = named[account_id]
        return f"{row.fund}:{row.code}" + (f":{row.owner}" if row.owner else "")

    shown = {
        "transaction": public_id("txn", transaction_id),
        "kind": found.kind,
        "reference": found.reference,
        "effective_on": found.effective_on.isoformat(),
        "recorded_at": found.recorded_at.isoformat(),
        "reverses": public_id("txn", found.reverses) if found.reverses else None,
        "belongs_on": belongs_on.isoformat() if belongs_on else None,
        "status": found.status,
    }
    if as_json:
        postings = [
            {
                "debit": name(one.debit),
                "credit": name(one.credit),
                "amount": output.money_json(one.amount, one.currency),
            }
            for one in found.postings
        ]
        output.as_json({**shown, "postings": postings})
        return
    output.fields({key: value for key, value in shown.items() if value is not None})
    output.table(
        ["debit", "credit", "amount>", "currency"],
        [
            (name(one.debit), name(one.credit), output.amount_in(one.amount, one.currency), one.currency)
            for one in found.postings
        ],
    )


@app.command()
@session.command
def seal(
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Append the seals to this file, one JSON object a line; keep it where nobody of ours can write.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Seal what has settled, now. A running `mizan serve` does it every few seconds."""
    with session.services() as services, session.database(services.settings, "sealer") as sealer:
        made = seal_all(sealer, sealing_key(services.settings), services.clock)
        written = 0
        if publish is not None:
            with sealer.begin() as tx:
                written = write_heads(tx, publish)
    if as_json:
        output.as_json({"seals": [one.to_json() for one in made], "published": written})
        return
    for one in made:
        print(
            f"seal {one.number}: {one.transactions} transactions, {one.postings} postings, head {one.head.hex()}"
        )
    if not made:
        print("nothing new to seal")
    if publish is not None:
        print(f"{written} seals appended to {os.fspath(publish)}")


@app.command()
@session.command
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; its ending says in which form.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Instead of what FILE's ending says.", show_default=False),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=["%Y-%m-%d"], help="Effective on or after this day.", show_default=False
        ),
    ] = None,
    through: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Effective on or before this day.", show_default=False),
    ] = None,
    fund: Annotated[str | None, typer.Option(help="One fund's code.", show_default=False)] = None,
    as_json: session.AsJson = False,
) -> None:
    """Write the general ledger into a file, CSV or Parquet, with its control totals, which are printed too."""
    chosen = form or _form(file)
    totals = Totals()
    part = file.with_name(f"{file.name}.part")
    with (
        session.services() as services,
        output.progress("exporting") as steps,
        services.worker.read() as tx,
    ):
        tx.exec_driver_sql("set local statement_timeout = 0")
        wanted = Wanted(
            since.date() if since else None,
            through.date() if through else None,
            [_fund(tx, fund)] if fund else None,
        )
        with part.open("wb") as written:
            for piece in books_export.write(tx, wanted, chosen, totals):
                written.write(piece)
                steps.show(totals.postings, None, "postings")
    part.replace(file)  # what has the name is whole
    shown = totals.to_json()
    if as_json:
        output.as_json({"file": str(file), "format": chosen, **shown})
        return
    print(f"{file}: {totals.postings:,} postings, sha256 of their lines {shown['sha256']}")
    output.table(
        ["currency", "amount of postings>"],
        [(currency, output.amount_in(amount, currency)) for currency, amount in shown["amounts"].items()],
        empty="nothing is posted there",
    )


def _form(file: Path) -> Format:
    ending = file.suffix.removeprefix(".").lower()
    found = next((form for form in books_export.MEDIA_TYPES if form == ending), None)
    if found is None:
        raise InvalidInput("say in which form: --format csv|parquet")
    return found


@app.command()
@session.command
def fold(as_json: session.AsJson = False) -> None:
    """Fold what has settled into daily movements, now. A running `mizan serve` does it every few seconds."""
    with session.services() as services:
        postings = fold_all(services.worker)
    if as_json:
        output.as_json({"postings": postings})
    else:
        print(f"{postings} postings folded")


def verified(complete: Settings, steps: output.Watcher, against: Path | None = None) -> Report:
    """Replay everything as the auditor, in one snapshot; the verdict is written down, as check-lists of months ask for it."""
    with session.database(complete, "auditor") as auditor, auditor.read() as tx:
        seen = horizon.horizon(tx)
        report = verify_ledger(
            tx,
            extra_checks=EXTRA_CHECKS,
            against=read_heads(against) if against is not None else None,
            progress=lambda name, done, total: steps.show(done, total or None, name),
        )
    if complete.database_url_worker is not None:  # an auditor's own machine may only read
        with session.database(complete, "worker") as worker:
            worker.run(
                lambda tx: verification.record(tx, report, seen, actor=session.actor(), clock=SystemClock())
            )
    return report


def show_report(report: Report) -> None:
    """The verdict of a verification, check by check."""
    output.table(
        ["check", "looked at>", "lies>"],
        [
            (one.name, f"{one.checked:,}", f"{one.violations:,}" if one.violations else "none")
            for one in report.checks
        ],
    )
    for name, finding in report.findings():
        print(f"LIE  {name}: {finding.where}: {finding.what}")
    verdict = "nothing was changed, lost or invented" if report.ok else "THE BOOKS LIE"
    print(
        f"{report.transactions:,} transactions, {report.postings:,} postings, {report.unsealed:,} not sealed yet: {verdict}"
    )
    if report.caveat:
        print(report.caveat)


def show_trial_balance(found: list[FundBalance]) -> None:
    """A table per fund, with its totals."""
    for one in found:
        rows: list[tuple[str, str, str, str]] = [
            (
                line.code,
                line.kind,
                output.amount_in(line.debit, one.currency) if line.debit else "",
                output.amount_in(line.credit, one.currency) if line.credit else "",
            )
            for line in one.accounts
        ]
        rows.append(
            (
                "total",
                "",
                output.amount_in(one.debit_total, one.currency),
                output.amount_in(one.credit_total, one.currency),
            )
        )
        output.table(["account", "kind", "debit>", "credit>"], rows, title=f"{one.fund} ({one.currency})")
    if not found:
        print("nothing is posted yet")


def _fund(tx: Tx, code: str) -> UUID:
    found: UUID | None = tx.exec_driver_sql(
        "select id from ledger.fund where code = %s", (code,)
    ).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no fund “{code}”: `mizan period list` shows them")
    return found


def find_account(tx: Tx, which: str) -> Any:  # a row of columns named below
    """The account of an id or FUND:CODE[:OWNER]. Raises `NotFound`, `InvalidId`."""
    select = (
        "select a.id, f.code as fund, a.code, a.owner, a.kind, a.currency, a.floor, a.ceiling from ledger.account a"
        " join ledger.fund f on f.id = a.fund_id"
    )
    if ":" in which:
        fund, code, owner = [*which.split(":", 2), ""][:3]
        rows = tx.exec_driver_sql(
            f"{select} where f.code = %s and a.code = %s and a.owner = %s", (fund, code, owner)
        ).all()
    else:
        rows = tx.exec_driver_sql(f"{select} where a.id = %s", (_id("acc", which),)).all()
    if not rows:
        raise NotFound(f"there is no account “{which}”")
    return rows[0]


def _id(prefix: str, text: str) -> UUID:
    """A public id, or the bare UUID behind it. Raises `InvalidId`."""
    try:
        return UUID(text)
    except ValueError:
        pass
    try:
        return parse_public_id(prefix, text)
    except InvalidId as error:
        raise InvalidId(f"“{text}” is {error.detail}") from None
