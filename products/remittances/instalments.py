"""What enrolments have paid toward instalments that fall due once a period, whatever the number of remittances."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from products.remittances.context import Context, Enrolled
from products.savings.rules import Window


class Paid:
    """Amounts paid by enrolment and day, kept up to date while a batch is planned."""

    def __init__(self) -> None:
        self._by_day: defaultdict[UUID, defaultdict[date, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, enrolment: UUID, on: date, amount: int) -> None:
        """Count what an enrolment paid on a day."""
        self._by_day[enrolment][on] += amount

    def within(self, enrolment: UUID, period: Window) -> int:
        """What an enrolment has paid in a period, in minor units."""
        return sum(amount for day, amount in self._by_day[enrolment].items() if day in period)


def load(tx: Tx, context: Context, enrolments: Mapping[UUID, Sequence[Enrolled]]) -> Paid:
    """Lock the enrolments whose instalments are counted, in order, and load what they have paid."""
    ids = _counted(context, enrolments)
    if ids:
        cursor(tx).execute(
            "SELECT id FROM products.enrolment WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE", (ids,)
        )
    # A new statement: it sees what the last holder of the locks has committed.
    return _load(tx, ids)


def read(tx: Tx, context: Context, enrolments: Mapping[UUID, Sequence[Enrolled]]) -> Paid:
    """Load what enrolments have paid without locking them: good enough to show, not to decide."""
    return _load(tx, _counted(context, enrolments))


def _counted(context: Context, enrolments: Mapping[UUID, Sequence[Enrolled]]) -> list[UUID]:
    periodic = {
        product.code
        for versions in context.versions.values()
        for version in versions
        for product in version.programme.products
        if product.contribution.period is not None
    }
    return sorted(one.id for several in enrolments.values() for one in several if one.product in periodic)


def _load(tx: Tx, ids: Sequence[UUID]) -> Paid:
    paid = Paid()
    if ids:
        rows = cursor(tx).execute(
            """SELECT enrolment_id, contributed_on, sum(amount)::bigint FROM products.contribution
               WHERE enrolment_id = ANY (%s) AND state <> 'reversed' GROUP BY enrolment_id, contributed_on""",
            (list(ids),),
        )
        for enrolment, on, amount in rows:
            paid.add(enrolment, on, amount)
    return paid
