"""Members of Nepal's Social Security Fund, whose contributions are passed on; the books are verified after each test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pytest
from sqlalchemy import text

from ledger.clock import FixedClock
from products.facts import Fact
from products.members import documents, registry
from products.members.documents import NewDocument
from products.remittals import agencies, answers, making, paying, queries
from products.remittals.answers import Taken
from products.remittals.layouts import Answered, Totals
from products.remittals.making import Made
from products.remittals.queries import Remittal
from products.remittances.partners import Partner, Terms
from tests.conftest import Databases
from tests.tying import expect_all_ties
from tests.world import Person, World

SSF = "ssf-nepal"


@dataclass(slots=True)
class Agencies:
    """A partner that collects for the fund, and what remittals are done with."""

    world: World
    partner: Partner

    @property
    def today(self) -> date:
        return self.world.clock.now().date()

    def person(
        self, number: str | None = None, *, pay: int = 1_000_000, partner: Partner | None = None
    ) -> Person:
        """A member with a basic pay (paisa a month) and perhaps a number at the fund."""
        world = self.world
        known = Fact("basic_pay", pay, date(2020, 1, 1), world.clock.now(), "document")
        person = world.member(
            partner or self.partner, programme=SSF, products=["social-security"], facts=[known]
        )
        if number is not None:
            with world.databases.worker.begin() as tx:
                member = registry.find(tx, world.books.keyring, person.link_id)
                cipher = registry.cipher_of(tx, world.books.keyring, member)
                document = NewDocument("ssf_nepal_number", "NP", number)
                documents.add(tx, world.books.keyring, cipher, member, document, world.clock.now())
        return person

    def pay(
        self,
        person: Person,
        amount: int = 213_300,
        *,
        at: datetime | None = None,
        name: str | None = None,
        partner: Partner | None = None,
    ) -> None:
        """A remittance of which so much was collected for the fund."""
        event = self.world.completed(
            person, received=10_000_000, collected=amount, currency="NPR", at=at, remittance_id=name
        )
        [verdict] = self.world.send(partner or self.partner, event)
        assert verdict.state == "posted", verdict

    def settle(self, amount: int) -> None:
        self.world.settle(self.partner, amount, currency="NPR")

    def make(self, **more: object) -> Made:
        return self.world.databases.worker.run(
            lambda tx: making.make(
                tx,
                self.world.books,
                **{"programme": SSF, "agency": SSF, "through": self.today, **more},  # type: ignore[arg-type]
            )
        )

    def send(self, remittal: Remittal, reference: str = "PAY-1") -> Remittal:
        return self.world.databases.worker.run(
            lambda tx: paying.send(tx, self.world.books, remittal.id, reference=reference, on=self.today)
        )

    def clear(self, remittal: Remittal) -> Remittal:
        return self.world.databases.worker.run(
            lambda tx: paying.clear(tx, self.world.books, remittal.id, on=self.today)
        )

    def sent(self, **more: object) -> Remittal:
        """Make, send and clear."""
        remittal = self.make(**more).remittal
        self.send(remittal)
        return self.clear(remittal)

    def answer(self, remittal: Remittal, *rows: Answered, totals: Totals | None = None) -> Taken:
        return self.world.databases.worker.run(
            lambda tx: answers.take(tx, self.world.books, remittal.id, rows, totals or Totals())
        )

    def schedule(self, remittal: Remittal) -> bytes:
        with self.world.databases.worker.begin() as tx:
            known = queries.remittal_of(tx, remittal.id)
            return queries.schedule_of(tx, self.world.books.keyring, known)

    def set_up(self, **more: object) -> None:
        def work(tx: object) -> None:
            agencies.set_up(tx, agencies.agency_of(tx, SSF, SSF), at=self.world.clock.now(), **more)  # type: ignore[arg-type]

        self.world.databases.worker.run(work)

    def unapplied(self, person: Person) -> int:
        return self.world.balance("member_unapplied", person.member_id, programme=SSF)

    def holds(self, code: str) -> int:
        owner = {"agency_contributions_collected": SSF, "partner_receivable": self.partner.slug}
        return self.world.balance(code, owner.get(code, ""), programme=SSF)

    def states(self, remittal: Remittal) -> Sequence[tuple[str, int | None, int, str | None]]:
        with self.world.databases.worker.begin() as tx:
            return [
                (one.state, one.accepted, one.claimed, one.reason)
                for one in queries.lines_of(tx, remittal.id)
            ]

    def one(self, query: str, **values: object) -> object:
        with self.world.databases.owner.begin() as tx:
            return tx.execute(text(query), values).scalar_one()


@pytest.fixture
def terms() -> Terms:
    return "net"


@pytest.fixture
def ssf(databases: Databases, clock: FixedClock, terms: Terms) -> Iterator[Agencies]:
    world = World(databases, clock)
    yield Agencies(world, world.partner(programme=SSF, terms=terms))
    expect_all_ties(databases)
