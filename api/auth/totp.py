"""The second factor: time-based one-time codes (RFC 6238) and recovery codes.

A code counts once: the step that it belongs to is remembered, and neither it nor one before it is taken again, however
many requests bring it at the same moment (RFC 6238 §5.2). One step either way makes up for clocks that differ.
"""

import hmac
import secrets
from base64 import b32encode
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

import pyotp
from sqlalchemy import text

from ledger.database import Tx
from products.keyring import Keyring

PURPOSE: Final = "operator-totp"
"""The keyring's purpose under which secrets are sealed, bound to the operator's id."""
STEP_SECONDS: Final = 30
STEPS_AROUND: Final = 1
SECRET_CHARACTERS: Final = 32  # of base32: 160 bits, as RFC 4226 §4 recommends
RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 10  # 80 bits: out of reach of guessing, so a fast digest is enough


def new_secret() -> str:
    """A new secret, in base32."""
    return pyotp.random_base32(SECRET_CHARACTERS)


def uri(secret: str, email: str) -> str:
    """The ``otpauth://`` address that an authenticator reads from a QR code."""
    return pyotp.TOTP(secret, interval=STEP_SECONDS).provisioning_uri(name=email, issuer_name="Mizan")


def seal(keyring: Keyring, secret: str, operator: UUID) -> bytes:
    """A secret as it is stored."""
    return keyring.seal(PURPOSE, secret.encode(), operator.bytes)


def unseal(keyring: Keyring, sealed: bytes, operator: UUID) -> str:
    """A stored secret. Raises KeyringError."""
    return keyring.open(PURPOSE, bytes(sealed), operator.bytes).decode()


def step_of(secret: str, code: str, at: datetime) -> int | None:
    """The step whose code this is, within one of now; None when it is none of them."""
    now = int(at.timestamp()) // STEP_SECONDS
    generator = pyotp.TOTP(secret, interval=STEP_SECONDS)
    given = code.encode("utf-8", "surrogatepass")
    found = None
    for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1):
        if hmac.compare_digest(generator.at(step * STEP_SECONDS).encode(), given):
            found = step
    return found


def take(tx: Tx, keyring: Keyring, operator: UUID, code: str, at: datetime) -> bool:
    """Take a code of an operator; False when it is wrong, or its step was taken."""
    sealed = tx.execute(
        text("SELECT totp_sealed FROM api.operator_credential WHERE operator_id = :id"), {"id": operator}
    ).scalar_one_or_none()
    step = step_of(unseal(keyring, sealed, operator), code, at) if sealed is not None else None
    if step is None:
        return False
    taken = tx.execute(
        text(
            "UPDATE api.operator_credential SET totp_step = :step WHERE operator_id = :id AND totp_step < :step"
            " AND totp_sealed = :sealed"
        ),
        {"step": step, "id": operator, "sealed": sealed},
    ).rowcount
    return bool(taken)


def renew_recovery_codes(tx: Tx, operator: UUID) -> list[str]:
    """New recovery codes, shown once; those before them work no more."""
    tx.execute(text("DELETE FROM api.operator_recovery_code WHERE operator_id = :id"), {"id": operator})
    codes = [_spelled(secrets.token_bytes(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]
    tx.execute(
        text("INSERT INTO api.operator_recovery_code (operator_id, digest) VALUES (:id, :digest)"),
        [{"id": operator, "digest": _digest(code)} for code in codes],
    )
    return codes


def take_recovery_code(tx: Tx, operator: UUID, code: str, at: datetime) -> bool:
    """Take a recovery code of an operator, which then works no more; False when it is wrong or was taken."""
    return bool(
        tx.execute(
            text(
                "UPDATE api.operator_recovery_code SET used_at = :at"
                " WHERE operator_id = :id AND digest = :digest AND used_at IS NULL"
            ),
            {"at": at, "id": operator, "digest": _digest(code)},
        ).rowcount
    )


def recovery_codes_left(tx: Tx, operator: UUID) -> int:
    """How many recovery codes an operator still has."""
    left: int = tx.execute(
        text("SELECT count(*) FROM api.operator_recovery_code WHERE operator_id = :id AND used_at IS NULL"),
        {"id": operator},
    ).scalar_one()
    return left


def _spelled(random: bytes) -> str:
    letters = b32encode(random).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def _digest(code: str) -> bytes:
    return sha256("".join(code.split()).replace("-", "").lower().encode("utf-8", "surrogatepass")).digest()
