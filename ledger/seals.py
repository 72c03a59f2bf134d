"""Seals: signed blocks of a tamper-evident chain over everything that was posted, and over the audit log.

A seal covers the transactions and the audit entries of one range of settled database transaction ids. Its root is the
RFC 9162 tree over the transactions' entries in the order (era, xid, id), its audit root that over the log's; an entry
binds the salted leaf that was computed when it was written (`ledger.leaves`, `ledger.audit`) to the place that it has in
that order. The head hashes both roots, the previous head, the range and the counts; Ed25519 signs the head. So nothing sealed can be changed, moved, added or taken away without
breaking a root, and no seal without breaking the chain or disagreeing with a head that was published.
"""

import fcntl
import heapq
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from sqlalchemy import Row, text

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict
from ledger.horizon import horizon as settled
from ledger.leaves import microseconds
from ledger.merkle import Tree, hash_leaf

GENESIS = bytes(32)
"""What the first seal names as the previous head."""

SEAL_TRANSACTIONS_MAX = 65_536
"""The most transactions and audit entries asked of one seal: a receipt reads them again, and they are 2 MiB of leaves."""

_HEAD_VERSION_1 = b"mizan-seal-1"
_HEAD_VERSION_2 = b"mizan-seal-2"
_ENTRY_VERSION = 1
_ENTRY = Struct(">BhQ32s")
_ADVISORY_CLASS, _ADVISORY_SEALER = 0x4D5A, 1
_TAIL_BYTES = 8_192  # several lines
_ERA, _LONG, _XID, _LENGTH = Struct(">h"), Struct(">q"), Struct(">Q"), Struct(">I")


class SealError(Conflict):
    """The chain cannot be continued, or what is published disagrees with it."""

    code = "seal_refused"


