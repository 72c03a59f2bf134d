"""What partners announced, what they settled and what the bank shows, day by day: nothing is counted twice, nothing is lost."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import pytest

from ledger.clock import FixedClock
from ledger.errors import InvalidInput
from products.reconciliation import rail_days, three_way
from products.reconciliation.three_way import Amounts, Asked, Row
from products.settlements.returns import return_settlement
from tests.conftest import Databases
from tests.integration.reconciliation.counting import ACME_ACCOUNT, Counting
from tests.tying import expect_all_ties

DAY = timedelta(days=1)
PESOS: dict[str, object] = {"amount": {"amount": 50_000, "currency": "PHP"}}
FIRST, LAST = date(2026, 2, 1), date(2026, 3, 31)


@pytest.fixture
def counting(databases: Databases, clock: FixedClock) -> Iterator[Counting]:
    """A world that is verified when the test is done with it."""
    made = Counting(databases, clock)
    yield made
    expect_all_ties(databases)


def rows(counting: Counting, **asked: object) -> dict[tuple[int, str], Row]:
    """The rows by month and day, and partner."""
    with counting.databases.worker.read() as tx:
        found = three_way.rows(tx, counting.clock, replace(Asked(FIRST, LAST), **asked))  # type: ignore[arg-type]  # values of a test
    return {(row.on.month * 100 + row.on.day, row.partner): row for row in found}


def total(found: dict[tuple[int, str], Row]) -> Amounts:
    """What the rows add up to, which identities must hold for each and for all."""
    for amounts in (row.amounts for row in found.values()):
        assert amounts.announced + amounts.credited == (
            amounts.prefunded + amounts.settled + amounts.written_off + amounts.fees_open + amounts.owed
        )
    return three_way.totals(found.values()).get("RWF", Amounts())


def shown_by_lines(counting: Counting, *lines: object) -> int:
    """What statement lines say together."""
    [row] = counting.paying.rows(
        "SELECT coalesce(sum(amount), 0)::bigint AS amount FROM ledger.statement_line WHERE id = ANY (%s)",
        list(lines),
    )
    return int(row["amount"])


def test_each_day_of_a_partner_shows_what_it_announced_what_it_settled_and_what_the_bank_says(
    counting: Counting,
) -> None:
    partner = counting.net_partner()
    person = counting.world.member(partner)
    now = counting.clock.now()
    events = [
        counting.world.completed(person, collected=collected, at=now - ago * DAY)
        for collected, ago in ((10_000, 3), (10_013, 3), (11_007, 2), (7_001, 1))
    ]
    counting.world.send(partner, *events)
    found = rows(counting)
    assert {key: (row.amounts.announced, row.amounts.owed, row.state) for key, row in found.items()} == {
        (227, "acme-net"): (20_013, 20_013, "not_due"),
        (228, "acme-net"): (11_007, 11_007, "not_due"),
        (301, "acme-net"): (7_001, 7_001, "not_due"),
    }
    assert (found[227, "acme-net"].expected_on, found[228, "acme-net"].expected_on) == (
        date(2026, 3, 2),
        date(2026, 3, 3),
    )

    # one line pays for two days, another less than a day
    both, less = counting.statement(
        replace(counting.line(31_020, account=ACME_ACCOUNT), value_on=date(2026, 3, 4)),
        counting.line(6_000, 2, account=ACME_ACCOUNT),
    )
    counting.reconcile()
    found = rows(counting)
    assert {
        key: (row.amounts.settled, row.amounts.bank, row.amounts.unmatched, row.state)
        for key, row in found.items()
    } == {
        (227, "acme-net"): (20_013, 20_013, 0, "tied"),
        (228, "acme-net"): (11_007, 11_007, 0, "tied"),
        (301, "acme-net"): (0, 0, 0, "not_due"),
        (302, "acme-net"): (0, 0, 6_000, "unmatched"),
    }
    [line] = found[228, "acme-net"].lines
    assert (line.id, line.amount, line.booked_on, line.value_on) == (
        both,
        31_020,
        date(2026, 3, 2),
        date(2026, 3, 4),
    )
    assert [line.id for line in found[302, "acme-net"].lines] == [less]
    assert found[227, "acme-net"].settlements == found[228, "acme-net"].settlements != []
    assert total(found).received == total(found).bank == 31_020

    # settled in the books alone, and more than was owed
    counting.world.settle(partner, 7_501)
    counting.reconcile()
    found = rows(counting)
    assert (found[301, "acme-net"].amounts.settled, found[301, "acme-net"].amounts.bank) == (7_001, 0)
    assert found[301, "acme-net"].state == "awaiting_bank"
    assert found[302, "acme-net"].amounts.beyond == 500
    assert (total(found).received, total(found).settled_less_bank) == (counting.balance("bank"), 7_501)

    # reversed after it was settled: the partner's credit, which its next payment leaves out
    counting.world.send(partner, counting.world.reversed(events[1].remittance_id), approved=True)
    found = rows(counting)
    assert (found[227, "acme-net"].amounts.credited, found[227, "acme-net"].state) == (10_013, "credit")
    assert found[227, "acme-net"].amounts.announced_less_settled == -10_013
    counting.world.send(partner, counting.world.completed(person, collected=15_000))
    [netted, late] = counting.statement(
        counting.line(15_000 - 10_013 - 500, account=ACME_ACCOUNT),
        counting.line(7_501, 2, account=ACME_ACCOUNT),
    )
    counting.reconcile()
    found = rows(counting)
    assert counting.is_paired(netted)
    assert counting.is_paired(late)
    today = found[302, "acme-net"]
    assert (today.amounts.settled, today.amounts.credits, today.amounts.settled_less_bank) == (
        15_000,
        10_513,
        0,
    )
    sums = total(found)
    assert (sums.received, sums.bank) == (
        counting.balance("bank"),
        shown_by_lines(counting, both, netted, late),
    )
    assert (sums.settled_less_bank, sums.unmatched) == (0, 6_000)

    # the bank takes the first payment back, and says so a day later
    [first] = [
        row["id"] for row in counting.paying.rows("SELECT id FROM products.settlement WHERE amount = 31020")
    ]
    counting.databases.worker.run(
        lambda tx: return_settlement(tx, counting.world.books, first, reason="AC04")
    )
    counting.reconcile()
    found = rows(counting)
    assert (found[228, "acme-net"].amounts.settled, found[228, "acme-net"].amounts.owed) == (0, 11_007)
    assert total(found).settled_less_bank == -31_020  # the bank shows it still
    assert total(found).received == counting.balance("bank")
    counting.statement(counting.line(-31_020, account=ACME_ACCOUNT))
    counting.reconcile()
    assert total(rows(counting)).settled_less_bank == 0

    counting.clock.advance(10 * DAY)
    found = rows(counting, state="overdue")
    assert {(key[0], row.days_overdue, row.days_since) for key, row in found.items()} == {
        (227, 10, 13),
        (228, 9, 12),
    }


def test_rows_are_chosen_by_days_partner_fund_currency_and_state_and_add_up_by_currency(
    counting: Counting,
) -> None:
    world = counting.world
    guaranteed, net = counting.paying.partner, counting.net_partner()
    prefunded = world.partner("prepaid", terms="prefunded")
    pesos = world.partner("padala", programme="mp2")
    world.settle(prefunded, 50_000)
    for partner in (guaranteed, net, prefunded):
        world.send(partner, world.completed(world.member(partner), collected=20_000))
    saver = world.member(
        pesos, programme="mp2", products=["mp2"], choice={"amount": {"amount": 50_000, "currency": "PHP"}}
    )
    world.send(pesos, world.completed(saver, received=1_000_000, collected=50_000, currency="PHP"))
    found = rows(counting)
    assert {
        key[1]: (row.amounts.announced, row.amounts.prefunded, row.amounts.owed, row.state)
        for key, row in found.items()
    } == {
        "acme": (20_000, 0, 20_000, "not_due"),
        "acme-net": (20_000, 0, 20_000, "not_due"),
        "padala": (50_000, 0, 50_000, "not_due"),
        "prepaid": (20_000, 20_000, 0, "awaiting_bank"),
    }
    assert found[302, "prepaid"].amounts.beyond == 50_000  # its top-up, which no statement shows yet
    assert {of: one.announced for of, one in three_way.totals(found.values()).items()} == {
        "PHP": 50_000,
        "RWF": 60_000,
    }
    assert [key[1] for key in rows(counting, currency="PHP")] == ["padala"]
    assert [key[1] for key in rows(counting, programme="mp2")] == ["padala"]
    assert [key[1] for key in rows(counting, partner="acme")] == ["acme"]
    assert [key[1] for key in rows(counting, fund="mp2/savers")] == ["padala"]
    assert [key[1] for key in rows(counting, programmes=frozenset({world.programmes["mp2"]}))] == ["padala"]
    assert [key[1] for key in rows(counting, state="awaiting_bank")] == ["prepaid"]
    assert rows(counting, since=date(2026, 3, 3)) == {}
    for span in ((date(2026, 3, 2), date(2026, 3, 1)), (date(2025, 1, 1), date(2026, 3, 1))):
        with pytest.raises(InvalidInput):
            three_way.span(*span, date(2026, 3, 2))
    assert three_way.span(None, None, date(2026, 3, 31)) == (date(2026, 3, 1), date(2026, 3, 31))


def test_each_day_of_a_rail_shows_what_was_asked_confirmed_and_seen_at_the_bank(counting: Counting) -> None:
    counting.bank_rail()
    person = counting.paying.person(saved=40_000)
    batch = counting.sent(person, 1_001, 1_002)
    [day] = shown = rails(counting)
    assert (day.rail, day.asked, day.submitted, day.confirmed, day.bank, day.state) == (
        "kigali-bank", 2_003, 2_003, 0, 0, "under_way",
    )  # fmt: skip
    end_to_end = counting.paying.attempt(batch[0])["id"].hex
    counting.statement(counting.line(-1_001, end_to_end=end_to_end))
    counting.reconcile()
    [day] = shown = rails(counting)
    assert (day.confirmed, day.bank, day.under_way, day.payments) == (1_001, 1_001, 1_002, 2)
    assert rail_days.totals(shown)["RWF"]["bank"] == 1_001
    assert rails(counting, state="tied") == rails(counting, rail="sim") == []


def rails(counting: Counting, **asked: object) -> list[rail_days.RailDay]:
    """The rails' days."""
    with counting.databases.worker.read() as tx:
        return rail_days.rows(tx, counting.clock, FIRST, LAST, **asked)  # type: ignore[arg-type]  # values of a test
