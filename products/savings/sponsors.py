"""Sponsors pay in, and one drainer per sponsor serves the entitlement that waits for its money."""

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.money import AMOUNT_MAX
from ledger.outbox import Message, publish
from ledger.posting import Posting, Transaction, post
from products import chart
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books, load_sponsors
from products.savings.holdings import load_holdings
from products.savings.match import MatchBook, StateKey

DRAINED_MAX = 1_000
"""Queue entries served in one database transaction."""

ATTEMPTS_MAX = 4
"""How often a queue is served anew when others took the sponsor's money between reading and posting."""


@dataclass(frozen=True, slots=True)
class Funded:
    """A sponsor's payment: what it paid in, and what it has uncommitted after it, in minor units.

    ``paid_off``: what of it paid certified claims · ``replayed``: it was on record already, and nothing changed.
    """

    sponsor: str
    transaction_id: UUID
    amount: int
    uncommitted: int
    currency: str
    paid_off: int
    replayed: bool


def fund_sponsor(
    tx: Tx, books: Books, *, programme: str, sponsor: str, amount: int, reference: str
) -> Funded:
    """Record money that a sponsor paid into the savers' fund's bank account; the reference makes it happen once.

    What the sponsor owes on certified claims is paid off first; the rest is uncommitted, there to match savings. From
    what it has after that, its warning level counts anew.
    """
    if not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput(f"an amount is between 1 and {AMOUNT_MAX} minor units", pointer="/amount")
    row = tx.execute(
        text(
            "SELECT s.id, s.fund_id, s.uncommitted_account, s.receivable_account, g.currency, g.time_zone"
            " FROM products.sponsor s JOIN products.programme g ON g.id = s.programme_id"
            " WHERE g.slug = :programme AND s.slug = :sponsor FOR NO KEY UPDATE OF s"
        ),
        {"programme": programme, "sponsor": sponsor},
    ).one_or_none()
    if row is None:
        raise NotFound(f"{programme} has no sponsor “{sponsor}”")
    bank = tx.execute(
        text(
            "SELECT id FROM ledger.account"
            " WHERE fund_id = :fund AND code = :code AND owner = '' AND currency = :currency"
        ),
        {"fund": row.fund_id, "code": chart.BANK.name, "currency": row.currency},
    ).scalar_one()
    owed = tx.execute(
        text("SELECT debits - credits FROM ledger.account_balance WHERE account_id = :id"),
        {"id": row.receivable_account},
    ).scalar_one()
    off = min(max(owed, 0), amount)
    postings = [
        Posting(bank, credited, part, row.currency)
        for credited, part in ((row.receivable_account, off), (row.uncommitted_account, amount - off))
        if part
    ]
    now = books.clock.now()
    on = periods.open_day(tx, [row.fund_id], periods.effective_day(now, row.time_zone))
    [outcome] = post(
        tx,
        [
            Transaction(
                reference=f"sponsor-payment:{programme}:{sponsor}:{hashlib.sha256(reference.encode()).hexdigest()}",
                kind="sponsor_paid_in",
                effective_on=on,
                postings=tuple(postings),
                digest=hashlib.sha256(f"{programme}|{sponsor}|{amount}|{reference}".encode()).digest(),
            )
        ],
        clock=books.clock,
    )
    if outcome.transaction_id is None or outcome.status == "conflict":
        raise InvalidInput(
            f"the payment was not booked: {outcome.reason or outcome.status}", pointer="/reference"
        )
    left = tx.execute(
        text("SELECT credits - debits FROM ledger.account_balance WHERE account_id = :id"),
        {"id": row.uncommitted_account},
    ).scalar_one()
    replayed = outcome.status == "replayed"
    if replayed:
        off = tx.execute(
            text(
                "SELECT coalesce(sum(amount), 0)::bigint FROM ledger.posting"
                " WHERE transaction_id = :id AND credit_account = :receivable"
            ),
            {"id": outcome.transaction_id, "receivable": row.receivable_account},
        ).scalar_one()
    else:
        tx.execute(
            text("INSERT INTO products.sponsor_payment VALUES (:transaction, :sponsor, :reference)"),
            {"transaction": outcome.transaction_id, "sponsor": row.id, "reference": reference},
        )
        tx.execute(
            text("UPDATE products.sponsor SET filled_to = :left, warned_at = NULL WHERE id = :id"),
            {"left": left, "id": row.id},
        )
    return Funded(sponsor, outcome.transaction_id, amount, left, row.currency, off, replayed)


