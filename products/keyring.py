"""The keys that personal data and stored secrets rest under.

One *master key* per id, held outside the database (``MIZAN_MASTER_KEY``). From each, HKDF-SHA-256 (RFC 5869) derives
a key per purpose, so that no two uses share one:

* ``wrap`` — the key that wraps every member's own 32-byte *data key*; destroying the wrapped copy erases the member;
* ``seal``/``open`` — one key per named purpose for what belongs to no member (inbox bodies, stored secrets, answers);
* ``blind_index`` — HMAC-SHA-256, by which an encrypted value can be found without being readable.

Everything encrypted is AES-256-GCM with a random 96-bit nonce and the place it is stored in as associated data, so a
ciphertext moved to another row, column or table does not open. The first byte is the format's version.

*Rotation*: a new master key is added beside the old one, first as one that only opens, then as the current one. What
is new is sealed under it, whatever is old names the key that it needs, and a job (`api.rotation`) seals all of that
anew: :meth:`Keyring.rewrap` moves a wrapped data key over without touching the fields under it. When nothing names the
old key any more, it can go.

Blind indexes outlive master keys. An index has to be equal to be found, also in rows whose value nobody can read any
more, and its uniqueness is what keeps one phone from being registered twice at once; so all come from one *index root*
that never changes. It begins as a derivation of the first master key, is stored sealed like any other secret
(`products.safekeeping`), and rotation seals it anew.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger.errors import MizanError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
FIELD_VERSION: Final = 1
SEALED_VERSION: Final = 1
CIPHERS_CACHED_MAX: Final = 50_000
"""Opened data keys kept in the process: about 40 MB when full."""

_KEY_ID = re.compile(r"[a-z0-9-]{1,32}\Z")


class KeyringError(MizanError):
    """Something encrypted cannot be opened: wrong key, wrong place, or changed bytes. Never caused by a caller's input."""

    code = "internal_error"


class FieldCipher:
    """Encrypts and decrypts what rests under one data key: a member's personal fields, a bank statement's file."""

    __slots__ = ("_aead",)

    def __init__(self, data_key: bytes) -> None:
        self._aead = AESGCM(data_key)

    def encrypt(self, text: str, place: bytes) -> bytes:
        """`text` encrypted for `place` (see :func:`field_place`): version byte, nonce, ciphertext and tag."""
        return self.seal(text.encode(), place)

    def decrypt(self, stored: bytes, place: bytes) -> str:
        """The text encrypted for `place`. Raises `KeyringError` when it was not."""
        return self.open(stored, place).decode()

    def seal(self, plain: bytes, place: bytes) -> bytes:
        """Bytes encrypted for `place`, as `encrypt` does it."""
        nonce = os.urandom(NONCE_BYTES)
        return b"\x01" + nonce + self._aead.encrypt(nonce, plain, place)

    def open(self, stored: bytes, place: bytes) -> bytes:
        """The bytes encrypted for `place`. Raises `KeyringError` when they were not."""
        if stored[0] != FIELD_VERSION:
            raise KeyringError(
                f"an encrypted field has version {stored[0]}, this release reads {FIELD_VERSION}"
            )
        try:
            return self._aead.decrypt(stored[1:13], stored[13:], place)
        except InvalidTag:
            raise KeyringError("an encrypted field does not open with its key in this place") from None


def field_place(table: str, column: str, row: UUID) -> bytes:
    """The associated data of one field: where it is stored."""
    return b"%b\x00%b\x00%b" % (table.encode(), column.encode(), row.bytes)


