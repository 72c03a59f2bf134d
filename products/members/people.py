"""Who belongs to a member: dependants, whom it provides for, and beneficiaries, who get what it leaves.

Their names are the member's to say and are encrypted under the member's key. Both are dated and ended, never
overwritten. Beneficiaries are replaced as a set, so that their shares are 100 % at every moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import Row, text

from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from products.keyring import FieldCipher, field_place
from products.members.models import Member, Sex
from products.members.phones import e164

DEPENDANT: Final = "products.dependant"
BENEFICIARY: Final = "products.beneficiary"
DEPENDANTS_MAX: Final = 30
BENEFICIARIES_MAX: Final = 20
WHOLE: Final = 10_000
"""All of what a member leaves, in basis points."""

Relation = Literal["spouse", "child", "parent", "sibling", "grandparent", "grandchild", "other"]


class TooManyPeople(Conflict):
    """The member has as many dependants as it may have."""

    code = "too_many"


@dataclass(frozen=True, slots=True)
class NewDependant:
    """Somebody whom a member provides for."""

    relation: Relation
    given_name: str
    family_name: str | None = None
    birth_date: date | None = None
    sex: Sex | None = None
    residence_country: str | None = None


@dataclass(frozen=True, slots=True)
class Dependant:
    """A dependant on record."""

    id: UUID
    said: NewDependant
    added_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewBeneficiary:
    """Somebody who gets a part of what a member leaves, in basis points of the whole."""

    relation: Relation
    given_name: str
    share_basis_points: int
    family_name: str | None = None
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class Beneficiary:
    """A beneficiary on record."""

    id: UUID
    said: NewBeneficiary
    added_at: datetime
    ended_at: datetime | None


def add_dependant(tx: Tx, cipher: FieldCipher, member: Member, new: NewDependant, at: datetime) -> UUID:
    """Record a dependant through the partner of the link; returns its id. Raises TooManyPeople, InvalidInput."""
    if new.birth_date is not None and new.birth_date > at.date():
        raise InvalidInput("The birth date lies in the future.", pointer="/birth_date")
    _lock(tx, member)
    here = tx.execute(
        text("SELECT count(*) FROM products.dependant WHERE member_id = :member AND ended_at IS NULL"),
        {"member": member.member_id},
    ).scalar_one()
    if here >= DEPENDANTS_MAX:
        raise TooManyPeople(f"A member has at most {DEPENDANTS_MAX} dependants.")
    row = new_id()
    sealed = _Sealing(cipher, DEPENDANT, row)
    tx.execute(
        text(
            "INSERT INTO products.dependant (id, member_id, partner_id, relation, given_name, family_name, birth_date,"
            " sex, residence_country, added_at) VALUES (:id, :member, :partner, :relation, :given, :family, :born, :sex,"
            " :country, :at)"
        ),
        {
            "id": row,
            "member": member.member_id,
            "partner": member.partner_id,
            "relation": sealed("relation", new.relation),
            "given": sealed("given_name", new.given_name),
            "family": sealed("family_name", new.family_name),
            "born": sealed("birth_date", new.birth_date.isoformat() if new.birth_date else None),
            "sex": sealed("sex", new.sex),
            "country": sealed("residence_country", new.residence_country),
            "at": at,
        },
    )
    return row


def end_dependant(tx: Tx, member: Member, dependant_id: UUID, at: datetime) -> None:
    """The member provides for this person no more. Raises NotFound for one who is not a dependant now."""
    ended = tx.execute(
        text(
            "UPDATE products.dependant SET ended_at = :at WHERE id = :id AND member_id = :member AND ended_at IS NULL"
            " RETURNING id"
        ),
        {"id": dependant_id, "member": member.member_id, "at": at},
    ).one_or_none()
    if ended is None:
        raise NotFound("There is no such dependant.")


def dependants_of(
    tx: Tx, cipher: FieldCipher, member_id: UUID, *, with_ended: bool = False
) -> list[Dependant]:
    """A member's dependants as row-level security lets `tx` see them, oldest first."""
    found = []
    for row in _rows(tx, DEPENDANT, member_id, with_ended):
        read = _Sealing(cipher, DEPENDANT, row.id)
        born = read.opened("birth_date", row.birth_date)
        found.append(
            Dependant(
                row.id,
                NewDependant(
                    relation=_relation(read.opened("relation", row.relation)),
                    given_name=read.opened("given_name", row.given_name) or "",
                    family_name=read.opened("family_name", row.family_name),
                    birth_date=date.fromisoformat(born) if born else None,
                    sex=_sex(read.opened("sex", row.sex)),
                    residence_country=read.opened("residence_country", row.residence_country),
                ),
                row.added_at,
                row.ended_at,
            )
        )
    return found