@dataclass(frozen=True, slots=True)
class Seal:
    """One block: covers `[from_xid, to_xid)` of an era; `total_…` count everything sealed up to and with it.

    The audit log's fields are None in the seals made before there was one.
    """

    number: int
    previous: bytes
    root: bytes
    head: bytes
    era: int
    from_xid: int
    to_xid: int
    transactions: int
    postings: int
    total_transactions: int
    total_postings: int
    sealed_at: datetime
    key_id: str
    signature: bytes
    audit_root: bytes | None = None
    audit_entries: int | None = None
    total_audit_entries: int | None = None

    @property
    def audited(self) -> tuple[bytes, int, int] | None:
        """The audit log's root, entries and total; None in a seal of the first form."""
        if self.audit_root is None or self.audit_entries is None or self.total_audit_entries is None:
            return None
        return self.audit_root, self.audit_entries, self.total_audit_entries

    def computed_head(self) -> bytes:
        """The head that the other fields hash to.

        SHA-256 over the version and the fields, each behind its length in four bytes, integers big-endian, the time
        as microseconds since 2000-01-01 UTC. The second version adds the audit log's root, entries and total.
        """
        audited = self.audited
        parts = (
            _HEAD_VERSION_1 if audited is None else _HEAD_VERSION_2,
            _LONG.pack(self.number),
            self.previous,
            self.root,
            _ERA.pack(self.era),
            _XID.pack(self.from_xid),
            _XID.pack(self.to_xid),
            _LONG.pack(self.transactions),
            _LONG.pack(self.postings),
            _LONG.pack(self.total_transactions),
            _LONG.pack(self.total_postings),
            _LONG.pack(microseconds(self.sealed_at)),
            self.key_id.encode(),
            *(() if audited is None else (audited[0], _LONG.pack(audited[1]), _LONG.pack(audited[2]))),
        )
        return sha256(b"".join(_LENGTH.pack(len(part)) + part for part in parts)).digest()

    def signature_holds(self, public_keys: Mapping[str, bytes]) -> bool:
        """Whether the key it names, if we have it and it is the one that the id stands for, signed the head."""
        public_key = public_keys.get(self.key_id)
        if public_key is None or key_id_of(public_key) != self.key_id:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, self.head)
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> dict[str, int | str]:
        """The published form: bytes in hexadecimal, the time in RFC 3339."""
        shown: dict[str, int | str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bytes):
                value = value.hex()
            elif isinstance(value, datetime):
                value = value.isoformat()
            shown[field.name] = value
        return shown

    @classmethod
    def from_json(cls, shown: Mapping[str, object]) -> "Seal":
        """Reads the published form. Raises SealError when it is not one."""
        try:
            return cls(
                **{
                    field.name: _field_from_json(field.type, shown[field.name])
                    for field in fields(cls)
                    if field.name in shown or field.default is MISSING
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SealError(f"not a published seal: {error}") from error


def _field_from_json(kind: object, value: object) -> Any:  # what the field holds: int, str, bytes or datetime
    if kind in (int, int | None):
        if type(value) is not int:
            raise TypeError("a whole number was expected")
        return value
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    if kind in (bytes, bytes | None):
        return bytes.fromhex(value)
    return datetime.fromisoformat(value) if kind is datetime else value


def entry_hash(era: int, xid: int, leaf: bytes) -> bytes:
    """The tree's leaf for a transaction or an audit entry: a version byte, its place (era in 2 bytes, xid in 8), its leaf."""
    return hash_leaf(_ENTRY.pack(_ENTRY_VERSION, era, xid, leaf))


def key_id_of(public_key: bytes) -> str:
    """The name of a key: the first 16 bytes of the SHA-256 of its 32 raw bytes, so that no other key can take it."""
    return sha256(public_key).hexdigest()[:32]


class SealingKey:
    """The private Ed25519 key that signs heads. It never shows itself in a representation."""

    __slots__ = ("_private", "key_id", "public_key")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = key_id_of(self.public_key)

    @classmethod
    def generate(cls) -> "SealingKey":
        """A new key from the system's source of randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> "SealingKey":
        """Loads a PKCS #8 PEM. Raises SealError when it is unreadable or holds another kind of key."""
        try:
            private = load_pem_private_key(pem, password)
        except (ValueError, TypeError) as error:
            raise SealError("the sealing key is not a readable PEM") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise SealError("the sealing key is not an Ed25519 key")
        return cls(private)

    def to_pem(self) -> bytes:
        """The unencrypted PKCS #8 PEM; whoever stores it guards it."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, head: bytes) -> bytes:
        """64 bytes of Ed25519 over the 32 bytes of a head."""
        return self._private.sign(head)

    def __repr__(self) -> str:
        return f"SealingKey({self.key_id})"


_COLUMNS = (
    "number, previous, root, head, era, CAST(from_xid AS text) AS from_xid, CAST(to_xid AS text) AS to_xid, transactions, postings, "
    "total_transactions, total_postings, sealed_at, key_id, signature, audit_root, audit_entries, total_audit_entries"
)


def seal(tx: Tx, key: SealingKey, clock: Clock, *, limit: int = SEAL_TRANSACTIONS_MAX) -> Seal | None:
    """Seals what has settled since the last seal: about `limit` transactions and entries, the last database transaction whole.

    None when nothing new has settled, or when another sealer is at work: it will have sealed the same. Call it in a
    transaction of its own as mizan_sealer, again until it answers None. What older eras left unsealed comes first,
    in seals of their own, as database transaction ids of two clusters cannot be compared.

    Raises SealError on a standby, and when the last seal does not hold: a broken chain is not continued.
    """
    if not 1 <= limit <= SEAL_TRANSACTIONS_MAX:
        raise ValueError(f"limit must lie between 1 and {SEAL_TRANSACTIONS_MAX}")
    standby, alone = tx.execute(
        text(
            "SELECT pg_is_in_recovery(), NOT pg_is_in_recovery() AND pg_try_advisory_xact_lock(:class, :id)"
        ),
        {"class": _ADVISORY_CLASS, "id": _ADVISORY_SEALER},
    ).one()
    if standby:
        raise SealError("this database is a standby: only the primary seals")
    if not alone:
        return None
    # A new statement, so that it sees what the sealer before us committed while holding the lock.
    last = newest(tx)
    if last is not None and (last.computed_head() != last.head or not last.signature_holds(public_keys(tx))):
        raise SealError(f"seal {last.number} does not hold: verify the ledger before sealing on")
    horizon = settled(tx)
    for era, from_xid in _unsealed_eras(tx, last, horizon.era):
        block = _read_block(tx, era, from_xid, horizon.xid if era == horizon.era else None, limit)
        if block is not None:
            return _append(tx, key, clock, last, block)
    return None


@dataclass(frozen=True, slots=True)
class _Block:
    era: int
    from_xid: int
    to_xid: int
    root: bytes
    transactions: int
    postings: int
    audit_root: bytes
    audit_entries: int


def _unsealed_eras(tx: Tx, last: Seal | None, current: int) -> list[tuple[int, int]]:
    """Where sealing goes on in each era, from the last sealed one to the current one."""
    first = last.era if last is not None else 0
    rows = tx.execute(
        text("SELECT era FROM ledger.era WHERE era BETWEEN :first AND :current ORDER BY era"),
        {"first": first, "current": current},
    )
    return [(era, last.to_xid if last is not None and era == last.era else 0) for (era,) in rows]


def _read_block(tx: Tx, era: int, from_xid: int, horizon: int | None, limit: int) -> _Block | None:
    """The trees over an era's transactions and audit entries from `from_xid`, up to the horizon; an ended era has none."""
    tree, audited = Tree(), Tree()
    postings = 0
    xid = -1
    cut = horizon is None
    journal = ((at, tree, leaf, count) for at, leaf, count in journal_entries(tx, era, from_xid, horizon))
    log = ((at, audited, leaf, 0) for at, leaf in audit_leaves(tx, era, from_xid, horizon))
    for next_xid, grown, leaf, count in heapq.merge(journal, log, key=itemgetter(0)):
        if tree.size + audited.size >= limit and next_xid != xid:
            cut = True
            break
        xid = next_xid
        grown.append(entry_hash(era, xid, leaf))
        postings += count
    if not tree.size and not audited.size:
        return None
    to_xid = xid + 1 if cut or horizon is None else horizon
    return _Block(era, from_xid, to_xid, tree.root(), tree.size, postings, audited.root(), audited.size)


def journal_entries(tx: Tx, era: int, from_xid: int, to_xid: int | None) -> Iterator[tuple[int, bytes, int]]:
    """(xid, leaf, number of postings) of an era's transactions in their order, streamed."""
    raw = cursor(tx).connection
    with raw.cursor(name="journal_entries", binary=True) as rows:
        rows.itersize = 10_000
        bound = "" if to_xid is None else " AND xid < %(to_xid)s::text::xid8"
        rows.execute(
            "SELECT xid, leaf, postings FROM ledger.transaction WHERE era = %(era)s"
            f" AND xid >= %(from_xid)s::text::xid8{bound} ORDER BY era, xid, id",
            {"era": era, "from_xid": str(from_xid), "to_xid": str(to_xid)},
        )
        for xid, leaf, postings in rows:
            # psycopg has no loader for xid8 and hands out its eight bytes.
            yield int.from_bytes(xid), leaf, postings


def audit_leaves(tx: Tx, era: int, from_xid: int, to_xid: int | None) -> Iterator[tuple[int, bytes]]:
    """(xid, leaf) of an era's audit entries in their order, streamed."""
    with cursor(tx).connection.cursor(name="audit_leaves", binary=True) as rows:
        rows.itersize = 10_000
        bound = "" if to_xid is None else " AND xid < %(to_xid)s::text::xid8"
        rows.execute(
            "SELECT xid, leaf FROM ledger.audit_entry WHERE era = %(era)s"
            f" AND xid >= %(from_xid)s::text::xid8{bound} ORDER BY era, xid, id",
            {"era": era, "from_xid": str(from_xid), "to_xid": str(to_xid)},
        )
        for xid, leaf in rows:
            yield int.from_bytes(xid), leaf


def _append(tx: Tx, key: SealingKey, clock: Clock, last: Seal | None, block: _Block) -> Seal | None:
    draft = Seal(
        number=last.number + 1 if last is not None else 1,
        previous=last.head if last is not None else GENESIS,
        root=block.root,
        head=b"",
        era=block.era,
        from_xid=block.from_xid,
        to_xid=block.to_xid,
        transactions=block.transactions,
        postings=block.postings,
        total_transactions=block.transactions + (last.total_transactions if last is not None else 0),
        total_postings=block.postings + (last.total_postings if last is not None else 0),
        sealed_at=clock.now(),
        key_id=key.key_id,
        signature=b"",
        audit_root=block.audit_root,
        audit_entries=block.audit_entries,
        total_audit_entries=block.audit_entries
        + ((last.total_audit_entries or 0) if last is not None else 0),
    )
    head = draft.computed_head()
    appended = replace(draft, head=head, signature=key.sign(head))
    tx.execute(
        text(
            "INSERT INTO ledger.seal_key (key_id, public_key, created_at) VALUES (:key_id, :public_key, :at)"
            " ON CONFLICT (key_id) DO NOTHING"
        ),
        {"key_id": key.key_id, "public_key": key.public_key, "at": appended.sealed_at},
    )
    # Two sealers without the lock between them (other settings, another schema copy) still cannot fork the chain:
    # number and previous are unique, and the later one finds its place taken.
    inserted = tx.execute(
        text(
            "INSERT INTO ledger.seal (number, previous, root, head, era, from_xid, to_xid, transactions, postings,"
            " total_transactions, total_postings, sealed_at, key_id, signature, audit_root, audit_entries,"
            " total_audit_entries) VALUES (:number, :previous, :root, :head, :era, CAST(CAST(:from_xid AS text) AS xid8),"
            " CAST(CAST(:to_xid AS text) AS xid8), :transactions, :postings, :total_transactions, :total_postings,"
            " :sealed_at, :key_id, :signature, :audit_root, :audit_entries, :total_audit_entries)"
            " ON CONFLICT DO NOTHING RETURNING number"
        ),
        asdict(appended) | {"from_xid": str(block.from_xid), "to_xid": str(block.to_xid)},
    ).first()
    return appended if inserted is not None else None


def _seal(row: Row[Any]) -> Seal:
    values = row._asdict()
    return Seal(**values | {"from_xid": int(values["from_xid"]), "to_xid": int(values["to_xid"])})


def newest(tx: Tx) -> Seal | None:
    """The last seal of the chain."""
    row = tx.execute(text(f"SELECT {_COLUMNS} FROM ledger.seal ORDER BY number DESC LIMIT 1")).first()
    return _seal(row) if row is not None else None


def seal_covering(tx: Tx, era: int, xid: int) -> Seal | None:
    """The seal whose range covers a place in the journal, if it is sealed."""
    row = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM ledger.seal WHERE era = :era AND from_xid <= CAST(CAST(:xid AS text) AS xid8)"
            " AND to_xid > CAST(CAST(:xid AS text) AS xid8) ORDER BY number DESC LIMIT 1"
        ),
        {"era": era, "xid": str(xid)},
    ).first()
    return _seal(row) if row is not None else None


