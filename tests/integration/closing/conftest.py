"""The world of closing tests: a programme with a month behind it, its bank, and whoever verifies and seals."""

import pytest

from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.integration.closing.month import Month
from tests.world import World


@pytest.fixture
def month(databases: Databases, clock: FixedClock) -> Month:
    """March 2026 of EjoHeza, over and posted, with nothing said about it yet."""
    return Month(World(databases, clock))