def set_beneficiaries(
    tx: Tx, cipher: FieldCipher, member: Member, new: Sequence[NewBeneficiary], at: datetime
) -> None:
    """Replace a member's beneficiaries: all that were end now. None are left, or shares of 100 % together.

    Raises InvalidInput.
    """
    if len(new) > BENEFICIARIES_MAX:
        raise InvalidInput(
            f"A member has at most {BENEFICIARIES_MAX} beneficiaries.", pointer="/beneficiaries"
        )
    total = sum(one.share_basis_points for one in new)
    if new and total != WHOLE:
        raise InvalidInput(
            f"The shares come to {total} basis points, and the whole is {WHOLE}.", pointer="/beneficiaries"
        )
    _lock(tx, member)
    tx.execute(
        text("UPDATE products.beneficiary SET ended_at = :at WHERE member_id = :member AND ended_at IS NULL"),
        {"member": member.member_id, "at": at},
    )
    for one in new:
        row = new_id()
        sealed = _Sealing(cipher, BENEFICIARY, row)
        tx.execute(
            text(
                "INSERT INTO products.beneficiary (id, member_id, partner_id, relation, given_name, family_name, phone,"
                " share_basis_points, added_at) VALUES (:id, :member, :partner, :relation, :given, :family, :phone,"
                " :share, :at)"
            ),
            {
                "id": row,
                "member": member.member_id,
                "partner": member.partner_id,
                "relation": sealed("relation", one.relation),
                "given": sealed("given_name", one.given_name),
                "family": sealed("family_name", one.family_name),
                "phone": sealed("phone", None if one.phone is None else e164(one.phone)),
                "share": one.share_basis_points,
                "at": at,
            },
        )


def beneficiaries_of(
    tx: Tx, cipher: FieldCipher, member_id: UUID, *, with_ended: bool = False
) -> list[Beneficiary]:
    """A member's beneficiaries as row-level security lets `tx` see them, oldest first."""
    found = []
    for row in _rows(tx, BENEFICIARY, member_id, with_ended):
        read = _Sealing(cipher, BENEFICIARY, row.id)
        found.append(
            Beneficiary(
                row.id,
                NewBeneficiary(
                    relation=_relation(read.opened("relation", row.relation)),
                    given_name=read.opened("given_name", row.given_name) or "",
                    share_basis_points=row.share_basis_points,
                    family_name=read.opened("family_name", row.family_name),
                    phone=read.opened("phone", row.phone),
                ),
                row.added_at,
                row.ended_at,
            )
        )
    return found


class _Sealing:
    """Encrypts and opens the fields of one row."""

    def __init__(self, cipher: FieldCipher, table: str, row: UUID) -> None:
        self._cipher, self._table, self._row = cipher, table, row

    def __call__(self, column: str, value: str | None) -> bytes | None:
        if value is None:
            return None
        return self._cipher.encrypt(value, field_place(self._table, column, self._row))

    def opened(self, column: str, value: bytes | None) -> str | None:
        if value is None:
            return None
        return self._cipher.decrypt(value, field_place(self._table, column, self._row))


def _rows(tx: Tx, table: str, member_id: UUID, with_ended: bool) -> Sequence[Row[tuple[object, ...]]]:
    return tx.execute(
        text(f"SELECT * FROM {table} WHERE member_id = :member AND (:ended OR ended_at IS NULL) ORDER BY id"),
        {"member": member_id, "ended": with_ended},
    ).all()


def _lock(tx: Tx, member: Member) -> None:
    """Two changes to the same member's people wait for each other."""
    tx.execute(
        text("SELECT 1 FROM products.member WHERE id = :id FOR NO KEY UPDATE"), {"id": member.member_id}
    )


_RELATIONS: Final[dict[str, Relation]] = {
    "spouse": "spouse",
    "child": "child",
    "parent": "parent",
    "sibling": "sibling",
    "grandparent": "grandparent",
    "grandchild": "grandchild",
}


def _relation(stored: str | None) -> Relation:
    return _RELATIONS.get(stored or "", "other")


def _sex(stored: str | None) -> Sex | None:
    return "female" if stored == "female" else "male" if stored == "male" else "other" if stored else None
