"""What every test may end with: the books and the records tie, whatever it did."""

from api.jobs import fold_all
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from tests.conftest import Databases


def expect_all_ties(databases: Databases) -> None:
    """Fold and verify everything but what only seals show."""
    fold_all(databases.worker)
    with databases.auditor.read() as tx:
        report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
    assert report.ok, [*report.findings()]
