"""A member who has retired is paid out, over the API: one payout arrives, one fails, and one comes back after it was paid.

Her partner asks, her phone signs, the simulated rail pays: its test values decide how. Who is paid was settled two years ago,
when she joined, so that no payee waits any more.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text

from api.bootstrap import Services
from api.demo.books import Comparison, entitled
from api.demo.client import Client
from api.demo.events import Booked
from api.demo.phone import Phone, prepare
from api.demo.receiver import Receiver
from api.demo.world import Access, Person
from integrations.rails import directory
from ledger.database import Tx
from ledger.errors import Unavailable
from ledger.ids import parse_public_id
from products.members.payees import NewPayee
from products.payouts import registry
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee, Limits
from products.payouts.tie import Tie, tie
from products.programmes.registry import find

RAIL: Final = "demo-rail"
LATE_SECONDS: Final = 3
"""After how long what the rail has paid comes back; days, elsewhere."""
STATE_SECONDS_MAX: Final = 60.0
STOP: Final = frozenset({"failed", "returned", "cancelled"})


@dataclass(frozen=True, slots=True)
class Plan:
    """A payout and what must become of it. `amount` None: all that is left. The payee's number forces the outcome."""

    to: str
    payee: NewPayee
    amount: int | None
    ends: tuple[str, ...]
    reason: str | None = None

    @property
    def states(self) -> list[str]:
        """Every state that it goes through."""
        return ["requested", "awaiting_member", "approved", "submitted", *self.ends]


PLANS: Final = (
    Plan(
        "her wallet", NewPayee("Aline Uwase", "mobile_money", {"phone": "+250788001234"}), 30_000, ("paid",)
    ),
    Plan(
        "an old wallet",
        NewPayee("Aline Uwase", "mobile_money", {"phone": "+250788009922"}),
        25_000,
        ("failed",),
        "payee_closed",
    ),
    Plan(
        "her bank account",
        NewPayee("Aline Uwase", "bank", {"account": "40010009951", "bank_code": "040", "country": "RW"}),
        None,
        ("paid", "returned"),
        "payee_closed",
    ),
)


@dataclass(frozen=True, slots=True)
class Retired:
    """Who is paid out: the member, her phone, and her payees by `Plan.to`."""

    person: Person
    phone: Phone
    payees: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Posted:
    """A posting of a payout: for what, from which account's debit to which one's credit."""

    step: str
    debit: str
    credit: str
    amount: int


@dataclass(frozen=True, slots=True)
class Paid:
    """What became of a plan: the payout as the API shows it, its postings, and the events that the partner was sent."""

    plan: Plan
    payout: Mapping[str, Any]
    posted: Sequence[Posted]
    events: Sequence[str]

    @property
    def amount(self) -> int:
        """What left, or would have, in minor units."""
        return int(self.payout["amount"]["amount"])

    @property
    def states(self) -> list[str]:
        """What it went through."""
        return [one["state"] for one in self.payout["history"]]


@dataclass(frozen=True, slots=True)
class Balance:
    """The member's money in her product, in minor units: ``held`` and ``available`` are of what is settled, ``match`` is vested."""

    settled: int
    match: int
    held: int
    available: int


@dataclass(frozen=True, slots=True)
class PaidOut:
    """All of it: her balance before, while everything is held, and afterwards; the rail's accounts and its own list."""

    person: Person
    before: Balance
    held: Balance
    after: Balance
    paid: Sequence[Paid]
    clearing: int
    bank: int
    tie: Tie

    @property
    def out(self) -> int:
        """What has left for good, in minor units."""
        return sum(one.amount for one in self.paid if one.plan.ends == ("paid",))

    def to_json(self) -> dict[str, Any]:
        """The figures, for programs."""
        return {
            "payouts": [
                {
                    "to": one.plan.to,
                    "amount": one.amount,
                    "states": one.states,
                    "reason": one.payout["reason"],
                    "postings": [[each.step, each.debit, each.credit, each.amount] for each in one.posted],
                    "events": list(one.events),
                }
                for one in self.paid
            ],
            "balance": {
                when: {"settled": b.settled, "match": b.match, "held": b.held, "available": b.available}
                for when, b in (("before", self.before), ("held", self.held), ("after", self.after))
            },
            "clearing": self.clearing,
            "bank": self.bank,
            "tie": {
                "ties": self.tie.ties,
                "paid_ours": self.tie.paid_ours,
                "paid_theirs": self.tie.paid_theirs,
            },
        }


