"""What opening balances are tried on: EjoHeza with a partner, members and a sponsor, and files made for them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pytest
from openpyxl import Workbook
from sqlalchemy import text

from api import opening
from ledger.clock import FixedClock
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.opening import load
from products.opening.load import Load
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.world import Person, World

HEADER = (
    "account",
    "partner",
    "member",
    "amount",
    "contributed_on",
    "contributed",
    "remittance_id",
    "sponsor",
    "fund",
)
EVE = date(2026, 2, 28)

Cell = str | int | float | date | None


@dataclass(slots=True)
class Opening:
    """A world whose books are to be opened."""

    world: World
    partner: Partner

    def member(self) -> Person:
        """A member of income category 1."""
        return self.world.member(self.partner)

    def stage(self, content: bytes, *, name: str = "balances.xlsx", on: date = EVE) -> tuple[Load, bool]:
        """Load a file."""
        return self.world.databases.worker.run(
            lambda tx: opening.stage(
                tx, self.world.books, content, programme="ejoheza", name=name, effective_on=on, by="anna"
            )
        )

    def commit(self, one: Load) -> Load:
        """Post a load to its end."""
        self.begin_commit(one)
        return opening.work_on(self.world.databases.worker, self.world.books, one.id)

    def begin_commit(self, one: Load) -> Load:
        """Let a load be posted."""
        return self.world.databases.worker.run(
            lambda tx: load.begin_commit(tx, one.id, by="berta", clock=self.world.clock)
        )

    def take_back(self, one: Load) -> Load:
        """Take a load back to its end."""
        self.begin_take_back(one)
        return opening.work_on(self.world.databases.worker, self.world.books, one.id)

    def begin_take_back(self, one: Load) -> Load:
        """Let a load be taken back."""
        clock = self.world.clock
        return self.world.databases.worker.run(
            lambda tx: load.begin_take_back(tx, one.id, by="berta", because="wrong file", clock=clock)
        )

    def finalise(self, one: Load) -> Load:
        """Make a load final."""
        return self.world.databases.worker.run(
            lambda tx: load.finalise(tx, one.id, by="berta", clock=self.world.clock)
        )

    def transactions(self) -> int:
        """How many transactions are in the books."""
        with self.world.databases.owner.begin() as tx:
            return int(tx.execute(text("SELECT count(*) FROM ledger.transaction")).scalar_one())

    def balances(self) -> dict[str, int]:
        """What is not at zero, by account code; credit positive."""
        with self.world.databases.owner.begin() as tx:
            rows = tx.execute(
                text(
                    "SELECT a.code, sum(b.credits - b.debits)::bigint FROM ledger.account a"
                    " JOIN ledger.account_balance b ON b.account_id = a.id WHERE b.credits <> b.debits GROUP BY 1"
                )
            )
            return dict(tuple(row) for row in rows)

    def loads(self) -> list[Load]:
        """Every load that was kept."""
        with self.world.databases.worker.begin() as tx:
            return load.loads(tx)

    def require_verified(self) -> None:
        """The books verify, with everything that stands on them."""
        with self.world.databases.auditor.read() as tx:
            report = verify(tx, extra_checks=tuple(one.run for one in PRODUCT_CHECKS))
        assert report.ok, [one for one in report.checks if one.violations]


def xlsx(*sheets: Sequence[Sequence[Cell]], names: Sequence[str] = ("balances", "members", "more")) -> bytes:
    """A spreadsheet; each sheet is its rows, the header first."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for name, rows in zip(names, sheets, strict=False):
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    made = io.BytesIO()
    book.save(made)
    return made.getvalue()


@pytest.fixture
def books_to_open(databases: Databases, clock: FixedClock) -> Opening:
    """EjoHeza with the partner acme; nothing is in the books."""
    world = World(databases, clock)
    return Opening(world, world.partner())
