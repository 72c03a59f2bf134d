"""A load's rows on their way out of the books again, by reversals: the last batch first, each in one database transaction.

What products kept beside the rows goes with them: contributions and remittances are reversed, match is put back where the load had
put it. What members and partners have done with it since is in the way, and is told.
"""

import hashlib
from collections.abc import Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from ledger import periods
from ledger.database import Cursor, Tx, cursor
from ledger.ids import new_id
from ledger.posting import Posting, Transaction, swapped
from products.opening.load import Load, OpeningMovedOn, by_id
from products.opening.rows import Staged, shares_of, staged_rows
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books
from products.savings.shares import Share

KIND: Final = "opening_taken_back"
POSTINGS_TOGETHER: Final = 400
_StateKey = tuple[UUID, date]


def take_back_next(tx: Tx, books: Books, load_id: UUID) -> int:
    """Take a load's last batch back by reversals; how many rows, 0 when nothing is left. As the worker's role.

    Raises `OpeningMovedOn` when money that the batch brought in has moved on since.
    """
    load = by_id(tx, load_id, lock=True)
    if load.state != "taking_back":
        return 0
    rows = staged_rows(tx, load_id, load.done)
    _still_open(tx, rows)
    back = _close_windows(tx, load, rows)
    posted = [row for row in rows if row.transaction_id is not None]
    mirrored = swapped(tx, [row.transaction_id for row in posted if row.transaction_id is not None])
    day = periods.open_day(tx, sorted({row.fund_id for row in rows}), load.effective_on)
    batch = [
        Transaction(
            reference=f"opening:{load.id}:{row.number}:back",
            kind=KIND,
            effective_on=day,
            postings=mirrored[row.transaction_id],
            digest=hashlib.sha256(f"{row.transaction_id}|back".encode()).digest(),
            id=new_id(),
            reverses=row.transaction_id,
            details={"opening": load.public_id, "row": row.number},
        )
        for row in posted
        if row.transaction_id is not None
    ]
    by_number = {row.number: one.id for row, one in zip(posted, batch, strict=True)}
    restored = [
        Transaction(
            reference=f"opening:{load.id}:match:{load.done}:{first}:back",
            kind=KIND,
            effective_on=day,
            postings=tuple(back[first : first + POSTINGS_TOGETHER]),
            digest=hashlib.sha256(f"{load.id}|{load.done}|{first}|match".encode()).digest(),
            id=new_id(),
            details={"opening": load.public_id},
        )
        for first in range(0, len(back), POSTINGS_TOGETHER)
    ]
    cur = cursor(tx)
    cur.execute(
        "UPDATE products.opening_row r SET reversal_id = t.x FROM unnest(%b::int[], %b::uuid[]) AS t (n, x)"
        " WHERE r.load_id = %s AND r.number = t.n",
        (list(by_number), list(by_number.values()), load_id),
    )
    contributed = [row for row in rows if row.remittance is not None]
    cur.execute(
        "UPDATE products.contribution SET state = 'reversed', owed = false WHERE remittance = ANY (%b)",
        ([row.remittance for row in contributed],),
    )
    _release(cur, load, contributed, by_number, books.clock.now())
    try:
        post_whole(tx, restored, clock=books.clock)
        post_whole(tx, batch, clock=books.clock)
    except BooksRefused as refused:
        raise OpeningMovedOn(
            f"Money of batch {load.done} has moved on since ({refused.outcome.reason}): what moved it is taken back first."
        ) from refused
    cur.execute(
        "UPDATE products.opening_load SET done = done - 1, state = CASE WHEN done = 1 THEN 'taken_back' ELSE state END"
        " WHERE id = %s",
        (load_id,),
    )
    return len(rows)


def _release(
    cur: Cursor, load: Load, rows: Sequence[Staged], reversed_by: dict[int, UUID | None], now: datetime
) -> None:
    """Mark the rows' remittances reversed, and free the names by which partners know them: they may still come in as events."""
    cur.execute(
        """UPDATE products.remittance_claim c SET id = t.new FROM unnest(%b::uuid[], %b::text[], %b::uuid[]) AS t (p, r, new)
           WHERE c.partner_id = t.p AND c.remittance_id = t.r""",
        (
            [row.partner_id for row in rows],
            [row.named(load.public_id) for row in rows],
            [new_id() for _ in rows],
        ),
    )
    cur.execute(
        """UPDATE products.remittance r SET status = 'reversed', remittance_id = t.name, reversal_transaction_id = t.x,
               reversed_at = %s, reversal_reason = 'opening balances taken back'
           FROM unnest(%b::uuid[], %b::text[], %b::uuid[]) AS t (id, name, x) WHERE r.id = t.id""",
        (
            now,
            [row.remittance for row in rows],
            [row.name_of_ours(load.public_id) for row in rows],
            [reversed_by.get(row.number) for row in rows],
        ),
    )


