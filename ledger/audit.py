"""The audit log: who did what, when and from where, with what it was before and after. It only grows, and seals cover it.

An entry holds no personal data in the clear: the values before and after come here sealed by the caller, under keys
that it destroys when their time is over. The leaf covers digests of the sealed bytes, so the log still verifies when
nobody can read them any more. `detail` is in the clear and covered by the leaf: codes, ids and counts only.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from struct import Struct
from typing import Any, Final, Literal
from uuid import UUID

from psycopg.rows import class_row

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.horizon import AFTER, SETTLED, Position
from ledger.ids import new_id
from ledger.leaves import SALT_BYTES, canonical_details, microseconds

Outcome = Literal["done", "refused"]

TEXT_CHARACTERS_MAX: Final = 200
"""Longest actor, action, object, address or request id."""
DETAIL_BYTES_MAX: Final = 4_096
VALUE_BYTES_MAX: Final = 1_048_576
"""Longest sealed value: a programme's source with room to spare."""

_LEAF_PREFIX: Final = b"\x00mizan-audit-1"
_LENGTH: Final = Struct(">i")
_LONG: Final = Struct(">q")
_NULL: Final = _LENGTH.pack(-1)


class InvalidAct(InvalidInput):
    """An act that the audit log can't take: a text too long or empty, a value too large, a detail without one spelling."""

    code = "invalid_act"


@dataclass(frozen=True, slots=True)
class Act:
    """Something that was done, or refused.

    ``actor`` is a public id (``opr_…``, ``cli_…``, ``mem_…``) or, on the command line, who runs it; ``kind`` says which:
    operator, staff, partner, member, cli or system. ``action`` is dotted and in the past (``period.reopened``),
    ``object`` the public id or code of what it was done to. ``before`` and ``after`` are sealed by the caller.
    ``programme_id`` is the programme that it belongs to, where there is one: auditors of one programme see only that.
    """

    actor: str
    kind: str
    action: str
    object: str
    outcome: Outcome
    address: str | None = None
    request_id: str | None = None
    before: bytes | None = None
    after: bytes | None = None
    detail: Mapping[str, Any] | None = None
    programme_id: UUID | None = None
    id: UUID = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it is stored; ``xid`` places it before the settled horizon."""

    id: UUID
    actor_kind: str
    actor: str
    action: str
    object: str
    outcome: Outcome
    address: str | None
    request_id: str | None
    programme_id: UUID | None
    before: bytes | None
    after: bytes | None
    before_digest: bytes | None
    after_digest: bytes | None
    detail: dict[str, Any] | None
    recorded_at: datetime
    salt: bytes
    leaf: bytes
    era: int
    xid: int

    def computed_leaf(self) -> bytes:
        """The leaf that the other fields hash to. Raises `TypeError` for a detail that could never have been recorded."""
        return _leaf(
            self.id,
            (
                self.actor_kind,
                self.actor,
                self.action,
                self.object,
                self.outcome,
                self.address,
                self.request_id,
            ),
            self.programme_id,
            self.before_digest,
            self.after_digest,
            canonical_details(self.detail),
            self.recorded_at,
            self.salt,
        )

    @property
    def values_hold(self) -> bool:
        """Whether the sealed values are those whose digests the leaf covers."""
        return (_digest(self.before), _digest(self.after)) == (self.before_digest, self.after_digest)

    @property
    def position(self) -> Position:
        """Its place in the log's order."""
        return Position(self.era, self.xid, self.id)


def record(tx: Tx, act: Act, clock: Clock) -> UUID:
    """Write an act into the log, in the transaction that does it; what was refused, in a transaction of its own.

    Raises `InvalidAct`.
    """
    texts = (act.kind, act.actor, act.action, act.object, act.outcome, act.address, act.request_id)
    if any(one is not None and not 0 < len(one) <= TEXT_CHARACTERS_MAX for one in texts):
        raise InvalidAct(f"the texts of an act have 1 to {TEXT_CHARACTERS_MAX} characters")
    if any(one is not None and len(one) > VALUE_BYTES_MAX for one in (act.before, act.after)):
        raise InvalidAct(f"a value of an act has at most {VALUE_BYTES_MAX} bytes")
    try:
        detail = canonical_details(act.detail)
    except TypeError as error:
        raise InvalidAct(str(error)) from error
    if detail is not None and len(detail) > DETAIL_BYTES_MAX:
        raise InvalidAct(f"the detail of an act has at most {DETAIL_BYTES_MAX} bytes")
    salt, at = os.urandom(SALT_BYTES), clock.now()
    before, after = _digest(act.before), _digest(act.after)
    leaf = _leaf(act.id, texts, act.programme_id, before, after, detail, at, salt)
    cursor(tx).execute(
        """INSERT INTO ledger.audit_entry (id, actor_kind, actor, action, object, outcome, address, request_id,
               programme_id, before, after, before_digest, after_digest, detail, recorded_at, salt, leaf)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %b, %b, %b, %b, %s::text::jsonb, %s, %b, %b)""",
        (
            act.id,
            *texts,
            act.programme_id,
            act.before,
            act.after,
            before,
            after,
            detail.decode() if detail is not None else None,
            at,
            salt,
            leaf,
        ),
    )
    return act.id


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for; None leaves a thing open. ``since`` is inclusive, ``until`` is not."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


