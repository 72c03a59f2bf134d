"""`mizan demo`: the main job, end to end, on servers of its own, every figure checked."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from api import serving
from api.bootstrap import bootstrap
from api.cli import output, session
from api.cli.ledger import show_trial_balance, verified
from api.embedded import EmbeddedServers
from api.embedded import servers as embedded_servers
from api.settings import Environment, Settings, load
from ledger.money import exponent

if TYPE_CHECKING:
    from api.demo.run import Result

SERVERS: Final = (
    "database_url",
    "database_url_owner",
    "database_url_worker",
    "database_url_sealer",
    "database_url_auditor",
    "redis_url",
    "master_key",
    "master_key_file",
    "master_key_command",
    "master_keys_retired",
    "seal_key",
    "seal_key_file",
)

VEST_SECONDS: Final = 86_400.0
QUICK_SECONDS: Final = 0.5
"""How often rails are asked and events are made: nobody wants to watch a demo wait."""


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""
    app.command(rich_help_panel="Try")(session.command(demo))


def demo(
    seed: Annotated[
        int,
        typer.Option(
            help="Decides everything: the same seed gives the same counts and balances on the same day."
        ),
    ] = 1,
    events: Annotated[int, typer.Option(help="How many webhooks are sent.", min=500, max=200_000)] = 10_000,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Run it in the data directory and keep it, to look around afterwards."),
    ] = False,
    as_json: session.AsJson = False,
) -> None:
    """Watch thousands of signed webhooks become balanced, sealed, explainable books; exit code 1 if any figure is off.

    Everything is real: PostgreSQL, Valkey, the API over HTTP on the loopback, Celery's worker and beat. It runs in a
    temporary directory, which is removed at the end, unless --keep is given.
    """
    began = time.monotonic()
    with _directory(keep) as data_dir:
        settings = load(
            **dict.fromkeys(SERVERS),
            data_dir=data_dir,
            environment=Environment.SANDBOX,
            # it vests when the demo says so: what had vested when it is reversed would depend on the moment
            vest_seconds=VEST_SECONDS,
            rail_seconds=QUICK_SECONDS,
            event_seconds=QUICK_SECONDS,
            # members' codes and notices are not for the demo's terminal
            code_sender="file",
            code_file=data_dir / "messages.jsonl",
            _env_file=None,
        )
        with _servers(settings, keep=keep) as pair:
            session.migrate_if_needed(pair.settings)
            with serving.listen("127.0.0.1", 0) as listener:
                address = f"http://127.0.0.1:{listener.getsockname()[1]}"
                complete = pair.settings.model_copy(update={"public_url": address})
                result = _run(complete, serving.Serving(complete, listener), seed, events, as_json=as_json)
    seconds = time.monotonic() - began
    if as_json:
        output.as_json({"seed": seed, **result.to_json()})
    else:
        _end(result, seconds, data_dir if keep else None)
    if result.wrong:
        raise typer.Exit(session.FAILED)


@contextmanager
def _servers(settings: Settings, *, keep: bool) -> Iterator[EmbeddedServers]:
    """Servers of our own; what they keep outside the data directory is removed with it."""
    pair: EmbeddedServers | None = None
    try:
        with embedded_servers(settings, linger_seconds=0) as pair:
            if not pair.owner:
                raise session.Refused(
                    f"another command runs the servers of {settings.data_dir}: stop it first"
                )
            yield pair
    finally:
        if pair is not None and not keep:
            pair.destroy()


def _run(complete: Settings, running: serving.Serving, seed: int, events: int, *, as_json: bool) -> "Result":
    # Here, so that the other commands start without what only the demo needs.
    from api.demo.run import run

    services = bootstrap(complete, name="mizan demo")
    try:
        with services.worker.begin() as tx:
            if tx.exec_driver_sql("select 1 from products.partner limit 1").first() is not None:
                raise session.Refused(
                    f"{complete.data_dir} has partners already: choose an empty directory with --data-dir"
                )
        try:
            with session.database(complete, "sealer") as sealer:
                result = run(
                    services,
                    sealer,
                    running,
                    seed=seed,
                    count=events,
                    step=output.progress,
                    verified=lambda steps: verified(complete, steps),
                )
                if not as_json:
                    _show(result)
        finally:
            running.stop()
    finally:
        services.close()
    return result


@contextmanager
def _directory(keep: bool) -> Iterator[Path]:
    """Where it runs: the data directory, or a temporary one."""
    if keep:
        yield session.settings().data_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="mizan-demo-"))
    folder.chmod(0o711)  # as root the servers run as another account, which has to pass through
    try:
        yield folder / "data"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(result: "Result") -> None:
    from api.demo import telling, telling_close

    console = output.console()
    console.rule("What was sent")
    odd = {what: count for what, count in result.kinds.items() if what != "ordinary"}
    console.print(
        f"{result.sent:,} webhooks for {result.members:,} members, {result.late:,} of them late; sent in"
        f" {', '.join(f'{one} ({exponent(one)} decimals)' for one in result.currencies)}"
    )
    output.table(
        ["kind", "webhooks>"],
        [
            ("ordinary", f"{result.kinds['ordinary']:,}"),
            *sorted((what, f"{count:,}") for what, count in odd.items()),
        ],
    )
    console.rule("What it was answered, and what became of it")
    output.table(
        ["answer", "webhooks>"], [(answer, f"{count:,}") for answer, count in result.answers.items()]
    )
    output.table(
        ["outcome", "reason", "deliveries>"],
        [(state, reason, f"{count:,}") for state, reason, count in result.outcomes],
    )
    console.print(
        f"acknowledged at {result.sent / result.send_seconds:,.0f} a second; everything posted at"
        f" {result.accepted / result.rest_seconds:,.0f} events a second; from acknowledged to posted: p50"
        f" {result.lag.p50 * 1000:,.0f} ms, p99 {result.lag.p99 * 1000:,.0f} ms"
    )
    telling.settled(result.settled)
    telling.paid_out(result.paid_out, result.told.events)
    telling_close.reconciled(result.reconciled)
    telling_close.closed(result.closed)
    console.rule("The trial balance of each fund")
    show_trial_balance(list(result.trial_balance))
    console.rule("One member's story")
    result.story.tell(console)


def _end(result: "Result", seconds: float, kept: Path | None) -> None:
    console = output.console()
    console.rule("The verdict")
    report = result.report
    console.print(
        f"mizan ledger verify: {report.transactions:,} transactions and {report.postings:,} postings replayed by"
        f" {len(report.checks)} checks, {report.unsealed} not sealed: "
        + ("nothing was changed, lost or invented" if report.ok else "THE BOOKS LIE")
    )
    for name, finding in report.findings():
        console.print(f"  {name}: {finding.where}: {finding.what}", markup=False)
    if result.wrong:
        console.print(f"{len(result.wrong)} of {result.figures:,} figures are not what they had to be:")
        for line in result.wrong[:20]:
            console.print(f"  {line}", markup=False)
    else:
        console.print(f"all {result.figures:,} figures compared with what was sent are what they had to be")
    console.print(f"{seconds:.0f} seconds in all")
    console.rule("Where next")
    where = f" --data-dir {kept}" if kept else ""
    if kept:
        console.print(
            f"mizan serve{where}    serves these books; then mizan ledger verify, mizan inbox list, …",
            markup=False,
        )
    else:
        console.print("mizan demo --keep    the same, kept in ./.mizan to look around in", markup=False)
        console.print(
            "mizan serve          the service itself; its first lines say how to go on", markup=False
        )
    console.print(
        "docs/tutorial.md     from nothing to the first webhook, for a partner's engineer", markup=False
    )
    console.print(
        "docs/how-to          settle with a partner, pay out, reconcile a day, close a period: what was shown above, step by step",
        markup=False,
    )
    console.print("docs/reference       commands, settings, problems, the programme format", markup=False)
