"""Builders of a small world of books for tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from uuid import UUID

from ledger.accounts import AccountKind, AccountSpec, open_accounts, open_fund
from ledger.clock import Clock, FixedClock
from ledger.database import Database, Tx, cursor
from ledger.posting import Outcome, Posting, Transaction, post

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@dataclass
class Books:
    """A fund in pesos, with accounts opened as they are named."""

    database: Database
    fund_id: UUID
    clock: Clock = field(default_factory=lambda: FixedClock(NOON))

    @classmethod
    def open(cls, database: Database, code: str = "savers") -> "Books":
        with database.begin() as tx:
            return cls(database, open_fund(tx, code, code.title(), "Asia/Manila"))

    def account(
        self,
        code: str,
        kind: AccountKind = "liability",
        *,
        owner: str = "",
        currency: str = "PHP",
        hot: bool = False,
        floor: int | None = None,
        ceiling: int | None = None,
        partner_id: UUID | None = None,
    ) -> UUID:
        spec = AccountSpec(self.fund_id, code, owner, kind, currency, hot, floor, ceiling, partner_id)
        with self.database.begin() as tx:
            return open_accounts(tx, [spec])[0]

    def post(self, *transactions: Transaction, all_or_nothing: bool = False) -> list[Outcome]:
        with self.database.begin() as tx:
            return post(tx, transactions, clock=self.clock, all_or_nothing=all_or_nothing)

    def fund_account(self, account: UUID, amount: int, reference: str = "") -> None:
        """Give a liability account money from the bank."""
        bank = self.account("bank", "asset")
        (outcome,) = self.post(transfer(reference or f"funding:{account}:{amount}", bank, account, amount))
        assert outcome.status == "posted", outcome

    def balance(self, account: UUID) -> int:
        """Credits less debits."""
        return self.row(account)[1] - self.row(account)[0]

    def row(self, account: UUID) -> tuple[int, int, int]:
        """Debits, credits, held."""
        with self.database.begin() as tx:
            found = (
                cursor(tx)
                .execute(
                    "select debits, credits, held from ledger.account_balance where account_id = %s",
                    [account],
                )
                .fetchone()
            )
        assert found is not None
        return found[0], found[1], found[2]

    def count(self, table: str, where: str = "true", parameters: Sequence[object] = ()) -> int:
        with self.database.begin() as tx:
            return count(tx, table, where, parameters)


def count(tx: Tx, table: str, where: str = "true", parameters: Sequence[object] = ()) -> int:
    found = cursor(tx).execute(f"select count(*) from ledger.{table} where {where}", parameters).fetchone()
    assert found is not None
    return int(found[0])


def transfer(
    reference: str, debit: UUID, credit: UUID, amount: int, *, on: date = DAY, currency: str = "PHP"
) -> Transaction:
    """A transaction of one posting; its digest covers all of it."""
    return transaction(reference, Posting(debit, credit, amount, currency), on=on)


def transaction(
    reference: str, *postings: Posting, on: date = DAY, reverses: UUID | None = None
) -> Transaction:
    """A transaction of these postings; its digest covers all of it."""
    digest = sha256(repr((reference, on, postings, reverses)).encode()).digest()
    return Transaction(reference, "test", on, postings, digest, reverses=reverses)
