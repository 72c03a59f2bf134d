"""The reads benchmark reads what it says, in books that add up; how fast is not a test's business."""

from collections.abc import Iterator

import pytest

from api.bench.reads import READS, Size, compare
from api.embedded import EmbeddedServers
from ledger.trial_balance import trial_balance
from tests.conftest import TEMPLATE, Databases, databases_of, drop_database


@pytest.fixture
def larger(servers: EmbeddedServers, worker_number: int) -> Iterator[Databases]:
    name = f"test_{worker_number}_reads_large"
    servers.create_database(name, TEMPLATE)
    databases = databases_of(servers, name)
    yield databases
    databases.close()
    drop_database(servers, name)


def test_small_and_large_books_are_loaded_and_read(databases: Databases, larger: Databases) -> None:
    size = Size(small=400, large=1_200, members=20, history=50, tail=10, reads=3)
    report = compare(databases.urls, larger.urls, 2, size)
    assert report.name == "reads"
    for name in READS:
        for figure in (f"{name}_small_p50_ms", f"{name}_large_p50_ms", f"{name}_growth"):
            assert (
                0
                < report.figures[f"{figure}_min"]
                <= report.figures[figure]
                <= report.figures[f"{figure}_max"]
            )
    for world, postings in ((databases, 400), (larger, 1_200)):
        with world.auditor.read() as tx:
            (now,) = trial_balance(tx)
            (folded,) = trial_balance(tx, as_of=tx.exec_driver_sql("SELECT current_date").scalar_one())
            receivable = next(line.debit for line in now.accounts if line.code == "receivable")
        assert now == folded
        assert now.debit_total == now.credit_total
        assert receivable == postings // 4 * 6_500
