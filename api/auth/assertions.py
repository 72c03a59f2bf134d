"""Client assertions: a client proves itself with a JWT that it signed (``private_key_jwt``; RFC 7521, RFC 7523).

An assertion is signed with one of the client's registered keys, says the client as issuer and subject and us as
audience, lives a few minutes and is accepted once. What was used is remembered in PostgreSQL by its issuer and ``jti``:
the text of one token can be written in several ways, and Valkey forgets.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from api.auth import client_keys, clients, tokens
from api.auth.clients import Client
from api.auth.tokens import InvalidToken
from ledger.database import Tx
from ledger.errors import InvalidId
from ledger.ids import parse_public_id

TYPE_NAME: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TYPES: Final = ("JWT", "client-authentication+jwt")
"""The ``typ`` of an assertion; neither an access token's nor a subject token's."""
LIFETIME_SECONDS_MAX: Final = 300
REMEMBERED_LONGER: Final = timedelta(minutes=10)
"""How long a used one is remembered after it expired: more than the clocks of our processes may differ."""


@dataclass(frozen=True, slots=True)
class Proved:
    """A JWT that a client signed, for us, alive, and used now for the first time."""

    issuer: str
    claims: dict[str, Any]


def authenticate(
    tx: Tx, assertion: str, client_id: str | None, audiences: Collection[str], now: datetime
) -> Client | None:
    """The active client that proved itself with an assertion, which is thereby used; None if it proved nothing.

    `client_id` is what the request says beside it, if anything. Commit `tx` whatever the answer: what was used is used.
    """
    proved = prove_once(tx, assertion, TYPES, client_id, audiences, LIFETIME_SECONDS_MAX, now)
    if proved is None or proved.claims.get("sub") != proved.issuer:
        return None
    return clients.find(tx, proved.issuer)


def prove_once(
    tx: Tx,
    token: str,
    types: Collection[str],
    issuer: str | None,
    audiences: Collection[str],
    seconds_max: int,
    now: datetime,
) -> Proved | None:
    """What a client signed with a key of its own, for one of `audiences`, if it is alive and new; None otherwise.

    `issuer` is the client that it must be of, if that is known. From here on the token is used.
    """
    try:
        signed = tokens.read(token, types)
        said = tokens.text_of(signed.unproved, "iss")
    except InvalidToken:
        return None
    public = client_keys.verifying(tx, _client(said), signed.kid)
    try:
        claims = signed.claims(public)
        if tokens.text_of(claims, "aud") not in audiences or (issuer is not None and said != issuer):
            return None
        jti = tokens.text_of(claims, "jti", 256)
        _, expires_at = tokens.lifetime_of(claims, now, seconds_max)
    except InvalidToken:
        return None
    return Proved(said, claims) if use(tx, said, jti, datetime.fromtimestamp(expires_at, UTC)) else None


def use(tx: Tx, issuer: str, jti: str, expires_at: datetime) -> bool:
    """Remember that a token is used now; False when it was before. Of two at once the second waits for the first."""
    digest = hashlib.sha256(b"%d:%b%b" % (len(issuer.encode()), issuer.encode(), jti.encode())).digest()
    return (
        tx.execute(
            text(
                "INSERT INTO api.used_jti (digest, expires_at) VALUES (:digest, :until) ON CONFLICT DO NOTHING"
            ),
            {"digest": digest, "until": expires_at + REMEMBERED_LONGER},
        ).rowcount
        == 1
    )


def _client(client_id: str) -> UUID | None:
    try:
        return parse_public_id(clients.PREFIX, client_id)
    except InvalidId:
        return None
