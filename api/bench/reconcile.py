"""What pairing costs: a million statement lines with a million items, beside a plain hash join of the same rows.

Half of the lines are one item's, a third belong to groups (one line to two items, three lines to one item), the rest are noise, as are
the items that are left. The engine tries every rule that comes with the program, in the transaction that a run is. The floor is one
plain hash join of the same rows on the names that they bear (reference, end-to-end id, identifiers, batch, party and day), writing the
ids of whatever has one in common into a table without an index: it asks for no amount, no sum and no second answer, and records
nothing. Beside it stands what no pairing could do: a join on a key that tells beforehand which line is which item's, which finds
the same pairs and writes their ids, or only counts them.
Twice the lines are joined and paired in a second database of the same server. Memory is what a process had resident at most, the
shared buffers that it touched included.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from uuid import UUID

import psutil
import psycopg

from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.migrations.run import upgrade
from ledger.accounts import AccountSpec, open_accounts, open_fund
from ledger.clock import SystemClock
from ledger.database import Database
from ledger.ids import new_id
from ledger.reconciliation import rules
from ledger.reconciliation.engine import pair

CURRENCY = "PHP"
SAMPLE_SECONDS = 0.02

_BY_NAME = """
    FROM (SELECT id, name FROM ledger.statement_line CROSS JOIN LATERAL unnest(
              array_remove(ARRAY[reference, end_to_end, party || ' ' || booked_on], NULL) || identifiers) AS name) AS l
    JOIN (SELECT id, name FROM ledger.item CROSS JOIN LATERAL unnest(
              array_remove(ARRAY[reference, end_to_end, batch, party || ' ' || on_date], NULL) || identifiers) AS name) AS i
        USING (name)
"""
_BY_TRUTH = """
    FROM ledger.statement_line l JOIN ledger.item i ON i.bank_account_id = l.bank_account_id AND i.subject = l.kind
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How many lines there are, and as many items."""

    lines: int = 1_000_000


@dataclass(frozen=True, slots=True)
class _World:
    """A loaded database: its URLs by role, the bank account and how many lines it has."""

    urls: Mapping[str, str]
    bank_account: UUID
    lines: int


def run(rounds: int, size: Size | None = None) -> Report:
    """Join and pair by turns, in a database with the lines and in one with twice as many."""
    with temporary_servers() as servers:
        urls = {}
        for name in ("once", "twice"):
            database = f"bench_{name}"
            servers.create_database(database)
            upgrade(servers.url("mizan_owner", database))
            urls[name] = {role: servers.url(f"mizan_{role}", database) for role in ("worker", "superuser")}
        return compare(urls["once"], urls["twice"], rounds, size or Size())


def compare(once: Mapping[str, str], twice: Mapping[str, str], rounds: int, size: Size) -> Report:
    """The same in two migrated, empty databases, each given by its roles' URLs."""
    worlds = [_world(once, size.lines), _world(twice, 2 * size.lines)]
    for world in worlds:
        _forget(world)
    measured = [_round(*worlds) for _ in range(rounds)]
    return Report("reconcile", medians(measured), machine(libpq(once["worker"])))


def _round(once: _World, twice: _World) -> dict[str, float]:
    figures = _joined(once)
    figures |= _paired(once)
    figures["ratio"] = figures["seconds"] / figures["floor_seconds"]
    figures["ratio_to_truth_join"] = figures["seconds"] / figures["truth_join_seconds"]
    figures["lines_per_second"] = once.lines / figures["seconds"]
    joined_twice = _joined(twice)  # what is paired twice over is as warm as what was paired once
    double = _paired(twice)
    figures["floor_growth"] = joined_twice["floor_seconds"] / figures["floor_seconds"]
    figures["seconds_twice"] = double["seconds"]
    figures["growth"] = double["seconds"] / figures["seconds"]
    figures["memory_mib_twice"] = double["memory_mib"]
    return figures


