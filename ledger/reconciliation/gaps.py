"""What is missing between the statements of an account, and what they have twice."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.reconciliation.bank_accounts import by_id
from ledger.reconciliation.overlaps import SPANS, Span, overlapping, repeated_days

GapKind = Literal["missing_days", "balance_differs", "number_skipped", "overlap_differs", "overlap_same"]
"""``missing_days``: no statement covers them, and the balance did not stay. ``balance_differs``: a statement opens with
another balance than the one before closed with. ``number_skipped``: nothing else is missing, but the bank's own numbers leave one out.
``overlap_differs``: two statements of the same days don't say the same of them. ``overlap_same``: they do."""

HARMLESS: Final[frozenset[GapKind]] = frozenset({"overlap_same"})
"""What is told, and leaves nothing in doubt."""

_A_DAY: Final = timedelta(days=1)
_FIRST_DAY: Final = attrgetter("from_on")
_NUMBER: Final = re.compile(r"0*([0-9]{1,9})(?:/.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Gap:
    """What doesn't fit between two statements: `before` and `statement` are theirs, in the order of days.

    From `from_on` to `to_on`; `expected` and `found` are balances in minor units; `numbers` are those that the bank's own left out,
    first and last, whatever the kind: one missing statement is one gap.
    """

    kind: GapKind
    from_on: date
    to_on: date
    before: UUID | None = None
    statement: UUID | None = None
    expected: int | None = None
    found: int | None = None
    numbers: tuple[int, int] | None = None

    @property
    def harmless(self) -> bool:
        """Whether it leaves nothing in doubt."""
        return self.kind in HARMLESS


def gaps(tx: Tx, bank_account_id: UUID, *, through: date | None = None) -> list[Gap]:
    """Everything that doesn't fit between an account's statements, in the order of days.

    Days without a statement are no gap where the next one opens with the balance of the last: banks send none for days
    without movements. With `through`, statements are expected to reach that day (or `statements_until`, if that is earlier).
    """
    account = by_id(tx, bank_account_id)
    if through is not None and account.statements_until is not None:
        through = min(through, account.statements_until)
    statements = _statements(tx, bank_account_id)
    found = list(_between(tx, bank_account_id, statements))
    if statements and statements[0].from_on > account.statements_since and statements[0].opening:
        first = statements[0]
        found.insert(
            0,
            Gap(
                "missing_days",
                account.statements_since,
                first.from_on - _A_DAY,
                statement=first.id,
                found=first.opening,
            ),
        )
    if through is not None and through >= account.statements_since:
        last = max((one.to_on for one in statements), default=account.statements_since - _A_DAY)
        if last < through:
            found.append(
                Gap(
                    "missing_days",
                    last + _A_DAY,
                    through,
                    before=statements[-1].id if statements else None,
                )
            )
    return found


def _between(tx: Tx, bank_account_id: UUID, statements: Sequence[Span]) -> Iterable[Gap]:
    last: Span | None = None
    reaching: list[Span] = []
    for span in statements:
        # the first days are in order: what ends before this one does not reach into any that follows
        reaching = [other for other in reaching if other.to_on >= span.from_on]
        common = overlapping(tx, span, reaching)
        reaching.append(span)
        if last is None:
            last = span
            continue
        for other in common:
            yield _overlap(tx, bank_account_id, other, span)
        skipped = _skipped(last, span, statements)
        if not common and span.opening != last.closing:
            days = span.from_on > last.to_on + _A_DAY
            yield Gap(
                "missing_days" if days else "balance_differs",
                last.to_on + _A_DAY if days else span.from_on,
                span.from_on - _A_DAY if days else span.from_on,
                before=last.id,
                statement=span.id,
                expected=last.closing,
                found=span.opening,
                numbers=skipped,
            )
        elif skipped is not None:
            yield Gap(
                "number_skipped", last.to_on, span.from_on, before=last.id, statement=span.id, numbers=skipped
            )
        if span.to_on > last.to_on or (span.to_on == last.to_on and not common):
            last = span


def _overlap(tx: Tx, bank_account_id: UUID, earlier: Span, later: Span) -> Gap:
    from_on, to_on = max(earlier.from_on, later.from_on), min(earlier.to_on, later.to_on)
    same = _says_the_same(tx, earlier, later, from_on, to_on)
    if not same:
        came_later = max(earlier, later, key=lambda one: one.id)
        days = _days_with_lines(tx, earlier, later, from_on, to_on)
        same = days.issubset(repeated_days(tx, bank_account_id, came_later))
    return Gap(
        "overlap_same" if same else "overlap_differs",
        from_on,
        to_on,
        before=earlier.id,
        statement=later.id,
    )


def _says_the_same(tx: Tx, one: Span, other: Span, from_on: date, to_on: date) -> bool:
    """Whether two statements have the same lines on the days that both cover, each as often."""
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT array_agg(fingerprint ORDER BY fingerprint) FROM ledger.statement_line"
            " WHERE statement_id IN (%s, %s) AND booked_on BETWEEN %s AND %s GROUP BY statement_id",
            (one.id, other.id, from_on, to_on),
        ).fetchall()
    if (one.from_on, one.to_on) == (other.from_on, other.to_on) and (one.opening, one.closing) != (
        other.opening,
        other.closing,
    ):
        return False
    return not rows or (len(rows) == 2 and rows[0] == rows[1])


