"""Weeks at the bank whose truth is known, disturbed in every way: no wrong pairing ever, and every disturbance found and typed.

A seed draws a world: what was collected and paid, what the bank makes of each, in which format and order its statements come and
when somebody reconciles. ``MIZAN_TESTS_FUZZ=50`` draws fifty new worlds, and prints the seed of each.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from ledger.accounts import open_accounts
from ledger.clock import FixedClock
from ledger.database import Database
from ledger.errors import NotFound
from ledger.ids import new_id
from ledger.reconciliation import pairings
from ledger.reconciliation.pairings import AlreadyPaired
from products import chart
from products.keyring import Keyring
from products.programmes.registry import Programmes
from products.reconciliation import run
from products.remittances.context import Books
from tests.conftest import FUZZ, Databases
from tests.dying import Step, die_after, expect_killed
from tests.integration.reconciliation.counting import ACME_ACCOUNT, Counting
from tests.simulation.banking import DAY, LAST, NAME, NAMED, START, Case, Said, Weeks
from tests.simulation.truthful_bank import TruthfulBank
from tests.tying import expect_all_ties

FIRST_SEED = 1 if FUZZ == 1 else new_id().int % 10**6
SEEDS = range(FIRST_SEED, FIRST_SEED + max(2, FUZZ))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_true_is_paired_what_is_not_never_and_each_disturbance_is_its_break(
    databases: Databases, seed: int
) -> None:
    bank = TruthfulBank(Weeks(databases, seed))
    _bring_in(bank)
    bank.weeks.reverse()
    bank.weeks.counting.reconcile()
    expect_the_truth(bank)
    expect_nothing_more_to_do(bank)


STEPS = (
    "ledger.reconciliation.items:collect",
    "ledger.reconciliation.engine:_Run._write",
    "ledger.reconciliation.engine:pair",
)
"""After which a run is killed while it pairs; what it does to the books is killed in test_effects_once."""


def _killed_after(url: str, step: Step) -> None:
    """Reconcile, and be gone as soon as this step is done for the first time; runs in a process of its own."""
    die_after(step)
    books = Books(
        FixedClock(datetime.combine(LAST, START.timetz())),
        Keyring({"test": bytes(range(32))}, "test"),
        Programmes(),
    )
    run.reconcile(Database(url, application_name="killed"), books)


def test_runs_killed_while_they_pair_and_people_who_pair_the_same_at_once_leave_the_truth(
    databases: Databases,
) -> None:
    bank = TruthfulBank(Weeks(databases, FIRST_SEED + 2))
    bank.sends(bank.files)
    for step in STEPS:
        expect_killed(_killed_after, databases.urls["worker"], step)
        assert _rows(bank, "SELECT id FROM ledger.pairing") == []  # it was killed before it committed
    wanted = _booked_pairs(bank)
    assert len(wanted) > 3
    with ThreadPoolExecutor(4) as at_once:
        runs = [at_once.submit(bank.weeks.counting.reconcile) for _ in range(2)]
        people = [at_once.submit(_pair_by_hand, bank, wanted) for _ in range(2)]
        won = Counter(pair for one in people for pair in one.result())
        assert all(one.result().complete for one in runs)
    assert set(won.values()) <= {1}
    bank.weeks.reverse()
    bank.weeks.counting.reconcile()
    expect_the_truth(bank)


def _booked_pairs(bank: TruthfulBank) -> list[tuple[UUID, UUID]]:
    """Lines that truly belong to one posting, each with it."""
    of_name = {
        row["name"]: row["id"]
        for row in _rows(bank, f"SELECT i.id, {NAME} AS name FROM {NAMED} WHERE i.source = 'booked'")
    }
    there = {id(line): id_ for id_, line in reversed(bank.lines.items())}
    return [
        (there[id(case.lines[0])], of_name[name])
        for case in bank.cases
        if case.paired and len(case.lines) == 1
        for name in case.items
        if name in of_name
    ]


def _pair_by_hand(bank: TruthfulBank, wanted: list[tuple[UUID, UUID]]) -> list[tuple[UUID, UUID]]:
    """A person pairs one after the other; those that nobody else had paired."""
    won = []
    for line, item in wanted:
        try:
            bank.weeks.databases.worker.run(
                lambda tx, line=line, item=item: pairings.make(  # type: ignore[misc]  # a default is the way to bind a loop's name
                    tx,
                    bank.weeks.accounts["savers"].id,
                    [line],
                    [item],
                    rule=pairings.BY_HAND,
                    evidence={},
                    made_by="opr_test",
                    clock=bank.weeks.clock,
                )
            )
            won.append((line, item))
        except (AlreadyPaired, NotFound):  # not found: a line that a statement which overlaps has too
            continue
    return won


def test_what_came_and_went_again_is_no_part_of_what_a_partner_paid_that_day(
    databases: Databases, clock: FixedClock
) -> None:
    counting = Counting(databases, clock)
    partner = counting.net_partner()
    person = counting.world.member(partner)
    for amount, days in ((10_000, 2), (25_000, 1)):
        counting.world.send(
            partner,
            counting.world.completed(person, collected=amount, at=clock.now() - days * DAY),
        )
    came, went, other = counting.statement(
        counting.line(10_000, 1, account=ACME_ACCOUNT, end_to_end="ACME-1"),
        counting.line(-10_000, 2, account=ACME_ACCOUNT, end_to_end="ACME-1"),
        counting.line(25_000, 3, account=ACME_ACCOUNT, end_to_end="ACME-2"),
    )
    counting.reconcile()
    assert [counting.is_paired(line) for line in (came, went, other)] == [True, False, True]
    assert {counting.pairing(came), counting.pairing(other)} != {counting.pairing(came)}


def test_a_fund_with_money_in_another_currency_goes_on_taking_its_own(
    databases: Databases, clock: FixedClock
) -> None:
    counting = Counting(databases, clock)
    partner = counting.net_partner()
    with databases.worker.begin() as tx:
        open_accounts(tx, [chart.spec(chart.BANK, counting.savers.fund_id, "", "USD")])
    counting.world.fund(50_000)
    counting.world.send(partner, counting.world.completed(counting.world.member(partner), collected=10_000))
    counting.world.settle(partner, 10_000)
    assert counting.balance("bank") == 60_000


def _bring_in(bank: TruthfulBank) -> None:
    """Statements come by and by, not quite in their order, and are reconciled in between."""
    files = sorted(bank.files, key=lambda file: file.days[1])
    cuts = sorted(bank.rng.sample(range(1, len(files)), bank.rng.randint(0, 3)))
    for since, until in zip([0, *cuts], [*cuts, len(files)], strict=True):
        some = files[since:until]
        bank.rng.shuffle(some)
        bank.sends(some)
        bank.weeks.counting.reconcile()


def expect_the_truth(bank: TruthfulBank) -> None:
    """What stands is right, what must be paired is, and breaks are what was disturbed."""
    of_line = {id(line): case for case in bank.cases for line in case.lines}
    paired = _expect_right_pairings(bank, of_line)
    faults = _wrong_breaks(bank, of_line)
    if faults:
        pytest.fail(
            f"seed {bank.weeks.seed}, {bank.fmt}:\n" + "\n".join(str(fault) for fault in faults),
            pytrace=False,
        )
    unpaired = [case for case in bank.cases if case.paired and not paired.issuperset(case.lines)]
    assert not unpaired, (bank.weeks.seed, unpaired)
    expect_all_ties(bank.weeks.databases)
    free = [case for case in bank.cases if case.right and not case.paired and not case.finds]
    more = sum(paired.issuperset(case.lines) for case in free)
    kinds = len({case.what for case in bank.cases})
    print(
        f"seed {bank.weeks.seed} {bank.fmt}: {len(paired)} lines paired of {len(of_line)}, {kinds} kinds of cases;"
        f" of {len(free)} that may stay open {more} paired"
    )


def _expect_right_pairings(bank: TruthfulBank, of_line: dict[int, Case]) -> set[Said]:
    """Every standing pairing is one that the truth has; the lines that stand in one."""
    paired: set[Said] = set()
    for row in _rows(bank, f"{_STANDING} WHERE p.undone_at IS NULL"):
        lines = [bank.lines[line] for line in row["lines"]]
        case = of_line[id(lines[0])]
        told = (bank.weeks.seed, row, case)
        assert {frozenset(lines)} <= {frozenset(right) for right in case.right}, told
        assert set(row["names"]) == case.items, told
        paired.update(lines)
    return paired


_STANDING = f"""
    SELECT p.rule, p.evidence, p.lines,
           (SELECT array_agg({NAME}) FROM {NAMED}
            WHERE i.id::text IN (SELECT jsonb_array_elements_text(p.evidence -> 'proposed'))
               OR i.id = ANY (p.items) AND NOT EXISTS (
                  SELECT FROM products.pairing_effect x WHERE x.pairing_id = p.id AND x.transaction_id = i.transaction_id)
           ) AS names
    FROM ledger.pairing p
