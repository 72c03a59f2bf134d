"""The tree of commands."""

from typing import Annotated

import typer

from api.cli import (
    approval,
    audit,
    backup,
    bench,
    by_hand,
    client,
    demo,
    doctor,
    endpoint,
    inbox,
    key,
    ledger,
    listen,
    match,
    opening,
    operator,
    partner,
    payment_file,
    payout,
    period,
    programme,
    rail,
    reconcile,
    reconcile_breaks,
    reconcile_overview,
    reconcile_pairing,
    reconcile_receipts,
    remittal,
    serve,
    settlement,
    settlement_file,
    shadow,
    sponsor,
    trigger,
)
from api.cli.session import DataDir, Debug, begin

app = typer.Typer(
    name="mizan",
    help="The back office that turns remittances into social protection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _commands in (demo, serve, doctor, backup, trigger, listen, bench):
    _commands.add_to(app)
for _group in (
    programme,
    partner,
    client,
    endpoint,
    operator,
    sponsor,
    settlement,
    payout,
    rail,
    remittal,
    payment_file,
    reconcile,
    opening,
    shadow,
    match,
    ledger,
    inbox,
    period,
    key,
    approval,
    audit,
):
    app.add_typer(_group.app)
app.add_typer(partner.organisations)


by_hand.add_to(ledger.app)
settlement_file.add_to(settlement.app)
reconcile.app.add_typer(reconcile_breaks.app)
reconcile_overview.add_to(reconcile.app)
reconcile_receipts.add_to(reconcile.app)
reconcile_pairing.add_to(reconcile.app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"mizan {version('mizan')}")
        raise typer.Exit


@app.callback()
def options(
    data_dir: DataDir = None,
    debug: Debug = False,
    version: Annotated[  # noqa: ARG001  its callback has done it all
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """The back office that turns remittances into social protection.

    Without MIZAN_DATABASE_URL and MIZAN_REDIS_URL, commands run on embedded servers of the data directory: beside a
    running `mizan serve`, or alone.
    """
    begin(data_dir, debug)


def main() -> None:
    """Run the command line."""
    app()
