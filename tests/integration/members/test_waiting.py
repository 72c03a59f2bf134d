"""What waits 72 hours: who is told, who can stop it, which phone counts and which phone finds the member meanwhile."""

import contextlib
from datetime import timedelta

import pytest
from sqlalchemy import text

from ledger.errors import Conflict, NotFound
from products.members import devices, duplicates, registry, waiting
from products.members.batch import load_members
from products.members.models import Member
from products.members.waiting import Change, PhoneTaken, TooLate
from products.remittances.events import MemberKey
from tests.conftest import Databases
from tests.integration.members.builders import a_person, speak_for
from tests.integration.members.proving import HOURS_72, PUBLIC_URL, Key, Proving, link_in
from tests.racing import at_once

NEW = "+250789999999"
SECOND = timedelta(seconds=1)


@pytest.fixture
def proving(databases: Databases) -> Proving:
    return Proving.on(databases)


def ask_phone(proving: Proving, member: Member, phone: str = NEW) -> Change:
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        return waiting.ask_phone(
            tx, proving.world.keyring, member, phone, public_url=PUBLIC_URL, at=proving.clock.now()
        )


def apply_due(proving: Proving) -> int:
    with proving.databases.worker.begin() as tx:
        return waiting.apply_due(tx, proving.world.keyring, proving.clock.now())


def phone_for_codes(proving: Proving, member: Member) -> str | None:
    proving.clock.advance(timedelta(minutes=15))  # earlier challenges are closed by then
    message = proving.start(proving.again(member)).outbound
    assert message is not None
    return message.to


def messages_to(proving: Proving) -> list[tuple[str, str]]:
    """Send what is due, as the job does."""
    with proving.databases.worker.begin() as tx:
        due = waiting.messages_due(tx, proving.world.keyring, proving.clock.now())
    with proving.databases.worker.begin() as tx:
        for one in due:
            waiting.told(tx, one.notice, proving.clock.now())
    return [(one.message.to, one.message.text) for one in due]


def found_by(proving: Proving, phone: str) -> list[object]:
    key = (proving.world.acme, MemberKey("phone", phone))
    with proving.databases.worker.begin() as tx:
        return [one.link_id for one in load_members(tx, proving.world.keyring, [key]).get(key, [])]


def test_codes_go_to_the_old_phone_until_72_hours_have_passed_and_to_the_new_one_then_with_or_without_the_job(
    proving: Proving,
) -> None:
    member = proving.member()
    change = ask_phone(proving, member)
    assert (change.state, change.effective_at) == ("waiting", proving.clock.now() + HOURS_72)
    proving.clock.advance(HOURS_72 - timedelta(minutes=15, seconds=1))
    assert phone_for_codes(proving, member) == member.phone
    proving.clock.advance(SECOND - timedelta(minutes=15))
    assert phone_for_codes(proving, member) == NEW  # no job has run
    assert proving.again(member).phone == member.phone
    assert apply_due(proving) == 1
    assert proving.again(member).phone == NEW
    assert phone_for_codes(proving, member) == NEW
    assert apply_due(proving) == 0


def test_the_old_phone_is_told_and_its_link_stops_the_change_without_any_partner(proving: Proving) -> None:
    member = proving.member()
    ask_phone(proving, member)
    ((to, told),) = messages_to(proving)
    assert to == member.phone
    assert messages_to(proving) == []
    with proving.databases.api.begin() as tx:  # nobody is spoken for
        assert waiting.stop(tx, proving.world.keyring, link_in(told), proving.clock.now()) == "phone"
    with proving.databases.api.begin() as tx, pytest.raises(NotFound):
        waiting.stop(tx, proving.world.keyring, link_in(told), proving.clock.now())
    proving.clock.advance(HOURS_72)
    assert apply_due(proving) == 0
    assert phone_for_codes(proving, member) == member.phone
    assert found_by(proving, NEW) == []
    with proving.databases.owner.begin() as tx:
        stored = tx.execute(text("SELECT string_agg(n::text, '') FROM products.notice n")).scalar_one()
        stored += tx.execute(
            text("SELECT string_agg(w::text, '') FROM products.waiting_change w")
        ).scalar_one()
    assert link_in(told) not in stored
    assert NEW not in stored


