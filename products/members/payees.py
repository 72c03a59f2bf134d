"""Payees: where a member's money may be paid, to the member or to a beneficiary.

A partner's word makes a proposal, which nobody pays. The member's proof over exactly that payee releases it; then it waits 72
hours and the old contact is told (`products.members.waiting`). Names and destinations rest encrypted under the member's key.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import Row, text
from stdnum import iban
from stdnum.exceptions import ValidationError

from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from products.keyring import FieldCipher, Keyring, field_place
from products.members import waiting
from products.members.models import Member
from products.members.phones import e164
from products.members.registry import cipher_of

PAYEES_MAX: Final = 20
TABLE: Final = "products.payee"
PROOF_TAIL: Final = 4

Rail = Literal["mobile_money", "bank", "card"]
State = Literal["proposed", "waiting", "in_effect", "cancelled"]

_PURPOSE: Final = "payee"
_FIELDS: Final[Mapping[Rail, tuple[frozenset[str], ...]]] = {
    "mobile_money": (frozenset({"phone"}), frozenset({"phone", "operator"})),
    "bank": (frozenset({"iban"}), frozenset({"account", "bank_code", "country"})),
    "card": (frozenset({"token"}),),
}


class InvalidPayee(InvalidInput):
    """A destination that no money could reach: not an IBAN, not a phone number, something missing."""

    code = "invalid_payee"


class TooManyPayees(Conflict):
    """The member has as many payees as one may have."""

    code = "too_many_payees"


class PayeeNotUsable(Conflict):
    """The payee is proposed only, waits, or was cancelled: nothing is paid to it."""

    code = "payee_not_usable"


@dataclass(frozen=True, slots=True)
class NewPayee:
    """Who is to be paid and where. `beneficiary_id` is None for the member.

    `destination` by rail: ``mobile_money`` phone (E.164) and perhaps operator; ``bank`` iban, or account, bank_code and
    country; ``card`` token, a payment provider's own opaque id.
    """

    name: str
    rail: Rail
    destination: Mapping[str, str]
    beneficiary_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Payee:
    """A payee as it stands; usable in the state `in_effect` alone."""

    id: UUID
    beneficiary_id: UUID | None
    name: str
    rail: Rail
    destination: Mapping[str, str]
    state: State
    proposed_at: datetime
    released_at: datetime | None
    effective_at: datetime | None
    change_id: UUID | None


def checked(payee: NewPayee) -> NewPayee:
    """The payee with its destination in the one spelling that is kept. Raises `InvalidPayee`, `InvalidPhone`."""
    given = {name: value.strip() for name, value in payee.destination.items()}
    if frozenset(given) not in _FIELDS[payee.rail]:
        wanted = " or ".join(", ".join(sorted(fields)) for fields in _FIELDS[payee.rail])
        raise InvalidPayee(f"A destination of the rail {payee.rail} has {wanted}.", pointer="/destination")
    if "phone" in given:
        given["phone"] = e164(given["phone"])
    if "iban" in given:
        try:
            given["iban"] = iban.validate(given["iban"])
        except ValidationError:
            raise InvalidPayee("This is not an IBAN (ISO 13616).", pointer="/destination/iban") from None
    return NewPayee(payee.name, payee.rail, given, payee.beneficiary_id)


def tail_of(payee: NewPayee) -> str:
    """The end of the number that the money would go to, for the member to recognise."""
    named = payee.destination
    number = named.get("phone") or named.get("iban") or named.get("account") or named.get("token") or ""
    return "".join(one for one in number if one.isascii() and one.isalnum())[-PROOF_TAIL:]


def propose(
    tx: Tx,
    keyring: Keyring,
    member: Member,
    payee: NewPayee,
    *,
    released: bool,
    public_url: str,
    at: datetime,
) -> Payee:
    """Record a payee; with `released` (the member has proven to want exactly this one) it begins to wait.

    The same payee again is the same: a proposal may so be released later, and one that waits goes on waiting.
    Raises `InvalidPayee`, `TooManyPayees`, NotFound for a beneficiary who is not the member's.
    """
    wanted = checked(payee)
    _require_beneficiary(tx, member, wanted.beneficiary_id)
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('mizan payee ' || :link, 0))"),
        {"link": str(member.link_id)},
    )
    known = payees_of(tx, keyring, member, at)
    same = next((one for one in known if _is_same(one, wanted)), None)
    if same is not None and same.state != "cancelled":
        if released and same.state == "proposed":
            tx.execute(
                text("UPDATE products.payee SET released_at = :at WHERE id = :id"),
                {"at": at, "id": same.id},
            )
            waiting.ask(tx, keyring, member, "payee", same.id, public_url=public_url, at=at)
        return one_of(tx, keyring, member, same.id, at)
    if same is not None:
        _remove(tx, member, same.id, at)
    if sum(one.state != "cancelled" for one in known) >= PAYEES_MAX:
        raise TooManyPayees(f"A member has at most {PAYEES_MAX} payees: remove one first.")
    payee_id = new_id()
    cipher = cipher_of(tx, keyring, member)
    destination = json.dumps(wanted.destination, sort_keys=True)
    tx.execute(
        text(
            "INSERT INTO products.payee (id, link_id, member_id, beneficiary_id, name, rail, destination, payee_index,"
            " proposed_at, released_at) VALUES (:id, :link, :member, :beneficiary, :name, :rail, :destination, :index,"
            " :at, :released)"
        ),
        {
            "id": payee_id,
            "link": member.link_id,
            "member": member.member_id,
            "beneficiary": wanted.beneficiary_id,
            "name": cipher.encrypt(wanted.name, field_place(TABLE, "name", payee_id)),
            "rail": wanted.rail,
            "destination": cipher.encrypt(destination, field_place(TABLE, "destination", payee_id)),
            "index": _index(keyring, member, wanted),
            "at": at,
            "released": at if released else None,
        },
    )
    if released:
        waiting.ask(tx, keyring, member, "payee", payee_id, public_url=public_url, at=at)
    return one_of(tx, keyring, member, payee_id, at)


def payees_of(tx: Tx, keyring: Keyring, member: Member, at: datetime) -> list[Payee]:
    """The payees that are not removed, of every link of the member that `tx` may see, oldest first."""
    rows = tx.execute(
        text(f"{_SELECT} WHERE p.member_id = :member AND p.removed_at IS NULL ORDER BY p.id"),
        {"member": member.member_id},
    ).all()
    if not rows:
        return []
    cipher = cipher_of(tx, keyring, member)
    return [_payee(cipher, row, at) for row in rows]


def one_of(tx: Tx, keyring: Keyring, member: Member, payee: UUID, at: datetime) -> Payee:
    """One payee of the member that is not removed. Raises NotFound."""
    row = tx.execute(
        text(f"{_SELECT} WHERE p.id = :id AND p.member_id = :member AND p.removed_at IS NULL"),
        {"id": payee, "member": member.member_id},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such payee.")
    return _payee(cipher_of(tx, keyring, member), row, at)


def remove(tx: Tx, keyring: Keyring, member: Member, payee: UUID, at: datetime) -> None:
    """Remove a payee at once, and tell the member where it was more than a proposal. Raises NotFound."""
    found = one_of(tx, keyring, member, payee, at)
    _remove(tx, member, payee, at)
    if found.state in ("waiting", "in_effect"):
        waiting.end(tx, payee, "removed", at)
        waiting.tell(tx, keyring, member, "payee_removed", at)


_SELECT: Final = (
    "SELECT p.id, p.beneficiary_id, p.name, p.rail, p.destination, p.proposed_at, p.released_at, w.id AS change_id,"
    " w.effective_at, w.cancelled_at FROM products.payee p LEFT JOIN products.waiting_change w ON w.subject_id = p.id"
)


def _payee(cipher: FieldCipher, row: Row[tuple[object, ...]], at: datetime) -> Payee:
    state: State = (
        "proposed"
        if row.released_at is None or row.effective_at is None
        else waiting.state_of(row.effective_at, row.cancelled_at, at)
    )
    destination: dict[str, str] = json.loads(
        cipher.decrypt(bytes(row.destination), field_place(TABLE, "destination", row.id))
    )
    return Payee(
        id=row.id,
        beneficiary_id=row.beneficiary_id,
        name=cipher.decrypt(bytes(row.name), field_place(TABLE, "name", row.id)),
        rail=row.rail,
        destination=destination,
        state=state,
        proposed_at=row.proposed_at,
        released_at=row.released_at,
        effective_at=row.effective_at,
        change_id=row.change_id,
    )


def _is_same(known: Payee, wanted: NewPayee) -> bool:
    return (known.name, known.rail, known.destination, known.beneficiary_id) == (
        wanted.name,
        wanted.rail,
        wanted.destination,
        wanted.beneficiary_id,
    )


def _index(keyring: Keyring, member: Member, payee: NewPayee) -> bytes:
    whole = [payee.name, payee.rail, sorted(payee.destination.items()), str(payee.beneficiary_id)]
    return keyring.blind_index(_PURPOSE, member.link_id.hex + json.dumps(whole))


def _require_beneficiary(tx: Tx, member: Member, beneficiary: UUID | None) -> None:
    if beneficiary is None:
        return
    found = tx.execute(
        text(
            "SELECT 1 FROM products.beneficiary WHERE id = :id AND member_id = :member AND ended_at IS NULL"
        ),
        {"id": beneficiary, "member": member.member_id},
    ).one_or_none()
    if found is None:
        raise NotFound("The member has no such beneficiary.")


def _remove(tx: Tx, member: Member, payee: UUID, at: datetime) -> None:
    tx.execute(
        text(
            "UPDATE products.payee SET removed_at = :at WHERE id = :id AND member_id = :member AND removed_at IS NULL"
        ),
        {"at": at, "id": payee, "member": member.member_id},
    )
