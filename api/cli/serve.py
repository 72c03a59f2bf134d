"""The processes: `serve` for all of them on one machine, `api`, `worker` and `beat` on machines of their own, `migrate`."""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

from api import serving
from api.cli import output, session
from api.embedded import EmbeddedServers, connected
from api.embedded import servers as embedded_servers
from api.migrations import run as migrations
from api.observability import scrape
from api.safety import require_safe
from api.settings import Settings, reveal

OWNING_SECONDS_MAX: Final = 60.0
RUNNING_FILE: Final = "serve.json"
LINGER_SECONDS: Final = 5.0
"""How long the servers wait at the end for commands that run beside us."""

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[
    int | None,
    typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535, show_default="8000"),
]
Processes = Annotated[int | None, typer.Option(help="Worker processes.", min=1, max=256, show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the tree."""
    app.command(rich_help_panel="Run")(session.command(serve))
    app.command(rich_help_panel="Run")(session.command(api))
    app.command(rich_help_panel="Run")(session.command(worker))
    app.command(rich_help_panel="Run")(session.command(beat))
    app.command(rich_help_panel="Run")(session.command(migrate))


def serve(
    host: Host = None,
    port: Port = None,
    processes: Processes = None,
) -> None:
    """Run the service until Ctrl-C: the API, workers and the schedule, on embedded servers unless others are configured.

    Ctrl-C and SIGTERM end it in order (workers, API, servers) with exit code 0; a second one hurries. When a process
    keeps dying, everything ends with exit code 1. Nothing that was acknowledged is lost in either case.
    """
    settings = session.overridden(session.settings(), host=host, port=port, worker_processes=processes)
    serving.log_as("serve", settings)
    with (
        serving.listen(settings.host, settings.port) as listener,
        _signals() as (asked, hurry),
        _owned(settings, asked) as complete,
    ):
        if settings.embedded:
            session.migrate_if_needed(complete)
        with session.running(complete):
            told = _with_its_address(_with_its_page(settings, complete), listener.getsockname()[1])
            running = serving.Serving(told, listener)
            running.start(asked)
            try:
                with _announced(settings, running, told.public_url):
                    if not asked.is_set():
                        _welcome(told, running.url)
                    running.wait(asked)
            finally:
                session.say("stopping: workers, API, servers")
                running.stop(hurry=hurry)
    session.say("stopped")


def api(host: Host = None, port: Port = None) -> None:
    """Answer requests until SIGTERM or Ctrl-C, without workers; what is under way is answered first."""
    given = session.overridden(session.settings(), host=host, port=port)
    listener = serving.listen(given.host, given.port)
    # The server takes the signals, and hands them on to us when it has ended.
    with _signals(), session.running(given) as complete, scrape.listening(complete):
        serving.run_api(complete, listener)


def worker(processes: Processes = None) -> None:
    """Run background tasks until SIGTERM or Ctrl-C; what runs then is finished first."""
    given = session.overridden(session.settings(), worker_processes=processes)
    with (
        _counting_together(given) as folder,
        session.running(given) as complete,
        scrape.listening(complete, folder),
    ):
        serving.run_worker(complete)


def beat() -> None:
    """Ask for the scheduled tasks until SIGTERM or Ctrl-C. Run one; a second one only asks twice."""
    with session.running() as complete:
        serving.run_beat(complete)


def migrate(as_json: session.AsJson = False) -> None:
    """Bring the database to the newest schema, as its owner, and stamp it with the environment."""
    given = session.settings()
    with connected(given) as complete:
        url = reveal(complete.database_url_owner, "MIZAN_DATABASE_URL_OWNER")
        before = migrations.current(url)
        migrations.migrate(complete)
        after = migrations.current(url)
    environment = complete.environment.value if complete.environment else None
    if as_json:
        output.as_json({"before": before, "after": after, "environment": environment})
    elif before == after:
        print(f"the database is at {after} already ({environment})")
    else:
        print(f"the database went from {before or 'nothing'} to {after} ({environment})")


@contextmanager
def _counting_together(given: Settings) -> Iterator[Path | None]:
    """A folder that the worker's processes count into, if anybody asks for metrics.

    The library decides when it is imported where it counts: so this program begins anew, with the folder in its environment.
    """
    if given.metrics_port is None:
        yield None
        return
    folder = os.environ.get(scrape.FOLDER)
    if folder is None:
        made = tempfile.mkdtemp(prefix=scrape.FOLDER_PREFIX)
        os.execve(  # noqa: S606  ourselves, as we were called
            sys.executable, sys.orig_argv, {**os.environ, scrape.FOLDER: made}
        )
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def running_url(data_dir: Path) -> str | None:
    """Where the `mizan serve` of this data directory listens; None when none runs."""
    found = _read_running(data_dir)
    return str(found["url"]) if found is not None else None


def public_url(given: Settings) -> str:
    """The base of links that a command writes: as the settings say, else where the `mizan serve` beside it listens."""
    if "public_url" in given.model_fields_set or not given.embedded:
        return given.public_url
    found = _read_running(given.data_dir)
    return given.public_url if found is None else str(found["public_url"])


def _read_running(data_dir: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((data_dir / RUNNING_FILE).read_text(encoding="utf-8"))
        os.kill(int(found["pid"]), 0)
    except PermissionError:
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(found)


@contextmanager
def _announced(settings: Settings, running: serving.Serving, public_url: str) -> Iterator[None]:
    """Leave word of where we listen, for the commands that run beside us."""
    if not settings.embedded:
        yield
        return
    path = settings.data_dir / RUNNING_FILE
    told = {"url": running.url, "public_url": public_url, "pid": os.getpid()}
    path.write_text(json.dumps(told), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _owned(settings: Settings, asked: threading.Event) -> Iterator[Settings]:
    """Complete settings, with embedded servers that nobody else takes away: we wait for a command that runs them."""
    if not settings.embedded:
        require_safe(settings)
        yield settings
        return
    deadline = time.monotonic() + OWNING_SECONDS_MAX
    while True:
        with embedded_servers(settings, linger_seconds=LINGER_SECONDS) as pair:
            if pair.owner:
                yield pair.settings
                return
        _wait_for(pair, settings, deadline, asked)


def _wait_for(pair: EmbeddedServers, settings: Settings, deadline: float, asked: threading.Event) -> None:
    found = _read_running(settings.data_dir)
    if found is not None:
        raise serving.ServeError(
            f"mizan serve runs for {settings.data_dir} already, at {found['url']} (process {found['pid']})"
        )
    if time.monotonic() > deadline or asked.wait(0.2):
        raise serving.ServeError(
            f"another command holds the servers of {pair.places.data_dir}: wait until it has ended"
        )


@contextmanager
def _signals() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Whether we were asked to end, and whether twice."""
    asked, hurry = threading.Event(), threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        (hurry if asked.is_set() else asked).set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked, hurry
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_its_address(complete: Settings, port: int) -> Settings:
    """Where nobody said how the outside reaches us, it is by the address that we listen on."""
    if "public_url" in complete.model_fields_set or complete.environment != "sandbox":
        return complete
    host = "127.0.0.1" if complete.host in {"0.0.0.0", "::"} else complete.host  # noqa: S104  an address to compare with
    return complete.model_copy(update={"public_url": f"http://{host}:{port}"})


def _with_its_page(given: Settings, complete: Settings) -> Settings:
    """The sandbox on servers of its own has the page that shows what a partner's app would."""
    if not given.embedded or complete.environment != "sandbox":
        return complete
    return complete.model_copy(update={"app_page": True})


def _welcome(complete: Settings, url: str) -> None:
    environment = complete.environment.value if complete.environment else ""
    print(f"Mizan serves at {url} ({environment}); Ctrl-C ends it.")
    print(f"  API documentation   {url}/docs")
    if complete.app_page:
        print(f"  a partner's app     {url}/app")
    print("  create a partner    mizan partner create acme --programme ejoheza --terms guaranteed")
    print("  send a test event   mizan trigger remittance.completed --partner acme")
    print("  look at the inbox   mizan inbox list")
    print("  prove the books     mizan ledger verify", flush=True)
