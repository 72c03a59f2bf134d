"""Writing into the audit log from the edge: who calls and from where, and the values before and after, sealed.

What is audited, and how:

* whatever an operator or a staff client changes: by name, where the route says `Call.audit`, and in any case by the
  route's own operation id, so that nothing is done without an entry;
* whatever an operator or a staff client is refused, and whatever anybody is refused for want of a scope, in a
  transaction of its own, so that the entry outlives the rollback;
* each look of an operator at a member;
* every command that changes something, as ``cli``.

Values before and after are sealed under a key of the day, which is destroyed when its time is over; the log keeps and
seals their digests. A member's personal data does not go into them at all: fields are named, their contents are not.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import text

from ledger import audit
from ledger.audit import Act, Entry, Outcome
from ledger.database import Tx
from ledger.errors import Conflict, MizanError
from ledger.ids import new_id
from products.keyring import Keyring

if TYPE_CHECKING:
    from api.bootstrap import Services
    from api.deps import Call

KEY_LIFETIME: Final = timedelta(days=1)
RETENTION: Final = timedelta(days=90)
"""How long values can be read after they were written, and what a request asks for likewise."""
KEY_PURPOSE: Final = "audit-key"
"""The keyring's purpose under which `api.audit_key.wrapped` is sealed, bound to the key's id."""

_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 16
_LOCK_CLASS, _LOCK_NEW_KEY = 0x4D5B, 2
_CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_WATCHED: Final = frozenset({"operator", "staff"})

Value = Mapping[str, Any]
"""What something was: codes, ids, amounts, times as texts. No personal data."""


class ValueDestroyed(Conflict):
    """The key of a value was destroyed when its time was over, or the bytes are not what was sealed here."""

    code = "value_destroyed"


def seal(tx: Tx, keyring: Keyring, now: datetime, value: object, context: bytes) -> bytes:
    """A JSON value under the key of the day: the key's id, a nonce, and the ciphertext bound to `context`."""
    key_id, aead = _key_of_the_day(tx, keyring, now)
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
    return key_id.bytes + nonce + aead.encrypt(nonce, plain, context)


def unseal(tx: Tx, keyring: Keyring, sealed: bytes, context: bytes) -> Any:  # JSON
    """What `seal` sealed for the same context. Raises `ValueDestroyed`."""
    key_id = UUID(bytes=sealed[:_ID_BYTES])
    wrapped = tx.execute(text("SELECT wrapped FROM api.audit_key WHERE id = :id"), {"id": key_id}).scalar()
    if wrapped is None:
        raise ValueDestroyed("The key of this value was destroyed when its time was over.")
    body = _ID_BYTES + _NONCE_BYTES
    try:
        plain = _opened(keyring, key_id, wrapped).decrypt(sealed[_ID_BYTES:body], sealed[body:], context)
    except InvalidTag:
        raise ValueDestroyed("The stored value does not open as this entry's.") from None
    return json.loads(plain)


def values(
    tx: Tx, keyring: Keyring, entries: Iterable[Entry]
) -> dict[UUID, tuple[Value | None, Value | None]]:
    """Before and after of entries, by id; None where there was none or its key is destroyed."""
    opened: dict[UUID, tuple[Value | None, Value | None]] = {}
    for entry in entries:
        before, after = (
            _readable(tx, keyring, sealed, entry.id.bytes + side)
            for sealed, side in ((entry.before, b"before"), (entry.after, b"after"))
        )
        opened[entry.id] = (before, after)
    return opened


def _readable(tx: Tx, keyring: Keyring, sealed: bytes | None, context: bytes) -> Value | None:
    if sealed is None:
        return None
    try:
        found: Value = unseal(tx, keyring, sealed, context)
    except ValueDestroyed:
        return None
    return found


def destroy_keys(tx: Tx, now: datetime, *, retention: timedelta = RETENTION) -> int:
    """Destroy the keys whose values are older than `retention`; how many. As the worker."""
    return tx.execute(
        text(
            "UPDATE api.audit_key SET wrapped = NULL, destroyed_at = :now"
            " WHERE destroyed_at IS NULL AND created_at < :before"
        ),
        {"now": now, "before": now - retention - KEY_LIFETIME},
    ).rowcount


