"""The bank's side of what was just posted: items made in the transaction that posts, so that they are paired in it."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import new_id
from ledger.reconciliation.items import WATERMARK
from products.reconciliation.sources import NAMING

WAITING_MAX: Final = 10_000


def collect_now(tx: Tx, transactions: Collection[UUID]) -> None:
    """Make items of what these transactions posted on mirrored accounts, also before the horizon has passed them."""
    cur = cursor(tx)
    postings = cur.execute(
        """
        SELECT p.transaction_id, p.seq, b.id, CASE b.account_id WHEN p.debit_account THEN p.amount ELSE -p.amount END,
               p.currency, p.effective_on, t.kind
        FROM ledger.posting p JOIN ledger.transaction t ON t.id = p.transaction_id
        JOIN ledger.bank_account b ON b.account_id IN (p.debit_account, p.credit_account)
        WHERE p.transaction_id = ANY (%s)
        """,
        [list(transactions)],
    ).fetchall()
    if not postings:
        return
    columns = [list(column) for column in zip(*postings, strict=True)]
    made = cur.execute(
        "INSERT INTO ledger.item (id, source, transaction_id, seq, bank_account_id, amount, currency, on_date, kind)"
        " SELECT n.id, 'booked', n.transaction_id, n.seq, n.account, n.amount, n.currency, n.on_date, n.kind"
        " FROM unnest(%s::uuid[], %s::uuid[], %s::smallint[], %s::uuid[], %s::bigint[], %s::text[], %s::date[], %s::text[])"
        " AS n (id, transaction_id, seq, account, amount, currency, on_date, kind)"
        " ON CONFLICT (transaction_id, seq, bank_account_id) DO NOTHING RETURNING id",
        [[new_id() for _ in postings], *columns],
    ).fetchall()
    for naming in NAMING:
        naming.name(tx, [row[0] for row in made])


def waiting(tx: Tx) -> int:
    """How many transactions on mirrored accounts are no items yet: they stand before the settled horizon, and the next run takes them.

    At most `WAITING_MAX` are counted.
    """
    row = (
        cursor(tx)
        .execute(
            """
            SELECT count(*) FROM (
                SELECT FROM ledger.transaction t
                WHERE (t.era, t.xid) >= (coalesce((SELECT era FROM ledger.fold WHERE name = %s), 0::smallint),
                                         coalesce((SELECT xid FROM ledger.fold WHERE name = %s), '0'::xid8))
                  AND EXISTS (
                      SELECT FROM ledger.posting p JOIN ledger.bank_account b ON b.account_id IN (p.debit_account, p.credit_account)
                      WHERE p.transaction_id = t.id AND p.effective_on >= b.statements_since
                        AND NOT EXISTS (SELECT FROM ledger.item i WHERE i.transaction_id = t.id AND i.seq = p.seq
                                        AND i.bank_account_id = b.id))
                LIMIT %s
            ) AS one
            """,
            [WATERMARK, WATERMARK, WAITING_MAX],
        )
        .fetchone()
    )
    return int(row[0]) if row is not None else 0


def items_of(tx: Tx, transactions: Collection[UUID], bank_account_id: UUID) -> Sequence[tuple[UUID, int]]:
    """The items of transactions on one bank account that stand in no pairing, as (id, signed minor units)."""
    collect_now(tx, transactions)
    rows = cursor(tx).execute(
        "SELECT i.id, i.amount FROM ledger.item i WHERE i.transaction_id = ANY (%s) AND i.bank_account_id = %s"
        " AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id) ORDER BY i.transaction_id, i.seq",
        [list(transactions), bank_account_id],
    )
    return rows.fetchall()
