"""The journal replayed by id: each transaction's leaf hashed again from what is stored.

A leaf covers PostgreSQL's binary COPY form of the rows (`ledger.leaves`), so the rows are copied out in that form and
hashed as they come. Only `details` needs work: stored as jsonb, it has one canonical spelling in the leaf.
"""

import json
from collections.abc import Iterator
from struct import Struct
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.leaves import canonical_details, leaf_of
from ledger.report import Check, Progress, Tally

CHUNK_TRANSACTIONS = 10_000
"""So many transactions, with their postings, are in memory at a time."""

_COPY_SIGNATURE_BYTES = 19
_COPY_TRAILER = b"\xff\xff"
_COUNT_BYTES, _LENGTH_BYTES, _ID_BYTES, _LEAF_BYTES = 2, 4, 16, 32
_JSONB_VERSION_BYTES = 1
_DETAILS_FIELD = 7
_ID = slice(_COUNT_BYTES + _LENGTH_BYTES, _COUNT_BYTES + _LENGTH_BYTES + _ID_BYTES)
_FIELDS = slice(_COUNT_BYTES, -_LENGTH_BYTES - _LEAF_BYTES)
_LEAF = slice(-_LEAF_BYTES, None)
_SEQ_AT = _ID.stop + _LENGTH_BYTES
_NO_DETAILS = b"\xff\xff\xff\xff"
_length = Struct(">i")
_seq = Struct(">h")

_TRANSACTIONS = """
    COPY (SELECT id, reference, kind, effective_on, recorded_at, reverses, postings, details, salt, leaf
          FROM ledger.transaction WHERE {of_chunk} ORDER BY id) TO STDOUT (FORMAT binary)
"""
_POSTINGS = """
    COPY (SELECT transaction_id, seq, debit_account, credit_account, amount, currency, effective_on
          FROM ledger.posting WHERE {of_chunk} ORDER BY transaction_id, seq) TO STDOUT (FORMAT binary)
"""


def replay(tx: Tx, progress: Progress) -> tuple[Check, Check]:
    """Every leaf against its rows, and every posting against its transaction."""
    leaves = Tally("leaves are the hashes of their rows")
    postings = Tally("postings belong to a transaction")
    total = tx.execute(text("SELECT count(*) FROM ledger.transaction")).scalar_one()
    for after, through in _chunks(tx):
        # One COPY at a time on a connection: the chunk's transactions first, then its postings.
        transactions = list(_copy(tx, _TRANSACTIONS, "id", after, through))
        rows = _copy(tx, _POSTINGS, "transaction_id", after, through)
        posting = next(rows, None)
        for transaction in transactions:
            transaction_id = transaction[_ID]
            own: list[bytes] = []
            while posting is not None and posting[_ID] <= transaction_id:
                if posting[_ID] == transaction_id:
                    own.append(posting)
                else:
                    _orphan(postings, posting)
                postings.checked += 1
                posting = next(rows, None)
            leaves.checked += 1
            _compare(leaves, transaction, own)
        while posting is not None:
            _orphan(postings, posting)
            postings.checked += 1
            posting = next(rows, None)
        progress(leaves.name, leaves.checked, total)
    return leaves.verdict(), postings.verdict()


def _chunks(tx: Tx) -> Iterator[tuple[UUID | None, UUID | None]]:
    """Bounds (after, through] of ids that hold so many transactions each; None where there is no bound."""
    after: UUID | None = None
    while True:
        bound = "WHERE id > %(after)s" if after is not None else ""
        row = (
            cursor(tx)
            .execute(
                f"SELECT id FROM ledger.transaction {bound} ORDER BY id OFFSET %(skipped)s LIMIT 1",
                {"after": after, "skipped": CHUNK_TRANSACTIONS - 1},
            )
            .fetchone()
        )
        through = row[0] if row is not None else None
        yield after, through
        if through is None:
            return
        after = through


def _copy(tx: Tx, statement: str, column: str, after: UUID | None, through: UUID | None) -> Iterator[bytes]:
    """The rows of a chunk as they come over the wire, each beginning with its count of fields."""
    bounds = ["true"]
    if after is not None:
        bounds.append(f"{column} > '{after}'")
    if through is not None:
        bounds.append(f"{column} <= '{through}'")
    with cursor(tx).copy(statement.format(of_chunk=" AND ".join(bounds))) as rows:
        head = _COPY_SIGNATURE_BYTES
        for row in rows:
            # The signature comes in front of the first row, the trailer is a row of its own.
            record = bytes(row[head:])
            head = 0
            if record not in (b"", _COPY_TRAILER):
                yield record


def _orphan(tally: Tally, posting: bytes) -> None:
    (seq,) = _seq.unpack_from(posting, _SEQ_AT)
    tally.lie(f"posting {seq} of transaction {UUID(bytes=posting[_ID])}", "there is no such transaction")


def _compare(tally: Tally, transaction: bytes, postings: list[bytes]) -> None:
    try:
        fields = _canonical_fields(transaction)
        holds = bool(postings) and leaf_of(fields, b"".join(postings)) == transaction[_LEAF]
    except (TypeError, ValueError):  # details that could never have been posted
        holds = False
    if not holds:
        tally.lie(
            f"transaction {UUID(bytes=transaction[_ID])}",
            f"its row and its {len(postings)} postings do not hash to its leaf",
        )


def _canonical_fields(transaction: bytes) -> bytes:
    """The fields that the leaf covers, with details as they were hashed when they were posted."""
    at = _COUNT_BYTES
    for _ in range(_DETAILS_FIELD):
        (length,) = _length.unpack_from(transaction, at)
        at += _LENGTH_BYTES + max(length, 0)
    fields = transaction[_FIELDS]
    if transaction[at : at + _LENGTH_BYTES] == _NO_DETAILS:
        return fields
    (length,) = _length.unpack_from(transaction, at)
    start = at + _LENGTH_BYTES
    version = transaction[start : start + _JSONB_VERSION_BYTES]
    stored = transaction[start + _JSONB_VERSION_BYTES : start + length]
    canonical = canonical_details(json.loads(stored)) or b""
    return b"".join(
        (
            transaction[_COUNT_BYTES:at],
            _length.pack(len(version) + len(canonical)),
            version,
            canonical,
            transaction[start + length : _FIELDS.stop],
        )
    )
