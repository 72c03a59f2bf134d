"""The world of remittance tests."""

from collections.abc import Iterator

import pytest

from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.tying import expect_all_ties
from tests.world import World


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> Iterator[World]:
    """An empty world on a fresh database, verified when the test is done with it."""
    world = World(databases, clock)
    yield world
    expect_all_ties(databases)
