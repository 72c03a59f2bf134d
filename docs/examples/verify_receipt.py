"""Verify a receipt offline, with published keys alone: python verify_receipt.py RECEIPT.json SEALS.json

SEALS.json is what /.well-known/mizan-seals answered, kept since then where nobody else can change it. Needs cryptography.
The steps, as docs/decisions/seals.md lays them down: the transaction's fields hash to a leaf; the leaf, at its place, leads
by an audit path (RFC 9162, 2.1.3.2) to the seal's root; the seal's fields hash to its head; a key that you trust signed it.
"""

import json
import struct
import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class NotProven(Exception):
    """The receipt proves nothing; the text says why."""


def verify(receipt: dict[str, Any], published: dict[str, Any]) -> None:
    """Raise `NotProven` unless a key of `published` sealed exactly this transaction."""
    proof = receipt["proof"]
    if proof is None:
        raise NotProven("not sealed yet: ask again in a minute")
    try:
        seal = proof["seal"]
        if proof["era"] != seal["era"] or not seal["from_xid"] <= proof["xid"] < seal["to_xid"]:
            raise NotProven("its place is not in the seal's range")
        # a version byte, the place in the journal, the leaf; behind 0x00, as every leaf of the tree
        entry = sha256(
            b"\x00" + struct.pack(">BhQ32s", 1, proof["era"], proof["xid"], leaf(receipt))
        ).digest()
        path = [bytes.fromhex(sibling) for sibling in proof["path"]]
        if root(entry, proof["index"], seal["transactions"], path).hex() != seal["root"]:
            raise NotProven("the transaction is not the one that was sealed")
        signed = head(seal)
        if signed.hex() != seal["head"]:
            raise NotProven("the seal's fields do not hash to its head")
        key = bytes.fromhex(published["keys"].get(seal["key_id"], ""))
        if sha256(key).hexdigest()[:32] != seal["key_id"]:
            raise NotProven("no key that you trust signed the seal")
        Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(seal["signature"]), signed)
    except InvalidSignature:
        raise NotProven("the signature is not the key's") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise NotProven(f"not a receipt: {error!r}") from None
    same = [one for one in published["seals"] if one["number"] == seal["number"]]
    if same and same[0]["head"] != seal["head"]:
        raise NotProven("another seal was published under this number")


def leaf(receipt: dict[str, Any]) -> bytes:
    """SHA-256 over the transaction and its postings, each field behind its length; −1 for one that is absent."""
    id_, details = UUID(receipt["transaction_id"]).bytes, receipt["details"]
    if details is not None:
        details = b"\x01" + json.dumps(details, sort_keys=True, separators=(",", ":")).encode()
    fields = [
        id_,
        receipt["reference"].encode(),
        receipt["kind"].encode(),
        days(receipt["effective_on"]),
        struct.pack(">q", microseconds(receipt["recorded_at"])),
        None if receipt["reverses"] is None else UUID(receipt["reverses"]).bytes,
        struct.pack(">h", len(receipt["postings"])),
        details,
        bytes.fromhex(receipt["salt"]),
    ]
    written = b"\x00\x01" + counted(fields, ">i")  # a leaf, version 1
    for number, posting in enumerate(receipt["postings"], start=1):
        written += b"\x00\x07" + counted(
            [
                id_,
                struct.pack(">h", number),
                UUID(posting["debit"]).bytes,
                UUID(posting["credit"]).bytes,
                struct.pack(">q", posting["amount"]),
                posting["currency"].encode(),
                days(posting["effective_on"]),
            ],
            ">i",
        )
    return sha256(written).digest()


def root(node: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that a leaf and its audit path lead to (RFC 9162, 2.1.3.2)."""
    last = size - 1
    if not 0 <= index < size or any(len(sibling) != 32 for sibling in path):
        raise NotProven("the path does not belong to this tree")
    for sibling in path:
        if last == 0:
            raise NotProven("the path is too long")
        if index & 1 or index == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        index, last = index >> 1, last >> 1
    if last != 0:
        raise NotProven("the path is too short")
    return node


def head(seal: dict[str, Any]) -> bytes:
    """SHA-256 over the seal's fields, each behind its length; seals with an audit log in them are of version 2."""

    def count(name: str) -> bytes:
        return struct.pack(">q", seal[name])

    audited = "audit_root" in seal
    parts = [
        b"mizan-seal-2" if audited else b"mizan-seal-1",
        count("number"),
        bytes.fromhex(seal["previous"]),
        bytes.fromhex(seal["root"]),
        struct.pack(">h", seal["era"]),
        struct.pack(">Q", seal["from_xid"]),
        struct.pack(">Q", seal["to_xid"]),
        *(count(name) for name in ("transactions", "postings", "total_transactions", "total_postings")),
        struct.pack(">q", microseconds(seal["sealed_at"])),
        seal["key_id"].encode(),
    ]
    if audited:
        parts += [bytes.fromhex(seal["audit_root"]), count("audit_entries"), count("total_audit_entries")]
    return sha256(counted(parts, ">I")).digest()


def counted(parts: Iterable[bytes | None], length: str) -> bytes:
    """Parts, each behind its length in four bytes."""
    return b"".join(
        struct.pack(length, -1) if part is None else struct.pack(length, len(part)) + part for part in parts
    )


def days(day: str) -> bytes:
    """Days since 2000-01-01."""
    return struct.pack(">i", (date.fromisoformat(day) - EPOCH.date()).days)


def microseconds(time: str) -> int:
    """Microseconds since 2000-01-01T00:00Z."""
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1)


if __name__ == "__main__":
    shown, seals = (json.loads(Path(name).read_text()) for name in sys.argv[1:3])
    try:
        verify(shown, seals)
    except NotProven as why:
        sys.exit(f"NOT PROVEN: {why}")
    number, sealed_at = shown["proof"]["seal"]["number"], shown["proof"]["seal"]["sealed_at"]
    print(f"proven: transaction {shown['transaction_id']} stands in seal {number} of {sealed_at}")
