"""Logging in through the provider: what is kept while the person is there, and whose session it becomes.

State and nonce count once and for ten minutes, in the browser that began alone. A subject of the provider's is an
operator once linked: the first time by the verified e-mail address of an operator who was admitted to log in this way,
and has set up by the one-time link. Nobody is created. Unless the provider is trusted to have asked for a second factor,
a code of Mizan's own authenticator completes the log-in; approving takes one in any case.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from api.auth import operators, sessions, totp, tries
from api.auth.oidc import Identity
from api.auth.operators import Operator, digest
from api.auth.sessions import Lifetimes, LogInRefused, Opened
from ledger.database import Database, Tx
from ledger.errors import InvalidInput
from ledger.ids import new_id
from products.keyring import Keyring

PURPOSE: Final = "openid-verifier"
"""The keyring's purpose under which PKCE verifiers are sealed, bound to the log-in's id."""
LIFETIME: Final = timedelta(minutes=10)
CLEARED_TOGETHER_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Begun:
    """What a log-in is sent out with; `browser` stays in the cookie of the one that began."""

    state: str
    nonce: str
    verifier: str
    browser: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A log-in that came back, once."""

    id: UUID
    verifier: str
    nonce_digest: bytes


def begin(tx: Tx, keyring: Keyring, now: datetime) -> Begun:
    """Begin a log-in."""
    tx.execute(
        text(
            "DELETE FROM api.openid_log_in WHERE id IN (SELECT id FROM api.openid_log_in WHERE expires_at < :now"
            " LIMIT :limit FOR UPDATE SKIP LOCKED)"
        ),
        {"now": now, "limit": CLEARED_TOGETHER_MAX},
    )
    begun = Begun(*(secrets.token_urlsafe(32) for _ in range(4)))
    row = new_id()
    tx.execute(
        text(
            "INSERT INTO api.openid_log_in (id, state_digest, browser_digest, nonce_digest, verifier_sealed, created_at,"
            " expires_at) VALUES (:id, :state, :browser, :nonce, :verifier, :now, :expires)"
        ),
        {
            "id": row,
            "state": digest(begun.state),
            "browser": digest(begun.browser),
            "nonce": digest(begun.nonce),
            "verifier": keyring.seal(PURPOSE, begun.verifier.encode(), row.bytes),
            "now": now,
            "expires": now + LIFETIME,
        },
    )
    return begun


def take_back(tx: Tx, keyring: Keyring, state: str, browser: str, now: datetime) -> Returned:
    """The log-in of a state, in the browser that began it, once. Commit before the code is used. Raises LogInRefused."""
    row = tx.execute(
        text(
            "UPDATE api.openid_log_in SET returned_at = :now WHERE state_digest = :state AND browser_digest = :browser"
            " AND returned_at IS NULL AND expires_at > :now RETURNING id, verifier_sealed, nonce_digest"
        ),
        {"state": digest(state), "browser": digest(browser), "now": now},
    ).one_or_none()
    if row is None:
        raise LogInRefused(None, "state")
    verifier = keyring.open(PURPOSE, bytes(row.verifier_sealed), row.id.bytes).decode()
    return Returned(row.id, verifier, bytes(row.nonce_digest))


def recognise(
    tx: Tx,
    returned: Returned,
    identity: Identity,
    *,
    address: str,
    now: datetime,
    lifetimes: Lifetimes,
    opened: Callable[[Tx, Opened], None],
) -> Opened | None:
    """Open the session of the operator that this is, or wait (None) for a code of theirs. Raises LogInRefused."""
    operator = _whose(tx, identity)
    if identity.second_factor:
        return _open(tx, returned.id, operator, identity, address, now, lifetimes, opened, confirmed=False)
    tx.execute(
        text("UPDATE api.openid_log_in SET operator_id = :operator, subject = :subject WHERE id = :id"),
        {"operator": operator.id, "subject": identity.subject, "id": returned.id},
    )
    return None


