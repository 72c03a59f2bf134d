"""Whose account the other side of a line is: entered by hand, or learned from pairings that stand.

An account's number is kept as its blind index, and its last characters for people; the number itself rests in the lines alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.ids import new_id
from ledger.reconciliation.bank_accounts import normalised
from ledger.reconciliation.reading import lines_by_id, texts
from ledger.reconciliation.sealing import Keys

INDEX: Final = "bank counterparty"
"""The keyring's purpose of their blind indexes."""
ENDING_CHARACTERS: Final = 4

Source = Literal["entered", "learned"]


@dataclass(frozen=True, slots=True)
class Counterparty:
    """An account that is known as a party's; `ending`: the last characters of its number."""

    id: UUID
    ending: str
    party: str
    source: Source
    added_by: str
    added_at: datetime


def add(
    tx: Tx,
    keys: Keys,
    clock: Clock,
    bank_account_id: UUID,
    number: str,
    party: str,
    *,
    by: str,
    source: Source = "entered",
) -> Counterparty:
    """Know an account as a party's from now on: lines that come in, and those here that have no party, get it.

    What is learned never displaces what was entered. As the worker's role.
    """
    number = normalised(number)
    account_index = index(keys, number)
    now = clock.now()
    with cursor(tx) as sql:
        # two who say it at once come one after the other
        sql.execute("SELECT 1 FROM ledger.bank_account WHERE id = %s FOR NO KEY UPDATE", (bank_account_id,))
        standing = _standing(tx, bank_account_id, account_index)
        if standing is not None and (
            standing.party == party or (source == "learned" and standing.source == "entered")
        ):
            return standing
        if standing is not None:
            sql.execute("UPDATE ledger.bank_counterparty SET ended_at = %s WHERE id = %s", (now, standing.id))
        row = sql.execute(
            "INSERT INTO ledger.bank_counterparty (id, bank_account_id, account_index, ending, party, source, added_by, added_at)"
            f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
            (new_id(), bank_account_id, account_index, number[-ENDING_CHARACTERS:], party, source, by, now),
        ).fetchone()
        sql.execute(
            "UPDATE ledger.statement_line SET party = %s"
            " WHERE bank_account_id = %s AND counterparty_index = %s AND party IS NULL",
            (party, bank_account_id, account_index),
        )
    assert row is not None  # noqa: S101  an insert answers with its row
    return Counterparty(*row)


def learn(
    tx: Tx, keys: Keys, clock: Clock, line_ids: Collection[UUID], party: str, *, by: str
) -> list[Counterparty]:
    """Know the accounts on the other side of lines as a party's: those of a pairing that a person confirmed.

    Not for payees: one account may be many members', and a member is no party. As the worker's role.
    """
    said = texts(tx, keys, line_ids)
    lines = lines_by_id(tx, said)
    learned = dict.fromkeys(
        (lines[line].bank_account_id, text.counterparty_account)
        for line, text in said.items()
        if text.counterparty_account
    )
    return [
        add(tx, keys, clock, account, number, party, by=by, source="learned") for account, number in learned
    ]


def end(tx: Tx, clock: Clock, bank_account_id: UUID, counterparty_id: UUID) -> None:
    """Know it no longer; lines that came in keep their party. Raises `NotFound`."""
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE ledger.bank_counterparty SET ended_at = %s WHERE id = %s AND bank_account_id = %s AND ended_at IS NULL",
            (clock.now(), counterparty_id, bank_account_id),
        )
        if not sql.rowcount:
            raise NotFound("There is no such counterparty.")


def every(
    tx: Tx, bank_account_id: UUID, *, after: UUID | None = None, limit: int = 200
) -> Sequence[Counterparty]:
    """Those that are known to a bank account, the newest first."""
    with cursor(tx) as sql:
        rows = sql.execute(
            f"SELECT {_COLUMNS} FROM ledger.bank_counterparty WHERE bank_account_id = %(account)s AND ended_at IS NULL"
            " AND (%(after)s::uuid IS NULL OR id < %(after)s) ORDER BY id DESC LIMIT %(limit)s",
            {"account": bank_account_id, "after": after, "limit": limit},
        ).fetchall()
    return [Counterparty(*row) for row in rows]


def parties(tx: Tx, bank_account_id: UUID, indexes: Collection[bytes]) -> dict[bytes, str]:
    """The party of each blind index that is known."""
    if not indexes:
        return {}
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT account_index, party FROM ledger.bank_counterparty"
            " WHERE bank_account_id = %s AND ended_at IS NULL AND account_index = ANY (%s)",
            (bank_account_id, list(indexes)),
        ).fetchall()
    return {bytes(index): party for index, party in rows}


def index(keys: Keys, number: str) -> bytes:
    """The blind index of an account's number."""
    return keys.blind_index(INDEX, number)


_COLUMNS = "id, ending, party, source, added_by, added_at"


def _standing(tx: Tx, bank_account_id: UUID, account_index: bytes) -> Counterparty | None:
    with cursor(tx) as sql:
        row = sql.execute(
            f"SELECT {_COLUMNS} FROM ledger.bank_counterparty"
            " WHERE bank_account_id = %s AND account_index = %s AND ended_at IS NULL",
            (bank_account_id, account_index),
        ).fetchone()
    return Counterparty(*row) if row is not None else None
