"""Applying what rails say: answers, callbacks, files; early, twice, out of order, or about nothing that is known.

Reports are applied in sets, under the lock of the payouts that they are about. Whatever is more than the answer to a question is
kept as evidence (`products.rail_report`); what matches no attempt is kept too, and tried again when an attempt gets the
rail's reference that it names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import new_id
from ledger.posting import Transaction
from products.payouts import accounts, states
from products.payouts.changes import SYSTEM, Change, change_many
from products.payouts.rails import Report, Sent
from products.payouts.registry import ConfiguredRail
from products.payouts.states import Attempt, Money
from products.payouts.submission import books_day, parts_of, pause
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books
from products.savings import forfeiture
from products.savings.withdrawals import undo_withdrawals

Source = Literal["answer", "callback", "file", "hand", "statement"]
Outcome = Literal["applied", "repeated", "outdated", "unmatched", "contradicts"]

KEPT_REPORTS: Final = frozenset({"callback", "file", "hand", "statement"})
"""Sources whose every report is kept; of answers, only what contradicts."""
ASKS_AFTER: Final = timedelta(seconds=30)
_FINAL: Final = frozenset({"paid", "failed", "returned"})
NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a report: the payout it is of, if any, and why it contradicts, if it does."""

    outcome: Outcome
    payout_id: UUID | None = None
    problem: str | None = None


@dataclass(slots=True, eq=False)
class _Entry:
    """An attempt that reports are about, as it was and as it becomes."""

    id: UUID
    payout_id: UUID
    number: int
    asked: int
    payout_state: str
    problem: str | None
    before: Attempt
    after: Attempt
    next_at: datetime | None
    next_before: datetime | None
    states: list[Change] = field(default_factory=list)
    moves: list[tuple[str, Money]] = field(default_factory=list)
    new_problem: str | None = None


def apply(
    tx: Tx,
    books: Books,
    rail: ConfiguredRail,
    reports: Sequence[Report],
    *,
    source: Source = "answer",
    callback_id: UUID | None = None,
    asked: Sequence[Sent] = (),
    called_at: datetime | None = None,
    asks_after: timedelta = ASKS_AFTER,
    forgets_after_seconds: float = NEVER,
    actor: str = SYSTEM,
    booked_on: date | None = None,
) -> list[Told]:
    """Apply reports, in order; what became of each. The same again changes nothing.

    ``asked``: the payments as they stood when the rail was called, at ``called_at``, where these are its answers: a worker that was
    held up for long may bring word of what others have followed up since. ``booked_on``: the day on which the bank booked it, where a
    statement says so; today's otherwise. A report whose postings the books refuse is kept as a contradiction, and holds up no other.
    """
    work = _Applying(
        tx,
        books,
        rail,
        source,
        callback_id,
        asked,
        called_at,
        asks_after,
        forgets_after_seconds,
        actor,
        booked_on,
    )
    try:
        with tx.begin_nested():
            return work.run(reports)
    except BooksRefused:
        if len(reports) == 1:
            return [work.refused(reports[0])]
        return [
            one
            for report in reports
            for one in apply(
                tx,
                books,
                rail,
                [report],
                source=source,
                callback_id=callback_id,
                asked=asked,
                called_at=called_at,
                asks_after=asks_after,
                forgets_after_seconds=forgets_after_seconds,
                actor=actor,
                booked_on=booked_on,
            )
        ]


