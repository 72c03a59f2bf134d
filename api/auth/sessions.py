"""Logging in, and what a session can do for itself: confirm, change its person's proofs, end.

A log-in is three transactions: the try is counted and committed; password and code are judged, the hash outside of any;
then the session is opened, if in the meantime nobody disabled the operator or changed the password. Whatever is wrong,
the answer is the same one after the same work: the unknown, the locked out and the disabled are judged like everyone.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import text

from api.auth import operators, passwords, totp, tries
from api.auth.operators import LogIn, Operator
from ledger.database import Database, Tx
from ledger.errors import InvalidInput, MizanError, NotFound
from ledger.ids import new_id, public_id
from products.keyring import Keyring

PREFIX: Final = "ses"
KNOWN_FOR: Final = timedelta(days=30)
"""How long an address stays known from which a person has logged in."""
KEPT_FOR: Final = timedelta(days=90)
ENROLMENT_LIFETIME: Final = timedelta(minutes=15)
CLEARED_TOGETHER_MAX: Final = 1_000

T = TypeVar("T")


class LogInRefused(MizanError):
    """The log-in is refused; nobody outside is told why. `operator` and `reason` are for the audit log."""

    code = "log_in_refused"

    def __init__(self, operator: UUID | None, reason: str) -> None:
        super().__init__("The e-mail address, the password or the code is not right.")
        self.operator = operator
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a session lives: unused, and at most."""

    idle: timedelta
    absolute: timedelta


