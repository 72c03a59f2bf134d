"""The books against a naive model of them: real commits, any order of postings, reversals, holds and closes."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger import holds
from ledger.accounts import AccountKind
from ledger.clock import FixedClock
from ledger.database import cursor
from ledger.errors import HoldError
from ledger.periods import close_period, reopen_period
from ledger.posting import Outcome, Posting, Transaction, post, reverse
from tests.conftest import Databases
from tests.integration.ledger.books import DAY, NOON, Books

FUND_NUMBERS = itertools.count(1)
"""Numbers that keep the examples of one database apart."""
ASSETS = {"bank", "owed", "receivable", "other fund's bank", "dollars"}
ACCOUNTS: dict[str, tuple[AccountKind, str, bool, int | None, int | None]] = {
    "bank": ("asset", "PHP", False, None, None),
    "owed": ("asset", "PHP", False, None, None),
    "receivable": ("asset", "PHP", True, 0, 60),
    "ana": ("liability", "PHP", False, 0, None),
    "ben": ("liability", "PHP", False, 0, 40),
    "sponsor": ("liability", "PHP", True, 0, None),
    "committed": ("liability", "PHP", True, None, None),
    "dollars": ("asset", "USD", False, None, None),
    "dollar savings": ("liability", "USD", False, 0, None),
    "other fund's bank": ("asset", "PHP", False, None, None),
    "other fund's pool": ("liability", "PHP", False, 0, None),
}
"""Kind, currency, hot, floor, ceiling of each account."""
names = st.sampled_from(sorted(ACCOUNTS))
pesos = st.sampled_from(["bank", "owed", "receivable", "ana", "ben", "sponsor", "committed"])
amounts = st.integers(1, 30)


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, str, int, str | None]:
    """Debited, credited, amount, and now and then where the rest comes from."""
    accounts = pesos if draw(st.integers(0, 9)) else names
    debit, credit, rest = draw(st.lists(accounts, min_size=3, max_size=3, unique=True))
    return debit, credit, draw(amounts), rest if draw(st.integers(0, 3)) == 0 else None


requests = st.tuples(st.integers(0, 25), st.integers(0, 2), st.lists(lines(), min_size=1, max_size=3))


@dataclass
class ModelHold:
    account: str
    amount: int
    expires: bool
    active: bool = True


class Refused(Exception):
    """The model's word for a rejection."""


