"""A member takes money out, step by step, as payouts do it: asked for and held, gone, back, over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from sqlalchemy import text

from ledger import holds
from ledger.database import Tx
from ledger.holds import NewHold
from ledger.ids import new_id
from ledger.posting import Posting, Transaction
from products.facts import Fact, FactScalar
from products.members.registry import add_facts, find
from products.posting import post_whole
from products.remittances.partners import Partner, Terms
from products.savings import forfeiture, grants, vesting, withdrawals
from products.savings.rules import local_date
from products.savings.withdrawals import Available, Withdrawn
from tests.world import Person, World


@dataclass(frozen=True, slots=True)
class Asked:
    """A payout that was asked for: what it takes from savings and vested match."""

    id: UUID
    savings: int
    match: int
    held: tuple[tuple[UUID, UUID, int], ...]


@dataclass(slots=True)
class Saver:
    """A member with one product, and what it withdraws."""

    world: World
    person: Person
    programme: str
    product: str
    currency: str
    payouts: list[Asked] = field(default_factory=list)

    @property
    def enrolment(self) -> UUID:
        """The enrolment in the product."""
        return self.person.enrolments[self.product]

    def balance(self, code: str) -> int:
        """What lies in one of the enrolment's accounts."""
        return self.world.balance(code, self.enrolment, programme=self.programme)

    def shares(self) -> tuple[int, int, int, int, int]:
        """The match by its stages, over all windows: committed, unvested, vested, awaiting, forfeited."""
        with self.world.databases.owner.begin() as tx:
            row = tx.execute(
                text(
                    "SELECT coalesce(sum(committed), 0)::bigint, coalesce(sum(unvested), 0)::bigint,"
                    " coalesce(sum(vested), 0)::bigint, coalesce(sum(awaiting), 0)::bigint,"
                    " coalesce(sum(forfeited), 0)::bigint FROM products.match_share WHERE enrolment_id = :id"
                ),
                {"id": self.enrolment},
            ).one()
        return (int(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4]))

    def save(
        self, partner: Partner, amount: int, *, at: datetime | None = None, name: str | None = None
    ) -> str:
        """A remittance of which so much was collected; the partner's id of it."""
        event = self.world.completed(
            self.person,
            received=100 * amount,
            collected=amount,
            currency=self.currency,
            remittance_id=name,
            at=at,
        )
        [verdict] = self.world.send(partner, event)
        assert verdict.state == "posted", verdict
        return event.remittance_id

    @property
    def today(self) -> date:
        """The programme's day."""
        with self.world.databases.worker.begin() as tx:
            versions = self.world.books.programmes.versions(tx, self.world.programmes[self.programme])
        return local_date(versions[-1].programme, self.world.clock.now())

    def available(self) -> Available:
        """What may leave today."""
        with self.world.databases.worker.begin() as tx:
            member = find(tx, self.world.books.keyring, self.person.link_id)
            return withdrawals.available(
                tx, self.world.books.programmes, member, self.enrolment, on=self.today
            )

    def know(self, name: str, value: FactScalar, since: date) -> None:
        """An institution's word of a fact."""

        def record(tx: Tx) -> None:
            member = find(tx, self.world.books.keyring, self.person.link_id)
            fact = Fact(name, value, since, self.world.clock.now(), "institution")
            add_facts(tx, self.world.books.keyring, member, [fact])

        self.world.databases.worker.run(record)

    def ask(self, amount: int, way: str | None = None) -> Asked:
        """Ask for a payout: what has vested is booked, the money is held and put on record."""
        world, id_ = self.world, new_id()
        world.databases.worker.run(lambda tx: vesting.vest(tx, world.books, [self.enrolment]))
        offer = self.available()
        found = offer.way(amount, way)
        assert found is not None, offer
        savings = min(amount, found.savings)

        def record(tx: Tx) -> tuple[tuple[UUID, UUID, int], ...]:
            accounts = tx.execute(
                text(
                    "SELECT savings_account, vested_account FROM products.enrolment WHERE id = :id FOR UPDATE"
                ),
                {"id": self.enrolment},
            ).one()
            parts = [
                (account, part)
                for account, part in zip(accounts, (savings, amount - savings), strict=True)
                if part
            ]
            placed = holds.place_many(
                tx,
                [NewHold(account, part, f"test:{id_}:{account}") for account, part in parts],
                clock=world.clock,
            )
            withdrawn = Withdrawn(
                id_,
                self.enrolment,
                found.code,
                savings,
                amount - savings,
                found.forfeits_with(savings),
                self.today,
            )
            withdrawals.record_withdrawals(tx, [withdrawn], world.clock.now())
            return tuple(
                (hold, account, part)
                for hold, (account, part) in zip(placed, parts, strict=True)
                if isinstance(hold, UUID)
            )

        asked = Asked(id_, savings, amount - savings, world.databases.worker.run(record))
        self.payouts.append(asked)
        return asked

    def go(self, *payouts: Asked) -> None:
        """The money of payouts leaves the member's accounts."""
        world = self.world

        def submit(tx: Tx) -> None:
            batch = [
                Transaction(
                    f"test:{one.id}:{number}:{new_id()}",
                    "taken_out",
                    self.today,
                    (Posting(account, self._bank(tx), part, self.currency),),
                    sha256(one.id.bytes).digest(),
                    captures=hold,
                )
                for one in payouts
                for number, (hold, account, part) in enumerate(one.held)
            ]
            batch += forfeiture.leave(tx, world.books, [one.id for one in payouts])
            post_whole(tx, batch, clock=world.clock)

        world.databases.worker.run(submit)

    def back(self, *payouts: Asked) -> None:
        """The money of payouts comes back, and they are over."""
        world = self.world

        def fail(tx: Tx) -> None:
            batch = [
                Transaction(
                    f"test:{one.id}:back:{number}:{new_id()}",
                    "given_back",
                    self.today,
                    (Posting(self._bank(tx), account, part, self.currency),),
                    sha256(one.id.bytes).digest(),
                )
                for one in payouts
                for number, (_, account, part) in enumerate(one.held)
            ]
            batch += forfeiture.come_back(tx, world.books, [one.id for one in payouts])
            post_whole(tx, batch, clock=world.clock)
            withdrawals.undo_withdrawals(tx, [one.id for one in payouts], world.clock.now())

        world.databases.worker.run(fail)

    def cancel(self, one: Asked) -> None:
        """The payout is over before its money left."""

        def release(tx: Tx) -> None:
            holds.release_many(tx, [hold for hold, _, _ in one.held], clock=self.world.clock)
            withdrawals.undo_withdrawals(tx, [one.id], self.world.clock.now())

        self.world.databases.worker.run(release)

    def _bank(self, tx: Tx) -> UUID:
        found: UUID = tx.execute(
            text(
                "SELECT a.id FROM ledger.account a JOIN products.programme_fund f ON f.fund_id = a.fund_id"
                " WHERE a.code = 'bank' AND f.role = 'savers' AND f.programme_id = :programme"
            ),
            {"programme": self.world.programmes[self.programme]},
        ).scalar_one()
        return found


