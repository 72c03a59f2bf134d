"""Statements and their lines, as they are read; and the texts of lines, which are emptied when a member is erased."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.reconciliation.sealing import Keys, LineText, open_text


@dataclass(frozen=True, slots=True)
class BankStatement:
    """A statement that came in. `duplicates` counts its lines that overlapping statements had before.

    `withdrawn_at`: it came in by mistake, counts nowhere, and its lines take part in nothing.
    """

    id: UUID
    file_id: UUID
    digest: bytes
    file: str
    format: str
    position: int
    bank_account_id: UUID
    account: str
    currency: str
    identification: str | None
    number: str | None
    from_on: date
    to_on: date
    opening: int
    closing: int
    lines: int
    duplicates: int
    made_at: datetime | None
    imported_at: datetime
    withdrawn_at: datetime | None
    withdrawn_by: str | None
    withdrawn_because: str | None


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A line of a statement, without what is personal in it (`texts`)."""

    id: UUID
    statement_id: UUID
    bank_account_id: UUID
    entry: int
    detail: int
    booked_on: date
    value_on: date
    amount: int
    currency: str
    kind: str | None
    reversal: bool
    end_to_end: str | None
    reference: str | None
    identifiers: Sequence[str]
    party: str | None
    duplicate_of: UUID | None


_STATEMENT = """
    SELECT s.id, s.file_id, f.digest, f.name, f.format, s.position, s.bank_account_id, b.slug, b.currency, s.identification,
           s.number, s.from_on, s.to_on, s.opening, s.closing, s.lines,
           (SELECT count(*) FROM ledger.statement_line l WHERE l.statement_id = s.id AND l.duplicate_of <> l.id),
           s.made_at, s.imported_at, s.withdrawn_at, s.withdrawn_by, s.withdrawn_because
    FROM ledger.bank_statement s JOIN ledger.bank_account b ON b.id = s.bank_account_id
    JOIN ledger.statement_file f ON f.id = s.file_id
"""
_LINE = """
    SELECT id, statement_id, bank_account_id, entry, detail, booked_on, value_on, amount, currency, kind, reversal, end_to_end,
           reference, identifiers, party, nullif(duplicate_of, id)
    FROM ledger.statement_line
"""


def statements(
    tx: Tx,
    *,
    bank_account_id: UUID | None = None,
    from_on: date | None = None,
    to_on: date | None = None,
    before: UUID | None = None,
    limit: int = 200,
) -> list[BankStatement]:
    """Statements that came in, the latest first: of one account, and with days from `from_on` to `to_on`, where that is said."""
    where = """
        WHERE (%(account)s::uuid IS NULL OR s.bank_account_id = %(account)s) AND (%(before)s::uuid IS NULL OR s.id < %(before)s)
          AND (%(from)s::date IS NULL OR s.to_on >= %(from)s) AND (%(to)s::date IS NULL OR s.from_on <= %(to)s)
        ORDER BY s.id DESC LIMIT %(limit)s
    """
    values = {"account": bank_account_id, "from": from_on, "to": to_on, "before": before, "limit": limit}
    return _statements(tx, where, values)


def statement(tx: Tx, statement_id: UUID) -> BankStatement:
    """The statement. Raises `NotFound`."""
    found = _statements(tx, "WHERE s.id = %(id)s", {"id": statement_id})
    if not found:
        raise NotFound("There is no such statement.")
    return found[0]


def of_file(tx: Tx, file_id: UUID) -> list[BankStatement]:
    """A file's statements that are here and not withdrawn, in its order."""
    return _statements(
        tx, "WHERE s.file_id = %(id)s AND s.withdrawn_at IS NULL ORDER BY s.position", {"id": file_id}
    )


def lines(
    tx: Tx, statement_id: UUID, *, after: tuple[int, int] = (0, 0), limit: int = 200
) -> list[StatementLine]:
    """A statement's lines in its order, after an entry and detail."""
    with cursor(tx) as sql:
        rows = sql.execute(
            f"{_LINE} WHERE statement_id = %s AND (entry, detail) > (%s, %s) ORDER BY entry, detail LIMIT %s",
            (statement_id, *after, limit),
        ).fetchall()
    return [StatementLine(*row) for row in rows]


def lines_by_id(tx: Tx, line_ids: Collection[UUID]) -> dict[UUID, StatementLine]:
    """Lines by their ids; what there is none of is left out."""
    with cursor(tx) as sql:
        rows = sql.execute(f"{_LINE} WHERE id = ANY (%s)", (list(line_ids),)).fetchall()
    return {row[0]: StatementLine(*row) for row in rows}


def texts(tx: Tx, keys: Keys, line_ids: Collection[UUID]) -> dict[UUID, LineText]:
    """The texts of lines, as far as they have any: they are emptied by erasure, and when their file's time is over."""
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT l.id, l.text_sealed, f.id, f.wrapped_key FROM ledger.statement_line l"
            " JOIN ledger.bank_statement s ON s.id = l.statement_id JOIN ledger.statement_file f ON f.id = s.file_id"
            " WHERE l.id = ANY (%s) AND l.text_sealed IS NOT NULL AND f.wrapped_key IS NOT NULL",
            (list(line_ids),),
        ).fetchall()
    return {
        line_id: open_text(keys.cipher(wrapped, file_id), line_id, sealed)
        for line_id, sealed, file_id, wrapped in rows
    }


def forget_texts(tx: Tx, line_ids: Collection[UUID]) -> int:
    """Empty what is personal in lines (a member's, who is erased), and in the lines that are the same; how many had any.

    Amounts, days and references stay: the books hang on them. The bank's file itself is kept as it came, sealed, until its time
    is over (`files.destroy_next`): it is evidence of the account as a whole. As the worker's role.
    """
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE ledger.statement_line SET text_sealed = NULL, counterparty_index = NULL"
            " WHERE (id = ANY (%(lines)s) OR duplicate_of = ANY (%(lines)s))"
            " AND (text_sealed IS NOT NULL OR counterparty_index IS NOT NULL)",
            {"lines": list(line_ids)},
        )
        return sql.rowcount


def _statements(tx: Tx, where: str, values: Mapping[str, Any]) -> list[BankStatement]:
    with cursor(tx) as sql:
        rows = sql.execute(f"{_STATEMENT} {where}".encode(), values).fetchall()
    return [BankStatement(*row) for row in rows]
