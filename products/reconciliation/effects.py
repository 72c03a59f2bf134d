"""What pairing does to the books, and taking that back: payments confirmed, settlements recorded, differences charged."""

from uuid import UUID

from ledger.database import Tx
from ledger.reconciliation.pairings import Proposal
from products.remittances.context import Books


def confirm(
    tx: Tx, books: Books, proposal: Proposal, *, made_by: str = "reconcile", run_id: UUID | None = None
) -> UUID:
    """Post what a proposal means, and pair its lines with the resulting bank postings; the pairing's id.

    All of it in `tx`: nothing of it stands alone. Raises Conflict `proposal_outdated` where what it was made of has changed,
    `already_paired` where somebody else was first.
    """
    raise NotImplementedError


def undo(tx: Tx, books: Books, pairing_id: UUID, *, remark: str, actor: str) -> None:
    """Take a pairing back, whatever it did: whoever takes a pairing back calls this, never `pairings.undo` alone.

    What the pairing posted is reversed, by transactions linked to it: a settlement is returned, a payment is on its way again, a
    charge or a receipt taken back. Raises NotFound, and Conflict where what followed can't be taken back.
    """
    raise NotImplementedError
