"""`/readyz` and `mizan doctor` tell the truth: servers are really stopped, and the database really isn't the right one."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from api.cli.app import app
from api.embedded import EmbeddedServers
from ledger.clock import FixedClock
from ledger.database import Database
from tests.conftest import environment_of
from tests.http.served import Served, served


@pytest.fixture(scope="module")
def api(durable_servers: EmbeddedServers) -> Iterator[Served]:
    """An API on servers that may be killed."""
    worker = Database(durable_servers.url("mizan_worker"), application_name="test")
    with served(durable_servers.settings, worker, FixedClock(datetime.now(UTC))) as running:
        yield running
    worker.close()


def ready(api: Served) -> tuple[int, dict[str, str]]:
    answer = api.http.get("/readyz")
    return answer.status_code, answer.json()


ALL_WELL = dict.fromkeys(("status", "database", "worker_database", "migrations", "stamp", "queue"), "ok")


@contextmanager
def killed(servers: EmbeddedServers, name: Any) -> Iterator[None]:
    """One of the servers is gone for the length of the block."""
    os.kill(servers.pid(name), signal.SIGKILL)
    try:
        yield
    finally:
        servers.restart(name)


@contextmanager
def planted(servers: EmbeddedServers, change: str, undo: str) -> Iterator[None]:
    """A change that a superuser makes, for the length of the block."""
    with psycopg.connect(servers.superuser_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(change.encode())
        try:
            yield
        finally:
            connection.execute(undo.encode())


WRONG_DATABASES = [
    (
        "update alembic_version set version_num = '0001_ledger'",
        "update alembic_version set version_num = '0004_api'",
        {"migrations": "outdated", "stamp": "unknown"},
        "run `mizan migrate`",
    ),
    (
        "update api.stamp set environment = 'production'",
        "update api.stamp set environment = 'sandbox'",
        {"stamp": "mismatch"},
        "the database belongs to production",
    ),
    (
        "update ledger.era set system_identifier = system_identifier - 1",
        "update ledger.era set system_identifier = system_identifier + 1",
        {"stamp": "mismatch"},
        "restored from another cluster",
    ),
]


def test_all_is_well(api: Served) -> None:
    assert ready(api) == (200, ALL_WELL)


def test_without_the_database_it_is_not_ready_and_lives(
    api: Served, durable_servers: EmbeddedServers
) -> None:
    with killed(durable_servers, "postgres"):
        assert api.http.get("/healthz").status_code == 200
        assert ready(api) == (
            503,
            ALL_WELL
            | dict.fromkeys(("status", "database", "worker_database"), "unavailable")
            | dict.fromkeys(("migrations", "stamp"), "unknown"),
        )
    assert ready(api) == (200, ALL_WELL)


def test_without_valkey_it_is_degraded_and_ready(api: Served, durable_servers: EmbeddedServers) -> None:
    with killed(durable_servers, "valkey"):
        assert ready(api) == (200, ALL_WELL | {"status": "degraded", "queue": "unavailable"})
    assert ready(api) == (200, ALL_WELL)


@pytest.mark.parametrize(("change", "undo", "told", "_said"), WRONG_DATABASES)
def test_on_another_database_than_its_own_it_is_not_ready(
    api: Served, durable_servers: EmbeddedServers, change: str, undo: str, told: dict[str, str], _said: str
) -> None:
    with planted(durable_servers, change, undo):
        assert ready(api) == (503, ALL_WELL | {"status": "unavailable"} | told)
    assert ready(api) == (200, ALL_WELL)


# The doctor, on servers that are configured: embedded ones it would start itself.


@pytest.fixture
def configured(durable_servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a deployment on these servers."""
    for name, value in environment_of(durable_servers.settings).items():
        monkeypatch.setenv(name, value)


def ill() -> dict[str, str]:
    """What the doctor finds ill, and what it says; its exit code agrees."""
    result = CliRunner().invoke(app, ["doctor", "--json"])
    shown = json.loads(result.stdout)
    found = {one["name"]: one["detail"] for one in shown["checks"] if not one["ok"]}
    assert (result.exit_code, shown["ok"]) == ((1, False) if found else (0, True)), result.output
    return found


@pytest.mark.usefixtures("configured")
def test_the_doctor_finds_which_server_is_away(durable_servers: EmbeddedServers) -> None:
    assert ill() == {}
    with killed(durable_servers, "postgres"):
        assert set(ill()) == {"migrations"}
    with killed(durable_servers, "valkey"):
        assert set(ill()) == {"Valkey"}


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(("change", "undo", "_told", "said"), WRONG_DATABASES)
def test_the_doctor_finds_a_database_that_is_not_the_one_to_work_with(
    durable_servers: EmbeddedServers, change: str, undo: str, _told: dict[str, str], said: str
) -> None:
    with planted(durable_servers, change, undo):
        found = ill()
    assert found
    assert all(said in detail for detail in found.values()), found
