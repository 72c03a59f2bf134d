"""How what is personal in a bank's file rests: under a key of the file's own, which is wrapped by the keyring.

The keyring is the products' (`products.keyring.Keyring`); what of it is needed here is said as a protocol. A key for each file
means that turning the master key over touches one value a file, and that destroying it makes the file's pieces and the texts of its
lines unreadable wherever copies of them are.
"""

import json
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


class Cipher(Protocol):
    """Seals and opens under one data key; `place` is where the value is stored, and it opens in no other."""

    def seal(self, plain: bytes, place: bytes) -> bytes:
        """`plain`, sealed for `place`."""
        ...

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """What was sealed for `place`."""
        ...


class Keys(Protocol):
    """What is asked of the keyring."""

    def new_data_key(self) -> bytes:
        """A fresh data key."""
        ...

    def wrap(self, data_key: bytes, owner: UUID) -> bytes:
        """The key as it is stored with its owner."""
        ...

    def cipher(self, wrapped: bytes, owner: UUID) -> Cipher:
        """The cipher under a stored key."""
        ...

    def blind_index(self, purpose: str, value: str) -> bytes:
        """32 bytes, equal for equal values, that tell nothing without the key."""
        ...


@dataclass(frozen=True, slots=True)
class LineText:
    """What is personal in a line: its free text, and who the other side is."""

    text: str = ""
    counterparty: str | None = None
    counterparty_account: str | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.counterparty or self.counterparty_account)


def seal_text(cipher: Cipher, line_id: UUID, said: LineText) -> bytes | None:
    """A line's text as it is stored; None where there is none."""
    if not said:
        return None
    plain = json.dumps([said.text, said.counterparty, said.counterparty_account], ensure_ascii=False)
    return cipher.seal(plain.encode(), _place_of_line(line_id))


def open_text(cipher: Cipher, line_id: UUID, sealed: bytes) -> LineText:
    """What `seal_text` sealed for the line."""
    return LineText(*json.loads(cipher.open(sealed, _place_of_line(line_id))))


def seal_piece(cipher: Cipher, file_id: UUID, number: int, piece: bytes) -> bytes:
    """A piece of a file as it is stored."""
    return cipher.seal(piece, _place_of_piece(file_id, number))


def open_piece(cipher: Cipher, file_id: UUID, number: int, sealed: bytes) -> bytes:
    """What `seal_piece` sealed as the piece of this number."""
    return cipher.open(sealed, _place_of_piece(file_id, number))


def _place_of_line(line_id: UUID) -> bytes:
    return b"ledger.statement_line\x00text\x00" + line_id.bytes


def _place_of_piece(file_id: UUID, number: int) -> bytes:
    return b"ledger.statement_piece\x00" + file_id.bytes + number.to_bytes(4)