def _days_with_lines(tx: Tx, one: Span, other: Span, from_on: date, to_on: date) -> set[date]:
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT DISTINCT booked_on FROM ledger.statement_line WHERE statement_id IN (%s, %s) AND booked_on BETWEEN %s AND %s",
            (one.id, other.id, from_on, to_on),
        )
        return {row[0] for row in rows}


def _skipped(before: Span, one: Span, statements: Sequence[Span]) -> tuple[int, int] | None:
    """The bank's own numbers between two statements that no other bears; None where they aren't numbered one by one, or begin anew.

    A bank that sends two formats numbers each by itself.
    """
    if before.format != one.format:
        return None
    first, second = _number(before), _number(one)
    if first is None or second is None or second <= first + 1 or _begins_with_the_year(before, one):
        return None
    # beside a statement of several days there may be some of single days
    from_here = bisect_left(statements, before.from_on, key=_FIRST_DAY)
    to_here = bisect_right(statements, one.from_on, key=_FIRST_DAY)
    there = {_number(other) for other in statements[from_here:to_here] if other.format == one.format}
    lowest, highest = first + 1, second - 1
    while lowest in there:
        lowest += 1
    while highest in there:
        highest -= 1
    return (lowest, highest) if lowest <= highest else None


def _number(one: Span) -> int | None:
    """The running number; None for what is none, or the day in disguise."""
    written = _NUMBER.fullmatch((one.number or "").strip())
    if written is None:
        return None
    number = int(written[1])
    days = [one.from_on, one.to_on]
    spelled = ("%Y%m%d", "%y%m%d", "%j", "%y%j", "%Y%j")
    return None if number in {int(day.strftime(form)) for day in days for form in spelled} else number


def _begins_with_the_year(before: Span, one: Span) -> bool:
    """Whether the year changed between two statements, and both numbers begin with theirs: 260000251, 270000001."""
    years = before.to_on.year, one.to_on.year
    numbers = (before.number or "").strip(), (one.number or "").strip()
    return years[0] != years[1] and any(
        all(number.startswith(str(year)[digits:]) for number, year in zip(numbers, years, strict=True))
        for digits in (0, 2)
    )


def _statements(tx: Tx, bank_account_id: UUID) -> list[Span]:
    """By their days; those that begin on one day in the order in which their balances follow each other."""
    with cursor(tx) as sql:
        rows = sql.execute(
            f"{SPANS} WHERE s.bank_account_id = %s AND s.withdrawn_at IS NULL ORDER BY s.from_on, s.to_on, s.made_at NULLS LAST, s.id",
            (bank_account_id,),
        ).fetchall()
    found: list[Span] = []
    by_day = groupby((Span(*row) for row in rows), key=_FIRST_DAY)
    for _, beginning in by_day:
        waiting = list(beginning)
        while waiting:
            following = _first_of(waiting, found[-1].closing if found else None)
            found.append(following)
            waiting.remove(following)
    return found


def _first_of(statements: Sequence[Span], balance: int | None) -> Span:
    """Of statements that begin on one day: the one that goes on from a balance, else one that no other goes on to."""
    following = [one for one in statements if one.opening == balance]
    if following:
        return following[0]
    closings = {one.closing for one in statements}
    heads = [one for one in statements if one.opening not in closings]
    return (heads or statements)[0]
