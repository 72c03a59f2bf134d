"""How many events a second `ledger.posting.post` takes, beside a hand-written floor that checks nothing.

An event is a transaction of four postings on three hot accounts, two of them limited, and on a member's accounts, with
its reference and a row in the outbox. Two processes write batches of 1,000 at once, first through the one, then through
the other. The floor copies the same rows into tables of the same shape and indexes and updates the balances in SQL, the
hot ones last.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from importlib.resources import files
from uuid import UUID

import psycopg

from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.embedded import EmbeddedServers
from ledger import leaves
from ledger.accounts import AccountSpec, open_accounts, open_fund
from ledger.clock import SystemClock
from ledger.database import Cursor, Database, Tx, cursor
from ledger.ids import new_id
from ledger.outbox import Message, publish
from ledger.posting import Posting, Transaction, post

CURRENCY = "PHP"
DAY = date(2026, 3, 2)
SECONDS_MAX = 120
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    members: int = 100_000
    batch: int = 1_000
    batches: int = 20
    writers: int = 2


@dataclass(frozen=True, slots=True)
class World:
    """The accounts: three hot ones and three of each member."""

    receivable: UUID
    uncommitted: UUID
    committed: UUID
    members: tuple[tuple[UUID, UUID, UUID], ...]


class Floor:
    """The floor alone, on servers that something else is measured on."""

    def __init__(self, servers: EmbeddedServers, size: Size) -> None:
        self._superuser = libpq(servers.superuser_url)
        self._worker = servers.url("mizan_worker")
        self._size = size
        self._world = _world(self._worker, size)
        with psycopg.connect(libpq(servers.url("mizan_owner"))) as connection:
            connection.execute(files("api.bench").joinpath("floor.sql").read_text("utf-8").encode())

    def measure(self, round_number: int) -> float:
        """Events a second of one round."""
        with psycopg.connect(self._superuser, autocommit=True) as connection:
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
        seconds = _timed(self._worker, self._world, self._size, round_number, _write_floor)
        return self._size.batch * self._size.batches * self._size.writers / seconds


Batch = list[Transaction]
Write = Callable[[Database, World, Batch], None]


def run(rounds: int, size: Size | None = None) -> Report:
    """Measure `post` and its floor by turns, on servers of their own."""
    with temporary_servers() as servers:
        urls = {role: servers.url(f"mizan_{role}") for role in ("owner", "worker", "superuser")}
        return compare(urls, rounds, size or Size())


def compare(urls: Mapping[str, str], rounds: int, size: Size) -> Report:
    """Measure by turns in an empty migrated database, reached as owner, worker and superuser."""
    world = _world(urls["worker"], size)
    with psycopg.connect(libpq(urls["owner"])) as connection:
        connection.execute(files("api.bench").joinpath("floor.sql").read_text("utf-8").encode())
    measured = []
    for round_number in range(rounds):
        figures = {}
        for name, write in (("floor_", _write_floor), ("", _write_ledger)):
            with psycopg.connect(libpq(urls["superuser"]), autocommit=True) as connection:
                connection.execute("vacuum analyze")
                connection.execute("checkpoint")
            seconds = _timed(urls["worker"], world, size, round_number, write)
            figures[f"{name}events_per_second"] = size.batch * size.batches * size.writers / seconds
        figures["ratio"] = figures["events_per_second"] / figures["floor_events_per_second"]
        measured.append(figures)
    _check(urls["worker"], size, rounds)
    return Report("posting", medians(measured), machine(libpq(urls["worker"])))


def _world(url: str, size: Size) -> World:
    database = Database(url, application_name="bench")
    with database.begin() as tx:
        fund = open_fund(tx, "savers", "Savers", "Asia/Manila")
        hot = open_accounts(
            tx,
            [
                AccountSpec(fund, "receivable", "", "asset", CURRENCY, hot=True, ceiling=10**15),
                AccountSpec(fund, "uncommitted", "", "liability", CURRENCY, hot=True, floor=-(10**15)),
                AccountSpec(fund, "committed", "", "liability", CURRENCY, hot=True),
            ],
        )
        codes = ("savings", "match", "contributions")
        members: list[tuple[UUID, UUID, UUID]] = []
        for first in range(0, size.members, 10_000):
            owners = [f"m{number}" for number in range(first, min(first + 10_000, size.members))]
            opened = open_accounts(
                tx,
                [
                    AccountSpec(fund, code, o, "liability", CURRENCY, floor=0)
                    for o in owners
                    for code in codes
                ],
            )
            members.extend(zip(opened[0::3], opened[1::3], opened[2::3], strict=True))
    database.close()
    return World(hot[0], hot[1], hot[2], tuple(members))


def _events(world: World, size: Size, writer: int, round_number: int, kind: str) -> list[Batch]:
    chance = random.Random(writer * 1_000 + round_number)  # noqa: S311  the same members in every run
    batches = []
    for batch in range(size.batches):
        events = []
        for number in range(size.batch):
            savings, match, contributions = chance.choice(world.members)
            reference = sha256(f"{kind}/{round_number}/{writer}/{batch}/{number}".encode()).hexdigest()
            events.append(
                Transaction(
                    f"remittance:{reference}",
                    "contribution",
                    DAY,
                    (
                        Posting(world.receivable, savings, 5_000, CURRENCY),
                        Posting(world.uncommitted, world.committed, 2_500, CURRENCY),
                        Posting(world.committed, match, 2_500, CURRENCY),
                        Posting(world.receivable, contributions, 1_500, CURRENCY),
                    ),
                    sha256(reference.encode()).digest(),
                )
            )
        batches.append(events)
    return batches


def _timed(url: str, world: World, size: Size, round_number: int, write: Write) -> float:
    """Seconds from the moment when every writer is ready to that when the last has committed."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["api.bench.measure", "ledger.posting"])
    barrier = fresh.Barrier(size.writers + 1)
    writers = [
        fresh.Process(target=_writer, args=(url, world, size, number, round_number, write, barrier))
        for number in range(size.writers)
    ]
    for writer in writers:
        writer.start()
    barrier.wait(SECONDS_MAX)
    began = time.perf_counter()
    for writer in writers:
        writer.join(SECONDS_MAX)
    seconds = time.perf_counter() - began
    if any(writer.exitcode != 0 for writer in writers):
        raise RuntimeError("a writer failed or took too long")
    return seconds


