"""Books moved to another cluster by dump and restore: transaction ids start again there, so a new era begins."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from api.embedded import EmbeddedServers, servers
from api.migrations.run import differences, migrate
from api.settings import UnsafeSettings
from api.stamp import require_stamp
from ledger.clock import FixedClock
from ledger.fold import fold
from ledger.seals import SealingKey, seal
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from tests.conftest import CARELESS, Databases, databases_of, postgres_programs, settings_for, settings_of
from tests.integration.embedded_world import folder
from tests.integration.inbox.builders import Inbox
from tests.world import World

HORIZON_TABLES = {"ledger.transaction", "ledger.outbox", "products.remittance", "integrations.delivery"}


@pytest.fixture(scope="module")
def other_cluster() -> Iterator[EmbeddedServers]:
    """Another pair of servers, empty."""
    with servers(
        settings_for(folder()),
        postgres_overrides=CARELESS,
        postgres_programs=postgres_programs(),
        watch=False,
        linger_seconds=0,
    ) as running:
        yield running
    running.destroy()


def run(program: Path, *arguments: str | Path) -> None:
    """Run a program of PostgreSQL's as ourselves."""
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def moved(
    source: EmbeddedServers, databases: Databases, target: EmbeddedServers, dump: Path
) -> Iterator[Databases]:
    """The database, dumped by its owner and restored by a superuser into a new one of the other cluster."""
    programs = source.places.binaries.postgres.parent
    run(
        programs / "pg_dump",
        "--format=custom",
        f"--file={dump}",
        f"--dbname={plain(databases.urls['owner'])}",
    )
    target.create_database("restored")
    run(programs / "pg_restore", f"--dbname={plain(target.url('mizan_superuser', 'restored'))}", dump)
    restored = databases_of(target, "restored")
    try:
        yield restored
    finally:
        restored.close()


def plain(url: str) -> str:
    """A URL as PostgreSQL's programs take it."""
    return url.replace("+psycopg", "")


def era_defaults(databases: Databases) -> dict[str, str]:
    """The default of column `era` of every table that has one, partitions included."""
    with databases.superuser.begin() as tx:
        rows = tx.exec_driver_sql(
            "select a.attrelid::regclass::text, pg_get_expr(d.adbin, d.adrelid) from pg_attribute a"
            " join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum) where a.attname = 'era'"
        )
        return {row[0]: row[1] for row in rows}


def work(world: World, inbox: Inbox, remittance_id: str) -> None:
    """One remittance through the inbox's and the ledger's tables."""
    partner = world.partner(f"partner-{remittance_id}")
    person = world.member(partner)
    [verdict] = world.send(partner, world.completed(person, remittance_id=remittance_id))
    assert verdict.state == "posted"
    inbox.store([inbox.received(remittance_id)])


def test_books_restored_into_another_cluster_begin_a_new_era_in_every_table(
    servers: EmbeddedServers,
    databases: Databases,
    other_cluster: EmbeddedServers,
    clock: FixedClock,
    tmp_path: Path,
) -> None:
    key = SealingKey.generate()
    world, inbox = World(databases, clock), Inbox(databases, clock)
    work(world, inbox, "before")
    databases.sealer.run(lambda tx: seal(tx, key, clock))
    with moved(servers, databases, other_cluster, tmp_path / "mizan.dump") as restored:
        with (
            restored.api.begin() as tx,
            pytest.raises(UnsafeSettings, match="restored from another cluster: run `mizan migrate`"),
        ):
            require_stamp(tx, other_cluster.settings)
        assert set(era_defaults(restored).values()) == {"1"}
        settings = settings_of(other_cluster, restored, other_cluster.redis_url)
        migrate(settings)
        with restored.api.begin() as tx:
            require_stamp(tx, settings)

        assert set(era_defaults(restored)) >= HORIZON_TABLES
        assert set(era_defaults(restored).values()) == {"2"}
        assert differences(restored.urls["owner"]) == []
        world.databases = inbox.databases = restored
        work(world, inbox, "after")
        with restored.auditor.begin() as tx:
            for table in HORIZON_TABLES:
                eras = tx.execute(
                    text(f"select array_agg(distinct era order by era) from {table}")
                ).scalar_one()
                assert eras == [1, 2], table

        assert restored.sealer.run(lambda tx: seal(tx, key, clock)) is not None
        restored.worker.run(lambda tx: fold(tx, limit=100_000))
        with restored.auditor.read() as tx:
            report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
        assert report.ok, [*report.findings()]


def test_migrating_again_takes_no_lock_on_the_journal(databases: Databases) -> None:
    with psycopg.connect(plain(databases.urls["owner"])) as connection:
        connection.execute("select ledger.ensure_era()")
        locked = connection.execute(
            "select relation::regclass::text from pg_locks"
            " where pid = pg_backend_pid() and mode = 'AccessExclusiveLock' and relation is not null"
        ).fetchall()
    assert locked == []
