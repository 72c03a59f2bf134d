"""What is missing between statements, and what they have twice, is found."""

from dataclasses import replace
from datetime import date

import pytest

from ledger.clock import FixedClock
from ledger.reconciliation.gaps import Gap, gaps
from ledger.reconciliation.statements import Line, StatementEvent
from tests.conftest import Databases
from tests.integration.reconciliation.bank import Bank, entry
from tests.world import World


@pytest.fixture
def bank(databases: Databases, clock: FixedClock) -> Bank:
    world = World(databases, clock)
    world.programme()
    bank = Bank(databases, world.books.keyring, clock)
    bank.account()
    return bank


def day(number: int) -> date:
    return date(2026, 3, number)


def of_day(
    bank: Bank, on: int, opening: int, *amounts: int, number: str | None = None, to: int | None = None
) -> list[StatementEvent]:
    lines = [entry(place, amount, day(on)) for place, amount in enumerate(amounts, start=1)]
    return bank.says(lines, opening=opening, days=(day(on), day(to or on)), number=number)


def found(bank: Bank, through: date | None = None) -> list[Gap]:
    with bank.databases.api.begin() as tx:
        tx.exec_driver_sql("SELECT set_config('mizan.access', 'staff', true)")
        return gaps(tx, bank.accounts["kigali-savers"].id, through=through)


def kinds(bank: Bank) -> list[str]:
    return [gap.kind for gap in found(bank)]


def test_statements_that_go_on_have_no_gaps_with_quiet_days_between_and_several_on_a_day(bank: Bank) -> None:
    for said in (
        of_day(bank, 1, 0, 100, number="00001/001"),
        of_day(bank, 2, 110, -20, number="2/2"),  # the second page of the day came first
        of_day(bank, 2, 100, 10, number="2/1"),
        of_day(bank, 5, 90, number="3"),  # nothing moved on the 3rd and 4th, nor on the 5th
        of_day(bank, 6, 90, 5, -5, number="4", to=8),
    ):
        bank.sends(said)
    assert found(bank) == []
    assert found(bank, through=day(8)) == []
    (end,) = found(bank, through=day(10))
    assert (end.kind, end.from_on, end.to_on) == ("missing_days", day(9), day(10))


def test_days_balances_and_numbers_that_are_missing_are_named(bank: Bank) -> None:
    for said in (
        of_day(bank, 3, 50, 100, number="11"),
        of_day(bank, 6, 170, 1, number="13"),  # the 4th and 5th are missing, and so is number 12
        of_day(bank, 7, 999, 1, number="14"),
        of_day(bank, 9, 1_000, 1, number="16"),  # quiet days; but the bank has numbered one that never came
    ):
        bank.sends(said)
    start, days, jump, later = found(bank)
    assert (start.kind, start.from_on, start.to_on, start.found) == ("missing_days", day(1), day(2), 50)
    assert (days.kind, days.from_on, days.to_on) == ("missing_days", day(4), day(5))
    assert (days.expected, days.found) == (150, 170)
    assert days.numbers == (12, 12)  # one statement that is missing is one gap
    assert (jump.kind, jump.from_on, jump.expected, jump.found) == ("balance_differs", day(7), 171, 999)
    assert (later.kind, later.numbers) == ("number_skipped", (15, 15))
    # the missing one comes in
    bank.sends(of_day(bank, 4, 150, 20, to=5, number="12"))
    assert kinds(bank) == ["missing_days", "balance_differs", "number_skipped"]


def test_overlaps_are_told_apart_by_whether_they_say_the_same(bank: Bank) -> None:
    bank.sends(
        of_day(bank, 1, 0, 10, number="1"),
    )
    bank.sends(of_day(bank, 2, 10, 20, number="2"))
    week = [entry(1, 10, day(1)), entry(2, 20, day(2)), entry(3, 30, day(3))]
    bank.sends(bank.says(week, days=(day(1), day(3)), number="W10"))
    same = found(bank)
    assert [(gap.kind, gap.from_on, gap.harmless) for gap in same] == [
        ("overlap_same", day(1), True),
        ("overlap_same", day(2), True),
    ]
    bank.sends(of_day(bank, 3, 30, 12, 19, number="3"))
    assert kinds(bank) == ["overlap_same", "overlap_same", "overlap_differs"]
    assert not found(bank)[-1].harmless


