"""What breaks leave behind: one that was found, with its history, a resolution that was previewed, and a limit."""

from products.reconciliation.breaks import limits, resolve
from products.reconciliation.breaks.choices import Choice
from products.reconciliation.breaks.queries import Filters, breaks
from products.reconciliation.breaks.refresh import refresh
from tests.world import World


def leave_breaks(world: World) -> None:
    """Leave a row in every table of breaks: partners have paid more than they owed."""
    with world.databases.worker.begin() as tx:
        refresh(tx, world.clock)
        found = breaks(tx, world.clock, Filters(types=("unapplied_receipt",)), limit=10)
        assert found
        for one in found:
            resolve.preview(tx, world.books, one.id, Choice("explain"), actor="test")
        limits.put(tx, world.clock, world.programmes["ejoheza"], "RWF", 0)
