"""Sending payouts off: what leaves the books before a rail is called, and what is asked about afterwards.

An outside call is three steps. `prepare` captures the holds, posts and writes the attempts of a batch, and commits: from then on
whoever finds an attempt without an answer knows that it may be at the rail. The caller calls. `products.payouts.reports.apply`
records. A process that dies in between leaves attempts whose lease runs out: they are asked about (`due_to_ask`), and sent
again (`prepare_again`) under the same id and batch only when the rail says that it has never heard of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from ledger import periods
from ledger.database import Tx, cursor
from ledger.ids import new_id, public_id
from ledger.posting import Transaction, post
from products.payouts import accounts, payees
from products.payouts.accounts import HeldPart
from products.payouts.cancel import cancel_many
from products.payouts.changes import SYSTEM, Change, change_many
from products.payouts.payees import Holder, PayeeStanding
from products.payouts.rails import Instruction, Sent
from products.payouts.registry import ConfiguredRail
from products.payouts.states import KNOWN_TO_RAIL
from products.remittances.context import Books
from products.savings import forfeiture

PAUSE_MAX: Final = timedelta(hours=1)
"""The longest pause between two questions about one payment."""
DOUBLINGS_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is on record as sent: call the rail with exactly this, then apply what it answers."""

    batch: UUID
    asked_on: date
    instructions: tuple[Instruction, ...]
    sent_at: datetime

    @property
    def sent(self) -> list[Sent]:
        """What is sent, as it will be asked about."""
        return [Sent(one.attempt, self.batch, None, self.sent_at) for one in self.instructions]


@dataclass(frozen=True, slots=True)
class _Approved:
    """An approved payout on its way out."""

    id: UUID
    link_id: UUID
    payee_id: UUID
    amount: int
    fee: int

    @property
    def to_payee(self) -> int:
        """What the payee gets, in minor units."""
        return self.amount - self.fee


def pause(first: timedelta, asked: int) -> timedelta:
    """How long to wait before asking for the so-many-th time: twice as long each time, an hour at most beyond the first."""
    return min(first * (1 << min(asked, DOUBLINGS_MAX)), max(first, PAUSE_MAX))


def prepare(tx: Tx, books: Books, rail: ConfiguredRail, *, limit: int, lease: timedelta) -> Prepared | None:
    """Take approved payouts from the rail's queue, in order, and let their money leave the members' accounts.

    What may not be paid any more (the payee removed, the link ended, the member erased) is cancelled instead. None: nothing
    is to be sent. Two workers at once take different payouts.
    """
    rows = cursor(tx).execute(
        "SELECT id, link_id, payee_id, amount, fee FROM products.payout WHERE rail_id = %s AND state = 'approved'"
        " ORDER BY approved_at, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED",
        [rail.id, limit],
    )
    waiting = [_Approved(*row) for row in rows]
    payable = _still_payable(tx, books, waiting)
    on = books_day(tx, rail, books.clock.now())
    left = _leave(tx, books, rail, payable, on)
    if not left:
        return None
    now, batch = books.clock.now(), new_id()
    attempts = [new_id() for _ in left]
    cursor(tx).execute(
        "INSERT INTO products.payout_attempt (id, payout_id, number, rail_id, batch_id, asked_on, amount, state, sendings,"
        " sent_at, next_at, money) SELECT a.id, a.payout_id, 1, %s, %s, %s, a.amount, 'sending', 1, %s, %s, 'clearing'"
        " FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[]) AS a (id, payout_id, amount)",
        [
            rail.id,
            batch,
            on,
            now,
            now + lease,
            attempts,
            [one.id for one in left],
            [one.to_payee for one in left],
        ],
    )
    change_many(tx, [Change(one.id, "submitted") for one in left], now)
    addressed = payees.addressed(tx, books.keyring, [one.payee_id for one in left])
    return Prepared(
        batch,
        on,
        tuple(
            Instruction(
                attempt,
                public_id("pay", one.id),
                one.to_payee,
                rail.currency,
                addressed[one.payee_id],
            )
            for attempt, one in zip(attempts, left, strict=True)
        ),
        now,
    )


def prepare_again(
    tx: Tx, books: Books, rail: ConfiguredRail, *, limit: int, lease: timedelta
) -> list[Prepared]:
    """What is known not to be at the rail, to be sent again under the same ids, batch by batch.

    A payee whose member was erased meanwhile can't be written to any more: such a payout waits for a manager.
    """
    now = books.clock.now()
    rows = (
        cursor(tx)
        .execute(
            "UPDATE products.payout_attempt AS a SET state = 'sending', sendings = sendings + 1, sent_at = %s, next_at = %s"
            " FROM (SELECT a.id, p.payee_id FROM products.payout_attempt a JOIN products.payout p ON p.id = a.payout_id"
            " WHERE a.rail_id = %s AND a.state = 'not_sent' AND a.next_at <= %s ORDER BY a.next_at LIMIT %s"
            " FOR NO KEY UPDATE OF p, a SKIP LOCKED) AS due WHERE a.id = due.id AND a.state = 'not_sent'"
            " RETURNING a.batch_id, a.asked_on, a.id, a.payout_id, a.amount, due.payee_id",
            [now, now + lease, rail.id, now, limit],
        )
        .fetchall()
    )
    addressed = payees.addressed(tx, books.keyring, [row[5] for row in rows])
    lost = [row for row in rows if row[5] not in addressed]
    if lost:
        cursor(tx).execute(
            "UPDATE products.payout_attempt SET state = 'not_sent', next_at = NULL WHERE id = ANY (%s)",
            [[row[2] for row in lost]],
        )
        cursor(tx).execute(
            "UPDATE products.payout SET problem = 'payee_unreadable' WHERE id = ANY (%s)",
            [[row[3] for row in lost]],
        )
    batches: dict[tuple[UUID, date], list[Instruction]] = {}
    for batch, asked_on, attempt, payout_id, amount, payee_id in rows:
        if payee_id in addressed:
            batches.setdefault((batch, asked_on), []).append(
                Instruction(attempt, public_id("pay", payout_id), amount, rail.currency, addressed[payee_id])
            )
    return [Prepared(batch, asked_on, tuple(several), now) for (batch, asked_on), several in batches.items()]


