"""How many remittances a second a full inbox turns into settled books, workers and database on the same machine.

The inbox is filled first, as the hook fills it: encrypted bodies, lanes, queue. Then two workers drain it while a third
process folds and seals, as `mizan serve` runs them. The clock stops when every event is allocated, matched, posted,
announced in the outbox, folded into movements and sealed. Beside it, on the same servers, the floor of `posting`.
"""

import json
import multiprocessing
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from api.bench import posting
from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.jobs import collect_garbage_less_often
from integrations.inbox.drain import drain
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import understood
from integrations.inbox.store import store
from integrations.partners.standard import StandardFormat
from ledger.clock import SystemClock
from ledger.database import Database
from ledger.fold import fold
from ledger.ids import new_id, public_id
from ledger.seals import SealingKey, seal
from products.facts import Fact
from products.keyring import Keyring
from products.members.enrolments import Joining, enrol_many
from products.members.models import NewMandate, Registration
from products.members.registry import register_many
from products.programmes.loader import catalogue
from products.programmes.registry import Programmes, apply
from products.remittances.context import Books
from products.remittances.partners import create_partner, join_programme
from products.remittances.process import process
from products.savings.sponsors import fund_sponsor

SECONDS_MAX = 180
KEYRING = Keyring({"bench": bytes(range(32))}, "bench")
FLOOR = posting.Size(members=20_000, batches=10)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    members: int = 20_000
    events: int = 40_000
    workers: int = 2
    floor: posting.Size = FLOOR


def run(rounds: int, size: Size | None = None) -> Report:
    """Measure the pipeline and the posting floor by turns."""
    size = size or Size()
    with temporary_servers() as servers:
        worker, sealer = servers.url("mizan_worker"), servers.url("mizan_sealer")
        partner, links = world(worker, size)
        floor = posting.Floor(servers, size.floor)
        measured = []
        for round_number in range(rounds):
            fill(servers.url("mizan_api"), partner, links, size, round_number)
            with psycopg.connect(libpq(servers.superuser_url), autocommit=True) as connection:
                connection.execute("vacuum analyze")
                connection.execute("checkpoint")
            figures = timed(worker, sealer, size)
            figures["posting_floor_events_per_second"] = floor.measure(round_number)
            figures["ratio"] = figures["events_per_second"] / figures["posting_floor_events_per_second"]
            measured.append(figures)
        _check(worker, size.events * rounds)
        return Report("pipeline", medians(measured), machine(libpq(worker)))


def world(url: str, size: Size, *, born: date = date(1990, 5, 1)) -> tuple[UUID, list[UUID]]:
    """A guaranteed partner of EjoHeza and its members, every one of them matched; their `mem_` ids."""
    database = Database(url, application_name="bench")
    clock = SystemClock()
    books = Books(clock, KEYRING, Programmes())
    with database.begin() as tx:
        programme = apply(tx, catalogue()["ejoheza"], clock=clock).programme_id
        partner = create_partner(tx, slug="bench", name="Bench", format_="standard", clock=clock)
        join_programme(tx, partner, programme, terms="guaranteed", collection="as_reported", clock=clock)
        fund_sponsor(tx, books, programme="ejoheza", sponsor="gov-rw", amount=10**14, reference="bench")
    links: list[UUID] = []
    now = clock.now()
    facts = (Fact("income_category", 1, date(2020, 1, 1), now, "institution"),)
    for first in range(0, size.members, 5_000):
        people = [
            Registration(
                partner_reference=f"A-{number}",
                birth_date=born,
                facts=facts,
                mandate=NewMandate("2026-1", "rw", now - timedelta(days=1)),
            )
            for number in range(first, min(first + 5_000, size.members))
        ]
        with database.begin() as tx:
            registered = register_many(tx, KEYRING, programme, partner.id, people, now)
            enrol_many(
                tx,
                books.programmes,
                programme,
                [Joining(one.member_id, partner.id, born, facts, "savings") for one in registered],
                now,
            )
            links += [one.link_id for one in registered]
    database.close()
    return partner.id, links


