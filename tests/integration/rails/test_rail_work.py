"""What a worker does for a rail that is slow, forgetful, down or reconfigured: through the real adapter of wallets and its provider."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from integrations.rails.configured import Rails, keep_secrets
from integrations.rails.directory import validated
from integrations.rails.work import Pace, RailWork
from ledger.clock import FixedClock
from products.payouts import registry, reports, submission
from products.payouts.rails import Report, Sent
from products.payouts.registry import ConfiguredRail, NewRail
from products.payouts.terms import Arrival, Fee
from tests.conftest import Databases
from tests.integration.payouts.paying import LIMITS, Paying
from tests.integration.rails.gsma_books import Rule
from tests.integration.rails.gsma_simulator import Simulator, simulator
from tests.integration.rails.gsma_world import SILENCE_SECONDS, eventually, options, secrets
from tests.world import Person


@dataclass
class Wallets:
    """A member whose payouts go to a wallet, the rail and its provider; no callbacks."""

    paying: Paying
    provider: Simulator
    rails: Rails
    rail: ConfiguredRail
    person: Person
    payee: UUID

    def approved(self, count: int = 1) -> list[UUID]:
        """Payouts that are approved."""
        return [self.paying.approved(self.person, self.payee, 100 + n, rail="momo") for n in range(count)]

    def states(self) -> set[str]:
        """In which states payouts are."""
        return {row["state"] for row in self.paying.rows("SELECT state FROM products.payout")}

    def breaker(self) -> tuple[int, bool]:
        """Failures in a row, and whether it is open."""
        (row,) = self.paying.rows("SELECT * FROM products.rail_breaker WHERE rail_id = %s", self.rail.id)
        return row["failures"], row["opened_at"] is not None

    def ask_later(self) -> int:
        """A worker asks when whatever it waits for is over."""
        self.paying.clock.advance(timedelta(hours=2))
        return self.paying.work.ask()

    def reconfigured(self, **changes: object) -> ConfiguredRail:
        """The rail with other options."""
        kept, _ = validated("mobile_money", options(self.provider.url, **changes), secrets())
        return replace(self.rail, options=kept)


Made = Callable[..., Wallets]


@pytest.fixture
def wallets(databases: Databases, clock: FixedClock) -> Iterator[Made]:
    """A world of wallets; `checks` payees or not, the pace and the rail's options as a test wants them."""
    with ExitStack() as stack:
        yield lambda **wanted: stack.enter_context(_wallets(databases, clock, **wanted))


@contextmanager
def _wallets(
    databases: Databases,
    clock: FixedClock,
    *,
    checks: bool = False,
    pace: Pace | None = None,
    **other: object,
) -> Iterator[Wallets]:
    paying = Paying.on(databases, clock)
    keyring = paying.world.books.keyring
    with (
        simulator() as provider,
        closing(
            Rails(databases.worker, keyring, clock, environment="sandbox", public_url="http://127.0.0.1:9")
        ) as rails,
    ):
        kept, keys = validated("mobile_money", options(provider.url, **other), secrets())
        new = NewRail(
            slug="momo",
            kind="mobile_money",
            payee_kinds=("mobile_money",),
            checks_payees=checks,
            funded="float",
            fee=Fee(0, 0, "fund"),
            arrival=Arrival("minutes", 0, 5, ()),
            limits=LIMITS,
            options=kept,
        )
        with databases.worker.begin() as tx:
            rail = registry.create(tx, paying.world.programmes["ejoheza"], new, clock=clock)
            keep_secrets(tx, keyring, clock, rail.id, keys)
        paying.work = RailWork(databases.worker, paying.world.books, rails, pace or Pace())
        person = paying.person()
        provider.misbehave(Rule("callback", "none"))
        yield Wallets(paying, provider, rails, rail, person, paying.payee(person))


def test_a_payment_that_the_rail_forgot_does_not_stop_all_others(wallets: Made) -> None:
    world = wallets()
    world.provider.misbehave(Rule("outcome", "never"))
    world.approved()
    world.paying.work.submit()
    world.provider.books.payments.clear()
    world.provider.books.by_server_id.clear()
    for _ in range(7):
        assert world.ask_later() == 1
    assert world.breaker() == (0, False)
    assert world.states() == {"submitted"}
    world.provider.down()
    for _ in range(7):
        world.ask_later()
    assert world.breaker()[1], "a network that fails opens it, whatever is asked about"


