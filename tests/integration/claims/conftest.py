"""A sponsor in arrears, and members whose match awaits it; the books are verified when a test is done with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from uuid import UUID

import pytest
from sqlalchemy import text

from ledger.clock import FixedClock
from ledger.seals import SealingKey
from products.claims import booking, packs
from products.claims.packs import Pack
from products.programmes.loader import catalogue
from products.remittances.partners import Partner
from products.savings import adjustments
from tests.conftest import Databases
from tests.tying import expect_all_ties
from tests.world import World

ARREARS = catalogue()["ejoheza"].replace("funding: prefunded", "funding: arrears")


@dataclass(slots=True)
class Claims:
    """EjoHeza, whose government pays on certified claims, and what its claims are done with."""

    world: World
    partner: Partner
    key: SealingKey

    @property
    def today(self) -> date:
        return self.world.clock.now().date()

    def make(self, through: date | None = None) -> Pack:
        return self.world.databases.worker.run(
            lambda tx: packs.make(
                tx,
                self.world.books,
                self.key,
                programme="ejoheza",
                sponsor="gov-rw",
                through=through or self.today,
            )
        )

    def certify(self, pack: Pack, reference: str = "MIN-1", digest: bytes | None = None) -> Pack:
        return self.world.databases.worker.run(
            lambda tx: packs.certify(
                tx,
                self.world.books,
                pack.id,
                digest=digest or pack.digest,
                reference=reference,
                certified_on=self.today,
            )
        )

    def book(self, pack: Pack, limit: int = booking.BOOKED_MAX) -> int:
        booked = 0
        for _ in range(1_000):
            done = self.world.databases.worker.run(
                lambda tx: booking.book(tx, self.world.books, pack.id, limit=limit)
            )
            if not done:
                return booked
            booked += done
        raise AssertionError("the pack is never booked")

    def claim(self) -> Pack:
        """Make, certify and book."""
        pack = self.make()
        self.certify(pack, f"MIN-{pack.number}")
        self.book(pack)
        return pack

    def file(self, pack: Pack) -> bytes:
        return self.world.databases.worker.run(lambda tx: packs.file_of(tx, packs.pack_of(tx, pack.id)))

    def proposed(self) -> list[tuple[UUID, int]]:
        with self.world.databases.worker.begin() as tx:
            return [(one.id, one.amount) for one in adjustments.proposed(tx, limit=100)]

    def adjust(self) -> int:
        """Approve every adjustment that is proposed; what they come to."""
        total = 0
        for adjustment, amount in self.proposed():
            self.world.databases.worker.run(
                lambda tx, a=adjustment, n=amount: adjustments.approve(tx, self.world.books, a, n)  # type: ignore[misc]
            )
            total += amount
        return total

    def shares(self) -> tuple[int, int, int, int, int]:
        """committed, unvested, vested, awaiting, certified: of all members together."""
        with self.world.databases.owner.begin() as tx:
            row = tx.execute(
                text(
                    "SELECT coalesce(sum(committed), 0)::bigint, coalesce(sum(unvested), 0)::bigint,"
                    " coalesce(sum(vested), 0)::bigint, coalesce(sum(awaiting), 0)::bigint,"
                    " coalesce(sum(certified), 0)::bigint FROM products.match_share"
                )
            ).one()
        return (row[0], row[1], row[2], row[3], row[4])

    def owes(self) -> int:
        return self.world.balance("sponsor_receivable", "gov-rw")

    def queue(self) -> int:
        with self.world.databases.owner.begin() as tx:
            return int(
                tx.execute(text("SELECT coalesce(sum(amount), 0) FROM products.match_queue")).scalar_one()
            )


@pytest.fixture
def claims(databases: Databases, clock: FixedClock) -> Iterator[Claims]:
    world = World(databases, clock)
    world.programme("ejoheza", ARREARS)
    yield Claims(world, world.partner(), SealingKey.generate())
    expect_all_ties(databases)


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> World:
    return World(databases, clock)