@dataclass(frozen=True, slots=True)
class SponsorMoney:
    """What of a sponsor's money is where, in minor units. ``receivable`` is owed on certified claims, negative a credit.

    ``low``: a prefunded sponsor has less left than ``warned_below``.
    """

    programme: str
    sponsor: str
    name: str
    funding: str
    queueing: bool
    currency: str
    uncommitted: int
    committed: int
    receivable: int
    waiting: int
    warned_below: int

    @property
    def low(self) -> bool:
        """Whether it is to pay in soon."""
        return self.funding == "prefunded" and self.uncommitted < self.warned_below


def money_of_sponsors(tx: Tx) -> list[SponsorMoney]:
    """Every sponsor that `tx` sees, by programme and name."""
    rows = tx.execute(
        text(
            """SELECT g.slug, s.slug, s.name, s.funding, s.queueing, g.currency, u.credits - u.debits,
                      c.credits - c.debits, r.debits - r.credits,
                      (SELECT coalesce(sum(q.amount), 0)::bigint FROM products.match_queue q WHERE q.sponsor_id = s.id),
                      ceil(s.filled_to::numeric * s.warn_percent / 100)::bigint
               FROM products.sponsor s JOIN products.programme g ON g.id = s.programme_id
               JOIN ledger.account_balance u ON u.account_id = s.uncommitted_account
               JOIN ledger.account_balance c ON c.account_id = s.committed_account
               JOIN ledger.account_balance r ON r.account_id = s.receivable_account ORDER BY g.slug, s.slug"""
        )
    )
    return [SponsorMoney(*row) for row in rows]


def set_warning(tx: Tx, *, programme: str, sponsor: str, percent: int) -> None:
    """Warn of a prefunded sponsor when less than so many per cent are left of what it had after it last paid in.

    0: never. Raises `NotFound`, `InvalidInput`.
    """
    if not 0 <= percent <= 100:
        raise InvalidInput("a warning level is between 0 and 100 per cent", pointer="/percent")
    changed = tx.execute(
        text(
            "UPDATE products.sponsor s SET warn_percent = :percent, warned_at = NULL FROM products.programme g"
            " WHERE g.id = s.programme_id AND g.slug = :programme AND s.slug = :sponsor"
        ),
        {"percent": percent, "programme": programme, "sponsor": sponsor},
    ).rowcount
    if not changed:
        raise NotFound(f"{programme} has no sponsor “{sponsor}”")


