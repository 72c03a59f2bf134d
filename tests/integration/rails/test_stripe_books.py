"""Payouts by Stripe, from the member's approval to the books: lost answers, a refusal, and a payout that fails days after it was paid."""

from datetime import timedelta
from uuid import UUID

import pytest

from integrations.rails import configured, directory
from integrations.rails.setting import Setting
from ledger.clock import FixedClock
from products.members import payees
from products.members import registry as members
from products.members.payees import NewPayee
from products.payouts import registry, reports
from products.payouts.registry import ConfiguredRail, NewRail
from products.payouts.terms import Arrival, Fee
from tests.conftest import Databases
from tests.integration.payouts.paying import HOURS_72, LIMITS, Paying
from tests.integration.rails.contract import Fate, Fault
from tests.integration.rails.stripe_bench import SLUG, TIMEOUT_SECONDS, callback_of
from tests.integration.rails.stripe_contract import API_KEY, CONNECT_SECRET, PLATFORM_SECRET, FakeStripe
from tests.integration.rails.stripe_http import fake_stripe
from tests.world import Person

SECRETS = {"api_key": API_KEY, "webhook_secrets": f"{PLATFORM_SECRET} {CONNECT_SECRET}"}


def a_stripe_rail(paying: Paying, api_base: str) -> ConfiguredRail:
    """A rail to connected accounts, configured as an operator does, its secrets sealed."""
    kept, secrets = directory.validated(
        "stripe", {"api_base": api_base, "timeout_seconds": TIMEOUT_SECONDS}, SECRETS
    )
    new = NewRail(
        slug=SLUG,
        kind="stripe",
        payee_kinds=("card",),
        checks_payees=True,
        funded="float",
        fee=Fee(0, 0, "fund"),
        arrival=Arrival("business_days", 1, 3, ()),
        limits=LIMITS,
        options=kept,
    )
    books = paying.world.books
    with paying.databases.worker.begin() as tx:
        made = registry.create(tx, paying.world.programmes["ejoheza"], new, clock=paying.clock)
        configured.keep_secrets(tx, books.keyring, paying.clock, made.id, secrets)
    return made


def payee_at(paying: Paying, person: Person, account: str) -> UUID:
    """A connected account as the member's payee."""
    keyring = paying.world.books.keyring
    with paying.databases.worker.begin() as tx:
        made = payees.propose(
            tx,
            keyring,
            members.find(tx, keyring, person.link_id),
            NewPayee("Aline Uwase", "card", {"token": account}),
            released=True,
            public_url="https://mizan.example",
            at=paying.clock.now(),
        )
    return made.id


def heard(paying: Paying, rail: ConfiguredRail, stripe: FakeStripe) -> None:
    """Every event that Stripe has sent so far, on the rail's hook, newest first, and each twice."""
    books = paying.world.books
    setting = Setting(
        paying.clock,
        "sandbox",
        "https://mizan.example",
        paying.databases.worker,
        books.keyring,
        SLUG,
        "RWF",
    )
    adapter = directory.build("stripe", rail.options, SECRETS, setting)
    for event in [*reversed(stripe.events), *stripe.events]:
        said = adapter.read(callback_of(*stripe.signed(event)))
        paying.databases.worker.run(
            lambda tx, said=said: reports.apply(tx, books, rail, said, source="callback")  # type: ignore[misc]  # a default is the way to bind a loop's name
        )
    adapter.close()


@pytest.mark.parametrize("fault", ["answer_lost", "error_after_success"])
def test_each_payout_is_at_stripe_once_and_the_books_tie_to_its_list(
    databases: Databases, clock: FixedClock, fault: Fault
) -> None:
    with fake_stripe(clock) as served:
        stripe = served.stripe
        paying = Paying.on(databases, clock)
        rail = a_stripe_rail(paying, stripe.url)
        person = paying.person(saved=40_000)
        fates: tuple[Fate, ...] = ("paid", "failed", "comes_back", "paid")
        ways = [payee_at(paying, person, stripe.account(fate, currency="rwf")) for fate in fates]
        clock.advance(HOURS_72)
        payouts = [
            paying.approved(person, way, amount)
            for way, amount in zip(ways, (4_000, 5_000, 6_000, 7_000), strict=True)
        ]
        with stripe.plan("POST .*", fault=fault, times=5):
            paying.work.submit()
        stripe.settle()
        for _ in range(4):
            clock.advance(timedelta(minutes=10))
            paying.work.ask()
            stripe.settle()
        assert [paying.row(one)["state"] for one in payouts] == ["paid", "failed", "paid", "paid"]
        stripe.come_back()
        heard(paying, rail, stripe)
        assert [paying.state(one) for one in payouts] == [
            "paid",
            "failed: payee_closed",
            "failed: payee_closed",
            "paid",
        ]
        kept = [one for one in stripe.transfers if not one["reversed"]]
        assert len(stripe.transfers) == 4
        assert sum(one["amount"] for one in kept) == 11_000
        assert paying.balance("rail_float", SLUG) == -11_000
        assert paying.balance("payout_clearing", SLUG) == 0
        adapter_list = {one["metadata"]["attempt"] for one in kept}
        assert adapter_list == {str(paying.attempt(payouts[place])["id"]) for place in (0, 3)}
