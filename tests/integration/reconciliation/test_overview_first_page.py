"""The daily first page: what is there and what is owed, fund by fund; it ties to the books of the same snapshot, to the last unit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pytest

from ledger.clock import FixedClock
from ledger.errors import InvalidInput, NotFound
from products.reconciliation import by_hand
from products.reconciliation.first_page import FirstPage, FundPage, first_page
from tests.conftest import Databases
from tests.integration.payouts.paying import LIMITS
from tests.integration.reconciliation.counting import Counting
from tests.integration.remittals.conftest import SSF, Agencies
from tests.tying import expect_all_ties

DAY = timedelta(days=1)
PESOS: dict[str, object] = {"amount": {"amount": 50_000, "currency": "PHP"}}


@dataclass
class Morning:
    """A morning in the office of the fund: something of everything has happened."""

    counting: Counting

    def page(self, **asked: object) -> FirstPage:
        """The first page, from one snapshot."""
        with self.counting.databases.worker.read() as tx:
            return first_page(tx, self.counting.world.books, **asked)  # type: ignore[arg-type]  # values of a test

    def fund(self, code: str, **asked: object) -> FundPage:
        """One fund's page."""
        [found] = [one for one in self.page(**asked).funds if one.fund.code == code]
        return found

    def posted(self) -> dict[tuple[str, str, str], int]:
        """What each fund's accounts hold by code and currency, on the debit side, from the postings themselves."""
        rows = self.counting.paying.rows(
            "SELECT f.code AS fund, a.currency, a.code, sum(s.amount)::bigint AS amount FROM ("
            " SELECT debit_account AS id, amount FROM ledger.posting UNION ALL SELECT credit_account, -amount FROM ledger.posting"
            ") s JOIN ledger.account a ON a.id = s.id JOIN ledger.fund f ON f.id = a.fund_id GROUP BY 1, 2, 3"
        )
        return {(row["fund"], row["currency"], row["code"]): row["amount"] for row in rows}


@pytest.fixture
def morning(databases: Databases, clock: FixedClock) -> Iterator[Morning]:
    """Monday is over: it is Thursday, 5 March, in Kigali."""
    counting = Counting(databases, clock)
    world, paying = counting.world, counting.paying
    paying.a_rail("careful", limits=replace(LIMITS, release_above=1_000))
    net = world.partner("acme-net", exposure_ceiling=20_000)
    person = paying.person(saved=30_000)
    world.send(paying.partner, world.completed(person, collected=10_000))
    world.send(net, world.completed(world.member(net), collected=9_000, at=clock.now() - 4 * DAY))
    [receipt, unpaired, paid] = counting.statement(
        counting.line(900), counting.line(700, 2), counting.line(30_250, 3, says="thanks")
    )
    del unpaired
    payee = paying.payee(person)
    world.settle(paying.partner, 30_250, through=date(2026, 3, 2))
    world.send(net, world.completed(world.member(net), collected=5_000))
    paying.approved(person, payee, 1_042)
    paying.work.submit()
    paying.approved(person, payee, 2_000)
    paying.approved(person, payee, 3_000, rail="careful")
    counting.databases.worker.run(
        lambda tx: by_hand.receive(tx, world.books, receipt, remark="whose is it?", actor="opr_test")
    )
    pesos = world.partner("padala", programme="mp2")
    saver = world.member(pesos, programme="mp2", products=["mp2"], choice=PESOS)
    world.send(pesos, world.completed(saver, received=1_000_000, collected=50_000, currency="PHP"))
    agency = Agencies(world, world.partner("nepal-pay", programme=SSF))
    insured = agency.person("SSF-1")
    agency.pay(insured)
    agency.pay(insured, 1_000)
    agency.settle(213_300)
    agency.make()
    counting.reconcile()
    assert counting.is_paired(paid)
    yield Morning(counting)
    expect_all_ties(databases)


