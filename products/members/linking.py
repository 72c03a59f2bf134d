"""One person, known to several partners: linked by the person, and by nobody else.

In one partner's app the member proves themselves and is shown a linking code; in another partner's app they type it and prove
themselves again. Nothing is looked up before that: making an offer says and costs the same whether the phone is known
elsewhere or not, and no partner is told of another. The members' rows, links and ``mem_`` ids stay what they are; a table
that no partner can read says that they are one person.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.ids import new_id
from products.keyring import Keyring
from products.members import waiting
from products.members.models import Member
from products.members.registry import find

OFFER_LIFETIME: Final = timedelta(minutes=30)
CODE_CHARACTERS: Final = 12
ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
"""Without what is read wrongly; 12 of them carry 59 bits, which nobody guesses in half an hour behind two proofs."""

_PURPOSE: Final = "linking code"


class LinkRefused(InvalidInput):
    """The linking code is wrong, was used, has expired, or is the member's own."""

    code = "link_refused"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the member is shown, once, to type into another partner's app."""

    code: str
    expires_at: datetime


def offer(tx: Tx, keyring: Keyring, member: Member, at: datetime) -> Offer:
    """Make a linking code for a member who has proven themselves (purpose `link`)."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARACTERS))
    expires_at = at + OFFER_LIFETIME
    tx.execute(
        text(
            "INSERT INTO products.link_offer (id, link_id, member_id, digest, created_at, expires_at)"
            " VALUES (:id, :link, :member, :digest, :at, :expires)"
        ),
        {
            "id": new_id(),
            "link": member.link_id,
            "member": member.member_id,
            "digest": _digest(keyring, code),
            "at": at,
            "expires": expires_at,
        },
    )
    return Offer("-".join(code[start : start + 4] for start in range(0, len(code), 4)), expires_at)


def join(tx: Tx, keyring: Keyring, member: Member, code: str, at: datetime) -> None:
    """Make the member, who has proven themselves, one person with the one who was offered `code`.

    The member is told by a notice on this side. What both have earned of match together is derived anew by the job.
    Raises `LinkRefused`.
    """
    joined = tx.execute(
        text("SELECT member_id FROM products.join_persons(:digest, :link, :ids, :at)"),
        {
            "digest": _digest(keyring, code),
            "link": member.link_id,
            "ids": [new_id(), new_id(), new_id()],
            "at": at,
        },
    ).scalars()
    members = list(joined)
    if not members:
        raise LinkRefused(
            "The linking code is wrong, was used or has expired, or is this member's own.", pointer="/code"
        )
    for one in members:
        tx.execute(
            text(
                "INSERT INTO products.reevaluation (id, member_id, requested_at) VALUES (:id, :member, :at)"
            ),
            {"id": new_id(), "member": one, "at": at},
        )
    waiting.tell(tx, keyring, member, "linked", at)


def leave(tx: Tx, member: Member, at: datetime) -> None:
    """Make the member a person of their own again; nothing happens where they were one already."""
    left = tx.execute(
        text("SELECT products.leave_person(:member, :at)"), {"member": member.member_id, "at": at}
    ).scalars()
    _derive_anew(tx, list(left), at)


def members_of_person(tx: Tx, member_id: UUID) -> list[UUID]:
    """The members that are proven to be one person with this one, itself included, as the worker; oldest first."""
    rows = tx.execute(
        text(
            "SELECT o.member_id FROM products.person_member p"
            " JOIN products.person_member o ON o.person_id = p.person_id AND o.left_at IS NULL"
            " WHERE p.member_id = :member AND p.left_at IS NULL ORDER BY o.member_id"
        ),
        {"member": member_id},
    ).scalars()
    return list(rows) or [member_id]


@dataclass(frozen=True, slots=True)
class Account:
    """One of a person's members, as the partner that registered them knows them."""

    partner: str
    member: Member


def accounts_of(tx: Tx, keyring: Keyring, member_ids: Sequence[UUID]) -> list[Account]:
    """The members, each by its oldest link, with the name of that link's partner, as the worker. None that was erased."""
    rows = tx.execute(
        text(
            "SELECT DISTINCT ON (l.member_id) l.id, p.name FROM products.member_link l"
            " JOIN products.partner p ON p.id = l.partner_id JOIN products.member m ON m.id = l.member_id"
            " WHERE l.member_id = ANY (:ids) AND m.erased_at IS NULL ORDER BY l.member_id, l.id"
        ),
        {"ids": list(member_ids)},
    ).all()
    return [Account(row.name, find(tx, keyring, row.id, with_ended=True)) for row in rows]


def _derive_anew(tx: Tx, members: Sequence[UUID], at: datetime) -> None:
    for one in members:
        tx.execute(
            text(
                "INSERT INTO products.reevaluation (id, member_id, requested_at) VALUES (:id, :member, :at)"
            ),
            {"id": new_id(), "member": one, "at": at},
        )


def _digest(keyring: Keyring, code: str) -> bytes:
    return keyring.blind_index(_PURPOSE, code.replace("-", "").replace(" ", "").lower())
