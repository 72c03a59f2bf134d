"""How a transaction is written down as bytes: the rows that are copied into the journal, and the leaf that is sealed.

A record is PostgreSQL's binary COPY form: a count of fields, then each as its length (−1: null) and its bytes, big
endian; dates are days and instants microseconds since 2000-01-01. A leaf is the SHA-256 (RFC 9162 prefix 0x00) of a
version byte, the transaction's record and its postings' records: what is hashed is what is stored.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any
from uuid import UUID

LEAF_VERSION = 1
SALT_BYTES = 16

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_MICROSECOND = timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"
_LEAF_PREFIX = bytes((0x00, LEAF_VERSION))

_pack_posting = Struct(">hi16sihi16si16siqi3sii").pack
_pack_id = Struct(">i16s").pack
_pack_length = Struct(">i").pack
_pack_times = Struct(">iiiq").pack
_pack_count = Struct(">ih").pack


def leaf(
    *,
    salt: bytes,
    id: UUID,  # noqa: A002  the column's name
    reference: str,
    kind: str,
    effective_on: date,
    recorded_at: datetime,
    reverses: UUID | None,
    details: Mapping[str, Any] | None,
    postings: Iterable[tuple[UUID, UUID, int, str, date]],
) -> bytes:
    """The 32-byte leaf of a transaction as read back from its rows.

    ``postings``, in the order of seq: debited account, credited account, amount, currency, effective on.
    """
    records = [
        posting_record(id.bytes, seq, debit.bytes, credit.bytes, amount, currency.encode(), days(on))
        for seq, (debit, credit, amount, currency, on) in enumerate(postings, start=1)
    ]
    fields = transaction_fields(
        id.bytes,
        reference,
        kind,
        days(effective_on),
        microseconds(recorded_at),
        reverses,
        len(records),
        canonical_details(details),
        salt,
    )
    return leaf_of(fields, b"".join(records))


def leaf_of(fields: bytes, postings: bytes) -> bytes:
    """The leaf over the bytes of `transaction_fields` and the joined `posting_record`s."""
    return sha256(_LEAF_PREFIX + fields + postings).digest()


def transaction_fields(
    transaction_id: bytes,
    reference: str,
    kind: str,
    effective_days: int,
    recorded_microseconds: int,
    reverses: UUID | None,
    postings: int,
    details: bytes | None,
    salt: bytes,
) -> bytes:
    """The nine fields of a transaction that its leaf covers, without the leading count."""
    reference_bytes, kind_bytes = reference.encode(), kind.encode()
    return b"".join(
        (
            _pack_id(16, transaction_id),
            _pack_length(len(reference_bytes)),
            reference_bytes,
            _pack_length(len(kind_bytes)),
            kind_bytes,
            _pack_times(4, effective_days, 8, recorded_microseconds),
            _NULL if reverses is None else _pack_id(16, reverses.bytes),
            _pack_count(2, postings),
            _NULL if details is None else _pack_length(len(details) + 1) + b"\x01" + details,
            _pack_id(SALT_BYTES, salt),
        )
    )


def transaction_record(fields: bytes, leaf_bytes: bytes) -> bytes:
    """The row of a transaction: its nine fields and its leaf."""
    return b"\x00\x0a" + fields + b"\x00\x00\x00\x20" + leaf_bytes


def posting_record(
    transaction_id: bytes,
    seq: int,
    debit: bytes,
    credit: bytes,
    amount: int,
    currency: bytes,
    effective_days: int,
) -> bytes:
    """The row of a posting."""
    return _pack_posting(
        7, 16, transaction_id, 2, seq, 16, debit, 16, credit, 8, amount, 3, currency, 4, effective_days
    )


@lru_cache(maxsize=4096)
def days(on: date) -> int:
    """Days since 2000-01-01."""
    return on.toordinal() - _EPOCH_DAY


def microseconds(at: datetime) -> int:
    """Microseconds since 2000-01-01T00:00Z."""
    return (at - _EPOCH) // _MICROSECOND


def canonical_details(details: Mapping[str, Any] | None) -> bytes | None:
    """Details as the one JSON text that stands for them: sorted keys, no spaces, ASCII. Raises `TypeError` on a float."""
    if details is None:
        return None
    _refuse_floats(details)
    return json.dumps(details, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("details hold no floats: they have no one spelling")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError("the keys of details are text")
            _refuse_floats(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_floats(inner)
