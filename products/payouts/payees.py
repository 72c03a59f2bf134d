"""Whom payouts may be paid to: members and payees in sets, judged by the rules of `products.members.payees`."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from ledger.database import Tx, cursor
from products.keyring import Keyring, field_place
from products.members import waiting
from products.members.payees import TABLE, PayeeNotUsable
from products.members.payees import Rail as PayeeKind
from products.members.registry import MEMBER
from products.payouts.rails import RailPayee


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose money it is: the member behind a partner's link, and the accounts that belong to no product."""

    link_id: UUID
    partner_id: UUID
    programme_id: UUID
    member_id: UUID
    active: bool
    erased: bool
    birth_date: date | None
    unapplied_account: UUID
    receivable_account: UUID


@dataclass(frozen=True, slots=True)
class PayeeStanding:
    """A payee of a member: of which kind, and why nothing may be paid to it, if so (`PayeeNotUsable`, stable reasons)."""

    id: UUID
    member_id: UUID
    kind: PayeeKind
    refusal: str | None
    until: datetime | None


REFUSALS: Final[Mapping[str, str]] = {
    "payee_removed": "The payee was removed.",
    "payee_proposed": "The payee is proposed only: the member has to release it with a proof.",
    "payee_waiting": "The payee waits: it takes effect 72 hours after the member released it.",
    "payee_cancelled": "The payee was cancelled while it waited.",
    "beneficiary_ended": "The payee is no longer a beneficiary of the member.",
}
"""Why a payee is not paid, by stable reason."""


def refused(standing: PayeeStanding) -> PayeeNotUsable:
    """The refusal of a payee that nothing may be paid to."""
    told = REFUSALS[standing.refusal or "payee_removed"]
    return PayeeNotUsable(
        f"{told} It does at {standing.until:%Y-%m-%d %H:%M} UTC." if standing.until else told
    )


def lock_members(tx: Tx, link_ids: Collection[UUID]) -> None:
    """Lock the members behind links, in order: what two requests of one member take is counted one after the other."""
    cursor(tx).execute(
        "SELECT 1 FROM products.member WHERE id IN (SELECT member_id FROM products.member_link WHERE id = ANY (%s))"
        " ORDER BY id FOR NO KEY UPDATE",
        [list(link_ids)],
    )


def holders(
    tx: Tx, keyring: Keyring, link_ids: Collection[UUID], *, born: bool = False
) -> dict[UUID, Holder]:
    """The members behind links, with their birth dates if `born`; ended links and erased members are among them and say so."""
    rows = cursor(tx).execute(
        "SELECT l.id, l.partner_id, l.programme_id, l.member_id, l.ended_at IS NULL, m.erased_at IS NOT NULL,"
        " m.wrapped_key, m.birth_date, m.unapplied_account, m.receivable_account"
        " FROM products.member_link l JOIN products.member m ON m.id = l.member_id WHERE l.id = ANY (%s)",
        [list(link_ids)],
    )
    return {row[0]: _holder(keyring, row, born) for row in rows}


def _holder(keyring: Keyring, row: tuple[Any, ...], born: bool) -> Holder:
    link_id, partner_id, programme_id, member_id, active, erased, wrapped, date_of, unapplied, receivable = (
        row
    )
    birth_date = None
    if born and wrapped is not None and date_of is not None:
        place = field_place(MEMBER, "birth_date", member_id)
        birth_date = date.fromisoformat(
            keyring.cipher(bytes(wrapped), member_id).decrypt(bytes(date_of), place)
        )
    return Holder(
        link_id, partner_id, programme_id, member_id, active, erased, birth_date, unapplied, receivable
    )


_STANDING: Final = (
    "SELECT p.id, p.member_id, p.rail, p.removed_at, p.released_at, p.beneficiary_id IS NOT NULL AND b.id IS NULL,"
    " w.effective_at, w.cancelled_at FROM products.payee p"
    " LEFT JOIN products.waiting_change w ON w.subject_id = p.id"
    " LEFT JOIN products.beneficiary b ON b.id = p.beneficiary_id AND b.member_id = p.member_id AND b.ended_at IS NULL"
    " WHERE p.id = ANY (%s)"
)


def standings(tx: Tx, payee_ids: Collection[UUID], at: datetime) -> dict[UUID, PayeeStanding]:
    """How payees stand at `at`: those without a refusal may be paid."""
    rows = cursor(tx).execute(_STANDING, [list(set(payee_ids))])
    return {row[0]: _standing(row, at) for row in rows}


def _standing(row: tuple[Any, ...], at: datetime) -> PayeeStanding:
    payee_id, member_id, kind, removed_at, released_at, orphaned, effective_at, cancelled_at = row
    refusal, until = None, None
    if removed_at is not None:
        refusal = "payee_removed"
    elif released_at is None or effective_at is None:
        refusal = "payee_proposed"
    else:
        match waiting.state_of(effective_at, cancelled_at, at):
            case "waiting":
                refusal, until = "payee_waiting", effective_at
            case "cancelled":
                refusal = "payee_cancelled"
            case "in_effect":
                refusal = "beneficiary_ended" if orphaned else None
    return PayeeStanding(payee_id, member_id, kind, refusal, until)


def addressed(tx: Tx, keyring: Keyring, payee_ids: Collection[UUID]) -> dict[UUID, RailPayee]:
    """Names and destinations in the clear, for a rail; a payee whose member was erased is left out."""
    rows = cursor(tx).execute(
        "SELECT p.id, p.member_id, p.rail, p.name, p.destination, m.wrapped_key FROM products.payee p"
        " JOIN products.member m ON m.id = p.member_id WHERE p.id = ANY (%s) AND m.wrapped_key IS NOT NULL",
        [list(set(payee_ids))],
    )
    found = {}
    for payee_id, member_id, kind, name, destination, wrapped in rows:
        cipher = keyring.cipher(bytes(wrapped), member_id)
        found[payee_id] = RailPayee(
            cipher.decrypt(bytes(name), field_place(TABLE, "name", payee_id)),
            kind,
            json.loads(cipher.decrypt(bytes(destination), field_place(TABLE, "destination", payee_id))),
        )
    return found
