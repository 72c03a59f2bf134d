"""Clients' public keys: ES256 (P-256), registered inline. By them a client proves itself and vouches for its members.

There is no ``jwks_uri``: fetching an address that a client names would make us its errand boy, and whoever holds that
address would hold the client. Several keys may be valid at once, so that one replaces another without an outage.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import text

from api.auth import clients
from api.auth.keys import jwk_of, thumbprint
from api.auth.tokens import KID
from integrations import strict_json
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound

KEYS_MAX: Final = 8
"""Keys that a client has at once."""
KEY_CHARACTERS_MAX: Final = 4096

_MEMBERS: Final = frozenset({"kty", "crv", "x", "y", "kid", "use", "alg", "key_ops"})


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client's public key: its id in token headers, and its JWK."""

    kid: str
    jwk: dict[str, str]
    created_at: datetime


def parse(document: str) -> tuple[str, dict[str, str]]:
    """The id and the JWK of a public key written as PEM or as a JWK (RFC 7517).

    The id is the JWK's own ``kid``, or else its thumbprint (RFC 7638). Raises `InvalidInput` for a private key, and
    for anything that is not a point on P-256.
    """
    if len(document) > KEY_CHARACTERS_MAX:
        raise InvalidInput(f"A public key has at most {KEY_CHARACTERS_MAX} characters.")
    if "PRIVATE KEY" in document:
        raise InvalidInput("This is a private key: keep it, and register the public one.")
    if document.lstrip().startswith("-----BEGIN"):
        try:
            public = load_pem_public_key(document.strip().encode())
        except Exception:  # whatever a parser says of a stranger's file, it is the file
            raise InvalidInput("This is not a public key in PEM.") from None
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise InvalidInput("The key must be of the curve P-256 (prime256v1), for ES256.")
        jwk = jwk_of(public)
        return thumbprint(jwk), jwk
    try:
        value = strict_json.loads(document.encode())
    except (strict_json.NotStrictJson, UnicodeEncodeError):
        raise InvalidInput("This is neither a public key in PEM nor a JWK.") from None
    return _of_jwk(value)


def add(tx: Tx, client_id: str, document: str, at: datetime) -> ClientKey:
    """Register a public key for a client (see `parse`). Repeating it changes nothing.

    Raises NotFound for an unknown client, InvalidInput for what is no such key, and Conflict for an id that was given to
    another key or was removed, or beyond `KEYS_MAX`.
    """
    client = clients.uuid_of(tx, client_id)
    kid, jwk = parse(document)
    # two at once are counted one after the other
    tx.execute(text("SELECT 1 FROM api.oauth_client WHERE id = :id FOR NO KEY UPDATE"), {"id": client})
    stored = tx.execute(
        text(
            "SELECT public_key, created_at, removed_at FROM api.client_key WHERE client_id = :id AND kid = :kid"
        ),
        {"id": client, "kid": kid},
    ).one_or_none()
    if stored is not None:
        if stored.public_key != jwk or stored.removed_at is not None:
            raise Conflict("A key of this id was registered before; make a new one.")
        return ClientKey(kid, jwk, stored.created_at)
    if len(of_client(tx, client_id)) >= KEYS_MAX:
        raise Conflict(f"A client has at most {KEYS_MAX} keys; remove one first.")
    tx.execute(
        text(
            "INSERT INTO api.client_key (client_id, kid, public_key, created_at)"
            " VALUES (:id, :kid, CAST(:jwk AS jsonb), :at)"
        ),
        {"id": client, "kid": kid, "jwk": json.dumps(jwk), "at": at},
    )
    return ClientKey(kid, jwk, at)


def remove(tx: Tx, client_id: str, kid: str, at: datetime) -> None:
    """End a key now: nothing signed with it is accepted any more. Raises NotFound."""
    removed = tx.execute(
        text(
            "UPDATE api.client_key SET removed_at = :at WHERE client_id = :id AND kid = :kid AND removed_at IS NULL"
        ),
        {"at": at, "id": clients.uuid_of(tx, client_id), "kid": kid if KID.fullmatch(kid) else ""},
    ).rowcount
    if not removed:
        raise NotFound("The client has no such key.")


def of_client(tx: Tx, client_id: str) -> list[ClientKey]:
    """A client's keys that are in force, oldest first. Raises NotFound for an unknown client."""
    rows = tx.execute(
        text(
            "SELECT kid, public_key, created_at FROM api.client_key WHERE client_id = :id AND removed_at IS NULL"
            " ORDER BY created_at, kid"
        ),
        {"id": clients.uuid_of(tx, client_id)},
    )
    return [ClientKey(row.kid, row.public_key, row.created_at) for row in rows]


def verifying(tx: Tx, client: UUID | None, kid: str) -> Mapping[str, str] | None:
    """The JWK of a client's key in force, by its id from a token's header (`tokens.read` judged its spelling)."""
    clients.limit_sight(tx, client)
    found: Mapping[str, str] | None = tx.execute(
        text(
            "SELECT public_key FROM api.client_key WHERE client_id = :id AND kid = :kid AND removed_at IS NULL"
        ),
        {"id": client, "kid": kid},
    ).scalar_one_or_none()
    return found


def _of_jwk(value: Any) -> tuple[str, dict[str, str]]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidInput("A JWK is a JSON object.")
    if "d" in value or "k" in value:
        raise InvalidInput("This is a private key: keep it, and register the public one.")
    if not set(value) <= _MEMBERS:
        raise InvalidInput(f"A JWK here has the members {', '.join(sorted(_MEMBERS))} and no other.")
    if (value.get("kty"), value.get("crv")) != ("EC", "P-256") or value.get("alg", "ES256") != "ES256":
        raise InvalidInput("The key must be of kty EC and crv P-256, for ES256.")
    if value.get("use", "sig") != "sig":
        raise InvalidInput("The key must be for signatures: use is sig.")
    x, y = _coordinate(value.get("x")), _coordinate(value.get("y"))
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise InvalidInput("The key is not a point on P-256.") from None
    jwk = jwk_of(public)
    kid = value.get("kid", thumbprint(jwk))
    if not isinstance(kid, str) or not KID.fullmatch(kid):
        raise InvalidInput("kid is 1 to 128 printable ASCII characters without spaces.")
    return kid, jwk


def _coordinate(value: object) -> int:
    try:
        decoded = (
            base64.urlsafe_b64decode(f"{value}=") if isinstance(value, str) and len(value) == 43 else b""
        )
    except ValueError:
        decoded = b""
    if len(decoded) != 32:
        raise InvalidInput("x and y are 32 bytes each, in base64url without padding.")
    return int.from_bytes(decoded, "big")
