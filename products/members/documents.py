"""Documents by which a member can be known: type, issuing country, number and expiry, encrypted and found by blind index.

A number is checked with `stdnum` where it knows the type of the country; any other is taken as it is, and says so
(`checked`). What a document's type alone would tell of a person that Mizan never holds (`products.vocabulary`) is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from types import ModuleType
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text
from stdnum import co, ec, gt
from stdnum.br import cpf
from stdnum.cn import ric
from stdnum.de import idnr as de_idnr
from stdnum.eg import tn as eg_tn
from stdnum.es import dni
from stdnum.fr import nir
from stdnum.id import nik
from stdnum.in_ import aadhaar, epic, pan
from stdnum.it import codicefiscale
from stdnum.ke import pin as ke_pin
from stdnum.mx import curp
from stdnum.my import nric
from stdnum.pk import cnic
from stdnum.th import pin as th_pin
from stdnum.tr import tckimlik
from stdnum.us import ssn
from stdnum.za import idnr as za_idnr

from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from products.keyring import FieldCipher, Keyring, field_place
from products.members import duplicates, verification
from products.members.models import Member
from products.vocabulary import what_is_never_held

TABLE: Final = "products.member_document"
DOCUMENTS_MAX: Final = 20
"""Documents of one member that are not ended."""

_SEPARATORS: Final = re.compile(r"[\s.\-/]+")

KNOWN: Final[Mapping[tuple[str, str], ModuleType]] = {
    ("national_id", "BR"): cpf,
    ("national_id", "CN"): ric,
    ("national_id", "CO"): co.nit,
    ("national_id", "EC"): ec.ci,
    ("national_id", "ES"): dni,
    ("national_id", "ID"): nik,
    ("national_id", "IN"): aadhaar,
    ("national_id", "MX"): curp,
    ("national_id", "MY"): nric,
    ("national_id", "PK"): cnic,
    ("national_id", "TH"): th_pin,
    ("national_id", "TR"): tckimlik,
    ("national_id", "ZA"): za_idnr,
    ("social_security", "FR"): nir,
    ("social_security", "US"): ssn,
    ("tax_id", "DE"): de_idnr,
    ("tax_id", "EG"): eg_tn,
    ("tax_id", "GT"): gt.nit,
    ("tax_id", "IN"): pan,
    ("tax_id", "IT"): codicefiscale,
    ("tax_id", "KE"): ke_pin,
    ("voter_card", "IN"): epic,
}
"""Types of documents by issuing country whose numbers are checked, and what checks them."""


class InvalidDocument(InvalidInput):
    """Not a number that a document of this type and country can have, or a document that can't be taken."""

    code = "invalid_document"


class TooManyDocuments(Conflict):
    """The member has as many documents as it may have."""

    code = "too_many"


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document as somebody writes it down."""

    type: str
    country: str
    number: str
    expires_on: date | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document on record; `checked` says whether its number was, or nothing, as nobody here knows the type."""

    id: UUID
    type: str
    country: str
    number: str
    expires_on: date | None
    checked: Literal["number", "nothing"]
    recorded_at: datetime
    ended_at: datetime | None


def normalised(document: NewDocument) -> tuple[str, Literal["number", "nothing"]]:
    """The number in the one spelling that is stored and found, and whether it was checked. Raises InvalidDocument."""
    if held := what_is_never_held(document.type):
        raise InvalidDocument(f"Mizan holds nothing on {held}.", pointer="/type")
    known = KNOWN.get((document.type, document.country))
    if known is None:
        number = _SEPARATORS.sub("", document.number).upper()
        if not number:
            raise InvalidDocument("The number is empty.", pointer="/number")
        return number, "nothing"
    # `validate` answers the compact number, or raises for what is not one
    try:
        return str(known.validate(document.number)), "number"
    except ValueError:
        raise InvalidDocument(
            "This is not the number of such a document: a digit is wrong, missing or too many.",
            pointer="/number",
        ) from None


def number_index(keyring: Keyring, partner_id: UUID, type_: str, country: str, number: str) -> bytes:
    """The blind index of a document among one partner's."""
    return keyring.blind_index("document", f"{partner_id.hex}{type_}\0{country}\0{number}")


def add(
    tx: Tx, keyring: Keyring, cipher: FieldCipher, member: Member, document: NewDocument, at: datetime
) -> Document:
    """Record a document through the partner of the link. It raises no level by itself: somebody has to have seen it.

    The same one again comes back as it is. Raises InvalidDocument, TooManyDocuments.
    """
    number, checked = normalised(document)
    if document.expires_on is not None and document.expires_on < at.date():
        raise InvalidDocument("The document is no longer valid.", pointer="/expires_on")
    current = [one for one in documents_of(tx, cipher, member.member_id) if one.ended_at is None]
    for one in current:
        if (one.type, one.country, one.number) == (document.type, document.country, number):
            return one
    if len(current) >= DOCUMENTS_MAX:
        raise TooManyDocuments(f"A member has at most {DOCUMENTS_MAX} documents.")
    row = new_id()

    def sealed(column: str, value: str | None) -> bytes | None:
        return None if value is None else cipher.encrypt(value, field_place(TABLE, column, row))

    tx.execute(
        text(
            "INSERT INTO products.member_document (id, member_id, partner_id, type, country, number, expires_on,"
            " number_index, checked, recorded_at) VALUES (:id, :member, :partner, :type, :country, :number, :expires,"
            " :index, :checked, :at)"
        ),
        {
            "id": row,
            "member": member.member_id,
            "partner": member.partner_id,
            "type": document.type,
            "country": sealed("country", document.country),
            "number": sealed("number", number),
            "expires": sealed("expires_on", document.expires_on.isoformat() if document.expires_on else None),
            "index": number_index(keyring, member.partner_id, document.type, document.country, number),
            "checked": checked,
            "at": at,
        },
    )
    likeness = duplicates.document(member.member_id, row, document.type, document.country, number)
    duplicates.note(tx, keyring, member.partner_id, [likeness], at)
    return Document(row, document.type, document.country, number, document.expires_on, checked, at, None)


def end(tx: Tx, member: Member, document_id: UUID, at: datetime) -> None:
    """End a document, and the verifications that rest on it. Raises NotFound."""
    ended = tx.execute(
        text(
            "UPDATE products.member_document SET ended_at = coalesce(ended_at, :at)"
            " WHERE id = :id AND member_id = :member RETURNING id"
        ),
        {"id": document_id, "member": member.member_id, "at": at},
    ).one_or_none()
    if ended is None:
        raise NotFound("There is no such document.")
    verification.end_of_document(tx, document_id, at)


def documents_of(tx: Tx, cipher: FieldCipher | None, member_id: UUID) -> list[Document]:
    """A member's documents as row-level security lets `tx` see them, oldest first; none of an erased member."""
    if cipher is None:
        return []
    rows = tx.execute(
        text(
            "SELECT id, type, country, number, expires_on, checked, recorded_at, ended_at"
            " FROM products.member_document WHERE member_id = :member ORDER BY id"
        ),
        {"member": member_id},
    ).all()
    documents = []
    for row in rows:
        expires = (
            None
            if row.expires_on is None
            else date.fromisoformat(cipher.decrypt(row.expires_on, field_place(TABLE, "expires_on", row.id)))
        )
        documents.append(
            Document(
                row.id,
                row.type,
                cipher.decrypt(row.country, field_place(TABLE, "country", row.id)),
                cipher.decrypt(row.number, field_place(TABLE, "number", row.id)),
                expires,
                row.checked,
                row.recorded_at,
                row.ended_at,
            )
        )
    return documents
