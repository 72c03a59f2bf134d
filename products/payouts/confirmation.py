"""What the bank statement proves of payments: that they were paid; and that this was a mistake."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from products.payouts import accounts, reports
from products.payouts.changes import SYSTEM, Change, change_many
from products.payouts.errors import WrongState
from products.payouts.rails import Report
from products.payouts.registry import ConfiguredRail, rails_by_id
from products.payouts.reports import Told
from products.payouts.submission import books_day
from products.posting import post_whole
from products.remittances.context import Books


def confirm(
    tx: Tx, books: Books, rail_id: UUID, paid: Sequence[tuple[UUID, int]], *, on: date, actor: str = SYSTEM
) -> tuple[list[Told], list[UUID]]:
    """Payments, as (attempt, minor units), stand as debits on the bank's statement: they are paid.

    What became of each, and the transactions that this posted, in the same order; none where something else than paying was the
    answer.
    """
    rail = rails_by_id(tx, [rail_id])[rail_id]
    said = [Report("paid", attempt, amount=amount, currency=rail.currency) for attempt, amount in paid]
    told = reports.apply(tx, books, rail, said, source="statement", booked_on=on, actor=actor)
    if any(one.outcome != "applied" for one in told):
        return told, []
    rows = cursor(tx).execute(
        "SELECT a.id, r.transaction_id FROM products.payout_attempt a JOIN ledger.reference r"
        " ON r.reference = format('payout:%%s:%%s:paid', a.payout_id, a.number) WHERE a.id = ANY (%s)",
        [[attempt for attempt, _ in paid]],
    )
    posted: dict[UUID, UUID] = dict(rows.fetchall())
    return told, [posted[attempt] for attempt, _ in paid]


def take_back(tx: Tx, books: Books, payout_id: UUID, *, actor: str) -> UUID:
    """That a payment was paid was a mistake: it is on its way again, and its rail is asked about it. The reversing transaction.

    Raises NotFound, and `WrongState` for a payout that is not paid any more.
    """
    attempt_id, rail, amount, number = _paid(tx, payout_id)
    now = books.clock.now()
    paid = _transaction(tx, f"payout:{payout_id}:{number}:paid")
    reversing = accounts.unconfirmed(rail, payout_id, number, amount, books_day(tx, rail, now), reverses=paid)
    post_whole(tx, [reversing], clock=books.clock)
    cursor(tx).execute(
        # the next number: what it posts when it is paid is another transaction than this time
        "UPDATE products.payout_attempt SET state = 'in_transit', money = 'clearing', next_at = %s, number = number + 1"
        " WHERE id = %s",
        [now, attempt_id],
    )
    change_many(tx, [Change(payout_id, "in_transit", "confirmation_taken_back", actor)], now)
    return _transaction(tx, reversing.reference)


def _paid(tx: Tx, payout_id: UUID) -> tuple[UUID, ConfiguredRail, int, int]:
    """The attempt of a payout that is paid, under the payout's lock: its id, its rail, minor units and number."""
    row = (
        cursor(tx)
        .execute(
            "SELECT p.state, a.id, a.rail_id, a.amount, a.number FROM products.payout p"
            " JOIN products.payout_attempt a ON a.payout_id = p.id WHERE p.id = %s FOR NO KEY UPDATE OF p",
            [payout_id],
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such payout, or it was never submitted.")
    state, attempt_id, rail_id, amount, number = row
    if state != "paid":
        raise WrongState(f"The payout is {state}: only what is paid can be taken back.")
    return attempt_id, rails_by_id(tx, [rail_id])[rail_id], amount, number


def _transaction(tx: Tx, reference: str) -> UUID:
    row = (
        cursor(tx)
        .execute("SELECT transaction_id FROM ledger.reference WHERE reference = %s", [reference])
        .fetchone()
    )
    if row is None:
        raise WrongState("The payout was found paid by hand: it is resolved by hand, too.")
    transaction: UUID = row[0]
    return transaction