class Model:
    """What the books should hold, kept as simply as can be."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = dict.fromkeys(ACCOUNTS, 0)
        self.held: dict[str, int] = dict.fromkeys(ACCOUNTS, 0)
        self.references: dict[str, tuple[UUID | None, bytes]] = {}
        self.posted: dict[UUID | None, list[tuple[str, str, int]]] = {}
        self.reversed: set[UUID | None] = set()
        self.closed_through = date.min

    def apply(
        self, lines: list[tuple[str, str, int, str | None]], on: date, hold: ModelHold | None = None
    ) -> list[tuple[str, str, int]]:
        """Move the money and capture the hold, or raise `Refused` with nothing moved."""
        before = dict(self.balances), dict(self.held)
        done: list[tuple[str, str, int]] = []
        try:
            self._check(lines, on)
            if hold is not None:
                if not hold.active:
                    raise Refused("hold_ended")  # noqa: TRY301
                self.held[hold.account] -= hold.amount
            for debit, credit, amount, rest in lines:
                taken = amount if rest is None else min(amount, self._room(debit))
                for source, part in ((debit, taken), (rest, amount - taken)):
                    if part:
                        assert source is not None
                        self._move(source, part if source in ASSETS else -part)
                        self._move(credit, -part if credit in ASSETS else part)
                        done.append((source, credit, part))
            if hold is not None and sum(part for _, _, part in done) > hold.amount:
                raise Refused("hold_exceeded")  # noqa: TRY301
        except Refused:
            self.balances, self.held = before
            raise
        if hold is not None:
            hold.active = False
        return done

    def _check(self, lines: list[tuple[str, str, int, str | None]], on: date) -> None:
        for debit, credit, _, rest in lines:
            touched = [name for name in (debit, credit, rest) if name]
            for name in touched:
                if name.startswith("other fund") != debit.startswith("other fund"):
                    raise Refused("fund_mismatch")
                if ACCOUNTS[name][1] != ACCOUNTS[debit][1]:
                    raise Refused("currency_mismatch")
                if on <= self.closed_through and not name.startswith("other fund"):
                    raise Refused("period_closed")

    def _room(self, name: str) -> int:
        _, _, _, floor, ceiling = ACCOUNTS[name]
        if name in ASSETS:
            return 10**9 if ceiling is None else max(0, ceiling - self.balances[name])
        return 10**9 if floor is None else max(0, self.balances[name] - self.held[name] - floor)

    def _move(self, name: str, by: int) -> None:
        _, _, _, floor, ceiling = ACCOUNTS[name]
        self.balances[name] += by
        if by < 0 and floor is not None and self.balances[name] - self.held[name] < floor:
            raise Refused("insufficient_funds")
        if by > 0 and ceiling is not None and self.balances[name] > ceiling:
            raise Refused("ceiling_exceeded")


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to the books and to the model, and wants the same answers."""

    def __init__(self, databases: Databases) -> None:
        super().__init__()
        number = next(FUND_NUMBERS)
        self.databases = databases
        self.clock = FixedClock(NOON)
        self.books = Books.open(databases.worker, f"fund {number}")
        other = Books.open(databases.worker, f"other fund {number}")
        self.ids: dict[str, UUID] = {}
        for name, (kind, currency, hot, floor, ceiling) in ACCOUNTS.items():
            books = other if name.startswith("other fund") else self.books
            self.ids[name] = books.account(
                name, kind, currency=currency, hot=hot, floor=floor, ceiling=ceiling
            )
        self.names = {id_: name for name, id_ in self.ids.items()}
        self.prefix = f"{number}/"
        self.model = Model()
        self.holds: dict[UUID, ModelHold] = {}
        self.hold_numbers = itertools.count(1)

    def transaction(
        self, reference: int, variant: int, lines: list[tuple[str, str, int, str | None]]
    ) -> Transaction:
        on = DAY + timedelta(days=variant)
        digest = sha256(repr((reference, variant, lines)).encode()).digest()
        postings = tuple(
            Posting(
                self.ids[debit],
                self.ids[credit],
                amount,
                ACCOUNTS[debit][1],
                self.ids[rest] if rest else None,
            )
            for debit, credit, amount, rest in lines
        )
        return Transaction(f"{self.prefix}{reference}", "test", on, postings, digest)

    def expect(self, asked: Transaction, outcome: Outcome) -> None:
        """Compare the answer with the model's, and let the model follow."""
        held = self.model.references.get(asked.reference)
        if held is not None:
            status = "replayed" if held[1] == asked.digest else "conflict"
            assert (outcome.status, outcome.transaction_id) == (status, held[0])
            return
        lines = [
            (
                self.names[p.debit],
                self.names[p.credit],
                p.amount,
                self.names[p.rest_from] if p.rest_from else None,
            )
            for p in asked.postings
        ]
        try:
            if asked.reverses in self.model.reversed:
                raise Refused("already_reversed")  # noqa: TRY301
            done = self.model.apply(
                lines, asked.effective_on, self.holds.get(asked.captures or self.books.fund_id)
            )
        except Refused as refusal:
            expected = Outcome("rejected", reason=outcome.reason, account_id=outcome.account_id)
            assert (outcome, outcome.reason) == (expected, str(refusal))  # noqa: PT017  the model's refusal, not the books'
        else:
            assert outcome.status == "posted", outcome
            self.model.references[asked.reference] = (outcome.transaction_id, asked.digest)
            self.model.posted[outcome.transaction_id] = done
            if asked.reverses is not None:
                self.model.reversed.add(asked.reverses)

    @rule(asked=st.lists(requests, min_size=1, max_size=6))
    def post(self, asked: list[tuple[int, int, list[tuple[str, str, int, str | None]]]]) -> None:
        batch = [self.transaction(*each) for each in asked]
        with self.databases.worker.begin() as tx:
            outcomes = post(tx, batch, clock=self.clock)
        # Those that repeat a reference of the batch are judged after the others, and so on.
        left = list(zip(batch, outcomes, strict=True))
        while left:
            seen: set[str] = set()
            later = []
            for transaction, outcome in left:
                if transaction.reference in seen:
                    later.append((transaction, outcome))
                else:
                    seen.add(transaction.reference)
                    self.expect(transaction, outcome)
            left = later

    @rule(asked=st.lists(requests, min_size=1, max_size=4, unique_by=lambda each: each[0]))
    def post_all_or_nothing(
        self, asked: list[tuple[int, int, list[tuple[str, str, int, str | None]]]]
    ) -> None:
        batch = [self.transaction(*each) for each in asked]
        with self.databases.worker.begin() as tx:
            outcomes = post(tx, batch, clock=self.clock, all_or_nothing=True)
        if any(outcome.status in ("rejected", "conflict") for outcome in outcomes):
            assert not any(outcome.status == "posted" for outcome in outcomes)
        else:
            for transaction, outcome in zip(batch, outcomes, strict=True):
                self.expect(transaction, outcome)

    @precondition(lambda self: self.model.posted)
    @rule(data=st.data(), number=st.integers(100, 104))
    def reverse(self, data: st.DataObject, number: int) -> None:
        original = data.draw(st.sampled_from(sorted(self.model.posted, key=str)))
        assert original is not None
        digest = sha256(original.bytes).digest()
        lines = [
            (credit, debit, amount, None) for debit, credit, amount in reversed(self.model.posted[original])
        ]
        asked = replace(self.transaction(number, 0, list(lines)), digest=digest, reverses=original)
        with self.databases.worker.begin() as tx:
            outcome = reverse(
                tx,
                original,
                reference=asked.reference,
                digest=digest,
                kind="reversal",
                effective_on=DAY,
                clock=self.clock,
            )
        self.expect(asked, outcome)

    @rule(account=pesos, amount=amounts, expires=st.booleans())
    def place_hold(self, account: str, amount: int, expires: bool) -> None:
        floor = ACCOUNTS[account][3]
        fits = floor is None or self.model.balances[account] - self.model.held[account] - amount >= floor
        reference = f"{self.prefix}hold {next(self.hold_numbers)}"
        until = self.clock.now() + timedelta(hours=1) if expires else None
        with self.databases.worker.begin() as tx:
            if not fits:
                with pytest.raises(HoldError, match="refused"):
                    holds.place(
                        tx, self.ids[account], amount, reference=reference, clock=self.clock, expires_at=until
                    )
                return
            hold = holds.place(
                tx, self.ids[account], amount, reference=reference, clock=self.clock, expires_at=until
            )
        self.holds[hold.id] = ModelHold(account, amount, expires)
        self.model.held[account] += amount

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), amount=amounts, number=st.integers(200, 230), to=pesos)
    def capture_hold(self, data: st.DataObject, amount: int, number: int, to: str) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.holds)))
        hold = self.holds[hold_id]
        line = (to, hold.account) if hold.account in ASSETS else (hold.account, to)
        if to == hold.account:
            return
        asked = replace(self.transaction(number, 0, [(*line, amount, None)]), captures=hold_id)
        with self.databases.worker.begin() as tx:
            outcome = holds.capture(tx, hold_id, asked, clock=self.clock)
        self.expect(asked, outcome)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def release_hold(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.holds)))
        hold = self.holds[hold_id]
        try:
            with self.databases.worker.begin() as tx:
                holds.release(tx, hold_id, clock=self.clock)
        except HoldError:
            assert not hold.active
        else:
            self._ended(hold)

    @rule()
    def expire_holds(self) -> None:
        self.clock.advance(timedelta(hours=2))
        with self.databases.worker.begin() as tx:
            ended = set(holds.expire(tx, clock=self.clock))
        due = {id_ for id_, hold in self.holds.items() if hold.active and hold.expires}
        assert ended & self.holds.keys() == due
        for id_ in due:
            self._ended(self.holds[id_])

    def _ended(self, hold: ModelHold) -> None:
        assert hold.active
        hold.active = False
        self.model.held[hold.account] -= hold.amount

    @rule(days=st.integers(-1, 1))
    def move_the_period(self, days: int) -> None:
        through = DAY + timedelta(days=days)
        with self.databases.worker.begin() as tx:
            if through > self.model.closed_through:
                close_period(tx, self.books.fund_id, through, actor="m", clock=self.clock)
            elif through < self.model.closed_through:
                reopen_period(tx, self.books.fund_id, through, actor="m", clock=self.clock, reason="late")
        self.model.closed_through = through

    @invariant()
    def the_books_are_the_models(self) -> None:
        own = list(self.ids.values())
        with self.databases.auditor.begin() as tx:
            cur = cursor(tx)
            rows = cur.execute(
                "select b.account_id, b.debits, b.credits, b.held, coalesce(p.debits, 0), coalesce(p.credits, 0),"
                " coalesce((select sum(h.amount) from ledger.hold as h"
                "   where h.account_id = b.account_id and h.state = 'active'), 0)"
                " from ledger.account_balance as b left join ("
                "   select account_id, sum(debit) as debits, sum(credit) as credits from ("
                "     select debit_account as account_id, amount as debit, 0 as credit from ledger.posting"
                "     union all select credit_account, 0, amount from ledger.posting) as s group by account_id"
                " ) as p using (account_id) where b.account_id = any(%s)",
                [own],
            ).fetchall()
            written = cur.execute(
                "select count(*), (select count(*) from ledger.reference where starts_with(reference, %s))"
                " from ledger.transaction where starts_with(reference, %s)",
                [self.prefix, self.prefix],
            ).fetchone()
        totals: dict[Any, int] = defaultdict(int)
        for id_, debits, credits_, held, posted_debits, posted_credits, active in rows:
            name = self.names[id_]
            assert (debits, credits_, held) == (posted_debits, posted_credits, active)
            assert (debits - credits_ if name in ASSETS else credits_ - debits) == self.model.balances[
                name
            ], name
            assert held == self.model.held[name]
            totals[name.startswith("other fund"), ACCOUNTS[name][1]] += debits - credits_
            _, _, _, floor, ceiling = ACCOUNTS[name]
            assert floor is None or self.model.balances[name] - held >= floor
            assert ceiling is None or self.model.balances[name] <= ceiling
        assert set(totals.values()) == {0}
        assert written == (len(self.model.posted), len(self.model.references))


def test_the_books_agree_with_the_model(databases: Databases) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(databases),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
