"""When statements that say it in different words mean the same money.

A bank that sends its days once as camt.053 and once as MT940 writes other references and other texts, and opens batches in one of
them only. What can't differ are balances and amounts: where two statements of an account say of a day that it began with one balance,
and had entries of the same amounts, each as often, it is the same day, told twice. Nothing less is taken for it: a day that one of them
begins otherwise, or on which one has an entry more, leaves every line that is not word for word the same.
"""

from collections.abc import Collection
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor


def days(tx: Tx, statement_id: UUID, earlier: Collection[UUID]) -> list[date]:
    """The days of a statement whose entries are those that `earlier` ones have, together, in number and amounts.

    Two of one format that cover the same days and have different numbers are never the same one.
    """
    if not earlier:
        return []
    with cursor(tx) as sql:
        rows = sql.execute(_DAYS, {"statement": statement_id, "earlier": list(earlier)})
        return [row[0] for row in rows]


def mark(tx: Tx, statement_id: UUID, earlier: Collection[UUID]) -> None:
    """Mark the lines of these days, as far as they are not marked yet: each entry as one of the same amount."""
    found = days(tx, statement_id, earlier)
    if found:
        with cursor(tx) as sql:
            sql.execute(_MARK, {"statement": statement_id, "earlier": list(earlier), "days": found})


def same_entries(tx: Tx, one: UUID, other: UUID) -> bool:
    """Whether two statements have entries of the same days and amounts, each as often."""
    with cursor(tx) as sql:
        return sql.execute(_DIFFERENT, {"one": one, "other": other}).fetchone() is None


_DAYS = """
    WITH entry AS (
        SELECT statement_id, booked_on AS day, entry, sum(amount) AS total,
               bool_and(duplicate_of IS NOT NULL AND statement_id <> %(statement)s) AS is_duplicate
        FROM ledger.statement_line WHERE statement_id = %(statement)s OR statement_id = ANY (%(earlier)s)
        GROUP BY statement_id, booked_on, entry
    ), opened AS (
        SELECT e.statement_id, e.day, s.opening + sum(sum(e.total)) OVER (PARTITION BY e.statement_id ORDER BY e.day) - sum(e.total)
                   AS balance, array_agg(e.total ORDER BY e.total) AS totals
        FROM entry e JOIN ledger.bank_statement s ON s.id = e.statement_id GROUP BY e.statement_id, e.day, s.opening
    ), known AS (
        SELECT day, array_agg(total ORDER BY total) AS totals FROM entry
        WHERE statement_id <> %(statement)s AND NOT is_duplicate GROUP BY day
    )
    SELECT o.day FROM opened o JOIN known k USING (day)
    JOIN ledger.bank_statement s ON s.id = o.statement_id JOIN ledger.statement_file f ON f.id = s.file_id
    WHERE o.statement_id = %(statement)s AND o.totals = k.totals AND o.day BETWEEN s.from_on AND s.to_on AND EXISTS (
        SELECT FROM opened b JOIN ledger.bank_statement t ON t.id = b.statement_id JOIN ledger.statement_file g ON g.id = t.file_id
        WHERE b.statement_id <> o.statement_id AND b.day = o.day AND b.balance = o.balance AND o.day BETWEEN t.from_on AND t.to_on
          AND (g.format <> f.format OR (t.from_on, t.to_on) <> (s.from_on, s.to_on) OR t.number = s.number
               OR t.number IS NULL OR s.number IS NULL))
"""
_MARK = """
    WITH ours AS (
        SELECT booked_on AS day, entry, sum(amount) AS total, array_agg(id) AS lines FROM ledger.statement_line
        WHERE statement_id = %(statement)s AND booked_on = ANY (%(days)s) GROUP BY booked_on, entry HAVING bool_or(duplicate_of IS NULL)
    ), known AS (
        SELECT l.booked_on AS day, sum(l.amount) AS total, (array_agg(l.id ORDER BY l.detail))[1] AS line,
               bool_or(EXISTS (SELECT FROM ledger.statement_line d WHERE d.duplicate_of = l.id AND d.statement_id = %(statement)s))
                   AS is_taken
        FROM ledger.statement_line l
        WHERE l.statement_id = ANY (%(earlier)s) AND l.booked_on = ANY (%(days)s) AND l.duplicate_of IS NULL
        GROUP BY l.statement_id, l.booked_on, l.entry
    ), fresh AS (
        SELECT *, row_number() OVER (PARTITION BY day, total ORDER BY entry) AS nth FROM ours
    ), free AS (
        SELECT *, row_number() OVER (PARTITION BY day, total ORDER BY is_taken, line) AS nth FROM known
    )
    UPDATE ledger.statement_line l SET duplicate_of = k.line
    FROM fresh o JOIN free k USING (day, total, nth)
    WHERE l.id = ANY (o.lines) AND l.duplicate_of IS NULL
      AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)
"""
_DIFFERENT = """
    SELECT booked_on, total FROM (
        SELECT statement_id, booked_on, sum(amount) AS total FROM ledger.statement_line
        WHERE statement_id IN (%(one)s, %(other)s) GROUP BY statement_id, booked_on, entry
    ) e GROUP BY booked_on, total
    HAVING count(*) FILTER (WHERE statement_id = %(one)s) <> count(*) FILTER (WHERE statement_id = %(other)s) LIMIT 1
"""
