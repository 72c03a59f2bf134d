"""Payment files for banks: `mizan payment-file list|fetch|answer`."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from api import payment_answers
from api.cli import acting, output, session
from integrations.rails.bank_file import store
from integrations.rails.bank_file.rail import Taken
from integrations.rails.bank_file.store import PaymentFile
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id

PREFIX = "pfl"
ANSWER_PREFIX = "pfa"

app = typer.Typer(name="payment-file", help="Files of payments for banks.", no_args_is_help=True)


@app.command("list")
@session.command
def list_files(
    rail: Annotated[str | None, typer.Option(help="Only this rail's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: session.AsJson = False,
) -> None:
    """The files that were made, the newest first, and what has become of each."""
    with session.services() as services, services.worker.read() as tx:
        found = store.files(tx, rail=rail, limit=limit)
    if as_json:
        output.as_json([_json(one) for one in found])
        return
    output.table(
        ["file", "rail", "state", "payments>", "sum>", "executed on", "made at"],
        [
            [
                public_id(PREFIX, one.id),
                one.rail,
                one.state,
                one.payments,
                f"{one.control_sum:,f}",
                one.execution_on,
                one.made_at,
            ]
            for one in found
        ],
    )


@app.command()
@session.command
def fetch(
    file: Annotated[str, typer.Argument(help="The file's id: pfl_…")],
    to: Annotated[
        Path,
        typer.Option(
            help="Where to write it; a folder, or a new file. It holds names and account numbers: only you can read it.",
        ),
    ] = Path(),
    as_json: session.AsJson = False,
) -> None:
    """Fetch a file to take to the bank. It counts as fetched from then on."""
    file_id = parse_public_id(PREFIX, file)
    with session.services() as services:
        with services.worker.read() as tx:
            name = f"{store.one_of(tx, file_id).message_id}.xml"
        path = to / name if to.is_dir() else to
        # for its owner alone, never over another file, and made before the file counts as fetched
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            found, content = acting.run(
                services,
                lambda tx: store.fetch(tx, services.keyring, services.clock, file_id),
                "payment_file.fetched",
                file,
            )
            written.write(content)
    if as_json:
        output.as_json(_json(found) | {"path": str(path)})
        return
    output.fields(
        {
            "file": file,
            "written to": path,
            "payments": found.payments,
            "control sum": f"{found.control_sum:,f}",
            "executed on": found.execution_on,
            "sha256": found.digest.hex(),
        }
    )


@app.command()
@session.command
def answer(
    rail: Annotated[str, typer.Argument(help="The rail's name.")],
    file: Annotated[
        Path,
        typer.Argument(
            help="What the bank answered: pain.002, or camt.054 with returns.", exists=True, dir_okay=False
        ),
    ],
    as_json: session.AsJson = False,
) -> None:
    """Bring what the bank answered: payouts become paid, failed or returned by it. The same file twice changes nothing."""
    content = file.read_bytes()
    with session.services() as services:

        def work(tx: Tx) -> Taken:
            return payment_answers.take(tx, services, rail, content, programmes=None)

        taken = acting.run(
            services,
            work,
            "payment_answer.brought",
            lambda taken: public_id(ANSWER_PREFIX, taken.id),
            rail=rail,
        )
    states = Counter(report.state for report in taken.reports)
    shown: dict[str, object] = {
        "answer": public_id(ANSWER_PREFIX, taken.id),
        "duplicate": taken.replayed,
        "payments": len(taken.reports),
        "states": dict(states),
        "unread": list(taken.unread),
    }
    if as_json:
        output.as_json(shown)
        return
    counted = {f"now {state}": count for state, count in sorted(states.items())}
    output.fields({"answer": shown["answer"], "payments": shown["payments"], **counted})
    if taken.unread:
        print(f"Not understood, and left as it was: {', '.join(taken.unread)}")
    if taken.replayed:
        print("It was brought before; nothing changed.")


def _json(one: PaymentFile) -> dict[str, object]:
    return {
        "id": public_id(PREFIX, one.id),
        "rail": one.rail,
        "state": one.state,
        "message_id": one.message_id,
        "payments": one.payments,
        "control_sum": format(one.control_sum, "f"),
        "execution_on": one.execution_on.isoformat(),
        "sha256": one.digest.hex(),
        "made_at": one.made_at,
        "fetched_at": one.fetched_at,
        "answered_at": one.answered_at,
    }