def saver(
    world: World,
    programme: str = "ejoheza",
    *,
    terms: Terms = "guaranteed",
    source: str | None = None,
    born: date = date(1990, 5, 1),
    funds: int = 10_000_000,
) -> tuple[Saver, Partner]:
    """A member of a scheme of the catalogue, or of a text in its place, whose sponsor has paid in."""
    world.programme(programme, source)
    partner = world.partner(programme=programme, terms=terms)
    sponsor = SCHEMES[programme][2]
    if sponsor is not None and funds:
        world.fund(funds, programme=programme, sponsor=sponsor)
    return another(world, partner, programme, born=born), partner


def another(
    world: World, partner: Partner, programme: str = "ejoheza", *, born: date = date(1990, 5, 1)
) -> Saver:
    """One more member of the scheme."""
    product, currency, _, facts = SCHEMES[programme]
    known = [Fact(name, value, date(2010, 1, 1), world.clock.now(), "institution") for name, value in facts]
    choice: dict[str, object] | None = None
    if programme in CHOSEN:
        choice = {"amount": {"amount": CHOSEN[programme], "currency": currency}}
    person = world.member(
        partner, programme=programme, products=(product,), birth_date=born, facts=known, choice=choice
    )
    return Saver(world, person, programme, product, currency)


SCHEMES: dict[str, tuple[str, str, str | None, tuple[tuple[str, int | bool], ...]]] = {
    "ejoheza": ("savings", "RWF", "gov-rw", ()),
    "pm-sym": ("pension", "INR", "gov-in", (("monthly_income", 1_000_000),)),
    "haba-haba": ("savings", "KES", None, ()),
    "mp2": ("mp2", "PHP", None, ()),
    "apy": (
        "pension",
        "INR",
        "gov-in",
        (("statutory_cover", False), ("income_tax_payer", False), ("paid_regularly", True)),
    ),
}
"""By programme: the product, its currency, its sponsor, and what a member must be known for."""

CHOSEN = {"haba-haba": 500_000, "mp2": 50_000, "apy": 50_000}
"""What the member chooses to pay at a time, where it chooses an amount."""


def vest(world: World, *, limit: int = 2) -> int:
    """Run the vesting job to its end; how many windows it looked at."""
    return _to_the_end(world, lambda tx: vesting.vest_due(tx, world.books, limit=limit))


def end_windows(world: World, *, limit: int = 2) -> int:
    """Run the job of windows that are over to its end; how many windows."""
    return _to_the_end(world, lambda tx: grants.end_windows(tx, world.books, limit=limit))


def _to_the_end(world: World, step: Callable[[Tx], int]) -> int:
    done = 0
    for _ in range(50):
        moved = world.databases.worker.run(step)
        done += moved
        if not moved:
            return done
    raise AssertionError("the job does not come to an end")


def move_to(world: World, at: datetime) -> None:
    """Let time pass until then."""
    world.clock.advance(at - world.clock.now() if at > world.clock.now() else timedelta(0))
