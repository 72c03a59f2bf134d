"""Opening balances: `mizan opening load|list|show|commit|take-back|final`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from api import opening
from api.approvals import opening as requests
from api.bootstrap import Services
from api.cli import acting, approval, output, session
from ledger.database import Tx
from ledger.ids import parse_public_id
from products.opening import load as loads
from products.opening.load import PREFIX, Control, Load, OpeningFaulty, Total

app = typer.Typer(
    name="opening", help="What the books begin with, from an older system's.", no_args_is_help=True
)

FILE_BYTES_MAX = 64 * 1024 * 1024

Opening = Annotated[str, typer.Argument(metavar="LOAD", help="The load's id, opn_….")]


@app.command()
@session.command
def load(
    file: Annotated[Path, typer.Argument(help="A spreadsheet (XLSX), or CSV.", exists=True, dir_okay=False)],
    programme: Annotated[str, typer.Option(help="The programme whose books are opened.")],
    on: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The day at whose end the balances stood.")
    ],
    as_json: session.AsJson = False,
) -> None:
    """Read a file of balances and keep it, if it has no fault. Nothing is posted; the same file twice is the same load.

    Exit code 1: it has faults, each told with its sheet and cell.
    """
    if file.stat().st_size > FILE_BYTES_MAX:
        raise session.Refused(f"a file has at most {FILE_BYTES_MAX >> 20} MiB")
    with session.services() as services:

        def work(tx: Tx) -> tuple[Load, bool]:
            return opening.stage(
                tx,
                services.books,
                file.read_bytes(),
                programme=programme,
                name=file.name,
                effective_on=on.date(),
                by=session.actor(),
            )

        try:
            found, new = acting.run(services, work, "opening.loaded", lambda made: made[0].public_id)
        except OpeningFaulty as error:
            if as_json:
                output.as_json(
                    {
                        "count": error.count,
                        "faults": [
                            {"sheet": one.sheet, "cell": one.cell, "what": one.what} for one in error.faults
                        ],
                    }
                )
            else:
                output.table(
                    ["sheet", "cell", "what is wrong"],
                    [(one.sheet, one.cell, one.what) for one in error.faults],
                )
                session.say(f"{error.count} faults: nothing was kept")
            raise typer.Exit(1) from None
        _show(services, found, as_json, duplicate=not new)


@app.command("list")
@session.command
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: session.AsJson = False,
) -> None:
    """Loads, the newest first."""
    with session.services() as services, services.worker.read() as tx:
        found = loads.loads(tx, limit=limit)
    if as_json:
        output.as_json({"data": [load_json(one) for one in found]})
        return
    output.table(
        ["load", "programme", "file", "day", "rows>", "batches>", "state"],
        [
            (
                one.public_id,
                one.programme,
                one.name,
                one.effective_on,
                one.rows,
                f"{one.done}/{one.batches}",
                loads.said(one.state),
            )
            for one in found
        ],
        empty="no load: mizan opening load FILE",
    )


@app.command()
@session.command
def show(opening_id: Opening, as_json: session.AsJson = False) -> None:
    """Preview a load: what its rows come to by fund and account, and where the migration control account ends."""
    with session.services() as services:
        _show(services, _found(services, opening_id), as_json)


@app.command()
@session.command
def commit(
    opening_id: Opening,
    remark: Annotated[str, typer.Option(help="Kept with the request.")] = "",
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Post a load. In production another manager approves it first; run it again to go on with one that was interrupted."""
    _decide(requests.COMMIT, opening_id, remark, as_, as_json)


@app.command("take-back")
@session.command
def take_back(
    opening_id: Opening,
    remark: Annotated[str, typer.Option(help="Why; it is kept.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Take a load back whole, by reversals, unless it is final. In production another manager approves it first."""
    _decide(requests.TAKE_BACK, opening_id, remark, as_, as_json)


@app.command()
@session.command
def final(opening_id: Opening, as_json: session.AsJson = False) -> None:
    """Make a load final, if the migration control accounts are at zero. It can't be taken back after that."""
    with session.services() as services:
        id_ = parse_public_id(PREFIX, opening_id)
        found = acting.run(
            services,
            lambda tx: loads.finalise(tx, id_, by=session.actor(), clock=services.clock),
            "opening.final",
            opening_id,
        )
        _show(services, found, as_json)


def load_json(one: Load) -> dict[str, Any]:
    """A load as JSON."""
    return {
        "id": one.public_id,
        "programme": one.programme,
        "name": one.name,
        "sha256": one.digest.hex(),
        "effective_on": one.effective_on.isoformat(),
        "rows": one.rows,
        "batches": one.batches,
        "done": one.done,
        "state": one.state,
    }


def _decide(kind: Any, opening_id: str, remark: str, as_: str | None, as_json: bool) -> None:
    with session.services() as services:
        found = _found(services, opening_id)
        at_work = {requests.COMMIT: "committing", requests.TAKE_BACK: "taking_back"}[kind]
        if found.state != at_work:
            asked = acting.ask(
                services,
                as_,
                lambda tx, actor, origin: requests.request(
                    tx, services, actor, kind, opening_id, remark, origin=origin
                ),
            )
            if asked.state == "requested":
                approval.tell_asked(asked, as_json)
                return
        with output.progress(f"{opening_id}: batches", found.batches) as steps:
            found = opening.work_on(
                services.worker,
                services.books,
                found.id,
                told=steps.show,
            )
        _show(services, found, as_json)


def _found(services: Services, opening_id: str) -> Load:
    id_: UUID = parse_public_id(PREFIX, opening_id)
    with services.worker.read() as tx:
        return loads.by_id(tx, id_)


def _show(services: Services, found: Load, as_json: bool, *, duplicate: bool = False) -> None:
    with services.worker.read() as tx:
        found = loads.by_id(tx, found.id)
        totals, controls = loads.totals(tx, found.id), loads.controls(tx, found.id)
    if as_json:
        shown = load_json(found) | {
            "duplicate": duplicate,
            "totals": [_total_json(one) for one in totals],
            "control": [_control_json(one) for one in controls],
        }
        output.as_json(shown)
        return
    output.fields(
        {
            "load": found.public_id,
            "file": found.name,
            "programme": found.programme,
            "day": found.effective_on,
            "state": loads.said(found.state) + (" (the same file was loaded before)" if duplicate else ""),
            "batches": f"{found.done} of {found.batches}",
        }
    )
    output.table(
        ["fund", "account", "currency", "rows>", "debit>", "credit>"],
        [
            (
                one.fund,
                one.code if one.posted else f"{one.code} (told)",
                one.currency,
                one.rows,
                output.amount_in(one.amount, one.currency) if one.debit else None,
                None if one.debit else output.amount_in(one.amount, one.currency),
            )
            for one in totals
        ],
    )
    output.table(
        ["migration control of", "currency", "this load leaves>", "in the books now>"],
        [
            (
                one.fund,
                one.currency,
                output.amount_in(one.of_load, one.currency),
                output.amount_in(one.now, one.currency),
            )
            for one in controls
        ],
    )


def _total_json(one: Total) -> dict[str, Any]:
    return {
        "fund": one.fund,
        "code": one.code,
        "rows": one.rows,
        "side": "debit" if one.debit else "credit",
        "amount": output.money_json(one.amount, one.currency),
        "posted": one.posted,
    }


def _control_json(one: Control) -> dict[str, Any]:
    return {
        "fund": one.fund,
        "of_load": output.money_json(one.of_load, one.currency),
        "now": output.money_json(one.now, one.currency),
    }
