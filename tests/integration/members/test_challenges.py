"""A member's proof: what it is bound to, how often it can be guessed, and what a partner can't do without the member."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from products.members import challenges, messages
from products.members.challenges import (
    CODES_PER_DAY_MAX,
    LIFETIME,
    OPEN_MAX,
    NoWayToProve,
    Proof,
    ProofRefused,
    TooManyChallenges,
)
from products.members.models import NewMandate
from tests.conftest import Databases
from tests.integration.members.builders import speak_for
from tests.integration.members.proving import Proving, answer, code_in, wrong
from tests.racing import at_once


@pytest.fixture
def proving(databases: Databases) -> Proving:
    return Proving.on(databases)


def test_the_code_that_the_member_got_proves_what_it_was_sent_for_once(proving: Proving) -> None:
    member = proving.member()
    started = proving.start(member, "payee", {"name": "Aline"})
    assert started.outbound is not None
    assert (started.outbound.to, started.sent_to) == (member.phone, "+250•••••••01")
    proven = proving.prove(member, answer(started), "payee", {"name": "Aline"})
    assert (proven.method, proven.purpose, proven.challenge) == ("code", "payee", started.id)
    with pytest.raises(ProofRefused, match="used or has expired"):
        proving.prove(member, answer(started), "payee", {"name": "Aline"})


def test_a_code_proves_nothing_else(proving: Proving) -> None:
    member, other = proving.member(1), proving.member(2)
    asked = {"name": "Aline", "rail": "mobile_money"}
    for purpose, action in (("payee", {"name": "Eve", "rail": "mobile_money"}), ("erasure", asked)):
        started = proving.start(member, "payee", asked)
        with pytest.raises(ProofRefused, match="something else"):
            proving.prove(member, answer(started), purpose, action)  # type: ignore[arg-type]  # one of each
    started = proving.start(member, "payee", asked)
    with pytest.raises(ProofRefused, match="no such challenge"):
        proving.prove(other, answer(started), "payee", asked)
    # neither the order of keys nor spacing is part of what is proven
    proving.prove(member, answer(started), "payee", dict(reversed(asked.items())))


def test_a_sixth_try_is_refused_even_with_the_right_code_and_no_rollback_gives_one_back(
    proving: Proving,
) -> None:
    member = proving.member()
    started = proving.start(member)
    for _ in range(5):
        with pytest.raises(ProofRefused, match="code is wrong"):  # its transaction is rolled back
            proving.prove(member, wrong(started))
    with pytest.raises(ProofRefused, match="too many tries"):
        proving.prove(member, answer(started))
    assert proving.tries(started) == 6


def test_twenty_guesses_at_once_are_twenty_tries_and_no_more_than_five_are_looked_at(
    proving: Proving,
) -> None:
    member = proving.member()
    started = proving.start(member)
    said: list[str] = []

    def guess() -> None:
        try:
            proving.prove(member, wrong(started), database=proving.databases.api)
        except ProofRefused as refused:
            said.append(refused.detail)

    at_once(*[guess] * 20)
    assert proving.tries(started) == 20
    assert sorted(detail.startswith("The code is wrong") for detail in said) == [False] * 15 + [True] * 5
    with pytest.raises(ProofRefused, match="too many tries"):
        proving.prove(member, answer(started))


def test_of_two_right_answers_at_once_one_is_taken(proving: Proving) -> None:
    member = proving.member()
    started = proving.start(member)
    taken: list[object] = []

    def try_it() -> None:
        try:
            taken.append(proving.prove(member, answer(started)))
        except ProofRefused:
            taken.append(None)

    at_once(*[try_it] * 4)
    assert sum(one is not None for one in taken) == 1


def test_what_rolls_back_after_a_right_answer_can_be_proven_again(proving: Proving) -> None:
    member = proving.member()
    started = proving.start(member)
    digest = challenges.subject_digest(member, "payee", {})
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        challenges.prove(tx, proving.world.keyring, member, answer(started), "payee", digest, proving.clock)
        tx.rollback()
    assert proving.tries(started) == 1
    assert proving.prove(member, answer(started)).challenge == started.id


def test_a_code_dies_after_ten_minutes(proving: Proving) -> None:
    member = proving.member()
    first, second = proving.start(member), proving.start(member)
    proving.clock.advance(LIFETIME - timedelta(seconds=1))
    proving.prove(member, answer(first))
    proving.clock.advance(timedelta(seconds=1))
    with pytest.raises(ProofRefused, match="expired"):
        proving.prove(member, answer(second))


def test_of_a_code_nothing_is_stored_that_finds_it_again(proving: Proving) -> None:
    member = proving.member()
    started = proving.start(member)
    assert started.outbound is not None
    code = code_in(started.outbound.text)
    assert code not in repr(started)
    with proving.databases.owner.begin() as tx:
        row = tx.execute(text("SELECT c::text FROM products.challenge c")).scalar_one()
        mac = bytes(tx.execute(text("SELECT code_mac FROM products.challenge")).scalar_one())
    assert code not in row
    assert code.encode().hex() not in row
    # without the deployment's key a million guesses name no code; with it, another challenge's id gives another MAC
    other = proving.start(member)
    with proving.databases.owner.begin() as tx:
        macs = {bytes(one) for one in tx.execute(text("SELECT code_mac FROM products.challenge")).scalars()}
    assert len(macs) == 2
    assert len(mac) == 32
    assert other.id != started.id


def test_neither_role_can_take_tries_back_or_make_a_code_good_again(proving: Proving) -> None:
    started = proving.start(proving.member())
    for role in (proving.databases.api, proving.databases.worker):
        for statement in (
            "UPDATE products.challenge_try SET tries = 1",
            "DELETE FROM products.challenge_try",
            "UPDATE products.challenge SET expires_at = now()",
            "UPDATE products.challenge SET code_mac = null",
            "DELETE FROM products.challenge",
        ):
            with pytest.raises(ProgrammingError), role.begin() as tx:
                tx.execute(text(statement))
    assert proving.tries(started) == 0


def test_another_partner_sees_no_challenge_and_answers_none(proving: Proving) -> None:
    member = proving.member()
    started = proving.start(member)
    digest = challenges.subject_digest(member, "payee", {})
    with proving.databases.api.begin() as tx:
        speak_for(tx, proving.world.bolt)
        assert tx.execute(text("SELECT count(*) FROM products.challenge")).scalar_one() == 0
        with pytest.raises(ProofRefused, match="no such challenge"):
            challenges.prove(
                tx, proving.world.keyring, member, answer(started), "payee", digest, proving.clock
            )
    assert proving.tries(started) == 0


def test_a_member_without_a_phone_or_a_device_in_effect_is_told_so(proving: Proving) -> None:
    member = proving.member(phone=None)
    with pytest.raises(NoWayToProve):
        proving.start(member)
    with pytest.raises(NoWayToProve):
        proving.start(proving.member(2), method="device")


def test_open_challenges_and_codes_in_a_day_are_limited(proving: Proving) -> None:
    member = proving.member()
    for _ in range(OPEN_MAX):
        proving.start(member)
    with pytest.raises(TooManyChallenges, match="open") as refused:
        proving.start(member)
    assert 590 < refused.value.retry_after_seconds <= 601
    proving.clock.advance(LIFETIME)
    for _ in range(CODES_PER_DAY_MAX - OPEN_MAX):
        proving.start(member)
    proving.clock.advance(LIFETIME)
    with pytest.raises(TooManyChallenges, match="in a day"):
        proving.start(member)
    proving.clock.advance(timedelta(days=1))
    proving.start(member)


def test_many_starts_at_once_are_limited_as_well(proving: Proving) -> None:
    member = proving.member()
    refused: list[object] = []

    def start() -> None:
        try:
            proving.start(member)
        except TooManyChallenges as error:
            refused.append(error)

    at_once(*[start] * 12)
    assert len(refused) == 12 - OPEN_MAX


def test_a_partner_cannot_bomb_a_phone_and_another_cannot_see_that_it_tried(proving: Proving) -> None:
    """One partner reaches its own limit; beyond that of the phone the answer is the same and nothing is sent."""
    acme = proving.member(1)
    bolt = proving.member(1, partner=proving.world.bolt)
    victim = acme.phone or ""
    others = [proving.member(number) for number in (2, 3)]
    sent = 0
    for member in (acme, *others):
        for _ in range(OPEN_MAX):
            try:
                sent += proving.start(member, "new_phone", to=victim).outbound is not None
            except TooManyChallenges:
                break
    assert sent == CODES_PER_DAY_MAX
    answers = [proving.start(bolt) for _ in range(OPEN_MAX)]
    assert all(one.outbound is not None for one in answers)
    proving.clock.advance(LIFETIME)
    quiet = proving.start(bolt)
    assert quiet.outbound is None  # 15 codes went to this phone today
    assert replace(quiet, id=answers[0].id, nonce=answers[0].nonce, outbound=answers[0].outbound) == replace(
        answers[0], expires_at=quiet.expires_at
    )
    with pytest.raises(ProofRefused, match="code is wrong"):
        proving.prove(bolt, Proof(quiet.id, code="000000"))


def test_messages_are_in_the_language_of_the_mandate_and_say_what_they_are_for(proving: Proving) -> None:
    for number, (language, expected) in enumerate(
        {"rw": "rw", "ar-AE": "ar", "fr": "fr", "tl": "tl", "en": "en", "xx": "en"}.items()
    ):
        member = proving.member(number, mandate=NewMandate("2026-1", language))
        outbound = proving.start(member, tail="4567").outbound
        assert outbound is not None
        assert outbound.language == expected
        assert outbound.text == messages.code_text(expected, code_in(outbound.text), "payee", "4567")
        assert "4567" in outbound.text


def test_every_language_has_every_message() -> None:
    english = messages.CATALOGUE["en"]
    for wording in messages.CATALOGUE.values():
        assert wording.purposes.keys() == english.purposes.keys()
        assert wording.notices.keys() == english.notices.keys()
        for purpose in challenges.PURPOSES:
            told = wording.code.format(code="123456", purpose=wording.purposes[purpose].format(tail="4567"))
            assert (
                len(told) <= 335
            )  # what concatenated text messages of this script bear: five of 67 characters
