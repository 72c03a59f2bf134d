"""What comes in on rails' hooks: kept sealed, then applied; the same again is the same."""

from hashlib import sha256
from uuid import UUID

from integrations.inbox.keys import InboxKey
from ledger.database import Tx, cursor
from ledger.ids import new_id
from products.payouts.rails import Callback
from products.payouts.registry import ConfiguredRail
from products.remittances.context import Books


def keep(
    tx: Tx, books: Books, key: InboxKey, rail: ConfiguredRail, callback: Callback, *, readable: bool
) -> UUID:
    """Keep a callback that is proven to be the rail's; its id. One that came before is counted once more."""
    callback_id = new_id()
    digest = sha256(f"{callback.method} {callback.path}\n".encode() + callback.body).digest()
    row = (
        cursor(tx)
        .execute(
            "INSERT INTO integrations.rail_callback AS c (id, rail_id, digest, body_sealed, inbox_key_id, readable, received_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (rail_id, digest) DO UPDATE SET times = c.times + 1 RETURNING id",
            [
                callback_id,
                rail.id,
                digest,
                key.seal(callback_id, rail.id, "", callback.body),
                key.id,
                readable,
                books.clock.now(),
            ],
        )
        .fetchone()
    )
    if row is None:
        raise LookupError("an upsert answers its row")
    kept: UUID = row[0]
    return kept
