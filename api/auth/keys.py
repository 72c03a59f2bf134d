"""The keys that sign access tokens: ES256 (P-256), at rest sealed by the master key, published as JWKS (RFC 7517).

The first is made when it is first needed, under a lock, so that processes that start together agree on one. Rotation
publishes the next key before it signs, and keeps the old one for as long as a token signed by it may live.
"""

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Database, Tx
from products.keyring import Keyring

PURPOSE: Final = "token signing key"
PUBLISHED_AHEAD: Final = timedelta(hours=1)
"""How long a new key is published before it signs: longer than anyone is told to cache the JWKS."""
KEPT_AFTER: Final = timedelta(hours=1)
"""How long a replaced key still verifies: longer than a token lives."""
RELOAD_SECONDS_MIN: Final = 5.0
"""Unknown key ids, which anyone can send, make us ask the database this often at most."""

_LOCK_ID: Final = 0x6D7A6E5F6B6579  # "mzn_key"


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A published key: its id and its JWK."""

    kid: str
    jwk: dict[str, str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs now: its id and the private key in PEM."""

    kid: str
    pem: str


class SigningKeys:
    """The signing keys of a deployment, cached in the process and read again when a key id is unknown."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._lock = Lock()
        self._signing: list[tuple[datetime, SigningKey]] = []
        self._verifying: dict[str, tuple[datetime | None, VerifyingKey]] = {}
        self._loaded_at = float("-inf")

    def signing(self) -> SigningKey:
        """The key to sign with: the newest that has begun to sign. Made if there is none."""
        now = self._clock.now()
        self._ensure_fresh(60.0)
        ready = [key for since, key in self._signing if since <= now]
        if not ready:
            with self._database.begin() as tx:
                create(tx, self._keyring, now, signs_from=now)
            self._load()
            ready = [key for since, key in self._signing if since <= now]
        return ready[-1]

    def verifying(self, kid: str) -> VerifyingKey | None:
        """The published key of this id, if it still verifies."""
        found = self._verifying.get(kid)
        if found is None:
            self._ensure_fresh(RELOAD_SECONDS_MIN)
            found = self._verifying.get(kid)
        if found is None:
            return None
        until, key = found
        return key if until is None or self._clock.now() < until else None

    def published(self) -> list[VerifyingKey]:
        """Every key that signs, will sign or still verifies; makes the first one."""
        self.signing()
        now = self._clock.now()
        return [key for until, key in self._verifying.values() if until is None or now < until]

    def _ensure_fresh(self, seconds: float) -> None:
        if self._is_fresh(seconds):
            return
        with self._lock:
            # who waited while another read has what was read: at a start, all ask at once
            if not self._is_fresh(seconds):
                self._load()
                self._loaded_at = time.monotonic()

    def _is_fresh(self, seconds: float) -> bool:
        return bool(self._verifying) and time.monotonic() - self._loaded_at <= seconds

    def _load(self) -> None:
        with self._database.begin() as tx:
            rows = tx.execute(
                text(
                    "SELECT kid, public_key, sealed_private_key, signs_from, verifies_until FROM api.signing_key"
                    " WHERE verifies_until IS NULL OR verifies_until > :now ORDER BY signs_from"
                ),
                {"now": self._clock.now()},
            ).all()
        signing = [
            (
                row.signs_from,
                SigningKey(
                    row.kid, self._keyring.open(PURPOSE, row.sealed_private_key, row.kid.encode()).decode()
                ),
            )
            for row in rows  # also one that was replaced: it signs until the next one begins to
        ]
        self._verifying = {
            row.kid: (row.verifies_until, VerifyingKey(row.kid, row.public_key)) for row in rows
        }
        self._signing = signing


def create(tx: Tx, keyring: Keyring, now: datetime, *, signs_from: datetime) -> str:
    """Make and store a key, unless another process just did; returns the id of the one that will sign."""
    tx.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
    there: str | None = tx.execute(
        text(
            "SELECT kid FROM api.signing_key WHERE verifies_until IS NULL AND signs_from BETWEEN :since AND :until"
            " ORDER BY signs_from DESC LIMIT 1"
        ),
        {"since": signs_from - timedelta(minutes=1), "until": signs_from + timedelta(minutes=1)},
    ).scalar_one_or_none()
    if there is not None:
        return there
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = jwk_of(private.public_key())
    kid = thumbprint(jwk)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    tx.execute(
        text(
            "INSERT INTO api.signing_key (kid, public_key, sealed_private_key, signs_from, created_at)"
            " VALUES (:kid, CAST(:jwk AS jsonb), :sealed, :signs_from, :now)"
        ),
        {
            "kid": kid,
            "jwk": json.dumps(jwk),
            "sealed": keyring.seal(PURPOSE, pem, kid.encode()),
            "signs_from": signs_from,
            "now": now,
        },
    )
    return kid


@dataclass(frozen=True, slots=True)
class Rotation:
    """The next key, from when it signs, and until when those before it still verify."""

    kid: str
    signs_from: datetime
    replaced_verify_until: datetime


def rotate(tx: Tx, keyring: Keyring, now: datetime) -> Rotation:
    """Publish the next key, which signs in an hour; those before it sign until then, and verify until their tokens are dead.

    The very first key signs at once. Asked twice within a minute, it rotates once.
    """
    signing = tx.execute(
        text(
            "SELECT 1 FROM api.signing_key WHERE signs_from <= :now AND (verifies_until IS NULL OR verifies_until > :now)"
        ),
        {"now": now},
    ).first()
    kid = create(tx, keyring, now, signs_from=now + PUBLISHED_AHEAD if signing else now)
    tx.execute(
        text(
            "UPDATE api.signing_key SET verifies_until = :until WHERE kid <> :kid AND verifies_until IS NULL"
        ),
        {"until": now + PUBLISHED_AHEAD + KEPT_AFTER, "kid": kid},
    )
    row = tx.execute(
        text(
            "SELECT signs_from, (SELECT max(verifies_until) FROM api.signing_key) FROM api.signing_key WHERE kid = :kid"
        ),
        {"kid": kid},
    ).one()
    return Rotation(kid, row[0], row[1] or row[0])


def jwk_of(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """A P-256 key as a JWK (RFC 7517)."""
    numbers = public.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
    }


def thumbprint(jwk: dict[str, str]) -> str:
    """The key's id: its JWK thumbprint (RFC 7638)."""
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return _base64url(
        hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