def test_a_change_can_be_stopped_until_it_is_in_effect_and_not_after(proving: Proving) -> None:
    member = proving.member()
    change = ask_phone(proving, member)
    ((_, told),) = messages_to(proving)
    proving.clock.advance(HOURS_72)
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        with pytest.raises(TooLate):
            waiting.cancel(tx, proving.world.keyring, member, change.id, proving.clock.now())
        with pytest.raises(NotFound):
            waiting.stop(tx, proving.world.keyring, link_in(told), proving.clock.now())


def test_the_member_stops_one_of_several_changes(proving: Proving) -> None:
    member, key = proving.member(), Key()
    device = proving.device(member, key)
    phone = ask_phone(proving, member)
    other = proving.member(2)
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        with pytest.raises(NotFound):
            waiting.cancel(tx, proving.world.keyring, other, device.change_id, proving.clock.now())
        stopped = waiting.cancel(tx, proving.world.keyring, member, device.change_id, proving.clock.now())
        assert (stopped.state, stopped.cancelled_by) == ("cancelled", "member")
    proving.clock.advance(HOURS_72)
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        now = proving.clock.now()
        assert devices.effective(tx, proving.world.keyring, member, now) == []
        states = {one.id: one.state for one in waiting.changes_of(tx, proving.world.keyring, member, now)}
        kinds = [one.kind for one in waiting.notices_of(tx, member)]
    assert states == {device.change_id: "cancelled", phone.id: "in_effect"}
    assert kinds == ["change_cancelled", "phone", "device"]


def test_the_same_number_asked_twice_goes_on_waiting_and_another_replaces_it(proving: Proving) -> None:
    member = proving.member()
    first = ask_phone(proving, member)
    proving.clock.advance(timedelta(hours=71))
    assert ask_phone(proving, member).id == first.id
    another = ask_phone(proving, member, "+250788888888")
    assert another.effective_at == proving.clock.now() + HOURS_72
    proving.clock.advance(HOURS_72)
    apply_due(proving)
    assert proving.again(member).phone == "+250788888888"
    with pytest.raises(Conflict):
        ask_phone(proving, proving.again(member), "+250788888888")


def test_changes_asked_for_at_once_leave_one_waiting(proving: Proving) -> None:
    member = proving.member()
    at_once(*[lambda n=n: ask_phone(proving, member, f"+25078777000{n % 2}") for n in range(6)])
    with proving.databases.worker.begin() as tx:
        states = [
            one.state
            for one in waiting.changes_of(tx, proving.world.keyring, member, proving.clock.now())
            if one.kind == "phone"
        ]
    assert states.count("waiting") == 1


def test_both_phones_find_the_member_meanwhile_and_the_old_one_for_late_events(proving: Proving) -> None:
    member = proving.member()
    old = member.phone or ""
    assert found_by(proving, NEW) == []
    ask_phone(proving, member)
    assert found_by(proving, old) == found_by(proving, NEW) == [member.link_id]
    assert found_by(proving, "+250 78 999 9999") == [member.link_id]
    proving.clock.advance(HOURS_72)
    apply_due(proving)
    assert found_by(proving, old) == found_by(proving, NEW) == [member.link_id]
    proving.clock.advance(timedelta(days=7) + SECOND)
    apply_due(proving)
    assert (found_by(proving, old), found_by(proving, NEW)) == ([], [member.link_id])
    # another partner's events never find them by either
    key = (proving.world.bolt, MemberKey("phone", NEW))
    with proving.databases.worker.begin() as tx:
        assert load_members(tx, proving.world.keyring, [key]) == {}


def test_managers_find_who_is_registered_twice_by_the_new_phone(proving: Proving) -> None:
    member, twin = proving.member(1), proving.member(1, partner=proving.world.bolt)
    other = proving.member(9, partner=proving.world.bolt, phone=NEW)

    def grouped() -> list[set[object]]:
        with proving.databases.worker.begin() as tx:
            return [{one.link_id for one in group.members} for group in duplicates.groups(tx)]

    assert grouped() == [{member.link_id, twin.link_id}]
    ask_phone(proving, member)
    proving.clock.advance(HOURS_72)
    apply_due(proving)
    assert grouped() == [{member.link_id, other.link_id}]


