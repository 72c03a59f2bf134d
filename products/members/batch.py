"""Members for a batch of remittances: everything the rules need to know of thousands of people, in a few queries."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput
from ledger.ids import parse_public_id
from ledger.money import Money
from products.facts import Fact
from products.keyring import FieldCipher, Keyring
from products.members.facts import TABLE as FACT
from products.members.facts import from_text
from products.members.models import Mandate, MemberRecord
from products.members.phones import e164
from products.members.registry import MEMBER, phone_index, reference_index
from products.remittances.events import MemberKey

PartnerKey = tuple[UUID, MemberKey]
"""Whom a partner means: the partner, and the name it uses for the member."""

# field_place() spelled out, as these two run for every member of every batch
_BIRTH_DATE: Final = f"{MEMBER}\0birth_date\0".encode()
_FACT_VALUE: Final = f"{FACT}\0value\0".encode()

_LINKS: Final = (
    "SELECT l.id, l.partner_id, l.phone_index, l.partner_reference_index, l.ended_at, l.member_id, l.programme_id,"
    " m.wrapped_key, m.birth_date, m.unapplied_account, m.receivable_account"
    " FROM products.member_link l JOIN products.member m ON m.id = l.member_id WHERE "
)


def load_members(
    tx: Tx, keyring: Keyring, keys: Iterable[PartnerKey]
) -> dict[PartnerKey, list[MemberRecord]]:
    """The members that partners name, with decrypted birth dates and facts and their mandates.

    A key that names nobody is absent from the answer. A phone number or reference may name the same person in several
    programmes of the partner: then there is one record for each, oldest link first. Ended links and erased members are
    found by id only, as records that are not `active`; phones and references find active links.
    """
    by_index: dict[tuple[UUID, UUID | bytes], list[PartnerKey]] = {}
    ids: list[UUID] = []
    phones: list[bytes] = []
    references: list[bytes] = []
    for key in set(keys):
        partner_id, name = key
        index: UUID | bytes
        try:
            match name.kind:
                case "id":
                    index = parse_public_id("mem", name.value)
                    ids.append(index)
                case "phone":
                    index = phone_index(keyring, partner_id, e164(name.value))
                    phones.append(index)
                case "partner_reference":
                    index = reference_index(keyring, partner_id, name.value)
                    references.append(index)
        except InvalidInput:
            continue  # it can't name anybody
        by_index.setdefault((partner_id, index), []).append(key)

    found: dict[PartnerKey, list[MemberRecord]] = {}
    records: dict[UUID, list[tuple[MemberRecord, FieldCipher]]] = {}
    for row in _links(tx, ids, phones, references):
        link_id, partner_id, phone, reference = row[:4]
        record: MemberRecord | None = None
        for name_index in (link_id, phone, reference):
            for key in by_index.get((partner_id, name_index), ()):
                record = record or _record(keyring, row, records)
                found.setdefault(key, []).append(record)
    if records:
        _add_facts(tx, records)
        _add_mandates(tx, records)
    return found


def _links(
    tx: Tx, ids: Sequence[UUID], phones: Sequence[bytes], references: Sequence[bytes]
) -> list[tuple[Any, ...]]:
    """Links with their members, still encrypted: by id, phone index and reference index, each once, oldest first."""
    asked: tuple[tuple[str, Sequence[object]], ...] = (
        ("l.id = ANY(%s::uuid[])", ids),
        ("l.ended_at IS NULL AND l.phone_index = ANY(%s::bytea[])", phones),
        ("l.ended_at IS NULL AND l.partner_reference_index = ANY(%s::bytea[])", references),
    )
    links: dict[UUID, tuple[Any, ...]] = {}
    for condition, values in asked:
        if values:
            db = cursor(tx)
            db.execute(_LINKS + condition, (values,), binary=True)
            links.update((row[0], row) for row in db.fetchall())
    return [links[link_id] for link_id in sorted(links)]


def _record(
    keyring: Keyring, row: tuple[Any, ...], records: dict[UUID, list[tuple[MemberRecord, FieldCipher]]]
) -> MemberRecord:
    link_id, partner_id, _, _, ended_at, member_id, programme_id, wrapped, born, unapplied, receivable = row
    birth_date = cipher = None
    if wrapped is not None:
        cipher = keyring.cipher(wrapped, member_id)
        if born is not None:
            birth_date = date.fromisoformat(cipher.decrypt(born, _BIRTH_DATE + member_id.bytes))
    record = MemberRecord(
        link_id,
        member_id,
        partner_id,
        programme_id,
        ended_at is None and cipher is not None,
        birth_date,
        unapplied,
        receivable,
    )
    if cipher is not None:
        records.setdefault(member_id, []).append((record, cipher))
    return record


def _add_facts(tx: Tx, records: dict[UUID, list[tuple[MemberRecord, FieldCipher]]]) -> None:
    db = cursor(tx)
    db.execute(
        "SELECT id, member_id, name, value, since, recorded_at, evidence FROM products.member_fact"
        " WHERE member_id = ANY(%s::uuid[]) ORDER BY member_id, id",
        (list(records),),
        binary=True,
    )
    for row_id, member_id, name, value, since, recorded_at, evidence in db.fetchall():
        of_member = records[member_id]
        text = of_member[0][1].decrypt(value, _FACT_VALUE + row_id.bytes)
        fact = Fact(name, from_text(text), since, recorded_at, evidence)
        for record, _ in of_member:
            record.facts.append(fact)


def _add_mandates(tx: Tx, records: dict[UUID, list[tuple[MemberRecord, FieldCipher]]]) -> None:
    db = cursor(tx)
    db.execute(
        "SELECT member_id, partner_id, id, text_version, language, given_at, limit_per_month, limit_currency, paused_at,"
        " withdrawn_at FROM products.consent WHERE member_id = ANY(%s::uuid[]) ORDER BY member_id, id",
        (list(records),),
        binary=True,
    )
    for member_id, partner_id, *rest in db.fetchall():
        row_id, version, language, given_at, amount, currency, paused_at, withdrawn_at = rest
        limit = None if amount is None else Money(amount, currency)
        mandate = Mandate(row_id, version, language, given_at, limit, paused_at, withdrawn_at)
        for record, _ in records[member_id]:
            # a mandate given through one partner lets that partner deduct, and no other
            if record.partner_id == partner_id:
                record.mandates.append(mandate)
