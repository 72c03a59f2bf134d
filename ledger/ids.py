"""Ids: UUIDv7, made in Python, and their public spelling."""

import re
from base64 import b32hexdecode
from datetime import UTC, datetime
from secrets import randbits
from uuid import UUID

from uuid_utils.compat import uuid7

from ledger.errors import InvalidId

_PUBLIC = re.compile(r"[0-9a-v]{26}", re.ASCII)
_CANONICAL_LAST = frozenset("048cgkos")  # 130 bits carry 128: the last two are zero
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
# Ids are spelled for every message: two digits at a time from a table cost a tenth of base64.b32hexencode.
_TWO_DIGITS = [first + second for first in _DIGITS for second in _DIGITS]
_SHIFTS = range(120, -1, -10)


def new_id() -> UUID:
    """A new UUIDv7 (RFC 9562): sorted by time, strictly increasing within a process."""
    return uuid7()


def id_prefix() -> str:
    """The first 20 digits of ids that a statement counts on itself, in their last 12: of now, and nobody else's.

    What `new_id` makes within a millisecond may differ in those last digits alone.
    """
    now = new_id().int >> 80
    value = now << 80 | 7 << 76 | randbits(12) << 64 | 0b10 << 62 | randbits(14) << 48
    return str(UUID(int=value))[:-12]


def made_at(value: UUID) -> datetime | None:
    """When a UUIDv7 was made, to the millisecond; None for an id of another kind, which doesn't tell."""
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC) if value.version == 7 else None


def public_id(prefix: str, value: UUID) -> str:
    """``rmt_…``: the prefix and 26 characters of lower-case base32hex (RFC 4648 §7), which sort as the ids do."""
    bits = value.int << 2
    return f"{prefix}_{''.join([_TWO_DIGITS[bits >> shift & 1023] for shift in _SHIFTS])}"


def parse_public_id(prefix: str, text: str) -> UUID:
    """The id behind a public one. Raises `InvalidId` unless `public_id` would write exactly this text."""
    kind, _, body = text.partition("_")
    if kind != prefix or not _is_canonical(body):
        raise InvalidId(f"not an id of the kind {prefix}_…")
    return UUID(bytes=b32hexdecode(f"{body.upper()}======"))


def _is_canonical(body: str) -> bool:
    return body[-1:] in _CANONICAL_LAST and _PUBLIC.fullmatch(body) is not None
