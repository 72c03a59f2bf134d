"""The API that HTTP tests talk to."""

from collections.abc import Iterator

import pytest

from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.served import Served, served


@pytest.fixture
def api(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """A running API of this test's own."""
    with served(settings, databases.worker, clock) as running:
        yield running
