"""The embedded books as one file: `mizan dump` and `mizan restore`, also the way to another PostgreSQL major version.

Configured servers are backed up by their administrator with PostgreSQL's own tools.
"""

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from api import embedded
from api.cli import output, session
from api.embedded import EmbeddedServers
from api.migrations import run as migrations

SECONDS_MAX = 3_600
"""How long copying the books may take."""


def add_to(app: typer.Typer) -> None:
    """Add both commands."""
    app.command(rich_help_panel="Run")(session.command(dump))
    app.command(rich_help_panel="Run")(session.command(restore))


def dump(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    as_json: session.AsJson = False,
) -> None:
    """Write the embedded books to a file, also beside a running serve. Keep the folder `secrets` with it."""
    if file.exists():
        raise session.Refused(f"{file} exists; a dump never overwrites one")
    with _embedded() as servers:
        _run(servers, "pg_dump", "--format=custom", f"--file={file}", f"--dbname={_url(servers)}")
        size = file.stat().st_size
        secrets = servers.places.data_dir / "secrets"
    if as_json:
        output.as_json({"file": str(file), "bytes": size})
    else:
        print(
            f"{file}: {size:,} bytes. Without {secrets} nobody can read what is encrypted in it: keep both."
        )


def restore(
    file: Annotated[
        Path, typer.Argument(help="A file that `mizan dump` wrote.", exists=True, dir_okay=False)
    ],
    as_json: session.AsJson = False,
) -> None:
    """Fill an empty data directory, into which `secrets` was copied, from a dump; then migrate."""
    with _embedded() as servers:
        with session.database(servers.settings, "owner") as owner, owner.begin() as tx:
            if tx.exec_driver_sql("select to_regnamespace('ledger')").scalar() is not None:
                raise session.Refused(
                    f"{servers.places.data_dir} holds books already; a dump is restored into an empty data directory"
                )
        _run(servers, "pg_restore", "--exit-on-error", f"--dbname={_url(servers)}", str(file))
        migrations.migrate(servers.settings)
    if as_json:
        output.as_json({"file": str(file), "restored": True})
    else:
        print(f"{file} is restored and migrated. `mizan ledger verify` proves the books.")


def _embedded() -> AbstractContextManager[EmbeddedServers]:
    chosen = session.settings()
    if not chosen.embedded:
        raise session.Refused("servers are configured: back them up with PostgreSQL's own tools")
    return embedded.servers(chosen)


def _url(servers: EmbeddedServers) -> str:
    return servers.superuser_url.replace("postgresql+psycopg://", "postgresql://")


def _run(servers: EmbeddedServers, program: str, *arguments: str) -> None:
    path = servers.places.binaries.postgres.parent / program
    done = subprocess.run(  # noqa: S603  our own program on our own files
        [path, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS_MAX
    )
    if done.returncode:
        raise session.Refused(
            f"{program} failed: {done.stderr.strip().splitlines()[-1] if done.stderr else ''}"
        )
