"""The Stripe rail and the contract server behind it, as the rails' contract drives them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

from integrations.rails import directory
from integrations.rails.setting import Setting
from integrations.rails.stripe_objects import attempt_in
from ledger.clock import Clock, FixedClock
from ledger.ids import new_id, public_id
from products.payouts.rails import Callback, Instruction, Rail, RailPayee
from tests.integration.rails.contract import Fate, Fault
from tests.integration.rails.stripe_contract import (
    API_KEY,
    CONNECT_SECRET,
    PLATFORM_SECRET,
    FakeStripe,
)
from tests.integration.rails.stripe_http import Served, fake_stripe

TIMEOUT_SECONDS = 20
SLUG = "stripe-eur"


def setting(clock: Clock, environment: str = "sandbox", currency: str = "EUR", slug: str = SLUG) -> Setting:
    """A setting without a database: the Stripe rail keeps nothing."""
    nothing: Any = None
    return Setting(clock, environment, "http://127.0.0.1", nothing, nothing, slug, currency)


def stripe_rail(
    clock: Clock, api_base: str, mode: str = "connect", *, currency: str = "EUR", **options: object
) -> Rail:
    """The adapter, built as a configured rail is."""
    kept, secrets = directory.validated(
        "stripe",
        {"mode": mode, "api_base": api_base, "timeout_seconds": TIMEOUT_SECONDS} | options,
        {"api_key": API_KEY, "webhook_secrets": f"{PLATFORM_SECRET} {CONNECT_SECRET}"},
    )
    return directory.build("stripe", kept, secrets, setting(clock, currency=currency))


def callback_of(header: str, body: bytes) -> Callback:
    """A delivery of Stripe's on our hook."""
    return Callback("POST", "events", {"stripe-signature": header}, body, "127.0.0.1")


@dataclass
class StripeBench:
    """A rail in one of its modes, on the contract server."""

    rail: Rail
    clock: FixedClock
    served: Served
    mode: str
    faults: frozenset[Fault] = frozenset({"down", "request_lost", "answer_lost", "error_after_success"})
    calls_back: bool = True
    tells_not_found: bool = True
    amounts: Iterator[int] = field(default_factory=lambda: count(10_01, 7))

    @property
    def stripe(self) -> FakeStripe:
        """The world's state."""
        return self.served.stripe

    def now(self) -> datetime:
        return self.clock.now()

    def payment(self, fate: Fate = "paid") -> Instruction:
        make = self.stripe.account if self.mode == "connect" else self.stripe.bank_account
        return self.payment_to(make(fate))

    def payment_to(self, token: str, amount: int | None = None, currency: str = "EUR") -> Instruction:
        attempt = new_id()
        payee = RailPayee("Aline Uwase", "card", {"token": token})
        return Instruction(attempt, public_id("pay", attempt), amount or next(self.amounts), currency, payee)

    def during(self, fault: Fault) -> AbstractContextManager[object]:
        return self.served.down() if fault == "down" else self.stripe.plan(fault=fault)

    def settle(self) -> None:
        self.stripe.settle()

    def come_back(self) -> None:
        self.stripe.come_back()

    def paid(self) -> Mapping[UUID, Sequence[int]]:
        paid: dict[UUID, list[int]] = defaultdict(list)
        for account, payout in self.stripe.payouts:
            attempt = attempt_in(payout["metadata"])
            if account is None and attempt is not None and payout["status"] not in ("failed", "canceled"):
                paid[attempt].append(payout["amount"])
        for transfer in self.stripe.transfers:
            attempt = attempt_in(transfer["metadata"])
            if attempt is not None and not transfer["reversed"]:
                paid[attempt].append(transfer["amount"])
        return paid

    def callbacks(self, attempt: UUID) -> Sequence[Callback]:
        about = [
            event
            for event in self.stripe.events
            if attempt_in(event["data"]["object"].get("metadata")) == attempt
        ]
        return [callback_of(*self.stripe.signed(event)) for event in about]

    def forgeries(self, callback: Callback) -> Sequence[Callback]:
        event = self.stripe.events[-1]
        header, body = self.stripe.signed(event)
        at, mac = header.split(",")[:2]
        return [
            replace(callback, headers={}),
            replace(callback, headers={"stripe-signature": ""}),
            replace(callback, headers={"stripe-signature": f"{at},v1="}),
            replace(callback, headers={"stripe-signature": f"{at},v1={'0' * 64}"}),
            replace(callback, headers={"stripe-signature": f"{at},v1=ü"}),
            replace(callback, headers={"stripe-signature": f"{at},v0={mac[3:]}"}),
            replace(callback, headers={"stripe-signature": mac}),
            replace(callback, headers={"stripe-signature": f"t=12x,{mac}"}),
            replace(callback, headers={"stripe-signature": f"t=0,{at},{mac}"}),
            replace(callback, body=body.replace(b'"amount"', b'"amoumt"')),
            replace(callback, method="PUT"),
            callback_of(*self.stripe.signed(event, secret="whsec_of_someone_else")),
            callback_of(*self.stripe.signed(event, shift=-301)),
            callback_of(*self.stripe.signed(event, shift=301)),
        ]

    def strangers(self) -> Sequence[Callback]:
        stripe = self.stripe
        ours = {"attempt": str(new_id()), "rail": SLUG}
        payout = {"id": "po_strange", "object": "payout", "amount": 5, "currency": "eur", "status": "paid"}
        account = stripe.account()
        events = [
            stripe.event("payout.paid", payout | {"metadata": {}}),
            stripe.event("payout.paid", payout | {"metadata": {"attempt": "no id"}}, account),
            stripe.event("payout.paid", payout | {"metadata": ours}, account),
            stripe.event("transfer.created", {"id": "tr_x", "metadata": ours}),
            stripe.event("customer.created", {"id": "cus_1", "metadata": ours}),
            stripe.event("payout.paid", payout | {"metadata": ours}) | {"livemode": True},
        ]
        if self.mode == "connect":
            events.append(stripe.event("payout.paid", payout | {"metadata": ours}))
        return [callback_of(*stripe.signed(event)) for event in events]

    def malformed(self) -> Sequence[Callback]:
        stripe = self.stripe
        good = stripe.event("payout.paid", {"id": "po_1", "metadata": {}})
        events: list[Any] = [
            [],
            {},
            good | {"created": "today"},
            good | {"data": {}},
            good | {"account": 5},
            good | {"livemode": "no"},
            good | {"created": float("nan")},
        ]
        return [callback_of(*stripe.signed(event)) for event in [*events[1:]]]


@contextmanager
def stripe_bench(mode: str = "connect", currency: str = "EUR") -> Iterator[StripeBench]:
    """A rail and a world of its own."""
    clock = FixedClock(datetime.now(UTC))
    with fake_stripe(clock) as served:
        rail = stripe_rail(clock, served.stripe.url, mode, currency=currency)
        try:
            yield StripeBench(rail, clock, served, mode)
        finally:
            rail.close()
