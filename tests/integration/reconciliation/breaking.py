"""Breaks, planted: what a bank shows that the books don't know, and the other way round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from ledger.accounts import open_accounts
from ledger.clock import FixedClock
from ledger.ids import new_id
from ledger.posting import Posting, Transaction, post
from ledger.reconciliation import bank_accounts, pairings
from ledger.reconciliation.bank_accounts import BankAccount, NewBankAccount
from products import chart
from products.reconciliation.booked import collect_now
from products.reconciliation.breaks import resolve
from products.reconciliation.breaks.choices import Choice
from products.reconciliation.breaks.refresh import refresh
from products.reconciliation.breaks.resolve import Resolution
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.integration.reconciliation.bank import Bank
from tests.world import World

TODAY = date(2026, 3, 2)
OPERATOR = "opr_anna"


@dataclass
class Breaking:
    """A programme with two bank accounts: the savers' and the administrator's."""

    databases: Databases
    clock: FixedClock
    world: World = field(init=False)
    partner: Partner = field(init=False)
    bank: Bank = field(init=False)
    savers: BankAccount = field(init=False)
    office: BankAccount = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.databases, self.clock)
        self.partner = self.world.partner("umoja")
        self.bank = Bank(self.databases, self.world.books.keyring, self.clock)
        self.savers = self.bank.account(since=date(2026, 1, 1))
        with self.databases.worker.begin() as tx:
            chart.open_administrator_fund(tx, "ejoheza", "EjoHeza", "Africa/Kigali", "RWF")
        self.office = self.bank.account(
            "kigali-office", fund="ejoheza/administrator", number="RW38 0002", since=date(2026, 1, 1)
        )

    def in_dollars(self) -> BankAccount:
        """The savers' account in another currency."""
        with self.databases.worker.begin() as tx:
            [dollars] = open_accounts(tx, [chart.spec(chart.BANK, self.savers.fund_id, "", "USD")])
            new = NewBankAccount(
                "kigali-dollars", "In dollars", dollars, "RW38 0003", self.savers.statements_since
            )
            return bank_accounts.add(tx, self.clock, new)

    def row(self, query: str, *values: object) -> Any:  # a row
        """One row, as the worker sees it."""
        with self.databases.worker.begin() as tx:
            return tx.exec_driver_sql(query, values).one()

    def rows(self, query: str, *values: object) -> list[Any]:
        """Rows, as the worker sees them."""
        with self.databases.worker.begin() as tx:
            return list(tx.exec_driver_sql(query, values).all())

    def statement(self, account: BankAccount, through: date, *, since: date | None = None) -> UUID:
        """A statement without lines: the bank has told of these days."""
        statement, file = new_id(), new_id()
        with self.databases.worker.begin() as tx:
            tx.exec_driver_sql(
                "INSERT INTO ledger.statement_file (id, digest, name, format, bytes, received_at, received_by, wrapped_key,"
                " statements) VALUES (%s, %s, 'x', 'test', 1, now(), 'test', 'x', 1)",
                (file, sha256(file.bytes).digest()),
            )
            tx.exec_driver_sql(
                "INSERT INTO ledger.bank_statement (id, file_id, position, bank_account_id, from_on, to_on, opening, closing,"
                " lines, imported_at) VALUES (%s, %s, 1, %s, %s, %s, 0, 0, 0, now())",
                (statement, file, account.id, since or through, through),
            )
        return statement

    def line(
        self, amount: int, *, account: BankAccount | None = None, on: date = TODAY, **columns: object
    ) -> UUID:
        """A line that the bank shows."""
        at = account or self.savers
        found = self.rows(
            "SELECT id FROM ledger.bank_statement WHERE bank_account_id = %s ORDER BY id LIMIT 1", at.id
        )
        statement = found[0].id if found else self.statement(at, TODAY)
        line = new_id()
        row = {
            "id": line,
            "statement_id": statement,
            "bank_account_id": at.id,
            "entry": line.int % 2**31 or 1,
            "detail": 0,
            "booked_on": on,
            "value_on": on,
            "amount": amount,
            "currency": at.currency,
            "kind": "PMNT/RCDT/ESCT",
            "reversal": False,
            "fingerprint": sha256(line.bytes).digest(),
            **columns,
        }
        self._insert("ledger.statement_line", row)
        return line

    def expected(
        self, amount: int, *, account: BankAccount | None = None, on: date = TODAY, **columns: object
    ) -> UUID:
        """Something expected at the bank that is not booked."""
        at, item = account or self.savers, new_id()
        row = {
            "id": item,
            "source": "settlement",
            "bank_account_id": at.id,
            "amount": amount,
            "currency": at.currency,
            "on_date": on,
            "kind": "settlement",
            **columns,
        }
        self._insert("ledger.item", row)
        return item

    def booked(
        self,
        amount: int,
        *,
        account: BankAccount | None = None,
        on: date = TODAY,
        kind: str = "test",
        against: str = "return_for_allocation",
        posted_as: str | None = None,
        **columns: object,
    ) -> UUID:
        """A posting on the bank account, against another of its fund; its item."""
        at = account or self.savers
        with self.databases.worker.begin() as tx:
            other = resolve_account(tx, at.fund_id, against, at.currency)
            ends = (at.account_id, other) if amount > 0 else (other, at.account_id)
            reference = posted_as or f"test:{new_id()}"
            transaction = Transaction(
                reference,
                kind,
                on,
                (Posting(*ends, abs(amount), at.currency),),
                sha256(reference.encode()).digest(),
                id=new_id(),
            )
            [outcome] = post(tx, [transaction], clock=self.clock)
            assert outcome.transaction_id is not None, outcome
            collect_now(tx, [outcome.transaction_id])
        item: UUID = self.row(
            "SELECT id FROM ledger.item WHERE transaction_id = %s", outcome.transaction_id
        ).id
        if columns:
            names = ", ".join(f"{name} = %s" for name in columns)
            with self.databases.worker.begin() as tx:
                tx.exec_driver_sql(f"UPDATE ledger.item SET {names} WHERE id = %s", (*columns.values(), item))
        return item

    def paired(self, amount: int, **columns: object) -> UUID:
        """A line that is paired with a posting of its amount; the line."""
        line, item = self.line(amount, **columns), self.booked(amount, **columns)
        self.pair(line, item)
        return line

    def pair(self, line: UUID, item: UUID, *, account: BankAccount | None = None) -> UUID:
        """Pair a line with an item."""
        with self.databases.worker.begin() as tx:
            return pairings.make(
                tx,
                (account or self.savers).id,
                [line],
                [item],
                rule="test",
                evidence={},
                made_by="test",
                clock=self.clock,
            )

    def _insert(self, table: str, row: Mapping[str, object]) -> None:
        with self.databases.worker.begin() as tx:
            tx.exec_driver_sql(
                f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})",
                tuple(row.values()),
            )

    # -- breaks --------------------------------------------------------------------------------------------------

    def refresh(self) -> int:
        """Bring breaks up to date; how many changed."""
        return self.databases.worker.run(lambda tx: refresh(tx, self.clock))

    def open(self) -> dict[str, tuple[str, int]]:
        """Breaks that are not over: subject → type, amount."""
        return {
            row.subject: (row.type, row.amount)
            for row in self.rows("SELECT subject, type, amount FROM products.break WHERE ended_at IS NULL")
        }

    def of(self, subject: UUID | str) -> UUID:
        """The newest break of a subject."""
        found: UUID = self.row(
            "SELECT id FROM products.break WHERE subject = %s ORDER BY id DESC LIMIT 1", str(subject)
        ).id
        return found

    def history(self, break_id: UUID) -> list[str]:
        """What happened to a break."""
        return [
            row.what
            for row in self.rows(
                "SELECT what FROM products.break_event WHERE break_id = %s ORDER BY id", break_id
            )
        ]

    def preview(self, subject: UUID | str, choice: Choice, *, actor: str = OPERATOR) -> Resolution:
        """Choose and look."""
        break_id = self.of(subject)
        return self.databases.worker.run(
            lambda tx: resolve.preview(tx, self.world.books, break_id, choice, actor=actor)
        )

    def confirm(self, seen: Resolution, *, remark: str = "as agreed", actor: str = OPERATOR) -> Resolution:
        """Do what was seen."""
        return self.databases.worker.run(
            lambda tx: resolve.confirm(
                tx, self.world.books, seen.id, digest=seen.digest, remark=remark, actor=actor
            )
        )

    def resolve(self, subject: UUID | str, choice: Choice) -> Resolution:
        """Choose, look and do."""
        return self.confirm(self.preview(subject, choice))

    def undo(self, subject: UUID | str, remark: str = "a mistake") -> None:
        """Take it back."""
        break_id = self.of(subject)
        self.databases.worker.run(
            lambda tx: resolve.undo(tx, self.world.books, break_id, remark=remark, actor=OPERATOR)
        )

    def balance(self, fund: str, code: str, owner: str = "") -> int:
        """Debits less credits of an account, 0 where it is not there."""
        rows = self.rows(
            "SELECT b.debits - b.credits AS amount FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id"
            " JOIN ledger.fund f ON f.id = a.fund_id WHERE f.code = %s AND a.code = %s AND a.owner = %s",
            fund,
            code,
            owner,
        )
        return sum(row.amount for row in rows)


def days(number: int) -> date:
    """So many days before today."""
    return TODAY - timedelta(days=number)


def resolve_account(tx: Any, fund: UUID, code: str, currency: str) -> UUID:  # tx: a Tx
    """The fund's own account of a code, opened if need be."""
    codes = {one.name: one for one in vars(chart).values() if isinstance(one, chart.Code)}
    [found] = open_accounts(tx, [chart.spec(codes[code], fund, "", currency)])
    return found