class _Applying:
    """One set of reports on its way through the books."""

    def __init__(
        self,
        tx: Tx,
        books: Books,
        rail: ConfiguredRail,
        source: Source,
        callback_id: UUID | None,
        asked: Sequence[Sent],
        called_at: datetime | None,
        asks_after: timedelta,
        forgets_after_seconds: float,
        actor: str,
        booked_on: date | None,
    ) -> None:
        self.tx, self.books, self.rail = tx, books, rail
        self.source, self.callback_id = source, callback_id
        self.asks_after, self.forgets_after_seconds = asks_after, forgets_after_seconds
        self.actor = actor
        self.called_at = called_at
        self.booked_on = booked_on
        self.asked = {one.attempt: one for one in asked}
        self.now = books.clock.now()

    def run(self, reports: Sequence[Report]) -> list[Told]:
        """Apply and write everything."""
        entries = self._load(reports)
        told = [self._take(entries, report) for report in reports]
        known = list(dict.fromkeys(entries.values()))
        self._retry_unmatched(known)
        self._post(known)
        self._save(known)
        self._keep(reports, told, entries)
        return told

    def refused(self, report: Report) -> Told:
        """Keep a report that the books refuse, and show the payout to a manager."""
        entries = self._load([report])
        entry = next(iter(entries.values()))
        told = Told("contradicts", entry.payout_id, "books_refused")
        self._flag([(entry.payout_id, "books_refused")])
        self._keep([report], [told], entries)
        return told

    def _load(self, reports: Sequence[Report]) -> dict[object, _Entry]:
        """The attempts that reports name, by id and by the rail's reference, under their payouts' locks."""
        ids = [one.attempt for one in reports if one.attempt is not None]
        references = [
            one.rail_reference for one in reports if one.attempt is None and one.rail_reference is not None
        ]
        cur = cursor(self.tx)
        cur.execute(
            "SELECT 1 FROM products.payout WHERE id IN (SELECT payout_id FROM products.payout_attempt WHERE rail_id = %s"
            " AND (id = ANY (%s) OR rail_reference = ANY (%s))) ORDER BY id FOR NO KEY UPDATE",
            [self.rail.id, ids, references],
        )
        # in a new statement: what waited for the locks would see the attempts as they were
        rows = cur.execute(
            "SELECT a.id, a.payout_id, a.number, a.asked, a.next_at, p.state, p.problem, a.state, a.money, a.amount,"
            " a.doubtful, a.sent_at, a.reported_at, a.rail_reference, a.reason, a.code, a.rail_fee"
            " FROM products.payout_attempt a JOIN products.payout p ON p.id = a.payout_id"
            " WHERE a.rail_id = %s AND (a.id = ANY (%s) OR a.rail_reference = ANY (%s))",
            [self.rail.id, ids, references],
        )
        found: dict[object, _Entry] = {}
        for row in rows:
            entry = self._entry(row)
            found[entry.id] = entry
            if entry.before.rail_reference is not None:
                found[entry.before.rail_reference] = entry
        return found

    def _entry(self, row: tuple[Any, ...]) -> _Entry:
        id_, payout_id, number, asked, next_at, payout_state, problem, state, money, amount, *rest = row
        doubtful, sent_at, reported_at, rail_reference, reason, code, rail_fee = rest
        attempt = Attempt(
            state,
            money,
            amount,
            self.rail.currency,
            doubtful,
            sent_at,
            reported_at,
            rail_reference,
            reason,
            code,
            rail_fee,
        )
        return _Entry(
            id_, payout_id, number, asked, payout_state, problem, attempt, attempt, next_at, next_at
        )

    def _take(self, entries: dict[object, _Entry], report: Report) -> Told:
        entry = entries.get(report.attempt) if report.attempt is not None else None
        if entry is None and report.attempt is None:
            entry = entries.get(report.rail_reference)
        if entry is None:
            return Told("unmatched")
        return self._apply(entry, report)

    def _is_overtaken(self, entry: _Entry, report: Report) -> bool:
        """Whether that a payment isn't there is said of an earlier sending, or was asked before the rail was known to have it."""
        asked = self.asked.get(entry.id)
        if asked is None or report.state not in ("not_sent", "not_found"):
            return False
        return asked.sent_at != entry.after.sent_at or (
            not asked.known and entry.after.state in states.KNOWN_TO_RAIL
        )

    def _apply(self, entry: _Entry, report: Report) -> Told:
        if self._is_overtaken(entry, report):
            return Told("outdated", entry.payout_id)
        applied = states.apply(
            entry.after, report, now=self.now, forgets_after_seconds=self.forgets_after_seconds
        )
        before, after = entry.after, applied.attempt
        entry.after = after
        if applied.problem is not None:
            entry.new_problem = applied.problem
            return Told("contradicts", entry.payout_id, applied.problem)
        if after.money != before.money:
            entry.moves.append((after.state, before.money))
        state = states.state_of(after)
        if state != (entry.states[-1].state if entry.states else entry.payout_state):
            entry.states.append(Change(entry.payout_id, state, self._reason(after), self.actor))
        # an answer that says nothing leaves the time at which it is asked again
        said_last_word = after.state in _FINAL and report.state != "unknown"
        if applied.outcome == "applied" or said_last_word or report.ask_again_at is not None:
            entry.next_at = self._next(entry, report)
        return Told(applied.outcome, entry.payout_id)

    def _reason(self, attempt: Attempt) -> str | None:
        match attempt.state:
            case "failed" | "returned":
                return attempt.reason or "other"
            case "unknown":
                return "no_answer"
            case _:
                return None

    def _next(self, entry: _Entry, report: Report) -> datetime | None:
        """When this payment is looked at again; None: its rail has said what there was to say."""
        if report.ask_again_at is not None:
            return max(report.ask_again_at, self.now)
        if (
            self.called_at is not None
            and entry.next_at is not None
            and self.called_at < entry.next_at <= self.now
        ):
            return entry.next_at  # a callback gave reason to ask after this answer was on its way
        if entry.after.state in _FINAL:
            return None
        return self.now + pause(self.asks_after, entry.asked)

    def _retry_unmatched(self, entries: Sequence[_Entry]) -> None:
        """Apply what came before its payment was known: callbacks that name a reference that an attempt has now."""
        named = {
            one.after.rail_reference: one
            for one in entries
            if one.after.rail_reference is not None and one.before.rail_reference is None
        }
        if not named:
            return
        rows = (
            cursor(self.tx)
            .execute(
                "SELECT id, rail_reference, said, reason, code, at, amount, currency, fee FROM products.rail_report"
                " WHERE rail_id = %s AND outcome = 'unmatched' AND rail_reference = ANY (%s) ORDER BY id FOR NO KEY UPDATE",
                [self.rail.id, list(named)],
            )
            .fetchall()
        )
        for id_, reference, said, reason, code, at, amount, currency, fee in rows:
            entry = named[reference]
            report = Report(said, entry.id, reference, at, reason, code, amount, currency, fee)
            told = self._apply(entry, report)
            cursor(self.tx).execute(
                "UPDATE products.rail_report SET outcome = %s, problem = %s, attempt_id = %s, payout_id = %s WHERE id = %s",
                [told.outcome, told.problem, entry.id, entry.payout_id, id_],
            )

    def _post(self, entries: Sequence[_Entry]) -> None:
        """Move the money of those that it moves for; a fee that the rail took beside it."""
        moved = [one for one in entries if one.moves]
        charged = [one for one in entries if one.after.rail_fee and one.before.rail_fee is None]
        if not moved and not charged:
            return
        on = books_day(self.tx, self.rail, self.now, booked_on=self.booked_on)
        back = [one for one in moved if one.after.money == "back"]
        parts = parts_of(self.tx, [one.payout_id for one in back])
        batch: list[Transaction] = []
        for one in moved:
            for state, was in one.moves:
                match state:
                    case "paid":
                        batch.append(
                            accounts.paid(self.rail, one.payout_id, one.number, one.after.amount, on)
                        )
                    case "failed" | "returned":
                        batch.append(
                            accounts.back(
                                self.rail,
                                one.payout_id,
                                one.number,
                                parts[one.payout_id],
                                state,
                                on,
                                was_out=was == "out",
                            )
                        )
        batch += [
            accounts.charged(self.rail, one.payout_id, one.number, one.after.rail_fee or 0, on)
            for one in charged
        ]
        given_back = [one.payout_id for one in back]
        if given_back:
            batch += forfeiture.come_back(self.tx, self.books, given_back)
        post_whole(self.tx, batch, clock=self.books.clock)
        if given_back:
            undo_withdrawals(self.tx, given_back, self.now)

    def _save(self, entries: Sequence[_Entry]) -> None:
        changed = [
            one
            for one in entries
            if one.after != one.before or one.next_at != one.next_before or one.new_problem is not None
        ]
        if not changed:
            return
        columns: dict[str, Callable[[_Entry], object]] = {
            "id": lambda one: one.id,
            "state": lambda one: one.after.state,
            "doubtful": lambda one: one.after.doubtful,
            "money": lambda one: one.after.money,
            "next_at": lambda one: one.next_at,
            "rail_reference": lambda one: one.after.rail_reference,
            "reason": lambda one: one.after.reason,
            "code": lambda one: one.after.code,
            "reported_at": lambda one: one.after.reported_at,
            "rail_fee": lambda one: one.after.rail_fee,
        }
        cursor(self.tx).execute(
            "UPDATE products.payout_attempt AS a SET state = n.state, doubtful = n.doubtful, money = n.money,"
            " next_at = n.next_at, rail_reference = n.rail_reference, reason = n.reason, code = n.code,"
            " reported_at = n.reported_at, rail_fee = n.rail_fee"
            " FROM unnest(%s::uuid[], %s::text[], %s::bool[], %s::text[], %s::timestamptz[], %s::text[], %s::text[],"
            f" %s::text[], %s::timestamptz[], %s::bigint[]) AS n ({', '.join(columns)}) WHERE a.id = n.id",
            [[value(one) for one in changed] for value in columns.values()],
        )
        steps = max(len(one.states) for one in changed)
        for step in range(steps):
            change_many(self.tx, [one.states[step] for one in changed if step < len(one.states)], self.now)
        self._flag(
            [
                (one.payout_id, one.new_problem)
                for one in changed
                if one.new_problem not in (None, one.problem)
            ]
        )

    def _flag(self, problems: Sequence[tuple[UUID, str | None]]) -> None:
        if problems:
            cursor(self.tx).execute(
                "UPDATE products.payout AS p SET problem = f.problem FROM unnest(%s::uuid[], %s::text[]) AS f (id, problem)"
                " WHERE p.id = f.id",
                [[id_ for id_, _ in problems], [problem for _, problem in problems]],
            )

    def _keep(self, reports: Sequence[Report], told: Sequence[Told], entries: dict[object, _Entry]) -> None:
        """Keep evidence: all that came unasked, and of answers what contradicts, once."""
        kept = [
            (report, one)
            for report, one in zip(reports, told, strict=True)
            if self.source in KEPT_REPORTS
            or (
                one.outcome == "contradicts"
                and (report.attempt not in entries or entries[report.attempt].problem != one.problem)
            )
        ]
        if not kept:
            return
        with cursor(self.tx).copy(
            "COPY products.rail_report (id, rail_id, callback_id, source, attempt_id, payout_id, rail_reference, said, reason,"
            " code, at, amount, currency, fee, outcome, problem, received_at) FROM STDIN"
        ) as copy:
            for report, one in kept:
                copy.write_row(
                    (
                        new_id(),
                        self.rail.id,
                        self.callback_id,
                        self.source,
                        report.attempt,
                        one.payout_id,
                        report.rail_reference,
                        report.state,
                        report.reason,
                        report.code,
                        report.at,
                        report.amount,
                        report.currency,
                        report.fee,
                        one.outcome,
                        one.problem,
                        self.now,
                    )
                )
