"""What banks leave behind: an account, and a statement with lines of one whose account is known."""

from datetime import date

from ledger.reconciliation import counterparties
from tests.integration.reconciliation.bank import Bank, entry
from tests.world import World

ON = date(2026, 3, 2)


def leave_statements(world: World) -> Bank:
    """Leave a row in every table of bank statements, in the savers' fund."""
    bank = Bank(world.databases, world.books.keyring, world.clock)
    account = bank.account()
    bank.sends(bank.says([entry(1, 20_000, ON, says="REF-1", account="RW2"), entry(2, -5, ON)]))
    with world.databases.worker.begin() as tx:
        counterparties.add(tx, world.books.keyring, world.clock, account.id, "RW2", "one", by="test")
    return bank
