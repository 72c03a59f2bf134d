"""A bank that sends statements: its accounts, added here, and files whose content stands for what a reader would read."""

import io
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from typing import BinaryIO
from uuid import UUID

import sqlalchemy

from ledger.clock import Clock
from ledger.database import Tx
from ledger.reconciliation import bank_accounts, importing
from ledger.reconciliation.bank_accounts import BankAccount, NewBankAccount
from ledger.reconciliation.files import NewFile
from ledger.reconciliation.importing import Imported, Rules, RulesOf, Wanted
from ledger.reconciliation.statements import Line, StatementEnd, StatementEvent, StatementHead
from products.keyring import Keyring
from tests.conftest import Databases


class NoRules:
    """Rules that find references like ``REF-17`` in a text, and know one payer by name."""

    def identifiers_in(self, text: str) -> tuple[str, ...]:
        """Words that begin with REF-."""
        return tuple(dict.fromkeys(word for word in text.split() if word.startswith("REF-")))

    def party_of(self, counterparty: str | None, _account: str | None, _text: str) -> str | None:
        """Acme, by its name."""
        return "acme" if counterparty == "ACME LTD" else None


def simple_rules(_tx: Tx, _bank_account_id: UUID) -> Rules:
    """The rules of every account, unless a bank's lines are read by each account's own."""
    return NoRules()


def entry(
    number: int,
    amount: int,
    on: date,
    *,
    says: str = "",
    payer: str | None = None,
    account: str | None = None,
    end_to_end: str | None = None,
    currency: str = "RWF",
) -> Line:
    """One entry of a statement."""
    return Line(
        number, 0, on, on, amount, currency, "NTRF", False, end_to_end, None, (), payer, account, says
    )


@dataclass(slots=True)
class Bank:
    """Its accounts are those of a programme's funds; what it sends is imported."""

    databases: Databases
    keyring: Keyring
    clock: Clock
    rules_of: RulesOf = simple_rules
    accounts: dict[str, BankAccount] = field(default_factory=dict)
    files: int = 0

    def account(
        self,
        slug: str = "kigali-savers",
        *,
        fund: str = "ejoheza/savers",
        number: str = "RW38 0001",
        since: date = date(2026, 3, 1),
    ) -> BankAccount:
        """Add the bank account that the fund's `bank` account mirrors."""
        with self.databases.worker.begin() as tx:
            mirrored = tx.execute(
                sqlalchemy.text(
                    "SELECT a.id FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
                    " WHERE f.code = :fund AND a.code = 'bank'"
                ),
                {"fund": fund},
            ).scalar_one()
            self.accounts[slug] = bank_accounts.add(
                tx, self.clock, NewBankAccount(slug, slug.title(), mirrored, number, since)
            )
        return self.accounts[slug]

    def says(
        self,
        lines: Sequence[Line],
        *,
        opening: int = 0,
        closing: int | None = None,
        number: str | None = None,
        days: tuple[date, date] | None = None,
        account: str = "RW380001",
        position: int = 1,
        currency: str = "RWF",
    ) -> list[StatementEvent]:
        """One statement; it adds up unless it is given another closing balance."""
        from_on, to_on = days or (min(one.booked_on for one in lines), max(one.booked_on for one in lines))
        if closing is None:
            closing = opening + sum(one.amount for one in lines)
        return [
            StatementHead(position, account, currency, f"S-{number}", number, from_on, to_on, opening, None),
            *lines,
            StatementEnd(closing, len(lines), opening),
        ]

    def sends(
        self,
        *statements: list[StatementEvent],
        wanted: Wanted = Wanted(),  # noqa: B008  frozen
        fmt: str = "test",
    ) -> Imported:
        """Import one file of these statements, in a transaction of its own. The same statements are another file each time."""
        return self.imports(self.file(*statements), wanted=wanted, fmt=fmt)

    def file(self, *statements: list[StatementEvent]) -> bytes:
        """A file's content; the same statements are another content each time."""
        self.files += 1
        return pickle.dumps((self.files, statements))

    def imports(
        self,
        content: bytes,
        *,
        wanted: Wanted = Wanted(),  # noqa: B008  frozen
        fmt: str = "test",
    ) -> Imported:
        """Import a file's content."""
        return self.databases.worker.run(lambda tx: self.import_in(tx, content, wanted, fmt))

    def import_in(
        self,
        tx: Tx,
        content: bytes,
        wanted: Wanted = Wanted(),  # noqa: B008  frozen
        fmt: str = "test",
    ) -> Imported:
        """Import a file's content in a transaction that is open."""
        new = NewFile(sha256(content).digest(), "statement.bin", fmt, len(content), "test")
        return importing.import_(
            tx,
            self.keyring,
            self.clock,
            io.BytesIO(content),
            new,
            _read,
            rules_of=self.rules_of,
            wanted=wanted,
        )


def _read(content: BinaryIO) -> Iterator[StatementEvent]:
    _, statements = pickle.load(content)  # noqa: S301  what this module wrote
    for one in statements:
        yield from one
