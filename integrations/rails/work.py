"""What workers do for the rails: check payees, send what is approved, ask about what is on its way.

Each call of a rail lies between two transactions: what is intended is committed first, what was said is committed after. Calls may
run in several processes at once, and end anywhere: what they leave behind is picked up when its lease is over.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from integrations.rails import breaker, sandbox
from integrations.rails.breaker import Admission
from integrations.rails.configured import Rails
from ledger.database import Database, Tx
from products.payouts import cancel, checking, registry, reports, submission
from products.payouts.checking import ToCheck
from products.payouts.rails import Checked, Rail, RailPayee, Report, Sent
from products.payouts.registry import ConfiguredRail
from products.payouts.submission import Prepared
from products.remittances.context import Books

log = logging.getLogger("mizan.rails")

SECONDS_MAX: Final = 2.5
"""How long one call of a job goes on taking more."""
CHECKED_TOGETHER: Final = 500
CHECKS_AT_ONCE: Final = 8
ASKED_TOGETHER: Final = 1_000
LEASE: Final = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at once, and for how long whoever took something is waited for before others look after it.

    ``open_for``: how long a rail that is down is left alone between two probes; ``probe_lease``: how long a prober is waited for.
    """

    seconds_max: float = SECONDS_MAX
    lease: timedelta = LEASE
    together_max: int = 1_000
    open_for: timedelta = breaker.OPEN_FOR
    probe_lease: timedelta = breaker.PROBE_LEASE


