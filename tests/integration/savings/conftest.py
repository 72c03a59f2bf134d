"""The world of tests of vesting, withdrawals and what they forfeit."""

from collections.abc import Iterator

import pytest

from ledger.clock import FixedClock
from ledger.fold import fold
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from tests.conftest import Databases
from tests.world import World


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> Iterator[World]:
    """An empty world on a fresh database, verified when the test is done with it."""
    world = World(databases, clock)
    yield world
    databases.worker.run(lambda tx: fold(tx, limit=100_000))
    with databases.auditor.read() as tx:
        report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
    assert report.ok, [*report.findings()]
