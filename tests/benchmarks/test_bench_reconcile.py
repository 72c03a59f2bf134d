"""The benchmark of pairing pairs exactly what belongs together; how fast is not a test's business."""

from collections.abc import Iterator

import pytest

from api.bench.reconcile import Size, compare
from api.embedded import EmbeddedServers
from tests.conftest import TEMPLATE, Databases, databases_of, drop_database


@pytest.fixture
def larger(servers: EmbeddedServers, worker_number: int) -> Iterator[Databases]:
    name = f"test_{worker_number}_reconcile_twice"
    servers.create_database(name, TEMPLATE)
    databases = databases_of(servers, name)
    yield databases
    databases.close()
    drop_database(servers, name)


def test_what_belongs_together_is_paired_beside_the_floor(databases: Databases, larger: Databases) -> None:
    report = compare(databases.urls, larger.urls, 1, Size(lines=3_600))
    figures = report.figures
    assert report.name == "reconcile"
    assert figures["share_of_lines_paired"] == 0.833
    assert 0.88 < figures["share_of_items_paired"] < 0.9
    for name in (
        "floor_seconds",
        "truth_join_seconds",
        "seconds",
        "seconds_twice",
        "ratio",
        "growth",
        "floor_growth",
    ):
        assert figures[name] > 0
    assert figures["memory_mib"] > 1
