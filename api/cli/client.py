"""Clients of the API: `mizan client create|keys|add-key|remove-key|revoke|disable|enable`.

`create` makes staff's; a partner's is made with the partner (`mizan partner create`), and kept with the other commands.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from api.auth import client_keys, clients
from api.auth.client_keys import ClientKey
from api.cli import acting, output, session
from ledger.database import Tx

app = typer.Typer(name="client", help="API clients: staff's, and keys of any.", no_args_is_help=True)

ClientId = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's id, cli_….")]


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

        made = acting.run(
            services, work, "client.created", lambda made: made.client_id, roles=[str(one) for one in role]
        )
    shown = {"name": name, "client_id": made.client_id, "client_secret": made.client_secret}
    if as_json:
        output.as_json({**shown, "roles": list(role)})
    else:
        output.fields(shown)
        print("The secret is not shown again.")


@app.command()
@session.command
def keys(client: ClientId, as_json: session.AsJson = False) -> None:
    """List the public keys by which a client proves itself and, if it is a partner's, vouches for its members."""
    with session.services() as services, services.worker.begin() as tx:
        listed = client_keys.of_client(tx, client)
    if as_json:
        output.as_json({"data": [_shown(key) for key in listed]})
        return
    output.table(
        ["kid", "since"], [(key.kid, key.created_at) for key in listed], empty="no key: mizan client add-key"
    )


@app.command("add-key")
@session.command
def add_key(
    client: ClientId,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="The public key (P-256), in PEM or as a JWK; - for standard input."
        ),
    ],
    as_json: session.AsJson = False,
) -> None:
    """Register a client's public key, beside those it has. Its id is the JWK's kid, or else its thumbprint (RFC 7638)."""
    document = _document(file)
    with session.services() as services:
        added = acting.run(
            services,
            lambda tx: client_keys.add(tx, client, document, services.clock.now()),
            "client.key.added",
            client,
        )
    if as_json:
        output.as_json({"client_id": client, **_shown(added)})
    else:
        output.fields({"client_id": client, "kid": added.kid})
        print("Tokens that the client signs name this kid in their header.")


@app.command("remove-key")
@session.command
def remove_key(client: ClientId, kid: Annotated[str, typer.Argument(help="The key's id.")]) -> None:
    """End a client's key now: nothing signed with it is accepted any more, and it does not come back."""
    with session.services() as services:
        acting.run(
            services,
            lambda tx: client_keys.remove(tx, client, kid, services.clock.now()),
            "client.key.removed",
            client,
            kid=kid,
        )
    print(f"{kid} is removed")


@app.command()
@session.command
def revoke(client: ClientId) -> None:
    """End every access token that a client got, members' through it too. It may ask for new ones."""
    with session.services() as services:
        acting.run(services, lambda tx: clients.revoke_tokens(tx, client), "client.tokens.revoked", client)
    print(f"the tokens of {client} hold no longer")


@app.command()
@session.command
def disable(client: ClientId) -> None:
    """Refuse a client its tokens, those it has and new ones, as if it were unknown."""
    with session.services() as services:
        acting.run(services, lambda tx: clients.set_state(tx, client, "disabled"), "client.disabled", client)
    print(f"{client} is disabled")


@app.command()
@session.command
def enable(client: ClientId) -> None:
    """Let a disabled client in again."""
    with session.services() as services:
        acting.run(services, lambda tx: clients.set_state(tx, client, "active"), "client.enabled", client)
    print(f"{client} is active")


def _document(file: str) -> str:
    limit = client_keys.KEY_CHARACTERS_MAX
    try:
        if file == "-":
            return sys.stdin.read(limit + 1)
        with Path(file).open(encoding="ascii") as opened:
            return opened.read(limit + 1)
    except UnicodeDecodeError:
        raise session.Refused("a public key in PEM or as a JWK is ASCII text") from None


def _shown(key: ClientKey) -> dict[str, Any]:
    return {"kid": key.kid, "public_key": key.jwk, "created_at": key.created_at}
