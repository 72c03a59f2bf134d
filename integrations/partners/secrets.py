"""Partners' webhook secrets: sealed at rest, shown once, two valid at once while one replaces the other."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from integrations.partners.standard_webhooks import new_secret
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.ids import new_id
from products.keyring import Keyring

PURPOSE: Final = "webhook-secret"
ROTATION_OVERLAP: Final = timedelta(days=1)


def create_secret(tx: Tx, keyring: Keyring, clock: Clock, partner_id: UUID) -> str:
    """A new secret of the partner, valid from now: ``whsec_…``, to be shown once."""
    secret, secret_id = new_secret(), new_id()
    with cursor(tx) as sql:
        sql.execute(
            "INSERT INTO integrations.webhook_secret (id, partner_id, sealed, created_at) VALUES (%s, %s, %s, %s)",
            (secret_id, partner_id, keyring.seal(PURPOSE, secret.encode(), secret_id.bytes), clock.now()),
        )
    return secret


def rotate_secret(
    tx: Tx, keyring: Keyring, clock: Clock, partner_id: UUID, *, overlap: timedelta = ROTATION_OVERLAP
) -> str:
    """A new secret beside the newest old one, which stays valid for `overlap`; any older one ends now."""
    now = clock.now()
    with cursor(tx) as sql:
        sql.execute(
            """
            WITH valid AS (
                SELECT id, row_number() OVER (ORDER BY id DESC) AS age FROM integrations.webhook_secret
                WHERE partner_id = %(partner)s AND (expires_at IS NULL OR expires_at > %(now)s)
            )
            UPDATE integrations.webhook_secret s
            SET expires_at = least(s.expires_at, CASE WHEN valid.age = 1 THEN %(now)s + %(overlap)s ELSE %(now)s END)
            FROM valid WHERE valid.id = s.id
            """,
            {"partner": partner_id, "now": now, "overlap": overlap},
        )
    return create_secret(tx, keyring, clock, partner_id)


def newest_secret(tx: Tx, keyring: Keyring, clock: Clock, partner_id: UUID) -> str:
    """The partner's newest valid secret, opened, to sign test events with. Raises `NotFound`."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT id, sealed FROM integrations.webhook_secret"
            " WHERE partner_id = %s AND (expires_at IS NULL OR expires_at > %s) ORDER BY id DESC LIMIT 1",
            (partner_id, clock.now()),
        ).fetchone()
    if row is None:
        raise NotFound("the partner has no valid webhook secret: `mizan partner rotate-secret` makes one")
    secret_id, sealed = row
    return keyring.open(PURPOSE, sealed, secret_id.bytes).decode()
