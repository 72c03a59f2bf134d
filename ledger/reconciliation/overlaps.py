"""Lines that came twice: the same line of overlapping statements is marked, and takes part in nothing.

Two statements overlap when they have days in common and neither goes on where the other ended: a bank may cut one day into several
statements, each opening with the closing balance of the one before. Of overlapping statements, the n-th occurrence of a line in the later
one is the n-th in the earlier ones; so a line that is there twice in one statement stays twice. Days that both tell in other words
(another format) are the same by their balances and amounts (`same_money`). Which statement is the later one is decided by when it came
in: what was there first may be paired already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.reconciliation import same_money


@dataclass(frozen=True, slots=True)
class Span:
    """Which days a statement covers, and between which balances; its number, and the format that it came in."""

    id: UUID
    from_on: date
    to_on: date
    opening: int
    closing: int
    lines: int
    number: str | None
    format: str


SPANS = (
    "SELECT s.id, s.from_on, s.to_on, s.opening, s.closing, s.lines, s.number, f.format"
    " FROM ledger.bank_statement s JOIN ledger.statement_file f ON f.id = s.file_id"
)
"""What a `Span` is made of; its WHERE leaves out what was withdrawn."""


def mark(tx: Tx, bank_account_id: UUID, statement_id: UUID) -> int:
    """Mark the lines of a statement that just came in which earlier statements have; how many. Holds the account's lock.

    It may be what was missing between two that seemed to overlap: theirs are judged again.
    """
    spans = _around(tx, bank_account_id, statement_id)
    by_id = {span.id: span for span in spans}
    marked = _judge(tx, by_id[statement_id], spans)
    for span in spans:
        if span.id != statement_id and _has_duplicates(tx, span.id):
            _judge(tx, span, _around(tx, bank_account_id, span.id))
    return marked


def unmark(tx: Tx, bank_account_id: UUID, statement_id: UUID) -> None:
    """A statement was withdrawn: those that overlap it are judged again, without it. Holds the account's lock."""
    for span in sorted(_around(tx, bank_account_id, statement_id), key=lambda one: one.id):
        _judge(tx, span, _around(tx, bank_account_id, span.id))


def overlapping(tx: Tx, one: Span, others: Sequence[Span]) -> list[Span]:
    """Those of `others` that have days in common with `one` and aren't its continuation, forwards or backwards."""
    around = [
        span
        for span in others
        if span.id != one.id and span.from_on <= one.to_on and one.from_on <= span.to_on
    ]
    chained = _chain(tx, one, around, forwards=True) | _chain(tx, one, around, forwards=False)
    return [span for span in around if span.id not in chained or _is_the_same(tx, one, span)]


def repeated_days(tx: Tx, bank_account_id: UUID, one: Span) -> list[date]:
    """The days of a statement that those which came before it tell too, in whatever words."""
    around = _around(tx, bank_account_id, one.id)
    return same_money.days(tx, one.id, [span.id for span in overlapping(tx, one, around) if span.id < one.id])


def _is_the_same(tx: Tx, one: Span, other: Span) -> bool:
    """Whether two are one statement that came twice, though their balances would fit after each other, through others or by themselves."""
    return (
        (one.from_on, one.to_on, one.opening, one.closing)
        == (other.from_on, other.to_on, other.opening, other.closing)
        and (one.format != other.format or (one.number is not None and one.number == other.number))
        and same_money.same_entries(tx, one.id, other.id)
    )


def _chain(tx: Tx, one: Span, around: Sequence[Span], *, forwards: bool) -> set[UUID]:
    """The statements that follow `one` (or that it follows), balance by balance, as far as they share its boundary day."""
    found: set[UUID] = set()
    ends = [one]
    while ends:
        end = ends.pop()
        for span in around:
            earlier, later = (end, span) if forwards else (span, end)
            if (
                span.id not in found
                and earlier.closing == later.opening
                and earlier.to_on <= later.from_on
                and not _repeats(tx, earlier, later)
            ):
                found.add(span.id)
                ends.append(span)
    return found


def _repeats(tx: Tx, earlier: Span, later: Span) -> bool:
    """Whether one of two statements moves nothing in sum and has no line that the other lacks.

    Then the balances don't tell whether it comes beside the other or is within it; that all of its lines are there does.
    """
    for one, other in ((earlier, later), (later, earlier)):
        if one.opening == one.closing and one.lines:
            with cursor(tx) as sql:
                missing = sql.execute(_MISSING, {"one": one.id, "other": other.id}).fetchone()
            if missing is None:
                return True
    return False


_MISSING = """
    SELECT fingerprint FROM ledger.statement_line WHERE statement_id IN (%(one)s, %(other)s) GROUP BY fingerprint
    HAVING count(*) FILTER (WHERE statement_id = %(one)s) > count(*) FILTER (WHERE statement_id = %(other)s) LIMIT 1
"""


def _around(tx: Tx, bank_account_id: UUID, statement_id: UUID) -> list[Span]:
    with cursor(tx) as sql:
        rows = sql.execute(
            f"{SPANS} JOIN ledger.bank_statement n ON n.id = %s AND s.from_on <= n.to_on AND n.from_on <= s.to_on"
            " WHERE s.bank_account_id = %s AND s.withdrawn_at IS NULL",
            (statement_id, bank_account_id),
        ).fetchall()
    return [Span(*row) for row in rows]


def _has_duplicates(tx: Tx, statement_id: UUID) -> bool:
    with cursor(tx) as sql:
        return (
            sql.execute(
                "SELECT 1 FROM ledger.statement_line WHERE statement_id = %s AND duplicate_of IS NOT NULL LIMIT 1",
                (statement_id,),
            ).fetchone()
            is not None
        )


def _judge(tx: Tx, one: Span, around: Sequence[Span]) -> int:
    """Mark what `one` has in common with those that came before it and overlap; how many lines bear a mark then."""
    earlier = [span.id for span in overlapping(tx, one, around) if span.id < one.id]
    with cursor(tx) as sql:
        sql.execute(_MARK, {"statement": one.id, "earlier": earlier})
    same_money.mark(tx, one.id, earlier)
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT count(*) FROM ledger.statement_line WHERE statement_id = %s AND duplicate_of IS NOT NULL",
            (one.id,),
        ).fetchone()
    return int(row[0]) if row else 0


_MARK = """
    WITH fresh AS (
        SELECT id, fingerprint, duplicate_of, row_number() OVER (PARTITION BY fingerprint ORDER BY entry, detail) AS nth
        FROM ledger.statement_line WHERE statement_id = %(statement)s
    ), known AS (
        SELECT id, fingerprint, row_number() OVER (PARTITION BY fingerprint ORDER BY id) AS nth
        FROM ledger.statement_line WHERE statement_id = ANY (%(earlier)s) AND duplicate_of IS NULL
    )
    UPDATE ledger.statement_line l SET duplicate_of = k.id
    FROM fresh f LEFT JOIN known k USING (fingerprint, nth)
    WHERE l.id = f.id AND l.duplicate_of IS DISTINCT FROM k.id
      -- what is paired stays what it is
      AND (k.id IS NULL OR NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id))
"""