def test_a_number_that_came_beside_an_overlapping_statement_is_not_left_out(bank: Bank) -> None:
    for on in (1, 2, 3, 4):
        bank.sends(of_day(bank, on, 10 * on - 10, 10, number=str(on)))
    two = [entry(1, 10, day(2)), entry(2, 10, day(3))]
    bank.sends(bank.says(two, opening=10, days=(day(2), day(3)), number="2"))  # both days once more
    assert set(kinds(bank)) == {"overlap_same"}
    bank.sends(of_day(bank, 6, 40, 10, number="7"))
    assert [gap.numbers for gap in found(bank) if not gap.harmless] == [(5, 6)]


def test_numbers_that_are_days_or_begin_anew_each_year_skip_nothing(bank: Bank) -> None:
    for on, number in ((2, "061"), (4, "063"), (9, "20260309"), (10, "9"), (11, "1"), (12, "x-7")):
        bank.sends(of_day(bank, on, 0, number=number))
    assert found(bank) == []


@pytest.mark.parametrize(("last", "first"), [("260000251", "270000001"), ("2026251", "2027001")])
def test_numbers_that_begin_with_their_year_begin_anew_with_it(bank: Bank, last: str, first: str) -> None:
    for on, number in ((date(2026, 12, 31), last), (date(2027, 1, 2), first)):
        bank.sends(bank.says([], opening=0, days=(on, on), number=number))
    assert found(bank) == []
    on = date(2027, 1, 5)
    bank.sends(bank.says([], opening=0, days=(on, on), number=str(int(first) + 5)))
    assert kinds(bank) == ["number_skipped"]


def test_numbers_that_are_a_year_and_a_day_of_it_skip_nothing(bank: Bank) -> None:
    for on in (6, 9):
        bank.sends(of_day(bank, on, 0, number=f"{day(on):%Y%j}"))
    assert found(bank) == []


def test_days_that_come_in_two_formats_count_once_and_what_one_has_more_counts_too(bank: Bank) -> None:
    def said(fmt: str, *lines: Line, opening: int, days: tuple[int, int], number: str) -> tuple[int, int]:
        """How many of a statement's lines count, and how many were here already."""
        events = bank.says(list(lines), opening=opening, days=(day(days[0]), day(days[1])), number=number)
        (one,) = bank.sends(events, fmt=fmt).statements
        return one.lines - one.duplicates, one.duplicates

    batch = (entry(1, 100, day(2), says="BATCH 7"), entry(2, -5, day(2), says="fee"), entry(3, 30, day(2)))
    opened = (
        replace(batch[0], detail=1, amount=60, end_to_end="E-1"),
        replace(batch[0], detail=2, amount=40, end_to_end="E-2"),
        entry(2, 30, day(2), says="", end_to_end="E-3"),
        entry(3, -5, day(2), says="charges", payer="BANK"),
    )
    quiet = (entry(1, 50, day(4), says="in"), entry(2, -50, day(4), says="out"))
    # each day as MT940, then the week as camt.053, where the batch is opened
    assert said("mt940", *batch, opening=0, days=(2, 2), number="60") == (3, 0)
    assert said("mt940", *quiet, opening=125, days=(4, 4), number="61") == (2, 0)
    week = (*opened, replace(quiet[0], entry=4, text="IN"), replace(quiet[1], entry=5, text="OUT"))
    more = entry(6, 7, day(5))
    assert said("camt.053", *week, more, opening=0, days=(2, 5), number="9") == (1, 6)
    # a day that ends as it began is no continuation of itself, in whatever format it comes
    assert said(
        "camt.053", *(replace(one, text="?") for one in quiet), opening=125, days=(4, 4), number="10"
    ) == (0, 2)
    assert {gap.kind for gap in found(bank)} == {"overlap_same"}
    # another balance, or an entry more: then only what is word for word the same is the same
    assert said("csv", *(replace(one, text="!") for one in quiet), opening=999, days=(4, 4), number="1") == (
        2,
        0,
    )
    three = (quiet[0], replace(quiet[1], text="a"), replace(quiet[1], entry=3, amount=-1, text="b"))
    assert said("csv", *three, opening=200, days=(4, 4), number="2") == (2, 1)
    assert {gap.kind for gap in found(bank)} >= {"overlap_differs"}


def test_a_day_in_two_parts_that_ends_as_it_began_is_known_when_it_comes_again(bank: Bank) -> None:
    bank.sends(of_day(bank, 2, 0, 10, number="5"))
    bank.sends(of_day(bank, 2, 10, -10, number="6"))
    third = bank.sends(of_day(bank, 2, 0, 10, number="7")).statements[0]
    assert third.duplicates == 0  # it goes on where the second ended, and is numbered by itself
    for opening, amount, number in ((0, 10, "5"), (10, -10, "6")):
        (again,) = bank.sends(of_day(bank, 2, opening, amount, number=number), fmt="mt940").statements
        assert again.duplicates == 1
