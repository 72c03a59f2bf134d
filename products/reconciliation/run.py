"""One run of the reconciliation: collect, expect, pair, confirm, pair again, and say what is left as breaks.

Each step is a database transaction of its own, so that a run that is killed leaves whole what it did; the next one goes on. Two
runs at once do the same once: rules lock their bank account, and a line stands in one pairing at most.
"""

import logging
import time
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.database import Database, Tx
from ledger.errors import MizanError, NotFound
from ledger.ids import new_id
from ledger.reconciliation import bank_accounts, engine, items, rules
from ledger.reconciliation.engine import Outcome
from ledger.reconciliation.pairings import Proposal
from products.reconciliation import effects, erased, sources
from products.reconciliation.booked import waiting
from products.reconciliation.breaks.refresh import refresh as refresh_breaks
from products.remittances.context import Books

log = logging.getLogger("mizan.reconciliation")

PASSES_MAX: Final = 3
"""How often one run pairs an account: what is confirmed can make the next thing plain."""
BALANCES_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class AccountRun:
    """What a run did on one bank account: pairings that rules made, proposals that became pairings, and those that were refused."""

    bank_account: str
    pairings: int
    confirmed: int
    refused: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did: transactions that became items, expected items that changed, each account, breaks that changed.

    ``run_id``: under which its pairings are on record. ``waiting``: transactions that something older in the database still holds
    back from becoming items; the next run takes them. ``complete``: the time sufficed; if not, the next run goes on.
    """

    run_id: UUID
    collected: int
    waiting: int
    expected: int
    accounts: tuple[AccountRun, ...]
    breaks: int
    complete: bool

    @property
    def pairings(self) -> int:
        """How many pairings were made in all."""
        return sum(one.pairings + one.confirmed for one in self.accounts)


def reconcile(
    database: Database,
    books: Books,
    *,
    bank_account: str | None = None,
    made_by: str = "reconcile",
    seconds_max: float = 300.0,
) -> RunReport:
    """Reconcile every bank account, or the one of this slug. As the worker's role. Raises NotFound for no such account."""
    return _Run(database, books, made_by, time.monotonic() + seconds_max).all(bank_account)


@dataclass
class _Run:
    """One run, until its time is over."""

    database: Database
    books: Books
    made_by: str
    until: float
    id: UUID = field(default_factory=new_id, init=False)
    complete: bool = field(default=True, init=False)

    def all(self, slug: str | None) -> RunReport:
        with self.database.begin() as tx:
            accounts = {one.slug: one.id for one in bank_accounts.every(tx)}
        if slug is not None and slug not in accounts:
            raise NotFound(f"There is no bank account “{slug}”.")
        collected = self._collect()
        with self.database.read() as tx:
            held_back = waiting(tx)
        expected = self.database.run(lambda tx: sources.refresh(tx, self.books.clock))
        done = [
            self._account(name, id_)
            for name, id_ in sorted(accounts.items())
            if slug in (None, name) and self._has_time()
        ]
        self._balance()
        self.database.run(lambda tx: erased.forget_since(tx, self.id))
        changed = self.database.run(lambda tx: refresh_breaks(tx, self.books.clock))
        return RunReport(self.id, collected, held_back, expected, tuple(done), changed, self.complete)

    def _has_time(self) -> bool:
        if time.monotonic() > self.until:
            self.complete = False
        return self.complete

    def _collect(self) -> int:
        """Make items of what has settled; how many transactions."""
        collected = 0
        while self._has_time():
            made = self.database.run(lambda tx: items.collect(tx, sources.NAMING))
            collected += made
            if not made:
                break
        return collected

    def _account(self, slug: str, id_: UUID) -> AccountRun:
        pairings = confirmed = 0
        refused: set[tuple[UUID, ...]] = set()
        for _ in range(PASSES_MAX):
            outcome = self.database.run(lambda tx: self._pair(tx, id_))
            pairings += outcome.pairings
            fresh = [one for one in outcome.proposals if one.lines not in refused]
            made = 0
            for proposal in fresh:
                if not self._has_time():
                    break
                if self._confirm(proposal):
                    made += 1
                else:
                    refused.add(proposal.lines)
            confirmed += made
            if not made or not self._has_time():
                break
            self.database.run(lambda tx: sources.refresh(tx, self.books.clock))
        return AccountRun(slug, pairings, confirmed, len(refused))

    def _pair(self, tx: Tx, bank_account_id: UUID) -> Outcome:
        return engine.pair(
            tx,
            bank_account_id,
            rules.of_account(tx, bank_account_id),
            run_id=self.id,
            clock=self.books.clock,
            made_by=self.made_by,
        )

    def _confirm(self, proposal: Proposal) -> bool:
        """Whether a proposal could be confirmed; what could not stays open, and its break says so."""
        try:
            self.database.run(
                lambda tx: effects.confirm(tx, self.books, proposal, made_by=self.made_by, run_id=self.id)
            )
        except MizanError as error:
            log.info("a proposal by the rule %s is refused: %s", proposal.rule, error.code)
            return False
        return True

    def _balance(self) -> None:
        for _ in range(BALANCES_MAX):
            if not self.database.run(lambda tx: effects.balance(tx, self.books)):
                break
