"""Whether reading stays as quick as the books grow: the same reads with 10 thousand and with 2 million postings.

Balances and a statement page of a member whose history is the same in both, and the balance as of a day of an account
that nearly every transaction moves. Both books lie on one server, are loaded in bulk, spread over a year, folded but for
the same short tail, and are read by turns as mizan_api, each read in a transaction of its own.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from uuid import UUID

import psycopg

from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.migrations.run import upgrade
from ledger.accounts import AccountSpec, open_accounts, open_fund
from ledger.balances import balances, balances_as_of
from ledger.database import Database, Tx
from ledger.statements import statement

CURRENCY = "PHP"
PAGE_LINES = 50
POSTINGS_EACH = 4


@dataclass(frozen=True, slots=True)
class Size:
    """How much is loaded, in postings, and how often each thing is read in a round."""

    small: int = 10_000
    large: int = 2_000_000
    members: int = 10_000
    history: int = 240
    tail: int = 500
    reads: int = 200


@dataclass(frozen=True, slots=True)
class World:
    """Loaded books: the member's accounts, the hot account, and the day in the middle of the year."""

    database: Database
    savings: UUID
    match: UUID
    receivable: UUID
    day: date


def run(rounds: int, size: Size | None = None) -> Report:
    """Read small and large books by turns."""
    with temporary_servers() as servers:
        urls = {}
        for name in ("small", "large"):
            database = f"bench_{name}"
            servers.create_database(database)
            upgrade(servers.url("mizan_owner", database))
            urls[name] = {
                role: servers.url(f"mizan_{role}", database) for role in ("api", "worker", "superuser")
            }
        return compare(urls["small"], urls["large"], rounds, size or Size())


def compare(small: Mapping[str, str], large: Mapping[str, str], rounds: int, size: Size) -> Report:
    """The same in two migrated, empty databases, each given by its roles' URLs."""
    worlds = {"small": _world(small, size, size.small), "large": _world(large, size, size.large)}
    measured = [_round(worlds, size) for _ in range(rounds)]
    for world in worlds.values():
        world.database.close()
    return Report("reads", medians(measured), machine(libpq(small["api"])))


def _round(worlds: dict[str, World], size: Size) -> dict[str, float]:
    figures = {}
    for name, read in READS.items():
        seconds: dict[str, list[float]] = {size_name: [] for size_name in worlds}
        for _ in range(size.reads):
            for size_name, world in worlds.items():
                seconds[size_name].append(_timed(world, read))
        p50 = {size_name: statistics.median(times) for size_name, times in seconds.items()}
        for size_name, value in p50.items():
            figures[f"{name}_{size_name}_p50_ms"] = value * 1_000
        figures[f"{name}_growth"] = p50["large"] / p50["small"]
    return figures


def _timed(world: World, read: Callable[[Tx, World], None]) -> float:
    began = time.perf_counter()
    with world.database.begin() as tx:
        tx.exec_driver_sql("select set_config('mizan.access', 'staff', true)")
        read(tx, world)
    return time.perf_counter() - began


def read_balances(tx: Tx, world: World) -> None:
    """The member's present balances."""
    if len(balances(tx, [world.savings, world.match])) != 2:
        raise RuntimeError("the member's accounts are there")


def read_statement(tx: Tx, world: World) -> None:
    """The newest page of the member's savings."""
    if not statement(tx, world.savings, limit=PAGE_LINES).lines:
        raise RuntimeError("the member has a history")


def read_as_of(tx: Tx, world: World) -> None:
    """The hot account's balance on a day half a year ago."""
    if balances_as_of(tx, [world.receivable], world.day)[world.receivable] <= 0:
        raise RuntimeError("the hot account has a balance on that day")


def read_hot_statement(tx: Tx, world: World) -> None:
    """The newest page of the account that nearly every transaction moves."""
    if not statement(tx, world.receivable, limit=PAGE_LINES).lines:
        raise RuntimeError("the hot account has a history")


READS = {
    "balances": read_balances,
    "statement": read_statement,
    "as_of_hot": read_as_of,
    "statement_hot": read_hot_statement,
}


def _world(urls: Mapping[str, str], size: Size, postings: int) -> World:
    worker = Database(urls["worker"], application_name="bench")
    with worker.begin() as tx:
        fund = open_fund(tx, "savers", "Savers", "Asia/Manila")
        specs = [
            AccountSpec(fund, "receivable", "", "asset", CURRENCY, hot=True),
            AccountSpec(fund, "uncommitted", "", "liability", CURRENCY, hot=True),
            AccountSpec(fund, "committed", "", "liability", CURRENCY, hot=True),
        ]
        receivable, uncommitted, committed = open_accounts(tx, specs)
        owners = [f"m{number}" for number in range(size.members)]
        accounts: dict[str, list[UUID]] = {}
        for code in ("savings", "match", "contributions"):
            accounts[code] = open_accounts(
                tx, [AccountSpec(fund, code, owner, "liability", CURRENCY) for owner in owners]
            )
    worker.close()
    transactions = max(postings // POSTINGS_EACH, size.history)
    with psycopg.connect(libpq(urls["superuser"]), autocommit=True) as connection:
        # Rows that were never posted: loaded as a superuser for whom no trigger fires.
        connection.execute("set session_replication_role = replica")
        load = files("api.bench").joinpath("reads.sql").read_text("utf-8")
        connection.execute(load.encode())
        everything = {
            "receivable": receivable,
            "uncommitted": uncommitted,
            "committed": committed,
            "savings": accounts["savings"],
            "match": accounts["match"],
            "contributions": accounts["contributions"],
            "every": transactions // size.history,
        }
        now_ms = int(datetime.now(UTC).timestamp() * 1_000)
        today = datetime.now(UTC).date()
        for first, last, folded in (
            (1, transactions - size.tail, True),
            (transactions - size.tail + 1, transactions, False),
        ):
            connection.execute(
                "call bench.load(%(first)s, %(last)s, %(total)s, %(now_ms)s, %(today)s, %(receivable)s, %(uncommitted)s,"
                " %(committed)s, %(savings)s, %(match)s, %(contributions)s, %(every)s)",
                everything
                | {"first": first, "last": last, "total": transactions, "now_ms": now_ms, "today": today},
            )
            if folded:
                connection.execute("call bench.fold()")
        connection.execute("call bench.balance()")
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
    return World(
        Database(urls["api"], application_name="bench"),
        accounts["savings"][0],
        accounts["match"][0],
        receivable,
        today - timedelta(days=182),
    )


if __name__ == "__main__":
    command(run, rounds=5)
