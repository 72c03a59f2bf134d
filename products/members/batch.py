"""Members for a batch of remittances: everything the rules need to know of thousands of people, in a few queries."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
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

_Records = dict[bytes, list[tuple[MemberRecord, FieldCipher]]]
"""Records by the bytes of the member's id, each with the cipher that opens it."""

_LINKS: Final = (
    "SELECT l.id, l.partner_id, l.phone_index, l.partner_reference_index, l.ended_at, l.member_id, l.programme_id,"
    " m.wrapped_key, m.birth_date, m.unapplied_account, m.receivable_account"
    " FROM products.member_link l JOIN products.member m ON m.id = l.member_id WHERE "
)

_CHANGED_PHONES: Final = (
    "SELECT l.id, l.partner_id, w.named, l.partner_reference_index, l.ended_at, l.member_id, l.programme_id,"
    " m.wrapped_key, m.birth_date, m.unapplied_account, m.receivable_account"
    " FROM (SELECT link_id, phone_index AS named FROM products.waiting_change"
    " WHERE phone_index = ANY(%b::bytea[]) AND cancelled_at IS NULL AND applied_at IS NULL"
    " UNION SELECT link_id, former_phone_index FROM products.waiting_change"
    " WHERE former_phone_index = ANY(%b::bytea[]) AND applied_at IS NOT NULL) w"
    " JOIN products.member_link l ON l.id = w.link_id AND l.ended_at IS NULL"
    " JOIN products.member m ON m.id = l.member_id"
)


def load_members(
    tx: Tx, keyring: Keyring, keys: Iterable[PartnerKey]
) -> dict[PartnerKey, list[MemberRecord]]:
    """The members that partners name, with decrypted birth dates and facts and their mandates.

    A key that names nobody is absent from the answer. A phone number or reference may name the same person in several
    programmes of the partner: then there is one record for each, oldest link first. Ended links and erased members are
    found by id only, as records that are not `active`; phones and references find active links. A phone that is no active
    link's own finds the link that it is becoming, or was until lately, the phone of (`products.members.waiting`).
    """
    named = _Named(keyring)
    for key in set(keys):
        named.add(key)
    found: dict[PartnerKey, list[MemberRecord]] = {}
    records: _Records = {}
    _match(tx, keyring, named, found, records)
    # what was not found as it was written may be another spelling of a number
    respelt = named.respelt(found)
    if respelt is not None:
        _match(tx, keyring, respelt, found, records)
    for named_so in (named, respelt):
        if named_so is not None:
            _match_changed_phones(tx, keyring, named_so, found, records)
    if records:
        _add_facts(tx, records)
        _add_mandates(tx, records)
    for several in found.values():
        if len(several) > 1:
            several.sort(key=lambda record: record.link_id)
    return found


