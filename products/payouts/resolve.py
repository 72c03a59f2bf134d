"""Settling by hand what a rail never answers, or what it says that can't be true as well: by two managers, with evidence."""

from datetime import date
from typing import Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.posting import post
from products.payouts import accounts, reports
from products.payouts.changes import Change, change_many
from products.payouts.errors import WrongState
from products.payouts.rails import Report
from products.payouts.registry import ConfiguredRail, rails_by_id
from products.payouts.submission import books_day, parts_of
from products.remittances.context import Books
from products.savings import forfeiture
from products.savings.withdrawals import redo_withdrawals

Finding = Literal["paid", "failed", "returned", "stands"]
"""What the evidence shows: it was paid; it never was; it came back; or what is on record is right, whatever was said since."""


def resolve(
    tx: Tx,
    books: Books,
    payout_id: UUID,
    finding: Finding,
    *,
    actor: str,
    booked_on: date | None = None,
) -> None:
    """Bring a submitted payout to what was found, and take it off the list of problems.

    What had been given back to the member and turns out to be paid is taken again: as far as it is there from where it was put,
    and the rest is owed by the member. Vested match is taken again whole or not at all. ``booked_on``: the day on which the bank's
    statement shows it, which is the books' day too; today where no statement shows it.

    Raises NotFound, and `WrongState` where the finding can't follow from what is on record.
    """
    cur = cursor(tx)
    row = cur.execute(
        "SELECT p.state, p.rail_id, a.id, a.number, a.money, m.receivable_account FROM products.payout p"
        " JOIN products.payout_attempt a ON a.payout_id = p.id JOIN products.member m ON m.id = p.member_id"
        " WHERE p.id = %s ORDER BY a.number DESC LIMIT 1 FOR NO KEY UPDATE OF p",
        [payout_id],
    ).fetchone()
    if row is None:
        raise NotFound("There is no such payout, or it was never submitted.")
    state, rail_id, attempt_id, number, money, receivable = row
    rail = rails_by_id(tx, [rail_id])[rail_id]
    if finding == "paid" and money == "back":
        _take_again(tx, books, payout_id, number, rail, receivable, actor)
    elif finding != "stands" and finding != state:
        (told,) = reports.apply(
            tx,
            books,
            rail,
            [Report(finding, attempt_id, reason=None if finding == "paid" else "other", code="by_hand")],
            source="hand",
            booked_on=booked_on,
            actor=actor,
        )
        if told.outcome != "applied":
            raise WrongState(f"The payout is {state}: it can't be found {finding}.")
    cur.execute("UPDATE products.payout SET problem = NULL WHERE id = %s", [payout_id])
    cur.execute(
        "UPDATE products.payout_attempt SET next_at = NULL WHERE id = %s AND state IN ('paid', 'failed', 'returned')",
        [attempt_id],
    )


def _take_again(
    tx: Tx, books: Books, payout_id: UUID, number: int, rail: ConfiguredRail, receivable: UUID, actor: str
) -> None:
    now = books.clock.now()
    parts = parts_of(tx, [payout_id])[payout_id]
    redo_withdrawals(tx, [payout_id])
    batch = [accounts.taken_again(rail, payout_id, number, parts, receivable, books_day(tx, rail, now))]
    batch += forfeiture.leave(tx, books, [payout_id])
    outcomes = post(tx, batch, clock=books.clock, all_or_nothing=True)
    if any(outcome.status != "posted" for outcome in outcomes):
        raise WrongState(
            "What was given back can't be taken again: part of it was vested match and is not there."
        )
    cursor(tx).execute(
        # the next number: what it posts if it comes back again is another transaction than when it first did
        "UPDATE products.payout_attempt SET state = 'paid', money = 'out', reason = NULL, reported_at = %s,"
        " number = number + 1 WHERE payout_id = %s",
        [now, payout_id],
    )
    change_many(tx, [Change(payout_id, "paid", "taken_again", actor)], now)
