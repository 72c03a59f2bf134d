"""What waits for a second person: `mizan approval list|show|approve|refuse`."""

from typing import Annotated, Any

import typer

from api.approvals import service
from api.approvals.kinds import KINDS
from api.approvals.service import Origin, Request, State
from api.cli import acting, output, session

app = typer.Typer(
    name="approval", help="What one person asks for and another approves.", no_args_is_help=True
)

Approval = Annotated[str, typer.Argument(metavar="APPROVAL", help="Its id, apr_….")]
Remark = Annotated[str, typer.Option(help="Kept with the decision.")]


@app.command("list")
@session.command
def list_(
    state: Annotated[State, typer.Option(help="Those in this state.")] = "requested",
    kind: Annotated[
        str | None, typer.Option(help=f"One kind: {', '.join(sorted(KINDS))}.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100,
    as_json: session.AsJson = False,
) -> None:
    """List requests, the oldest first."""
    with session.services() as services, services.worker.begin() as tx:
        found = service.requests(tx, services, kind=kind, state=state, limit=limit)
    if as_json:
        output.as_json({"data": [_shown(one) for one in found]})
        return
    output.table(
        ["id", "what", "asked by", "at", "state"],
        [(one.public_id, one.description, one.requested_by, one.requested_at, one.state) for one in found],
        empty=f"nothing is {state}",
    )


@app.command()
@session.command
def show(approval: Approval, as_json: session.AsJson = False) -> None:
    """Show a request and what it asks for."""
    with session.services() as services, services.worker.begin() as tx:
        found = service.one(tx, services, service.request_key(approval))
    _tell(found, as_json)


@app.command()
@session.command
def approve(
    approval: Approval, as_: acting.As = None, remark: Remark = "", as_json: session.AsJson = False
) -> None:
    """Approve a request, which is carried out at once. Takes another operator than the one who asked."""
    with session.services() as services:
        found = acting.decide(
            services,
            as_,
            approval,
            lambda tx, actor: service.approve(
                tx,
                services,
                actor,
                service.request_key(approval),
                remark=remark,
                origin=Origin(acting.ADDRESS),
            ),
        )
    _tell(found, as_json)


@app.command()
@session.command
def refuse(
    approval: Approval, as_: acting.As = None, remark: Remark = "", as_json: session.AsJson = False
) -> None:
    """Refuse a request: nothing is done."""
    with session.services() as services:
        found = acting.decide(
            services,
            as_,
            approval,
            lambda tx, actor: service.refuse(
                tx,
                services,
                actor,
                service.request_key(approval),
                remark=remark,
                origin=Origin(acting.ADDRESS),
            ),
        )
    _tell(found, as_json)


def tell_asked(request: Request, as_json: bool) -> None:
    """Say what was asked for, and whether it waits or is done."""
    if as_json:
        output.as_json(_shown(request))
    elif request.state == "requested":
        print(f"{request.public_id} waits for another operator: mizan approval approve {request.public_id}")
    else:
        print(f"{request.description} Done: {request.public_id}.")


def _tell(request: Request, as_json: bool) -> None:
    shown = _shown(request)
    if as_json:
        output.as_json(shown)
    else:
        output.fields({name: value for name, value in shown.items() if value not in (None, "")})


def _shown(request: Request) -> dict[str, Any]:
    return {
        "id": request.public_id,
        "kind": request.kind,
        "object": request.object,
        "description": request.description,
        "payload": request.payload,
        "remark": request.remark,
        "state": request.state,
        "requested_by": request.requested_by,
        "requested_at": request.requested_at.isoformat(),
        "expires_at": request.expires_at.isoformat(),
        "decided_by": request.decided_by,
        "decided_at": request.decided_at.isoformat() if request.decided_at else None,
        "decision_remark": request.decision_remark,
        "result": request.result,
    }