_COLUMNS: Final = (
    "id, actor_kind, actor, action, object, outcome, address, request_id, programme_id, before, after, before_digest,"
    " after_digest, detail, recorded_at, salt, leaf, era, CAST(CAST(xid AS text) AS bigint) AS xid"
)


def entries(tx: Tx, wanted: Wanted, *, after: Position | None = None, limit: int) -> list[Entry]:
    """Entries behind the settled horizon in their order, from ``after`` on: nothing appears behind a cursor later.

    ``action`` also finds what it is the beginning of: ``period`` finds ``period.closed``.
    """
    given: list[tuple[str, dict[str, object]]] = [
        ("actor = %(actor)s", {"actor": wanted.actor}),
        ("(action = %(action)s OR starts_with(action, %(action)s || '.'))", {"action": wanted.action}),
        ("object = %(object)s", {"object": wanted.object}),
        ("outcome = %(outcome)s", {"outcome": wanted.outcome}),
        ("recorded_at >= %(since)s", {"since": wanted.since}),
        ("recorded_at < %(until)s", {"until": wanted.until}),
        (AFTER, {} if after is None else dict(after.parameters)),
    ]
    conditions = [SETTLED]
    parameters: dict[str, object] = {"limit": limit}
    for condition, values in given:
        if values and all(value is not None for value in values.values()):
            conditions.append(condition)
            parameters |= values
    with cursor(tx).connection.cursor(row_factory=class_row(Entry)) as rows:
        rows.execute(
            f"SELECT {_COLUMNS} FROM ledger.audit_entry WHERE {' AND '.join(conditions)}"
            " ORDER BY era, xid, id LIMIT %(limit)s",
            parameters,
        )
        return rows.fetchall()


def entry(tx: Tx, entry_id: UUID) -> Entry:
    """One entry. Raises `NotFound`."""
    with cursor(tx).connection.cursor(row_factory=class_row(Entry)) as rows:
        found = rows.execute(
            f"SELECT {_COLUMNS} FROM ledger.audit_entry WHERE id = %s", (entry_id,)
        ).fetchone()
    if found is None:
        raise NotFound("there is no such entry of the audit log")
    return found


def stream(tx: Tx) -> Iterator[Entry]:
    """Every entry in the log's order (era, xid, id), in bounded memory: what verification replays."""
    with cursor(tx).connection.cursor(name="audit_entries", row_factory=class_row(Entry)) as rows:
        rows.itersize = 2_000
        rows.execute(f"SELECT {_COLUMNS} FROM ledger.audit_entry ORDER BY era, audit_entry.xid, id")
        yield from rows


def _leaf(
    entry_id: UUID,
    texts: Sequence[str | None],
    programme_id: UUID | None,
    before_digest: bytes | None,
    after_digest: bytes | None,
    detail: bytes | None,
    recorded_at: datetime,
    salt: bytes,
) -> bytes:
    """SHA-256 over the prefix and the fields, each behind its length in four bytes (−1: null)."""
    fields = (
        entry_id.bytes,
        *(None if one is None else one.encode() for one in texts),
        None if programme_id is None else programme_id.bytes,
        before_digest,
        after_digest,
        detail,
        _LONG.pack(microseconds(recorded_at)),
        salt,
    )
    return sha256(
        _LEAF_PREFIX + b"".join(_NULL if one is None else _LENGTH.pack(len(one)) + one for one in fields)
    ).digest()


def _digest(value: bytes | None) -> bytes | None:
    return None if value is None else sha256(value).digest()