def _still_open(tx: Tx, rows: Sequence[Staged]) -> None:
    """What the rows contributed is as they wrote it: nothing was settled, reversed or remitted since."""
    ours = [row for row in rows if row.remittance is not None]
    cur = cursor(tx)
    cur.execute(
        """SELECT count(*) FROM (
               SELECT FROM products.contribution WHERE remittance = ANY (%b) AND state <> 'reversed' AND settlement_id IS NULL
                      AND remittal_line IS NULL FOR NO KEY UPDATE) c""",
        ([row.remittance for row in ours],),
    )
    if cur.fetchone() != (len(ours),):
        raise OpeningMovedOn(
            "Contributions of the load were settled, reversed or remitted since: take that back first."
        )


def _close_windows(tx: Tx, load: Load, rows: Sequence[Staged]) -> list[Posting]:
    """Empty the batch's match; answers what puts it back where the load had put it, where it vested or was granted since."""
    cur = cursor(tx)
    cur.execute(
        """SELECT s.enrolment_id, s.window_start, (s.by_tier, s.settled_by_tier) = (w.by_tier, w.settled_by_tier)
           FROM products.opening_window w JOIN products.match_state s USING (enrolment_id, window_start)
           WHERE w.load_id = %s AND w.batch = %s ORDER BY s.enrolment_id, s.window_start FOR NO KEY UPDATE OF s""",
        (load.id, load.done),
    )
    keys: list[_StateKey] = []
    for enrolment_id, start, same in cur.fetchall():
        if not same:
            raise OpeningMovedOn(
                "Members have contributed since in windows that the load opened: take that back first."
            )
        keys.append((enrolment_id, start))
    arrays = ([key[0] for key in keys], [key[1] for key in keys])
    opened = shares_of(rows)
    cur.execute(
        """SELECT h.enrolment_id, h.window_start, h.sponsor_id, h.committed, h.unvested, h.vested, h.awaiting, h.certified,
                  h.forfeited, s.committed_account, e.unvested_account, e.vested_account
           FROM products.match_share h JOIN unnest(%b::uuid[], %b::date[]) AS t (e, w) ON h.enrolment_id = t.e AND h.window_start = t.w
           JOIN products.sponsor s ON s.id = h.sponsor_id JOIN products.enrolment e ON e.id = h.enrolment_id""",
        arrays,
    )
    currency = rows[0].currency
    back: list[Posting] = []
    for enrolment_id, start, sponsor_id, *rest in cur.fetchall():
        now, accounts = Share(*rest[:6]), rest[6:]
        before = opened.get((enrolment_id, start, sponsor_id), Share())
        if (now.awaiting, now.certified, now.forfeited, now.entitled) != (
            before.awaiting,
            0,
            0,
            before.entitled,
        ):
            raise OpeningMovedOn(
                "Match of the load was funded, certified or lost since: take that back first."
            )
        change = [getattr(now, part) - getattr(before, part) for part in ("committed", "unvested", "vested")]
        back += _put_back(change, accounts, currency)
    cur.execute(
        """UPDATE products.match_share h SET committed = 0, unvested = 0, vested = 0, awaiting = 0
           FROM unnest(%b::uuid[], %b::date[]) AS t (e, w) WHERE h.enrolment_id = t.e AND h.window_start = t.w""",
        arrays,
    )
    cur.execute(
        """DELETE FROM products.match_queue q USING unnest(%b::uuid[], %b::date[]) AS t (e, w)
           WHERE q.enrolment_id = t.e AND q.window_start = t.w""",
        arrays,
    )
    cur.execute(
        """UPDATE products.match_state s SET by_tier = array_fill(0::bigint, ARRAY[cardinality(by_tier)]),
               settled_by_tier = array_fill(0::bigint, ARRAY[cardinality(by_tier)]), entitled = 0, revision = revision + 1
           FROM unnest(%b::uuid[], %b::date[]) AS t (e, w) WHERE s.enrolment_id = t.e AND s.window_start = t.w""",
        arrays,
    )
    return back


def _put_back(change: Sequence[int], accounts: Sequence[UUID], currency: str) -> list[Posting]:
    """Postings from the accounts that have more than the load gave them to those that have less; the changes add up to 0."""
    more = {account: amount for amount, account in zip(change, accounts, strict=True) if amount > 0}
    less = {account: -amount for amount, account in zip(change, accounts, strict=True) if amount < 0}
    made: list[Posting] = []
    for source, account in ((source, account) for source in more for account in less):
        amount = min(more[source], less[account])
        if amount:
            made.append(Posting(source, account, amount, currency))
            more[source] -= amount
            less[account] -= amount
    return made
