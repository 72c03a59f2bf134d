"""Whatever truth is disturbed in whatever way, no wrong pairing is ever made; and the order of lines and items means nothing."""

import itertools
import random
from collections import Counter
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ledger.reconciliation.search import CHANCE_MAX, only_subset
from tests.conftest import Databases
from tests.integration.reconciliation.desk import Desk, desk_of

KINDS = ("reference", "end_to_end", "text", "batch", "parts", "items of a day", "lines of a day", "amount")
BY_DAY = ("items of a day", "lines of a day")
DISTURBANCES = ("none", "none", "no line", "no item", "other amount", "named as another", "twice", "late")


@pytest.fixture(scope="module")
def desks() -> list[Desk]:
    """Kept over the examples: each begins with an empty one."""
    return []


Case = tuple[str, str, int, int]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cases=st.lists(
        st.tuples(
            st.sampled_from(KINDS), st.sampled_from(DISTURBANCES), st.integers(1, 3), st.integers(0, 4)
        ),
        min_size=1,
        max_size=9,
    ),
    order=st.randoms(use_true_random=False),
)
@example(
    cases=[
        ("items of a day", "none", 1, 0),
        ("reference", "none", 1, 0),
        ("reference", "no line", 1, 0),
        ("lines of a day", "no line", 1, 0),
    ],
    order=random.Random(1),
)
@example(
    cases=[
        ("lines of a day", "none", 1, 0),
        ("reference", "none", 1, 0),
        ("reference", "none", 1, 0),
        ("items of a day", "no item", 1, 0),
    ],
    order=random.Random(1),
)
@example(
    cases=[
        ("lines of a day", "none", 1, 0),
        ("reference", "none", 1, 0),
        ("reference", "none", 1, 0),
        ("items of a day", "none", 2, 0),
    ],
    order=random.Random(1),
)
@example(
    cases=[("reference", "named as another", 1, 0), ("items of a day", "none", 1, 0)], order=random.Random(1)
)
def test_nothing_is_ever_paired_wrongly(
    databases: Databases, desks: list[Desk], cases: list[Case], order: random.Random
) -> None:
    desk = desks[0] if desks else desk_of(databases)
    desks[:] = [desk]
    results = []
    for _ in range(2):  # in two orders
        desk.clear()
        truths = _lay_out(desk, cases, order)
        found: dict[tuple[str, ...], Any] = {}
        # what is paired no longer stands in the way of what is left, which another run may find
        while desk.run().pairings:
            assert found.items() <= desk.paired.items()
            found = desk.paired
        for names in found:
            assert set(names) in truths, (names, found)
        results.append({names: rule for names, (rule, _) in found.items()})
    assert results[0] == results[1]
    # what was not disturbed, and that nothing else looks like, is found
    kinds = Counter(kind for kind, *_ in cases)
    for number, (kind, disturbance, amount, _) in enumerate(cases):
        alone = kinds[kind] == 1 and Counter(each[2] for each in cases)[amount] == 1
        of_one_party = [
            other for other, (kind_, *_) in enumerate(cases) if kind_ in BY_DAY and other % 3 == number % 3
        ]
        if kind in BY_DAY and of_one_party != [number]:
            continue  # the sum of a party's day is of both
        if disturbance == "none" and alone:
            assert any(f"l{number}" in {name.partition(".")[0] for name in names} for names in results[0])


