"""Certified packs on their way into the books, in sets: the sponsor owes what it certified, and it is committed.

Each set is a database transaction of its own that notes how far it came, so that it may stop anywhere and go on.
Settlement and grants then go on as for any sponsor: what settled contributions earn of it is granted at once.
"""

import hashlib
from collections.abc import Sequence
from datetime import date
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx, cursor
from ledger.ids import public_id
from ledger.posting import Posting, Transaction
from products.claims.packs import Pack, lines_of, pack_of
from products.posting import post_whole
from products.remittances.context import Books, load_sponsors
from products.savings.holdings import load_holdings
from products.savings.match import MatchBook

BOOKED_MAX = 2_000
"""Lines booked in one database transaction."""


def to_book(tx: Tx) -> list[UUID]:
    """Certified packs with lines that are not booked yet, oldest first."""
    return list(
        tx.execute(
            text(
                "SELECT id FROM products.claim_pack WHERE state = 'certified' AND booked_at IS NULL ORDER BY id"
            )
        ).scalars()
    )


def book(tx: Tx, books: Books, pack_id: UUID, *, limit: int = BOOKED_MAX) -> int:
    """Book the next lines of a certified pack; how many. 0: all of it is booked, or another one is at it."""
    if not tx.execute(
        text("SELECT pg_try_advisory_xact_lock(hashtextextended(:id, 4716))"), {"id": str(pack_id)}
    ).scalar_one():
        return 0
    # a new statement: it sees how far the last holder of the lock came
    pack = pack_of(tx, pack_id)
    if pack.state != "certified" or pack.booked_at is not None:
        return 0
    lines = lines_of(tx, pack_id, after=pack.booked_lines, limit=limit, kind="match")
    now = books.clock.now()
    if lines:
        receivable, zone = tx.execute(
            text(
                "SELECT s.receivable_account, g.time_zone FROM products.sponsor s"
                " JOIN products.programme g ON g.id = s.programme_id WHERE s.id = :id"
            ),
            {"id": pack.sponsor_id},
        ).one()
        sponsors = load_sponsors(tx, [pack.programme_id])[pack.programme_id]
        sponsor = sponsors[pack.sponsor]
        keys = [(line.enrolment_id, line.window_start) for line in lines]
        holdings = load_holdings(tx, books.programmes, keys)
        match_book = MatchBook(sponsors)
        match_book.lock(tx, {key: holding.lock_values for key, holding in holdings.items()})
        on = periods.open_day(
            tx,
            sorted({holding.fund_id for holding in holdings.values()}),
            periods.effective_day(now, zone),
        )
        batch: list[Transaction] = []
        served: list[int] = []
        for key, line in zip(keys, lines, strict=True):
            holding = holdings[key]
            moved, taken = match_book.certify(
                key, holding.match, sponsor, holding.accounts, holding.currency, line.amount
            )
            served.append(taken)
            owed = Posting(receivable, sponsor.committed, line.amount, pack.currency)
            batch.append(_transaction(pack, line.position, line.amount, (owed, *moved), on))
        post_whole(tx, batch, clock=books.clock)
        _dequeue(tx, pack.sponsor_id, keys, served)
        match_book.save(tx, now)
    done = pack.booked_lines + len(lines)
    tx.execute(
        text(
            "UPDATE products.claim_pack SET booked_lines = :done, booked_at = CASE WHEN :done = lines"
            " THEN CAST(:now AS timestamptz) END WHERE id = :id"
        ),
        {"done": done, "now": now, "id": pack_id},
    )
    return len(lines)


def _transaction(
    pack: Pack, position: int, amount: int, postings: tuple[Posting, ...], on: date
) -> Transaction:
    reference = f"claim:{pack.id}:{position}"
    return Transaction(
        reference=reference,
        kind="claim_certified",
        effective_on=on,
        postings=postings,
        digest=hashlib.sha256(f"{reference}|{amount}".encode()).digest(),
        details={"claim_pack": public_id("cpk", pack.id), "line": position},
    )


def _dequeue(tx: Tx, sponsor_id: UUID, keys: Sequence[tuple[UUID, date]], amounts: Sequence[int]) -> None:
    """Take so much of each window out of the sponsor's queue, the oldest entries first."""
    cursor(tx).execute(
        """WITH entries AS MATERIALIZED (
               SELECT q.id, q.amount, t.n,
                      sum(q.amount) OVER (PARTITION BY q.enrolment_id, q.window_start
                                          ORDER BY q.contributed_at, q.id) AS through
               FROM unnest(%b::uuid[], %b::date[], %b::bigint[]) AS t (e, w, n)
               JOIN products.match_queue q
                 ON q.enrolment_id = t.e AND q.window_start = t.w AND q.sponsor_id = %b
           ), gone AS (
               DELETE FROM products.match_queue q USING entries e WHERE q.id = e.id AND e.through <= e.n
           )
           UPDATE products.match_queue q SET amount = e.through - e.n FROM entries e
           WHERE q.id = e.id AND e.through > e.n AND e.through - e.amount < e.n""",
        ([key[0] for key in keys], [key[1] for key in keys], list(amounts), sponsor_id),
    )