def set_up(services: Services, person: Person, partner: Access, at: datetime) -> Retired:
    """Give the programme its simulated rail, and the member a phone and payees, as of `at`, long ago."""
    options, _ = directory.validated("simulator", {"soon_seconds": 1, "late_seconds": LATE_SECONDS}, {})
    new = NewRail(
        slug=RAIL,
        kind="simulator",
        payee_kinds=("mobile_money", "bank"),
        checks_payees=True,
        funded="bank",
        fee=Fee(0, 0, "fund"),
        arrival=Arrival("minutes", 0, 5, ()),
        limits=Limits(1, None, None, None, None, registry.QUEUE_MAX),
        options=options,
    )
    services.worker.run(
        lambda tx: registry.create(tx, find(tx, person.group.programme), new, clock=services.clock)
    )
    link = parse_public_id("mem", person.mem_id)
    phone, payees = prepare(services, link, partner.id, {plan.to: plan.payee for plan in PLANS}, at)
    return Retired(person, phone, payees)


def pay_out(services: Services, client: Client, retired: Retired, receiver: Receiver) -> PaidOut:
    """Ask for the payouts, prove them, and wait for what becomes of each, events included."""
    began = services.clock.now()
    before = _balance(client, retired.person)
    asked = [_ask(client, retired, plan) for plan in PLANS]
    held = _balance(client, retired.person)
    for one in asked:
        _approve(client, retired, _until(client, one["id"], {"awaiting_member"}))
    done = [_until(client, one["id"], {plan.ends[-1]}) for one, plan in zip(asked, PLANS, strict=True)]
    for one, plan in zip(done, PLANS, strict=True):
        receiver.wait_for("id", one["id"], len(plan.states))
    until = services.clock.now() + timedelta(seconds=1)
    with services.worker.read() as tx:
        rail = registry.find(tx, RAIL)
    listed = list(services.rails.adapter(rail).listed(began, until))
    with services.worker.read() as tx:
        paid = [
            Paid(plan, one, _posted(tx, one["id"]), receiver.types_of("id", one["id"]))
            for plan, one in zip(PLANS, done, strict=True)
        ]
        tied = tie(tx, rail, listed, since=began, until=until)
    bank = sum(_moved(each, "bank") for one in paid for each in one.posted)
    after = _balance(client, retired.person)
    return PaidOut(retired.person, before, held, after, paid, tied.clearing, bank, tied)


def compare(comparison: Comparison, found: PaidOut, booked: Sequence[Booked]) -> None:
    """What came of the payouts is what had to; `booked` is all that she contributed."""
    saved, match = sum(one.product for one in booked), entitled(booked, found.person.group.programme)
    comparison.expect("her balance before the payouts", Balance(saved, match, 0, saved), found.before)
    comparison.expect("her balance while they are held", Balance(saved, match, saved, 0), found.held)
    left = Balance(saved - found.out, match, 0, saved - found.out)
    comparison.expect("her balance after the payouts", left, found.after)
    fixed = sum(plan.amount or 0 for plan in PLANS)
    for one in found.paid:
        amount = one.plan.amount or saved + match - fixed
        comparison.expect(f"payout to {one.plan.to}", amount, one.amount)
        comparison.expect(f"states of the payout to {one.plan.to}", one.plan.states, one.states)
        comparison.expect(f"reason of the payout to {one.plan.to}", one.plan.reason, one.payout["reason"])
        of_match = max(0, amount - (saved - fixed)) if one.plan.amount is None else 0
        comparison.expect(
            f"postings of the payout to {one.plan.to}",
            _due(one.plan, amount - of_match, of_match),
            one.posted,
        )
        comparison.expect(
            f"events of the payout to {one.plan.to}",
            [f"payout.{state}" for state in one.plan.states],
            one.events,
        )
    comparison.expect("payout clearing", 0, found.clearing)
    comparison.expect("left the bank by payouts", -found.out, found.bank)
    comparison.expect("the rail's own list ties", True, found.tie.ties)
    comparison.expect("paid, by the rail's own list", found.out, found.tie.paid_theirs)