class Keyring:
    """The master keys by id, the current one, and everything that is derived from them.

    `masters` maps key ids (lower-case letters, digits, hyphens; at most 32) to 32 random bytes; `current` seals what is
    new. The index root is what `index_from` says, else what this current key would begin with.
    """

    def __init__(self, masters: Mapping[str, bytes], current: str) -> None:
        if not masters:
            raise ValueError("a keyring needs at least one master key")
        for key_id, key in masters.items():
            if not _KEY_ID.match(key_id):
                raise ValueError(
                    f"{key_id!r} is not a key id: lower-case letters, digits and hyphens, at most 32"
                )
            if len(key) != KEY_BYTES:
                raise ValueError(f"master key {key_id!r} has {len(key)} bytes, not {KEY_BYTES}")
        self._masters = dict(masters)
        self.current = current
        if current not in self._masters:
            raise ValueError(f"the keyring has no master key {current!r}")
        self._derived: dict[tuple[str, str], bytes] = {}
        self._aeads: dict[tuple[str, str], AESGCM] = {}
        self._ciphers: dict[bytes, FieldCipher] = {}
        self._find_index_root: Callable[[], bytes] = self.first_index_root
        self._indexing: dict[str, bytes] = {}
        self._lock = Lock()

    @classmethod
    def of(cls, current: bytes, *retired: bytes) -> "Keyring":
        """A keyring of bare keys, each named by its own digest: `current`, and others that only open."""
        masters = {hashlib.sha256(b"mizan/key-id" + key).hexdigest()[:8]: key for key in (*retired, current)}
        return cls(masters, current=next(reversed(masters)))

    def __repr__(self) -> str:
        return f"Keyring(keys={list(self._masters)}, current={self.current!r})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys that it holds."""
        return tuple(self._masters)

    # -- members' data keys ------------------------------------------------------------------------------------

    @staticmethod
    def new_data_key() -> bytes:
        """32 random bytes: a member's own key."""
        return os.urandom(KEY_BYTES)

    def wrap(self, data_key: bytes, owner: UUID) -> bytes:
        """`data_key` encrypted under the current master key for `owner` (the member's id)."""
        if len(data_key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")
        return self._encrypt("wrap", data_key, owner.bytes)

    def unwrap(self, wrapped: bytes, owner: UUID) -> bytes:
        """The data key that :meth:`wrap` wrapped for `owner`. Raises `KeyringError`."""
        return self._decrypt("wrap", wrapped, owner.bytes)

    def rewrap(self, wrapped: bytes, owner: UUID) -> bytes:
        """The same data key under the current master key; unchanged when it is there already."""
        if key_id_of(wrapped) == self.current:
            return wrapped
        return self.wrap(self.unwrap(wrapped, owner), owner)

    def cipher(self, wrapped: bytes, owner: UUID) -> FieldCipher:
        """The field cipher under a wrapped data key, from a bounded cache keyed by the wrapped bytes themselves.

        An erased member has no wrapped key in the database, so nothing can ask the cache for one. The oldest entries
        make room; looking one up takes no lock and keeps no order, as this runs for every member of every batch.
        """
        cipher = self._ciphers.get(wrapped)
        if cipher is None:
            cipher = FieldCipher(self.unwrap(wrapped, owner))
            with self._lock:
                if len(self._ciphers) >= CIPHERS_CACHED_MAX:
                    del self._ciphers[next(iter(self._ciphers))]
                self._ciphers[wrapped] = cipher
        return cipher

    # -- other secrets -----------------------------------------------------------------------------------------

    def seal(self, purpose: str, plaintext: bytes, context: bytes = b"") -> bytes:
        """`plaintext` encrypted under the current key of `purpose`, bound to `context` (say, the row's id)."""
        return self._encrypt(f"seal/{purpose}", plaintext, context)

    def open(self, purpose: str, sealed: bytes, context: bytes = b"") -> bytes:
        """What :meth:`seal` sealed for the same purpose and context. Raises `KeyringError`."""
        return self._decrypt(f"seal/{purpose}", sealed, context)

    def blind_index(self, purpose: str, value: str) -> bytes:
        """32 bytes that are equal for equal `value` under one `purpose` and say nothing without the key.

        Purposes are a small fixed set (their keys are kept): what varies, such as the partner, goes into `value`.
        """
        key = self._indexing.get(purpose)
        if key is None:
            key = self._indexing[purpose] = _derived(self._find_index_root(), f"index/{purpose}")
        return hmac.digest(key, value.encode(), hashlib.sha256)

    def index_from(self, find: Callable[[], bytes]) -> None:
        """Take the index root from `find` (32 bytes; asked when the first index of a purpose is computed)."""
        self._find_index_root = find
        self._indexing.clear()

    def first_index_root(self) -> bytes:
        """What the index root of new books is: a derivation of the current master key."""
        return self._key(self.current, "index root")

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for `purpose` from the current master key, for a MAC whose values live for days only."""
        return self._key(self.current, f"derive/{purpose}")

    def derived_before(self, purpose: str) -> list[bytes]:
        """The keys that `derive` gave, or will give, while another master key of the ring is current."""
        return [self._key(key_id, f"derive/{purpose}") for key_id in self._masters if key_id != self.current]

    # -- the two primitives ------------------------------------------------------------------------------------

    def _encrypt(self, purpose: str, plaintext: bytes, context: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        head = head_of(self.current)
        ciphertext = self._aead(self.current, purpose).encrypt(nonce, plaintext, head + context)
        return head + nonce + ciphertext

    def _decrypt(self, purpose: str, sealed: bytes, context: bytes) -> bytes:
        key_id = key_id_of(sealed)
        if key_id not in self._masters:
            raise KeyringError(f"a sealed value names master key {key_id!r}, which the keyring does not hold")
        body = 2 + len(key_id)
        nonce, ciphertext = sealed[body : body + NONCE_BYTES], sealed[body + NONCE_BYTES :]
        try:
            return self._aead(key_id, purpose).decrypt(nonce, ciphertext, sealed[:body] + context)
        except (InvalidTag, ValueError):
            raise KeyringError(
                f"a value sealed for {purpose!r} does not open: changed, or moved from its place"
            ) from None

    def _key(self, key_id: str, purpose: str) -> bytes:
        key = self._derived.get((key_id, purpose))
        if key is None:
            key = self._derived[key_id, purpose] = _derived(self._masters[key_id], purpose)
        return key

    def _aead(self, key_id: str, purpose: str) -> AESGCM:
        aead = self._aeads.get((key_id, purpose))
        if aead is None:
            aead = self._aeads[key_id, purpose] = AESGCM(self._key(key_id, purpose))
        return aead


def head_of(key_id: str) -> bytes:
    """The first bytes of whatever is sealed under the master key `key_id`."""
    return bytes((SEALED_VERSION, len(key_id))) + key_id.encode()


def key_id_of(sealed: bytes) -> str:
    """The id of the master key that `sealed` needs. Raises `KeyringError` for what was never sealed."""
    if len(sealed) < 2 or sealed[0] != SEALED_VERSION:
        raise KeyringError("a sealed value has an unknown version")
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace")


def _derived(key: bytes, purpose: str) -> bytes:
    info = b"mizan/keyring/1/" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)
