"""Clients of the API for staff: `mizan client create`. A partner's client is made with the partner."""

from enum import StrEnum
from typing import Annotated

import typer

from api.auth import clients
from api.cli import output, session
from ledger.database import Tx

app = typer.Typer(name="client", help="API clients of staff.", no_args_is_help=True)


class Role(StrEnum):
    """What a member of staff may be."""

    MANAGER = "manager"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"


@app.command()
@session.command
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    role: Annotated[list[Role], typer.Option(help="What it may do; repeat it for more.")],
    as_json: session.AsJson = False,
) -> None:
    """Create a client for staff (manager, auditor, administrator) that asks for tokens at /oauth/token. Shown once."""
    with session.services() as services:

        def work(tx: Tx) -> clients.NewClient:
            return clients.create_client(
                tx, name=name, roles=role, environment=services.environment, at=services.clock.now()
            )

        made = services.worker.run(work)
    shown = {"name": name, "client_id": made.client_id, "client_secret": made.client_secret}
    if as_json:
        output.as_json({**shown, "roles": list(role)})
    else:
        output.fields(shown)
        print("The secret is not shown again.")
