"""Holds: funds set aside on an account, then captured, released or expired, once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

import psycopg

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import HoldError, InvalidInput, NotFound
from ledger.ids import new_id
from ledger.money import AMOUNT_MAX
from ledger.posting import post
from ledger.transactions import Outcome, Transaction

HoldState = Literal["active", "captured", "released", "expired"]
EXPIRE_MAX = 1_000
"""Holds that one call of `expire` ends at most."""


@dataclass(frozen=True, slots=True)
class NewHold:
    """A hold to place: minor units of an account, under a reference that is unique for ever."""

    account_id: UUID
    amount: int
    reference: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class HeldFunds:
    """A hold as it stands; amounts in minor units of its account's currency."""

    id: UUID
    reference: str
    account_id: UUID
    amount: int
    captured: int
    state: HoldState
    expires_at: datetime | None
    transaction_id: UUID | None
    created_at: datetime
    ended_at: datetime | None


def place(
    tx: Tx, account_id: UUID, amount: int, *, reference: str, clock: Clock, expires_at: datetime | None = None
) -> HeldFunds:
    """Set ``amount`` minor units of the account aside under a reference that is unique for ever.

    The same request again gives the same hold. Raises `HoldError` with the code ``insufficient_funds``,
    ``account_closed`` or ``reference_conflict`` (the reference holds something else), `NotFound` for no such account.
    """
    if type(amount) is not int or not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput("an amount is a positive integer of minor units, up to 2^53−1")
    cur = cursor(tx)
    if cur.execute("select 1 from ledger.account where id = %s", [account_id]).fetchone() is None:
        raise NotFound("no such account")
    cur.execute("savepoint place_hold")
    try:
        cur.execute(
            "insert into ledger.hold (id, reference, account_id, amount, expires_at, created_at)"
            " values (%s, %s, %s, %s, %s, %s) on conflict (reference) do nothing",
            [new_id(), reference, account_id, amount, expires_at, clock.now()],
        )
    except psycopg.Error as error:
        if error.sqlstate != "MZ001":
            raise
        cur.execute("rollback to savepoint place_hold")
        raise HoldError("the hold is refused", code=error.diag.message_hint or "hold_conflict") from error
    cur.execute("release savepoint place_hold")
    hold = _read(tx, "reference", reference)
    if (hold.account_id, hold.amount, hold.expires_at) != (account_id, amount, expires_at):
        raise HoldError("another hold has this reference", code="reference_conflict")
    return hold


def place_many(tx: Tx, holds: Sequence[NewHold], *, clock: Clock) -> list[UUID | HoldError]:
    """Place holds as one set, each all or nothing by itself: its id, or why it is refused.

    What the set as a whole can't have is placed one by one, in order, so that as many stand as there is money for. Raises
    `InvalidInput` for an amount that can't be, `NotFound` for no such account.
    """
    if any(type(one.amount) is not int or not 0 < one.amount <= AMOUNT_MAX for one in holds):
        raise InvalidInput("an amount is a positive integer of minor units, up to 2^53−1")
    if not holds:
        return []
    ids = [new_id() for _ in holds]
    cur = cursor(tx)
    cur.execute("savepoint place_holds")
    try:
        cur.execute(
            "insert into ledger.hold (id, reference, account_id, amount, expires_at, created_at)"
            " select h.id, h.reference, h.account_id, h.amount, h.expires_at, %s"
            " from unnest(%s::uuid[], %s::text[], %s::uuid[], %s::bigint[], %s::timestamptz[])"
            " as h (id, reference, account_id, amount, expires_at) on conflict (reference) do nothing",
            [
                clock.now(),
                ids,
                [one.reference for one in holds],
                [one.account_id for one in holds],
                [one.amount for one in holds],
                [one.expires_at for one in holds],
            ],
        )
        placed = cur.rowcount == len(holds)
    except psycopg.Error as error:
        if error.sqlstate not in ("MZ001", "23503"):
            raise
        placed = False
    if placed:
        cur.execute("release savepoint place_holds")
        return list(ids)
    cur.execute("rollback to savepoint place_holds")
    cur.execute("release savepoint place_holds")
    return [_place_or_refuse(tx, one, clock) for one in holds]


def _place_or_refuse(tx: Tx, hold: NewHold, clock: Clock) -> UUID | HoldError:
    try:
        return place(
            tx,
            hold.account_id,
            hold.amount,
            reference=hold.reference,
            clock=clock,
            expires_at=hold.expires_at,
        ).id
    except HoldError as refused:
        return refused


def get(tx: Tx, hold_id: UUID) -> HeldFunds:
    """The hold. Raises `NotFound`."""
    return _read(tx, "id", hold_id)


def capture(tx: Tx, hold_id: UUID, transaction: Transaction, *, clock: Clock) -> Outcome:
    """End the hold by posting what it was for.

    What the transaction takes from the hold's account is at most the hold's amount ("hold_exceeded"); less releases the
    rest. A hold that has ended is refused ("hold_ended"), unless the same transaction ended it, which is a replay.
    """
    return post(tx, [replace(transaction, captures=hold_id)], clock=clock)[0]


def release(tx: Tx, hold_id: UUID, *, clock: Clock) -> HeldFunds:
    """Give the held funds back. Raises `NotFound`, and `HoldError` (``hold_ended``) when the hold has ended."""
    hold = _read(tx, "id", hold_id)
    cur = cursor(tx)
    cur.execute("select ledger.lock_accounts(%s)", [[hold.account_id]])
    cur.execute(
        "update ledger.hold set state = 'released', ended_at = %s where id = %s and state = 'active'",
        [clock.now(), hold_id],
    )
    if cur.rowcount == 0:
        raise HoldError("the hold has ended already", code="hold_ended")
    return _read(tx, "id", hold_id)


def release_many(tx: Tx, hold_ids: Sequence[UUID], *, clock: Clock) -> list[UUID]:
    """Give the funds of many holds back, as one set; those that were active until now."""
    if not hold_ids:
        return []
    cur = cursor(tx)
    cur.execute(
        "select ledger.lock_accounts(array(select account_id from ledger.hold where id = any(%s)))",
        [list(hold_ids)],
    )
    ended = cur.execute(
        "update ledger.hold set state = 'released', ended_at = %s where id = any(%s) and state = 'active' returning id",
        [clock.now(), list(hold_ids)],
    )
    return [row[0] for row in ended]


def expire(tx: Tx, *, clock: Clock) -> list[UUID]:
    """End the active holds whose time is up, the oldest first, `EXPIRE_MAX` at most; those that ended."""
    now = clock.now()
    cur = cursor(tx)
    due = cur.execute(
        "select id, account_id from ledger.hold where state = 'active' and expires_at <= %s order by expires_at limit %s",
        [now, EXPIRE_MAX],
    ).fetchall()
    cur.execute("select ledger.lock_accounts(%s)", [[account_id for _, account_id in due]])
    ended = cur.execute(
        "update ledger.hold set state = 'expired', ended_at = %s where id = any(%s) and state = 'active' returning id",
        [now, [hold_id for hold_id, _ in due]],
    )
    return [row[0] for row in ended]


def _read(tx: Tx, column: Literal["id", "reference"], value: UUID | str) -> HeldFunds:
    row = (
        cursor(tx)
        .execute(
            "select id, reference, account_id, amount, captured, state, expires_at, transaction_id, created_at, ended_at"
            f" from ledger.hold where {column} = %s",
            [value],
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("no such hold")
    return HeldFunds(*row)
