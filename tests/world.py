"""A small world for tests and their sentences: programmes, partners, members, and remittances sent straight to `process`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from ledger.money import Money
from ledger.posting import Outcome
from products.facts import Fact
from products.keyring import Keyring
from products.members.enrolments import Joining, enrol_many
from products.members.models import NewMandate, Registration
from products.members.registry import register
from products.programmes.loader import catalogue
from products.programmes.registry import Programmes, apply
from products.remittances.context import Books
from products.remittances.events import MemberKey, RemittanceCompleted, RemittanceReversed
from products.remittances.partners import Collection, Partner, Terms, create_partner, join_programme
from products.remittances.process import Delivery, Verdict, process
from products.savings import sponsors
from products.settlements.pair import Settlement, record_settlement
from tests.conftest import Databases

__all__ = ["Outcome", "Person", "World"]


@dataclass(frozen=True, slots=True)
class Person:
    """A member as one partner knows it."""

    link_id: UUID
    member_id: UUID
    enrolments: dict[str, UUID]

    @property
    def key(self) -> MemberKey:
        """How the partner names the member."""
        return MemberKey("id", public_id("mem", self.link_id))


@dataclass(slots=True)
class World:
    """One database with its clock, its keys and what was put into it."""

    databases: Databases
    clock: FixedClock
    books: Books = field(init=False)
    programmes: dict[str, UUID] = field(default_factory=dict)
    remittances: int = 0

    def __post_init__(self) -> None:
        self.books = Books(self.clock, Keyring({"test": bytes(range(32))}, "test"), Programmes())

    def programme(self, slug: str = "ejoheza", source: str | None = None) -> UUID:
        """Apply a programme of the catalogue, or of a given text."""
        with self.databases.worker.begin() as tx:
            applied = apply(tx, source or catalogue()[slug], clock=self.clock)
        self.programmes[slug] = applied.programme_id
        return applied.programme_id

    def partner(
        self,
        slug: str = "acme",
        *,
        programme: str = "ejoheza",
        terms: Terms = "net",
        collection: Collection = "as_reported",
        exposure_ceiling: int | None = None,
    ) -> Partner:
        """A partner that has joined a programme."""
        if programme not in self.programmes:
            self.programme(programme)
        with self.databases.worker.begin() as tx:
            partner = create_partner(tx, slug=slug, name=slug.title(), format_="standard", clock=self.clock)
            join_programme(
                tx,
                partner,
                self.programmes[programme],
                terms=terms,
                collection=collection,
                exposure_ceiling=exposure_ceiling,
                clock=self.clock,
            )
        return partner

    def fund(
        self, amount: int, *, programme: str = "ejoheza", sponsor: str = "gov-rw", reference: str = "first"
    ) -> None:
        """A sponsor pays in."""
        with self.databases.worker.begin() as tx:
            sponsors.fund_sponsor(
                tx, self.books, programme=programme, sponsor=sponsor, amount=amount, reference=reference
            )

    def member(
        self,
        partner: Partner,
        *,
        phone: str | None = None,
        programme: str = "ejoheza",
        products: Sequence[str] = ("savings",),
        choice: dict[str, object] | None = None,
        category: int | None = 1,
        birth_date: date = date(1990, 5, 1),
        facts: Sequence[Fact] = (),
        mandate: bool = True,
    ) -> Person:
        """A member with a mandate, enrolled in products. `category` is EjoHeza's income category."""
        at = self.clock.now()
        since = date(2020, 1, 1)
        known = [*facts]
        if category is not None and programme == "ejoheza":
            known.append(Fact("income_category", category, since, at, "institution"))
        registration = Registration(
            phone=phone,
            partner_reference=None if phone else new_id().hex,
            birth_date=birth_date,
            facts=tuple(known),
            mandate=NewMandate("2026-1", "rw", at) if mandate else None,
        )
        with self.databases.worker.begin() as tx:
            registered = register(
                tx, self.books.keyring, self.programmes[programme], partner.id, registration, at
            )
            enrolled = enrol_many(
                tx,
                self.books.programmes,
                self.programmes[programme],
                [
                    Joining(registered.member_id, partner.id, birth_date, known, one, choice)
                    for one in products
                ],
                at,
            )
        return Person(registered.link_id, registered.member_id, {one.product: one.id for one in enrolled})

    def completed(
        self,
        person: Person | MemberKey,
        *,
        received: int = 400_000,
        collected: int | None = 20_000,
        currency: str = "RWF",
        remittance_id: str | None = None,
        at: datetime | None = None,
        quote_id: UUID | None = None,
    ) -> RemittanceCompleted:
        """A completed remittance from the Emirates."""
        self.remittances += 1
        return RemittanceCompleted(
            remittance_id=remittance_id or f"R-{self.remittances:06}",
            member=person.key if isinstance(person, Person) else person,
            sent=Money(100_000, "AED"),
            received=Money(received, currency),
            fee=None,
            collected=None if collected is None else Money(collected, currency),
            origin_country="AE",
            destination_country="RW" if currency == "RWF" else currency[:2],
            completed_at=at or self.clock.now() - timedelta(seconds=20),
            quote_id=quote_id,
        )

    def reversed(self, remittance_id: str, *, at: datetime | None = None) -> RemittanceReversed:
        """A reversal of a remittance."""
        return RemittanceReversed(remittance_id, at or self.clock.now(), "sender's request")

    def send(
        self, partner: Partner, *events: RemittanceCompleted | RemittanceReversed, approved: bool = False
    ) -> list[Verdict]:
        """Process events as one batch, in a transaction of its own."""
        deliveries = [Delivery(new_id(), partner.id, event, approved) for event in events]
        return self.databases.worker.run(lambda tx: process(tx, deliveries, books=self.books))

    def settle(
        self, partner: Partner, amount: int, *, currency: str = "RWF", through: date | None = None
    ) -> Settlement:
        """A partner pays in."""
        through = through or self.clock.now().astimezone(UTC).date() + timedelta(days=1)
        return self.databases.worker.run(
            lambda tx: record_settlement(
                tx, self.books, partner, currency=currency, amount=amount, through=through
            )
        )

    def drain(self) -> int:
        """Serve the sponsors' queues until nothing moves."""
        served = 0
        for _ in range(100):
            with self.databases.worker.begin() as tx:
                moved = [sponsors.drain(tx, self.books, one) for one in sponsors.waiting(tx)]
            served += sum(moved)
            if not any(moved):
                return served
        raise AssertionError("the sponsors' queues do not come to rest")

    def balance(self, code: str, owner: str | UUID = "", *, programme: str = "ejoheza") -> int:
        """The normal-side balance of an account, over all funds of a programme."""
        named = owner.hex if isinstance(owner, UUID) else owner
        with self.databases.owner.begin() as tx:
            return tx.execute(
                text(
                    "SELECT coalesce(sum(CASE WHEN a.kind IN ('asset', 'expense') THEN b.debits - b.credits"
                    " ELSE b.credits - b.debits END), 0)::bigint FROM ledger.account a"
                    " JOIN ledger.account_balance b ON b.account_id = a.id"
                    " JOIN products.programme_fund f ON f.fund_id = a.fund_id"
                    " WHERE a.code = :code AND a.owner = :owner AND f.programme_id = :programme"
                ),
                {"code": code, "owner": named, "programme": self.programmes[programme]},
            ).scalar_one()