class RailWork:
    """The jobs of the rails, on one process's connections."""

    def __init__(self, database: Database, books: Books, rails: Rails, pace: Pace | None = None) -> None:
        self._database = database
        self._books = books
        self._rails = rails
        self._pace = pace or Pace()

    def submit(self) -> int:
        """Check payees, then send off what is approved and what has to be sent again, rail by rail; how many payments."""
        return self._each(self._check) + self._each(self._submit)

    def ask(self) -> int:
        """Ask about payments whose time has come, rail by rail; how many."""
        return self._each(self._ask, paused_too=True)

    def expire(self) -> int:
        """Cancel what nobody approved in time; how many."""
        expired = 0
        while True:
            done = self._database.run(lambda tx: cancel.expire(tx, self._books))
            expired += done
            if done < cancel.EXPIRED_TOGETHER_MAX:
                return expired

    def _each(self, work: Callable[[ConfiguredRail, Rail, float], int], *, paused_too: bool = False) -> int:
        """Do something for each rail; one that is misconfigured or fails holds up no other."""
        with self._database.begin() as tx:
            if self._rails.in_sandbox:
                sandbox.ensure_rails(tx, self._books.clock)
            rails = registry.rails(tx)
        done = 0
        until = time.monotonic() + self._pace.seconds_max
        for rail in rails:
            if rail.paused_at is not None and not paused_too:
                continue
            try:
                done += work(rail, self._rails.adapter(rail), until)
            except Exception:
                # its attempts are on record: they are asked about when their lease is over
                log.exception("rail %s: work was left off", rail.slug)
        return done

    def _check(self, rail: ConfiguredRail, adapter: Rail, until: float) -> int:
        checked = 0
        while rail.checks_payees and time.monotonic() < until:
            taken = self._database.run(
                lambda tx: checking.take(tx, self._books, rail, limit=CHECKED_TOGETHER)
            )
            said = self._checked(adapter, taken, until)
            unreadable = [one.payout_id for one in taken if one.payee is None]
            left = [one.payout_id for one in taken if one.payee is not None and one.payout_id not in said]

            def record(
                tx: Tx,
                said: Mapping[UUID, Checked | None] = said,
                unreadable: Sequence[UUID] = unreadable,
                left: Sequence[UUID] = left,
            ) -> None:
                checking.record(tx, self._books, said, unreadable=unreadable)
                checking.give_back(tx, self._books, left)

            self._database.run(record)
            checked += len(taken) - len(left)
            if len(taken) < CHECKED_TOGETHER:
                break
        return checked

    def _checked(self, adapter: Rail, taken: Sequence[ToCheck], until: float) -> dict[UUID, Checked | None]:
        """What a rail says of payees, of several at a time; what isn't begun in time is left out."""
        asked = [(one.payout_id, one.payee) for one in taken if one.payee is not None]

        def check(these: Sequence[tuple[UUID, RailPayee]]) -> list[tuple[UUID, Checked | None]]:
            return [(id_, adapter.check(payee)) for id_, payee in these if time.monotonic() < until]

        if len(asked) <= 1:
            return dict(check(asked))
        shares = [asked[first::CHECKS_AT_ONCE] for first in range(min(CHECKS_AT_ONCE, len(asked)))]
        with ThreadPoolExecutor(len(shares), thread_name_prefix="payees") as threads:
            return {id_: said for share in threads.map(check, shares) for id_, said in share}

    def _submit(self, rail: ConfiguredRail, adapter: Rail, until: float) -> int:
        sent = 0
        while time.monotonic() < until:
            admission = self._admission(rail)
            if admission == "refused":
                break
            limit = 1 if admission == "probe" else min(self._pace.together_max, adapter.together_max)
            batches = self._prepared(rail, limit)
            if not batches:
                self._unused(rail, admission)
                break
            for batch in batches:
                self._call(rail, adapter, admission, batch.sent, partial(_submitted, adapter, batch))
                sent += len(batch.instructions)
        return sent

    def _prepared(self, rail: ConfiguredRail, limit: int) -> list[Prepared]:
        """What goes off next: what has to be sent again comes first."""
        lease = self._pace.lease
        again = self._database.run(
            lambda tx: submission.prepare_again(tx, self._books, rail, limit=limit, lease=lease)
        )
        if again:
            return again
        new = self._database.run(
            lambda tx: submission.prepare(tx, self._books, rail, limit=limit, lease=lease)
        )
        return [new] if new is not None else []

    def _ask(self, rail: ConfiguredRail, adapter: Rail, until: float) -> int:
        asked = 0
        asks_after = timedelta(seconds=adapter.asks_after_seconds)
        while time.monotonic() < until:
            admission = self._admission(rail)
            if admission == "refused":
                break
            limit = 1 if admission == "probe" else min(ASKED_TOGETHER, adapter.together_max)
            due = self._database.run(
                lambda tx, limit=limit: submission.due_to_ask(  # type: ignore[misc]  # a default is the way to bind a loop's name
                    tx, self._books, rail, limit=limit, asks_after=asks_after
                )
            )
            if not due:
                self._unused(rail, admission)
                break
            self._call(rail, adapter, admission, due, partial(adapter.ask, due))
            asked += len(due)
        return asked

    def _admission(self, rail: ConfiguredRail) -> Admission:
        return self._database.run(
            lambda tx: breaker.admission(tx, rail.id, self._books.clock.now(), lease=self._pace.probe_lease)
        )

    def _unused(self, rail: ConfiguredRail, admission: Admission) -> None:
        if admission == "probe":
            self._database.run(lambda tx: breaker.unused(tx, rail.id, self._books.clock.now()))

    def _call(
        self,
        rail: ConfiguredRail,
        adapter: Rail,
        admission: Admission,
        asked: Sequence[Sent],
        call: Callable[[], list[Report]],
    ) -> None:
        """Call the rail, outside any transaction, then record what it said, for the breaker too."""
        called_at = self._books.clock.now()
        try:
            answers = call()
        except Exception as error:
            self._note(rail, type(error).__name__)
            raise
        self._database.run(
            lambda tx: reports.apply(
                tx,
                self._books,
                rail,
                answers,
                asked=asked,
                called_at=called_at,
                asks_after=timedelta(seconds=adapter.asks_after_seconds),
                forgets_after_seconds=adapter.forgets_after_seconds,
            )
        )
        telling = breaker.telling(answers)
        if telling:
            self._note(rail, breaker.failed(telling))
        else:
            self._unused(rail, admission)

    def _note(self, rail: ConfiguredRail, failure: str | None) -> None:
        now, open_for = self._books.clock.now(), self._pace.open_for
        self._database.run(lambda tx: breaker.note(tx, rail.id, failure, now, open_for=open_for))


def _submitted(adapter: Rail, batch: Prepared) -> list[Report]:
    return adapter.submit(batch.batch, batch.instructions, batch.asked_on)