def fill(url: str, partner: UUID, links: Sequence[UUID], size: Size, round_number: int) -> None:
    """Fill the inbox as the hook does; never the same remittances in two rounds."""
    database = Database(url, application_name="bench")
    clock = SystemClock()
    key = InboxKeys(database, KEYRING, clock).current()
    chance = random.Random(round_number)  # noqa: S311  the same members in every run
    reader = StandardFormat()
    now = clock.now()
    for first in range(0, size.events, 1_000):
        batch = []
        for number in range(first, min(first + 1_000, size.events)):
            body = _body(
                chance.choice(links), f"B-{round_number}-{number}", chance.randrange(100_000, 900_000), now
            )
            batch.append(understood(partner, f"msg_{new_id().hex}", body, reader.read(body), now))
        database.run(lambda tx, batch=batch: store(tx, batch, key))  # type: ignore[misc]  # mypy and defaults
    database.close()


def _body(link: UUID, remittance_id: str, received: int, at: datetime) -> bytes:
    event: dict[str, Any] = {
        "type": "remittance.completed",
        "timestamp": at.isoformat(),
        "data": {
            "remittance_id": remittance_id,
            "member": {"id": public_id("mem", link)},
            "sent": {"amount": 50_000, "currency": "AED"},
            "received": {"amount": received, "currency": "RWF"},
            "fee": {"amount": 1_500, "currency": "AED"},
            "collected": {"amount": received // 20, "currency": "RWF"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": (at - timedelta(minutes=1)).astimezone(UTC).isoformat(),
            "quote_id": None,
        },
    }
    return json.dumps(event).encode()


def timed(worker_url: str, sealer_url: str, size: Size) -> dict[str, float]:
    """Seconds until the inbox is empty, and until all of it is folded and sealed."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(size.workers + 2)
    done = spawn.Event()
    workers = [spawn.Process(target=_drain, args=(worker_url, barrier)) for _ in range(size.workers)]
    settler = spawn.Process(target=settle, args=(worker_url, sealer_url, barrier, done))
    for each in (*workers, settler):
        each.start()
    barrier.wait(SECONDS_MAX)
    began = time.perf_counter()
    for worker in workers:
        worker.join(SECONDS_MAX)
    posted = time.perf_counter()
    done.set()
    settler.join(SECONDS_MAX)
    settled = time.perf_counter()
    if any(each.exitcode != 0 for each in (*workers, settler)):
        raise RuntimeError("a process failed or took too long")
    return {
        "events_per_second": size.events / (settled - began),
        "posted_per_second": size.events / (posted - began),
        "settling_lag_seconds": settled - posted,
    }


def _drain(url: str, barrier: Any) -> None:  # the barrier's type is multiprocessing's own
    collect_garbage_less_often()
    database = Database(url, application_name="bench worker")
    clock = SystemClock()
    books = Books(clock, KEYRING, Programmes())
    with database.begin() as tx:
        tx.exec_driver_sql("select 1")
    barrier.wait(SECONDS_MAX)
    while drain(database, partial(process, books=books), clock, KEYRING, seconds_max=SECONDS_MAX).deliveries:
        pass
    database.close()


def settle(worker_url: str, sealer_url: str, barrier: Any, done: Any) -> None:
    """Fold and seal once a second, and at the end until nothing is left."""
    folder = Database(worker_url, application_name="bench folder")
    sealer = Database(sealer_url, application_name="bench sealer")
    key, clock = SealingKey.generate(), SystemClock()
    barrier.wait(SECONDS_MAX)
    last = False
    while not last:
        last = done.wait(1.0)
        while folder.run(lambda tx: fold(tx, limit=10_000)):
            pass
        while sealer.run(lambda tx: seal(tx, key, clock)) is not None:
            pass
    folder.close()
    sealer.close()


def _check(url: str, events: int) -> None:
    """Every event was posted, matched, folded and sealed."""
    with psycopg.connect(libpq(url)) as connection:
        row = connection.execute(
            "select (select count(*) from products.remittance where status = 'posted'),"
            " (select count(*) from integrations.delivery_queue),"
            " (select sum(debits) from ledger.account_day) = (select sum(debits) from ledger.account_balance),"
            " (select sum(transactions) from ledger.seal) = (select count(*) from ledger.transaction)"
        ).fetchone()
    if row != (events, 0, True, True):
        raise RuntimeError(f"the pipeline lost or doubled something: {row}")


if __name__ == "__main__":
    command(run, rounds=3)
