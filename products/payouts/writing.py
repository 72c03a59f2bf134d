"""Putting new payouts on record: rows, parts, the first change of state and its message, in sets."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from operator import attrgetter
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.outbox import publish
from products.payouts.changes import message
from products.payouts.states import State


@dataclass(frozen=True, slots=True)
class NewRow:
    """A new row of `products.payout`, column by column."""

    id: UUID
    partner_id: UUID
    programme_id: UUID
    link_id: UUID
    member_id: UUID
    enrolment_id: UUID | None
    product: str | None
    way: str | None
    rail_id: UUID
    payee_id: UUID
    amount: int
    fee: int
    rail_fee: int
    currency: str
    arrival_earliest: datetime
    arrival_latest: datetime
    state: State
    requested_by: str
    requested_at: datetime
    requested_on: date
    expires_at: datetime
    check_after: datetime | None


_COLUMNS: Final = tuple(field.name for field in fields(NewRow))
_columns_of: Final = attrgetter(*_COLUMNS)

NewPart = tuple[UUID, int, str, UUID, int, int, UUID]
"""A row of `products.payout_part`: payout, position, source, account, amount, fee, hold."""


def write_new(tx: Tx, rows: Sequence[NewRow], parts: Sequence[NewPart]) -> None:
    """Write new payouts with their parts, their first state and what is told of it."""
    if not rows:
        return
    cur = cursor(tx)
    with cur.copy(f"COPY products.payout ({', '.join(_COLUMNS)}, changes) FROM STDIN") as copy:
        for row in rows:
            copy.write_row((*_columns_of(row), 1))
    with cur.copy(
        "COPY products.payout_part (payout_id, position, source, account_id, amount, fee, hold_id) FROM STDIN"
    ) as copy:
        for part in parts:
            copy.write_row(part)
    with cur.copy(
        "COPY products.payout_change (payout_id, number, state, reason, actor, at) FROM STDIN"
    ) as copy:
        for row in rows:
            copy.write_row((row.id, 1, row.state, None, row.requested_by, row.requested_at))
    publish(
        tx,
        [
            message(
                (
                    row.id,
                    row.partner_id,
                    row.link_id,
                    row.product,
                    row.amount,
                    row.currency,
                    row.state,
                    None,
                ),
                row.requested_at,
            )
            for row in rows
        ],
    )