def _joined(world: _World) -> dict[str, float]:
    """Seconds of the joins: the floor, the one that knows the truth, and that one when it only counts."""
    found = "l.id AS line, i.id AS item"
    statements = {
        "floor_seconds": f"CREATE TABLE bench.joined AS SELECT {found} {_BY_NAME}",
        "truth_join_seconds": f"CREATE TABLE bench.joined AS SELECT {found} {_BY_TRUTH}",
        "truth_join_counting_seconds": f"SELECT count(*) {_BY_TRUTH}",
    }
    figures = {}
    with psycopg.connect(libpq(world.urls["superuser"]), autocommit=True) as connection:
        connection.execute("SET enable_nestloop = off")
        connection.execute("SET enable_mergejoin = off")
        connection.execute("SET work_mem = '256MB'")
        for name, statement in statements.items():
            began = time.perf_counter()
            connection.execute(statement)
            figures[name] = time.perf_counter() - began
            connection.execute("DROP TABLE IF EXISTS bench.joined")
    return figures


def _paired(world: _World) -> dict[str, float]:
    """Seconds of a run until it is committed, its memory, and how much it paired: exactly what belongs together."""
    _forget(world)
    database = Database(world.urls["worker"], application_name="bench")
    used = rules.default()
    with database.begin() as tx:  # the connection is open before the clock starts
        tx.exec_driver_sql("SELECT 1")
    began = time.perf_counter()
    with database.begin() as tx:
        backend = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with _Memory(psutil.Process(), psutil.Process(backend)) as memory:
            outcome = pair(tx, world.bank_account, used, run_id=new_id(), clock=SystemClock())
    seconds = time.perf_counter() - began
    database.close()
    with psycopg.connect(libpq(world.urls["superuser"])) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM ledger.paired_line), (SELECT count(*) FROM ledger.paired_item),"
            " (SELECT count(*) FROM ledger.item), (SELECT count(*) FROM ledger.paired_line p"
            "  JOIN ledger.statement_line l ON l.id = p.line_id JOIN ledger.paired_item q ON q.pairing_id = p.pairing_id"
            "  JOIN ledger.item i ON i.id = q.item_id WHERE i.subject IS DISTINCT FROM l.kind)"
        ).fetchone()
    _forget(world)
    lines, items, all_items, wrong = row if row is not None else (0, 0, 1, 1)
    belong = world.lines // 2 + 2 * (world.lines // 6)
    # of the sums that are searched for, one in a hundred has strangers that make the answer doubtful
    if wrong or not belong * 0.999 <= lines <= belong:
        raise RuntimeError(f"{wrong} wrong, {lines} of {belong} lines paired: {outcome.by_rule}")
    return {
        "seconds": seconds,
        "memory_mib": memory.most / 2**20,
        "share_of_lines_paired": lines / world.lines,
        "share_of_items_paired": items / all_items,
    }


class _Memory:
    """The most that any of some processes had resident while this was open."""

    def __init__(self, *processes: psutil.Process) -> None:
        self.most = 0
        self._processes = processes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, *(process.memory_info().rss for process in self._processes))
            if self._over.wait(SAMPLE_SECONDS):
                return


def _world(urls: Mapping[str, str], lines: int) -> _World:
    database = Database(urls["worker"], application_name="bench")
    with database.begin() as tx:
        fund = open_fund(tx, "savers", "Savers", "Asia/Manila")
        (account,) = open_accounts(tx, [AccountSpec(fund, "bank", "", "asset", CURRENCY, hot=True)])
    database.close()
    bank_account = new_id()
    with psycopg.connect(libpq(urls["superuser"]), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.bank_account (id, slug, name, fund_id, account_id, currency, identification, statements_since,"
            " opened_at) VALUES (%s, 'bench', 'Bench', %s, %s, %s, 'BENCH', current_date - 330, now())",
            [bank_account, fund, account, CURRENCY],
        )
        connection.execute(files("api.bench").joinpath("reconcile.sql").read_text("utf-8").encode())
        connection.execute("CALL bench.load(%s, %s, %s, current_date)", [lines, bank_account, CURRENCY])
    return _World(urls, bank_account, lines)


def _forget(world: _World) -> None:
    """Empty what runs wrote, as a superuser for whom no trigger fires, and settle down.

    Or what was loaded or written is vacuumed behind our back, on the second core, while something else is measured.
    """
    with psycopg.connect(libpq(world.urls["superuser"]), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "TRUNCATE ledger.pairing, ledger.paired_line, ledger.paired_item, ledger.pairing_run CASCADE"
        )
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


if __name__ == "__main__":
    command(run, rounds=3)