def due_to_ask(
    tx: Tx, books: Books, rail: ConfiguredRail, *, limit: int, asks_after: timedelta
) -> list[Sent]:
    """Payments whose time to be asked about has come; the next time is set, each pause longer than the last.

    One that is still being sent when its lease is over has lost its sender: it may be at the rail or not, so it is unknown.
    """
    now = books.clock.now()
    rows = (
        cursor(tx)
        .execute(
            "SELECT a.id, a.payout_id, a.batch_id, a.rail_reference, a.sent_at, a.state, a.asked FROM products.payout_attempt a"
            " JOIN products.payout p ON p.id = a.payout_id WHERE a.rail_id = %s AND a.next_at <= %s"
            " AND a.state <> 'not_sent' ORDER BY a.next_at LIMIT %s FOR NO KEY UPDATE OF p, a SKIP LOCKED",
            [rail.id, now, limit],
        )
        .fetchall()
    )
    if not rows:
        return []
    cursor(tx).execute(
        "UPDATE products.payout_attempt AS a SET asked = least(a.asked + 1, 1000), next_at = d.next_at,"
        " state = CASE a.state WHEN 'sending' THEN 'unknown' ELSE a.state END,"
        " doubtful = a.doubtful OR a.state = 'sending'"
        " FROM unnest(%s::uuid[], %s::timestamptz[]) AS d (id, next_at) WHERE a.id = d.id",
        [[row[0] for row in rows], [now + pause(asks_after, row[6]) for row in rows]],
    )
    change_many(tx, [Change(row[1], "unknown", "no_answer") for row in rows if row[5] == "sending"], now)
    return [Sent(row[0], row[2], row[3], row[4], known=row[5] in KNOWN_TO_RAIL) for row in rows]


def books_day(tx: Tx, rail: ConfiguredRail, at: datetime, *, booked_on: date | None = None) -> date:
    """The books' day of an instant in the rail's fund: the next open one where its period is closed.

    ``booked_on``: the day on which the bank booked it, which is the books' day too, unless it is still to come.
    """
    row = (
        cursor(tx).execute("SELECT time_zone FROM ledger.fund WHERE id = %s", [rail.accounts.fund]).fetchone()
    )
    if row is None:
        raise LookupError("the rail's fund is not in the books")
    today = periods.effective_day(at, row[0])
    return periods.open_day(tx, [rail.accounts.fund], today if booked_on is None else min(booked_on, today))


def parts_of(tx: Tx, payout_ids: Sequence[UUID]) -> dict[UUID, list[HeldPart]]:
    """The parts of payouts, in order."""
    rows = cursor(tx).execute(
        "SELECT payout_id, position, source, account_id, amount, fee, hold_id FROM products.payout_part"
        " WHERE payout_id = ANY (%s) ORDER BY payout_id, position",
        [list(payout_ids)],
    )
    found: dict[UUID, list[HeldPart]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(HeldPart(*row))
    return found


def _still_payable(tx: Tx, books: Books, waiting: Sequence[_Approved]) -> list[_Approved]:
    """Those that may be paid now; the others are cancelled, each for its reason."""
    standing = payees.standings(tx, [one.payee_id for one in waiting], books.clock.now())
    holders = payees.holders(tx, books.keyring, [one.link_id for one in waiting])
    reasons = {one.id: _refusal(standing[one.payee_id], holders[one.link_id]) for one in waiting}
    cancel_many(tx, books, [(id_, reason, SYSTEM) for id_, reason in reasons.items() if reason is not None])
    return [one for one in waiting if reasons[one.id] is None]


def _refusal(payee: PayeeStanding, holder: Holder) -> str | None:
    if holder.erased:
        return "member_erased"
    if not holder.active:
        return "link_ended"
    return payee.refusal


def _leave(
    tx: Tx, books: Books, rail: ConfiguredRail, payable: Sequence[_Approved], on: date
) -> list[_Approved]:
    """Capture and post; those whose money left. What the books refuse is cancelled by itself, and its neighbours leave."""
    if not payable:
        return []
    parts = parts_of(tx, [one.id for one in payable])
    if _left(tx, books, rail, payable, parts, on):
        return list(payable)
    left = []
    for one in payable:
        if _left(tx, books, rail, [one], parts, on):
            left.append(one)
        else:
            cancel_many(tx, books, [(one.id, "books_refused", SYSTEM)])
    return left


def _left(
    tx: Tx,
    books: Books,
    rail: ConfiguredRail,
    payouts: Sequence[_Approved],
    parts: dict[UUID, list[HeldPart]],
    on: date,
) -> bool:
    """Whether all of it could be posted; if not, nothing was."""
    attempt = tx.begin_nested()
    batch: list[Transaction] = [
        accounts.submission(rail, part, 1, on) for one in payouts for part in parts[one.id]
    ]
    batch += forfeiture.leave(tx, books, [one.id for one in payouts])
    outcomes = post(tx, batch, clock=books.clock)
    posted = all(outcome.status == "posted" for outcome in outcomes)
    if posted:
        attempt.commit()
    else:
        attempt.rollback()
    return posted
