"""What the background does, wired: each of the worker's jobs as a call to the services, with connections of its own."""

import gc
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import text

from api import auditing, closing, idempotency, opening, statements_folder
from api.approvals import kinds
from api.auth import revocation
from api.bootstrap import Services, bootstrap
from api.observability import metrics, tracing
from api.reconciling import reconcile
from api.seal_key import sealing_key
from api.settings import Settings, reveal
from api.stamp import require_keys
from api.worker import Every, Jobs
from integrations.inbox.drain import Process, drain
from integrations.inbox.keys import destroy_keys
from integrations.inbox.queries import WAITING, requeue
from integrations.outbound import events, forget
from integrations.outbound.delivery import Deliverer, Delivering
from integrations.rails.work import Pace, RailWork
from ledger import fold, holds
from ledger.clock import Clock
from ledger.database import Database, Tx
from ledger.errors import Unavailable
from ledger.reconciliation import files
from ledger.seals import Seal, SealingKey, seal
from products.claims import booking
from products.members import waiting as changes
from products.remittances import waiting
from products.remittances.context import Books
from products.remittances.process import process
from products.savings import sponsors
from products.savings.grants import end_windows
from products.savings.reevaluate import reevaluate
from products.savings.vesting import vest_due
from products.settlements import limits, pair, returns
from products.settlements.settlement import Settlement, by_id

DRAIN_SECONDS_MAX: Final = 5
"""How long one task takes from the inbox before it asks for another: a stop waits no longer than that."""
SETTLE_SECONDS_MAX: Final = 5
"""How long one task pairs settlements; the next one goes on."""
SETTLE_TO_THE_END_SECONDS_MAX: Final = 600
"""How long a command waits for a settlement; the worker goes on with it."""
RECONCILE_SECONDS_MAX: Final = 10.0
"""How long one task reconciles before it leaves the rest to the next; a statement of the rules may take longer by itself."""
OPEN_SECONDS_MAX: Final = 5
"""How long one task posts opening balances, or takes them back; the next one goes on."""
FOLD_TRANSACTIONS: Final = 10_000
EXPAND_SECONDS_MAX: Final = 4.0
FORGET_SECONDS_MAX: Final = 2.0
SEAL_SECONDS_MAX: Final = 30.0
"""How long whoever wants everything folded and sealed waits for it."""
VEST_SECONDS_MAX: Final = 5
"""How long one task vests before it leaves the rest to the next."""
ROUNDS_MAX: Final = 1_000
"""How many transactions one job may take; the next tick goes on where it stopped."""
PARTITIONS_AHEAD: Final = timedelta(days=100)


def jobs_of(settings: Settings) -> Jobs:
    """The jobs of one worker process, on connections of its own; call it after forking."""
    collect_garbage_less_often()
    services = bootstrap(settings, name="mizan worker")
    worker, clock, books = services.worker, services.clock, services.books
    worker.run(lambda tx: require_keys(tx, services.keyring, clock.now()))
    sealer = Database(
        reveal(settings.database_url_sealer, "MIZAN_DATABASE_URL_SEALER"),
        application_name="mizan sealer",
        pool_size=1,
    )
    key = sealing_key(settings)

    decide: Process = partial(process, books=books)
    if settings.metrics_port is not None:
        metrics.watch_pool(worker, "worker")
        metrics.watch_pool(sealer, "sealer")
        decide = metrics.counted(decide)
    traces = tracing(settings, "worker")
    if traces is not None:
        decide = traces.followed(decide)

    def drain_inbox() -> bool:
        return drain(
            worker,
            decide,
            clock,
            books.keyring,
            batch=settings.worker_batch_max,
            seconds_max=DRAIN_SECONDS_MAX,
        ).more

    def expire_holds() -> object:
        return worker.run(lambda tx: holds.expire(tx, clock=clock))

    def ensure_partitions() -> object:
        through = (clock.now() + PARTITIONS_AHEAD).date()
        return worker.run(
            lambda tx: tx.execute(
                text("select ledger.ensure_partitions(:through)"), {"through": through}
            ).scalar()
        )

    deliverer = Deliverer(
        Delivering(
            worker,
            services.keyring,
            clock,
            loopback=services.loopback_endpoints,
            timeout_seconds=settings.event_timeout_seconds,
            count=metrics.count_attempts,
        )
    )
    rail_work = RailWork(
        worker,
        books,
        services.rails,
        Pace(lease=timedelta(seconds=settings.rail_lease_seconds), together_max=settings.rail_batch_max),
    )
    event_retention = timedelta(days=settings.event_retention_days)

    def close() -> None:
        deliverer.close()
        if traces is not None:
            traces.close()
        sealer.close()
        services.close()

    retention = timedelta(days=settings.delivery_retention_days)
    statement_retention = timedelta(days=settings.statement_file_days)
    audit_retention = timedelta(days=settings.audit_value_retention_days)
    return Jobs(
        drain_inbox=drain_inbox,
        drain_funds=lambda: drain_funds(worker, books),
        book_claims=lambda: book_claims(worker, books, seconds_max=DRAIN_SECONDS_MAX),
        warn_sponsors=lambda: worker.run(lambda tx: sponsors.warn(tx, clock.now())),
        retry_waiting=lambda: worker.run(lambda tx: retry_waiting(tx, clock)),
        reevaluate=lambda: reevaluate_all(worker, books),
        vest=lambda: vest_all(worker, books, seconds_max=VEST_SECONDS_MAX),
        expire_holds=expire_holds,
        fold_balances=lambda: fold_all(worker),
        seal=lambda: seal_all(sealer, key, clock),
        verify=lambda: closing.verify_asked(services),
        ensure_partitions=ensure_partitions,
        destroy_inbox_keys=lambda: worker.run(lambda tx: destroy_keys(tx, clock, retention=retention)),
        forget_answers=lambda: worker.run(lambda tx: idempotency.purge(tx, clock.now())),
        send_notices=services.codes.send_notices,
        apply_changes=lambda: worker.run(lambda tx: changes.apply_due(tx, books.keyring, clock.now())),
        destroy_audit_keys=lambda: worker.run(
            lambda tx: auditing.destroy_keys(tx, clock.now(), retention=audit_retention)
        ),
        requests=lambda: kinds.request_and_expire(services),
        pair_settlements=lambda: settle_all(worker, books, seconds_max=SETTLE_SECONDS_MAX),
        watch_partners=lambda: watch_partners(worker, clock),
        take_statements=lambda: take_statements(services),
        open_balances=lambda: opening.work_on_all(services, seconds_max=OPEN_SECONDS_MAX),
        destroy_statement_files=lambda: destroy_statement_files(worker, clock, statement_retention),
        reconcile=lambda: reconcile(services, seconds_max=RECONCILE_SECONDS_MAX),
        forget_tokens=lambda: worker.run(lambda tx: revocation.purge(tx, clock.now())),
        submit_payouts=rail_work.submit,
        ask_payouts=rail_work.ask,
        expire_payouts=rail_work.expire,
        expand_events=lambda: expand_events(worker, clock, event_retention, deliverer),
        deliver_events=deliverer.wake,
        forget_events=lambda: forget_events(worker, clock, event_retention),
        close=close,
    )


