"""Payment files and what banks answered, in the database: what `ask` answers from, and what a manager fetches.

A file is stored in the transaction that decides that it exists; its batch is in it once, an attempt in one file for ever.
Contents are sealed under the inbox's key of the day, which is destroyed when its time is over: names and account numbers go
with it, the rest stays.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

from cryptography.exceptions import InvalidTag

from integrations.inbox.keys import InboxKey, open_keys
from integrations.rails.bank_file.build import File
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id
from products.keyring import Keyring

FileState = Literal["made", "fetched", "accepted", "part", "rejected"]
"""Of a file as a whole. ``made``: nobody has fetched it. ``fetched``: it is, or may be, with the bank. ``accepted``: the bank
has refused none of its payments; ``part``: some; ``rejected``: all."""

_NONCE_BYTES: Final = 12


class FileUnreadable(Conflict):
    """The key of a file's content was destroyed when its time was over, or the bytes are not what was stored."""

    code = "payment_file_unreadable"


@dataclass(frozen=True, slots=True)
class PaymentFile:
    """A stored file, without its content."""

    id: UUID
    rail: str
    batch: UUID
    message_id: str
    payments: int
    control_sum: Decimal
    execution_on: date
    digest: bytes
    state: FileState
    made_at: datetime
    fetched_at: datetime | None
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment of a stored file."""

    attempt: UUID
    file_id: UUID
    message_id: str
    part: int
    amount: int
    currency: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """What one answer says of one payment; `said_at` by the bank's clock."""

    attempt: UUID
    status: str
    code: str | None
    amount: int | None
    currency: str | None
    said_at: datetime


_COLUMNS: Final = (
    "f.id, f.rail, f.batch, f.message_id, f.payments, f.control_sum, f.execution_on, f.digest, f.state, f.made_at,"
    " f.fetched_at, f.answered_at"
)
_PAYMENT: Final = (
    "SELECT l.attempt, l.file_id, f.message_id, l.part, l.amount, l.currency, f.made_at"
    " FROM integrations.payment_file_line l JOIN integrations.payment_file f ON f.id = l.file_id"
)


def lock_rail(tx: Tx, rail: str) -> None:
    """Let one make files, or take answers, of a rail at a time, until the end of `tx`."""
    with cursor(tx) as sql:
        sql.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('mizan payment files ' || %s, 0))", (rail,)
        )


def payments(tx: Tx, rail: str, attempts: Collection[UUID]) -> dict[UUID, Payment]:
    """Those of `attempts` that are in a file of the rail."""
    with cursor(tx) as sql:
        sql.execute(f"{_PAYMENT} WHERE f.rail = %s AND l.attempt = ANY(%s)", (rail, list(attempts)))
        return {row[0]: Payment(*row) for row in sql}


def made_between(tx: Tx, rail: str, since: datetime, until: datetime) -> list[Payment]:
    """The payments of the files that were made in [since, until), in their order."""
    with cursor(tx) as sql:
        sql.execute(
            f"{_PAYMENT} WHERE f.rail = %s AND f.made_at >= %s AND f.made_at < %s ORDER BY f.id, l.position",
            (rail, since, until),
        )
        return [Payment(*row) for row in sql]


def of_batch(tx: Tx, batch: UUID) -> PaymentFile | None:
    """The file of a batch."""
    with cursor(tx) as sql:
        row = sql.execute(
            f"SELECT {_COLUMNS} FROM integrations.payment_file f WHERE f.batch = %s", (batch,)
        ).fetchone()
    return PaymentFile(*row) if row else None


def of_message(tx: Tx, rail: str, message_id: str) -> PaymentFile | None:
    """The file of the rail that has this message id."""
    with cursor(tx) as sql:
        row = sql.execute(
            f"SELECT {_COLUMNS} FROM integrations.payment_file f WHERE f.rail = %s AND f.message_id = %s",
            (rail, message_id),
        ).fetchone()
    return PaymentFile(*row) if row else None


def add(tx: Tx, clock: Clock, key: InboxKey, rail: str, batch: UUID, file: File) -> UUID:
    """Store a file with its lines; its id. The batch has none yet, and no attempt is in another (`lock_rail`)."""
    file_id = new_id()
    with cursor(tx) as sql:
        sql.execute(
            "INSERT INTO integrations.payment_file (id, rail, batch, message_id, payments, control_sum, execution_on,"
            " digest, content_sealed, inbox_key_id, made_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                file_id,
                rail,
                batch,
                file.message_id,
                len(file.lines),
                file.control_sum,
                file.execution_on,
                hashlib.sha256(file.content).digest(),
                _sealed(key, file_id, file.content),
                key.id,
                clock.now(),
            ),
        )
        sql.execute(
            "INSERT INTO integrations.payment_file_line (attempt, file_id, position, part, amount, currency)"
            " SELECT u.attempt, %b, u.position, u.part, u.amount, u.currency"
            " FROM unnest(%b::uuid[], %b::int[], %b::int2[], %b::bigint[], %b::text[])"
            " AS u (attempt, position, part, amount, currency)",
            (
                file_id,
                [one.attempt for one in file.lines],
                [one.position for one in file.lines],
                [one.part for one in file.lines],
                [one.amount for one in file.lines],
                [one.currency for one in file.lines],
            ),
        )
    return file_id