@dataclass(frozen=True, slots=True)
class Proof:
    """What a person gives: a password, and a code of the authenticator or one of the recovery codes."""

    password: str
    totp: str | None = None
    recovery_code: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session just opened; its token is shown once and stored nowhere."""

    session_id: UUID
    operator: Operator
    token: str
    expires_at: datetime
    recovery_codes_left: int


@dataclass(frozen=True, slots=True)
class SessionShown:
    """A session, for its person and for administrators."""

    id: UUID
    operator_id: UUID
    address: str | None
    created_at: datetime
    seen_at: datetime
    expires_at: datetime

    @property
    def public_id(self) -> str:
        """``ses_…``."""
        return public_id(PREFIX, self.id)


@dataclass(frozen=True, slots=True)
class _Account:
    """What is stored of the person that an e-mail address names."""

    operator: UUID
    log_in: LogIn
    password_hash: str | None


def log_in(
    database: Database,
    keyring: Keyring,
    email: str,
    proof: Proof,
    *,
    address: str,
    now: datetime,
    lifetimes: Lifetimes,
    opened: Callable[[Tx, Opened], None],
) -> Opened:
    """Open a session with password and second factor; `opened` runs in the transaction that opens it.

    Raises LogInRefused, and Unavailable when too many log in at this moment.
    """
    try:
        folded = operators.fold_email(email)
    except InvalidInput:
        folded = ""
    account, subjects = database.run(lambda tx: _begin(tx, folded, address, now))
    stored = account.password_hash if account is not None and account.log_in == "password" else None
    fits = passwords.verify(stored, proof.password)
    operator = account.operator if account is not None else None
    if subjects is None:
        raise LogInRefused(operator, "closed")
    if account is None or not fits:
        raise LogInRefused(operator, "password" if account is not None else "unknown")
    renewed = _renewed(stored, proof.password)
    return database.run(
        lambda tx: _finish(tx, keyring, account, proof, renewed, subjects, address, now, lifetimes, opened)
    )


def _begin(
    tx: Tx, email: str, address: str, now: datetime
) -> tuple[_Account | None, tuple[tries.Subject, tries.Subject] | None]:
    """Count the try, and read the account; without subjects when one of them is closed."""
    row = tx.execute(
        text(
            "SELECT o.id, o.log_in, c.password_hash,"
            " EXISTS (SELECT 1 FROM api.operator_session s WHERE s.operator_id = o.id AND s.address = :address"
            "  AND s.created_at > :since) AS known"
            " FROM api.operator o LEFT JOIN api.operator_credential c ON c.operator_id = o.id WHERE o.email = :email"
        ),
        {"email": email, "address": address, "since": now - KNOWN_FOR},
    ).one_or_none()
    account = _Account(row.id, row.log_in, row.password_hash) if row is not None else None
    of_address = tries.of_address(address)
    of_account = tries.of_account(email, address if row is not None and row.known else None)
    # the address first: what comes from one that is closed doesn't count against the account
    if tries.begin(tx, of_address, now) and tries.begin(tx, of_account, now):
        return account, (of_address, of_account)
    return account, None


def _finish(
    tx: Tx,
    keyring: Keyring,
    account: _Account,
    proof: Proof,
    renewed: str | None,
    subjects: tuple[tries.Subject, tries.Subject],
    address: str,
    now: datetime,
    lifetimes: Lifetimes,
    opened: Callable[[Tx, Opened], None],
) -> Opened:
    if not stays_active(tx, account.operator) or not _still(tx, account):
        raise LogInRefused(account.operator, "disabled")
    operator = operators.find(tx, account.operator)
    if not _second_factor(tx, keyring, account.operator, proof, now):
        raise LogInRefused(account.operator, "second factor")
    if renewed is not None:
        tx.execute(
            text("UPDATE api.operator_credential SET password_hash = :hash WHERE operator_id = :id"),
            {"hash": renewed, "id": account.operator},
        )
    of_address, of_account = subjects
    tries.take_back(tx, of_address, now)
    tries.clear(tx, of_account)
    session = open_session(
        tx, operator, address=address, now=now, lifetimes=lifetimes, confirmed=proof.totp is not None
    )
    opened(tx, session)
    return session


def open_session(
    tx: Tx, operator: Operator, *, address: str, now: datetime, lifetimes: Lifetimes, confirmed: bool
) -> Opened:
    """Open a session of an operator who has proved themselves; `confirmed` when a TOTP of ours was part of that."""
    _clear(tx, now)
    token = operators.TOKEN_PREFIX + secrets.token_urlsafe(32)
    session = new_id()
    tx.execute(
        text(
            "INSERT INTO api.operator_session (id, operator_id, digest, address, created_at, seen_at, idle_seconds,"
            " expires_at, confirmed_at) VALUES (:id, :operator, :digest, :address, :now, :now, :idle, :expires, :confirmed)"
        ),
        {
            "id": session,
            "operator": operator.id,
            "digest": operators.digest(token),
            "address": address,
            "now": now,
            "idle": int(lifetimes.idle.total_seconds()),
            "expires": now + lifetimes.absolute,
            "confirmed": now if confirmed else None,
        },
    )
    left = totp.recovery_codes_left(tx, operator.id)
    return Opened(session, operator, token, now + lifetimes.absolute, left)


def prove(
    database: Database,
    keyring: Keyring,
    operator: UUID,
    proof: Proof,
    now: datetime,
    then: Callable[[Tx, Operator], T],
) -> T:
    """Do something that takes both proofs of a person who is logged in; one without a password gives the code only.

    Tries are counted as at the log-in, by operator. Raises LogInRefused.
    """
    subject = _own_subject(operator)

    def begin(tx: Tx) -> tuple[bool, str | None, LogIn]:
        row = tx.execute(
            text(
                "SELECT o.log_in, c.password_hash FROM api.operator o JOIN api.operator_credential c"
                " ON c.operator_id = o.id WHERE o.id = :id"
            ),
            {"id": operator},
        ).one_or_none()
        if row is None:
            raise LogInRefused(operator, "not set up")
        return tries.begin(tx, subject, now), row.password_hash, row.log_in

    counted, stored, way = database.run(begin)
    fits = way == "openid" or passwords.verify(stored, proof.password)
    if not counted or not fits:
        raise LogInRefused(operator, "password" if counted else "closed")
    account = _Account(operator, way, stored)

    def finish(tx: Tx) -> T:
        if not stays_active(tx, operator) or not _still(tx, account):
            raise LogInRefused(operator, "disabled")
        if not _second_factor(tx, keyring, operator, proof, now):
            raise LogInRefused(operator, "second factor")
        tries.clear(tx, subject)
        return then(tx, operators.find(tx, operator))

    return database.run(finish)


def confirm(
    database: Database, keyring: Keyring, session: UUID, operator: UUID, code: str, now: datetime
) -> None:
    """Note that the person of a session gave a code just now. Raises LogInRefused."""
    subject = _own_subject(operator)
    if not database.run(lambda tx: tries.begin(tx, subject, now)):
        raise LogInRefused(operator, "closed")

    def finish(tx: Tx) -> None:
        if not totp.take(tx, keyring, operator, code, now):
            raise LogInRefused(operator, "second factor")
        tries.clear(tx, subject)
        tx.execute(
            text(
                "UPDATE api.operator_session SET confirmed_at = :now, seen_at = :now WHERE id = :id AND ended_at IS NULL"
            ),
            {"now": now, "id": session},
        )

    database.run(finish)


def change_password(tx: Tx, operator: Operator, hashed: str, session: UUID, now: datetime) -> None:
    """Store another password (`passwords.hashed`) and end the person's other sessions."""
    tx.execute(
        text(
            "UPDATE api.operator_credential SET password_hash = :hash, changed_at = :now WHERE operator_id = :id"
        ),
        {"hash": hashed, "now": now, "id": operator.id},
    )
    operators.end_sessions(tx, operator.id, now, but=session)


