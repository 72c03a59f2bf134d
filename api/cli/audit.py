"""The audit log: `mizan audit list`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import typer

from api import auditing
from api.cli import output, session
from ledger import audit
from ledger.audit import Entry, Wanted
from ledger.ids import public_id

app = typer.Typer(name="audit", help="Who did what, when and from where.", no_args_is_help=True)

FORMATS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@app.command("list")
@session.command
def list_(
    actor: Annotated[
        str | None, typer.Option(help="By whom: opr_…, cli_…, mem_….", show_default=False)
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="What; `period` also finds period.closed.", show_default=False)
    ] = None,
    object_: Annotated[
        str | None, typer.Option("--object", help="To what: an id or a code.", show_default=False)
    ] = None,
    outcome: Annotated[
        Literal["done", "refused"] | None, typer.Option(help="Only these.", show_default=False)
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=FORMATS, help="Recorded at or after this, UTC.", show_default=False),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--to", formats=FORMATS, help="Recorded before this, UTC.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: session.AsJson = False,
) -> None:
    """List entries that have settled, the oldest first, with their values as long as their key is kept."""
    wanted = Wanted(actor, action, object_, outcome, _utc(since), _utc(until))
    with session.services() as services, services.worker.begin() as tx:
        found = audit.entries(tx, wanted, limit=limit)
        values = auditing.values(tx, services.keyring, found)
    if as_json:
        output.as_json({"data": [_shown(one, *values[one.id]) for one in found]})
        return
    output.table(
        ["at", "by", "action", "object", "outcome", "from", "detail"],
        [
            (
                one.recorded_at,
                one.actor,
                one.action,
                one.object,
                one.outcome,
                one.address,
                "; ".join(f"{name} {value}" for name, value in (one.detail or {}).items()),
            )
            for one in found
        ],
        empty="nothing is recorded there",
    )


def _utc(given: datetime | None) -> datetime | None:
    return given.replace(tzinfo=UTC) if given is not None else None


def _shown(entry: Entry, before: object, after: object) -> dict[str, Any]:
    return {
        "id": public_id("aud", entry.id),
        "recorded_at": entry.recorded_at.isoformat(),
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "action": entry.action,
        "object": entry.object,
        "outcome": entry.outcome,
        "address": entry.address,
        "request_id": entry.request_id,
        "detail": entry.detail,
        "before": before,
        "after": after,
    }