def _due(plan: Plan, savings: int, match: int) -> list[Posted]:
    """The postings that a payout has to leave, by the design's posting table."""
    parts = [
        (code, amount) for code, amount in (("member_savings", savings), ("match_vested", match)) if amount
    ]
    due = [Posted("payout_submitted", code, "payout_clearing", amount) for code, amount in parts]
    if "paid" in plan.ends:
        due.append(Posted("payout_paid", "payout_clearing", "bank", savings + match))
    if plan.ends[-1] != "paid":
        lay = "bank" if "paid" in plan.ends else "payout_clearing"
        due += [Posted(f"payout_{plan.ends[-1]}", lay, code, amount) for code, amount in parts]
    return due


def _ask(client: Client, retired: Retired, plan: Plan) -> Any:  # JSON, as all below
    person = retired.person
    left = _balance(client, person)
    amount = plan.amount if plan.amount is not None else left.available + left.match
    return client.post(
        "/v1/payouts",
        {
            "member": person.mem_id,
            "payee": retired.payees[plan.to],
            "amount": {"amount": amount, "currency": person.group.currency},
            "product": person.group.product,
        },
    )


def _approve(client: Client, retired: Retired, payout: Mapping[str, Any]) -> None:
    """The member sees payee, amount and fee, and her phone signs exactly that."""
    shown = {"payee": payout["payee"], "amount": payout["amount"], "fee": payout["fee"]["amount"]}
    challenge = client.post(
        f"/v1/members/{retired.person.mem_id}/challenges",
        {"purpose": "payout", "method": "device", "subject": {**shown, "payout": payout["id"]}},
    )
    proof = retired.phone.proof(challenge)
    client.post(f"/v1/payouts/{payout['id']}/approval", {**shown, "proof": proof})


def _until(client: Client, payout: str, states: set[str]) -> Any:
    deadline = time.monotonic() + STATE_SECONDS_MAX
    while True:
        found = client.get(f"/v1/payouts/{payout}")
        if found["state"] in states:
            return found
        if found["state"] in STOP or time.monotonic() > deadline:
            raise Unavailable(f"a payout is {found['state']} ({found['reason']}), not {', '.join(states)}")
        time.sleep(0.1)


def _balance(client: Client, person: Person) -> Balance:
    found = client.get(f"/v1/members/{person.mem_id}/balances")["products"]
    (one,) = [each for each in found if each["product"] == person.group.product]
    return Balance(
        one["settled"]["amount"],
        one["match"]["vested"]["amount"],
        one["held"]["amount"],
        one["available"]["amount"],
    )


def _posted(tx: Tx, payout: str) -> list[Posted]:
    rows = tx.execute(
        text(
            "SELECT t.kind, d.code, c.code, p.amount FROM ledger.reference r"
            " JOIN ledger.transaction t ON t.id = r.transaction_id"
            " JOIN ledger.posting p ON p.transaction_id = t.id"
            " JOIN ledger.account d ON d.id = p.debit_account JOIN ledger.account c ON c.id = p.credit_account"
            " WHERE starts_with(r.reference, :prefix) ORDER BY t.id, p.seq"
        ),
        {"prefix": f"payout:{parse_public_id('pay', payout)}:"},
    )
    return [Posted(*row) for row in rows]


def _moved(one: Posted, code: str) -> int:
    return one.amount * ((one.debit == code) - (one.credit == code))
