"""What tests see in the database behind the services: contributions on record, and postings in the journal."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import text

from ledger.periods import close_period
from products.chart import SAVERS, programme_funds
from tests.world import World


@dataclass(frozen=True, slots=True)
class Contribution:
    """A part of a remittance as it stands on record."""

    destination: str
    product: str | None
    amount: int
    state: str
    owed: bool
    entitled: int
    tier: int | None


@dataclass(frozen=True, slots=True)
class Posted:
    """One posting: the kind of its transaction, debited and credited account codes, role of the fund, amount."""

    kind: str
    debit: str
    credit: str
    fund: str
    amount: int


def contributions(world: World, remittance_id: str) -> list[Contribution]:
    """The parts of a partner's remittance, in order."""
    with world.databases.owner.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT destination, product, amount, state, owed, entitled, tier FROM products.contribution"
                " WHERE remittance IN (SELECT id FROM products.remittance_claim WHERE remittance_id = :id)"
                " ORDER BY remittance, position"
            ),
            {"id": remittance_id},
        )
        return [Contribution(*row) for row in rows]


def journal(world: World) -> list[Posted]:
    """Every posting, in the order in which the books took them."""
    with world.databases.owner.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT t.kind, d.code, c.code, coalesce(f.role, 'elsewhere'), p.amount FROM ledger.posting p"
                " JOIN ledger.transaction t ON t.id = p.transaction_id"
                " JOIN ledger.account d ON d.id = p.debit_account JOIN ledger.account c ON c.id = p.credit_account"
                " LEFT JOIN products.programme_fund f ON f.fund_id = d.fund_id AND f.fund_id = c.fund_id"
                " ORDER BY p.transaction_id, p.seq"
            )
        )
        return [Posted(*row) for row in rows]


def close_books(world: World, day: date, *, programme: str = "ejoheza") -> int:
    """Close the savers' fund through a day; answers how many remittances the day then holds."""
    with world.databases.worker.begin() as tx:
        fund = programme_funds(tx, world.programmes[programme])[SAVERS]
        close_period(tx, fund, day, actor="manager", clock=world.clock)
    return allocated_on(world, day)


def allocated_on(world: World, day: date) -> int:
    """How many remittances the books hold on a day."""
    with world.databases.owner.begin() as tx:
        return int(
            tx.execute(
                text(
                    "SELECT count(*) FROM ledger.transaction"
                    " WHERE effective_on = :day AND kind = 'remittance_allocated'"
                ),
                {"day": day},
            ).scalar_one()
        )