def collect_garbage_less_often() -> None:
    """Batches make tens of thousands of short-lived objects and no cycles: looking for some every 700 cost a tenth."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def every(settings: Settings) -> Every:
    """How often beat asks for each job under these settings."""
    return Every(
        sweep=settings.sweep_seconds,
        drain_funds=settings.sweep_seconds,
        retry_waiting=settings.sweep_seconds,
        fold=settings.fold_seconds,
        seal=settings.seal_seconds,
        vest=settings.vest_seconds,
        submit_payouts=settings.rail_seconds,
        ask_payouts=settings.rail_seconds,
        expand_events=settings.event_seconds,
        take_statements=settings.statements_folder_seconds,
    )


def drain_funds(worker: Database, books: Books) -> int:
    """Serve the sponsors' queues as far as their money reaches; how many entries were touched."""
    served = 0
    for _ in range(ROUNDS_MAX):
        with worker.begin() as tx:
            served_next = sponsors.waiting(tx)
        moved = sum(
            worker.run(lambda tx, one=one: sponsors.drain(tx, books, one))  # type: ignore[misc]  # a default is the way to bind a loop's name
            for one in served_next
        )
        served += moved
        if not moved:
            break
    return served


def book_claims(worker: Database, books: Books, *, seconds_max: float) -> int:
    """Book certified claim packs in sets, as far as the time reaches; how many lines."""
    booked = 0
    until = time.monotonic() + seconds_max
    with worker.begin() as tx:
        certified = booking.to_book(tx)
    for pack in certified:
        while time.monotonic() < until:
            lines = worker.run(lambda tx, pack=pack: booking.book(tx, books, pack))  # type: ignore[misc]  # a default is the way to bind a loop's name
            booked += lines
            if not lines:
                break
    return booked


def retry_waiting(tx: Tx, clock: Clock) -> int:
    """Queue again what waited for its member or its partner's money, now that it is there; how many deliveries."""
    ready = waiting.ready(tx)
    return requeue(tx, ready, actor="system", clock=clock, states=WAITING) if ready else 0


def expand_events(worker: Database, clock: Clock, retention: timedelta, deliverer: Deliverer) -> int:
    """Turn what the outbox holds into events, and wake the deliverer when one is to be delivered; how many events."""
    made = 0
    until = time.monotonic() + EXPAND_SECONDS_MAX
    while time.monotonic() < until:
        done = worker.run(lambda tx: events.expand(tx, clock, retention=retention))
        made += done.events
        if done.deliveries:
            deliverer.wake()
        if not done.more:
            break
    return made


def forget_events(worker: Database, clock: Clock, retention: timedelta) -> int:
    """Forget old events, and prune the outbox of what was read; how many rows, as far as the time reaches."""
    forgotten = 0
    for work in (lambda tx: forget.forget(tx, clock, retention=retention), forget.prune_outbox):
        until = time.monotonic() + FORGET_SECONDS_MAX
        while time.monotonic() < until:
            rows = worker.run(work)
            forgotten += rows
            if not rows:
                break
    return forgotten