class _Named:
    """Keys by what finds them: the bytes of a link's id, or a blind index (which binds the partner)."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.keys: dict[bytes, list[PartnerKey]] = {}
        self.ids: list[UUID] = []
        self.phones: list[bytes] = []
        self.references: list[bytes] = []

    def add(self, key: PartnerKey, *, phone: str | None = None) -> None:
        """Look for `key`, under another spelling of its phone number where one is given."""
        partner_id, name = key
        match name.kind:
            case "id":
                try:
                    link_id = parse_public_id("mem", name.value)
                except InvalidInput:
                    return  # it can't name anybody
                self.ids.append(link_id)
                index = link_id.bytes
            case "phone":
                index = phone_index(self._keyring, partner_id, phone or name.value)
                self.phones.append(index)
            case "partner_reference":
                index = reference_index(self._keyring, partner_id, name.value)
                self.references.append(index)
        self.keys.setdefault(index, []).append(key)

    def respelt(self, found: Mapping[PartnerKey, object]) -> "_Named | None":
        """The phone keys not among `found`, in E.164, where that is another spelling; None without any."""
        again = _Named(self._keyring)
        for index in self.phones:
            for key in self.keys[index]:
                if key not in found:
                    with suppress(InvalidInput):
                        number = e164(key[1].value)
                        if number != key[1].value:
                            again.add(key, phone=number)
        return again if again.phones else None


def _match(
    tx: Tx,
    keyring: Keyring,
    named: _Named,
    found: dict[PartnerKey, list[MemberRecord]],
    records: _Records,
) -> None:
    """Find the links that keys name, by each way of naming, and decrypt them."""
    asked: tuple[tuple[str, Sequence[object], int], ...] = (
        ("l.id = ANY(%b::uuid[])", named.ids, 0),
        ("l.ended_at IS NULL AND l.phone_index = ANY(%b::bytea[])", named.phones, 2),
        ("l.ended_at IS NULL AND l.partner_reference_index = ANY(%b::bytea[])", named.references, 3),
    )
    for condition, values, column in asked:
        if not values:
            continue
        db = cursor(tx)
        db.execute(_LINKS + condition, (values,), binary=True)
        for row in db.fetchall():
            record: MemberRecord | None = None
            for key in named.keys[row[column].bytes if column == 0 else row[column]]:
                if key[0] == row[1]:
                    record = record or _record(keyring, row, records)
                    found.setdefault(key, []).append(record)


def _match_changed_phones(
    tx: Tx,
    keyring: Keyring,
    named: _Named,
    found: dict[PartnerKey, list[MemberRecord]],
    records: _Records,
) -> None:
    """Find what is named by a phone that waits to be a link's, or was one's before the last change."""
    missing = [index for index in named.phones if any(key not in found for key in named.keys[index])]
    if not missing:
        return
    db = cursor(tx)
    db.execute(_CHANGED_PHONES, (missing, missing), binary=True)
    for row in db.fetchall():
        for key in named.keys[row[2]]:
            if key[0] == row[1]:
                found.setdefault(key, []).append(_record(keyring, row, records))


def _record(keyring: Keyring, row: tuple[Any, ...], records: _Records) -> MemberRecord:
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
        records.setdefault(member_id.bytes, []).append((record, cipher))
    return record


def _ids(records: _Records) -> list[UUID]:
    return [of_member[0][0].member_id for of_member in records.values()]


def _add_facts(tx: Tx, records: _Records) -> None:
    db = cursor(tx)
    db.execute(
        "SELECT id, member_id, name, value, since, recorded_at, evidence FROM products.member_fact"
        " WHERE member_id = ANY(%b::uuid[]) ORDER BY member_id, id",
        (_ids(records),),
        binary=True,
    )
    for row_id, member_id, name, value, since, recorded_at, evidence in db.fetchall():
        of_member = records[member_id.bytes]
        text = of_member[0][1].decrypt(value, _FACT_VALUE + row_id.bytes)
        fact = Fact(name, from_text(text), since, recorded_at, evidence)
        for record, _ in of_member:
            record.facts.append(fact)


def _add_mandates(tx: Tx, records: _Records) -> None:
    db = cursor(tx)
    db.execute(
        "SELECT member_id, partner_id, id, text_version, language, given_at, limit_per_month, limit_currency, paused_at,"
        " withdrawn_at FROM products.consent WHERE member_id = ANY(%b::uuid[]) AND purpose = 'contributions'"
        " ORDER BY member_id, id",
        (_ids(records),),
        binary=True,
    )
    for member_id, partner_id, *rest in db.fetchall():
        row_id, version, language, given_at, amount, currency, paused_at, withdrawn_at = rest
        limit = None if amount is None else Money(amount, currency)
        mandate = Mandate(row_id, version, language, given_at, limit, paused_at, withdrawn_at)
        for record, _ in records[member_id.bytes]:
            # a mandate given through one partner lets that partner deduct, and no other
            if record.partner_id == partner_id:
                record.mandates.append(mandate)


def birth_dates(tx: Tx, keyring: Keyring, member_ids: Collection[UUID]) -> dict[UUID, date]:
    """The birth dates of members, where they are known and the member is not erased."""
    rows = cursor(tx).execute(
        "SELECT id, wrapped_key, birth_date FROM products.member"
        " WHERE id = ANY (%b::uuid[]) AND wrapped_key IS NOT NULL AND birth_date IS NOT NULL",
        (list(member_ids),),
        binary=True,
    )
    return {
        id_: date.fromisoformat(keyring.cipher(wrapped, id_).decrypt(born, _BIRTH_DATE + id_.bytes))
        for id_, wrapped, born in rows
    }
