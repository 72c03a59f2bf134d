"""Folding: settled postings are added up into what moved on each account by day and by month.

The movements are not cumulative, so a back-dated posting only adds to its own day and month and makes nothing
stale. The watermark (era, xid) says up to which database transaction everything is in them; it moves in the same
transaction as the movements, so every snapshot sees both or neither.
"""

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.horizon import Horizon
from ledger.horizon import horizon as settled

WATERMARK = "movements"
"""The row of ledger.fold that belongs to account_day and account_month."""

_ADVISORY_CLASS, _ADVISORY_FOLDER = 0x4D5A, 2


def watermark(tx: Tx) -> Horizon:
    """How far folding has come. It only ever grows; before the first folding it is (0, 0)."""
    row = tx.execute(
        text("SELECT era, CAST(CAST(xid AS text) AS bigint) FROM ledger.fold WHERE name = :name"),
        {"name": WATERMARK},
    ).first()
    return Horizon(*row) if row is not None else Horizon(0, 0)


def fold(tx: Tx, *, limit: int) -> int:
    """Adds the settled postings of about `limit` transactions to the movements; answers how many postings.

    The last database transaction is always taken whole. 0 means that nothing is left, or that another folder is at
    work. Call it in a transaction of its own, again until it answers 0. Only one folder writes at a time and it
    touches no other row of the ledger, so it neither waits for posting nor makes it wait.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    alone = tx.execute(
        text("SELECT pg_try_advisory_xact_lock(:class, :id)"),
        {"class": _ADVISORY_CLASS, "id": _ADVISORY_FOLDER},
    ).scalar_one()
    if not alone:
        return 0
    # New statements from here on: their snapshots see what the folder before us committed while holding the lock.
    start = watermark(tx)
    horizon = settled(tx)
    eras = tx.execute(
        text("SELECT era FROM ledger.era WHERE era BETWEEN :first AND :current ORDER BY era"),
        {"first": start.era, "current": horizon.era},
    )
    for (era,) in eras.all():
        from_xid = start.xid if era == start.era else 0
        to_xid = _end_of_range(tx, era, from_xid, horizon.xid if era == horizon.era else None, limit)
        if to_xid is not None:
            return _fold_range(tx, start, era, from_xid, to_xid)
    return 0


def _end_of_range(tx: Tx, era: int, from_xid: int, horizon: int | None, limit: int) -> int | None:
    """The xid behind the last transaction to fold; None when there is none. An era that has ended has no horizon."""
    bound = "" if horizon is None else "AND xid < CAST(%(horizon)s AS xid8)"
    row = (
        cursor(tx)
        .execute(
            "SELECT max(CAST(CAST(xid AS text) AS bigint)) FROM (SELECT xid FROM ledger.transaction WHERE era = %(era)s"
            f" AND xid >= CAST(%(from_xid)s AS xid8) {bound} ORDER BY era, xid, id LIMIT %(limit)s) AS batch",
            {"era": era, "from_xid": str(from_xid), "horizon": str(horizon), "limit": limit},
            prepare=False,
        )
        .fetchone()
    )
    return row[0] + 1 if row is not None and row[0] is not None else None


def _fold_range(tx: Tx, start: Horizon, era: int, from_xid: int, to_xid: int) -> int:
    tx.execute(
        text(
            "INSERT INTO ledger.fold (name, era, xid) VALUES (:name, :era, CAST(:xid AS xid8)) ON CONFLICT DO NOTHING"
        ),
        {"name": WATERMARK, "era": start.era, "xid": str(start.xid)},
    )
    row = (
        cursor(tx)
        .execute(
            _FOLD_RANGE,
            {
                "name": WATERMARK,
                "old_era": start.era,
                "old_xid": str(start.xid),
                "era": era,
                "from_xid": str(from_xid),
                "to_xid": str(to_xid),
            },
            # Planned each time: a plan kept from when the journal was short would go on reading all of it.
            prepare=False,
        )
        .fetchone()
    )
    if row is None or row[1] != 1:
        raise RuntimeError("the folding watermark moved under the folder's lock")
    return int(row[0])


# LATERAL with OFFSET 0 keeps the postings behind their primary key, one look-up per transaction of the bounded
# range, however stale the planner's statistics are: a scan of the journal can not be chosen instead.
_FOLD_RANGE = """
    WITH moved AS MATERIALIZED (
        SELECT side.account_id, posting.effective_on AS day, side.debits, side.credits
        FROM (SELECT id FROM ledger.transaction
              WHERE era = %(era)s AND xid >= CAST(%(from_xid)s AS xid8) AND xid < CAST(%(to_xid)s AS xid8)) AS settled
        CROSS JOIN LATERAL (
            SELECT debit_account, credit_account, amount, effective_on
            FROM ledger.posting WHERE transaction_id = settled.id OFFSET 0
        ) AS posting
        CROSS JOIN LATERAL (
            VALUES (posting.debit_account, posting.amount, 0), (posting.credit_account, 0, posting.amount)
        ) AS side (account_id, debits, credits)
    ), by_day AS MATERIALIZED (
        SELECT account_id, day, sum(debits) AS debits, sum(credits) AS credits FROM moved GROUP BY account_id, day
    ), into_days AS (
        INSERT INTO ledger.account_day AS known (account_id, day, debits, credits)
        SELECT account_id, day, debits, credits FROM by_day ORDER BY account_id, day
        ON CONFLICT (account_id, day) DO UPDATE
        SET debits = known.debits + excluded.debits, credits = known.credits + excluded.credits
    ), into_months AS (
        INSERT INTO ledger.account_month AS known (account_id, month, debits, credits)
        SELECT account_id, CAST(date_trunc('month', day) AS date) AS month, sum(debits), sum(credits)
        FROM by_day GROUP BY account_id, month ORDER BY account_id, month
        ON CONFLICT (account_id, month) DO UPDATE
        SET debits = known.debits + excluded.debits, credits = known.credits + excluded.credits
    ), advanced AS (
        UPDATE ledger.fold SET era = %(era)s, xid = CAST(%(to_xid)s AS xid8)
        WHERE name = %(name)s AND era = %(old_era)s AND xid = CAST(%(old_xid)s AS xid8) RETURNING 1
    )
    SELECT (SELECT count(*) / 2 FROM moved), (SELECT count(*) FROM advanced)
"""
