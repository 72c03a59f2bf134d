"""Reconciling, wired: what the worker's job, the route and the command run."""

from typing import Final

from api.bootstrap import Services
from products.reconciliation import run
from products.reconciliation.run import AccountRun as AccountRun
from products.reconciliation.run import RunReport as RunReport

RUN_SECONDS_MAX: Final = 300.0
"""How long one run goes on; what is left is the next one's."""


def reconcile(
    services: Services,
    bank_account: str | None = None,
    *,
    made_by: str = "reconcile",
    seconds_max: float = RUN_SECONDS_MAX,
) -> RunReport:
    """Reconcile every bank account, or the one of this slug. Raises NotFound for no such account."""
    return run.reconcile(
        services.worker,
        services.books,
        bank_account=bank_account,
        made_by=made_by,
        seconds_max=seconds_max,
    )
