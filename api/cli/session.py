"""What every command shares: its options, its services, and how its errors end.

A command runs beside a `mizan serve` of the same data directory, and also alone: then it starts the embedded servers,
does its work and stops them. A mistake or a refusal is one line on stderr and exit code 1; wrong usage is 2.
"""

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn, ParamSpec, get_type_hints

import redis
import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError

from api.bootstrap import Services, bootstrap
from api.embedded import connected
from api.migrations import run as migrations
from api.observability import logs
from api.settings import LogFormat, LogLevel, Settings, UnsafeSettings, load, reveal
from api.stamp import require_keys, require_stamp
from ledger.database import Database
from ledger.errors import MizanError
from products.programmes.faults import InvalidProgramme

FAILED: Final = 1
INTERRUPTED: Final = 130

P = ParamSpec("P")

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the embedded servers live. Also MIZAN_DATA_DIR; ./.mizan when neither is given.",
        file_okay=False,
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", show_default=False)]
"""The `--json` of a command that reports."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options that may stand before or after the subcommand."""

    data_dir: Path | None = None
    debug: bool = False

    def with_more(self, data_dir: Path | None, debug: bool) -> "Options":
        """These options, and what stood after the subcommand on top."""
        return Options(data_dir or self.data_dir, self.debug or debug)


_NOTHING_SAID: Final = Options()
_options: ContextVar[Options] = ContextVar("options", default=_NOTHING_SAID)


class Refused(MizanError):
    """What was asked can't be done, for a reason that is said in the detail."""

    code = "refused"
    status = 422


def begin(data_dir: Path | None, debug: bool) -> None:
    """Take the options that stand before the subcommand; the first thing that a run does."""
    _options.set(Options(data_dir, debug))


def command(function: Callable[P, None]) -> Callable[P, None]:
    """A command: takes `--data-dir` and `--debug` as well, and ends every error in one line and an exit code."""
    signature = inspect.signature(function)
    extra = [
        inspect.Parameter("data_dir", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=DataDir),
        inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug),
    ]

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        given = {name: kwargs.pop(name, None) for name in ("data_dir", "debug")}
        data_dir = given["data_dir"]
        chosen = _options.get().with_more(
            data_dir if isinstance(data_dir, Path) else None, bool(given["debug"])
        )
        token = _options.set(chosen)
        _log(chosen.debug)
        try:
            with _ended_in_one_line(chosen.debug):
                function(*args, **kwargs)
        finally:
            _options.reset(token)

    # Typer reads the signature; the annotations are what it resolves names with.
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *extra])  # type: ignore[attr-defined]  # a function takes any attribute
    run.__annotations__ = {
        **get_type_hints(function, include_extras=True),
        "data_dir": DataDir,
        "debug": Debug,
    }
    return run


def settings(**overrides: object) -> Settings:
    """The settings of this run: the environment, `.env` and the command's options on top."""
    data_dir = _options.get().data_dir
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    return load(**overrides)


@contextlib.contextmanager
def running(given: Settings | None = None) -> Iterator[Settings]:
    """Complete settings with servers behind them, migrated and stamped.

    Embedded servers are brought to the newest schema unasked. Configured ones are migrated by `mizan migrate` alone.
    """
    chosen = given or settings()
    with connected(chosen) as complete:
        if chosen.embedded:
            migrate_if_needed(complete)
        else:
            _require_schema(complete)
        with database(complete, "api") as api, api.begin() as tx:
            require_stamp(tx, complete)
        yield complete


@contextlib.contextmanager
def services(given: Settings | None = None) -> Iterator[Services]:
    """What a command works with, and gives back at its end."""
    with running(given) as complete:
        made = bootstrap(complete, name="mizan command")
        try:
            made.api.run(lambda tx: require_keys(tx, made.keyring, made.clock.now()))
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def database(complete: Settings, role: str) -> Iterator[Database]:
    """The database as a role: api, worker, sealer, auditor or owner."""
    name = "database_url" if role == "api" else f"database_url_{role}"
    opened = Database(
        reveal(getattr(complete, name), f"MIZAN_{name.upper()}"),
        application_name=f"mizan command {role}",
        pool_size=2,
    )
    try:
        yield opened
    finally:
        opened.close()


def migrate_if_needed(complete: Settings) -> None:
    """Bring a database to the newest schema, unless it is there."""
    url = reveal(complete.database_url_owner, "MIZAN_DATABASE_URL_OWNER")
    found = migrations.current(url)
    if found is None or (found in migrations.known() and found != migrations.newest()):
        _quiet_alembic()
        migrations.migrate(complete)


def say(line: str) -> None:
    """A remark for whoever watches, beside what the command reports: on stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False)


def actor() -> str:
    """Who runs this command, for what is written down with a name."""
    try:
        name = os.environ.get("SUDO_USER") or os.getlogin()
    except OSError:
        name = str(os.getuid())
    return f"command line ({name})"


def _require_schema(complete: Settings) -> None:
    with database(complete, "api") as api, api.begin() as tx:
        found, stands = migrations.revision_of(tx), migrations.standing(tx)
    if stands == "outdated":
        raise UnsafeSettings(
            f"the database is at {found or 'nothing'}, this program needs {migrations.newest()}: run `mizan migrate`"
        )
    if stands == "incompatible":
        raise UnsafeSettings(
            f"the database is at {found}, which this program is too old for: install the newer one"
        )


def _log(debug: bool) -> None:
    try:
        given = settings()
    except MizanError:
        given = None  # the command itself will say what is wrong with them
    logs.configure(
        "cli",
        style=given.log_format if given else LogFormat.AUTO,
        level=LogLevel.INFO if debug else given.log_level if given else LogLevel.WARNING,
        file=given.log_file if given else None,
        environment=given.environment if given else None,
    )
    _quiet_alembic()


def _quiet_alembic() -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextlib.contextmanager
def _ended_in_one_line(debug: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)
    except Exception as error:
        if isinstance(error, typer.Exit | typer.Abort) or _is_usage(error) or debug:
            raise
        _end(explain(error), FAILED)


def explain(error: Exception) -> str:
    """An error in one line for people (a programme file's faults: one line each), without what the database was sent."""
    if isinstance(error, InvalidProgramme):
        return "\n".join(str(fault) for fault in error.faults)
    if isinstance(error, MizanError):
        return error.detail
    if isinstance(error, DBAPIError):
        original = str(error.orig).strip().splitlines()
        return f"the database refused: {original[0] if original else type(error).__name__}"
    if isinstance(error, redis.RedisError):
        return f"Valkey doesn't answer: {error}"
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    return f"{type(error).__name__}: {error} (run it again with --debug to see where)"


def _is_usage(error: Exception) -> bool:
    return isinstance(error, typer.BadParameter) or hasattr(error, "exit_code")


def _end(message: str, code: int) -> NoReturn:
    for number, line in enumerate(message.splitlines() or [""]):
        print(f"error: {line}" if not number else f"       {line}", file=sys.stderr)
    raise typer.Exit(code)


def overridden(given: Settings, **changes: object) -> Settings:
    """Settings with a command's options on top of them, where the option was given."""
    kept = {name: value for name, value in changes.items() if value is not None}
    return given.model_copy(update=kept) if kept else given


def options() -> Options:
    """The options of this run."""
    return _options.get()
