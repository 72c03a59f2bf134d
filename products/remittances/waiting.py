"""Remittances that wait for something which has come: their member, or their partner's money."""

from uuid import UUID

from ledger.database import Tx, cursor

READY_MAX = 1_000
"""Deliveries answered at once."""


def ready(tx: Tx, *, limit: int = READY_MAX) -> list[UUID]:
    """Deliveries whose remittances could be decided better now, oldest payments first.

    Money without a member whose phone or reference the partner has registered since, once they are enrolled as well: in
    between, all of it would be unapplied. And events parked for the partner's prefund or exposure ceiling while there is
    room for them again.
    """
    cur = cursor(tx)
    cur.execute(
        """SELECT r.delivery_id FROM products.remittance r
           WHERE r.status = 'unallocated' AND r.delivery_id IS NOT NULL AND EXISTS (
               SELECT 1 FROM products.member_link l
               WHERE l.partner_id = r.partner_id AND l.programme_id = r.programme_id AND l.ended_at IS NULL
                 AND r.member_key IN (l.phone_index, l.partner_reference_index)
                 AND EXISTS (SELECT 1 FROM products.enrolment e WHERE e.member_id = l.member_id AND e.ended_at IS NULL))
           ORDER BY r.contributed_at, r.id LIMIT %s""",
        (limit,),
    )
    found = [row[0] for row in cur.fetchall()]
    cur.execute(
        """WITH parked AS (
               SELECT r.delivery_id, r.contributed_at, a.id AS account_id, a.kind, a.floor, a.ceiling,
                      sum(r.collected_amount) OVER (PARTITION BY a.id ORDER BY r.contributed_at, r.id) AS through
               FROM products.remittance r
               JOIN products.partner p ON p.id = r.partner_id
               JOIN products.programme_fund f ON f.programme_id = r.programme_id AND f.role = 'savers'
               JOIN ledger.account a ON a.fund_id = f.fund_id AND a.owner = p.slug AND a.code =
                    CASE r.reason WHEN 'partner_prefund_exhausted' THEN 'partner_prefund' ELSE 'partner_receivable' END
               WHERE r.status = 'parked' AND r.delivery_id IS NOT NULL
                 AND r.reason IN ('partner_prefund_exhausted', 'partner_ceiling_reached')
           )
           SELECT parked.delivery_id FROM parked JOIN ledger.account_balance b USING (account_id)
           WHERE through <= CASE WHEN ceiling IS NULL THEN b.credits - b.debits - b.held - coalesce(floor, 0)
                                 ELSE ceiling - (b.debits - b.credits) END
           ORDER BY contributed_at LIMIT %s""",
        (limit - len(found),),
    )
    return found + [row[0] for row in cur.fetchall()]