def reevaluate_all(worker: Database, books: Books) -> int:
    """Derive anew what changed rules or facts left behind; how many windows."""
    windows = 0
    for _ in range(ROUNDS_MAX):
        done = worker.run(lambda tx: reevaluate(tx, books))
        windows += done
        if not done:
            break
    return windows


def vest_all(worker: Database, books: Books, *, seconds_max: float | None = None) -> tuple[int, int]:
    """Grant in windows that are over, then vest what is due; how many windows, and how many enrolments were looked at."""
    started = time.monotonic()

    def rounds(step: Callable[[Tx, Books], int]) -> int:
        done = 0
        for _ in range(ROUNDS_MAX):
            if seconds_max is not None and time.monotonic() - started > seconds_max:
                break
            windows = worker.run(lambda tx: step(tx, books))
            done += windows
            if not windows:
                break
        return done

    return rounds(end_windows), rounds(vest_due)


def settle_all(worker: Database, books: Books, *, seconds_max: float | None = None) -> int:
    """Pair what is recorded, and take back what is returned, part by part; how many parts. Another job may be at it too."""
    until = None if seconds_max is None else time.monotonic() + seconds_max
    parts = 0
    while until is None or time.monotonic() < until:
        with worker.begin() as tx:
            waiting_, returning = pair.unfinished(tx), returns.unfinished(tx)
        moved = sum(
            worker.run(lambda tx, of=of: pair.pair_next(tx, books, *of))  # type: ignore[misc]  # a default is the way to bind a loop's name
            for of in waiting_
        )
        for one in returning:
            worker.run(lambda tx, one=one: returns.return_next(tx, books, one))  # type: ignore[misc]  # as above
            moved += 1
        parts += moved
        if not moved:
            break
    return parts


def settle_to_the_end(worker: Database, books: Books, settlement_id: UUID) -> Settlement:
    """Pair, or take back, all of a settlement, with whoever else is at it; as it stands then, or when it takes too long."""
    deadline = time.monotonic() + SETTLE_TO_THE_END_SECONDS_MAX
    while True:
        settle_all(worker, books)
        found = worker.run(lambda tx: by_id(tx, settlement_id))
        if found.state in ("paired", "returned") or time.monotonic() > deadline:
            return found
        time.sleep(0.05)  # a worker is at its next part


def watch_partners(worker: Database, clock: Clock) -> int:
    """Apply the ceilings of the terms of today, and warn of partners that come close to theirs; how many changed."""
    return worker.run(lambda tx: limits.apply_limits(tx, clock) + limits.watch(tx, clock))


def fold_all(worker: Database) -> int:
    """Fold everything that has settled; how many postings."""

    def once(tx: Tx) -> int:
        return fold.fold(tx, limit=FOLD_TRANSACTIONS)

    folded = 0
    for _ in range(ROUNDS_MAX):
        postings = worker.run(once)
        folded += postings
        if not postings:
            break
    return folded


def take_statements(services: Services) -> statements_folder.Look | None:
    """Bring in what lies in the watched folder; None where none is watched."""
    folder = services.settings.statements_folder
    return statements_folder.take(services, folder) if folder is not None else None


def destroy_statement_files(worker: Database, clock: Clock, retention: timedelta) -> int:
    """Destroy the contents of bank statements' files whose time is over; how many, as far as the time reaches."""
    destroyed = 0
    until = time.monotonic() + FORGET_SECONDS_MAX
    while time.monotonic() < until and worker.run(
        lambda tx: files.destroy_next(tx, clock, retention=retention)
    ):
        destroyed += 1
    return destroyed


def seal_all(sealer: Database, key: SealingKey, clock: Clock) -> list[Seal]:
    """Seal everything that has settled; the new seals."""
    made: list[Seal] = []
    for _ in range(ROUNDS_MAX):
        one = sealer.run(lambda tx: seal(tx, key, clock))
        if one is None:
            break
        made.append(one)
    return made


def fold_and_seal_all(worker: Database, sealer: Database, key: SealingKey, clock: Clock) -> None:
    """Fold and seal until nothing is left: the schedule may be at it as well, and of two sealers one leaves all to the other.

    Raises Unavailable when something is left after `SEAL_SECONDS_MAX`.
    """
    deadline = time.monotonic() + SEAL_SECONDS_MAX
    while True:
        fold_all(worker)
        seal_all(sealer, key, clock)
        with worker.begin() as tx:
            folded = fold.watermark(tx)
            left = tx.exec_driver_sql(
                "select (select count(*) from ledger.transaction where (era, xid) >= (%(era)s, %(xid)s::text::xid8))"
                " + (select count(*) from ledger.transaction t where not exists (select from ledger.seal s"
                " where s.era = t.era and t.xid < s.to_xid))",
                {"era": folded.era, "xid": str(folded.xid)},
            ).scalar_one()
        if not left:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{left} transactions are not folded or sealed after {SEAL_SECONDS_MAX:.0f} seconds"
            )
        time.sleep(0.05)
