"""Permutation, repetition and reversal of the same events: the same entitlement always, and the same books.

Two groups of the same members live in one database. One receives the events in order, each once, one at a time; the
other shuffled, some repeated, cut into batches anywhere. With ample funds, open periods and no ceilings on partners,
every account must come out equal.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ledger.clock import FixedClock
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.remittances.events import Event
from products.remittances.partners import Partner
from tests.conftest import Databases
from tests.world import Person, World

MEMBERS = 3


@dataclass(frozen=True)
class Sent:
    """One remittance of a scenario; `reversed`: the partner takes it back."""

    member: int
    received: int
    share: int  # thousandths collected
    days: int
    reversed: bool


remittances = st.lists(
    st.builds(
        Sent,
        member=st.integers(0, MEMBERS - 1),
        received=st.integers(1, 500_000),
        share=st.integers(0, 80),
        days=st.integers(0, 420),
        reversed=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def events_of(world: World, group: str, people: list[Person], scenario: list[Sent]) -> list[Event]:
    events: list[Event] = []
    for number, sent in enumerate(scenario):
        remittance_id = f"{group}-{number}"
        at = datetime(2025, 1, 5, 12, tzinfo=UTC) + timedelta(days=sent.days)
        events.append(
            world.completed(
                people[sent.member],
                received=sent.received,
                collected=sent.received * sent.share // 1000,
                remittance_id=remittance_id,
                at=at,
            )
        )
        if sent.reversed:
            events.append(world.reversed(remittance_id, at=at + timedelta(days=1)))
    return events


def standing(world: World, people: list[Person]) -> list[dict[str, int]]:
    """Every account of each member, and its match by window."""
    found = []
    for person in people:
        with world.databases.owner.begin() as tx:
            accounts = tx.execute(
                text(
                    "SELECT a.code, b.credits - b.debits FROM ledger.account a"
                    " JOIN ledger.account_balance b ON b.account_id = a.id WHERE a.owner = ANY (:owners)"
                ),
                {"owners": [person.member_id.hex, *(one.hex for one in person.enrolments.values())]},
            )
            held = {str(code): int(net) for code, net in accounts}
            windows = tx.execute(
                text(
                    "SELECT s.window_start::text, s.entitled, coalesce(sum(h.committed), 0)::bigint,"
                    " coalesce(sum(h.awaiting), 0)::bigint"
                    " FROM products.match_state s LEFT JOIN products.match_share h USING (enrolment_id, window_start)"
                    " WHERE s.enrolment_id = ANY (:ids) GROUP BY s.window_start, s.entitled"
                ),
                {"ids": [*person.enrolments.values()]},
            )
            for start, entitled, committed, awaiting in windows:
                if entitled:  # a window that a reversed remittance merely touched is no difference
                    held |= {
                        f"entitled {start}": entitled,
                        f"committed {start}": committed,
                        f"awaiting {start}": awaiting,
                    }
            found.append(held)
    return found


@pytest.fixture
def world(databases: Databases) -> World:
    return World(databases, FixedClock(datetime(2026, 3, 2, 9, 30, tzinfo=UTC)))


@pytest.fixture
def partners(world: World) -> dict[str, Partner]:
    found = {
        "net": world.partner("net", terms="net"),
        "guaranteed": world.partner("sure", terms="guaranteed"),
    }
    world.fund(10**12)
    return found


def test_order_repetition_and_batching_change_nothing(world: World, partners: dict[str, Partner]) -> None:
    examples: list[UUID] = []

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(
        terms=st.sampled_from(["net", "guaranteed"]),
        categories=st.lists(st.integers(1, 4), min_size=MEMBERS, max_size=MEMBERS),
        scenario=remittances,
        seed=st.integers(0, 2**32),
    )
    def holds(terms: str, categories: list[int], scenario: list[Sent], seed: int) -> None:
        partner = partners[terms]
        chance = random.Random(seed)
        groups = [[world.member(partner, category=category) for category in categories] for _ in range(2)]
        examples.append(groups[0][0].member_id)
        for event in events_of(world, f"a{len(examples)}", groups[0], scenario):
            world.send(partner, event)
        mixed = events_of(world, f"b{len(examples)}", groups[1], scenario)
        mixed += chance.sample(mixed, chance.randint(0, len(mixed)))
        chance.shuffle(mixed)
        while mixed:
            cut = chance.randint(1, len(mixed))
            world.send(partner, *mixed[:cut])
            mixed = mixed[cut:]
        assert standing(world, groups[0]) == standing(world, groups[1])

    holds()
    with world.databases.auditor.read() as tx:
        report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
    assert report.ok, [*report.findings()]
    assert examples
