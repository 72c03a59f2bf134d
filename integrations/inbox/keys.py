"""The keys that delivery bodies rest under: a new one each day, destroyed when what it covers is long done.

Bodies hold personal data. Destroying a day's key makes every body of that day unreadable at once, in the tables and
in whatever copies of them exist, while the rows, their digests and their outcomes stay.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.clock import Clock
from ledger.database import Database, Tx, cursor
from ledger.errors import MizanError
from ledger.ids import new_id
from products.keyring import Keyring

KEY_LIFETIME: Final = timedelta(days=1)
RETENTION: Final = timedelta(days=90)
"""How long a body outlives the last processing of anything under its key."""

PURPOSE: Final = "inbox-key"
_NONCE_BYTES: Final = 12
_LOCK_CLASS, _LOCK_NEW_KEY = 0x4D5B, 1


class BodyUnreadable(MizanError):
    """A body's key was destroyed, or the bytes are not what was stored for this delivery."""

    code = "body_unreadable"
    status = 409


@dataclass(frozen=True, slots=True)
class InboxKey:
    """One day's key, opened. Bodies are AES-256-GCM with a random nonce, bound to their delivery and partner."""

    id: UUID
    created_at: datetime
    aead: AESGCM

    def seal(self, delivery_id: UUID, partner_id: UUID, webhook_id: str, body: bytes) -> bytes:
        """The body and the sender's id for it, encrypted: nonce, then ciphertext and tag."""
        nonce = os.urandom(_NONCE_BYTES)
        name = webhook_id.encode("ascii")
        plaintext = bytes((len(name),)) + name + body
        return nonce + self.aead.encrypt(nonce, plaintext, delivery_id.bytes + partner_id.bytes)

    def open(self, delivery_id: UUID, partner_id: UUID, sealed: bytes) -> tuple[str, bytes]:
        """The ``webhook-id`` and the raw body. Raises `BodyUnreadable`."""
        try:
            plaintext = self.aead.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], delivery_id.bytes + partner_id.bytes
            )
        except InvalidTag:
            raise BodyUnreadable("the stored body does not open as this delivery's") from None
        body = 1 + plaintext[0]
        return plaintext[1:body].decode("ascii"), plaintext[body:]


class InboxKeys:
    """Finds the key of the day, making it when the last one is a day old. Thread-safe by doing nothing twice wrongly."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._current: InboxKey | None = None

    def current(self) -> InboxKey:
        """The key for what arrives now. Opens a transaction of its own, once a day, so that what is kept is committed."""
        now = self._clock.now()
        if self._current is None or now - self._current.created_at >= KEY_LIFETIME:
            self._current = self._database.run(lambda tx: _newest(tx, self._keyring, now))
        return self._current


def _newest(tx: Tx, keyring: Keyring, now: datetime) -> InboxKey:
    statement = (
        "SELECT id, wrapped, created_at FROM integrations.inbox_key"
        " WHERE created_at > %s AND destroyed_at IS NULL ORDER BY created_at DESC LIMIT 1"
    )
    with cursor(tx) as sql:
        found = sql.execute(statement, (now - KEY_LIFETIME,)).fetchone()
        if found is None:
            sql.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK_CLASS, _LOCK_NEW_KEY))
            found = sql.execute(statement, (now - KEY_LIFETIME,)).fetchone()
        if found is None:
            key_id = new_id()
            found = (key_id, keyring.seal(PURPOSE, AESGCM.generate_key(256), key_id.bytes), now)
            sql.execute(
                "INSERT INTO integrations.inbox_key (id, wrapped, created_at) VALUES (%s, %s, %s)", found
            )
    return _opened(keyring, *found)


def open_keys(tx: Tx, keyring: Keyring, ids: Iterable[UUID]) -> dict[UUID, InboxKey]:
    """The keys of these ids that have not been destroyed."""
    with cursor(tx) as sql:
        sql.execute(
            "SELECT id, wrapped, created_at FROM integrations.inbox_key WHERE id = ANY(%s) AND wrapped IS NOT NULL",
            (list(set(ids)),),
        )
        return {row[0]: _opened(keyring, *row) for row in sql}


def _opened(keyring: Keyring, key_id: UUID, wrapped: bytes, created_at: datetime) -> InboxKey:
    return InboxKey(key_id, created_at, AESGCM(keyring.open(PURPOSE, wrapped, key_id.bytes)))


def destroy_keys(tx: Tx, clock: Clock, *, retention: timedelta = RETENTION) -> int:
    """Destroy every key under which nothing waits and nothing was processed within `retention`; how many there were.

    A delivery in the queue or parked keeps its day's key; a quarantined one has `retention` to be replayed.
    """
    now = clock.now()
    with cursor(tx) as sql:
        sql.execute(
            """
            UPDATE integrations.inbox_key k SET wrapped = NULL, destroyed_at = %(now)s
            WHERE k.destroyed_at IS NULL
              AND k.created_at < %(before)s - %(lifetime)s
              AND NOT EXISTS (
                SELECT FROM integrations.delivery d
                LEFT JOIN LATERAL (
                    SELECT o.state, o.processed_at FROM integrations.delivery_outcome o
                    WHERE o.delivery_id = d.id ORDER BY o.attempt DESC LIMIT 1
                ) latest ON true
                WHERE d.inbox_key_id = k.id
                  AND (latest.state IS NULL OR latest.state IN ('parked', 'replayed')
                       OR latest.processed_at >= %(before)s)
              )
            """,
            # A key is still written under for a day after it was made, by processes that hold it.
            {"now": now, "before": now - retention, "lifetime": KEY_LIFETIME},
        )
        return sql.rowcount
