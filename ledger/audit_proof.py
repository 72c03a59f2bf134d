"""The proof that an entry of the audit log stands in the sealed books, which anyone can check without the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from struct import error as StructError  # noqa: N812  an exception, named as one
from typing import Any
from uuid import UUID

from ledger.audit import Entry, entry
from ledger.database import Tx
from ledger.merkle import ProofError, audit_path, root_from_path
from ledger.receipts import InvalidReceipt
from ledger.seals import Seal, SealError, audit_leaves, entry_hash, seal_covering


@dataclass(frozen=True, slots=True)
class EntryProof:
    """Where an entry stands in its seal: the leaf's index, its audit path, and the signed seal."""

    index: int
    path: tuple[bytes, ...]
    seal: Seal

    def to_json(self) -> dict[str, Any]:
        """The form that is handed out: bytes in hexadecimal."""
        return {
            "index": self.index,
            "path": [sibling.hex() for sibling in self.path],
            "seal": self.seal.to_json(),
        }

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> "EntryProof":
        """Reads what `to_json` wrote. Raises InvalidReceipt when it is not that."""
        try:
            path = tuple(bytes.fromhex(sibling) for sibling in shown["path"])
            return cls(int(shown["index"]), path, Seal.from_json(shown["seal"]))
        except (KeyError, TypeError, ValueError, SealError) as error:
            raise InvalidReceipt(f"not a proof of an audit entry: {error!r}") from error


def prove(tx: Tx, entry_id: UUID) -> tuple[Entry, EntryProof | None]:
    """An entry with its proof; None until it is sealed. Raises NotFound. As a role that reads the whole log."""
    found = entry(tx, entry_id)
    seal = seal_covering(tx, found.era, found.xid)
    if seal is None or seal.audited is None:
        return found, None
    own = entry_hash(found.era, found.xid, found.leaf)
    entries = [
        entry_hash(found.era, xid, leaf)
        for xid, leaf in audit_leaves(tx, found.era, seal.from_xid, seal.to_xid)
    ]
    index = entries.index(own)
    return found, EntryProof(index, tuple(audit_path(entries, index)), seal)


def leaf_fields(found: Entry) -> dict[str, Any]:
    """All that the leaf is hashed from, in JSON: what `verify_entry` is given offline."""
    return {
        "id": str(found.id),
        "actor_kind": found.actor_kind,
        "actor": found.actor,
        "action": found.action,
        "object": found.object,
        "outcome": found.outcome,
        "address": found.address,
        "request_id": found.request_id,
        "programme_id": str(found.programme_id) if found.programme_id else None,
        "before_digest": found.before_digest.hex() if found.before_digest else None,
        "after_digest": found.after_digest.hex() if found.after_digest else None,
        "detail": found.detail,
        "recorded_at": found.recorded_at.isoformat(),
        "salt": found.salt.hex(),
        "era": found.era,
        "xid": found.xid,
    }


def verify_entry(fields: Mapping[str, Any], proof: EntryProof, public_keys: Mapping[str, bytes]) -> None:
    """Checks an entry offline, by the seal keys that its holder trusts (from /.well-known/mizan-seals, kept safe).

    Pure: no database, no clock. Raises InvalidReceipt, saying which step fails.
    """
    seal = proof.seal
    try:
        read = _read(fields)
        leaf = entry_hash(read.era, read.xid, read.computed_leaf())
        if seal.audited is None:
            raise InvalidReceipt("its seal was made before there was an audit log")
        root, entries, _ = seal.audited
        computed = root_from_path(leaf, proof.index, entries, proof.path)
        head = seal.computed_head()
    except (KeyError, TypeError, ValueError, OverflowError, ProofError, StructError) as error:
        raise InvalidReceipt(f"its proof cannot be followed: {error}") from error
    if read.era != seal.era or not seal.from_xid <= read.xid < seal.to_xid:
        raise InvalidReceipt("its place in the log is not in the seal's range")
    if computed != root:
        raise InvalidReceipt("the entry is not the one that was sealed")
    if head != seal.head:
        raise InvalidReceipt("the seal's fields do not hash to its head")
    if not seal.signature_holds(public_keys):
        raise InvalidReceipt("no trusted key signed the seal")


def _read(fields: Mapping[str, Any]) -> Entry:
    def digest(name: str) -> bytes | None:
        return bytes.fromhex(fields[name]) if fields[name] is not None else None

    return Entry(
        id=UUID(fields["id"]),
        actor_kind=fields["actor_kind"],
        actor=fields["actor"],
        action=fields["action"],
        object=fields["object"],
        outcome=fields["outcome"],
        address=fields["address"],
        request_id=fields["request_id"],
        programme_id=UUID(fields["programme_id"]) if fields["programme_id"] is not None else None,
        before=None,
        after=None,
        before_digest=digest("before_digest"),
        after_digest=digest("after_digest"),
        detail=fields["detail"],
        recorded_at=datetime.fromisoformat(fields["recorded_at"]),
        salt=bytes.fromhex(fields["salt"]),
        leaf=b"",
        era=fields["era"],
        xid=fields["xid"],
    )
