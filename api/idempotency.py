"""Idempotency keys: a request that moves or promises money has one effect, however often it is sent.

The first answer is rendered and stored, sealed, in the same database transaction as its effect, so it is kept exactly
when the effect is. A repeat is authorised again, then gets that answer with ``Idempotency-Replayed: true``. Two requests
with one key at once: the second is told so, and waits for nobody.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Header, Request
from pydantic import BaseModel
from sqlalchemy import text
from starlette.responses import Response

from api.problems import MEDIA_TYPE, ProblemError
from integrations import strict_json
from ledger.database import Tx
from products.keyring import Keyring

KEPT: Final = timedelta(days=30)
PURPOSE: Final = "idempotent answer"

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="1 to 255 printable ASCII characters, new for each operation and the same for each of its retries",
        json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    ),
]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request with its key: who sends it, to which route, with which fingerprint."""

    client: bytes
    subject: str
    route: str
    key_digest: bytes
    fingerprint: bytes

    @property
    def lock(self) -> int:
        """The advisory lock's number, signed 64 bits."""
        parts = (self.client, self.subject.encode(), self.route.encode(), self.key_digest)
        digest = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def operation(request: Request, key: str | None, *, client: bytes, subject: str, route: str) -> Operation:
    """What the request asks for under its key. Raises the problem `idempotency_key_required`."""
    if key is None or not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise ProblemError(
            "idempotency_key_required", "Send an Idempotency-Key of 1 to 255 printable ASCII characters."
        )
    return Operation(client, subject, route, hashlib.sha256(key.encode()).digest(), _fingerprint(request))


def once(
    tx: Tx, keyring: Keyring, asked: Operation, at: datetime, effect: Callable[[], tuple[int, BaseModel]]
) -> Response:
    """The answer to `asked`: the stored one, or that of `effect`, which runs at most once per key.

    `effect` returns the status and the body; what it raises is neither stored nor kept.

    Raises:
        ProblemError: `idempotency_key_in_use` while the first request runs, `idempotency_key_reused` for another request.
    """
    if not tx.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": asked.lock}).scalar_one():
        raise ProblemError(
            "idempotency_key_in_use",
            "The first request with this key is still running.",
            headers={"Retry-After": "1"},
        )
    identity = {
        "client": asked.client,
        "subject": asked.subject,
        "route": asked.route,
        "key": asked.key_digest,
    }
    # a new statement after the lock, so that it sees what the lock's last holder committed
    stored = tx.execute(
        text(
            "SELECT fingerprint, status, sealed_body FROM api.idempotent_answer WHERE client_id = CAST(:client AS uuid)"
            " AND subject = :subject AND route = :route AND key_digest = :key"
        ),
        {**identity, "client": asked.client.hex()},
    ).one_or_none()
    if stored is not None:
        if bytes(stored.fingerprint) != asked.fingerprint:
            raise ProblemError(
                "idempotency_key_reused", "The key was used for a request with another address or body."
            )
        body = keyring.open(PURPOSE, bytes(stored.sealed_body), asked.key_digest)
        return _answer(stored.status, body, replayed=True)
    status, model = effect()
    body = model.model_dump_json().encode()
    tx.execute(
        text(
            "INSERT INTO api.idempotent_answer"
            " VALUES (CAST(:client AS uuid), :subject, :route, :key, :fingerprint, :status, :body, :at)"
        ),
        {
            **identity,
            "client": asked.client.hex(),
            "fingerprint": asked.fingerprint,
            "status": status,
            "body": keyring.seal(PURPOSE, body, asked.key_digest),
            "at": at,
        },
    )
    return _answer(status, body, replayed=False)


def purge(tx: Tx, now: datetime) -> int:
    """Forget answers older than 30 days (as the worker); returns how many."""
    return tx.execute(
        text("DELETE FROM api.idempotent_answer WHERE created_at < :before"), {"before": now - KEPT}
    ).rowcount


def _answer(status: int, body: bytes, *, replayed: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    media_type = MEDIA_TYPE if status >= HTTPStatus.BAD_REQUEST else "application/json"
    return Response(body, status, headers, media_type)


def _fingerprint(request: Request) -> bytes:
    """Method, address and canonical body: spacing and the order of keys make no other request. A file is its bytes."""
    body: bytes = request.scope["state"]["body"]
    address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    head = f"{request.method} {address}\n".encode()
    return hashlib.sha256(head + _canonical(body)).digest()


def _canonical(body: bytes) -> bytes:
    try:
        return json.dumps(strict_json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    except strict_json.NotStrictJson:
        return body