def test_all_that_is_due_is_asked_about_in_turns_that_the_rail_has_time_for(wallets: Made) -> None:
    world = wallets(together_max=4, at_once=4, batch_seconds=0.8, pace=Pace(seconds_max=60))
    world.approved(12)
    world.paying.work.submit()
    world.provider.misbehave(Rule("ask", "slow", seconds=0.45), Rule("callback", "none"))
    assert world.ask_later() == 12
    assert world.states() == {"paid"}


def test_checking_payees_of_a_slow_rail_ends_in_time_and_goes_on_at_once(wallets: Made) -> None:
    world = wallets(checks=True, pace=Pace(seconds_max=1.5), timeout_seconds=30)
    world.provider.misbehave(Rule("ask", "slow", seconds=1.0))
    for number in range(24):
        world.paying.ask(world.person, world.payee, 100 + number, rail="momo")
    world.paying.work.submit()
    checked = world.paying.rows("SELECT id FROM products.payout WHERE state = 'awaiting_member'")
    assert 8 <= len(checked) < 24
    world.provider.misbehave()
    for _ in range(4):  # nobody waits for a lease
        world.paying.work.submit()
    assert world.states() == {"awaiting_member"}


def test_an_adapter_that_is_replaced_serves_whoever_has_it_to_the_end(wallets: Made) -> None:
    world = wallets()
    before = world.rails.adapter(world.rail)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(world.rails.adapter(world.rail))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [before] * 8
    after = world.rails.adapter(world.reconfigured(together_max=7))
    assert (after is before, after.together_max) == (False, 7)
    attempt = world.rail.id
    (told,) = before.ask([Sent(attempt, attempt, None, datetime.now(UTC))])
    assert told.state == "not_found"


def test_a_worker_that_was_held_up_does_not_undo_what_others_found_out_since(wallets: Made) -> None:
    world = wallets(forgets_after_seconds=0)
    world.provider.misbehave(
        Rule("before", "time_out", first=1, seconds=SILENCE_SECONDS), Rule("outcome", "never")
    )
    [payout] = world.approved()
    world.paying.work.submit()
    assert world.paying.state(payout) == "unknown: no_answer"
    books, database = world.paying.world.books, world.paying.databases.worker
    world.paying.clock.advance(timedelta(hours=2))
    asked = database.run(
        lambda tx: submission.due_to_ask(tx, books, world.rail, limit=9, asks_after=timedelta(seconds=1))
    )
    told = world.rails.adapter(world.rail).ask(asked)
    assert [one.state for one in told] == ["not_found"]

    def held_up_so_long() -> list[str]:
        return [
            one.outcome
            for one in database.run(
                lambda tx: reports.apply(tx, books, world.rail, told, asked=asked, forgets_after_seconds=0)
            )
        ]

    world.ask_later()
    world.provider.misbehave(Rule("after", "time_out", seconds=SILENCE_SECONDS), Rule("outcome", "never"))
    world.paying.clock.advance(timedelta(hours=2))
    world.paying.work.submit()  # another sends it again, and its answer is lost
    assert held_up_so_long() == ["outdated"]
    assert world.paying.attempt(payout)["state"] == "unknown", "it would be sent again with another under way"
    world.provider.misbehave(Rule("outcome", "never"))
    world.ask_later()
    assert world.paying.state(payout) == "in_transit"
    assert held_up_so_long() == ["outdated"]
    assert world.paying.row(payout)["problem"] is None, "nobody need look at it"


def test_a_paid_payment_that_is_asked_about_again_is_asked_until_there_is_an_answer(wallets: Made) -> None:
    world = wallets()
    [payout] = world.approved()
    world.paying.work.submit()
    eventually(lambda: world.ask_later() and world.paying.state(payout) == "paid")
    [payment] = world.provider.books.payments.values()
    world.provider.undo(payment, "reversed")
    attempt = world.paying.attempt(payout)["id"]
    books, database, clock = world.paying.world.books, world.paying.databases.worker, world.paying.clock
    called_at = clock.now()
    clock.advance(timedelta(seconds=1))
    again = Report("unknown", attempt, code="callback_unconfirmed", ask_again_at=clock.now())
    database.run(lambda tx: reports.apply(tx, books, world.rail, [again], source="callback"))
    earlier = Report("paid", attempt)  # what a worker was told just before
    database.run(lambda tx: reports.apply(tx, books, world.rail, [earlier], called_at=called_at))
    world.provider.misbehave(Rule("ask", "reset"))
    assert world.ask_later() == 1
    assert world.paying.state(payout) == "paid"
    world.provider.misbehave()
    assert world.ask_later() == 1
    assert world.paying.state(payout) == "returned: other"
    assert world.ask_later() == 0
