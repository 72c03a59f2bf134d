"""What ends before its time: revoked access tokens (RFC 7009), kept in PostgreSQL and asked for at each request."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import text

from api.auth.clients import Client
from api.auth.tokens import Claims
from ledger.database import Tx
from ledger.ids import parse_public_id

KEPT_LONGER: Final = timedelta(minutes=10)
"""How long a revocation outlives its token: more than the clocks of our processes may differ."""


def revoke(tx: Tx, client: Client, claims: Claims) -> bool:
    """End one access token of `client`, a member's through it too, from the next request on; False for another client's."""
    if claims.client_id != client.client_id:
        return False
    tx.execute(
        text(
            "INSERT INTO api.revoked_token (token_id, client_id, expires_at) VALUES (:token, :client, :until)"
            " ON CONFLICT DO NOTHING"
        ),
        {
            "token": parse_public_id("tok", claims.token_id),
            "client": client.id,
            "until": datetime.fromtimestamp(claims.expires_at, UTC) + KEPT_LONGER,
        },
    )
    return True


def purge(tx: Tx, now: datetime) -> int:
    """Forget what can be of no use any more: revoked tokens and used ids past their time (as the worker); how many."""
    return sum(
        tx.execute(text(f"DELETE FROM {table} WHERE expires_at < :now"), {"now": now}).rowcount
        for table in ("api.revoked_token", "api.used_jti")
    )
