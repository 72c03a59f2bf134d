"""Items: what a statement line may be the other side of; here those that the books themselves make, one for each posting."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from ledger.database import Tx


class Naming(Protocol):
    """Says by what a bank may know booked items: set-based, one statement for all of them."""

    def name(self, tx: Tx, items: Sequence[UUID]) -> None:
        """Sets end_to_end, reference, identifiers, party, batch, day and subject of those items that it knows of."""
        ...


def collect(tx: Tx, naming: Sequence[Naming], *, limit: int = 20_000) -> int:
    """Makes items of the settled postings on mirrored accounts, of about `limit` transactions; answers how many transactions.

    Call it in a transaction of its own, again until it answers 0.
    """
    raise NotImplementedError
