"""People who are registered more than once: found by managers, told to no partner.

What a member is known by is indexed a second time, under a key that is the same for all partners. Partners' requests add
to that index and can't read it, so that registering somebody costs and says the same whether they are known elsewhere or
not. Only the worker's role reads it, for managers; that two members are one person is for the person to prove
(`linking`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.ids import new_id
from products.keyring import Keyring

Kind = Literal["phone", "document"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a member is known by: `source_id` is the link or the document that says it."""

    member_id: UUID
    kind: Kind
    source_id: UUID
    value: str


def phone(member_id: UUID, link_id: UUID, number: str) -> Likeness:
    """A phone number, in E.164."""
    return Likeness(member_id, "phone", link_id, number)


def document(member_id: UUID, document_id: UUID, type_: str, country: str, number: str) -> Likeness:
    """A document, in the spelling of `documents.normalised`."""
    return Likeness(member_id, "document", document_id, f"{type_}\0{country}\0{number}")


def note(tx: Tx, keyring: Keyring, partner_id: UUID, likenesses: Sequence[Likeness], at: datetime) -> None:
    """Index what members are known by; the same statements whether or not anybody else is known by it."""
    if not likenesses:
        return
    cursor(tx).execute(
        "INSERT INTO products.identity_index (id, member_id, partner_id, kind, source_id, digest, recorded_at)"
        " SELECT id, member_id, %s, kind, source_id, digest, %s"
        " FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::uuid[], %s::bytea[])"
        " AS t (id, member_id, kind, source_id, digest)",
        (
            partner_id,
            at,
            [new_id() for _ in likenesses],
            [one.member_id for one in likenesses],
            [one.kind for one in likenesses],
            [one.source_id for one in likenesses],
            [keyring.blind_index(f"everywhere {one.kind}", one.value) for one in likenesses],
        ),
    )


def forget(tx: Tx, member_id: UUID) -> None:
    """Take a member out of the index. Needs the worker's rights."""
    tx.execute(text("DELETE FROM products.identity_index WHERE member_id = :id"), {"id": member_id})


def forget_phone(tx: Tx, link_id: UUID) -> None:
    """Take a link's phone out of the index, before its new one is noted. Needs the worker's rights."""
    tx.execute(
        text("DELETE FROM products.identity_index WHERE source_id = :id AND kind = 'phone'"), {"id": link_id}
    )


Position = tuple[UUID, Kind, str]
"""The oldest link of a group, what is shared, and a digest that tells groups of both apart."""


@dataclass(frozen=True, slots=True)
class Registered:
    """One of several members who are known by the same: its link, partner and programme."""

    link_id: UUID
    partner_id: UUID
    programme_id: UUID
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Group:
    """Members who share a phone number or a document. `position` is where the group stands in the order of groups."""

    position: Position
    kind: Kind
    members: tuple[Registered, ...]


def groups(
    tx: Tx, *, programmes: frozenset[UUID] | None = None, after: Position | None = None, limit: int = 50
) -> list[Group]:
    """Groups of members with active links who share something, in the order of their oldest links.

    `programmes` are those that the asker may see: a group shows only members in them. Needs the worker's rights.
    """
    db = cursor(tx)
    db.execute(
        """WITH known AS (
               SELECT DISTINCT i.digest, i.kind, l.id AS link_id, l.partner_id, l.programme_id, l.linked_at, l.member_id
               FROM products.identity_index i
               JOIN products.member_link l ON l.member_id = i.member_id AND l.ended_at IS NULL
               LEFT JOIN products.member_document d ON d.id = i.source_id
               WHERE (i.kind = 'phone' OR d.ended_at IS NULL)
                 AND (%(programmes)s::uuid[] IS NULL OR l.programme_id = ANY (%(programmes)s::uuid[]))
           ), shared AS (
               SELECT digest, kind, min(link_id::text)::uuid AS first, encode(sha256(digest), 'hex') AS tag FROM known
               GROUP BY digest, kind HAVING count(DISTINCT member_id) > 1
           ), page AS (
               SELECT * FROM shared WHERE (first, kind, tag) > (%(first)s, %(kind)s, %(tag)s)
               ORDER BY first, kind, tag LIMIT %(limit)s
           )
           SELECT p.first, p.kind, p.tag, k.link_id, k.partner_id, k.programme_id, k.linked_at
           FROM page p JOIN known k USING (digest, kind) ORDER BY p.first, p.kind, p.tag, k.link_id""",
        {
            "programmes": None if programmes is None else sorted(programmes),
            **dict(zip(("first", "kind", "tag"), after or (UUID(int=0), "", ""), strict=True)),
            "limit": limit,
        },
    )
    found: dict[Position, list[Registered]] = {}
    for first, kind, tag, *registered in db.fetchall():
        found.setdefault((first, kind, tag), []).append(Registered(*registered))
    return [Group(position, position[1], tuple(members)) for position, members in found.items()]
