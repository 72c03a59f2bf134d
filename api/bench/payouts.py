"""How many payouts a second go from the asking to the books, through the simulated rail, beside the pipeline's figure.

Two workers ask for payouts, have their payees checked, approve them, send them off and hear that they are paid, each step with
its states and postings; a third process folds and seals. The clock stops when every payout is paid, its money has left the
bank's account, and all of it is folded and sealed. What a member does at their phone (the code or the signature itself) is not
in it. The pipeline is measured on the same servers just before, as `mizan bench pipeline` does; its events are the savings that
are paid out.
"""

import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from api.bench import pipeline
from api.bench.measure import Report, command, libpq, machine, medians, temporary_servers
from api.bench.pipeline import KEYRING
from api.bench.pipeline import Size as RemittanceSize
from api.jobs import collect_garbage_less_often
from integrations.rails import directory
from integrations.rails.configured import Rails
from integrations.rails.work import Pace, RailWork
from ledger.clock import SystemClock
from ledger.database import Database, cursor
from ledger.errors import MizanError
from ledger.ids import new_id
from products.keyring import field_place
from products.members import payees
from products.payouts import registry
from products.payouts.approve import Approval, approve_many
from products.payouts.registry import NewRail
from products.payouts.request import NewPayout, request_many
from products.payouts.terms import Arrival, Fee, Limits
from products.programmes.registry import Programmes
from products.remittances.context import Books

BORN: Final = date(1960, 5, 1)
"""Members old enough to take out their savings."""
AMOUNT: Final = 100
TOGETHER: Final = 1_000
RAIL: Final = "bench"
SECONDS_MAX: Final = 600


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: payouts are spread evenly over the pipeline's members."""

    payouts: int = 100_000
    workers: int = 2
    remittances: RemittanceSize = field(default_factory=RemittanceSize)


@dataclass(frozen=True, slots=True)
class _Payable:
    """A member and the payee that their payouts go to."""

    link: UUID
    payee: UUID


def run(rounds: int, size: Size | None = None) -> Report:
    """Measure the pipeline and the payouts by turns."""
    size = size or Size()
    with temporary_servers() as servers:
        worker, sealer = servers.url("mizan_worker"), servers.url("mizan_sealer")
        partner, links = pipeline.world(worker, size.remittances, born=BORN)
        payable = _make_payable(libpq(servers.superuser_url), worker)
        measured = []
        for round_number in range(rounds):
            pipeline.fill(servers.url("mizan_api"), partner, links, size.remittances, round_number)
            _settle_down(servers.superuser_url)
            events = pipeline.timed(worker, sealer, size.remittances)["events_per_second"]
            _settle_down(servers.superuser_url)
            figures = _timed(worker, sealer, _saving(worker, payable), size)
            figures["pipeline_events_per_second"] = events
            figures["ratio"] = figures["payouts_per_second"] / events
            measured.append(figures)
        _check(servers.superuser_url, size.payouts * rounds)
        return Report("payouts", medians(measured), machine(libpq(worker)))


