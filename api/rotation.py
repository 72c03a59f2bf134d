"""Rotation of the master key: everything that a master key seals is sealed anew under the current one, while Mizan runs.

`SEALED` names every column that a master key seals, and no other: a test compares it with the database's catalogue, so
that a new one can't be forgotten. `rotate` walks them in batches of one transaction each. A value is replaced only if
it is still the one that was read, so an erasure or a rotation at the same time wins; whoever reads meanwhile opens
either, as every process holds both keys. It can be stopped anywhere and begun again: what is done names the new key.

Not touched: fields under members' own data keys (their wrapped key is sealed anew), delivery bodies (their day's key
is), and blind indexes (the index root is; see `products.keyring`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import sql

from api import auditing, idempotency
from api.auth import keys as signing_keys
from api.auth import openid_log_in, totp
from integrations.inbox import keys as inbox_keys
from integrations.outbound import endpoints
from integrations.partners import secrets as webhook_secrets
from integrations.rails import configured as rail_secrets
from ledger.database import Database, Tx, cursor
from products import safekeeping
from products.keyring import Keyring, head_of

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Sealed:
    """A column that a master key seals: where it is, the columns that name its row, and what it is bound to.

    `purpose` is what the keyring sealed it for; None is for members' wrapped data keys. `context` names the column
    that it is bound to (None: to nothing): a UUID's bytes, a text in UTF-8, bytes as they are.
    """

    table: str
    column: str
    row: tuple[str, ...]
    purpose: str | None
    context: str | None

    @property
    def name(self) -> str:
        """How the catalogue calls it."""
        return f"{self.table}.{self.column}"

    def again(self, keyring: Keyring, sealed: bytes, bound: object) -> bytes:
        """The same secret under the current key."""
        if self.purpose is None:
            if not isinstance(bound, UUID):
                raise TypeError(f"{self.name} is bound to a {type(bound).__name__}")
            return keyring.rewrap(sealed, bound)
        context = _bytes_of(bound)
        return keyring.seal(self.purpose, keyring.open(self.purpose, sealed, context), context)


SEALED: Final = (
    Sealed("products.member", "wrapped_key", ("id",), None, "id"),
    Sealed("products.index_root", "sealed", ("only",), safekeeping.INDEX_PURPOSE, None),
    Sealed("ledger.statement_file", "wrapped_key", ("id",), None, "id"),
    Sealed("integrations.inbox_key", "wrapped", ("id",), inbox_keys.PURPOSE, "id"),
    Sealed("api.audit_key", "wrapped", ("id",), auditing.KEY_PURPOSE, "id"),
    Sealed("api.operator_credential", "totp_sealed", ("operator_id",), totp.PURPOSE, "operator_id"),
    Sealed("api.operator_credential", "totp_next_sealed", ("operator_id",), totp.PURPOSE, "operator_id"),
    Sealed("api.operator_link", "totp_sealed", ("id",), totp.PURPOSE, "operator_id"),
    Sealed("api.openid_log_in", "verifier_sealed", ("id",), openid_log_in.PURPOSE, "id"),
    Sealed("integrations.endpoint_secret", "sealed", ("id",), endpoints.PURPOSE, "id"),
    Sealed("integrations.rail_secret", "sealed", ("rail_id",), rail_secrets.PURPOSE, "rail_id"),
    Sealed("integrations.webhook_secret", "sealed", ("id",), webhook_secrets.PURPOSE, "id"),
    Sealed("api.signing_key", "sealed_private_key", ("kid",), signing_keys.PURPOSE, "kid"),
    Sealed(
        "api.idempotent_answer",
        "sealed_body",
        ("client_id", "subject", "route", "key_digest"),
        idempotency.PURPOSE,
        "key_digest",
    ),
)
"""Everything that a master key seals. A canary (`products.safekeeping`) stays under the key that it proves."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far rotation has come: in which column, and how many values were sealed anew and lie under other keys still."""

    column: str
    done: int
    left: int


def left(tx: Tx, keyring: Keyring) -> dict[str, int]:
    """How many values of each column lie under another master key than the current one. Reads the tables through."""
    return {one.name: _count(tx, one, keyring.current) for one in SEALED}


def in_use(tx: Tx) -> dict[str, int]:
    """How many values each master key is needed for, by its id; from any role that may read all of `SEALED`."""
    found: dict[str, int] = {}
    for one in SEALED:
        statement = sql.SQL(
            "SELECT substr({column}, 3, get_byte({column}, 1)), count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1"
        ).format(**_named(one))
        for key_id, count in cursor(tx).execute(statement):
            name = bytes(key_id).decode("ascii", "replace")
            found[name] = found.get(name, 0) + count
    return found


