"""Builders for the tests of the embedded servers: data directories, programs that own servers, and what they left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

import tests
from api.embedded import EmbeddedServers, servers
from tests.conftest import CARELESS, RUN_DIRECTORY, settings_for
from tests.patience import PATIENCE_SECONDS

ROOT = os.geteuid() == 0
PROJECT = Path(tests.__file__).parents[1]
READY_SECONDS_MAX = 60


def folder(name: str = "data", *, mode: int = 0o711) -> Path:
    """A path for a data directory in a folder of its own, which the servers' account can go through."""
    made = Path(tempfile.mkdtemp(prefix="embedded-", dir=os.environ[RUN_DIRECTORY]))
    made.chmod(mode)
    return made / name


@contextmanager
def running(data_dir: Path, *, watch: bool = False, durable: bool = False) -> Iterator[EmbeddedServers]:
    """Servers of a data directory, in this process; they wait for the disk only if `durable`."""
    overrides = None if durable else CARELESS
    with servers(
        settings_for(data_dir), postgres_overrides=overrides, watch=watch, linger_seconds=0
    ) as started:
        yield started


def ask(started: EmbeddedServers, statement: str, role: str = "mizan_superuser") -> object:
    """The one value that a statement answers in the database `mizan`."""
    with psycopg.connect(
        started.url(role).replace("+psycopg", ""), autocommit=True, connect_timeout=60
    ) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that owns (or uses) the servers of a data directory."""

    process: subprocess.Popen[str]
    ready: Mapping[str, object]

    def pid(self, name: str) -> int:
        """The process id of one of its servers."""
        return int(str(self.ready[name]))

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the process and answer its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def start(
    data_dir: Path, *, uid: int | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the program and don't wait."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.integration.embedded_owner",
            str(data_dir),
            *([str(uid)] if uid is not None else []),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )


def wait_ready(process: subprocess.Popen[str]) -> Owner:
    """The program's answer when its servers are ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise AssertionError(f"the program ended with {process.wait(10)}: {process.stderr.read()[-3000:]}")
    return Owner(process, json.loads(line))


@contextmanager
def owner(
    data_dir: Path, *, uid: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Owner]:
    """A program that owns the servers of a data directory; it is ended at last by SIGTERM, which ends the servers too."""
    process = start(data_dir, uid=uid, environment=environment)
    try:
        yield wait_ready(process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)
