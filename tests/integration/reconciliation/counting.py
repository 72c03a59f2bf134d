"""A programme with its bank: partners that pay in, payouts by bank file, and statements that are reconciled."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from integrations.rails.directory import validated
from ledger.clock import FixedClock
from ledger.reconciliation import counterparties
from ledger.reconciliation.bank_accounts import BankAccount
from ledger.reconciliation.rules import of_account
from ledger.reconciliation.statements import Line
from products.members import payees, registry
from products.members.payees import NewPayee
from products.payouts import registry as rails
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee
from products.reconciliation import effects, run
from products.reconciliation.run import RunReport
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.integration.payouts.paying import LIMITS, Paying
from tests.integration.rails.test_bank_file import OPTIONS
from tests.integration.reconciliation.bank import Bank, entry
from tests.settled import all_settled
from tests.world import Person, World

ACME_ACCOUNT = "RW00ACME0001"


@dataclass
class Counting:
    """One database, its programme, its savers' bank account, and what the bank has sent so far."""

    databases: Databases
    clock: FixedClock
    paying: Paying = field(init=False)
    bank: Bank = field(init=False)
    savers: BankAccount = field(init=False)
    closing: int = 0
    statements: int = 0

    def __post_init__(self) -> None:
        self.paying = Paying.on(self.databases, self.clock)
        self.bank = Bank(self.databases, self.world.books.keyring, self.clock, rules_of=of_account)
        self.savers = self.bank.account(since=date(2026, 2, 1))

    @property
    def world(self) -> World:
        """The programme's world."""
        return self.paying.world

    @property
    def today(self) -> date:
        """The clock's day."""
        return self.clock.now().date()

    def net_partner(self, slug: str = "acme-net", *, account: str = ACME_ACCOUNT) -> Partner:
        """A partner that pays in what it collects from an account that the bank account knows."""
        partner = self.world.partner(slug)
        with self.databases.worker.begin() as tx:
            counterparties.add(
                tx, self.world.books.keyring, self.clock, self.savers.id, account, slug, by="test"
            )
        return partner

    def bank_rail(self, slug: str = "kigali-bank", **options: object) -> None:
        """A rail of bank files, whose payments the statement alone proves."""
        kept, _ = validated("bank_file", OPTIONS | {"paid_by": "statement"} | options, {})
        new = NewRail(
            slug=slug,
            kind="bank_file",
            payee_kinds=("bank",),
            checks_payees=True,
            funded="bank",
            fee=Fee(0, 0, "fund"),
            arrival=Arrival("business_days", 1, 2, ("RW",)),
            limits=LIMITS,
            options=kept,
        )
        with self.databases.worker.begin() as tx:
            rails.create(tx, self.world.programmes["ejoheza"], new, clock=self.clock)

    def sent(self, person: Person, *amounts: int, rail: str = "kigali-bank") -> list[UUID]:
        """Payouts that went out in one file."""
        keyring = self.world.books.keyring
        with self.databases.worker.begin() as tx:
            payee = payees.propose(
                tx,
                keyring,
                registry.find(tx, keyring, person.link_id),
                NewPayee(
                    "Aline Uwase", "bank", {"account": "4001-9", "bank_code": "BKIGRWRW", "country": "RW"}
                ),
                released=True,
                public_url="https://mizan.example",
                at=self.clock.now(),
            ).id
        self.clock.advance(timedelta(hours=72))
        made = [self.paying.ask(person, payee, amount, rail=rail) for amount in amounts]
        self.paying.work.submit()
        for one in made:
            self.paying.approve(person, one)
        self.paying.work.submit()
        return made

    def statement(self, *lines: Line) -> list[UUID]:
        """The bank's next statement; the ids of its lines."""
        self.statements += 1
        opening, self.closing = self.closing, self.closing + sum(one.amount for one in lines)
        self.bank.sends(
            self.bank.says(
                lines, opening=opening, number=str(self.statements), account=self.savers.identification
            )
        )
        rows = self.paying.rows(
            "SELECT l.id FROM ledger.statement_line l JOIN ledger.bank_statement s ON s.id = l.statement_id"
            " WHERE s.number = %s ORDER BY l.entry, l.detail",
            str(self.statements),
        )
        return [row["id"] for row in rows]

    def line(self, amount: int, number: int = 1, **more: Any) -> Line:
        """One entry of today."""
        return entry(number, amount, more.pop("on", self.today), **more)

    def reconcile(self) -> RunReport:
        """One run over everything that has happened."""
        all_settled(self.databases.worker)
        return run.reconcile(self.databases.worker, self.world.books)

    def undo(self, pairing: UUID, remark: str = "a mistake") -> None:
        """Take a pairing back."""
        self.databases.worker.run(
            lambda tx: effects.undo(tx, self.world.books, pairing, remark=remark, actor="opr_test")
        )

    def pairing(self, line: UUID) -> UUID:
        """The pairing that a line stands in."""
        (row,) = self.paying.rows("SELECT pairing_id FROM ledger.paired_line WHERE line_id = %s", line)
        found: UUID = row["pairing_id"]
        return found

    def is_paired(self, line: UUID) -> bool:
        """Whether a line stands in a pairing."""
        return bool(self.paying.rows("SELECT 1 FROM ledger.paired_line WHERE line_id = %s", line))

    def expected(self) -> list[tuple[str, int]]:
        """What is expected at the bank: kind and amount, the oldest day first."""
        rows = self.paying.rows(
            "SELECT source, amount FROM ledger.item WHERE source <> 'booked' AND closed_at IS NULL ORDER BY source, day, id"
        )
        return [(row["source"], row["amount"]) for row in rows]

    def open_booked(self) -> Sequence[int]:
        """Amounts of the bank's postings that stand in no pairing."""
        rows = self.paying.rows(
            "SELECT amount FROM ledger.item i WHERE source = 'booked'"
            " AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id) ORDER BY amount"
        )
        return [row["amount"] for row in rows]

    def balance(self, code: str, owner: str | None = None) -> int:
        """What accounts of this code hold together."""
        return self.paying.balance(code, owner)