def _writer(  # type: ignore[no-untyped-def]  # the barrier's type is multiprocessing's own
    url: str, world: World, size: Size, writer: int, round_number: int, write: Write, barrier
) -> None:
    database = Database(url, application_name=f"bench writer {writer}")
    batches = _events(world, size, writer, round_number, write.__name__)
    with database.begin() as tx:
        tx.exec_driver_sql("select 1")
    barrier.wait(SECONDS_MAX)
    for batch in batches:
        write(database, world, batch)
    database.close()


def _write_ledger(database: Database, _: World, batch: Batch) -> None:
    def work(tx: Tx) -> None:
        publish(tx, _messages(batch))
        # Posting is the unit's last statement, as the floor's balances are: until the commit it holds the hot accounts.
        outcomes = post(tx, batch, clock=SystemClock())
        if any(outcome.status != "posted" for outcome in outcomes):
            raise RuntimeError("the benchmark's events are all new and within the limits")

    database.run(work)


def _messages(batch: Batch) -> list[Message]:
    return [Message("remittance.posted", event.reference, {"reference": event.reference}) for event in batch]


def _write_floor(database: Database, world: World, batch: Batch) -> None:
    hot = {world.receivable, world.uncommitted, world.committed}

    def work(tx: Tx) -> None:
        _copy_rows(cursor(tx), batch)
        moved: dict[UUID, list[int]] = {}
        for event in batch:
            for posting in event.postings:
                moved.setdefault(posting.debit, [0, 0])[0] += posting.amount
                moved.setdefault(posting.credit, [0, 0])[1] += posting.amount
        for accounts in (sorted(moved.keys() - hot), sorted(moved.keys() & hot)):
            cursor(tx).execute(
                "with moved as materialized (select * from unnest(%b::uuid[], %b::bigint[], %b::bigint[])"
                " as m(account_id, debit, credit)), locked as materialized (select b.account_id, m.debit, m.credit"
                " from moved as m join floor.account_balance as b on b.account_id = m.account_id"
                " order by b.account_id for no key update of b)"
                " update floor.account_balance as b set debits = b.debits + l.debit, credits = b.credits + l.credit"
                " from locked as l where b.account_id = l.account_id",
                [accounts, [moved[a][0] for a in accounts], [moved[a][1] for a in accounts]],
            )

    database.run(work)


def _copy_rows(cur: Cursor, batch: Batch) -> None:
    recorded = leaves.microseconds(SystemClock().now())
    effective, currency = leaves.days(DAY), CURRENCY.encode()
    transactions, postings, references, outbox = ([_COPY_HEAD] for _ in range(4))
    for event in batch:
        id_ = new_id().bytes
        fields = leaves.transaction_fields(
            id_,
            event.reference,
            event.kind,
            effective,
            recorded,
            None,
            len(event.postings),
            None,
            os.urandom(16),
        )
        transactions.append(leaves.transaction_record(fields, event.digest))
        for seq, p in enumerate(event.postings, start=1):
            postings.append(
                leaves.posting_record(id_, seq, p.debit.bytes, p.credit.bytes, p.amount, currency, effective)
            )
        reference = event.reference.encode()
        references.append(_record(reference, id_, event.digest))
        payload = b'\x01{"reference":"' + reference + b'"}'
        outbox.append(_record(new_id().bytes, b"remittance.posted", reference, payload))
    references[1:] = sorted(references[1:])
    for table, columns, records in (
        ("reference", "reference, transaction_id, digest", references),
        (
            "transaction",
            "id, reference, kind, effective_on, recorded_at, reverses, postings, details, salt, leaf",
            transactions,
        ),
        ("outbox", "id, topic, key, payload", outbox),
        (
            "posting",
            "transaction_id, seq, debit_account, credit_account, amount, currency, effective_on",
            postings,
        ),
    ):
        with cur.copy(f"copy floor.{table} ({columns}) from stdin (format binary)") as copy:
            copy.write(b"".join((*records, b"\xff\xff")))


def _record(*fields: bytes) -> bytes:
    return len(fields).to_bytes(2, "big") + b"".join(len(f).to_bytes(4, "big") + f for f in fields)


def _check(url: str, size: Size, rounds: int) -> None:
    """Both wrote all that they were given, and their balances agree."""
    with psycopg.connect(libpq(url)) as connection:
        rows: Sequence[tuple[object, ...]] = connection.execute(
            "select (select count(*) from ledger.posting), (select count(*) from floor.posting),"
            " (select count(*) from ledger.outbox), (select count(*) from floor.outbox),"
            " (select count(*) from ledger.account_balance as b join floor.account_balance as f using (account_id)"
            "  where (b.debits, b.credits) <> (f.debits, f.credits))"
        ).fetchall()
    events = size.batch * size.batches * size.writers * rounds
    if rows[0] != (events * 4, events * 4, events, events, 0):
        raise RuntimeError(f"the ledger and its floor differ: {rows[0]}")


if __name__ == "__main__":
    command(run, rounds=5)
