"""Months: `mizan period list|status|checklist|explain|close|reopen|pack|verify-pack`."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from api import closing
from api.approvals import periods as requests
from api.approvals.service import may_ask
from api.auth.actors import Actor
from api.cli import acting, approval, output, session
from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.periods import effective_day
from ledger.seals import seals_numbered
from products.closing import close as closes
from products.closing import listing
from products.closing.close import Close, Format
from products.closing.findings import CheckList, ItemName
from products.closing.period import Period, find, label, month_of

app = typer.Typer(name="period", help="Closing a programme's months.", no_args_is_help=True)

Programme = Annotated[str, typer.Argument(help="A programme's name: ejoheza.")]
Month = Annotated[str, typer.Argument(metavar="MONTH", help="The month, as in 2026-03.")]
Revision = Annotated[
    int | None,
    typer.Option(min=1, help="Which close of the month; the last when left out.", show_default=False),
]


@app.command("list")
@session.command
def list_(
    programme: Annotated[
        str | None, typer.Argument(help="One programme's months; the funds of all when left out.")
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """List a programme's months, or the funds with the day through which each is closed."""
    with session.services() as services, services.worker.begin() as tx:
        if programme is None:
            _funds(tx, as_json)
            return
        found = listing.months(tx, programme, services.clock.now())
    if as_json:
        output.as_json({"data": [_month(one) for one in found]})
        return
    output.table(
        ["month", "state", "revision", "closed by", "at"],
        [
            (
                one.period.label,
                one.state if one.over else "goes on",
                one.close.revision if one.close else None,
                one.close.closed_by if one.close else None,
                one.close.closed_at if one.close else None,
            )
            for one in found
        ],
        empty="nothing has moved yet",
    )


@app.command()
@session.command
def status(programme: Programme, month: Month, as_json: session.AsJson = False) -> None:
    """Show a month: its funds, its closes, and whether their packs are sealed."""
    with session.services() as services, services.worker.begin() as tx:
        period = _period(tx, programme, month)
        known = closes.closes(tx, period.programme_id, month=period.month)
        today = effective_day(services.clock.now(), period.time_zone)
        described = listing.described(period, known[0] if known else None, today)
    if as_json:
        funds = {fund.code: _through(fund.closed_through) for fund in period.funds}
        output.as_json(_month(described) | {"funds": funds, "closes": [_close(one) for one in known]})
        return
    print(f"{programme} {month} is {described.state}{'' if described.over else ': the month goes on'}")
    output.table(
        ["fund", "closed through"],
        [(fund.code, _through(fund.closed_through)) for fund in period.funds],
    )
    output.table(
        ["revision>", "closed at", "by", "seal>", "reopened"],
        [
            (one.revision, one.closed_at, one.closed_by, one.seal or "not yet", one.reopen_reason)
            for one in known
        ],
        empty="it was never closed",
    )


@app.command()
@session.command
def checklist(programme: Programme, month: Month, as_json: session.AsJson = False) -> None:
    """Judge a month's check-list. Exit code 1 while something is red."""
    with session.services() as services, services.worker.begin() as tx:
        judged = closing.judge(tx, services, _period(tx, programme, month))
    if as_json:
        output.as_json(
            {
                "programme": programme,
                "month": month,
                "judged_at": judged.judged_at.isoformat(),
                "green": judged.green,
                "items": [item.to_json() for item in judged.items],
            }
        )
    else:
        show_checklist(judged)
    if not judged.green:
        raise typer.Exit(session.FAILED)


