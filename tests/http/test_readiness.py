"""`/readyz` and `mizan doctor` tell the truth: servers are really stopped, and the database really isn't the right one."""

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from api.cli.app import app
from api.embedded import EmbeddedServers
from api.migrations.run import newest
from api.v1.health import LOOK_SECONDS_MIN
from ledger.clock import FixedClock
from ledger.database import Database
from products.keyring import Keyring
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
    time.sleep(LOOK_SECONDS_MIN)  # what was seen a moment ago may be told again
    answer = api.http.get("/readyz")
    return answer.status_code, answer.json()


ALL_WELL = dict.fromkeys(
    ("status", "database", "worker_database", "migrations", "stamp", "queue", "inbox", "seals"), "ok"
)


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
        f"update alembic_version set version_num = '{newest()}'",
        {"migrations": "outdated", "stamp": "unknown"},
        "run `mizan migrate`",
    ),
    (
        "update alembic_version set version_num = '9999_later'; update api.stamp set compatible_from = '9999_later'",
        f"update alembic_version set version_num = '{newest()}'; update api.stamp set compatible_from = '0011_operations'",
        {"migrations": "incompatible", "stamp": "unknown"},
        "too old for",
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
            | dict.fromkeys(("migrations", "stamp", "inbox", "seals"), "unknown"),
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


def test_a_database_that_was_migrated_first_keeps_older_programs_ready(
    api: Served, durable_servers: EmbeddedServers
) -> None:
    with planted(
        durable_servers,
        "update alembic_version set version_num = '9999_later'",
        f"update alembic_version set version_num = '{newest()}'",
    ):
        assert ready(api) == (200, ALL_WELL | {"migrations": "ahead"})


def test_what_waits_too_long_is_told_and_still_ready(api: Served, durable_servers: EmbeddedServers) -> None:
    with planted(
        durable_servers,
        "insert into integrations.delivery (id, partner_id, delivery_key, kind, event_type, lane, digest, body_digest,"
        " body_sealed, inbox_key_id, received_at) select gen_random_uuid(), gen_random_uuid(), d, 'new', 'x', 3, d, d, d,"
        " gen_random_uuid(), now() - interval '2 minutes' from sha256('') as d;"
        " insert into integrations.delivery_queue (lane, id) select lane, id from integrations.delivery",
        "delete from integrations.delivery_queue; delete from integrations.delivery",
    ):
        assert ready(api) == (200, ALL_WELL | {"status": "degraded", "inbox": "late"})


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


def findings() -> dict[str, tuple[str, str]]:
    """What the doctor finds: level and detail by name."""
    result = CliRunner().invoke(app, ["doctor", "--json"])
    return {one["name"]: (one["level"], one["detail"]) for one in json.loads(result.stdout)["checks"]}


@pytest.mark.usefixtures("configured")
def test_the_doctor_proves_that_the_master_key_opens_what_it_sealed(
    api: Served, durable_servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    level, said = findings()["master key"]
    assert (level, "opens its canary" in said) == ("ok", True)
    right, other = (
        base64.b64encode(key).decode()
        for key in (durable_servers.settings.master_key_bytes, bytes(range(32)))
    )
    ring = Keyring.of(durable_servers.settings.master_key_bytes)
    # a wrong key, that was never this database's
    monkeypatch.setenv("MIZAN_MASTER_KEY", other)
    level, said = findings()["master key"]
    assert (level, f"needs the master key {ring.current}" in said) == ("fail", True)
    # rotation has begun
    monkeypatch.setenv("MIZAN_MASTER_KEYS_RETIRED", right)
    level, said = findings()["master key"]
    assert (level, "mizan key rotate-master" in said) == ("warn", True)
    # the right one, and one that nothing needs
    monkeypatch.setenv("MIZAN_MASTER_KEY", right)
    monkeypatch.setenv("MIZAN_MASTER_KEYS_RETIRED", other)
    level, said = findings()["master key"]
    assert (level, "take it out of the settings" in said) == ("warn", True)
    shown = json.dumps(findings())
    assert right not in shown
    assert other not in shown
    # a sealed value that was changed
    with planted(
        durable_servers,
        "update integrations.webhook_secret set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1)",
        "update integrations.webhook_secret set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1)",
    ):
        level, said = findings()["master key"]
        assert (level, "integrations.webhook_secret.sealed does not open" in said) == ("fail", True)


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("change", "undo", "name", "said"),
    [
        ("alter role mizan_api bypassrls", "alter role mizan_api nobypassrls", "role api", "must not bypass"),
        (
            "alter role mizan_worker nobypassrls",
            "alter role mizan_worker bypassrls",
            "role worker",
            "must bypass",
        ),
        (
            "alter role mizan_sealer superuser",
            "alter role mizan_sealer nosuperuser",
            "role sealer",
            "a superuser",
        ),
        (
            "alter role mizan_auditor createrole",
            "alter role mizan_auditor nocreaterole",
            "role auditor",
            "own",
        ),
        (
            "grant delete on ledger.posting to mizan_worker",
            "revoke delete on ledger.posting from mizan_worker",
            "role worker",
            "grants on the books",
        ),
        (
            "alter table products.member_link disable row level security",
            "alter table products.member_link enable row level security",
            "role api",
            "not in force",
        ),
        (
            "update ledger.fund set time_zone = 'Mars/Olympus'",
            "update ledger.fund set time_zone = 'Africa/Kigali'",
            "time zones",
            "no rules for Mars/Olympus",
        ),
    ],
    ids=lambda one: one if one.startswith("alter") else "",
)
def test_the_doctor_finds_roles_and_rules_that_are_not_as_they_have_to_be(
    api: Served, durable_servers: EmbeddedServers, change: str, undo: str, name: str, said: str
) -> None:
    assert api.url  # its world is there
    with planted(durable_servers, change, undo):
        level, detail = findings()[name]
        assert (level, said in detail) == ("fail", True), detail
    assert findings()[name][0] == "ok"


@pytest.mark.usefixtures("configured")
def test_the_doctor_finds_clocks_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["clocks"][0] == "ok"
    real = time.time
    monkeypatch.setattr("api.examination.time.time", lambda: real() + 40)
    assert findings()["clocks"][0] == "fail"
