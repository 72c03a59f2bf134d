"""`mizan doctor`: whether everything that Mizan needs is there, and what to do where it isn't."""

import base64
import secrets
from typing import Annotated

import typer

from api.cli import output, session
from api.cli.serve import running_url
from api.embedded import connected
from api.examination import Finding, examine
from api.settings import KEY_BYTES


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""
    app.command(rich_help_panel="Run")(session.command(doctor))


def doctor(
    as_json: session.AsJson = False,
    new_key: Annotated[
        bool,
        typer.Option(
            "--new-key", help="Print a new key for MIZAN_MASTER_KEY or MIZAN_SEAL_KEY, and nothing else."
        ),
    ] = False,
) -> None:
    """Look at settings, keys, clocks, database, roles, queues and backlogs, and say what to do; exit code 1 if one fails.

    It opens what the master key has sealed, so it shows whether a backup of that key is the right one. No secret is shown.
    """
    if new_key:
        print(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())
        return
    findings = _findings()
    failed = any(one.level == "fail" for one in findings)
    if as_json:
        output.as_json(
            {
                "ok": not failed,
                "checks": [
                    {"name": one.name, "ok": one.level != "fail", "level": one.level, "detail": one.detail}
                    for one in findings
                ],
            }
        )
    else:
        output.table(["", "what", "finding"], [(one.level, one.name, one.detail) for one in findings])
    if failed:
        raise typer.Exit(session.FAILED)


def _findings() -> list[Finding]:
    try:
        given = session.settings()
    except Exception as error:  # whatever it is, it is what the doctor has found
        return [Finding("settings", "fail", session.explain(error))]
    said = f"embedded servers in {given.data_dir}" if given.embedded else "configured servers"
    findings = [Finding("settings", "ok", said)]
    try:
        with connected(given) as complete:
            if given.embedded:
                url = running_url(given.data_dir)
                findings.append(Finding("service", "ok", url or "no `mizan serve` runs here"))
            findings += examine(complete, session.explain)
    except Exception as error:  # servers that don't start are a finding, too
        findings.append(Finding("servers", "fail", session.explain(error)))
    return findings
