"""By what a bank may know what the books posted, and what is expected at the bank; each world is verified at its end."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from ledger.reconciliation.rules import of_account
from products.payouts import funding
from products.payouts import registry as rails
from products.reconciliation import run
from products.reconciliation.sources import refresh
from tests.conftest import Databases
from tests.integration.reconciliation.bank import Bank, entry
from tests.integration.reconciliation.counting import ACME_ACCOUNT, Counting
from tests.integration.remittals.conftest import SSF, Agencies
from tests.integration.settlements.test_settlements import agree
from tests.settled import all_settled
from tests.tying import expect_all_ties
from tests.world import World

NAMES = "kind, amount, end_to_end, reference, identifiers, party, batch, day, subject"


@pytest.fixture
def counting(databases: Databases, clock: FixedClock) -> Iterator[Counting]:
    """A world that is verified when the test is done with it."""
    made = Counting(databases, clock)
    yield made
    expect_all_ties(databases)


def named(counting: Counting, kind: str) -> dict[str, Any]:
    """The only booked item of a kind, by what a bank may know it."""
    (row,) = counting.paying.rows(
        f"SELECT {NAMES} FROM ledger.item WHERE source = 'booked' AND kind = %s", kind
    )
    return {name: value for name, value in row.items() if value not in (None, [])}


def test_what_the_books_posted_is_known_by_the_names_that_travel_with_it(counting: Counting) -> None:
    counting.bank_rail()
    counting.paying.a_rail("wallet", funded="float")
    partner = counting.net_partner()
    member = counting.world.member(partner)
    counting.world.send(partner, counting.world.completed(member, collected=10_000))
    settled = counting.world.settle(partner, 10_000, through=counting.today)
    counting.world.fund(50_000, reference="MINECOFIN 2026/3")
    [payout] = counting.sent(counting.paying.person(), 5_000)
    attempt = counting.paying.attempt(payout)
    counting.statement(counting.line(-5_000, end_to_end=attempt["id"].hex))
    with counting.databases.worker.begin() as tx:
        wallet = rails.find(tx, "wallet")
        funding.top_up(tx, counting.world.books, wallet, 7_000, reference="week:10")
    counting.reconcile()

    pay, stl = public_id("pay", payout), public_id("stl", settled.id)
    hex_, batch = attempt["id"].hex, attempt["batch_id"].hex
    assert named(counting, "payout_paid") == {
        "kind": "payout_paid",
        "amount": -5_000,
        "end_to_end": hex_,
        "reference": hex_,  # a bank knows a payment by no other
        "identifiers": [pay.upper(), hex_.upper(), batch.upper(), f"{batch.upper()}-01"],
        "party": "kigali-bank",
        "batch": batch,
        "day": attempt["asked_on"],
        "subject": pay,
    }
    assert named(counting, "settlement_received") == {
        "kind": "settlement_received",
        "amount": 10_000,
        "reference": "acme-net:RWF:10000:2026-03-02",
        "identifiers": [stl.upper()],
        "party": "acme-net",
        "day": date(2026, 3, 2),
        "subject": stl,
    }
    assert named(counting, "sponsor_paid_in") == {
        "kind": "sponsor_paid_in",
        "amount": 50_000,
        "reference": "MINECOFIN 2026/3",
        "party": "gov-rw",
    }
    assert named(counting, "rail_topped_up") == {
        "kind": "rail_topped_up",
        "amount": -7_000,
        "reference": "week:10",
        "party": "wallet",
    }


def test_what_a_fund_without_an_account_is_owed_comes_to_the_savers_and_remittals_bear_the_banks_reference(
    databases: Databases, clock: FixedClock
) -> None:
    world = World(databases, clock)
    world.programme(SSF)
    ssf = Agencies(world, world.partner(programme=SSF))
    bank = Bank(databases, world.books.keyring, clock, rules_of=of_account)
    savers = bank.account("ssf-savers", fund=f"{SSF}/savers", since=date(2026, 1, 1))
    person = ssf.person("0001")
    ssf.pay(person)
    run.reconcile(databases.worker, world.books)
    bank.sends(bank.says([entry(1, 213_300, ssf.today, currency="NPR")], account="RW380001", currency="NPR"))
    report = run.reconcile(databases.worker, world.books)
    assert [(one.bank_account, one.confirmed) for one in report.accounts] == [("ssf-savers", 1)]
    # the savers hold the agency's money, and say so
    assert ssf.holds("partner_receivable") == 0
    assert ssf.holds("due_from_funds") == ssf.holds("due_to_funds") == 213_300
    (cash,) = rows(databases, "SELECT cash_fund, state FROM products.settlement")
    assert cash == {"cash_fund": savers.fund_id, "state": "paired"}

    # from when on the agency's fund has an account of its own, what it is owed is expected there
    agency = bank.account("ssf-agency", fund=f"{SSF}/agency", number="AGENCY 1", since=date(2026, 1, 1))
    ssf.pay(ssf.person("0002"), at=clock.now() - timedelta(days=1))
    run.reconcile(databases.worker, world.books)
    assert rows(
        databases,
        "SELECT bank_account_id, amount FROM ledger.item WHERE source = 'settlement' AND closed_at IS NULL",
    ) == [{"bank_account_id": agency.id, "amount": 213_300}]

    ssf.settle(213_300)
    remittal = ssf.make().remittal
    ssf.send(remittal)
    ssf.clear(remittal)
    all_settled(databases.worker)
    run.reconcile(databases.worker, world.books)
    (item,) = rows(
        databases,
        "SELECT amount, reference, party, subject, identifiers FROM ledger.item WHERE kind = 'remittal_cleared'",
    )
    assert item == {
        "amount": -remittal.amount,
        "reference": "PAY-1",
        "party": SSF,
        "subject": remittal.public_id,
        "identifiers": [remittal.public_id.upper()],
    }
    expect_all_ties(databases)


def test_what_is_expected_is_net_of_fees_and_credits_and_ends_when_it_is_paid_otherwise(
    counting: Counting,
) -> None:
    partner = counting.net_partner()
    agree(counting.world, partner, pays="net_of_fees", fee_fixed=100, fee_borne_by="administrator")
    member = counting.world.member(partner)
    counting.clock.advance(timedelta(days=3))
    counting.world.send(
        partner,
        counting.world.completed(member, collected=10_000, remittance_id="FIRST"),
    )
    counting.reconcile()
    assert counting.expected() == [("settlement", 9_900)]
    counting.world.settle(partner, 9_900)
    counting.reconcile()
    assert counting.expected() == []
    counting.world.send(partner, counting.world.reversed("FIRST"), approved=True)
    counting.world.send(partner, counting.world.completed(member, collected=20_000))
    counting.reconcile()
    assert counting.expected() == [
        ("settlement", 10_000)
    ]  # 20 000, less a fee of 100 and the 9 900 paid in before
    [line] = counting.statement(counting.line(10_000, account=ACME_ACCOUNT))
    counting.reconcile()
    assert counting.is_paired(line)
    assert counting.balance("partner_receivable", partner.slug) == 0
    assert counting.databases.worker.run(lambda tx: refresh(tx, counting.clock)) == 0


def test_ids_are_spelled_alike_by_the_database_and_by_us(databases: Databases) -> None:
    ids = [UUID(int=0), UUID(int=2**128 - 1), *(new_id() for _ in range(50))]
    with databases.worker.begin() as tx:
        spelled = tx.exec_driver_sql(
            "SELECT ledger.public_id('pay', id) FROM unnest(%s::uuid[]) WITH ORDINALITY AS t (id, n) ORDER BY n",
            (ids,),
        ).scalars()
        assert list(spelled) == [public_id("pay", one) for one in ids]


def rows(databases: Databases, query: str) -> list[dict[str, Any]]:
    """Rows as the worker sees them."""
    with databases.worker.begin() as tx:
        return [dict(row) for row in tx.exec_driver_sql(query).mappings()]