def heads(tx: Tx, *, after: int = 0, limit: int = 1_000) -> list[Seal]:
    """The seals behind number `after`, oldest first: what is published and what a page of /v1/seals shows."""
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM ledger.seal WHERE number > :after ORDER BY number LIMIT :limit"),
        {"after": after, "limit": limit},
    )
    return [_seal(row) for row in rows]


def seals_numbered(tx: Tx, numbers: Sequence[int]) -> dict[int, Seal]:
    """The seals of these numbers that there are."""
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM ledger.seal WHERE number = ANY(:numbers)"), {"numbers": numbers}
    )
    return {row.number: _seal(row) for row in rows}


def latest_heads(tx: Tx, *, limit: int = 100) -> list[Seal]:
    """The newest seals, newest first."""
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM ledger.seal ORDER BY number DESC LIMIT :limit"), {"limit": limit}
    )
    return [_seal(row) for row in rows]


def public_keys(tx: Tx) -> dict[str, bytes]:
    """Every key that ever sealed, by id. Old ones stay for ever."""
    return {
        key_id: bytes(key)
        for key_id, key in tx.execute(text("SELECT key_id, public_key FROM ledger.seal_key"))
    }


def write_heads(tx: Tx, path: Path) -> int:
    """Appends the seals that the file does not have yet, one JSON object a line; answers how many.

    The file is the witness outside the database: it is only ever appended to. Raises SealError when its last line
    disagrees with the chain, which is the moment to run `verify` against it.
    """
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two who publish at once would each append the same lines
        after = 0
        published = _last_published(file)
        if published is not None:
            after = published.number
            if heads(tx, after=after - 1, limit=1) != [published]:
                raise SealError(f"seal {after} was published otherwise than it is stored now")
        written = 0
        while page := heads(tx, after=after):
            file.writelines(json.dumps(one.to_json(), separators=(",", ":")).encode() + b"\n" for one in page)
            after = page[-1].number
            written += len(page)
        file.flush()
        os.fsync(file.fileno())
    return written


def _last_published(file: BinaryIO) -> Seal | None:
    """The last whole line. A torn one (its writer was killed) is cut off: the seal itself is in the database."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    if len(whole) < len(tail):
        file.truncate(start + len(whole))
    lines = whole.splitlines()
    return _parse_line(lines[-1]) if lines else None


def read_heads(path: Path) -> Iterator[Seal]:
    """The seals of a published file, in its order. Raises SealError on a whole line that is not one."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _parse_line(line)


def _parse_line(line: bytes) -> Seal:
    try:
        shown = json.loads(line)
    except ValueError as error:
        raise SealError("a line of published seals is not JSON") from error
    if not isinstance(shown, dict):
        raise SealError("a line of published seals is not an object")
    return Seal.from_json(shown)