def complete(
    database: Database,
    keyring: Keyring,
    issuer: str,
    browser: str,
    code: str,
    *,
    address: str,
    now: datetime,
    lifetimes: Lifetimes,
    opened: Callable[[Tx, Opened], None],
) -> Opened:
    """Complete a log-in with a code of the authenticator, in the browser that began it. Raises LogInRefused."""

    def waiting(tx: Tx) -> tuple[UUID, UUID, str]:
        row = tx.execute(
            text(
                "SELECT id, operator_id, subject FROM api.openid_log_in WHERE browser_digest = :browser"
                " AND operator_id IS NOT NULL AND ended_at IS NULL AND expires_at > :now"
            ),
            {"browser": digest(browser), "now": now},
        ).one_or_none()
        if row is None:
            raise LogInRefused(None, "state")
        if not tries.begin(tx, tries.of_account(str(row.operator_id), "provider"), now):
            raise LogInRefused(row.operator_id, "closed")
        return row.id, row.operator_id, row.subject

    log_in, operator_id, subject = database.run(waiting)

    def finish(tx: Tx) -> Opened:
        identity = Identity(issuer, subject, None, second_factor=False)
        operator = operators.find(tx, operator_id)
        if not totp.take(tx, keyring, operator_id, code, now):
            raise LogInRefused(operator_id, "second factor")
        tries.clear(tx, tries.of_account(str(operator_id), "provider"))
        return _open(tx, log_in, operator, identity, address, now, lifetimes, opened, confirmed=True)

    return database.run(finish)


def _whose(tx: Tx, identity: Identity) -> Operator:
    """The operator that a subject is linked to or, the first time, whose address the provider has verified."""
    linked: UUID | None = tx.execute(
        text("SELECT operator_id FROM api.operator_identity WHERE issuer = :issuer AND subject = :subject"),
        {"issuer": identity.issuer, "subject": identity.subject},
    ).scalar_one_or_none()
    if linked is not None:
        return operators.find(tx, linked)
    if identity.verified_email is None:
        raise LogInRefused(None, "unknown")
    try:
        operator = operators.by_email(tx, identity.verified_email)
    except InvalidInput:
        operator = None
    if operator is None or operator.log_in != "openid" or not operator.set_up:
        raise LogInRefused(operator.id if operator else None, "not admitted")
    return operator


def _open(
    tx: Tx,
    log_in: UUID,
    operator: Operator,
    identity: Identity,
    address: str,
    now: datetime,
    lifetimes: Lifetimes,
    opened: Callable[[Tx, Opened], None],
    *,
    confirmed: bool,
) -> Opened:
    if not sessions.stays_active(tx, operator.id):
        raise LogInRefused(operator.id, "disabled")
    ended = tx.execute(
        text("UPDATE api.openid_log_in SET ended_at = :now WHERE id = :id AND ended_at IS NULL"),
        {"now": now, "id": log_in},
    ).rowcount
    tx.execute(
        text(
            "INSERT INTO api.operator_identity (issuer, subject, operator_id, linked_at)"
            " VALUES (:issuer, :subject, :operator, :now) ON CONFLICT DO NOTHING"
        ),
        {"issuer": identity.issuer, "subject": identity.subject, "operator": operator.id, "now": now},
    )
    # an operator is one subject for ever: another one with the same address, or linked meanwhile, is refused
    linked = tx.execute(
        text(
            "SELECT 1 FROM api.operator_identity WHERE issuer = :issuer AND subject = :subject AND operator_id = :id"
        ),
        {"issuer": identity.issuer, "subject": identity.subject, "id": operator.id},
    ).first()
    if not ended or linked is None:
        raise LogInRefused(operator.id, "another subject")
    session = sessions.open_session(
        tx, operator, address=address, now=now, lifetimes=lifetimes, confirmed=confirmed
    )
    opened(tx, session)
    return session
