"""A programme's weeks at its bank, and a bank that knows the truth: its statements are derived from the books, then disturbed.

Each `Case` is one thing that happened: what it is called in the books, the lines by which the bank shows it, which of them truly
belong to it, and what a reconciliation may and must say of it. Everything is drawn from one seed.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from uuid import UUID

from integrations.inbox.keys import InboxKeys
from ledger.accounts import open_accounts
from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from ledger.reconciliation import bank_accounts, rules
from ledger.reconciliation.bank_accounts import BankAccount, NewBankAccount
from products import chart
from products.members import payees, registry
from products.members.payees import NewPayee
from products.payouts import registry as rails
from products.payouts import reports
from products.payouts.rails import Report
from products.remittals.layouts import Answered
from products.remittances.partners import Partner
from products.remittances.process import Delivery, process
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox
from tests.integration.reconciliation.counting import Counting
from tests.integration.remittals.conftest import SSF, Agencies
from tests.world import Person

DAY = timedelta(days=1)
START = datetime(2026, 3, 19, 9, 30, tzinfo=UTC)
FIRST = date(2026, 3, 20)
"""The bank's first day; the books' month ends in the middle of its days."""
BUSY = [date(2026, 3, day) for day in range(23, 28)]
COLLECTING = BUSY[1:4]
"""On these days members are paid, and on some of them partners collect."""
LATE, LAST = date(2026, 4, 2), date(2026, 4, 3)
"""What is done on the last day but one the bank may still show."""
GAP = date(2026, 3, 26)
"""Of this day there is no statement."""
RULES = rules.default().content
BATCH = 4
PARTNERS = (
    *(
        "plain",
        "short",
        "over",
        "fee",
        "missing",
        "twice",
        "split-day",
        "split-days",
        "two-days",
        "elsewhere",
    ),
    *("returned", "returned-at-once", "shifted", "reversed", "quarantined", "surplus", "cut-off"),
)
"""Each partner is called after what happens to one of its days."""
PAYOUTS = (
    *("clean",) * 5,
    *(
        "confirmed",
        "upper",
        "dashed",
        "kept",
        "in_text",
        "split_text",
        "batch_named",
        "batch",
        "batch_entries",
        "late",
    ),
    *("unnamed", "twins", "mangled", "small_fee", "fee", "short", "over", "silent", "missing", "gap", "gap"),
    *("twice", "twice_later", "wrong_account", "fx", "returned", "returned_later"),
)
"""What happens to payouts."""


@dataclass(eq=False)
class Said:
    """A line as the bank says it, on one of the accounts; lines of one `entry` are details of it."""

    on: date
    amount: int
    end_to_end: str | None = None
    reference: str | None = None
    name: str | None = None
    text: str = "PAYMENT"
    account: str = "savers"
    entry: str | None = None


@dataclass(eq=False)
class Case:
    """One thing that happened. `items`: its names in the books; `right`: each set of lines that may be paired with all of these.

    `paired`: it must be. `finds`: at least one break of these types must be of it; `allows`: others that may. `subjects`: what else than
    lines and items its breaks are of, as they name it. `versions`: its lines are of statements that say different things of one day.
    """

    what: str
    items: frozenset[str] = frozenset()
    lines: tuple[Said, ...] = ()
    right: tuple[tuple[Said, ...], ...] = ()
    paired: bool = False
    finds: frozenset[str] = frozenset()
    allows: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    versions: bool = False


@dataclass(frozen=True)
class Known:
    """What the books expect at the bank or have there: an item under its name."""

    name: str
    amount: int
    on: date
    end_to_end: str | None
    batch: str | None
    party: str | None


def names(*types: str) -> frozenset[str]:
    """Types of breaks."""
    return frozenset(types)


@dataclass
class Weeks:
    """What was done in the books, from one seed; then what the bank says of it."""

    databases: Databases
    seed: int
    rng: random.Random = field(init=False)
    clock: FixedClock = field(init=False)
    counting: Counting = field(init=False)
    accounts: dict[str, BankAccount] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    _used: set[int] = field(default_factory=set)
    _number: Iterator[int] = field(default_factory=lambda: count(1))
    _people: list[tuple[Person, UUID]] = field(default_factory=list)
    _partners: dict[str, tuple[Partner, Person]] = field(default_factory=dict)
    _sent: dict[str, list[str]] = field(default_factory=dict)
    _owners: dict[UUID, Person] = field(default_factory=dict)
    _kinds: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.clock = FixedClock(START)
        self.counting = Counting(self.databases, self.clock)
        self.counting.bank_rail()
        self.accounts["savers"] = self.counting.savers
        self._open_accounts()
        self._join()
        self._work()
        self.counting.reconcile()

    # what is done

    def amount(self, lowest: int, highest: int) -> int:
        """One that nothing else has, nor anything near it."""
        while (drawn := self.rng.randint(lowest, highest)) in self._used:
            pass
        self._used |= {drawn + near for near in range(-2, 3)}
        return drawn

    def _open_accounts(self) -> None:
        bank = self.counting.bank
        with self.databases.worker.begin() as tx:
            chart.open_administrator_fund(tx, "ejoheza", "EjoHeza", "Africa/Kigali", "RWF")
        self.accounts["office"] = bank.account(
            "office", fund="ejoheza/administrator", number="RW38 0002", since=FIRST
        )
        with self.databases.worker.begin() as tx:
            [dollars] = open_accounts(tx, [chart.spec(chart.BANK, self.counting.savers.fund_id, "", "USD")])
            new = NewBankAccount("dollars", "In dollars", dollars, "RW38 0003", FIRST)
            self.accounts["dollars"] = bank_accounts.add(tx, self.clock, new)

    def _join(self) -> None:
        world = self.counting.world
        parties = []
        for slug in PARTNERS:
            partner = world.partner(slug)
            self._partners[slug] = (partner, world.member(partner))
            parties.append({"party": slug, "names": [f"{slug} money"]})
        parties.append({"party": "acme", "names": ["acme telecom"]})
        with self.databases.worker.begin() as tx:
            rules.apply(
                tx,
                self.accounts["savers"].id,
                {**RULES, "parties": parties},
                applied_by="test",
                clock=self.clock,
            )
        for number in range(3):
            person = self.counting.paying.person(number, saved=self.amount(600_000, 700_000))
            self._people.append((person, self._payee(person)))
        self.clock.advance(4 * DAY)

    def _payee(self, person: Person) -> UUID:
        keyring = self.counting.world.books.keyring
        to = {"account": "4001-9", "bank_code": "BKIGRWRW", "country": "RW"}
        with self.databases.worker.begin() as tx:
            return payees.propose(
                tx,
                keyring,
                registry.find(tx, keyring, person.link_id),
                NewPayee("Aline Uwase", "bank", to),
                released=True,
                public_url="https://mizan.example",
                at=self.clock.now(),
            ).id

    def _work(self) -> None:
        waiting = list(PAYOUTS)
        self.rng.shuffle(waiting)
        share = -(-len(waiting) // len(BUSY))
        for day in BUSY:
            assert self.clock.now().date() == day
            if day in COLLECTING:
                self._collect(*PARTNERS)
            todays, waiting = waiting[:share], waiting[share:]
            self._pay(todays)
            if day == BUSY[1]:
                self._quarantine()
            reference = f"MINECOFIN/2026/{next(self._number):04}"
            self.counting.world.fund(self.amount(100_000, 900_000), reference=reference)
            self.clock.advance(DAY)
        self._settle_by_hand()
        self._remit()
        self.clock.advance(datetime.combine(LATE, START.timetz()) - self.clock.now())
        self._collect("cut-off")
        self._pay(["cut_off"])
        self.clock.advance(DAY)

    def _collect(self, *slugs: str) -> None:
        """Partners collect, and tell of it."""
        world = self.counting.world
        deliveries = []
        for slug in slugs:
            partner, person = self._partners[slug]
            for _ in range(self.rng.randint(1, 2)):
                amount = self.amount(20_000, 400_000)
                event = world.completed(person, received=amount * 20, collected=amount)
                deliveries.append(Delivery(new_id(), partner.id, event, False))
                self._sent.setdefault(slug, []).append(event.remittance_id)
        verdicts = self.databases.worker.run(lambda tx: process(tx, deliveries, books=world.books))
        assert {verdict.state for verdict in verdicts} == {"posted"}, verdicts

    def _pay(self, kinds: Sequence[str]) -> None:
        """Payouts of these kinds go out in files: a batch in one of its own, the others together."""
        alone = [[kind] * BATCH for kind in kinds if kind.startswith("batch")]
        for together in [[kind for kind in kinds if not kind.startswith("batch")], *alone]:
            made = []
            for kind in together:
                amount = self.amount(4_000, 40_000)
                for _ in range(2 if kind == "twins" else 1):
                    person, payee = self.rng.choice(self._people)
                    payout = self.counting.paying.ask(person, payee, amount, rail="kigali-bank")
                    self._owners[payout] = person
                    made.append((kind, payout))
            self._submit(made)

    def _submit(self, made: Sequence[tuple[str, UUID]]) -> None:
        paying = self.counting.paying
        paying.work.submit()
        for _, payout in made:
            paying.approve(self._owners[payout], payout)
        paying.work.submit()
        told = []
        for kind, payout in made:
            self._kinds[public_id("pay", payout)] = kind
            assert paying.state(payout) == "submitted", paying.state(payout)
            if kind in ("silent", "confirmed"):
                told.append(Report("paid", paying.attempt(payout)["id"]))
        with self.databases.worker.begin() as tx:
            rail = rails.find(tx, "kigali-bank")
            reports.apply(tx, self.counting.world.books, rail, told, source="hand")

    def _settle_by_hand(self) -> None:
        """One partner's settlement is recorded before the bank shows it, and is of more than it owes."""
        partner, _ = self._partners["surplus"]
        owed = self.counting.world.balance("partner_receivable", "surplus")
        paid = self.counting.world.settle(partner, owed + self.amount(500, 900), through=COLLECTING[-1])
        self.cases.append(
            Case("surplus", finds=names("unapplied_receipt"), subjects=frozenset({str(paid.id)}))
        )

    def _remit(self) -> None:
        """Contributions go to an agency, which rejects one."""
        world = self.counting.world
        ssf = Agencies(world, world.partner("himal", programme=SSF))
        people = [ssf.person(f"{number:04}") for number in range(2)]
        for person in people:
            ssf.pay(person)
        ssf.settle(2 * 213_300)
        remittal = ssf.sent()
        ssf.answer(remittal, Answered(1, "accepted"), Answered(2, "rejected", reason="unknown number"))
        [line] = self.counting.paying.rows("SELECT id FROM products.remittal_line WHERE position = 2")
        self.cases.append(
            Case("rejected", finds=names("agency_rejection"), subjects=frozenset({str(line["id"])}))
        )

    def reverse(self) -> None:
        """After its partner has paid for it, a remittance is reversed."""
        world = self.counting.world
        partner, _ = self._partners["reversed"]
        [verdict] = world.send(partner, world.reversed(self._sent["reversed"][0]), approved=True)
        assert verdict.state == "reversed", verdict
        [credit] = self.counting.paying.rows(
            "SELECT id FROM products.settlement_credit WHERE reason = 'reversed'"
        )
        self.cases.append(
            Case(
                "reversed", finds=names("reversed_after_settlement"), subjects=frozenset({str(credit["id"])})
            )
        )

    def _quarantine(self) -> None:
        """A partner's delivery of nobody's remittance; the partner pays for the day all the same."""
        partner, _ = self._partners["quarantined"]
        inbox = _Inbox(self.databases, self.clock, self.counting.world.books.keyring, partner.id)
        [receipt] = inbox.store([inbox.received("of-nobody", member="nobody")])
        inbox.drain(lambda tx, batch: process(tx, batch, books=self.counting.world.books))
        assert [*inbox.outcomes()] == ["quarantined currency_not_served"]
        self.cases.append(
            Case(
                "quarantined",
                finds=names("settled_but_quarantined"),
                subjects=frozenset({f"{receipt.id}:ejoheza"}),
            )
        )

    def known(self) -> list[Known]:
        """What the books have or expect at the savers' bank."""
        rows = self.counting.paying.rows(
            f"SELECT {NAME} AS name, i.amount, i.on_date, i.end_to_end, i.batch, i.party FROM {NAMED}"
            " WHERE i.closed_at IS NULL AND i.bank_account_id = %s ORDER BY i.on_date, 1",
            self.accounts["savers"].id,
        )
        return [
            Known(row["name"], row["amount"], row["on_date"], row["end_to_end"], row["batch"], row["party"])
            for row in rows
        ]

    def kind_of(self, item: Known) -> str:
        """What is to happen to an item: of payouts by their kind, else by who pays."""
        return self._kinds.get(item.name) or item.party or ""


class _Inbox(Inbox):
    """Of a partner that is there."""

    def __post_init__(self) -> None:
        self.keys = InboxKeys(self.databases.api, self.keyring, self.clock)


NAME = """CASE WHEN e.item_id IS NOT NULL THEN i.party || ' ' || e.day
               WHEN i.kind = 'sponsor_paid_in' THEN i.reference ELSE i.subject END"""
"""By what the truth knows an item."""
NAMED = "ledger.item i LEFT JOIN products.expected_settlement e ON e.item_id = i.id"
