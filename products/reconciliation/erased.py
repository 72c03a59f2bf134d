"""What the bank wrote about payments to members who were erased: its text goes, the line's amount and day stay."""

from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.reconciliation.reading import forget_texts

LINES_MAX: Final = 10_000


def forget(tx: Tx, member_id: UUID | None = None) -> int:
    """Forget the texts of lines that are paired with payouts of erased members, or of one; how many lines."""
    rows = (
        cursor(tx)
        .execute(
            """
        SELECT DISTINCT l.id FROM products.payout p
        JOIN products.member m ON m.id = p.member_id
        JOIN products.payout_attempt a ON a.payout_id = p.id
        JOIN ledger.reference r ON r.reference IN (format('payout:%%s:%%s:paid', p.id, a.number),
                                                   format('payout:%%s:%%s:back', p.id, a.number))
        JOIN ledger.item i ON i.transaction_id = r.transaction_id
        JOIN ledger.paired_item one ON one.item_id = i.id
        JOIN ledger.pairing g ON g.id = one.pairing_id
        JOIN ledger.statement_line l ON l.id = ANY (g.lines) AND l.text_sealed IS NOT NULL
        WHERE CASE WHEN %(member)s::uuid IS NULL THEN m.erased_at IS NOT NULL ELSE m.id = %(member)s END
        LIMIT %(limit)s
        """,
            {"member": member_id, "limit": LINES_MAX},
        )
        .fetchall()
    )
    return forget_texts(tx, [row[0] for row in rows]) if rows else 0
