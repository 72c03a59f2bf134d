"""Payouts to wallets from end to end: the worker's jobs, the provider on real HTTP, its callbacks through the API's own hook."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

from api.app import create_app
from api.bootstrap import Services
from api.settings import Settings
from integrations.rails.configured import Rails, keep_secrets
from integrations.rails.directory import validated
from integrations.rails.work import RailWork
from ledger.clock import FixedClock
from products.payouts import registry
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee
from products.payouts.tie import tie
from tests.conftest import Databases
from tests.http.hooked import serving
from tests.integration.payouts.paying import LIMITS, Paying
from tests.integration.rails.gsma_books import Rule
from tests.integration.rails.gsma_simulator import simulator
from tests.integration.rails.gsma_world import eventually, options, secrets


def test_wallets_are_paid_and_what_fails_or_comes_back_is_the_members_again(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    paying = Paying.on(databases, clock)
    app = create_app(settings, clock=clock, publish=lambda: None)
    services: Services = app.state.services
    with (
        simulator() as provider,
        serving(app) as url,
        closing(
            Rails(databases.worker, services.keyring, clock, environment="sandbox", public_url=url)
        ) as adapters,
    ):
        kept, keys = validated("mobile_money", options(provider.url), secrets())
        new = NewRail(
            slug="momo",
            kind="mobile_money",
            payee_kinds=("mobile_money",),
            checks_payees=True,
            funded="float",
            fee=Fee(0, 0, "fund"),
            arrival=Arrival("minutes", 0, 5, ()),
            limits=LIMITS,
            options=kept,
        )
        with databases.worker.begin() as tx:
            rail = registry.create(tx, paying.world.programmes["ejoheza"], new, clock=clock)
            keep_secrets(tx, services.keyring, clock, rail.id, keys)
        paying.work = RailWork(databases.worker, paying.world.books, adapters)
        person = paying.person()
        payee = paying.payee(person)
        amounts = {"paid": 1_001, "failed": 1_002, "returned": 1_003, "lost": 1_004}
        provider.misbehave(
            Rule("outcome", "fails", amount="1002", code="maxBalanceExceeded"),
            Rule("outcome", "reverses", amount="1003", seconds=0.3),
            Rule("after", "error_500", amount="1004"),
            Rule("callback", "none", amount="1004"),
        )
        payouts = {
            fate: paying.approved(person, payee, amount, rail="momo") for fate, amount in amounts.items()
        }
        paying.work.submit()
        eventually(lambda: paying.state(payouts["returned"]).startswith("returned"))
        eventually(lambda: paying.state(payouts["paid"]) == "paid")
        eventually(lambda: paying.state(payouts["failed"]) == "failed: payee_limit")
        assert paying.state(payouts["lost"]) == "unknown: no_answer"
        clock.advance(timedelta(minutes=2))
        paying.work.ask()
        assert paying.state(payouts["lost"]) == "paid"
        assert "paid" in paying.history(payouts["returned"])
        paid = [one for one in provider.books.listing() if one["state"] == "completed"]
        assert sorted(int(one["amount"]) for one in paid) == [1_001, 1_004]
        assert paying.balance("payout_clearing", "momo") == 0
        assert {one["callback_statuses"][0] for one in provider.books.listing() if one["callbacks"]} == {204}
        with databases.worker.begin() as tx:
            today, real = clock.now(), datetime.now(UTC)
            listed = adapters.adapter(rail).listed(real - timedelta(hours=1), real)
            tied = tie(tx, rail, listed, since=today - timedelta(days=1), until=today)
        assert (tied.paid_ours, tied.paid_theirs) == (2_005, 2_005)
        # one that failed is on no list of transactions: it was never made
        assert tied.ties, tied.differences
