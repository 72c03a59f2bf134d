"""One-time links: with one, a person sets the password and the second factor, the first time or again.

A link lives a day and counts once; a new one ends those before it. Only its digest is stored.

Where two administrators bring a person in (or back), each holds a half: the one who prepares gets a code, the link goes
to another one. The person needs both, so neither of them alone can take the identity and be two persons at once.
The two founders, whom the command line makes, need no code: who has a shell there has the database.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Final
from uuid import UUID

from sqlalchemy import Row, text

from api.auth import operators, passwords, totp
from api.auth.operators import Grant, LogIn, Operator, OperatorConflict
from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id
from products.keyring import Keyring

LIFETIME: Final = timedelta(days=1)
TOKEN_PREFIX: Final = "mzn_link_"  # noqa: S105  what tokens begin with, not one
FOUNDERS: Final = 2
_CODE_BYTES: Final = 10


class Founded(OperatorConflict):
    """There are two administrators already: others are requested, and approved by one of them."""

    code = "approval_required"


@dataclass(frozen=True, slots=True)
class Link:
    """A link just made: its token is shown once and stored nowhere."""

    operator_id: UUID
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SetUp:
    """What a person is shown who opens a link: the secret for the authenticator, as text and as its address."""

    name: str
    email: str
    log_in: LogIn
    secret: str
    uri: str
    expires_at: datetime


def address(public_url: str, token: str) -> str:
    """Where a person opens a link. What follows # stays in the browser: no log and no proxy sees the token."""
    return f"{public_url}/set-up#{token}"


def found(tx: Tx, *, email: str, name: str, log_in: LogIn, by: str, at: datetime) -> Link:
    """Make one of the two first administrators, or a new link for one who has not set up yet.

    However many do so at once, there are never three: a constraint of the table says so too. Raises `Founded`.
    """
    operators.alone(tx)
    there = operators.by_email(tx, email)
    places: list[int] = list(
        tx.execute(text("SELECT founder FROM api.operator WHERE founder IS NOT NULL")).scalars()
    )
    if there is not None:
        is_founder = tx.execute(
            text("SELECT founder FROM api.operator WHERE id = :id"), {"id": there.id}
        ).scalar_one()
        if is_founder is None or there.set_up or there.state != "active":
            raise OperatorConflict("There is an operator with this e-mail address.")
        operator = there.id
    elif len(places) >= FOUNDERS:
        raise Founded(f"There are {FOUNDERS} founding administrators: others are requested and approved.")
    else:
        operator = operators.create(
            tx,
            email=email,
            name=name,
            grants=[Grant("administrator", None)],
            organisation_id=None,
            log_in=log_in,
            at=at,
            founder=min({1, 2} - set(places)),
        )
    operators.end_links(tx, operator, at)
    link = _insert(tx, operator, None, by, at, at + LIFETIME)
    return _draw(tx, link, operator, at)


def new_code() -> tuple[str, bytes]:
    """A code for the one who prepares, and its digest, which the request carries."""
    letters = secrets.token_hex(_CODE_BYTES)
    return "-".join(letters[at : at + 5] for at in range(0, len(letters), 5)), _code_digest(letters)


def prepare(tx: Tx, operator: UUID, code_digest: bytes, prepared_by: str, at: datetime) -> None:
    """Let a link be drawn for an operator, within seven days, by another than the one who prepared it."""
    operators.end_links(tx, operator, at)
    _insert(tx, operator, code_digest, prepared_by, at, at + 7 * LIFETIME)


def draw(tx: Tx, operator: UUID, by: str, at: datetime) -> Link:
    """Draw the link that was prepared; one drawn before works no more. Raises NotFound, and OperatorConflict for the preparer."""
    row = tx.execute(
        text(
            "SELECT id, prepared_by FROM api.operator_link WHERE operator_id = :id AND used_at IS NULL"
            " AND expires_at > :at AND code_digest IS NOT NULL ORDER BY created_at DESC LIMIT 1 FOR UPDATE"
        ),
        {"id": operator, "at": at},
    ).one_or_none()
    if row is None:
        raise NotFound("No link is prepared for this operator.")
    if row.prepared_by == by:
        raise OperatorConflict("Another administrator draws the link: whoever prepared it holds the code.")
    return _draw(tx, row.id, operator, at)