@pytest.mark.parametrize("_again", range(4))
def test_a_change_that_is_stopped_as_it_falls_due_either_waits_no_more_or_is_in_effect(
    proving: Proving, _again: int
) -> None:
    """Cancelled by the member, stopped by the link and applied by the job, by clocks a second apart."""
    member = proving.member()
    change = ask_phone(proving, member)
    ((_, told),) = messages_to(proving)
    late = proving.clock.now() + HOURS_72
    ended: list[str] = []

    def cancel() -> None:
        with contextlib.suppress(TooLate), proving.databases.api.begin() as tx:
            speak_for(tx, member.partner_id)
            waiting.cancel(tx, proving.world.keyring, member, change.id, late - SECOND)
            ended.append("member")

    def stop() -> None:
        with contextlib.suppress(NotFound), proving.databases.api.begin() as tx:
            waiting.stop(tx, proving.world.keyring, link_in(told), late - SECOND)
            ended.append("contact")

    def fall_due() -> None:
        with proving.databases.worker.begin() as tx:
            if waiting.apply_due(tx, proving.world.keyring, late):
                ended.append("applied")

    at_once(cancel, stop, fall_due)
    fall_due()  # what the job found locked, it takes the next time
    assert len(ended) == 1, ended
    assert (proving.again(member).phone == NEW) == (ended == ["applied"])


def test_a_number_that_somebody_registered_is_theirs(proving: Proving) -> None:
    member, other = proving.member(1), proving.member(2)
    with pytest.raises(PhoneTaken):
        ask_phone(proving, member, other.phone or "")
    ask_phone(proving, member)
    with proving.databases.worker.begin() as tx:
        made = registry.register(
            tx,
            proving.world.keyring,
            proving.world.programme,
            proving.world.acme,
            a_person(3, phone=NEW),
            proving.clock.now(),
        )
    assert found_by(proving, NEW) == [made.link_id]
    proving.clock.advance(HOURS_72)
    assert apply_due(proving) == 1
    assert proving.again(member).phone == member.phone
    with proving.databases.worker.begin() as tx:
        (change,) = waiting.changes_of(tx, proving.world.keyring, member, proving.clock.now())
    assert change.cancelled_by == "phone_taken"


def test_a_notice_that_is_not_sent_is_sent_again_later_and_by_one_sender_at_a_time(proving: Proving) -> None:
    member = proving.member()
    ask_phone(proving, member)
    taken: list[int] = []

    def send() -> None:
        with proving.databases.worker.begin() as tx:
            taken.append(len(waiting.messages_due(tx, proving.world.keyring, proving.clock.now())))

    at_once(*[send] * 4)
    assert sorted(taken) == [0, 0, 0, 1]
    tries = 1
    for _ in range(40):
        proving.clock.advance(timedelta(hours=5))
        taken.clear()
        send()
        tries += taken[0]
    assert tries == waiting.NOTICE_TRIES_MAX


def test_an_erased_member_is_forgotten(proving: Proving) -> None:
    member = proving.member()
    proving.device(member, Key())
    ask_phone(proving, member)
    proving.start(member)
    with proving.databases.worker.begin() as tx:
        waiting.forget(tx, member.member_id)
        registry.erase(tx, member.member_id, proving.clock.now())
    assert (found_by(proving, NEW), messages_to(proving)) == ([], [])
    with proving.databases.owner.begin() as tx:
        for column in ("w.phone", "w.phone_index", "w.former_phone_index", "n.message", "c.phone_index"):
            table = {"w": "waiting_change", "n": "notice", "c": "challenge"}[column[0]]
            left = tx.exec_driver_sql(
                f"SELECT count({column}) FROM products.{table} {column[0]}"
            ).scalar_one()
            assert left == 0, column
    proving.clock.advance(HOURS_72)
    assert apply_due(proving) == 2  # what is due is tidied up, and finds nobody
    with proving.databases.worker.begin() as tx, pytest.raises(NotFound):
        registry.find(tx, proving.world.keyring, member.link_id)
