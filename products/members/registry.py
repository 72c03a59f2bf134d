"""The registry: who the members are, and which partner knows them as whom.

A partner's word creates its own link, its own facts and its own mandate. Another partner that registers the same phone
number gets a member of its own and learns nothing: that the two are one person is for the person to prove.

Personal fields are encrypted one by one under the member's own data key, which rests wrapped by the master key
(`products.keyring`); links are found by keyed blind index. Erasing a member destroys the wrapped key.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.ids import new_id
from products import chart
from products.facts import Fact
from products.keyring import FieldCipher, Keyring, field_place
from products.members import duplicates
from products.members.facts import insert_facts, read_facts
from products.members.mandates import insert_mandates, mandates_of
from products.members.models import (
    AccountHolder,
    InvalidRegistration,
    Member,
    MemberExists,
    Registered,
    Registration,
)
from products.members.phones import e164

AGE_YEARS_MAX: Final = 120

MEMBER: Final = "products.member"
LINK: Final = "products.member_link"


def phone_index(keyring: Keyring, partner_id: UUID, phone: str) -> bytes:
    """The blind index of an E.164 phone number among one partner's links."""
    return keyring.blind_index("phone", f"{partner_id.hex}{phone}")


def reference_index(keyring: Keyring, partner_id: UUID, reference: str) -> bytes:
    """The blind index of a partner's own reference among its links."""
    return keyring.blind_index("partner_reference", f"{partner_id.hex}{reference}")