def files(
    tx: Tx,
    *,
    rail: str | None = None,
    states: Sequence[FileState] = (),
    before: UUID | None = None,
    limit: int,
) -> list[PaymentFile]:
    """Stored files that `tx` may see, newest first, older than `before`."""
    wanted = {"rail": rail, "states": list(states) or None, "before": before, "limit": limit}
    with cursor(tx) as sql:
        sql.execute(
            f"SELECT {_COLUMNS} FROM integrations.payment_file f"
            " WHERE (%(rail)s::text IS NULL OR f.rail = %(rail)s)"
            " AND (%(states)s::text[] IS NULL OR f.state = ANY(%(states)s))"
            " AND (%(before)s::uuid IS NULL OR f.id < %(before)s) ORDER BY f.id DESC LIMIT %(limit)s",
            wanted,
        )
        return [PaymentFile(*row) for row in sql]


def one_of(tx: Tx, file_id: UUID) -> PaymentFile:
    """One file that `tx` may see. Raises NotFound."""
    with cursor(tx) as sql:
        row = sql.execute(
            f"SELECT {_COLUMNS} FROM integrations.payment_file f WHERE f.id = %s", (file_id,)
        ).fetchone()
    if row is None:
        raise NotFound("There is no such payment file.")
    return PaymentFile(*row)


def fetch(tx: Tx, keyring: Keyring, clock: Clock, file_id: UUID) -> tuple[PaymentFile, bytes]:
    """A file with its content, which is fetched from now on. Raises NotFound, `FileUnreadable`."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT content_sealed, inbox_key_id FROM integrations.payment_file WHERE id = %s", (file_id,)
        ).fetchone()
        if row is None:
            raise NotFound("There is no such payment file.")
        content = _opened(tx, keyring, file_id, *row)
        sql.execute(
            "UPDATE integrations.payment_file SET fetched_at = %s,"
            " state = CASE state WHEN 'made' THEN 'fetched' ELSE state END WHERE id = %s AND fetched_at IS NULL",
            (clock.now(), file_id),
        )
    found = one_of(tx, file_id)
    if hashlib.sha256(content).digest() != found.digest:
        raise FileUnreadable("The stored file is not what was made.")
    return found, content


def answered(tx: Tx, rail: str, digest: bytes) -> UUID | None:
    """The answer of this content that the rail has had before."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT id FROM integrations.payment_answer WHERE rail = %s AND digest = %s", (rail, digest)
        ).fetchone()
    return row[0] if row else None


def add_answer(
    tx: Tx,
    clock: Clock,
    key: InboxKey,
    rail: str,
    kind: Literal["status", "returns"],
    content: bytes,
    said_at: datetime,
    lines: Sequence[tuple[Payment, Said]],
) -> UUID:
    """Store an answer with what it says of each payment; its id. `lines` name no payment twice."""
    answer_id, now = new_id(), clock.now()
    with cursor(tx) as sql:
        sql.execute(
            "INSERT INTO integrations.payment_answer (id, rail, kind, digest, content_sealed, inbox_key_id, said_at,"
            " received_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                answer_id,
                rail,
                kind,
                hashlib.sha256(content).digest(),
                _sealed(key, answer_id, content),
                key.id,
                said_at,
                now,
            ),
        )
        sql.execute(
            "INSERT INTO integrations.payment_answer_line (answer_id, attempt, file_id, status, code, amount, currency)"
            " SELECT %b, u.* FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::bigint[], %b::text[]) AS u",
            (
                answer_id,
                [said.attempt for _, said in lines],
                [payment.file_id for payment, _ in lines],
                [said.status for _, said in lines],
                [said.code for _, said in lines],
                [said.amount for _, said in lines],
                [said.currency for _, said in lines],
            ),
        )
    return answer_id


def set_state(tx: Tx, clock: Clock, file_id: UUID, state: FileState) -> None:
    """What a file has come to by an answer."""
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE integrations.payment_file SET state = %s, answered_at = %s,"
            " fetched_at = coalesce(fetched_at, %s) WHERE id = %s",
            (state, clock.now(), clock.now(), file_id),
        )


def of_file(tx: Tx, file_id: UUID) -> list[Payment]:
    """The payments of a file, in their order."""
    with cursor(tx) as sql:
        sql.execute(f"{_PAYMENT} WHERE l.file_id = %s ORDER BY l.position", (file_id,))
        return [Payment(*row) for row in sql]


def said_of(tx: Tx, attempts: Collection[UUID]) -> dict[UUID, list[Said]]:
    """What the bank has said of payments, in the order in which it said it (by its clock, then as it came to us)."""
    found: dict[UUID, list[Said]] = {}
    with cursor(tx) as sql:
        sql.execute(
            "SELECT l.attempt, l.status, l.code, l.amount, l.currency, a.said_at"
            " FROM integrations.payment_answer_line l JOIN integrations.payment_answer a ON a.id = l.answer_id"
            " WHERE l.attempt = ANY(%s) ORDER BY l.attempt, a.said_at, a.id",
            (list(attempts),),
        )
        for row in sql:
            found.setdefault(row[0], []).append(Said(*row))
    return found


def histories(tx: Tx, file_id: UUID) -> Iterator[tuple[Payment, list[Said]]]:
    """Each payment of a file with what the bank has said of it."""
    among = of_file(tx, file_id)
    said = said_of(tx, [one.attempt for one in among])
    for one in among:
        yield one, said.get(one.attempt, [])


def _sealed(key: InboxKey, row_id: UUID, content: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + key.aead.encrypt(nonce, content, b"payment file" + row_id.bytes)


def _opened(tx: Tx, keyring: Keyring, row_id: UUID, *sealed: Any) -> bytes:
    content, key_id = sealed
    key = open_keys(tx, keyring, [key_id]).get(key_id)
    if key is None:
        raise FileUnreadable("The file's content was destroyed when its time was over.")
    try:
        return key.aead.decrypt(
            content[:_NONCE_BYTES], content[_NONCE_BYTES:], b"payment file" + row_id.bytes
        )
    except InvalidTag:
        raise FileUnreadable("The stored file does not open as what it was stored as.") from None