def test_the_page_ties_to_the_books_and_says_what_needs_a_hand(morning: Morning) -> None:
    page = morning.page()
    posted = morning.posted()
    lines = {
        (one.fund.code, one.currency, line.code): line.amount
        if line.kind in ("asset", "expense")
        else -line.amount
        for one in page.funds
        for line in one.position.lines
    }
    assert lines == posted
    for one in page.funds:
        position = one.position
        assert position.total("asset") - position.owed == position.result
        assert sum(amount for _, amount in position.because) == position.surplus
        assert "receivable_unexplained" not in dict(position.because)
        for account in one.bank_accounts:
            assert account.books == posted[one.fund.code, one.currency, account.code]
    assert {(one.fund.code, one.currency): one.mirrored for one in page.funds} == {
        ("ejoheza/savers", "RWF"): True,
        ("mp2/savers", "PHP"): False,
        ("ssf-nepal/agency", "NPR"): False,
        ("ssf-nepal/savers", "NPR"): False,
    }

    savers = morning.fund("ejoheza/savers")
    assert (savers.on, savers.fund.programme) == (date(2026, 3, 5), "ejoheza")
    position = savers.position
    assert position.cash == 31_150
    # members' 40,000 through the guaranteed partner, on its way or not, and 14,000 that the net partner still has
    assert position.owed == 40_000 + 14_000 + 900 + 250
    assert position.waiting is not None
    assert (position.waiting.net, position.waiting.guaranteed, position.waiting.credits) == (
        14_000,
        10_000,
        0,
    )
    assert (position.owed_and_settled, position.surplus) == (41_150, -10_000)
    assert dict(position.because) == {"advanced": -10_000}

    present = savers.present
    assert present is not None
    exposures = {one.partner: one for one in present.receivables}
    assert exposures["acme-net"].by_bucket["1-7"] == 9_000
    assert exposures["acme-net"].by_bucket["not_due"] == 5_000
    assert (exposures["acme-net"].balance, exposures["acme-net"].tenths_used) == (14_000, 700)
    assert sum(present.by_bucket.values()) == 24_000
    assert (present.unidentified.amount, present.unidentified.count, present.unidentified.oldest) == (
        1_150,
        2,
        date(2026, 3, 2),
    )
    [unknown] = present.unknown
    assert (unknown.rail, unknown.amount, unknown.count) == ("sim", 1_042, 1)
    need = present.need
    assert need.day == date(2026, 3, 6)
    assert {one.rail: (one.queued, one.held, one.under_way, one.need) for one in need.rails} == {
        "sim": (2_000, 0, 1_042, 3_042),
        "careful": (0, 3_000, 0, 3_000),
    }
    assert (need.bank_need, need.expected, need.overdue) == (6_042, 5_000, 19_000)

    [bank] = savers.bank_accounts
    assert (bank.books, bank.statement, bank.statement_on) == (31_150, 31_850, date(2026, 3, 2))
    assert (bank.open_lines, bank.open_in, bank.open_since) == (1, 700, date(2026, 3, 2))
    assert {one.days: (one.moved, one.tied) for one in savers.tied}[90] == (31_150, 31_150)

    agency = morning.fund("ssf-nepal/agency").present
    assert agency is not None
    assert (agency.need.remittals.made, agency.need.remittals.made_count, agency.need.remittals.to_make) == (
        213_300,
        1,
        0,
    )
    assert agency.need.bank_need == 213_300
    pesos = morning.fund("mp2/savers")
    assert (pesos.bank_accounts, pesos.tied, pesos.position.surplus) == ((), (), 0)


def test_the_page_is_of_a_day_that_has_come_and_of_the_programmes_that_may_be_seen(morning: Morning) -> None:
    now, then = morning.fund("ejoheza/savers"), morning.fund("ejoheza/savers", on=date(2026, 3, 2))
    assert (then.on, then.position.cash) == (date(2026, 3, 2), 900)  # the rest was booked on Thursday
    assert (then.present, then.position.surplus, then.position.because) == (None, None, ())
    assert then.position.owed == 40_000 + 9_000 + 900
    [bank] = then.bank_accounts
    assert (bank.books, bank.statement, bank.difference) == (900, 31_850, 900 - 31_850)
    assert now.position.cash - then.position.cash == 30_250
    with pytest.raises(InvalidInput):
        morning.page(on=date(2026, 3, 6))
    programmes = morning.counting.world.programmes
    assert {one.fund.code for one in morning.page(programme=SSF).funds} == {
        "ssf-nepal/agency",
        "ssf-nepal/savers",
    }
    sight = frozenset({programmes["mp2"]})
    assert {one.fund.code for one in morning.page(programmes=sight).funds} == {"mp2/savers"}
    for programme in (SSF, "nowhere"):
        with pytest.raises(NotFound):
            morning.page(programme=programme, programmes=sight)
