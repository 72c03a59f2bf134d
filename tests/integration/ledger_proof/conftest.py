"""A small world of books: one savers' fund and one pool, members with savings, and a partner that owes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from itertools import count
from uuid import UUID

import pytest

from api.embedded import EmbeddedServers
from ledger.accounts import AccountSpec, open_accounts, open_fund
from ledger.clock import FixedClock
from ledger.database import Database, Tx
from ledger.fold import fold
from ledger.posting import Outcome, Posting, Transaction, post, reverse
from ledger.report import Report
from ledger.seals import Seal, SealingKey, seal
from ledger.verify import verify
from tests.conftest import TEMPLATE, Databases, databases_of, drop_database

DAY = date(2026, 3, 2)


@dataclass
class Books:
    """A fund in rwandan francs: `bank` and `receivable` are assets, each member has savings without an overdraft."""

    databases: Databases
    clock: FixedClock
    fund: UUID
    bank: UUID
    receivable: UUID
    members: list[UUID]
    code: str = "savers"
    key: SealingKey = field(default_factory=SealingKey.generate)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def contribution(
        self, member: int, amount: int, *, on: date = DAY, kind: str = "contribution", tag: str = ""
    ) -> Transaction:
        """The partner owes `amount` more, half of it saved by the member, half by the next one, in two postings."""
        other = self.members[(member + 1) % len(self.members)]
        reference = f"{self.code}:remittance:{tag}{next(self._numbers)}"
        half = amount // 2
        return Transaction(
            reference=reference,
            kind=kind,
            effective_on=on,
            postings=(
                Posting(self.receivable, self.members[member], amount - half, "RWF"),
                Posting(self.receivable, other, half, "RWF"),
            ),
            digest=sha256(reference.encode()).digest(),
            details={"corridor": "AE-RW", "rule": [1, "é"]},
        )

    def payment(self, debit: UUID, credit: UUID, amount: int, *, on: date = DAY) -> Transaction:
        """One posting from one account to another."""
        reference = f"{self.code}:payment:{next(self._numbers)}"
        return Transaction(
            reference,
            "payment",
            on,
            (Posting(debit, credit, amount, "RWF"),),
            sha256(reference.encode()).digest(),
        )

    def post(self, *batch: Transaction, database: Database | None = None) -> list[UUID]:
        """Posts and commits the batch as the worker; every transaction must be accepted."""
        with (database or self.databases.worker).begin() as tx:
            return self.post_in(tx, batch)

    def post_in(self, tx: Tx, batch: Sequence[Transaction]) -> list[UUID]:
        """Posts in an open transaction."""
        return [_accepted(outcome) for outcome in post(tx, batch, clock=self.clock)]

    def reverse(self, transaction_id: UUID, *, on: date = DAY) -> UUID:
        """Takes a transaction back."""
        reference = f"{self.code}:take-back:{next(self._numbers)}"
        digest = sha256(reference.encode()).digest()
        with self.databases.worker.begin() as tx:
            outcome = reverse(
                tx,
                transaction_id,
                reference=reference,
                digest=digest,
                kind="reversal",
                effective_on=on,
                clock=self.clock,
            )
        return _accepted(outcome)

    def seal(self, limit: int = 1_000) -> list[Seal]:
        """Seals all that has settled."""
        sealed = []
        while True:
            with self.databases.sealer.begin() as tx:
                one = seal(tx, self.key, self.clock, limit=limit)
            if one is None:
                return sealed
            sealed.append(one)

    def fold(self, limit: int = 1_000) -> int:
        """Folds all that has settled; answers how many postings."""
        folded = 0
        while True:
            with self.databases.worker.begin() as tx:
                some = fold(tx, limit=limit)
            if some == 0:
                return folded
            folded += some

    def verify(self, **options: object) -> Report:
        """Verifies as the auditor."""
        with self.databases.auditor.read() as tx:
            return verify(tx, **options)  # type: ignore[arg-type]  # options of verify, passed on

    def tamper(self, statement: str, **parameters: object) -> int:
        """Changes rows as a superuser for whom no trigger fires; answers how many."""
        with self.databases.superuser.begin() as tx:
            tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
            return tx.exec_driver_sql(statement, parameters).rowcount


def _accepted(outcome: Outcome) -> UUID:
    assert outcome.status == "posted", outcome
    assert outcome.transaction_id is not None
    return outcome.transaction_id


def open_books(databases: Databases, clock: FixedClock, code: str = "savers", members: int = 5) -> Books:
    """Opens the fund and its accounts."""
    with databases.worker.begin() as tx:
        fund = open_fund(tx, code, "Savers", "Africa/Kigali")
        specs = [
            AccountSpec(fund, "bank", "", "asset", "RWF", hot=True),
            AccountSpec(fund, "partner_receivable", "acme", "asset", "RWF", hot=True),
            *(
                AccountSpec(fund, "member_savings", f"member-{number}", "liability", "RWF", floor=0)
                for number in range(members)
            ),
        ]
        bank, receivable, *savings = open_accounts(tx, specs)
    return Books(databases, clock, fund, bank, receivable, savings, code)


@pytest.fixture
def books(databases: Databases, clock: FixedClock) -> Books:
    """A database of the test's own: five members, nothing posted yet."""
    return open_books(databases, clock)


@pytest.fixture(scope="module")
def module_databases(
    servers: EmbeddedServers, worker_number: int, request: pytest.FixtureRequest
) -> Iterator[Databases]:
    """One database for all tests of a module, where making one for each would take most of their time."""
    name = f"test_{worker_number}_{request.module.__name__.rpartition('.')[2]}"
    servers.create_database(name, TEMPLATE)
    databases = databases_of(servers, name)
    yield databases
    databases.close()
    drop_database(servers, name)


@pytest.fixture
def own_fund(module_databases: Databases, clock: FixedClock, request: pytest.FixtureRequest) -> Books:
    """A fund of the test's own in the module's database."""
    return open_books(module_databases, clock, code=request.node.name)