def samples(tx: Tx) -> Iterator[tuple[Sealed, str, bytes, object]]:
    """One value of each column under each master key in use: column, key id, the sealed value, and what it is bound to."""
    for one in SEALED:
        statement = sql.SQL(
            "SELECT DISTINCT ON (key_id) substr({column}, 3, get_byte({column}, 1)) AS key_id, {column}, {bound} FROM {table}"
            " WHERE {column} IS NOT NULL ORDER BY key_id, {row} DESC"
        ).format(**_named(one))
        for key_id, value, bound in cursor(tx).execute(statement).fetchall():
            yield one, bytes(key_id).decode("ascii", "replace"), value, bound


def opens(one: Sealed, keyring: Keyring, value: bytes, bound: object) -> None:
    """Open a sampled value and forget it. Raises `KeyringError` when it does not open."""
    if one.purpose is None:
        if isinstance(bound, UUID):
            keyring.unwrap(value, bound)
        return
    keyring.open(one.purpose, value, _bytes_of(bound))


def rotate(
    owner: Database, keyring: Keyring, *, watch: Callable[[Step], None] = lambda _: None, batch: int = BATCH
) -> dict[str, int]:
    """Seal everything anew under the current master key; how many values of each column were.

    `owner` is the database as `mizan_owner`: no role that serves requests may replace a sealed key. Raises
    `KeyringError`, with all finished batches kept, when something opens under no key of the ring.
    """
    return {one.name: _rotate_column(owner, keyring, one, watch, batch) for one in SEALED}


def _rotate_column(
    owner: Database, keyring: Keyring, one: Sealed, watch: Callable[[Step], None], batch: int
) -> int:
    with owner.begin() as tx:
        total = _count(tx, one, keyring.current)
    done = 0
    after: tuple[Any, ...] | None = None
    watch(Step(one.name, 0, total))
    while True:
        read, replaced, after = owner.run(
            lambda tx, after=after: _rotate_batch(tx, keyring, one, after, batch)  # type: ignore[misc]  # a default is the way to bind a loop's name
        )
        done += replaced
        watch(Step(one.name, done, max(0, total - done)))
        if read < batch:
            return done


def _rotate_batch(
    tx: Tx, keyring: Keyring, one: Sealed, after: tuple[Any, ...] | None, batch: int
) -> tuple[int, int, tuple[Any, ...] | None]:
    """Seal one batch anew: how many rows were read and replaced, and the last one's name."""
    names = _named(one)
    beyond = (
        sql.SQL("true")
        if after is None
        else sql.SQL("({row}) > ({values})").format(
            row=names["row"], values=sql.SQL(", ").join(sql.Placeholder() * len(after))
        )
    )
    with cursor(tx) as run:
        query = sql.SQL(
            "SELECT {row}, {column}, {bound} FROM {table} WHERE {column} IS NOT NULL"
            " AND substr({column}, 1, {length}) <> {head} AND {beyond} ORDER BY {row} LIMIT {batch}"
        ).format(**names, **_head(keyring.current), beyond=beyond, batch=sql.Literal(batch))
        rows = run.execute(query, after or ()).fetchall()
        width = len(one.row)
        update = sql.SQL(
            "UPDATE {table} SET {column} = %b WHERE ({row}) = ({values}) AND {column} = %b"
        ).format(**names, values=sql.SQL(", ").join(sql.Placeholder() * width))
        run.executemany(
            update,
            [(one.again(keyring, row[width], row[width + 1]), *row[:width], row[width]) for row in rows],
        )
        replaced = max(0, run.rowcount)
    return len(rows), replaced, rows[-1][:width] if rows else after


def _count(tx: Tx, one: Sealed, key_id: str) -> int:
    query = sql.SQL(
        "SELECT count(*) FROM {table} WHERE {column} IS NOT NULL AND substr({column}, 1, {length}) <> {head}"
    ).format(**_named(one), **_head(key_id))
    row = cursor(tx).execute(query).fetchone()
    return int(row[0]) if row else 0


def _head(key_id: str) -> dict[str, sql.Composable]:
    head = head_of(key_id)
    return {"length": sql.Literal(len(head)), "head": sql.Literal(head)}


def _named(one: Sealed) -> dict[str, sql.Composable]:
    schema, _, table = one.table.partition(".")
    return {
        "table": sql.Identifier(schema, table),
        "column": sql.Identifier(one.column),
        "row": sql.SQL(", ").join(sql.Identifier(name) for name in one.row),
        "bound": sql.SQL("NULL") if one.context is None else sql.Identifier(one.context),
    }


def _bytes_of(bound: object) -> bytes:
    match bound:
        case None:
            return b""
        case UUID():
            return bound.bytes
        case str():
            return bound.encode()
        case bytes():
            return bound
        case _:
            raise TypeError(f"a {type(bound).__name__} is nothing to bind to")
