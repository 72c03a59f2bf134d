"""The API that HTTP tests talk to."""

from collections.abc import Iterator

import pytest
import redis

from api.embedded import EmbeddedServers
from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import TEMPLATE, Databases, databases_of, drop_database, settings_of
from tests.http.served import NOW, Served, served


@pytest.fixture
def api(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """A running API of this test's own."""
    with served(settings, databases.worker, clock) as running:
        yield running


@pytest.fixture(scope="module")
def shared_api(
    servers: EmbeddedServers, database_numbers: Iterator[int], worker_number: int
) -> Iterator[Served]:
    """A running API that the tests of one module share; their clock is theirs too."""
    name = f"test_{worker_number}_{next(database_numbers)}"
    servers.create_database(name, TEMPLATE)
    databases = databases_of(servers, name)
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushdb()
    settings = settings_of(servers, databases, servers.redis_url)
    with served(
        settings,
        databases.worker,
        FixedClock(NOW),
        requests_per_minute=10_000_000,
        anonymous_requests_per_minute=10_000_000,
    ) as running:
        yield running
    databases.close()
    drop_database(servers, name)
