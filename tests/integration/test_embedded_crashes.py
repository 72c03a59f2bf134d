"""The embedded servers when things go wrong: every kind of end, and a start after each."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import psutil
import psycopg
import pytest
import redis

from api.embedded import EmbeddedServers
from api.embedded.places import Places
from tests.integration.embedded_world import ask, folder, owner, running, start, wait_ready
from tests.patience import PATIENCE_SECONDS, eventually


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def lived_in() -> Places:
    """A data directory in which servers have run: made once, as most tests only need one to start in again."""
    with running(folder()) as started:
        return started.places


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["Ctrl-C", "SIGTERM", "a closed terminal"]
)
def test_servers_end_with_their_owner_on(lived_in: Places, number: signal.Signals) -> None:
    with owner(lived_in.data_dir) as started:
        os.killpg(started.process.pid, number)  # as a terminal does: to the whole group
        started.process.wait(PATIENCE_SECONDS)
        assert gone(started.pid("postgres"))
        assert gone(started.pid("valkey"))
        assert not Path(str(started.ready["sockets"])).exists()
        assert not lived_in.state_file.exists()
    with running(lived_in.data_dir) as again:
        assert ask(again, "select 1") == 1


def test_an_impatient_second_signal_leaves_no_orphans(lived_in: Places) -> None:
    with owner(lived_in.data_dir) as started:
        for _ in range(3):
            started.process.send_signal(signal.SIGINT)
            time.sleep(0.03)
        started.process.wait(PATIENCE_SECONDS)
        assert gone(started.pid("postgres"))
        assert gone(started.pid("valkey"))


def test_after_kill_9_of_the_owner_the_next_one_takes_over_with_everything_committed() -> None:
    data_dir = folder()
    with running(data_dir, durable=True) as first:
        ask(first, "create table kept (n int)")
    with owner(data_dir) as killed:
        with running(data_dir) as beside:
            ask(beside, "insert into kept values (1)")
        killed.end(signal.SIGKILL)
        assert not gone(killed.pid("postgres"))
        with running(data_dir) as again:
            assert again.owner
            assert ask(again, "select count(*) from kept") == 1
            assert gone(killed.pid("postgres"))
            assert gone(killed.pid("valkey"))


def test_a_killed_postgres_comes_back_at_the_same_address_with_everything_committed(
    durable_servers: EmbeddedServers,
) -> None:
    url = durable_servers.url("mizan_superuser")
    ask(durable_servers, "create table if not exists kept (n int)")
    for n in range(3):
        ask(durable_servers, f"insert into kept values ({n})")
        os.kill(durable_servers.pid("postgres"), signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            ask(durable_servers, "select 1")
        durable_servers.restart("postgres")
        assert ask(durable_servers, "select count(*) from kept") == n + 1
    assert durable_servers.url("mizan_superuser") == url


def test_a_killed_valkey_comes_back_at_the_same_address_and_empty(durable_servers: EmbeddedServers) -> None:
    with redis.Redis.from_url(durable_servers.redis_url) as client:
        client.set("wake", "up")
        os.kill(durable_servers.pid("valkey"), signal.SIGKILL)
        durable_servers.restart("valkey")
        assert client.get("wake") is None


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_watched_server_that_dies_is_started_again(
    lived_in: Places, name: Literal["postgres", "valkey"]
) -> None:
    with running(lived_in.data_dir, watch=True) as started:
        before = started.pid(name)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: started.pid(name) != before and started.alive(name))


def test_orphan_backends_of_a_killed_postmaster_do_not_block_the_start() -> None:
    data_dir = folder()
    with owner(data_dir) as killed:
        with running(data_dir) as beside:
            busy = psycopg.connect(beside.url("mizan_superuser").replace("+psycopg", ""), autocommit=True)
            busy.pgconn.send_query(b"select count(*) from generate_series(1, 100000000000)")
            backend = busy.info.backend_pid
            killed.end(signal.SIGKILL)
            os.kill(killed.pid("postgres"), signal.SIGKILL)
            time.sleep(0.2)
            assert not gone(backend)
        with running(data_dir) as again:
            assert ask(again, "select 1") == 1
            assert gone(backend)  # by itself it would have been busy for hours
        busy.close()


DAMAGE: dict[str, Callable[[Places], object]] = {
    "an empty pid file": lambda where: (where.cluster / "postmaster.pid").write_text(""),
    "half a pid file": lambda where: (where.cluster / "postmaster.pid").write_text("123"),
    "garbage for a pid file": lambda where: (where.cluster / "postmaster.pid").write_bytes(
        b"\x00\xff\xfe garbage"
    ),
    "the pid of a stranger": lambda where: (where.cluster / "postmaster.pid").write_text(
        f"{os.getppid()}\n{where.cluster}\n0\n5432\n{where.sockets}\n\n0 0\nready\n"
    ),
    "a torn state file": lambda where: where.state_file.write_text('{"format": 1, "ow'),
    "a state file of the dead": lambda where: where.state_file.write_text(
        f'{{"format": 1, "owner": 1, "postgres": 1, "valkey": 1, "sockets": "{where.sockets}", "home": "{where.home}"}}'
    ),
    "half a cluster": lambda where: (where.home / "postgres.new-dead" / "base").mkdir(parents=True),
    "no folder for Valkey": lambda where: where.valkey_dir.rmdir(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_servers_start_after_an_earlier_life_left(
    lived_in: Places, damage: Callable[[Places], object]
) -> None:
    damage(lived_in)
    with running(lived_in.data_dir) as again:
        assert again.owner
        assert ask(again, "select 1") == 1
        assert not list(lived_in.home.glob("postgres.new-*"))


def test_stale_socket_files_do_not_block_the_start(lived_in: Places) -> None:
    with owner(lived_in.data_dir) as killed:
        killed.end(signal.SIGKILL)
        for name in ("postgres", "valkey"):
            os.kill(killed.pid(name), signal.SIGKILL)
        eventually(lambda: gone(killed.pid("postgres")) and gone(killed.pid("valkey")))
        assert list(Path(str(killed.ready["sockets"])).iterdir())
    with running(lived_in.data_dir) as again:
        assert ask(again, "select 1") == 1
        assert again.alive("valkey")


@pytest.mark.parametrize("seconds", [0.5, 0.9, 1.3])
def test_an_owner_killed_while_it_starts_leaves_nothing_that_blocks_the_next(seconds: float) -> None:
    data_dir = folder()
    process = start(data_dir)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    with running(data_dir) as again:
        assert ask(again, "select 1") == 1


def test_a_command_that_waits_for_a_dying_owner_takes_its_place() -> None:
    data_dir = folder()
    with owner(data_dir) as first:
        waiting = start(data_dir)
        second = wait_ready(waiting)
        assert second.ready["owner"] is False
        first.end(signal.SIGKILL)
        third = start(data_dir)
        took_over = wait_ready(third)
        assert took_over.ready["owner"] is True
        for one in (second, took_over):
            one.process.terminate()
            one.process.communicate(timeout=PATIENCE_SECONDS)
