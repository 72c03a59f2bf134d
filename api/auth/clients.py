"""OAuth clients: who may ask for tokens, and the secrets and public keys they prove themselves with.

A secret is 256 random bits, so it is stored as its SHA-256 and compared in constant time. A slow password hash would add
nothing: it protects secrets that can be guessed, and costs what an attacker needs to keep the token endpoint busy. Public keys are of `api.auth.client_keys`.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text

from api.auth import scopes as scope_table
from api.settings import PRODUCTION_PREFIX, SANDBOX_PREFIX, Environment
from ledger.database import Tx
from ledger.errors import InvalidId, InvalidInput, NotFound
from ledger.ids import new_id, parse_public_id, public_id

PREFIX: Final = "cli"
_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Client:
    """A client that may ask for tokens: a partner's, or a member of staff's with roles."""

    id: UUID
    name: str
    partner_id: UUID | None
    roles: tuple[str, ...]
    scopes: frozenset[str]
    generation: int

    @property
    def client_id(self) -> str:
        """The id that the client sends: ``cli_…``."""
        return public_id(PREFIX, self.id)


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client just made, with its secret, which is shown once and stored nowhere."""

    client_id: str
    client_secret: str


def create_client(
    tx: Tx,
    *,
    name: str,
    partner_id: UUID | None = None,
    roles: Sequence[str] = (),
    environment: Environment,
    at: datetime,
) -> NewClient:
    """Create a client for a partner, or for staff with roles; it may ask for every scope that its kind has.

    Raises `InvalidInput` unless it is exactly one of the two, or for an unknown role.
    """
    if (partner_id is None) == (not roles):
        raise InvalidInput("A client belongs to a partner or has staff roles, not both and not neither.")
    granted = (
        (*scope_table.for_partners(), *sorted(scope_table.carried_for_members()))
        if partner_id is not None
        else scope_table.for_roles(roles)
    )
    if not granted:
        raise InvalidInput("No scope comes with these roles: they are manager, auditor and administrator.")
    client = new_id()
    tx.execute(
        text(
            "INSERT INTO api.oauth_client (id, name, partner_id, roles, scopes, created_at)"
            " VALUES (:id, :name, :partner, :roles, :scopes, :at)"
        ),
        {
            "id": client,
            "name": name,
            "partner": partner_id,
            "roles": list(roles),
            "scopes": list(granted),
            "at": at,
        },
    )
    return NewClient(public_id(PREFIX, client), _add_secret(tx, client, environment, at))


def rotate_secret(
    tx: Tx, client_id: str, *, overlap: timedelta, environment: Environment, at: datetime
) -> NewClient:
    """Give a client a new secret; those before it work for `overlap` more. Raises NotFound."""
    client = uuid_of(tx, client_id)
    tx.execute(
        text(
            "UPDATE api.client_secret SET expires_at = :until WHERE client_id = :id"
            " AND (expires_at IS NULL OR expires_at > :until)"
        ),
        {"until": at + overlap, "id": client},
    )
    return NewClient(client_id, _add_secret(tx, client, environment, at))


def client_of_partner(tx: Tx, partner_id: UUID) -> str:
    """The ``cli_…`` id of a partner's first client. Raises NotFound."""
    found = tx.execute(
        text("SELECT id FROM api.oauth_client WHERE partner_id = :id ORDER BY id LIMIT 1"), {"id": partner_id}
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("The partner has no client.")
    return public_id(PREFIX, found)


def authenticate(tx: Tx, client_id: str, secret: str, at: datetime) -> Client | None:
    """The client that proved itself with a secret; None for an unknown or disabled one, or a wrong secret."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
    client = _parse(client_id)
    limit_sight(tx, client)
    stored = (
        tx.execute(
            text(
                "SELECT digest FROM api.client_secret WHERE client_id = :id AND (expires_at IS NULL OR expires_at > :at)"
            ),
            {"id": client, "at": at},
        ).scalars()
        if client is not None
        else ()
    )
    # every stored one is compared, and one that never fits when there is none
    proved = False
    for candidate in [bytes(value) for value in stored] or [_NO_DIGEST]:
        proved |= hmac.compare_digest(candidate, digest)
    return find(tx, client_id) if proved else None


def find(tx: Tx, client_id: str) -> Client | None:
    """An active client whose partner, if it has one, is active too."""
    client = _parse(client_id)
    if client is None:
        return None
    limit_sight(tx, client)
    row = tx.execute(
        text(
            "SELECT c.id, c.name, c.partner_id, c.roles, c.scopes, c.generation FROM api.oauth_client c"
            " LEFT JOIN products.partner p ON p.id = c.partner_id"
            " WHERE c.id = :id AND c.state = 'active' AND coalesce(p.state, 'active') = 'active'"
        ),
        {"id": client},
    ).one_or_none()
    if row is None:
        return None
    return Client(row.id, row.name, row.partner_id, tuple(row.roles), frozenset(row.scopes), row.generation)


def set_state(tx: Tx, client_id: str, state: Literal["active", "disabled"]) -> None:
    """Let a client in again, or no longer: a disabled one gets no token, and those it has hold no more. Raises NotFound."""
    tx.execute(
        text("UPDATE api.oauth_client SET state = :state WHERE id = :id"),
        {"state": state, "id": uuid_of(tx, client_id)},
    )


def revoke_tokens(tx: Tx, client_id: str) -> None:
    """End every access token that the client ever got, members' through it too; new ones may be asked for. Raises NotFound."""
    tx.execute(
        text("UPDATE api.oauth_client SET generation = generation + 1 WHERE id = :id"),
        {"id": uuid_of(tx, client_id)},
    )


def uuid_of(tx: Tx, client_id: str) -> UUID:
    """The id behind a ``cli_…`` that there is, disabled or not. Raises NotFound."""
    client = _parse(client_id)
    if client is None or not _exists(tx, client):
        raise NotFound("There is no such client.")
    return client


def limit_sight(tx: Tx, client: UUID | None) -> None:
    """Tell row-level security which client's rows this transaction may see."""
    tx.execute(
        text("SELECT set_config('mizan.client', :client, true)"), {"client": str(client) if client else ""}
    )


def _add_secret(tx: Tx, client: UUID, environment: Environment, at: datetime) -> str:
    prefix = PRODUCTION_PREFIX if environment is Environment.PRODUCTION else SANDBOX_PREFIX
    secret = prefix + secrets.token_urlsafe(32)
    tx.execute(
        text(
            "INSERT INTO api.client_secret (id, client_id, digest, created_at) VALUES (:id, :client, :digest, :at)"
        ),
        {"id": new_id(), "client": client, "digest": hashlib.sha256(secret.encode()).digest(), "at": at},
    )
    return secret


def _exists(tx: Tx, client: UUID) -> bool:
    return (
        tx.execute(text("SELECT 1 FROM api.oauth_client WHERE id = :id"), {"id": client}).scalar_one_or_none()
        is not None
    )


def _parse(client_id: str) -> UUID | None:
    try:
        return parse_public_id(PREFIX, client_id)
    except InvalidId:
        return None
