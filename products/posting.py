"""Posting what must land whole: a settlement, a drained queue, entitlement derived anew."""

from collections.abc import Sequence

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import MizanError
from ledger.posting import Outcome, Transaction, post
from ledger.transactions import BATCH_MAX

MOVED = frozenset({"insufficient_funds", "ceiling_exceeded", "period_closed"})
"""Reasons that say that the books moved between reading and posting; any other is a fault of ours."""


class BooksRefused(MizanError):
    """The ledger refused what the rules laid out: a fault of ours, never of who asked."""

    code = "books_refused"

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(
            f"the ledger answered {outcome.status} ({outcome.reason}) for account {outcome.account_id}"
        )
        self.outcome = outcome

    @property
    def moved(self) -> bool:
        """Whether laying it out anew, from the books as they are now, may help."""
        return self.outcome.reason in MOVED


def post_whole(tx: Tx, batch: Sequence[Transaction], *, clock: Clock) -> None:
    """Post all of a batch of any length; raises `BooksRefused` for the first that is not posted.

    What was posted before it stands in `tx` until the caller rolls back, so the caller must.
    """
    for first in range(0, len(batch), BATCH_MAX):
        outcomes = post(tx, batch[first : first + BATCH_MAX], clock=clock, all_or_nothing=True)
        refused = [one for one in outcomes if one.status != "posted"]
        if refused:
            raise BooksRefused(next((one for one in refused if one.reason != "batch_rejected"), refused[0]))
