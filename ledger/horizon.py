"""The settled horizon: behind it nothing can still commit.

Rows carry the cluster's era and the id of the database transaction that wrote them. Whatever is read from a cursor is
served only behind the horizon, ordered by (era, xid, id): ids alone lose what commits late.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx

SETTLED = "(era, xid) < ((select ledger.current_era()), (select ledger.settled_xid()))"
"""SQL: true of a row (of `transaction` or `outbox`) that is behind the horizon; both are asked once, not for each row."""

AFTER = "(era, xid, id) > (%(era)s, %(xid)s::text::xid8, %(id)s)"
"""SQL: true of a row after a cursor, with the parameters of `Position.parameters`."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order (era, xid, id) of a journal."""

    era: int
    xid: int
    id: UUID

    @property
    def parameters(self) -> dict[str, int | str | UUID]:
        """Parameters for `AFTER`."""
        return {"era": self.era, "xid": str(self.xid), "id": self.id}


START = Position(0, 0, UUID(int=0))
"""Before everything."""


@dataclass(frozen=True, slots=True, order=True)
class Horizon:
    """Every transaction with a smaller (era, xid) has ended."""

    era: int
    xid: int


def horizon(tx: Tx) -> Horizon:
    """Where the horizon stands for this statement."""
    row = tx.execute(text("select ledger.current_era(), ledger.settled_xid()::text")).one()
    return Horizon(row[0], int(row[1]))


def ensure_era(tx: Tx) -> int:
    """The era of this cluster, begun if the books were restored into a new one. As `mizan_owner`, when migrating."""
    return int(tx.execute(text("select ledger.ensure_era()")).scalar_one())


def era_is_here(tx: Tx) -> bool:
    """Whether the current era is this cluster's; if not, the books were restored, and nothing may be written before `ensure_era`."""
    return bool(tx.execute(text("select ledger.era_is_here()")).scalar_one())
