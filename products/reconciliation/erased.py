"""What the bank wrote about payments to members who were erased: its text goes, the line's amount and day stay."""

from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.reconciliation.reading import forget_texts

_OF_MEMBER: Final = """
    SELECT DISTINCT l.id FROM products.payout p
    JOIN products.payout_attempt a ON a.payout_id = p.id
    JOIN ledger.reference r ON r.reference IN (format('payout:%%s:%%s:paid', p.id, a.number),
                                               format('payout:%%s:%%s:back', p.id, a.number))
    JOIN ledger.item i ON i.transaction_id = r.transaction_id
    JOIN ledger.paired_item one ON one.item_id = i.id
    JOIN ledger.pairing g ON g.id = one.pairing_id
    JOIN ledger.statement_line l ON l.id = ANY (g.lines) AND l.text_sealed IS NOT NULL
    WHERE p.member_id = %(member)s
"""
_OF_PAIRINGS: Final = """
    SELECT DISTINCT l.id FROM ledger.pairing g
    JOIN ledger.item i ON i.id = ANY (g.items) AND i.kind LIKE 'payout%%'
    JOIN ledger.transaction t ON t.id = i.transaction_id
    JOIN products.payout p ON p.id = CASE WHEN t.reference LIKE 'payout:%%' THEN split_part(t.reference, ':', 2)::uuid END
    JOIN products.member m ON m.id = p.member_id AND m.erased_at IS NOT NULL
    JOIN ledger.statement_line l ON l.id = ANY (g.lines) AND l.text_sealed IS NOT NULL
    WHERE g.id >= %(since)s
"""


def forget_member(tx: Tx, member_id: UUID) -> int:
    """Forget the texts of lines that are paired with a member's payouts; how many lines."""
    return _forget(tx, _OF_MEMBER, {"member": member_id})


def forget_since(tx: Tx, pairing: UUID) -> int:
    """Forget the texts of lines that pairings, from this id on, connect with a member who is erased already; how many lines."""
    return _forget(tx, _OF_PAIRINGS, {"since": pairing})


def _forget(tx: Tx, query: str, parameters: dict[str, UUID]) -> int:
    lines = [row[0] for row in cursor(tx).execute(query, parameters)]
    return forget_texts(tx, lines) if lines else 0
