"""What banks leave behind: an account with rules, lines of one whose account is known, and what pairing them did."""

from datetime import date
from typing import Final

from ledger.reconciliation import counterparties, rules
from ledger.reconciliation.pairings import open_lines
from products.reconciliation import by_hand
from products.reconciliation.run import reconcile
from tests.integration.reconciliation.bank import Bank, entry
from tests.world import World

ON: Final = date(2026, 3, 2)
REMARK: Final = "the bank's letter"


def leave_statements(world: World) -> Bank:
    """Leave a row in every table of bank statements, items, pairings and what they did, in the savers' fund."""
    bank = Bank(world.databases, world.books.keyring, world.clock)
    account = bank.account()
    bank.sends(
        bank.says([entry(1, 20_000, ON, says="REF-1", account="RW2"), entry(2, -5, ON), entry(3, 11, ON)])
    )
    with world.databases.worker.begin() as tx:
        counterparties.add(tx, world.books.keyring, world.clock, account.id, "RW2", "one", by="test")
        rules.apply(tx, account.id, rules.default().content, applied_by="test", clock=world.clock)
    reconcile(world.databases.worker, world.books)
    with world.databases.worker.begin() as tx:
        known = {one.amount: one.id for one in open_lines(tx, account.id)}
        by_hand.charge(tx, world.books, known[-5], remark=REMARK, actor="test")
        by_hand.receive(tx, world.books, known[11], remark=REMARK, actor="test")
    return bank
