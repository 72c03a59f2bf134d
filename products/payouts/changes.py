"""Changing the state of payouts: in sets, each change with its place in the history and a message in the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.ids import public_id
from ledger.outbox import Message, publish
from products.payouts.states import State

TOPIC: Final = "payout.changed"
SYSTEM: Final = "system"
"""Who changes what nobody asked for."""


@dataclass(frozen=True, slots=True)
class Change:
    """A payout's next state: why (a stable code), and by whom (an id, or `SYSTEM`)."""

    payout_id: UUID
    state: State
    reason: str | None = None
    actor: str = SYSTEM


def locked_state(tx: Tx, payout_id: UUID) -> State:
    """The state of a payout, which stays as it is until `tx` changes it or ends. Raises NotFound."""
    row = (
        cursor(tx)
        .execute("SELECT state FROM products.payout WHERE id = %s FOR NO KEY UPDATE", [payout_id])
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such payout.")
    state: State = row[0]
    return state


def change_many(tx: Tx, changes: Sequence[Change], at: datetime) -> None:
    """Write new states of payouts that `tx` holds locked, one of each; their history and their messages with them."""
    if not changes:
        return
    rows = cursor(tx).execute(
        """
        WITH changed AS (
            UPDATE products.payout AS p SET state = c.state, reason = c.reason, changes = p.changes + 1,
                approved_at = CASE c.state WHEN 'approved' THEN %(at)s ELSE p.approved_at END,
                submitted_at = CASE WHEN c.state = 'submitted' AND p.submitted_at IS NULL THEN %(at)s
                                    ELSE p.submitted_at END,
                ended_at = CASE WHEN c.state IN ('paid', 'failed', 'returned', 'cancelled') THEN %(at)s END
            FROM unnest(%(ids)s::uuid[], %(states)s::text[], %(reasons)s::text[], %(actors)s::text[])
                AS c (id, state, reason, actor)
            WHERE p.id = c.id
            RETURNING p.id, p.changes, p.state, p.reason, c.actor, p.partner_id, p.link_id, p.product, p.amount, p.currency
        ), noted AS (
            INSERT INTO products.payout_change (payout_id, number, state, reason, actor, at)
            SELECT id, changes, state, reason, actor, %(at)s FROM changed
        )
        SELECT id, partner_id, link_id, product, amount, currency, state, reason FROM changed
        """,
        {
            "at": at,
            "ids": [one.payout_id for one in changes],
            "states": [one.state for one in changes],
            "reasons": [one.reason for one in changes],
            "actors": [one.actor for one in changes],
        },
    )
    publish(tx, [message(row, at) for row in rows])


def message(row: tuple[Any, ...], at: datetime) -> Message:
    """What is told of a payout whenever its state changes."""
    payout_id, partner_id, link_id, product, amount, currency, state, reason = row
    return Message(
        TOPIC,
        str(link_id),
        {
            "partner": public_id("ptn", partner_id),
            "member": public_id("mem", link_id),
            "payout": public_id("pay", payout_id),
            "state": state,
            "reason": reason,
            "product": product,
            "amount": {"amount": amount, "currency": currency},
            "at": at.isoformat(),
        },
    )