def _settle_down(url: str) -> None:
    with psycopg.connect(libpq(url), autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


def _make_payable(superuser_url: str, worker_url: str) -> list[_Payable]:
    """Verify every member and give each a payee that is in effect: what weeks of registering would have left."""
    clock = SystemClock()
    long_ago = clock.now() - timedelta(days=30)
    with psycopg.connect(superuser_url) as connection:
        connection.execute(
            "INSERT INTO products.member_verification (id, member_id, partner_id, level, verified_by, verified_at, recorded_at)"
            " SELECT gen_random_uuid(), member_id, partner_id, 'document', 'bench', %s, %s FROM products.member_link",
            [long_ago, long_ago],
        )
        rows = connection.execute(
            "SELECT l.id, l.member_id, m.wrapped_key FROM products.member_link l JOIN products.member m ON m.id = l.member_id"
            " ORDER BY l.id"
        ).fetchall()
        made = []
        with connection.cursor().copy(
            "COPY products.payee (id, link_id, member_id, name, rail, destination, payee_index, proposed_at, released_at)"
            " FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.set_types(
                ["uuid", "uuid", "uuid", "bytea", "text", "bytea", "bytea", "timestamptz", "timestamptz"]
            )
            for number, (link, member, wrapped) in enumerate(rows):
                payee, cipher = new_id(), KEYRING.cipher(bytes(wrapped), member)
                # ends in 0, as no number does by which the simulated rail is told how to fail
                destination = json.dumps({"phone": f"+2507{number:07}0"})
                copy.write_row(
                    (
                        payee,
                        link,
                        member,
                        cipher.encrypt("Bench", field_place(payees.TABLE, "name", payee)),
                        "mobile_money",
                        cipher.encrypt(destination, field_place(payees.TABLE, "destination", payee)),
                        payee.bytes,
                        long_ago,
                        long_ago,
                    )
                )
                made.append(_Payable(link, payee))
        connection.execute(
            "INSERT INTO products.waiting_change (id, link_id, member_id, kind, subject_id, cancel_digest, asked_at, effective_at,"
            " applied_at) SELECT gen_random_uuid(), link_id, member_id, 'payee', id, payee_index, %s, %s, %s FROM products.payee",
            [long_ago, long_ago + timedelta(hours=72), long_ago + timedelta(hours=72)],
        )
    database = Database(worker_url, application_name="bench")
    options, _ = directory.validated("simulator", {}, {})
    rail = NewRail(
        slug=RAIL,
        kind="simulator",
        payee_kinds=("mobile_money",),
        checks_payees=True,
        funded="bank",
        fee=Fee(0, 0, "fund"),
        arrival=Arrival("minutes", 0, 5, ()),
        limits=Limits(
            amount_min=1,
            amount_max=None,
            per_member_day=None,
            per_day=None,
            release_above=None,
            queue_max=registry.QUEUE_MAX,
        ),
        options=options,
    )
    with database.begin() as tx:
        row = cursor(tx).execute("SELECT id FROM products.programme").fetchone()
        if row is None:
            raise LookupError("the bench's programme is not there")
        registry.create(tx, row[0], rail, clock=clock)
    database.close()
    return made


def _saving(worker_url: str, payable: Sequence[_Payable]) -> list[_Payable]:
    """Those whom the pipeline's events, spread by chance, have given savings."""
    with psycopg.connect(libpq(worker_url)) as connection:
        rows = connection.execute(
            "SELECT l.id FROM products.member_link l JOIN products.enrolment e ON e.member_id = l.member_id"
            " JOIN ledger.account_balance b ON b.account_id = e.savings_account WHERE b.credits > b.debits"
        )
        saving = {row[0] for row in rows}
    return [one for one in payable if one.link in saving]


def _timed(worker_url: str, sealer_url: str, payable: Sequence[_Payable], size: Size) -> dict[str, float]:
    """Seconds until all payouts are paid, and until all of it is folded and sealed."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(size.workers + 2)
    done = spawn.Event()
    each, left_over = divmod(size.payouts, len(payable))
    wanted = [one for one in payable for _ in range(each)] + list(payable[:left_over])
    # a member's payouts are one worker's: they are judged one after the other
    wanted.sort(key=lambda one: one.link)
    share = -(-len(wanted) // size.workers)
    workers = [
        spawn.Process(target=_pay, args=(worker_url, number, wanted[first : first + share], barrier))
        for number, first in enumerate(range(0, len(wanted), share))
    ]
    settler = spawn.Process(target=pipeline.settle, args=(worker_url, sealer_url, barrier, done))
    for process in (*workers, settler):
        process.start()
    barrier.wait(SECONDS_MAX)
    began = time.perf_counter()
    for process in workers:
        process.join(SECONDS_MAX)
    paid = time.perf_counter()
    done.set()
    settler.join(SECONDS_MAX)
    settled = time.perf_counter()
    if any(process.exitcode != 0 for process in (*workers, settler)):
        raise RuntimeError("a process failed or took too long")
    return {
        "payouts_per_second": size.payouts / (settled - began),
        "paid_per_second": size.payouts / (paid - began),
        "settling_lag_seconds": settled - paid,
    }


def _pay(
    url: str, number: int, wanted: Sequence[_Payable], barrier: Any
) -> None:  # the barrier's type is multiprocessing's own
    """One worker: ask, have checked, approve, send, and hear."""
    collect_garbage_less_often()
    database = Database(url, application_name="bench worker")
    clock = SystemClock()
    books = Books(clock, KEYRING, Programmes())
    rails = Rails(database, KEYRING, clock, environment="sandbox", public_url="https://mizan.example")
    work = RailWork(database, books, rails, Pace(seconds_max=SECONDS_MAX))
    name = f"bench-{number}"
    # one payout of a member in each batch: a member's are judged one after the other
    turns = [wanted[start :: _most(wanted)] for start in range(_most(wanted))]
    barrier.wait(SECONDS_MAX)
    for turn in turns:
        for first in range(0, len(turn), TOGETHER):
            asked = [
                NewPayout(one.link, one.payee, AMOUNT, "RWF", "savings", name)
                for one in turn[first : first + TOGETHER]
            ]
            for answer in database.run(lambda tx, asked=asked: request_many(tx, books, asked)):  # type: ignore[misc]  # a default is the way to bind a loop's name
                if isinstance(answer, MizanError):
                    raise answer
    work.submit()
    while approvals := _awaiting(database, name):
        for refusal in database.run(lambda tx, approvals=approvals: approve_many(tx, books, approvals)):  # type: ignore[misc]  # as above
            if refusal is not None:
                raise refusal
    work.submit()
    while work.ask():
        pass
    rails.close()
    database.close()


def _most(wanted: Sequence[_Payable]) -> int:
    """How often the first member is in it: all are in it as often, or once less."""
    return max(1, sum(one.link == wanted[0].link for one in wanted))


def _awaiting(database: Database, name: str) -> list[Approval]:
    with database.begin() as tx:
        rows = cursor(tx).execute(
            "SELECT id, link_id, payee_id, amount, fee, currency FROM products.payout"
            " WHERE state = 'awaiting_member' AND requested_by = %s ORDER BY id LIMIT %s",
            [name, TOGETHER],
        )
        return [
            Approval(id_, link, payee, amount, fee, currency, accepts_name=False, proof=None)
            for id_, link, payee, amount, fee, currency in rows
        ]


def _check(url: str, payouts: int) -> None:
    """Every payout is paid, at the rail once, and out of the books."""
    with psycopg.connect(libpq(url)) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM products.payout WHERE state = 'paid'),"
            " (SELECT count(*) FROM integrations.simulated_payment WHERE sendings = 1),"
            " (SELECT sum(b.credits - b.debits)::bigint FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id"
            "  WHERE a.code = 'payout_clearing'),"
            " (SELECT count(*) FROM ledger.hold WHERE state = 'active'),"
            " (SELECT sum(transactions) FROM ledger.seal) = (SELECT count(*) FROM ledger.transaction)"
        ).fetchone()
    if row != (payouts, payouts, 0, 0, True):
        raise RuntimeError(f"payouts were lost or doubled: {row}")


if __name__ == "__main__":
    command(run, rounds=3)