def begin(tx: Tx, keyring: Keyring, token: str, at: datetime) -> SetUp:
    """The secret for the person's authenticator, the same until the link is used. Raises NotFound for a link that is none."""
    link = _open(tx, token, at)
    operator = operators.find(tx, link.operator_id)
    if link.totp_sealed is None:
        secret = totp.new_secret()
        tx.execute(
            text("UPDATE api.operator_link SET totp_sealed = :sealed WHERE id = :id"),
            {"sealed": totp.seal(keyring, secret, operator.id), "id": link.id},
        )
    else:
        secret = totp.unseal(keyring, link.totp_sealed, operator.id)
    uri = totp.uri(secret, operator.email)
    return SetUp(operator.name, operator.email, operator.log_in, secret, uri, link.expires_at)


def complete(
    tx: Tx,
    keyring: Keyring,
    token: str,
    *,
    code: str | None,
    password: str | None,
    totp_code: str,
    at: datetime,
) -> tuple[Operator, list[str]]:
    """Set the password and the second factor, use the link up, and end every session; gives the recovery codes.

    Who logs in through a provider has no password. Raises NotFound for a link that is none, and InvalidInput for what is
    wrong; then the link stays good.
    """
    link = _open(tx, token, at)
    operator = operators.find(tx, link.operator_id)
    if link.code_digest is not None and not compare_digest(_code_digest(code or ""), bytes(link.code_digest)):
        raise InvalidInput("The code is not the one that was prepared with the link.", pointer="/code")
    stored = _password(operator, password)
    secret = totp.unseal(keyring, link.totp_sealed, operator.id) if link.totp_sealed is not None else None
    step = totp.step_of(secret, totp_code, at) if secret is not None else None
    if step is None:
        raise InvalidInput("The code of the authenticator is wrong: is its clock right?", pointer="/totp")
    tx.execute(text("UPDATE api.operator_link SET used_at = :at WHERE id = :id"), {"at": at, "id": link.id})
    tx.execute(
        text(
            "INSERT INTO api.operator_credential (operator_id, password_hash, totp_sealed, totp_step, changed_at)"
            " VALUES (:id, :hash, :sealed, :step, :at) ON CONFLICT (operator_id) DO UPDATE SET password_hash = :hash,"
            " totp_sealed = :sealed, totp_step = :step, totp_next_sealed = NULL, totp_next_until = NULL, changed_at = :at"
        ),
        {"id": operator.id, "hash": stored, "sealed": link.totp_sealed, "step": step, "at": at},
    )
    codes = totp.renew_recovery_codes(tx, operator.id)
    operators.end_sessions(tx, operator.id, at)
    return operator, codes


def _password(operator: Operator, password: str | None) -> str | None:
    if operator.log_in == "openid":
        if password is not None:
            raise InvalidInput("You log in through your provider, without a password.", pointer="/password")
        return None
    if password is None:
        raise InvalidInput("A password is needed.", pointer="/password")
    return passwords.hashed(passwords.accept(password, about(operator)))


def about(operator: Operator) -> Sequence[str]:
    """What a password of this person must not be made of."""
    return operator.name, operator.email


def _open(tx: Tx, token: str, at: datetime) -> Row[tuple[object, ...]]:
    """The link of a token, locked. Raises NotFound."""
    row = tx.execute(
        text(
            "SELECT l.id, l.operator_id, l.code_digest, l.totp_sealed, l.expires_at FROM api.operator_link l"
            " JOIN api.operator o ON o.id = l.operator_id AND o.state = 'active'"
            " WHERE l.digest = :digest AND l.used_at IS NULL AND l.expires_at > :at FOR UPDATE OF l"
        ),
        {"digest": operators.digest(token), "at": at},
    ).one_or_none()
    if row is None:
        raise NotFound("The link was used, is too old, or is none.")
    return row


def _insert(
    tx: Tx, operator: UUID, code_digest: bytes | None, prepared_by: str, at: datetime, expires_at: datetime
) -> UUID:
    link = new_id()
    tx.execute(
        text(
            "INSERT INTO api.operator_link (id, operator_id, code_digest, prepared_by, created_at, expires_at)"
            " VALUES (:id, :operator, :code, :by, :at, :expires)"
        ),
        {
            "id": link,
            "operator": operator,
            "code": code_digest,
            "by": prepared_by,
            "at": at,
            "expires": expires_at,
        },
    )
    return link


def _draw(tx: Tx, link: UUID, operator: UUID, at: datetime) -> Link:
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    tx.execute(
        text(
            "UPDATE api.operator_link SET digest = :digest, expires_at = :expires, totp_sealed = NULL WHERE id = :id"
        ),
        {"digest": operators.digest(token), "expires": at + LIFETIME, "id": link},
    )
    return Link(operator, token, at + LIFETIME)


def _code_digest(code: str) -> bytes:
    spelled = "".join(code.split()).replace("-", "").lower()
    return sha256(spelled.encode("utf-8", "surrogatepass")).digest()
