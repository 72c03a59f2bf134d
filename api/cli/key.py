"""The keys that sign access tokens: `mizan key rotate`."""

import typer

from api.auth import keys
from api.cli import output, session

app = typer.Typer(name="key", help="The keys that sign access tokens.", no_args_is_help=True)


@app.command()
@session.command
def rotate(as_json: session.AsJson = False) -> None:
    """Publish the next token signing key. It signs in an hour; tokens that older keys signed stay good until they end."""
    with session.services() as services:
        made = services.worker.run(lambda tx: keys.rotate(tx, services.keyring, services.clock.now()))
    if as_json:
        output.as_json(
            {
                "kid": made.kid,
                "signs_from": made.signs_from.isoformat(),
                "replaced_verify_until": made.replaced_verify_until.isoformat(),
            }
        )
    else:
        print(
            f"{made.kid} signs from {made.signs_from:%Y-%m-%d %H:%M:%SZ};"
            f" older keys verify until {made.replaced_verify_until:%Y-%m-%d %H:%M:%SZ}"
        )