@app.command()
@session.command
def explain(
    programme: Programme,
    month: Month,
    item: Annotated[ItemName, typer.Argument(help="An item of the check-list that may be explained.")],
    remark: Annotated[str, typer.Option(help="Why it is as it is; it is kept, and in the pack.")],
    subject: Annotated[
        str | None,
        typer.Option(help="One finding, as the check-list names it; all when left out.", show_default=False),
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Who sees to it: of what is quarantined.", show_default=False)
    ] = None,
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Explain what an item of the check-list has found. It holds until the amount or the number changes."""
    with session.services() as services:

        def told(tx: Tx, actor: Actor | str) -> dict[str, Any]:
            period = _period(tx, programme, month)
            if not may_ask(actor, requests.CLOSE, period.programme_id):
                raise NotFound(f"there is no programme “{programme}” that you may close")
            said = closing.explain(
                tx,
                services,
                period,
                item,
                remark,
                actor=actor.id if isinstance(actor, Actor) else actor,
                subject=subject,
                owner=owner,
            )
            return said.to_json()

        name = f"{programme}/{month}/{item}"
        if acting.two_persons(services):
            with acting.person(services, as_) as actor:
                shown = acting.run(
                    services, lambda tx: told(tx, actor), "period.explained", name, by=actor.id
                )
        else:
            shown = acting.run(services, lambda tx: told(tx, session.actor()), "period.explained", name)
    if as_json:
        output.as_json(shown)
    else:
        print(f"{shown['title']}: {shown['state']}")


@app.command()
@session.command
def close(
    programme: Programme,
    month: Month,
    remark: Annotated[str, typer.Option(help="Kept with the close, and in its pack.")] = "",
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Close a programme's month, with its pack. The check-list has to be green. In production another operator approves it."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: requests.request_close(
                tx,
                services,
                actor,
                programme=programme,
                month=month_of(month),
                remark=remark,
                origin=origin,
            ),
        )
        if asked.state == "requested":
            approval.tell_asked(asked, as_json)
            return
        with services.worker.begin() as tx:
            done = closes.one(tx, _period(tx, programme, month))
    if as_json:
        output.as_json(_close(done))
    else:
        print(f"{programme} {month} is closed, revision {done.revision}: pack {done.digest.hex()}")
        print(f"mizan period pack {programme} {month} pack.pdf    writes it")


@app.command()
@session.command
def reopen(
    programme: Programme,
    month: Month,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Open a month, and those closed after it, again: their packs are superseded. In production another operator approves it."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: requests.request_reopen(
                tx,
                services,
                actor,
                programme=programme,
                month=month_of(month),
                reason=reason,
                origin=origin,
            ),
        )
    approval.tell_asked(asked, as_json)


@app.command()
@session.command
def pack(
    programme: Programme,
    month: Month,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; its ending says in which form.")],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Instead of what FILE's ending says.", show_default=False),
    ] = None,
    revision: Revision = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="As it would be now; nothing is closed.")
    ] = False,
    as_json: session.AsJson = False,
) -> None:
    """Write a month's close pack into a file: html, csv, pdf or json."""
    chosen = form or _form(file)
    with session.services() as services, services.worker.begin() as tx:
        period = _period(tx, programme, month)
        if preview:
            content = closing.preview(tx, services, period)[1][chosen]
        else:
            content = closes.file(tx, closes.one(tx, period, revision=revision).id, chosen)
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    if as_json:
        output.as_json({"file": str(file), "bytes": len(content), "sha256": digest, "preview": preview})
    else:
        print(f"{file}: {len(content):,} bytes, sha256 {digest}{', a preview' if preview else ''}")


@app.command("verify-pack")
@session.command
def verify_pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A pack's file.")],
    as_json: session.AsJson = False,
) -> None:
    """Check a pack's file against the digest that was sealed at its close. Exit code 1 when it is not a pack as it was made."""
    digest = hashlib.sha256(file.read_bytes()).digest()
    with session.services() as services, services.worker.begin() as tx:
        found = closes.sealed(tx, digest)
        number = found[0].seal if found else None
        head = seals_numbered(tx, [number]) if number else {}
    if found is None:
        if as_json:
            output.as_json({"ok": False, "sha256": digest.hex()})
            raise typer.Exit(session.FAILED)
        raise session.Refused(
            f"{file} is no pack as one was made at a close: its digest is nowhere in the log"
        )
    known, form = found
    if as_json:
        output.as_json(
            {
                "ok": True,
                "sha256": digest.hex(),
                "programme": known.programme,
                "month": label(known.month),
                "format": form,
                **_close(known),
                "head": next((one.head.hex() for one in head.values()), None),
            }
        )
        return
    sealed = f"sealed in seal {known.seal}" if known.seal else "not sealed yet"
    print(
        f"{file} is the {form} of {known.programme} {label(known.month)}, revision {known.revision}, {sealed}"
    )
    if not known.stands:
        print(f"superseded: the month was reopened by {known.reopened_by}: {known.reopen_reason}")


def show_checklist(judged: CheckList) -> None:
    """The items with their states, then what was found."""
    output.table(
        ["item", "", "state", "found>"],
        [(item.name, item.title, item.state, len(item.findings)) for item in judged.items],
    )
    for item in judged.items:
        for one in item.findings:
            amount = (
                f" {output.amount_in(one.amount, one.currency)} {one.currency}"
                if one.amount is not None and one.currency is not None
                else ""
            )
            said = f" — {one.explanation.remark} ({one.explanation.by})" if one.explanation else ""
            print(f"{'explained' if said else 'red':9} {item.name} [{one.subject}] {one.what}{amount}{said}")


def _funds(tx: Tx, as_json: bool) -> None:
    rows = tx.exec_driver_sql(
        "select code, name, time_zone, closed_through from ledger.fund order by code"
    ).all()
    shown = [(code, name, zone, _through(closed)) for code, name, zone, closed in rows]
    if as_json:
        names = ("fund", "name", "time_zone", "closed_through")
        output.as_json({"data": [dict(zip(names, row, strict=True)) for row in shown]})
        return
    output.table(["fund", "name", "time zone", "closed through"], shown, empty="no fund: apply a programme")


def _period(tx: Tx, programme: str, month: str) -> Period:
    return find(tx, programme, month_of(month))


def _form(file: Path) -> Format:
    ending = file.suffix.removeprefix(".").lower()
    found = next((form for form in closes.FORMATS if form == ending), None)
    if found is None:
        raise InvalidInput(f"say in which form: --format {'|'.join(closes.FORMATS)}")
    return found


def _through(closed: date) -> str | None:
    return closed.isoformat() if closed > date.min else None


def _month(one: listing.Month) -> dict[str, Any]:
    return {
        "programme": one.period.programme,
        "month": one.period.label,
        "state": one.state,
        "over": one.over,
        "close": _close(one.close) if one.close else None,
    }


def _close(one: Close) -> dict[str, Any]:
    return {
        "revision": one.revision,
        "through": one.through.isoformat(),
        "closed_at": one.closed_at.isoformat(),
        "closed_by": one.closed_by,
        "remark": one.remark,
        "digest": one.digest.hex(),
        "files": {name: value.hex() for name, value in one.files.items()},
        "seal": one.seal,
        "superseded": not one.stands,
        "reopened_by": one.reopened_by,
        "reopen_reason": one.reopen_reason,
    }
