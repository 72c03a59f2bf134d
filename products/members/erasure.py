"""Erasing a member for good, on the member's own word.

The member's key is destroyed, and with it everything personal that rests under it; blind indexes, phones that wait and
the figures by which decisions were explained go too, and what banks wrote about payments to the member. The books keep the pseudonym, and verify as before.

Nobody is erased who still has something here: afterwards nobody could ever be found to be paid. What has to happen first
is said instead. Bodies of received webhooks are destroyed with their keys, 90 days after they were posted
(`MIZAN_DELIVERY_RETENTION_DAYS`), like the values in the audit log; erasing does not wait for it.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from ledger.errors import Conflict
from products.members import duplicates, registry, waiting
from products.reconciliation import erased

REASONS: Final = {
    "balances": "There is money in the member's name: it has to be paid out, or returned to the sender, first.",
    "owed": "The member owes money that was taken back after it was spent: it has to be settled first.",
    "match": "A sponsor's match is committed to the member, or waits for funds: it has to be paid out or given up first.",
    "cover": "The member is enrolled in a product whose contributions are an agency's or a pool's: it has to leave it first.",
    "payouts": "A payout to the member is under way: it has to be paid, or cancelled, first.",
}
"""What keeps a member from being erased, and what has to happen."""


class ErasureBlocked(Conflict):
    """The member still has something here; `reasons` are codes of `REASONS`."""

    code = "erasure_blocked"

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(" ".join(REASONS[reason] for reason in reasons))
        self.reasons = reasons


def erase(tx: Tx, member_id: UUID, at: datetime) -> None:
    """Erase a member. Needs the worker's rights. Raises ErasureBlocked, and NotFound for one who was erased already."""
    # Whoever allocates to the member under a limit waits here, and finds nobody after it.
    tx.execute(text("SELECT 1 FROM products.member WHERE id = :id FOR UPDATE"), {"id": member_id})
    reasons = blocked_by(tx, member_id)
    if reasons:
        raise ErasureBlocked(reasons)
    registry.erase(tx, member_id, at)
    waiting.forget(tx, member_id)
    duplicates.forget(tx, member_id)
    erased.forget_member(tx, member_id)
    for statement in (
        "UPDATE products.member_document SET number_index = NULL WHERE member_id = :id",
        "UPDATE products.member_document SET ended_at = :at WHERE member_id = :id AND ended_at IS NULL",
        "UPDATE products.member_verification SET ended_at = :at WHERE member_id = :id AND ended_at IS NULL",
        "UPDATE products.dependant SET ended_at = :at WHERE member_id = :id AND ended_at IS NULL",
        "UPDATE products.beneficiary SET ended_at = :at WHERE member_id = :id AND ended_at IS NULL",
        "UPDATE products.consent SET withdrawn_at = :at WHERE member_id = :id AND withdrawn_at IS NULL",
        "UPDATE products.enrolment SET ended_at = :at WHERE member_id = :id AND ended_at IS NULL",
        # how it was decided names the member's facts
        "UPDATE products.remittance SET trace = NULL, member_key = NULL WHERE member_id = :id",
        "UPDATE products.quote SET answer = '{}' WHERE member_id = :id",
    ):
        tx.execute(text(statement), {"id": member_id, "at": at})


def blocked_by(tx: Tx, member_id: UUID) -> tuple[str, ...]:
    """What keeps a member from being erased, as codes of `REASONS`; empty: nothing."""
    row = tx.execute(
        text(
            """
            WITH account AS (
                SELECT unapplied_account AS id FROM products.member WHERE id = :id
                UNION ALL
                SELECT unnest(ARRAY[pending_account, savings_account, unvested_account, vested_account])
                FROM products.enrolment WHERE member_id = :id
            )
            SELECT
                EXISTS (SELECT 1 FROM account a JOIN ledger.account_balance b ON b.account_id = a.id
                        WHERE b.debits <> b.credits OR b.held <> 0) AS balances,
                EXISTS (SELECT 1 FROM products.member m JOIN ledger.account_balance b
                          ON b.account_id = m.receivable_account
                        WHERE m.id = :id AND b.debits <> b.credits) AS owed,
                EXISTS (SELECT 1 FROM products.match_share s JOIN products.enrolment e ON e.id = s.enrolment_id
                        WHERE e.member_id = :id AND s.committed + s.awaiting > 0) AS match,
                EXISTS (SELECT 1 FROM products.enrolment e JOIN products.contribution c ON c.enrolment_id = e.id
                        WHERE e.member_id = :id AND e.ended_at IS NULL AND c.destination IN ('agency', 'pool')
                          AND c.state <> 'reversed') AS cover,
                -- what was sent off is held no more, and may come back
                EXISTS (SELECT 1 FROM products.payout p
                        WHERE p.member_id = :id AND p.state NOT IN ('paid', 'failed', 'returned', 'cancelled')) AS payouts
            """
        ),
        {"id": member_id},
    ).one()
    return tuple(reason for reason in REASONS if getattr(row, reason))
