"""Giving up payouts that have not been submitted: their money is released, and may be asked for again."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ledger import holds
from ledger.database import Tx, cursor
from products.payouts.changes import SYSTEM, Change, change_many, locked_state
from products.payouts.errors import WrongState
from products.payouts.limits import give_back_of_day
from products.payouts.states import CANCELLABLE
from products.remittances.context import Books
from products.savings.withdrawals import undo_withdrawals

EXPIRED_TOGETHER_MAX: Final = 1_000


def cancel(tx: Tx, books: Books, payout_id: UUID, *, reason: str, actor: str) -> None:
    """Cancel one payout. Raises NotFound, `WrongState` once it was submitted or is over."""
    state = locked_state(tx, payout_id)
    if state not in CANCELLABLE:
        raise WrongState(f"The payout is {state}: only what was not sent off can be cancelled.")
    cancel_many(tx, books, [(payout_id, reason, actor)])


def cancel_many(tx: Tx, books: Books, given_up: Sequence[tuple[UUID, str, str]]) -> None:
    """Cancel payouts that `tx` holds locked and that may be: each with its reason (a stable code) and who does it."""
    if not given_up:
        return
    ids = [payout_id for payout_id, _, _ in given_up]
    held = cursor(tx).execute("SELECT hold_id FROM products.payout_part WHERE payout_id = ANY (%s)", [ids])
    holds.release_many(tx, [row[0] for row in held], clock=books.clock)
    now = books.clock.now()
    undo_withdrawals(tx, ids, now)
    give_back_of_day(tx, ids)
    change_many(tx, [Change(id_, "cancelled", reason, actor) for id_, reason, actor in given_up], now)


def expire(tx: Tx, books: Books, *, limit: int = EXPIRED_TOGETHER_MAX) -> int:
    """Cancel what nobody has approved in time; how many. Run twice at once, each takes its own."""
    rows = cursor(tx).execute(
        "SELECT id, state FROM products.payout WHERE state IN ('requested', 'awaiting_member', 'awaiting_operators')"
        " AND expires_at <= %s ORDER BY expires_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED",
        [books.clock.now(), limit],
    )
    due = [(id_, "not_released" if state == "awaiting_operators" else "not_approved") for id_, state in rows]
    cancel_many(tx, books, [(id_, reason, SYSTEM) for id_, reason in due])
    return len(due)
