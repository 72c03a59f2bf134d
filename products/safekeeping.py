"""What the database keeps of the master keys: a canary of each one that was ever current, and the index root.

A canary is a known text sealed under the key. It proves, before anything is written, that the key which a process was
given is the one that opens what is here; the doctor opens them all. A database that names only keys which the process
does not hold belongs to another deployment, or the key was lost: nothing starts then.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ledger.database import Tx, cursor
from products.keyring import Keyring, KeyringError, key_id_of

CANARY: Final = b"Mizan can open what it sealed."
CANARY_PURPOSE: Final = "canary"
INDEX_PURPOSE: Final = "index root"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A master key that was current once. `opens`: whether the keyring holds it, and it opens its canary."""

    id: str
    first_used_at: datetime
    opens: bool


def prepare(tx: Tx, keyring: Keyring, now: datetime) -> bytes:
    """Begin to use the keyring's current key: leave its canary, and give the index root (made for new books).

    Processes that start at once agree on one root. Raises `KeyringError` when the keyring is not this database's.
    """
    canary = keyring.seal(CANARY_PURPOSE, CANARY, keyring.current.encode())
    with cursor(tx) as sql:
        root = sql.execute("SELECT sealed FROM products.index_root").fetchone()
        if root is None:
            sql.execute(
                "INSERT INTO products.index_root (sealed) VALUES (%b) ON CONFLICT DO NOTHING",
                (keyring.seal(INDEX_PURPOSE, keyring.first_index_root()),),
            )
            root = sql.execute("SELECT sealed FROM products.index_root").fetchone()
        if root is None:
            raise KeyringError("the index root can be neither read nor made")
        opened = keyring.open(INDEX_PURPOSE, root[0])
        sql.execute(
            "INSERT INTO products.master_key (id, canary, first_used_at) VALUES (%s, %b, %s) ON CONFLICT DO NOTHING",
            (keyring.current, canary, now),
        )
    return opened


def known(tx: Tx, keyring: Keyring) -> list[KnownKey]:
    """Every master key that was ever current here, oldest first."""
    with cursor(tx) as sql:
        sql.execute("SELECT id, first_used_at, canary FROM products.master_key ORDER BY first_used_at, id")
        return [KnownKey(row[0], row[1], _opens(keyring, row[0], row[2])) for row in sql]


def _opens(keyring: Keyring, key_id: str, canary: bytes) -> bool:
    try:
        return key_id_of(canary) == key_id and keyring.open(CANARY_PURPOSE, canary, key_id.encode()) == CANARY
    except KeyringError:
        return False
