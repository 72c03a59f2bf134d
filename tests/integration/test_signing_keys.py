"""The keys that sign access tokens change without an outage: published before they sign, kept while their tokens live."""

from datetime import timedelta

import pytest

from api.auth.keys import KEPT_AFTER, PUBLISHED_AHEAD, Rotation, SigningKeys, rotate
from ledger.clock import FixedClock
from products.keyring import Keyring
from tests.conftest import Databases
from tests.racing import at_once

KEYRING = Keyring.of(bytes(range(32)))
MINUTE = timedelta(minutes=1)


@pytest.fixture
def keys(databases: Databases, clock: FixedClock) -> SigningKeys:
    return SigningKeys(databases.api, KEYRING, clock)


def fresh(databases: Databases, clock: FixedClock) -> SigningKeys:
    """The keys as a process that starts now sees them."""
    return SigningKeys(databases.api, KEYRING, clock)


def rotated(databases: Databases, clock: FixedClock) -> Rotation:
    return databases.worker.run(lambda tx: rotate(tx, KEYRING, clock.now()))


def test_the_next_key_is_published_before_it_signs_and_the_old_one_verifies_after(
    keys: SigningKeys, databases: Databases, clock: FixedClock
) -> None:
    old = keys.signing().kid
    made = rotated(databases, clock)
    after = fresh(databases, clock)
    assert after.signing().kid == old
    assert {key.kid for key in after.published()} == {old, made.kid}

    clock.advance(PUBLISHED_AHEAD)
    assert after.signing().kid == fresh(databases, clock).signing().kid == made.kid
    assert after.verifying(old) is not None
    clock.advance(KEPT_AFTER)
    assert after.verifying(old) is None
    assert [key.kid for key in fresh(databases, clock).published()] == [made.kid]


def test_asking_twice_within_a_minute_rotates_once(
    keys: SigningKeys, databases: Databases, clock: FixedClock
) -> None:
    keys.signing()
    first = rotated(databases, clock)
    clock.advance(MINUTE / 2)
    assert rotated(databases, clock).kid == first.kid


def test_a_key_that_is_replaced_before_it_signed_leaves_no_gap(
    keys: SigningKeys, databases: Databases, clock: FixedClock
) -> None:
    first = keys.signing().kid
    second = rotated(databases, clock).kid
    clock.advance(PUBLISHED_AHEAD / 2)
    third = rotated(databases, clock).kid
    signed_by = []
    for _ in range(8):
        signed_by.append(fresh(databases, clock).signing().kid)
        clock.advance(PUBLISHED_AHEAD / 4)
    assert list(dict.fromkeys(signed_by)) == [first, second, third]


def test_the_first_key_signs_at_once_even_if_it_is_made_by_a_rotation(
    databases: Databases, clock: FixedClock
) -> None:
    made = rotated(databases, clock)
    assert made.signs_from == clock.now()
    assert fresh(databases, clock).signing().kid == made.kid


def test_processes_that_start_together_agree_on_one_key_and_rotate_once(
    databases: Databases, clock: FixedClock
) -> None:
    started = [fresh(databases, clock) for _ in range(5)]
    signing: list[str] = []
    at_once(*[lambda keys=keys: signing.append(keys.signing().kid) for keys in started])
    assert len(set(signing)) == 1
    made: list[str] = []
    at_once(*[lambda: made.append(rotated(databases, clock).kid)] * 5)
    assert len(set(made)) == 1
    assert {key.kid for key in fresh(databases, clock).published()} == {signing[0], made[0]}
