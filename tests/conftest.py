"""The world that tests run in: real embedded servers, one migrated template, a fresh database for each test.

`databases` gives a test its own database with one `Database` for each role; `settings` points Mizan's own settings at it.
The servers of ordinary tests don't wait for the disk; `durable_servers` do, and are there to be killed.
MIZAN_TESTS_POSTGRES names a folder with the programs of another PostgreSQL than the wheel's: `make test-postgres-15`.
With pytest-xdist each worker runs servers of its own: the settled horizon is the whole cluster's, so what another worker has
under way would keep a test's own rows from settling.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from pydantic import SecretStr

from api.embedded import EmbeddedServers
from api.embedded import servers as embedded_servers
from api.migrations.run import migrate
from api.settings import Settings, load
from ledger.clock import FixedClock
from ledger.database import Database
from tests import log_watch

TEMPLATE = "mizan_template"
RUN_DIRECTORY = "MIZAN_TESTS_DIRECTORY"
POSTGRES_PROGRAMS = "MIZAN_TESTS_POSTGRES"
FUZZ_TIMES = "MIZAN_TESTS_FUZZ"
FUZZ = int(os.environ.get(FUZZ_TIMES, "1"))
"""How many times as long tests of random values go on; beyond 1 the values are new each time."""
CARELESS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB", "max_wal_size": "2GB"}


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all workers of a run share."""
    ours = (RUN_DIRECTORY, POSTGRES_PROGRAMS, FUZZ_TIMES)
    for name in [name for name in os.environ if name.startswith("MIZAN_") and name not in ours]:
        del os.environ[name]  # a developer's own deployment must not leak into tests
    if not hasattr(config, "workerinput"):
        os.environ[RUN_DIRECTORY] = tempfile.mkdtemp(prefix="mizan-tests-")
        Path(os.environ[RUN_DIRECTORY]).chmod(0o711)
    log_watch.begin(Path(os.environ[RUN_DIRECTORY]))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when its logs hold what tests have planted."""
    if not hasattr(session.config, "workerinput"):
        log_watch.end(session, Path(os.environ[RUN_DIRECTORY]))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder when every worker has ended."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(RUN_DIRECTORY), ignore_errors=True)


def postgres_programs() -> Path | None:
    """The programs of the PostgreSQL to test on; None: the wheel's."""
    given = os.environ.get(POSTGRES_PROGRAMS)
    return Path(given) if given else None


def settings_for(data_dir: Path, **overrides: object) -> Settings:
    """Settings of embedded servers in a folder, whatever `.env` says."""
    return load(data_dir=data_dir, _env_file=None, **overrides)


@dataclass(frozen=True, slots=True)
class Databases:
    """One database, entered as each role."""

    name: str
    owner: Database
    api: Database
    worker: Database
    sealer: Database
    auditor: Database
    superuser: Database
    urls: dict[str, str]

    def close(self) -> None:
        """Give back every connection."""
        for database in (self.owner, self.api, self.worker, self.sealer, self.auditor, self.superuser):
            database.close()


def databases_of(servers: EmbeddedServers, name: str) -> Databases:
    """The roles' `Database` objects for a database of these servers."""
    urls = {
        role: servers.url(f"mizan_{role}", name)
        for role in ("owner", "api", "worker", "sealer", "auditor", "superuser")
    }
    roles = {role: Database(url, application_name=f"test {role}") for role, url in urls.items()}
    return Databases(name=name, urls=urls, **roles)


def settings_of(servers: EmbeddedServers, databases: Databases, redis_url: str) -> Settings:
    """Complete settings that point at one test's database."""
    urls = {
        f"database_url_{role}": SecretStr(databases.urls[role])
        for role in ("owner", "worker", "sealer", "auditor")
    }
    return servers.settings.model_copy(
        update={**urls, "database_url": SecretStr(databases.urls["api"]), "redis_url": SecretStr(redis_url)}
    )


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables with which a process of a deployment on these servers is started."""
    secrets = {
        f"MIZAN_{name.upper()}": value.get_secret_value()
        for name, value in settings
        if isinstance(value, SecretStr)
    }
    return {"MIZAN_ENVIRONMENT": "sandbox", **secrets}


@pytest.fixture(scope="session")
def worker_number() -> int:
    """0 without pytest-xdist, else the number of this worker."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="session")
def servers(worker_number: int) -> Iterator[EmbeddedServers]:
    """This worker's PostgreSQL and Valkey, with a migrated template database."""
    with embedded_servers(
        settings_for(Path(os.environ[RUN_DIRECTORY]) / f"mizan-{worker_number}"),
        postgres_overrides=CARELESS,
        postgres_programs=postgres_programs(),
        linger_seconds=0,
    ) as running:
        running.create_database(TEMPLATE)
        owner = SecretStr(running.url("mizan_owner", TEMPLATE))
        migrate(running.settings.model_copy(update={"database_url_owner": owner}))
        yield running


@pytest.fixture(scope="session")
def database_numbers() -> Iterator[int]:
    """Numbers for database names, unique in a worker."""
    return itertools.count(1)


@pytest.fixture
def databases(
    servers: EmbeddedServers, database_numbers: Iterator[int], worker_number: int
) -> Iterator[Databases]:
    """A fresh, migrated database of this test's own."""
    name = f"test_{worker_number}_{next(database_numbers)}"
    servers.create_database(name, TEMPLATE)
    fresh = databases_of(servers, name)
    yield fresh
    fresh.close()
    drop_database(servers, name)


@pytest.fixture
def redis_url(servers: EmbeddedServers) -> str:
    """An empty Valkey database."""
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushdb()
    return servers.redis_url


@pytest.fixture
def settings(servers: EmbeddedServers, databases: Databases, redis_url: str) -> Settings:
    """Complete settings that point at this test's own databases."""
    return settings_of(servers, databases, redis_url)


@pytest.fixture
def clock() -> FixedClock:
    """A clock that moves only when told."""
    return FixedClock(datetime(2026, 3, 2, 9, 30, tzinfo=UTC))


@pytest.fixture(scope="module")
def durable_servers() -> Iterator[EmbeddedServers]:
    """Servers of this test module alone that really wait for the disk, to be killed by `pid(name)` and brought back by `restart(name)`.

    Nobody restarts them unasked. Their database `mizan` is migrated.
    """
    folder = Path(tempfile.mkdtemp(prefix="durable-", dir=os.environ[RUN_DIRECTORY]))
    folder.chmod(0o711)
    with embedded_servers(
        settings_for(folder / "mizan"), postgres_programs=postgres_programs(), watch=False, linger_seconds=0
    ) as running:
        migrate(running.settings)
        yield running
    running.destroy()


def drop_database(servers: EmbeddedServers, name: str) -> None:
    """Drop a database, ending whoever is still connected to it."""
    with psycopg.connect(
        servers.superuser_url.replace("postgresql+psycopg", "postgresql").replace("/mizan?", "/postgres?"),
        autocommit=True,
    ) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
