"""One PostgreSQL of our own: its cluster, its start, its roles and its end."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from api.embedded import processes
from api.embedded.errors import ServersUnavailable
from api.embedded.places import Places

PORT = 5432  # only a part of the socket's name: there is no TCP listener
DATABASE = "mizan"
SUPERUSER = "mizan_superuser"
LOGIN_ROLES = ("mizan_owner", "mizan_api", "mizan_worker", "mizan_sealer", "mizan_auditor")
JOURNAL_ROLE = "mizan_journal"
START_SECONDS_MAX = 120.0
BUILTIN_LOCALES_SINCE = 17
ATTEMPTS_MAX = 3
FAST_SHUTDOWN_SECONDS = 20.0
ORPHAN_SECONDS = 20.0

# For a machine with two cores and a few GB. Durability is never traded: fsync, full_page_writes and synchronous_commit stay on.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "wal_buffers": "16MB",
    "checkpoint_timeout": "10min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    "jit": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_prepared_transactions": "0",
    "idle_in_transaction_session_timeout": "60s",
    "max_parallel_workers_per_gather": "0",
    "max_worker_processes": "4",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d %a ",
    "log_checkpoints": "off",
    "log_lock_waits": "on",
}


@dataclass(slots=True)
class Postgres:
    """A server for one cluster. Start and stop it with the data directory locked."""

    places: Places
    passwords: Mapping[str, str]
    overrides: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.places.home / "postgres.log"

    def url(self, role: str, database: str = DATABASE) -> str:
        """The URL of a role, for SQLAlchemy with psycopg."""
        return f"postgresql+psycopg://{role}:{quote(self.passwords[role])}@/{database}?host={quote(str(self.places.sockets))}&port={PORT}"

    def connect(
        self, role: str = SUPERUSER, database: str = "postgres"
    ) -> "psycopg.Connection[tuple[object, ...]]":
        """An autocommit connection for administration."""
        return psycopg.connect(
            host=str(self.places.sockets),
            port=PORT,
            dbname=database,
            user=role,
            password=self.passwords[role],
            autocommit=True,
            connect_timeout=5,
        )

    def start(self) -> None:
        """Start the server and wait until it answers, cleaning up what an earlier life left behind.

        Raises:
            ServersUnavailable: it can't be started; the detail holds the end of its log.
        """
        self._refuse_other_versions()
        self._discard_half_made()
        if not self.places.cluster.is_dir():
            self._initialise()
        for attempt in range(1, ATTEMPTS_MAX + 1):
            self.clean_up()
            self.process = self._spawn()
            if self._answers_in_time():
                return
            self.stop()
            if attempt == ATTEMPTS_MAX:
                raise ServersUnavailable(
                    f"PostgreSQL doesn't start; the end of {self.log}:\n{processes.tail(self.log)}"
                )

    def serves(self) -> bool:
        """Whether a server answers on our socket and serves this very cluster."""
        try:
            with self.connect() as connection:
                row = connection.execute("show data_directory").fetchone()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ServersUnavailable(
                    f"PostgreSQL refuses the password in {self.places.data_dir / 'secrets'}: it isn't the one that this data directory was made with"
                ) from None
            return False
        return row is not None and Path(str(row[0])).resolve() == self.places.cluster.resolve()

    def stop(self) -> None:
        """End the server: politely, then firmly. Does nothing when it isn't running."""
        if self.process is None:
            return
        process, self.process = self.process, None
        with contextlib.suppress(psutil.Error):
            processes.end(
                [psutil.Process(process.pid)],
                {signal.SIGINT: FAST_SHUTDOWN_SECONDS, signal.SIGQUIT: 5.0, signal.SIGKILL: 5.0},
            )
        process.wait(timeout=5)

    def clean_up(self) -> None:
        """End a server or orphaned backends that an earlier owner left on this cluster, and remove their pid and socket files.

        Raises:
            ServersUnavailable: a server that Mizan didn't start serves this cluster.
        """
        found = processes.living(self.places.account, "postgres", self.places.mark)
        postmasters = [process for process in found if self._is_postmaster(process)]
        processes.end(postmasters, {signal.SIGINT: FAST_SHUTDOWN_SECONDS, signal.SIGQUIT: 5.0})
        # A backend ends by itself when its postmaster is gone, but one that is inside a long statement notices late.
        orphans = processes.living(self.places.account, "postgres", self.places.mark)
        left = processes.end(
            orphans, {signal.SIGTERM: 2.0, signal.SIGQUIT: 2.0, signal.SIGKILL: ORPHAN_SECONDS}
        )
        if left:
            raise ServersUnavailable(
                f"PostgreSQL processes of this data directory can't be ended: {[process.pid for process in left]}"
            )
        self._refuse_strangers()
        (self.places.cluster / "postmaster.pid").unlink(missing_ok=True)
        for socket in self.places.sockets.glob(".s.PGSQL.*"):
            socket.unlink(missing_ok=True)

    def provision(self) -> None:
        """Make the roles and the database that Mizan uses, where they are missing."""
        with self.connect() as connection:
            known = {row[0] for row in connection.execute("select rolname from pg_roles").fetchall()}
            for role in LOGIN_ROLES:
                if role not in known:
                    connection.execute(
                        sql.SQL(
                            "create role {} login nosuperuser nocreaterole nocreatedb {} password {}"
                        ).format(
                            sql.Identifier(role),
                            sql.SQL("bypassrls" if role == "mizan_worker" else "nobypassrls"),
                            sql.Literal(self.passwords[role]),
                        )
                    )
            if JOURNAL_ROLE not in known:
                connection.execute(f"create role {JOURNAL_ROLE} nologin")
                connection.execute(f"grant {JOURNAL_ROLE} to mizan_owner")
            if (
                connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone()
                is None
            ):
                self.create_database(connection, DATABASE)

    @staticmethod
    def create_database(
        connection: "psycopg.Connection[tuple[object, ...]]", name: str, template: str | None = None
    ) -> None:
        """Make a database that mizan_owner owns and only Mizan's roles enter, empty or as a copy of `template`."""
        database = sql.Identifier(name)
        # Copying the files of a small template takes a quarter of the time of logging its pages.
        copied = sql.SQL(" template {} strategy file_copy")
        source = copied.format(sql.Identifier(template)) if template else sql.SQL("")
        connection.execute(sql.SQL("create database {} owner mizan_owner{}").format(database, source))
        connection.execute(sql.SQL("revoke all on database {} from public").format(database))
        connection.execute(
            sql.SQL("grant connect on database {} to {}").format(
                database, sql.SQL(", ").join(map(sql.Identifier, LOGIN_ROLES))
            )
        )
        # what a run of the reconciliation works on lies in temporary tables
        connection.execute(sql.SQL("grant temporary on database {} to mizan_worker").format(database))

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            **SETTINGS,
            "unix_socket_directories": '"' + str(self.places.sockets).replace('"', '""') + '"',
            "port": str(PORT),
            "cluster_name": self.places.mark,
            **self.overrides,
        }
        arguments = [str(self.places.binaries.postgres), "-D", str(self.places.cluster)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        return processes.spawn(self.places.account, arguments, cwd=self.places.home, log=self.log)

    def _answers_in_time(self) -> bool:
        process = self.process

        def decided() -> bool:
            return process is None or process.poll() is not None or self.serves()

        return (
            processes.wait_until(decided, START_SECONDS_MAX)
            and process is not None
            and process.poll() is None
        )

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there whole, so that a killed initdb leaves nothing half-made."""
        account = self.places.account
        making = self.places.home / f"postgres.new-{secrets.token_hex(4)}"
        descriptor, password_file = tempfile.mkstemp(dir=self.places.home)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self.passwords[SUPERUSER])
            account.give(Path(password_file))
            result = account.run(
                self.places.binaries.initdb,
                f"--pgdata={making}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                *(
                    ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
                    if self._major_version() >= BUILTIN_LOCALES_SINCE
                    else ["--locale=C.UTF-8"]
                ),
                "--no-instructions",
                *(["--no-sync"] if self.overrides.get("fsync") == "off" else []),
                cwd=self.places.home,
            )
        finally:
            Path(password_file).unlink(missing_ok=True)
        if result.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            raise ServersUnavailable(f"initdb failed: {(result.stderr or result.stdout).strip()[-2000:]}")
        making.rename(self.places.cluster)

    def _major_version(self) -> int:
        result = self.places.account.run(self.places.binaries.postgres, "--version", cwd=self.places.home)
        found = re.match(r"postgres \(PostgreSQL\) (\d+)", result.stdout)
        if found is None:
            raise ServersUnavailable(
                f"{self.places.binaries.postgres} doesn't run: {result.stderr.strip()[-2000:]}"
            )
        return int(found[1])

    def _discard_half_made(self) -> None:
        beginning = f"{self.places.home}/postgres.new-"
        processes.end(
            processes.living(self.places.account, "initdb", beginning),
            {signal.SIGTERM: 2.0, signal.SIGKILL: 5.0},
        )
        for half_made in self.places.home.glob("postgres.new-*"):
            shutil.rmtree(half_made, ignore_errors=True)

    def _refuse_other_versions(self) -> None:
        version_file = self.places.cluster / "PG_VERSION"
        if not self.places.cluster.is_dir():
            return
        found = version_file.read_text(encoding="ascii").strip() if version_file.is_file() else ""
        ours = str(self._major_version())
        if found != ours:
            raise ServersUnavailable(
                f"{self.places.cluster} was made by PostgreSQL {found or '(unknown: PG_VERSION is missing)'}, and this Mizan brings"
                f" {ours}. Its files can't be read across major versions; move the data by dump and restore:\n"
                "  1. with the Mizan that made it: `mizan dump mizan.dump`\n"
                f"  2. move {self.places.data_dir} away, make it anew and copy the old one's folder `secrets` into it\n"
                "  3. with this Mizan: `mizan restore mizan.dump`, then `mizan ledger verify`"
            )

    def _is_postmaster(self, process: psutil.Process) -> bool:
        # The postmaster keeps its arguments; each child writes its title over them.
        with contextlib.suppress(psutil.Error):
            return "-D" in process.cmdline()
        return False

    def _refuse_strangers(self) -> None:
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int((self.places.cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
            process = psutil.Process(pid)
            serves_it = str(self.places.cluster) in " ".join(process.cmdline())
            if process.name() == "postgres" and serves_it:
                raise ServersUnavailable(
                    f"another PostgreSQL, pid {pid}, that Mizan didn't start serves {self.places.cluster}: stop it first"
                )