def _lay_out(desk: Desk, cases: list[Case], order: random.Random) -> list[set[str]]:
    """Puts lines and items of the cases on the desk in any order; the sets of names that belong together."""
    puts, truths = [], []
    disturbed = [number for number, (_, disturbance, *_) in enumerate(cases) if disturbance != "none"]
    for number, (kind, disturbance, size, day) in enumerate(cases):
        # few amounts, so that strangers share them; what has no name but its amount has one of its own, and so has all that is
        # disturbed but the first: a line and an item that lost their other sides and agree in amount and day look like a pair
        amount = 1_000_00 * size
        if kind == "amount" or number in disturbed[1:]:
            amount = 1_000_036 + 1_012 * number
        lines, items = _shape(kind, number, amount)
        if disturbance == "no line":
            lines = []
        if disturbance == "no item":
            items = []
        if disturbance == "other amount" and lines:
            lines[-1]["amount"] += 5_017
        if disturbance == "named as another" and lines and "reference" in lines[0]:
            lines[0]["reference"] += "-X"
        if disturbance == "twice" and lines:
            lines.append({**lines[0], "name": f"l{number}.again"})
        offset = 90 if disturbance == "late" else 0
        for table, rows in (("line", lines), ("item", items)):
            puts += [(table, {"after": day + (offset if table == "line" else 0), **row}) for row in rows]
        truths.append({str(row["name"]) for row in (*lines, *items)} - {f"l{number}.again"})
        truths.append({str(row["name"]) for row in (*lines[1:], *items)} if disturbance == "twice" else set())
    order.shuffle(puts)
    with desk.at_once():
        for table, row in puts:
            getattr(desk, table)(**row)
    return truths


def _shape(kind: str, number: int, amount: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    name = {"reference": f"R-{number}", "end_to_end": f"E-{number}", "text": f"T{number}1234"}.get(kind)
    line: dict[str, Any] = {"name": f"l{number}", "amount": amount}
    item: dict[str, Any] = {"name": f"i{number}", "amount": amount}
    party = {"party": f"party {number % 3}"}
    if kind in ("reference", "end_to_end"):
        return [{**line, kind: name}], [{**item, kind: name}]
    if kind == "text":
        return [{**line, "identifiers": [name]}], [{**item, "reference": f"t{number}-1234"}]
    if kind == "amount":
        return [line], [item]
    parts = [(f"{number}.{part}", amount // 4 * (part + 1)) for part in (0, 2)]
    if kind == "batch":
        return [{**line, "identifiers": [f"BATCH{number}"]}], [
            {"name": f"i{id_}", "amount": part, "batch": f"batch-{number}"} for id_, part in parts
        ]
    if kind == "items of a day":
        return [line | party], [{"name": f"i{id_}", "amount": part} | party for id_, part in parts]
    if kind == "parts":
        return [{"name": f"l{id_}", "amount": part, "identifiers": [f"P{number}"]} for id_, part in parts], [
            {**item, "reference": f"P{number}"}
        ]
    return [{"name": f"l{id_}", "amount": part} | party for id_, part in parts], [item | party]


@given(
    owed=st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 4)), min_size=2, max_size=9),
    chosen=st.sets(st.integers(0, 8), min_size=1),
    sign=st.sampled_from((1, -1)),
    lattice=st.sampled_from((1, 1, 10**4)),
)
def test_the_search_answers_only_what_has_one_answer(
    owed: list[tuple[int, int]], chosen: set[int], sign: int, lattice: int
) -> None:
    amounts, days = (
        [amount % 50 + 1 if lattice > 1 else amount for amount, _ in owed],
        [date(2026, 3, 10 + day) for _, day in owed],
    )
    amounts = [amount * lattice for amount in amounts]
    target = sum(amounts[at] for at in chosen if at < len(amounts))
    assume(target)
    answers = [
        subset
        for size in range(2, len(amounts) + 1)
        for subset in itertools.combinations(range(len(amounts)), size)
        if sum(amounts[at] for at in subset) == target
    ]
    found = only_subset(sign * target, [sign * amount for amount in amounts], days, steps_max=100_000)
    assert found is None or [found] == answers
    if len(answers) == 1:
        left_out = [day for at, day in enumerate(days) if at not in answers[0]]
        oldest = max(days[at] for at in answers[0]) < min(left_out, default=date.max)
        if oldest or 2 ** len(amounts) * CHANCE_MAX * max(amounts) < sum(amounts):
            assert found == answers[0]
        elif lattice > 1:
            assert found is None
    assert only_subset(sign * target, [sign * amount for amount in amounts], days, steps_max=1) is None
