"""The registry: who is registered as whom, and who can see or read it."""

import contextlib
from datetime import date, timedelta

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from ledger.errors import NotFound
from ledger.ids import public_id
from products.facts import Fact
from products.keyring import Keyring, KeyringError
from products.members import enrolments, mandates, registry
from products.members.batch import load_members
from products.members.models import AlreadyEnrolled, InvalidPhone, MemberExists, NewMandate
from products.remittances.events import MemberKey
from tests.conftest import Databases
from tests.integration.members.builders import NOW, a_person, a_registry, speak_for


def test_a_registered_member_is_read_back_as_it_was_registered(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        member = registry.find(tx, world.keyring, registered.link_id)
    assert (member.phone, member.partner_reference) == ("+250780000001", "A-1")
    assert (member.birth_date, member.sex) == (date(1990, 5, 1), "female")
    assert (member.origin_country, member.residence_country) == ("RW", "AE")
    assert [(fact.name, fact.value, fact.since) for fact in member.facts] == [
        ("income_category", 1, date(2026, 1, 1))
    ]
    assert member.mandates[0].in_force(NOW)


def test_the_same_partner_is_told_its_own_id_for_a_known_phone_or_reference(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        first = registry.register(tx, world.keyring, world.programme, world.acme, a_person(1), NOW)
    for again in (a_person(1, partner_reference="other"), a_person(2, partner_reference="A-1")):
        with pytest.raises(MemberExists) as known, databases.worker.begin() as tx:
            registry.register(tx, world.keyring, world.programme, world.acme, again, NOW)
        assert known.value.link_id == first.link_id


def test_another_partner_gets_a_member_of_its_own_and_learns_nothing(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        acme = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
        bolt = registry.register(tx, world.keyring, world.programme, world.bolt, a_person(), NOW)
        indexes = tx.execute(text("SELECT phone_index FROM products.member_link")).scalars().all()
    assert acme.member_id != bolt.member_id
    assert len({bytes(index) for index in indexes}) == 2
    with databases.api.begin() as tx:
        speak_for(tx, world.bolt)
        with pytest.raises(NotFound):
            registry.find(tx, world.keyring, acme.link_id)
        for table in ("member", "member_link", "member_fact", "consent"):
            assert tx.execute(text(f"SELECT count(*) FROM products.{table}")).scalar_one() == 1, table


def test_without_a_partner_row_level_security_shows_nobody(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
    with databases.api.begin() as tx:
        for table in ("member", "member_link", "member_fact", "consent", "enrolment"):
            assert tx.execute(text(f"SELECT count(*) FROM products.{table}")).scalar_one() == 0, table


def test_a_partner_cannot_write_rows_in_anothers_name(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.api.begin() as tx:
        speak_for(tx, world.bolt)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)


def test_facts_are_added_and_cannot_be_overwritten(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
        member = registry.find(tx, world.keyring, registered.link_id)
        later = Fact("income_category", 3, date(2026, 2, 1), NOW + timedelta(hours=1), "document")
        registry.add_facts(tx, world.keyring, member, [later])
        facts = registry.find(tx, world.keyring, registered.link_id).facts
        assert [(fact.value, fact.evidence) for fact in facts] == [(1, "self_declared"), (3, "document")]
    for role in (databases.api, databases.worker):
        for statement in (
            "UPDATE products.member_fact SET since = since",
            "DELETE FROM products.member_fact",
        ):
            with pytest.raises(ProgrammingError), role.begin() as tx:
                tx.execute(text(statement))


def test_personal_fields_rest_encrypted_and_open_nowhere_else(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        registry.register_many(
            tx, world.keyring, world.programme, world.acme, [a_person(1), a_person(2)], NOW
        )
        dump = tx.execute(
            text(
                "SELECT m::text || l::text FROM products.member m JOIN products.member_link l ON l.member_id = m.id"
            )
        ).scalars()
        for row in dump:
            assert "1990-05-01" not in row
            assert "+25078" not in row
            assert "AE" not in row
    # a ciphertext moved to another person's row does not open
    with databases.owner.begin() as tx:
        tx.execute(
            text(
                "UPDATE products.member SET birth_date = (SELECT birth_date FROM products.member ORDER BY 1 DESC LIMIT 1),"
                " wrapped_key = wrapped_key"
            )
        )
    with databases.worker.begin() as tx:
        links = tx.execute(text("SELECT id FROM products.member_link")).scalars().all()
        opened = 0
        for link in links:
            with contextlib.suppress(KeyringError):
                registry.find(tx, world.keyring, link)
                opened += 1
        assert opened == 1


def test_erasing_a_member_destroys_the_key_and_leaves_the_pseudonym(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
    with databases.worker.begin() as tx:
        registry.erase(tx, registered.member_id, NOW)
        with pytest.raises(NotFound):
            registry.find(tx, world.keyring, registered.link_id)
        remains = registry.find(tx, world.keyring, registered.link_id, with_ended=True)
        assert remains.erased
        assert (remains.phone, remains.birth_date, remains.facts) == (None, None, ())
        by_phone = (world.acme, MemberKey("phone", "+250780000001"))
        assert load_members(tx, world.keyring, [by_phone]) == {}
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        with pytest.raises(ProgrammingError):
            registry.erase(tx, registered.member_id, NOW)


def test_ending_a_link_hides_the_member_from_the_partner_and_frees_the_number(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
        registry.end_link(tx, registry.find(tx, world.keyring, registered.link_id), NOW)
        with pytest.raises(NotFound):
            registry.find(tx, world.keyring, registered.link_id)
        again = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
    assert again.member_id != registered.member_id


@pytest.mark.parametrize("phone", ["0780000001", "+", "+999123", "+25078\x00", "+２５０780000001", "+1" * 20])
def test_what_is_no_international_number_is_refused(databases: Databases, phone: str) -> None:
    world = a_registry(databases.worker)
    with pytest.raises(InvalidPhone), databases.worker.begin() as tx:
        registry.register(tx, world.keyring, world.programme, world.acme, a_person(phone=phone), NOW)


def test_a_batch_finds_members_by_id_phone_and_reference(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        one, two, three = registry.register_many(
            tx, world.keyring, world.programme, world.acme, [a_person(n) for n in (1, 2, 3)], NOW
        )
        keys = {
            (world.acme, MemberKey("id", public_id("mem", one.link_id))): one,
            (world.acme, MemberKey("phone", "+250 78 000 0002")): two,
            (world.acme, MemberKey("partner_reference", "A-3")): three,
        }
        strangers = [
            (world.bolt, MemberKey("id", public_id("mem", one.link_id))),
            (world.bolt, MemberKey("phone", "+250780000002")),
            (world.acme, MemberKey("id", "mem_nonsense")),
            (world.acme, MemberKey("phone", "not a phone")),
        ]
        found = load_members(tx, world.keyring, [*keys, *strangers])
    assert set(found) == set(keys)
    for key, registered in keys.items():
        (record,) = found[key]
        assert (record.link_id, record.member_id) == (registered.link_id, registered.member_id)
        assert record.active
        assert record.birth_date == date(1990, 5, 1)
        assert [fact.value for fact in record.facts] == [1]
        assert record.mandate_at(NOW) is not None


def test_a_paused_mandate_lets_nothing_be_deducted_even_for_events_that_come_later(
    databases: Databases,
) -> None:
    world = a_registry(databases.worker)
    hour = timedelta(hours=1)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
        member = registry.find(tx, world.keyring, registered.link_id)
        mandates.pause(tx, member, NOW + hour)
        mandates.resume(tx, member, NOW + 3 * hour)
        mandates.withdraw(tx, member, NOW + 5 * hour)
    with databases.worker.begin() as tx:
        key = (world.acme, MemberKey("phone", "+250780000001"))
        (record,) = load_members(tx, world.keyring, [key])[key]
    in_force = [record.mandate_at(NOW + n * hour) is not None for n in (-1, 0, 2, 4, 6)]
    assert in_force == [False, True, False, True, False]


def test_a_new_mandate_replaces_the_one_in_force(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
        member = registry.find(tx, world.keyring, registered.link_id)
        later = NOW + timedelta(days=1)
        mandates.give(tx, world.keyring, member, NewMandate("2026-2", "rw", evidence="recording 17"), later)
        versions = [
            one.text_version for one in mandates.mandates_of(tx, member.member_id) if one.in_force(later)
        ]
    assert versions == ["2026-2"]


def test_enrolling_opens_accounts_once(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        member = registry.find(tx, world.keyring, registered.link_id)
        enrolled = enrolments.enrol(tx, world.programmes, member, "savings", {"percent": "5"}, NOW)
        assert enrolments.enrolments_of(tx, member.member_id) == [enrolled]
        owned = tx.execute(
            text("SELECT code FROM ledger.account WHERE owner = :owner ORDER BY code"),
            {"owner": enrolled.id.hex},
        ).scalars()
        assert list(owned) == [
            "match_unvested",
            "match_vested",
            "member_contributions_pending",
            "member_savings",
        ]
    with databases.api.begin() as tx:
        speak_for(tx, world.acme)
        with pytest.raises(AlreadyEnrolled):
            enrolments.enrol(tx, world.programmes, member, "savings", {"percent": "5"}, NOW)


def test_master_keys_rotate_without_touching_the_fields(databases: Databases) -> None:
    world = a_registry(databases.worker)
    with databases.worker.begin() as tx:
        registered = registry.register(tx, world.keyring, world.programme, world.acme, a_person(), NOW)
    rotated = Keyring.of(b"n" * 31 + b"!", bytes(range(32)))
    rotated.index_from(world.keyring.first_index_root)
    with databases.worker.begin() as tx:
        row = tx.execute(text("SELECT id, wrapped_key FROM products.member")).one()
        tx.execute(
            text("UPDATE products.member SET wrapped_key = :key"),
            {"key": rotated.rewrap(bytes(row.wrapped_key), row.id)},
        )
        assert registry.find(tx, rotated, registered.link_id).phone == "+250780000001"
        key = (world.acme, MemberKey("phone", "+250780000001"))
        assert key in load_members(tx, rotated, [key])
        with pytest.raises(KeyringError):
            registry.find(tx, Keyring.of(b"x" * 31 + b"?"), registered.link_id)
