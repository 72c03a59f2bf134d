"""Items: what a statement line may be the other side of; here those that the books themselves make, one for each posting.

Postings are collected behind the settled horizon, as `ledger.fold` does: a watermark (era, xid) says up to which database
transaction all of them are items, and moves in the same transaction.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.horizon import Horizon
from ledger.horizon import horizon as settled
from ledger.ids import id_prefix

WATERMARK: Final = "items"
"""The row of ledger.fold that belongs to booked items."""

_ADVISORY_CLASS: Final = 0x4D5A
_ADVISORY_COLLECTOR: Final = 3


class Naming(Protocol):
    """Says by what a bank may know booked items: set-based, one statement for all of them."""

    def name(self, tx: Tx, items: Sequence[UUID]) -> None:
        """Sets end_to_end, reference, identifiers, party, batch, day and subject of those items that it knows of."""
        ...


def collect(tx: Tx, naming: Sequence[Naming], *, limit: int = 20_000) -> int:
    """Makes items of the settled postings on mirrored accounts, of about `limit` transactions; answers how many transactions.

    The last database transaction is always taken whole. 0 means that nothing is left, or that another collector is at work. Call
    it in a transaction of its own, again until it answers 0. A bank account that is new gets what its ledger account moved before,
    from the day on since which statements are due; what is older the bank never tells.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    if not _alone(tx):
        return 0
    # New statements from here on: they see what the collector before us committed.
    start, horizon = _watermark(tx), settled(tx)
    new = _new_account(tx)
    if new is not None:
        _collect_earlier(tx, naming, *new, start)
        return 1
    eras = tx.execute(
        text("SELECT era FROM ledger.era WHERE era BETWEEN :first AND :current ORDER BY era"),
        {"first": start.era, "current": horizon.era},
    )
    for (era,) in eras.all():
        values = {
            "era": era,
            "from_xid": str(start.xid if era == start.era else 0),
            "horizon": str(horizon.xid),
            "limit": limit,
        }
        bounds = "era = %(era)s AND xid >= CAST(%(from_xid)s AS xid8)"
        if era == horizon.era:  # an era that has ended has no horizon
            bounds += " AND xid < CAST(%(horizon)s AS xid8)"
        row = (
            cursor(tx)
            .execute(
                "SELECT max(CAST(CAST(xid AS text) AS bigint)) FROM (SELECT xid FROM ledger.transaction"
                f" WHERE {bounds} ORDER BY era, xid, id LIMIT %(limit)s) AS batch",
                values,
                prepare=False,
            )
            .fetchone()
        )
        if row is None or row[0] is None:
            continue
        values["to_xid"] = str(row[0] + 1)
        moved = "SELECT id, kind FROM ledger.transaction WHERE era = %(era)s AND xid >= CAST(%(from_xid)s AS xid8)"
        moved += " AND xid < CAST(%(to_xid)s AS xid8)"
        _add(tx, naming, _ITEMS.format(moved=moved, condition=""), values)
        tx.execute(
            text(
                "INSERT INTO ledger.fold (name, era, xid) VALUES (:name, :era, CAST(:xid AS xid8))"
                " ON CONFLICT (name) DO UPDATE SET era = excluded.era, xid = excluded.xid"
            ),
            {"name": WATERMARK, "era": era, "xid": values["to_xid"]},
        )
        counted = (
            cursor(tx).execute(f"SELECT count(*) FROM ({moved}) AS moved", values, prepare=False).fetchone()
        )
        return int(counted[0]) if counted is not None else 0
    return 0


def _new_account(tx: Tx) -> tuple[UUID, str] | None:
    """A bank account whose earlier postings, since the day that it says now, are not collected, and the mark that they are."""
    row = tx.execute(
        text("""
            SELECT b.id, mark.name FROM ledger.bank_account b
            CROSS JOIN LATERAL (SELECT concat_ws(' ', 'items of', b.id, b.statements_since) AS name) AS mark
            WHERE NOT EXISTS (SELECT FROM ledger.fold f WHERE f.name = mark.name) LIMIT 1
        """)
    ).first()
    return None if row is None else (row.id, row.name)


