"""Payouts by bank file from end to end: the worker makes the file, a manager brings the bank's answers, and the books follow."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from api.bootstrap import Services, bootstrap
from api.payment_answers import take
from api.settings import Settings
from integrations.rails import bank_file
from integrations.rails.bank_file import store
from integrations.rails.directory import validated
from integrations.rails.setting import Setting
from ledger.clock import FixedClock
from products.members import payees, registry
from products.members.payees import NewPayee
from products.payouts import registry as rails
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee
from products.payouts.tie import tie
from tests.conftest import Databases
from tests.integration.payouts.paying import LIMITS, Paying
from tests.integration.rails.bank import Bank
from tests.integration.rails.test_bank_file import OPTIONS
from tests.world import Person


@pytest.fixture
def process(settings: Settings, clock: FixedClock) -> Iterator[Services]:
    """The services of a process that takes answers."""
    with closing(bootstrap(settings, clock=clock)) as services:
        yield services


def test_a_file_pays_and_what_is_refused_or_comes_back_is_the_members_again(
    process: Services, databases: Databases, clock: FixedClock
) -> None:
    paying = Paying.on(databases, clock)
    books = paying.world.books
    services = replace(process, keyring=books.keyring, books=books)
    kept, _ = validated("bank_file", OPTIONS, {})
    new = NewRail(
        slug="kigali-bank",
        kind="bank_file",
        payee_kinds=("bank",),
        checks_payees=True,
        funded="bank",
        fee=Fee(0, 0, "fund"),
        arrival=Arrival("business_days", 1, 2, ("RW",)),
        limits=LIMITS,
        options=kept,
    )
    with databases.worker.begin() as tx:
        rail = rails.create(tx, paying.world.programmes["ejoheza"], new, clock=clock)
    person = paying.person()
    account = bank_payee(paying, person, "Aline Uwase")
    unwritable = bank_payee(paying, person, "राम बहादुर")
    clock.advance(timedelta(hours=72))

    def payout(payee: UUID, amount: int) -> UUID:
        return paying.ask(person, payee, amount, rail="kigali-bank")

    refused = payout(unwritable, 500)
    payouts = [payout(account, amount) for amount in (1_001, 1_002, 1_003)]
    paying.work.submit()  # looks at the payees
    assert paying.state(refused).startswith("cancelled")  # before anything was captured
    for one in payouts:
        paying.approve(person, one)
    paying.work.submit()
    assert {paying.state(one) for one in payouts} == {"submitted"}
    assert paying.balance("payout_clearing", "kigali-bank") == 3_006

    with databases.worker.begin() as tx:
        (file,) = store.files(tx, rail="kigali-bank", limit=10)
        bank = Bank.given(store.fetch(tx, paying.world.books.keyring, clock, file.id)[1])
    assert sorted(order.amount for order in bank.orders) == ["1001", "1002", "1003"]
    by_amount = {order.amount: order.end_to_end for order in bank.orders}

    def bring(content: bytes) -> Any:
        clock.advance(timedelta(minutes=5))
        return databases.worker.run(lambda tx: take(tx, services, "kigali-bank", content, programmes=None))

    paid, failed, returned = (by_amount[amount] for amount in ("1001", "1002", "1003"))
    answers = [
        bank.says(clock.now(), "ACCP"),
        bank.says(
            clock.now() + timedelta(hours=1), "PART", {failed: "RJCT/AC01", paid: "ACSC", returned: "ACSC"}
        ),
        bank.brings_back(clock.now() + timedelta(days=3), {returned: "AC04"}),
    ]
    bring(answers[0])
    assert {paying.state(one) for one in payouts} == {"submitted"}
    clock.advance(timedelta(hours=2))
    bring(answers[1])
    assert [paying.state(one) for one in payouts] == ["paid", "failed: payee_unknown", "paid"]
    clock.advance(timedelta(days=3))
    bring(answers[2])
    for again in answers:
        assert bring(again).replayed
    assert [paying.state(one) for one in payouts] == [
        "paid",
        "failed: payee_unknown",
        "returned: payee_closed",
    ]
    assert paying.history(payouts[2])[-2:] == ["paid", "returned"]
    assert paying.balance("payout_clearing", "kigali-bank") == 0
    assert paying.balance("member_savings", person.enrolments["savings"].hex) == 20_000 - 1_001

    clock.advance(timedelta(minutes=10))
    paying.work.ask()
    with databases.worker.begin() as tx:
        since, until = clock.now() - timedelta(days=30), clock.now()
        setting = Setting(clock, "sandbox", "", databases.worker, books.keyring, rail.slug, rail.currency)
        adapter = bank_file.build(rail.options, {}, setting)
        tied = tie(tx, rail, adapter.listed(since, until), since=since, until=until)
    assert (tied.ties, tied.paid_ours, tied.paid_theirs) == (True, 1_001, 1_001)


def bank_payee(paying: Paying, person: Person, name: str) -> UUID:
    with paying.databases.worker.begin() as tx:
        keyring = paying.world.books.keyring
        account = {"account": "4001-9", "bank_code": "BKIGRWRW", "country": "RW"}
        made = payees.propose(
            tx,
            keyring,
            registry.find(tx, keyring, person.link_id),
            NewPayee(name, "bank", account),
            released=True,
            public_url="https://mizan.example",
            at=paying.clock.now(),
        )
    return made.id
