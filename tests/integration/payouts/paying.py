"""A member with savings and a payee in effect, a simulated rail, and the worker's jobs: what payouts are made of in tests."""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from integrations.rails import directory
from integrations.rails.configured import Rails
from integrations.rails.work import Pace, RailWork
from ledger.clock import FixedClock
from ledger.errors import MizanError
from products.members import payees, registry, verification
from products.members.payees import NewPayee
from products.payouts import registry as rails
from products.payouts.approve import Approval, approve
from products.payouts.registry import ConfiguredRail, NewRail
from products.payouts.request import NewPayout, request, request_many
from products.payouts.terms import Arrival, Fee, Limits
from products.programmes.model import Level
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.world import Person, World

HOURS_72 = timedelta(hours=72)
OLD_ENOUGH = date(1960, 5, 1)
LIMITS = Limits(
    amount_min=1, amount_max=None, per_member_day=None, per_day=None, release_above=None, queue_max=1_000
)


@dataclass
class Paying:
    """One database, its programme, a guaranteed partner, and a simulated rail."""

    databases: Databases
    clock: FixedClock
    world: World = field(init=False)
    partner: Partner = field(init=False)
    rail: ConfiguredRail = field(init=False)
    work: RailWork = field(init=False)

    @classmethod
    def on(cls, databases: Databases, clock: FixedClock, **terms: Any) -> "Paying":
        """With a rail of these terms."""
        made = cls(databases, clock)
        made.world = World(databases, clock)
        made.partner = made.world.partner(terms="guaranteed")
        made.rail = made.a_rail(**terms)
        adapters = Rails(
            databases.worker,
            made.world.books.keyring,
            clock,
            environment="sandbox",
            public_url="https://mizan.example",
        )
        made.work = RailWork(databases.worker, made.world.books, adapters, Pace(lease=timedelta(seconds=30)))
        return made

    def a_rail(
        self,
        slug: str = "sim",
        *,
        fee: Fee | None = None,
        limits: Limits = LIMITS,
        funded: str = "bank",
        checks: bool = False,
        arrival: Arrival | None = None,
        options: dict[str, object] | None = None,
    ) -> ConfiguredRail:
        """A simulated rail."""
        kept, _ = directory.validated("simulator", options or {}, {})
        new = NewRail(
            slug=slug,
            kind="simulator",
            payee_kinds=("mobile_money", "bank"),
            checks_payees=checks,
            funded=funded,
            fee=fee or Fee(0, 0, "fund"),
            arrival=arrival or Arrival("minutes", 0, 5, ()),
            limits=limits,
            options=kept,
        )
        with self.databases.worker.begin() as tx:
            return rails.create(tx, self.world.programmes["ejoheza"], new, clock=self.clock)

    def person(
        self,
        number: int = 1,
        *,
        saved: int = 20_000,
        birth_date: date = OLD_ENOUGH,
        level: Level | None = "document",
    ) -> Person:
        """A member whose savings are settled."""
        person = self.world.member(
            self.partner, phone=f"+25078800{number:04}", birth_date=birth_date, category=3
        )
        if saved:
            self.world.send(self.partner, self.world.completed(person, received=saved * 20, collected=saved))
        if level is not None:
            with self.databases.worker.begin() as tx:
                member = registry.find(tx, self.world.books.keyring, person.link_id)
                cipher = registry.cipher_of(tx, self.world.books.keyring, member)
                verification.record(tx, cipher, member, level, verified_by="test", at=self.clock.now())
        return person

    def payee(self, person: Person, *, ending: str = "3456", waited: bool = True) -> UUID:
        """A payee that the member released; the clock moves on until it is in effect."""
        with self.databases.worker.begin() as tx:
            made = payees.propose(
                tx,
                self.world.books.keyring,
                registry.find(tx, self.world.books.keyring, person.link_id),
                NewPayee("Aline Uwase", "mobile_money", {"phone": f"+25078812{ending}"}),
                released=True,
                public_url="https://mizan.example",
                at=self.clock.now(),
            )
        if waited:
            self.clock.advance(HOURS_72)
        return made.id

    def asking(self, person: Person, payee: UUID, amount: int, **more: Any) -> NewPayout:
        """What a partner asks for."""
        return NewPayout(
            person.link_id, payee, amount, "RWF", more.pop("product", "savings"), "ptn_test", **more
        )

    def ask(self, person: Person, payee: UUID, amount: int, **more: Any) -> UUID:
        """A payout, asked for in a transaction of its own."""
        return self.databases.worker.run(
            lambda tx: request(tx, self.world.books, self.asking(person, payee, amount, **more))
        )

    def ask_many(self, *asked: NewPayout) -> list[UUID | MizanError]:
        """Payouts, asked for in one transaction."""
        return self.databases.worker.run(lambda tx: request_many(tx, self.world.books, asked))

    def approve(self, person: Person, payout: UUID, **changes: Any) -> None:
        """The member's approval of exactly what was shown."""
        row = self.row(payout)
        shown = {"amount": row["amount"], "fee": row["fee"], "payee_id": row["payee_id"]} | changes
        approval = Approval(
            payout,
            person.link_id,
            shown["payee_id"],
            shown["amount"],
            shown["fee"],
            "RWF",
            shown.get("accepts_name", False),
            None,
        )
        self.databases.worker.run(lambda tx: approve(tx, self.world.books, approval))

    def approved(self, person: Person, payee: UUID, amount: int, **more: Any) -> UUID:
        """A payout, asked for and approved."""
        payout = self.ask(person, payee, amount, **more)
        self.work.submit() if self.row(payout)["state"] == "requested" else None
        self.approve(person, payout)
        return payout

    def row(self, payout: UUID) -> dict[str, Any]:
        """A payout as it lies in the table."""
        return self.rows("SELECT * FROM products.payout WHERE id = %s", payout)[0]

    def attempt(self, payout: UUID) -> dict[str, Any]:
        """Its only attempt."""
        (found,) = self.rows("SELECT * FROM products.payout_attempt WHERE payout_id = %s", payout)
        return found

    def state(self, payout: UUID) -> str:
        """What a payout is at, and why."""
        row = self.row(payout)
        return f"{row['state']}: {row['reason']}" if row["reason"] else str(row["state"])

    def history(self, payout: UUID) -> list[str]:
        """The states that it went through."""
        rows = self.rows(
            "SELECT state FROM products.payout_change WHERE payout_id = %s ORDER BY number", payout
        )
        return [row["state"] for row in rows]

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Rows as the owner of the tables sees them."""
        with self.databases.worker.begin() as tx:
            return [dict(row) for row in tx.exec_driver_sql(query, parameters).mappings()]

    def postings(self, payout: UUID) -> list[tuple[str, str, str, int]]:
        """What a payout posted, in order: kind, debited and credited account, amount."""
        rows = self.rows(
            "SELECT t.kind, d.code AS debit, c.code AS credit, p.amount FROM ledger.reference r"
            " JOIN ledger.transaction t ON t.id = r.transaction_id JOIN ledger.posting p ON p.transaction_id = t.id"
            " JOIN ledger.account d ON d.id = p.debit_account JOIN ledger.account c ON c.id = p.credit_account"
            " WHERE r.reference LIKE %s ORDER BY t.id, p.seq",
            f"payout:{payout}:%",
        )
        return [(row["kind"], row["debit"], row["credit"], row["amount"]) for row in rows]

    def balance(self, code: str, owner: str | None = None) -> int:
        """What accounts of this code hold together, on their normal side."""
        (row,) = self.rows(
            "SELECT coalesce(sum(CASE WHEN a.kind IN ('asset', 'expense') THEN b.debits - b.credits ELSE b.credits - b.debits"
            " END), 0)::bigint AS amount FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id"
            " WHERE a.code = %s AND (%s::text IS NULL OR a.owner = %s)",
            code,
            owner,
            owner,
        )
        return int(row["amount"])
