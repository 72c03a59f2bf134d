"""The pair of servers of one data directory, and who owns it."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Literal, Self

from pydantic import SecretStr

from api.embedded import keys
from api.embedded.errors import ServersUnavailable
from api.embedded.places import POINTER, STATE_ROOTS, Places, locate, write_json
from api.embedded.postgres import DATABASE, SUPERUSER, Postgres
from api.embedded.valkey import Valkey
from api.safety import require_safe
from api.settings import Environment, Settings, UnsafeSettings

log = logging.getLogger(__name__)

STATE_FORMAT = 1
ATTACH_SECONDS_MAX = 150.0
LINGER_SECONDS = 30.0
WATCH_SECONDS = 0.25
RESTARTS_MAX = 5
RESTARTS_WITHIN_SECONDS = 60.0

Name = Literal["postgres", "valkey"]


class EmbeddedServers:
    """PostgreSQL and Valkey of one data directory: `start`, use `settings`, `stop`.

    `owner` tells whether this process runs them (True after `start` got the directory's lock) or uses those of another one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        postgres_overrides: Mapping[str, str] | None = None,
        postgres_programs: Path | None = None,
        watch: bool = True,
    ) -> None:
        if not settings.embedded:
            raise UnsafeSettings("servers are configured, so none are embedded")
        if settings.environment is Environment.PRODUCTION:
            raise UnsafeSettings(
                "production needs servers of its own: set MIZAN_DATABASE_URL, its roles' URLs and MIZAN_REDIS_URL"
            )
        self._given = settings
        self._overrides = dict(postgres_overrides or {})
        self._programs = postgres_programs
        self._watch = watch
        self._lock = _FileLock(settings.data_dir / "lock")
        self._clients = _FileLock(settings.data_dir / "clients.lock")
        self._guard = threading.RLock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._keys: keys.Keys | None = None
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None
        self.owner = False

    # What they offer

    @property
    def settings(self) -> Settings:
        """The given settings, completed with the URLs and keys of these servers."""
        made = self._known_keys
        return self._given.model_copy(
            update={
                "environment": self._given.environment or Environment.SANDBOX,
                "database_url": SecretStr(self.url("mizan_api")),
                "database_url_owner": SecretStr(self.url("mizan_owner")),
                "database_url_worker": SecretStr(self.url("mizan_worker")),
                "database_url_sealer": SecretStr(self.url("mizan_sealer")),
                "database_url_auditor": SecretStr(self.url("mizan_auditor")),
                "redis_url": SecretStr(self.redis_url),
                "master_key": self._given.master_key
                or (
                    None
                    if self._given.master_key_file or self._given.master_key_command
                    else SecretStr(made.master_key)
                ),
                "seal_key": self._given.seal_key
                or (None if self._given.seal_key_file else SecretStr(made.seal_key)),
            }
        )

    def url(self, role: str, database: str = DATABASE) -> str:
        """The SQLAlchemy URL of a role (`mizan_owner`, `mizan_api`, …, `mizan_superuser`) in one of the server's databases."""
        return self._known_postgres.url(role, database)

    @property
    def superuser_url(self) -> str:
        """The URL of the superuser, for administration and for tests that plant damage; nothing of Mizan uses it."""
        return self.url(SUPERUSER)

    @property
    def redis_url(self) -> str:
        """Valkey's URL for redis-py."""
        return self._known_valkey.url

    @property
    def places(self) -> Places:
        """Where everything lies."""
        return self._known_postgres.places

    def pid(self, name: Name) -> int:
        """The process id of a server that this process owns."""
        with self._guard:  # a restart isn't seen half done
            process = self._server(name).process
        if process is None:
            raise ServersUnavailable(f"{name} isn't run by this process")
        return process.pid

    def create_database(self, name: str, template: str | None = None) -> None:
        """Make a further database with the same rights, empty or as a copy of `template`."""
        with self._known_postgres.connect() as connection:
            Postgres.create_database(connection, name, template)

    # Their life

    def start(self) -> Self:
        """Start the servers, or attach to those that another process runs for the same data directory.

        Raises:
            ServersUnavailable: they can't be started, or the one who runs them doesn't get ready.
        """
        deadline = time.monotonic() + ATTACH_SECONDS_MAX
        while True:
            if self._lock.take():
                self._start_as_owner()
                return self
            if self._attach():
                return self
            if time.monotonic() > deadline:
                raise ServersUnavailable(
                    f"another process holds {self._given.data_dir} and its servers don't answer: see {self._given.data_dir}/state.json"
                )
            time.sleep(0.05)

    def stop(self, *, linger_seconds: float = 0.0) -> None:
        """End the servers if this process owns them, after waiting at most `linger_seconds` for attached commands to finish."""
        if not self.owner:
            self._clients.release()
            return
        patience = time.monotonic() + linger_seconds
        while not self._clients.take() and time.monotonic() < patience:
            time.sleep(0.05)
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        with self._guard:
            self.places.state_file.unlink(missing_ok=True)
            self._known_valkey.stop()
            self._known_postgres.stop()
            shutil.rmtree(self.places.sockets, ignore_errors=True)
            self.owner = False
            self._clients.release()
            self._lock.release()

    def destroy(self) -> None:
        """Remove the servers' data, also those outside the data directory. For tests and throw-away directories; stop first."""
        if self.owner:
            raise ServersUnavailable("stop the servers before destroying their data")
        shutil.rmtree(self.places.home, ignore_errors=True)
        if self.places.home.parent in STATE_ROOTS:
            with contextlib.suppress(OSError):
                self.places.home.parent.rmdir()  # when it was the last
        (self.places.data_dir / POINTER).unlink(missing_ok=True)
        shutil.rmtree(self.places.data_dir / "secrets", ignore_errors=True)

    def restart(self, name: Name) -> None:
        """Start a server again, whatever state it is in; its URL stays the same."""
        with self._guard:
            server = self._server(name)
            server.stop()
            server.start()
            self._write_state()

    def alive(self, name: Name) -> bool:
        """Whether the server answers and serves this data directory."""
        return self._server(name).serves()

    def _start_as_owner(self) -> None:
        places: Places | None = None
        try:
            places = locate(
                self._given.data_dir, self._given.embedded_account, postgres_programs=self._programs
            )
            places.state_file.unlink(missing_ok=True)
            self._know(places, keys.load_or_make(places.data_dir))
            self._known_postgres.start()
            self._known_postgres.provision()
            self._known_valkey.start()
            self.owner = True
            self._write_state()
        except BaseException:
            for server in (self._valkey, self._postgres):
                if server is not None:
                    server.stop()
            if places is not None:
                with contextlib.suppress(OSError):
                    places.sockets.rmdir()  # unless somebody else's server has its socket there
            self.owner = False
            self._lock.release()
            raise
        self._stopping.clear()
        if self._watch:
            self._watcher = threading.Thread(target=self._watch_over, name="embedded-servers", daemon=True)
            self._watcher.start()

    def _attach(self) -> bool:
        """Whether the servers of this data directory's owner are ready; then they are known here."""
        try:
            state = json.loads((self._given.data_dir / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if state.get("format") != STATE_FORMAT:
            raise ServersUnavailable(f"{self._given.data_dir} is in use by another version of Mizan")
        places = locate(
            self._given.data_dir,
            self._given.embedded_account,
            sockets=Path(state["sockets"]),
            postgres_programs=self._programs,
        )
        self._know(places, keys.load(places.data_dir))
        if not self._clients.take(shared=True):
            return False  # its owner is about to stop
        if self._known_postgres.serves() and self._known_valkey.serves():
            return True
        self._clients.release()
        return False

    def _write_state(self) -> None:
        write_json(
            self.places.state_file,
            {
                "format": STATE_FORMAT,
                "owner": os.getpid(),
                "postgres": self.pid("postgres"),
                "valkey": self.pid("valkey"),
                "sockets": str(self.places.sockets),
                "home": str(self.places.home),
            },
        )

    def _watch_over(self) -> None:
        """Start a server again when it dies; leave one down that keeps dying."""
        deaths: dict[Name, list[float]] = {"postgres": [], "valkey": []}
        while not self._stopping.wait(WATCH_SECONDS):
            for name, times in deaths.items():
                with self._guard:
                    process = self._server(name).process
                    if (process is not None and process.poll() is None) or len(times) > RESTARTS_MAX:
                        continue
                    now = time.monotonic()
                    times[:] = [at for at in times if now - at < RESTARTS_WITHIN_SECONDS] + [now]
                    if len(times) > RESTARTS_MAX:
                        log.critical(
                            "%s died more than %d times in a minute; it stays down", name, RESTARTS_MAX
                        )
                        continue
                    log.error("%s died; starting it again", name)
                    try:
                        self.restart(name)
                    except ServersUnavailable:
                        log.exception("%s didn't start again", name)

    def _know(self, places: Places, made: keys.Keys) -> None:
        self._keys = made
        self._postgres = Postgres(places, made.postgres_passwords, self._overrides)
        self._valkey = Valkey(places, made.valkey_password)

    def _server(self, name: Name) -> Postgres | Valkey:
        return self._known_postgres if name == "postgres" else self._known_valkey

    @property
    def _known_keys(self) -> keys.Keys:
        if self._keys is None:
            raise ServersUnavailable("the embedded servers aren't started")
        return self._keys

    @property
    def _known_postgres(self) -> Postgres:
        if self._postgres is None:
            raise ServersUnavailable("the embedded servers aren't started")
        return self._postgres

    @property
    def _known_valkey(self) -> Valkey:
        if self._valkey is None:
            raise ServersUnavailable("the embedded servers aren't started")
        return self._valkey


@contextlib.contextmanager
def servers(
    settings: Settings,
    *,
    linger_seconds: float = LINGER_SECONDS,
    postgres_overrides: Mapping[str, str] | None = None,
    postgres_programs: Path | None = None,
    watch: bool = True,
) -> Iterator[EmbeddedServers]:
    """Embedded servers for the length of a `with` block; SIGTERM ends the block like Ctrl-C does.

    When the block ends by itself, the owner waits up to `linger_seconds` for commands that run beside it; when it is
    interrupted, it doesn't. `postgres_programs` is a folder with the programs of another PostgreSQL than the wheel's: 15 to 18.

    Raises:
        ServersUnavailable: they can't be started.
        UnsafeSettings: servers are configured, or the environment is production.
    """
    pair = EmbeddedServers(
        settings, postgres_overrides=postgres_overrides, postgres_programs=postgres_programs, watch=watch
    )
    with _terminated_as_interrupted():
        pair.start()
        patience = 0.0
        try:
            yield pair
            patience = linger_seconds
        finally:
            with _uninterrupted():
                pair.stop(linger_seconds=patience)


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Settings]:
    """Complete, safe settings for the length of a `with` block: those configured, or those of embedded servers.

    Raises:
        ServersUnavailable, UnsafeSettings: nothing was started.
    """
    if not settings.embedded:
        require_safe(settings)
        yield settings
        return
    with servers(settings) as pair:
        complete = pair.settings
        require_safe(complete)
        yield complete


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit here, unless somebody handles them already or this isn't the main thread."""
    ours = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL
    ]
    if threading.current_thread() is not threading.main_thread():
        ours = []

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let the servers end in peace: their end is bounded in time, and an impatient second Ctrl-C would leave orphans."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _FileLock:
    """An advisory lock on a file, which the kernel lets go when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self, *, shared: bool = False) -> bool:
        """Whether the lock was free (or is held already)."""
        if self._descriptor is not None:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ServersUnavailable(
                f"the data directory {self.path.parent} can't be used: {error.strerror}"
            ) from None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the lock go; does nothing when it isn't held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
