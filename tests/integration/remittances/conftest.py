"""The world of remittance tests."""

import pytest

from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.world import World


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> World:
    """An empty world on a fresh database."""
    return World(databases, clock)