def _collect_earlier(
    tx: Tx, naming: Sequence[Naming], bank_account_id: UUID, mark: str, reached: Horizon
) -> None:
    moved = """
        SELECT t.id, t.kind FROM ledger.transaction t WHERE t.id IN (
            SELECT p.transaction_id FROM ledger.posting p JOIN ledger.bank_account b
                ON b.account_id IN (p.debit_account, p.credit_account) WHERE b.id = %(bank_account)s
        ) AND (t.era, t.xid) < (%(era)s, CAST(%(xid)s AS xid8))
    """
    values = {"bank_account": bank_account_id, "era": reached.era, "xid": str(reached.xid)}
    _add(tx, naming, _ITEMS.format(moved=moved, condition="AND b.id = %(bank_account)s"), values)
    tx.execute(
        text("INSERT INTO ledger.fold (name, era, xid) VALUES (:name, :era, CAST(:xid AS xid8))"),
        {"name": mark, "era": reached.era, "xid": str(reached.xid)},
    )


# LATERAL with OFFSET 0 keeps the postings behind their primary key, however stale the planner's statistics are. Money that came
# in is debited to the account.
_ITEMS: Final = """
    SELECT b.id AS bank_account_id, CASE WHEN side.account_id = p.debit_account THEN p.amount ELSE -p.amount END AS amount,
           p.currency, p.effective_on, moved.kind, p.transaction_id, p.seq
    FROM ({moved}) AS moved
    CROSS JOIN LATERAL (
        SELECT transaction_id, seq, debit_account, credit_account, amount, currency, effective_on
        FROM ledger.posting WHERE transaction_id = moved.id OFFSET 0
    ) AS p
    CROSS JOIN LATERAL (VALUES (p.debit_account), (p.credit_account)) AS side (account_id)
    JOIN ledger.bank_account b ON b.account_id = side.account_id AND p.effective_on >= b.statements_since {condition}
    WHERE NOT EXISTS (SELECT FROM ledger.item i WHERE i.transaction_id = p.transaction_id AND i.seq = p.seq
                      AND i.bank_account_id = b.id)
    ORDER BY p.transaction_id, p.seq, b.id
"""


def _add(tx: Tx, naming: Sequence[Naming], query: str, values: dict[str, Any]) -> int:
    """The query's postings as items, named; how many."""
    ids = cursor(tx).execute(
        "INSERT INTO ledger.item (id, source, bank_account_id, amount, currency, on_date, kind, transaction_id, seq)"
        " SELECT CAST(%(ids)s || lpad(to_hex(row_number() OVER ()), 12, '0') AS uuid), 'booked', posted.bank_account_id,"
        " posted.amount, posted.currency, posted.effective_on, posted.kind, posted.transaction_id, posted.seq"
        f" FROM ({query}) AS posted RETURNING id",
        {**values, "ids": id_prefix()},
        prepare=False,
    )
    made = [row[0] for row in ids.fetchall()]
    if made:
        for each in naming:
            each.name(tx, made)
    return len(made)


def _alone(tx: Tx) -> bool:
    answer = tx.execute(
        text("SELECT pg_try_advisory_xact_lock(:class, :id)"),
        {"class": _ADVISORY_CLASS, "id": _ADVISORY_COLLECTOR},
    ).scalar_one()
    return bool(answer)


def _watermark(tx: Tx) -> Horizon:
    row = tx.execute(
        text("SELECT era, CAST(CAST(xid AS text) AS bigint) FROM ledger.fold WHERE name = :name"),
        {"name": WATERMARK},
    ).first()
    return Horizon(*row) if row is not None else Horizon(0, 0)
