"""One Valkey of our own. It keeps nothing: the inbox is the truth, and a lost wake-up is found by the sweep."""

import contextlib
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import redis

from api.embedded import processes
from api.embedded.errors import ServersUnavailable
from api.embedded.places import Places

START_SECONDS_MAX = 30.0
ATTEMPTS_MAX = 3

SETTINGS: Mapping[str, str] = {
    "port": "0",
    "unixsocketperm": "700",
    "save": '""',
    "appendonly": "no",
    "daemonize": "no",
    "maxmemory": "512mb",
    # A full queue must refuse, never forget: evicting keys would drop wake-ups and counters silently.
    "maxmemory-policy": "noeviction",
    "maxclients": "2000",
}


@dataclass(slots=True)
class Valkey:
    """A server on a Unix socket. Start and stop it with the data directory locked."""

    places: Places
    password: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """The socket it answers on."""
        return self.places.sockets / "valkey.sock"

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.places.home / "valkey.log"

    @property
    def url(self) -> str:
        """Its URL, for redis-py; `Settings.broker_url` spells it for Celery."""
        return f"unix://:{quote(self.password)}@{quote(str(self.socket))}?db=0"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServersUnavailable: it can't be started; the detail holds the end of its log.
        """
        self.places.valkey_dir.mkdir(mode=0o700, exist_ok=True)
        self.places.account.give(self.places.valkey_dir)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            self.clean_up()
            self.process = self._spawn()
            if self._answers_in_time():
                return
            self.stop()
            if attempt == ATTEMPTS_MAX:
                raise ServersUnavailable(
                    f"Valkey doesn't start; the end of {self.log}:\n{processes.tail(self.log)}"
                )

    def serves(self) -> bool:
        """Whether a server answers on our socket and works in this very directory."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                folder = client.config_get("dir")["dir"]
        except redis.RedisError:
            return False
        name = folder.decode() if isinstance(folder, bytes) else str(folder)
        return Path(name).resolve() == self.places.valkey_dir.resolve()

    def stop(self) -> None:
        """End the server: politely, then firmly. Does nothing when it isn't running."""
        if self.process is None:
            return
        process, self.process = self.process, None
        with contextlib.suppress(psutil.Error):
            processes.end([psutil.Process(process.pid)], {signal.SIGTERM: 5.0, signal.SIGKILL: 5.0})
        process.wait(timeout=5)

    def clean_up(self) -> None:
        """End a server that an earlier owner left on this data directory, and remove its socket."""
        found = processes.living(self.places.account, "valkey-server", self.places.mark)
        left = processes.end(found, {signal.SIGTERM: 3.0, signal.SIGKILL: 10.0})
        if left:
            raise ServersUnavailable(
                f"Valkey processes of this data directory can't be ended: {[process.pid for process in left]}"
            )
        self.socket.unlink(missing_ok=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            **SETTINGS,
            "dir": _quoted(self.places.valkey_dir),
            "unixsocket": _quoted(self.socket),
            "requirepass": self.password,
            **self.overrides,
        }
        # By standard input: the password must not be seen in the list of processes.
        configuration = "".join(f"{name} {value}\n" for name, value in settings.items())
        return processes.spawn(
            self.places.account,
            [self.places.binaries.valkey, "-", "--proc-title-template", f"valkey-server {self.places.mark}"],
            cwd=self.places.valkey_dir,
            log=self.log,
            stdin=configuration.encode(),
        )

    def _answers_in_time(self) -> bool:
        process = self.process

        def decided() -> bool:
            return process is None or process.poll() is not None or self.serves()

        return (
            processes.wait_until(decided, START_SECONDS_MAX)
            and process is not None
            and process.poll() is None
        )


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