def warn(tx: Tx, now: datetime) -> int:
    """Announce, once until it pays in again, each prefunded sponsor that has fallen below its level; how many."""
    low = tx.execute(
        text(
            """UPDATE products.sponsor s SET warned_at = :now
               FROM ledger.account_balance b, products.programme g
               WHERE b.account_id = s.uncommitted_account AND g.id = s.programme_id AND s.funding = 'prefunded'
                 AND s.warned_at IS NULL AND s.filled_to > 0
                 AND (b.credits - b.debits - b.held)::numeric * 100 < s.warn_percent::numeric * s.filled_to
               RETURNING s.id, g.slug AS programme, s.slug, g.currency, b.credits - b.debits - b.held AS left,
                         s.filled_to, s.warn_percent"""
        ),
        {"now": now},
    ).all()
    publish(
        tx,
        [
            Message(
                "sponsor.fund_low",
                str(row.id),
                {
                    "programme": row.programme,
                    "sponsor": row.slug,
                    "uncommitted": {"amount": row.left, "currency": row.currency},
                    "filled_to": {"amount": row.filled_to, "currency": row.currency},
                    "percent": row.warn_percent,
                },
            )
            for row in low
        ],
    )
    return len(low)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sponsor with entitlement in its queue."""

    sponsor_id: UUID
    programme_id: UUID


def waiting(tx: Tx) -> list[Waiting]:
    """Sponsors whose queue could move: something waits and there is money, or nothing waits and the fund is closed."""
    rows = tx.execute(
        text(
            """SELECT s.id, s.programme_id FROM products.sponsor s
               JOIN ledger.account_balance b ON b.account_id = s.uncommitted_account
               WHERE EXISTS (SELECT 1 FROM products.match_queue q WHERE q.sponsor_id = s.id)
                     AND b.credits - b.debits - b.held > 0
                     -- what is claimed from the sponsor isn't paid for with other money of its meanwhile
                     AND NOT EXISTS (SELECT FROM products.claim_pack p WHERE p.sponsor_id = s.id
                                     AND (p.state = 'made' OR p.state = 'certified' AND p.booked_at IS NULL))
                  OR s.queueing AND s.funding = 'prefunded'
                     AND NOT EXISTS (SELECT 1 FROM products.match_queue q WHERE q.sponsor_id = s.id)
               ORDER BY s.id"""
        )
    )
    return [Waiting(*row) for row in rows]


def drain(tx: Tx, books: Books, sponsor: Waiting, *, limit: int = DRAINED_MAX) -> int:
    """Serve a sponsor's queue in its order, as far as its money reaches; answers how many entries were touched.

    One drainer per sponsor at a time; another one answers 0. An entry that the money covers in part is served in part
    and keeps its place. When the queue is empty the fund opens again.
    """
    cur = cursor(tx)
    cur.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 4712))", (str(sponsor.sponsor_id),))
    if not _one(cur)[0]:
        return 0
    cur.execute(
        """SELECT enrolment_id, window_start FROM products.match_queue WHERE sponsor_id = %s
           ORDER BY contributed_at, id LIMIT %s""",
        (sponsor.sponsor_id, limit),
    )
    keys: list[StateKey] = cur.fetchall()
    if not keys:
        cur.execute(
            """UPDATE products.sponsor SET queueing = false WHERE id = %s AND queueing AND funding = 'prefunded'
               AND NOT EXISTS (SELECT 1 FROM products.match_queue WHERE sponsor_id = %s)""",
            (sponsor.sponsor_id, sponsor.sponsor_id),
        )
        return 0
    for _ in range(ATTEMPTS_MAX):
        attempt = tx.begin_nested()
        try:
            served = _serve(tx, books, sponsor, keys, limit)
        except BooksRefused as refused:
            attempt.rollback()
            if not refused.moved:
                raise
        except BaseException:
            attempt.rollback()
            raise
        else:
            attempt.commit()
            return served
    return 0  # those who take the money keep the fund open; the queue's turn comes


def _serve(tx: Tx, books: Books, sponsor: Waiting, keys: list[StateKey], limit: int) -> int:
    """Commit what the money reaches, entry by entry."""
    cur = cursor(tx)
    sponsors = load_sponsors(tx, [sponsor.programme_id])[sponsor.programme_id]
    mine = next(one for one in sponsors.values() if one.id == sponsor.sponsor_id)
    holdings = load_holdings(tx, books.programmes, keys)
    match_book = MatchBook(sponsors)
    match_book.lock(tx, {key: holding.lock_values for key, holding in holdings.items()})
    # A new statement after the locks: reversals may have taken entries out of the queue meanwhile.
    cur.execute(
        """SELECT q.id, q.enrolment_id, q.window_start, q.amount FROM products.match_queue q
           WHERE q.sponsor_id = %s AND (q.enrolment_id, q.window_start) IN
                 (SELECT * FROM unnest(%s::uuid[], %s::date[]))
           ORDER BY q.contributed_at, q.id LIMIT %s""",
        (sponsor.sponsor_id, [key[0] for key in keys], [key[1] for key in keys], limit),
    )
    now = books.clock.now()
    on: dict[UUID, date] = {}
    batch: list[Transaction] = []
    served: list[UUID] = []
    for entry, enrolment, start, amount in cur.fetchall():
        part = min(amount, mine.available)
        if part <= 0:
            break
        mine.available -= part
        holding = holdings[enrolment, start]
        postings = match_book.fund(
            (enrolment, start), holding.match, mine, holding.accounts, holding.currency, part
        )
        if part == amount:
            served.append(entry)
        else:
            cur.execute("UPDATE products.match_queue SET amount = amount - %s WHERE id = %s", (part, entry))
        if holding.fund_id not in on:
            on[holding.fund_id] = periods.open_day(
                tx, [holding.fund_id], periods.effective_day(now, holding.time_zone)
            )
        batch.append(
            Transaction(
                reference=f"match-funded:{entry}:{amount}",
                kind="match_funded",
                effective_on=on[holding.fund_id],
                postings=tuple(postings),
                digest=hashlib.sha256(f"{entry}|{amount}|{part}".encode()).digest(),
            )
        )
    post_whole(tx, batch, clock=books.clock)
    if served:
        cur.execute("DELETE FROM products.match_queue WHERE id = ANY (%s)", (served,))
    match_book.save(tx, now)
    return len(batch)


def _one(cur: Any) -> tuple[Any, ...]:
    row = cur.fetchone()
    if row is None:
        raise LookupError("the statement answered no row")
    return tuple(row)