def write(
    tx: Tx,
    services: "Services",
    act: Act,
    *,
    before: Value | None = None,
    after: Value | None = None,
) -> UUID:
    """Record an act with its values, which are sealed here."""
    now = services.clock.now()

    def sealed(value: Value | None, side: bytes) -> bytes | None:
        if value is None:
            return None
        return seal(tx, services.keyring, now, value, act.id.bytes + side)

    complete = Act(
        actor=act.actor,
        kind=act.kind,
        action=act.action,
        object=act.object,
        outcome=act.outcome,
        address=act.address,
        request_id=act.request_id,
        before=sealed(before, b"before"),
        after=sealed(after, b"after"),
        detail=act.detail,
        programme_id=act.programme_id,
        id=act.id,
    )
    return audit.record(tx, complete, services.clock)


def note(
    call: "Call",
    action: str,
    object_: str,
    *,
    before: Value | None = None,
    after: Value | None = None,
    programme_id: UUID | None = None,
    **detail: object,
) -> None:
    """Record what a request has done, in its own transaction: what `Call.audit` does."""
    act = _act(call, action, object_, "done", detail, programme_id)
    write(call.tx, call.services, act, before=before, after=after)
    call.request.state.audited = True


def refused(services: "Services", act: Act) -> None:
    """Record what was refused, in a transaction of its own."""
    services.api.run(lambda tx: audit.record(tx, act, services.clock))


def note_refusal(call: "Call", error: MizanError) -> None:
    """Record that a request was refused, once its transaction is over; for whom it matters."""
    if call.actor.kind not in _WATCHED and error.code != "insufficient_scope":
        return
    if call.request.method not in _CHANGES and error.code != "insufficient_scope":
        return
    act = _act(call, _operation(call), _object(call), "refused", {"code": error.code})
    refused(call.services, act)


def note_unnamed(call: "Call") -> None:
    """Record what an operator or a staff client changed under the route's own name, unless the route named it."""
    if call.actor.kind not in _WATCHED or getattr(call.request.state, "audited", False):
        return
    looked_at_a_member = call.actor.kind == "operator" and "member" in call.request.path_params
    if call.request.method in _CHANGES or looked_at_a_member:
        note(call, _operation(call), _object(call))


def _act(
    call: "Call",
    action: str,
    object_: str,
    outcome: Outcome,
    detail: Mapping[str, object],
    programme_id: UUID | None = None,
) -> Act:
    state = call.request.scope.get("state", {})
    return Act(
        actor=call.actor.id,
        kind=call.actor.kind,
        action=action,
        object=object_[: audit.TEXT_CHARACTERS_MAX],
        outcome=outcome,
        # where a member is, is the member's own: it could not be erased from here
        address=None if call.actor.kind == "member" else call.address,
        request_id=state.get("request_id") or None,
        detail=dict(detail) or None,
        programme_id=programme_id,
    )


def _operation(call: "Call") -> str:
    return str(call.request.scope["route"].operation_id)


def _object(call: "Call") -> str:
    """What the route says that it is about, the ids in the path, or the path where there are none: never what stands in a query."""
    named: str | None = getattr(call.request.state, "audit_object", None)
    if named is not None:
        return named
    return "/".join(map(str, call.request.path_params.values())) or call.request.url.path


def _key_of_the_day(tx: Tx, keyring: Keyring, now: datetime) -> tuple[UUID, AESGCM]:
    newest = text(
        "SELECT id, wrapped FROM api.audit_key WHERE created_at > :since AND destroyed_at IS NULL"
        " ORDER BY created_at DESC LIMIT 1"
    )
    since = {"since": now - KEY_LIFETIME}
    found = tx.execute(newest, since).one_or_none()
    if found is None:
        tx.execute(
            text("SELECT pg_advisory_xact_lock(:class, :id)"), {"class": _LOCK_CLASS, "id": _LOCK_NEW_KEY}
        )
        # a new statement, which sees the key that the lock's last holder made
        found = tx.execute(newest, since).one_or_none()
    if found is None:
        key_id = new_id()
        wrapped = keyring.seal(KEY_PURPOSE, AESGCM.generate_key(256), key_id.bytes)
        tx.execute(
            text("INSERT INTO api.audit_key (id, wrapped, created_at) VALUES (:id, :wrapped, :at)"),
            {"id": key_id, "wrapped": wrapped, "at": now},
        )
        return key_id, _opened(keyring, key_id, wrapped)
    return found.id, _opened(keyring, found.id, found.wrapped)


def _opened(keyring: Keyring, key_id: UUID, wrapped: bytes) -> AESGCM:
    return AESGCM(keyring.open(KEY_PURPOSE, bytes(wrapped), key_id.bytes))