def joined_programme(tx: Tx, partner_id: UUID, slug: str) -> UUID:
    """The programme of this name that the partner has joined; one it has not joined does not exist for it (NotFound)."""
    found: UUID | None = tx.execute(
        text(
            "SELECT p.id FROM products.programme p JOIN products.partner_programme j ON j.programme_id = p.id"
            " WHERE p.slug = :slug AND j.partner_id = :partner"
        ),
        {"slug": slug, "partner": partner_id},
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("There is no such programme.")
    return found


def register(
    tx: Tx, keyring: Keyring, programme_id: UUID, partner_id: UUID, registration: Registration, at: datetime
) -> Registered:
    """Register one person in a programme through a partner.

    Raises:
        MemberExists: this partner registered the phone number or reference in this programme before.
        InvalidPhone, InvalidRegistration: what was said is not possible.
    """
    (registered,) = register_many(tx, keyring, programme_id, partner_id, [registration], at)
    if not registered.created:
        raise MemberExists(registered.link_id)
    return registered


def register_many(
    tx: Tx,
    keyring: Keyring,
    programme_id: UUID,
    partner_id: UUID,
    registrations: Sequence[Registration],
    at: datetime,
) -> list[Registered]:
    """Register people set-based (thousands in a second); those the partner registered before come back as they are.

    Facts and mandates of people registered before are not touched. Of two that share a phone number or reference
    within `registrations` the first is registered. Raises as `register` does, before anything is written.
    """
    prepared = [_Prepared(keyring, partner_id, registration, at) for registration in registrations]
    created = _insert_links(tx, programme_id, partner_id, prepared, at)
    new = [person for person in prepared if person.link_id in created]
    _insert_members(tx, keyring, programme_id, partner_id, new, at)
    duplicates.note(
        tx,
        keyring,
        partner_id,
        [
            duplicates.phone(person.member_id, person.link_id, person.number)
            for person in new
            if person.number is not None
        ],
        at,
    )
    insert_facts(
        tx,
        partner_id,
        [(person.member_id, person.cipher, fact) for person in new for fact in person.registration.facts],
    )
    insert_mandates(
        tx,
        partner_id,
        [
            (person.member_id, person.cipher, person.registration.mandate)
            for person in new
            if person.registration.mandate is not None
        ],
        at,
    )
    if len(new) == len(prepared):
        return [Registered(person.link_id, person.member_id, created=True) for person in prepared]
    return _with_those_known(tx, programme_id, partner_id, prepared, created)


def find_account_holder(tx: Tx, keyring: Keyring, link_id: UUID, at: datetime) -> AccountHolder:
    """What reading a member's money needs of the member behind a ``mem_`` id, in one statement.

    Raises NotFound as `find` does.
    """
    row = (
        cursor(tx)
        .execute(
            """SELECT l.member_id, l.partner_id, l.programme_id, m.wrapped_key, m.birth_date, EXISTS (
                   SELECT FROM products.consent c
                   WHERE c.member_id = l.member_id AND c.purpose IN ('whole_view', 'casework') AND c.given_at <= %(at)s
                     AND (c.withdrawn_at IS NULL OR %(at)s < c.withdrawn_at)
                     AND (c.paused_at IS NULL OR %(at)s < c.paused_at))
               FROM products.member_link l JOIN products.member m ON m.id = l.member_id
               WHERE l.id = %(link)s AND l.ended_at IS NULL""",
            {"link": link_id, "at": at},
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such member.")
    member_id, partner_id, programme_id, wrapped, born, shows_whole = row
    birth_date = None
    if wrapped is not None and born is not None:
        place = field_place(MEMBER, "birth_date", member_id)
        birth_date = date.fromisoformat(keyring.cipher(wrapped, member_id).decrypt(born, place))
    return AccountHolder(link_id, member_id, partner_id, programme_id, birth_date, shows_whole)


def find(
    tx: Tx,
    keyring: Keyring,
    link_id: UUID,
    *,
    with_ended: bool = False,
    partner_id: UUID | None = None,
    programmes: Collection[UUID] | None = None,
) -> Member:
    """The member behind a ``mem_`` id, decrypted, with facts and mandates, as row-level security lets `tx` see it.

    `partner_id` and `programmes` say whose it has to be where row-level security does not hold: what is another's then
    costs as much as what does not exist.

    Raises:
        NotFound: there is no such link, it has ended (unless `with_ended`), or it is another partner's.
    """
    row = tx.execute(
        text(
            "SELECT l.id AS link_id, l.partner_id, l.programme_id, l.member_id, l.phone, l.partner_reference, l.linked_at,"
            " l.ended_at, m.wrapped_key, m.birth_date, m.sex, m.origin_country, m.residence_country,"
            " m.given_name, m.family_name FROM products.member_link l JOIN products.member m ON m.id = l.member_id WHERE l.id = :link"
            " AND (CAST(:partner AS uuid) IS NULL OR l.partner_id = :partner)"
            " AND (CAST(:programmes AS uuid[]) IS NULL OR l.programme_id = ANY (:programmes))"
        ),
        {
            "link": link_id,
            "partner": partner_id,
            "programmes": None if programmes is None else list(programmes),
        },
    ).one_or_none()
    if row is None or (row.ended_at is not None and not with_ended):
        raise NotFound("There is no such member.")
    cipher = keyring.cipher(row.wrapped_key, row.member_id) if row.wrapped_key is not None else None

    def field(value: bytes | None, table: str, column: str, owner: UUID) -> str | None:
        if value is None or cipher is None:
            return None
        return cipher.decrypt(value, field_place(table, column, owner))

    born = field(row.birth_date, MEMBER, "birth_date", row.member_id)
    sex = field(row.sex, MEMBER, "sex", row.member_id)
    return Member(
        link_id=row.link_id,
        member_id=row.member_id,
        partner_id=row.partner_id,
        programme_id=row.programme_id,
        phone=field(row.phone, LINK, "phone", row.link_id),
        partner_reference=field(row.partner_reference, LINK, "partner_reference", row.link_id),
        birth_date=date.fromisoformat(born) if born else None,
        sex="female" if sex == "female" else "male" if sex == "male" else "other" if sex else None,
        origin_country=field(row.origin_country, MEMBER, "origin_country", row.member_id),
        residence_country=field(row.residence_country, MEMBER, "residence_country", row.member_id),
        linked_at=row.linked_at,
        ended_at=row.ended_at,
        erased=cipher is None,
        given_name=field(row.given_name, MEMBER, "given_name", row.member_id),
        family_name=field(row.family_name, MEMBER, "family_name", row.member_id),
        facts=read_facts(tx, cipher, row.member_id) if cipher is not None else (),
        mandates=mandates_of(tx, row.member_id),
    )


def add_facts(tx: Tx, keyring: Keyring, member: Member, facts: Sequence[Fact]) -> None:
    """Record facts of a member through the partner of the link. What was recorded before stays."""
    insert_facts(
        tx, member.partner_id, [(member.member_id, cipher_of(tx, keyring, member), fact) for fact in facts]
    )
    _reevaluate(tx, member)


CHANGEABLE: Final = (
    "given_name",
    "family_name",
    "birth_date",
    "sex",
    "origin_country",
    "residence_country",
)
"""What is said about a person and may be said anew. Who is found by what is not among it: a phone takes proof."""


def change(tx: Tx, keyring: Keyring, member: Member, said: Mapping[str, str], at: datetime) -> None:
    """Record what is now known of a member: fields of `CHANGEABLE`, a birth date as ISO text. Raises InvalidRegistration."""
    if not said or not set(said) <= set(CHANGEABLE):
        raise ValueError(f"{sorted(said)} are not what may be changed about a member")
    if "birth_date" in said:
        _check_birth_date(date.fromisoformat(said["birth_date"]), at)
    cipher = cipher_of(tx, keyring, member)
    tx.execute(
        text(f"UPDATE products.member SET {', '.join(f'{name} = :{name}' for name in said)} WHERE id = :id"),
        {
            "id": member.member_id,
            **{
                name: cipher.encrypt(value, field_place(MEMBER, name, member.member_id))
                for name, value in said.items()
            },
        },
    )
    if "birth_date" in said:
        _reevaluate(tx, member)
    known = {
        "given_name": member.given_name,
        "family_name": member.family_name,
        "birth_date": member.birth_date.isoformat() if member.birth_date else None,
    }
    if any(known[name] not in (None, said[name]) for name in known.keys() & said.keys()):
        # who was verified is not who is on record now
        tx.execute(
            text(
                "UPDATE products.member_verification SET ended_at = :at"
                " WHERE member_id = :id AND level <> 'phone' AND ended_at IS NULL"
            ),
            {"id": member.member_id, "at": at},
        )


def _reevaluate(tx: Tx, member: Member) -> None:
    """What the member's match comes to may depend on what changed, also in the past: a job derives it anew."""
    tx.execute(
        text("INSERT INTO products.reevaluation (id, member_id, requested_at) VALUES (:id, :member, now())"),
        {"id": new_id(), "member": member.member_id},
    )


def end_link(tx: Tx, member: Member, at: datetime) -> None:
    """End the partner's link: it sees the member no more. The member, the books and other partners' links stay."""
    tx.execute(
        text("UPDATE products.member_link SET ended_at = :at WHERE id = :id AND ended_at IS NULL"),
        {"at": at, "id": member.link_id},
    )


def erase(tx: Tx, member_id: UUID, at: datetime) -> None:
    """Destroy the member's key and what finds its links: nobody can read the person again; the pseudonym stays.

    A part of `products.members.erasure`, which does the whole. Needs the worker's rights. Raises NotFound.
    """
    erased = tx.execute(
        text(
            "UPDATE products.member SET wrapped_key = NULL, erased_at = :at WHERE id = :id AND erased_at IS NULL"
            " RETURNING id"
        ),
        {"at": at, "id": member_id},
    ).one_or_none()
    if erased is None:
        raise NotFound("There is no such member.")
    tx.execute(
        text(
            "UPDATE products.member_link SET phone = NULL, phone_index = NULL, partner_reference = NULL,"
            " partner_reference_index = NULL, ended_at = coalesce(ended_at, :at) WHERE member_id = :id"
        ),
        {"at": at, "id": member_id},
    )


class _Prepared:
    """One registration with its ids, key and ciphertexts, before anything is written."""

    __slots__ = (
        "cipher",
        "data_key",
        "link_id",
        "member_id",
        "number",
        "phone",
        "phone_index",
        "reference",
        "reference_index",
        "registration",
    )

    def __init__(self, keyring: Keyring, partner_id: UUID, registration: Registration, at: datetime) -> None:
        _check(registration, at)
        self.registration = registration
        self.link_id = new_id()
        self.member_id = new_id()
        self.data_key = keyring.new_data_key()
        self.cipher = FieldCipher(self.data_key)
        self.number: str | None = None
        self.phone = self.phone_index = self.reference = self.reference_index = None
        if registration.phone is not None:
            self.number = number = e164(registration.phone)
            self.phone = self.cipher.encrypt(number, field_place(LINK, "phone", self.link_id))
            self.phone_index = phone_index(keyring, partner_id, number)
        if registration.partner_reference is not None:
            place = field_place(LINK, "partner_reference", self.link_id)
            self.reference = self.cipher.encrypt(registration.partner_reference, place)
            self.reference_index = reference_index(keyring, partner_id, registration.partner_reference)

    def personal(self, column: str, value: str | None) -> bytes | None:
        return (
            None if value is None else self.cipher.encrypt(value, field_place(MEMBER, column, self.member_id))
        )

    def birth_date(self) -> bytes | None:
        born = self.registration.birth_date
        return self.personal("birth_date", born.isoformat() if born else None)


def _check(registration: Registration, at: datetime) -> None:
    if registration.phone is None and registration.partner_reference is None:
        raise InvalidRegistration(
            "A member is registered by phone, by partner_reference, or by both.", pointer=""
        )
    if registration.birth_date is not None:
        _check_birth_date(registration.birth_date, at)


def _check_birth_date(born: date, at: datetime) -> None:
    if not at.year - AGE_YEARS_MAX <= born.year <= at.year:
        raise InvalidRegistration("The birth date is not that of a living person.", pointer="/birth_date")
    if born > at.date():
        raise InvalidRegistration("The birth date lies in the future.", pointer="/birth_date")


def _insert_links(
    tx: Tx, programme_id: UUID, partner_id: UUID, people: Sequence[_Prepared], at: datetime
) -> set[UUID]:
    """Insert the links; those that lose against a unique index are known already. Returns the ids that were written."""
    db = cursor(tx)
    # sorted, so that two registrations of the same people wait for each other instead of deadlocking
    ordered = sorted(people, key=lambda person: (person.phone_index or b"", person.reference_index or b""))
    db.execute(
        "INSERT INTO products.member_link (id, partner_id, programme_id, member_id, phone, phone_index,"
        " partner_reference, partner_reference_index, linked_at)"
        " SELECT id, %s, %s, member_id, phone, phone_index, reference, reference_index, %s"
        " FROM unnest(%s::uuid[], %s::uuid[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[])"
        " AS t (id, member_id, phone, phone_index, reference, reference_index)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (
            partner_id,
            programme_id,
            at,
            [person.link_id for person in ordered],
            [person.member_id for person in ordered],
            [person.phone for person in ordered],
            [person.phone_index for person in ordered],
            [person.reference for person in ordered],
            [person.reference_index for person in ordered],
        ),
    )
    return {row[0] for row in db.fetchall()}


def _insert_members(
    tx: Tx, keyring: Keyring, programme_id: UUID, partner_id: UUID, people: Sequence[_Prepared], at: datetime
) -> None:
    """Insert the members with their ledger accounts outside any product (unapplied money, receivables)."""
    if not people:
        return
    currency = tx.execute(
        text("SELECT currency FROM products.programme WHERE id = :id"), {"id": programme_id}
    ).scalar_one()
    savers = chart.programme_funds(tx, programme_id)[chart.SAVERS]
    accounts = chart.open_member_accounts(
        tx, savers, currency, [(person.member_id, partner_id) for person in people]
    )
    cursor(tx).execute(
        "INSERT INTO products.member (id, programme_id, wrapped_key, birth_date, sex, origin_country, residence_country,"
        " given_name, family_name, unapplied_account, receivable_account, registered_at)"
        " SELECT id, %s, wrapped_key, birth_date, sex, origin, residence, given, family, unapplied, receivable, %s"
        " FROM unnest(%s::uuid[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[],"
        " %s::bytea[], %s::uuid[], %s::uuid[])"
        " AS t (id, wrapped_key, birth_date, sex, origin, residence, given, family, unapplied, receivable)",
        (
            programme_id,
            at,
            [person.member_id for person in people],
            [keyring.wrap(person.data_key, person.member_id) for person in people],
            [person.birth_date() for person in people],
            [person.personal("sex", person.registration.sex) for person in people],
            [person.personal("origin_country", person.registration.origin_country) for person in people],
            [
                person.personal("residence_country", person.registration.residence_country)
                for person in people
            ],
            [person.personal("given_name", person.registration.given_name) for person in people],
            [person.personal("family_name", person.registration.family_name) for person in people],
            [account.unapplied for account in accounts],
            [account.receivable for account in accounts],
        ),
    )


def _with_those_known(
    tx: Tx, programme_id: UUID, partner_id: UUID, people: Sequence[_Prepared], created: set[UUID]
) -> list[Registered]:
    """Every registration's outcome, looking up in a new statement what lost against a unique index."""
    db = cursor(tx)
    db.execute(
        "SELECT id, member_id, phone_index, partner_reference_index FROM products.member_link"
        " WHERE partner_id = %s AND programme_id = %s AND ended_at IS NULL"
        " AND (phone_index = ANY(%s::bytea[]) OR partner_reference_index = ANY(%s::bytea[]))",
        (
            partner_id,
            programme_id,
            [person.phone_index for person in people if person.phone_index is not None],
            [person.reference_index for person in people if person.reference_index is not None],
        ),
    )
    by_phone: dict[bytes, tuple[UUID, UUID]] = {}
    by_reference: dict[bytes, tuple[UUID, UUID]] = {}
    for link_id, member_id, phone, reference in db.fetchall():
        if phone is not None:
            by_phone[bytes(phone)] = (link_id, member_id)
        if reference is not None:
            by_reference[bytes(reference)] = (link_id, member_id)
    outcomes = []
    for person in people:
        if person.link_id in created:
            outcomes.append(Registered(person.link_id, person.member_id, created=True))
            continue
        known = by_phone.get(person.phone_index or b"") or by_reference.get(person.reference_index or b"")
        if known is None:
            raise NotFound("The member was registered and its link ended at the same moment; try again.")
        outcomes.append(Registered(*known, created=False))
    return outcomes


def cipher_of(tx: Tx, keyring: Keyring, member: Member) -> FieldCipher:
    """What opens the personal fields of a member. Raises NotFound for one that was erased."""
    wrapped = tx.execute(
        text("SELECT wrapped_key FROM products.member WHERE id = :id"), {"id": member.member_id}
    ).scalar_one_or_none()
    if wrapped is None:
        raise NotFound("There is no such member.")
    return keyring.cipher(wrapped, member.member_id)


def ciphers_of(tx: Tx, keyring: Keyring, member_ids: Collection[UUID]) -> dict[UUID, FieldCipher]:
    """What opens the personal fields of members, by member; those that were erased are left out."""
    rows = cursor(tx).execute(
        "SELECT id, wrapped_key FROM products.member WHERE id = ANY (%b) AND wrapped_key IS NOT NULL",
        (sorted(member_ids),),
    )
    return {id_: keyring.cipher(wrapped, id_) for id_, wrapped in rows}
