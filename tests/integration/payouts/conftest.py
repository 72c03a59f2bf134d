"""The world of payouts' tests: whatever a test does, the books and the records tie when it is done."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.integration.payouts.paying import Paying
from tests.tying import expect_all_ties


@pytest.fixture
def paying_on(databases: Databases, clock: FixedClock) -> Iterator[Callable[..., Paying]]:
    """A world with a simulated rail of given terms, verified when the test is done with it."""
    yield lambda **terms: _made(databases, clock, terms)
    expect_all_ties(databases)


@pytest.fixture
def paying(paying_on: Callable[..., Paying]) -> Paying:
    """A world whose rail takes nothing and checks nobody."""
    return paying_on()


def _made(databases: Databases, clock: FixedClock, terms: dict[str, Any]) -> Paying:
    return Paying.on(databases, clock, **terms)