def begin_totp(tx: Tx, keyring: Keyring, operator: Operator, now: datetime) -> str:
    """A new secret for the person's authenticator, in force once a code of it is given within 15 minutes."""
    secret = totp.new_secret()
    tx.execute(
        text(
            "UPDATE api.operator_credential SET totp_next_sealed = :sealed, totp_next_until = :until WHERE operator_id = :id"
        ),
        {
            "sealed": totp.seal(keyring, secret, operator.id),
            "until": now + ENROLMENT_LIFETIME,
            "id": operator.id,
        },
    )
    return secret


def finish_totp(
    tx: Tx, keyring: Keyring, operator: UUID, code: str, session: UUID, now: datetime
) -> list[str]:
    """Put the new secret in force with a code of it; ends the person's other sessions and gives new recovery codes.

    Raises InvalidInput for a wrong code, NotFound when no secret waits.
    """
    row = tx.execute(
        text(
            "SELECT totp_next_sealed FROM api.operator_credential WHERE operator_id = :id AND totp_next_until > :now"
            " FOR UPDATE"
        ),
        {"id": operator, "now": now},
    ).one_or_none()
    if row is None:
        raise NotFound("No new authenticator is waiting.")
    step = totp.step_of(totp.unseal(keyring, row.totp_next_sealed, operator), code, now)
    if step is None:
        raise InvalidInput("The code of the new authenticator is wrong.", pointer="/totp")
    tx.execute(
        text(
            "UPDATE api.operator_credential SET totp_sealed = totp_next_sealed, totp_step = :step, totp_next_sealed = NULL,"
            " totp_next_until = NULL, changed_at = :now WHERE operator_id = :id"
        ),
        {"step": step, "now": now, "id": operator},
    )
    operators.end_sessions(tx, operator, now, but=session)
    return totp.renew_recovery_codes(tx, operator)


def open_sessions(tx: Tx, operator: UUID, now: datetime) -> list[SessionShown]:
    """The sessions of an operator that are open now, the newest last."""
    rows = tx.execute(
        text(
            "SELECT id, operator_id, address, created_at, seen_at, expires_at FROM api.operator_session"
            " WHERE operator_id = :id AND ended_at IS NULL AND expires_at > :now"
            " AND seen_at + make_interval(secs => idle_seconds) > :now ORDER BY created_at, id"
        ),
        {"id": operator, "now": now},
    )
    return [SessionShown(*row) for row in rows]


def end(tx: Tx, session: UUID, now: datetime, *, of: UUID | None = None) -> UUID:
    """End a session, of one operator or (None) of whomever; the operator whose it was. Raises NotFound."""
    ended: UUID | None = tx.execute(
        text(
            "UPDATE api.operator_session SET ended_at = :now WHERE id = :id AND ended_at IS NULL"
            " AND operator_id = coalesce(CAST(:of AS uuid), operator_id) RETURNING operator_id"
        ),
        {"now": now, "id": session, "of": of},
    ).scalar_one_or_none()
    if ended is None:
        raise NotFound("There is no such session.")
    return ended


def _own_subject(operator: UUID) -> tries.Subject:
    """The tries of someone who is logged in, counted apart from those of strangers at the log-in."""
    return tries.of_account(str(operator), "logged in")


def stays_active(tx: Tx, operator: UUID) -> bool:
    """Whether the operator is active; nobody disables them until this transaction ends."""
    return (
        tx.execute(
            text("SELECT 1 FROM api.operator WHERE id = :id AND state = 'active' FOR SHARE"), {"id": operator}
        ).first()
        is not None
    )


def _still(tx: Tx, account: _Account) -> bool:
    """Whether the password that was judged is still the one that is stored; locked until the transaction ends."""
    row = tx.execute(
        text("SELECT password_hash FROM api.operator_credential WHERE operator_id = :id FOR UPDATE"),
        {"id": account.operator},
    ).one_or_none()
    return row is not None and row.password_hash == account.password_hash


def _second_factor(tx: Tx, keyring: Keyring, operator: UUID, proof: Proof, now: datetime) -> bool:
    if proof.totp is not None:
        return totp.take(tx, keyring, operator, proof.totp, now)
    if proof.recovery_code is not None:
        return totp.take_recovery_code(tx, operator, proof.recovery_code, now)
    return False


def _renewed(stored: str | None, password: str) -> str | None:
    if stored is None or not passwords.outdated(stored):
        return None
    return passwords.hashed(passwords.normalised(password))


def _clear(tx: Tx, now: datetime) -> None:
    """Delete what is over: counts of tries, and sessions of long ago."""
    tries.forget(tx, now)
    tx.execute(
        text(
            "DELETE FROM api.operator_session WHERE id IN (SELECT id FROM api.operator_session WHERE created_at < :before"
            " AND expires_at < :now LIMIT :limit FOR UPDATE SKIP LOCKED)"
        ),
        {"before": now - KEPT_FOR, "now": now, "limit": CLEARED_TOGETHER_MAX},
    )
