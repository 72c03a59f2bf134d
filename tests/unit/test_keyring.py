"""The keyring: what is encrypted opens in its own place under its own key, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import new_id
from products.keyring import FieldCipher, Keyring, KeyringError, field_place

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
RING = Keyring.of(OLD)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_field_opens_as_it_was_and_only_in_its_place(text: str) -> None:
    row, other = new_id(), new_id()
    cipher = FieldCipher(RING.new_data_key())
    place = field_place("products.member", "birth_date", row)
    stored = cipher.encrypt(text, place)
    assert cipher.decrypt(stored, place) == text
    assert cipher.encrypt(text, place) != stored
    for elsewhere in (
        field_place("products.member", "birth_date", other),
        field_place("products.member", "sex", row),
        field_place("products.consent", "birth_date", row),
    ):
        with pytest.raises(KeyringError):
            cipher.decrypt(stored, elsewhere)


@given(st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(position: int, bit: int) -> None:
    sealed = RING.seal("secret", b"attack at dawn", b"row")
    at = position % len(sealed)
    changed = sealed[:at] + bytes([sealed[at] ^ (1 << bit)]) + sealed[at + 1 :]
    with pytest.raises(KeyringError):
        RING.open("secret", changed, b"row")


def test_purposes_and_contexts_do_not_open_each_other() -> None:
    sealed = RING.seal("inbox body", b"x", b"row 1")
    assert RING.open("inbox body", sealed, b"row 1") == b"x"
    for purpose, context in (("secret", b"row 1"), ("inbox body", b"row 2")):
        with pytest.raises(KeyringError):
            RING.open(purpose, sealed, context)


def test_a_data_key_is_unwrapped_for_its_owner_alone() -> None:
    owner, other = new_id(), new_id()
    key = RING.new_data_key()
    assert RING.unwrap(RING.wrap(key, owner), owner) == key
    with pytest.raises(KeyringError):
        RING.unwrap(RING.wrap(key, owner), other)


def test_a_new_master_key_takes_over_and_the_old_one_is_still_read() -> None:
    rotated = Keyring.of(NEW, OLD)
    owner = new_id()
    wrapped = RING.wrap(key := RING.new_data_key(), owner)
    moved = rotated.rewrap(wrapped, owner)
    assert moved != wrapped
    assert rotated.rewrap(moved, owner) == moved
    assert Keyring.of(NEW).unwrap(moved, owner) == key
    with pytest.raises(KeyringError):
        RING.unwrap(moved, owner)
    # what is looked up stays where it was: indexes come from a root of their own, which the books keep
    rotated.index_from(RING.first_index_root)
    assert rotated.blind_index("phone", "+250780000001") == RING.blind_index("phone", "+250780000001")


def test_blind_indexes_differ_by_value_purpose_and_key() -> None:
    indexes = {
        RING.blind_index("phone", "a"),
        RING.blind_index("phone", "b"),
        RING.blind_index("partner_reference", "a"),
        Keyring.of(NEW).blind_index("phone", "a"),
    }
    assert len(indexes) == 4


def test_a_keyring_never_shows_its_keys() -> None:
    assert OLD.hex() not in repr(RING)
    assert str(OLD) not in repr(RING)


@pytest.mark.parametrize(
    "junk", [b"", b"\x01", b"\x02\x08deadbeef", b"\x01\xff", b"\x01\x08deadbeef" + bytes(40)]
)
def test_junk_does_not_open(junk: bytes) -> None:
    with pytest.raises(KeyringError):
        RING.open("secret", junk)


def test_keys_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        Keyring.of(b"short")
    with pytest.raises(ValueError, match="32"):
        RING.wrap(b"short", new_id())
