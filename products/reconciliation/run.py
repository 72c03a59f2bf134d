"""One run of the reconciliation: collect, expect, pair, confirm, pair again, and say what is left as breaks.

Each step is a database transaction of its own, so that a run that is killed leaves whole what it did; the next one goes on. Two
runs at once do the same once: rules lock their bank account, and a line stands in one pairing at most.
"""

from dataclasses import dataclass
from uuid import UUID

from ledger.database import Database
from products.remittances.context import Books


@dataclass(frozen=True, slots=True)
class AccountRun:
    """What a run did on one bank account: pairings that rules made, proposals that became pairings, and those that were refused.

    ``run_id`` is None where there was nothing to try.
    """

    bank_account: str
    run_id: UUID | None
    pairings: int
    confirmed: int
    refused: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did: postings that became items, expected items that changed, each account, breaks that changed.

    ``complete``: the time sufficed; if not, the next run goes on.
    """

    collected: int
    expected: int
    accounts: tuple[AccountRun, ...]
    breaks: int
    complete: bool

    @property
    def pairings(self) -> int:
        """How many pairings were made in all."""
        return sum(one.pairings + one.confirmed for one in self.accounts)


def reconcile(
    database: Database,
    books: Books,
    *,
    bank_account: str | None = None,
    made_by: str = "reconcile",
    seconds_max: float = 300.0,
) -> RunReport:
    """Reconcile every bank account, or the one of this slug. As the worker's role. Raises NotFound for no such account."""
    raise NotImplementedError