"""
"""Pairings, with what they pair as the truth calls it: what was expected, and what was booked before."""


def _wrong_breaks(bank: TruthfulBank, of_line: dict[int, Case]) -> list[tuple[object, ...]]:
    """Breaks of what was not disturbed, or of another type than its disturbance has; and disturbances without one."""
    of_subject = _cases_by_subject(bank, of_line)
    found: dict[int, set[str]] = {id(case): set() for case in bank.cases}
    gaps: list[tuple[str, str]] = []
    faults: list[tuple[object, ...]] = []
    for row in _rows(bank, _BREAKS):
        if row["subject_kind"] == "gap":
            gaps.append((row["slug"], row["type"]))
            continue
        case = of_subject.get(row["subject"])
        if case is None or row["type"] not in case.finds | case.allows:
            faults.append(("not disturbed so", row, case))
        else:
            found[id(case)].add(row["type"])
    for case in bank.cases:
        if case.finds and not found[id(case)] & case.finds:
            faults.append(("not found", case, found[id(case)]))
    if sorted(gaps) != [("kigali-savers", "statement_gap"), ("office", "duplicate")]:
        faults.append(("statements", gaps))
    return faults


def _cases_by_subject(bank: TruthfulBank, of_line: dict[int, Case]) -> dict[str, Case]:
    """Cases by what breaks may be of them: lines, items, and others that they name."""
    of_name = {name: case for case in bank.cases for name in case.items}
    named = _rows(
        bank,
        f"SELECT i.id, {NAME} AS name FROM {NAMED}",
    )
    return (
        {subject: case for case in bank.cases for subject in case.subjects}
        | {str(id_): of_line[id(line)] for id_, line in bank.lines.items()}
        | {str(row["id"]): of_name[row["name"]] for row in named if row["name"] in of_name}
    )


_BREAKS = """
    SELECT b.type, b.subject_kind, b.subject, b.amount, b.details, a.slug FROM products.break b
    LEFT JOIN ledger.bank_account a ON a.id = b.bank_account_id WHERE b.ended_at IS NULL
"""


def expect_nothing_more_to_do(bank: TruthfulBank) -> None:
    """Doing it again changes nothing."""
    before = _state(bank)
    report = bank.weeks.counting.reconcile()
    assert (report.pairings, report.breaks, report.collected, report.expected) == (0, 0, 0, 0)
    assert _state(bank) == before


def _state(bank: TruthfulBank) -> list[Any]:
    return [
        _rows(bank, query)
        for query in (
            "SELECT id, lines, items, undone_at FROM ledger.pairing ORDER BY id",
            "SELECT id, type, amount, ended_at FROM products.break ORDER BY id",
            "SELECT count(*) AS n FROM ledger.transaction",
        )
    ]


def _rows(bank: TruthfulBank, query: str) -> list[dict[str, Any]]:
    return bank.weeks.counting.paying.rows(query)
