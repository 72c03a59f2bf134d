"""Lists of members, and members looked up by what a partner knows them by."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.horizon import START, Position
from products.keyring import FieldCipher, Keyring, field_place
from products.members.registry import LINK, MEMBER

FoundBy = Literal["phone", "partner_reference", "document"]

_FOUND_BY: Final[Mapping[FoundBy, str]] = {
    "phone": "l.phone_index = %(phone)s",
    "partner_reference": "l.partner_reference_index = %(partner_reference)s",
    "document": (
        "l.member_id IN (SELECT d.member_id FROM products.member_document d"
        " WHERE d.number_index = %(document)s AND d.ended_at IS NULL)"
    ),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A member in a list, as the partner of the link knows them."""

    link_id: UUID
    programme_id: UUID
    phone: str | None
    partner_reference: str | None
    given_name: str | None
    family_name: str | None
    linked_at: datetime
    position: Position


def listed(
    tx: Tx, keyring: Keyring, found_by: Mapping[FoundBy, bytes], *, after: Position | None, limit: int
) -> list[Listed]:
    """Members with active links as row-level security lets `tx` see them, in the order of registration.

    Without `found_by` those behind the settled horizon; with blind indexes those that all of them find, at once.
    """
    order = "(l.era, l.xid, l.id)"
    conditions = [_FOUND_BY[name] for name in found_by] or [
        "(l.era, l.xid) < ((SELECT ledger.current_era()), (SELECT ledger.settled_xid()))"
    ]
    parameters: dict[str, object] = {**(after or START).parameters, "limit": limit}
    parameters.update({str(name): index for name, index in found_by.items()})
    db = cursor(tx)
    db.execute(
        "SELECT l.id, l.programme_id, l.phone, l.partner_reference, l.linked_at, l.era, l.xid::text::bigint, l.member_id,"
        " m.wrapped_key, m.given_name, m.family_name"
        " FROM products.member_link l JOIN products.member m ON m.id = l.member_id"
        f" WHERE l.ended_at IS NULL AND m.wrapped_key IS NOT NULL AND {' AND '.join(conditions)}"
        f" AND {order} > (%(era)s, %(xid)s::text::xid8, %(id)s) ORDER BY l.era, l.xid, l.id LIMIT %(limit)s",
        parameters,
    )
    rows = []
    for (
        link,
        programme,
        phone,
        reference,
        linked_at,
        era,
        xid,
        member,
        wrapped,
        given,
        family,
    ) in db.fetchall():
        cipher = keyring.cipher(wrapped, member)

        def read(
            value: bytes | None, table: str, column: str, owner: UUID, by: FieldCipher = cipher
        ) -> str | None:
            return None if value is None else by.decrypt(value, field_place(table, column, owner))

        rows.append(
            Listed(
                link,
                programme,
                read(phone, LINK, "phone", link),
                read(reference, LINK, "partner_reference", link),
                read(given, MEMBER, "given_name", member),
                read(family, MEMBER, "family_name", member),
                linked_at,
                Position(era, xid, link),
            )
        )
    return rows
