"""Files that came in with bank statements: kept by their digest, sealed in pieces, destroyed when their time is over."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Final
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id
from ledger.reconciliation.sealing import Cipher, Keys, open_piece, seal_piece

PIECE_BYTES: Final = 1024 * 1024
WAIT_SECONDS_MAX: Final = 600
"""How long who brings a file waits for another who brings the same one, or one of the same account."""
READING_SECONDS_MAX: Final = 1_800
"""How long the database waits for the next lines: those of a statement come when it is read to its end, which proves its balances."""


class FileDestroyed(Conflict):
    """The content of the file was destroyed when its time was over; its digest and its lines stay."""

    code = "statement_file_destroyed"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that comes in: `digest` is the SHA-256 of its content, `received_by` who brought it."""

    digest: bytes
    name: str
    format: str
    size_bytes: int
    received_by: str


@dataclass(frozen=True, slots=True)
class StatementFile:
    """A file that is kept. `skipped` counts its statements that were left out or withdrawn; `destroyed_at`: its content is no more."""

    id: UUID
    digest: bytes
    name: str
    format: str
    size_bytes: int
    received_at: datetime
    received_by: str
    statements: int
    skipped: int
    wrapped_key: bytes | None
    destroyed_at: datetime | None


_COLUMNS = "id, digest, name, format, bytes, received_at, received_by, statements, skipped, wrapped_key, destroyed_at"


def take_time(tx: Tx) -> None:
    """Let the transaction wait, write and read for as long as a large statement takes."""
    with cursor(tx) as sql:
        sql.execute(
            "SELECT set_config('lock_timeout', %(wait)s, true), set_config('statement_timeout', %(wait)s, true),"
            " set_config('idle_in_transaction_session_timeout', %(read)s, true)",
            {"wait": f"{WAIT_SECONDS_MAX}s", "read": f"{READING_SECONDS_MAX}s"},
        )


def claim(tx: Tx, keys: Keys, clock: Clock, new: NewFile) -> tuple[StatementFile, bool]:
    """The file of this content, locked until the transaction ends, and whether it is new.

    Who brings the same content at the same time waits here, and then finds it.
    """
    take_time(tx)
    file_id = new_id()
    with cursor(tx) as sql:
        row = sql.execute(
            "INSERT INTO ledger.statement_file (id, digest, name, format, bytes, received_at, received_by, wrapped_key)"
            f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (digest) DO NOTHING RETURNING {_COLUMNS}",
            (
                file_id,
                new.digest,
                new.name,
                new.format,
                new.size_bytes,
                clock.now(),
                new.received_by,
                keys.wrap(keys.new_data_key(), file_id),
            ),
        ).fetchone()
        if row is not None:
            return StatementFile(*row), True
        row = sql.execute(
            f"SELECT {_COLUMNS} FROM ledger.statement_file WHERE digest = %s FOR UPDATE", (new.digest,)
        ).fetchone()
    if row is None:
        raise NotFound("There is no such file.")
    return StatementFile(*row), False


def keep(tx: Tx, cipher: Cipher, file_id: UUID, content: BinaryIO) -> None:
    """Seal the content, from where the stream stands, piece by piece."""
    number = 0
    with cursor(tx) as sql:
        while piece := content.read(PIECE_BYTES):
            number += 1
            sql.execute(
                "INSERT INTO ledger.statement_piece (file_id, number, sealed) VALUES (%s, %s, %b)",
                (file_id, number, seal_piece(cipher, file_id, number, piece)),
            )


def count(tx: Tx, file_id: UUID, *, statements: int, skipped: int) -> None:
    """Note how many of its statements are here, and how many were left out."""
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE ledger.statement_file SET statements = %s, skipped = %s WHERE id = %s",
            (statements, skipped, file_id),
        )


def let_in_again(tx: Tx, file_id: UUID) -> None:
    """One of its statements was withdrawn: it counts as left out, and comes in when the file comes again."""
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE ledger.statement_file SET statements = statements - 1, skipped = skipped + 1 WHERE id = %s",
            (file_id,),
        )


def by_id(tx: Tx, file_id: UUID) -> StatementFile:
    """The file. Raises `NotFound`."""
    with cursor(tx) as sql:
        row = sql.execute(
            f"SELECT {_COLUMNS} FROM ledger.statement_file WHERE id = %s", (file_id,)
        ).fetchone()
    if row is None:
        raise NotFound("There is no such file.")
    return StatementFile(*row)


def content(tx: Tx, keys: Keys, file: StatementFile) -> Iterator[bytes]:
    """The content as it came, piece by piece."""
    number = 1
    while found := piece(tx, keys, file, number):
        yield found
        number += 1


def piece(tx: Tx, keys: Keys, file: StatementFile, number: int) -> bytes:
    """One piece of the content, counted from 1; empty after the last. Raises `FileDestroyed`."""
    if file.wrapped_key is None:
        raise FileDestroyed("The content of this file was destroyed when its time was over.")
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT sealed FROM ledger.statement_piece WHERE file_id = %s AND number = %s",
            (file.id, number),
            binary=True,
        ).fetchone()
    if row is None:
        return b""
    return open_piece(keys.cipher(file.wrapped_key, file.id), file.id, number, row[0])


def destroy_next(tx: Tx, clock: Clock, *, retention: timedelta) -> bool:
    """Destroy the content of one file that is older than `retention`, its key, and the texts of its lines; False: there is none."""
    now = clock.now()
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT id FROM ledger.statement_file WHERE destroyed_at IS NULL AND received_at < %s"
            " ORDER BY received_at LIMIT 1 FOR UPDATE SKIP LOCKED",
            (now - retention,),
        ).fetchone()
        if row is None:
            return False
        sql.execute(
            "UPDATE ledger.statement_file SET wrapped_key = NULL, destroyed_at = %s WHERE id = %s",
            (now, row[0]),
        )
        sql.execute("DELETE FROM ledger.statement_piece WHERE file_id = %s", row)
        sql.execute(
            "UPDATE ledger.statement_line l SET text_sealed = NULL FROM ledger.bank_statement s"
            " WHERE s.file_id = %s AND l.statement_id = s.id AND l.text_sealed IS NOT NULL",
            row,
        )
    return True
