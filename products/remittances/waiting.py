"""Remittances that wait for something which has come: their member, or their partner's money."""

from uuid import UUID

from ledger.database import Tx, cursor

READY_MAX = 1_000
"""Deliveries answered at once."""

_ROOM = """
    SELECT a.id, CASE WHEN a.kind IN ('asset', 'expense') THEN a.ceiling - (b.debits - b.credits)
                      ELSE b.credits - b.debits - b.held - a.floor END AS room
    FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
    WHERE a.id IN (SELECT parked_account FROM products.remittance
                   WHERE status IN ('parked', 'unallocated') AND parked_account IS NOT NULL)
"""
"""How much room the accounts have whose limits remittances wait for; null: a limit was lifted."""


def ready(tx: Tx, *, limit: int = READY_MAX) -> list[UUID]:
    """Deliveries whose remittances could be decided better now, oldest payments first.

    Money without a member whose phone or reference the partner has registered since, once they are enrolled as well: in
    between, all of it would be unapplied. And what waits for the partner's prefund or exposure ceiling, in whichever fund,
    as far as there is room again: what finds none is not looked at.
    """
    cur = cursor(tx)
    cur.execute(
        f"""WITH room AS MATERIALIZED ({_ROOM})
           SELECT r.delivery_id FROM products.remittance r LEFT JOIN room ON room.id = r.parked_account
           WHERE r.status = 'unallocated' AND r.delivery_id IS NOT NULL
             AND (r.parked_account IS NULL OR room.room IS NULL OR r.parked_amount <= room.room) AND EXISTS (
               SELECT 1 FROM products.member_link l
               WHERE l.partner_id = r.partner_id AND l.programme_id = r.programme_id AND l.ended_at IS NULL
                 AND r.member_key IN (l.phone_index, l.partner_reference_index)
                 AND EXISTS (SELECT 1 FROM products.enrolment e WHERE e.member_id = l.member_id AND e.ended_at IS NULL))
           ORDER BY r.contributed_at, r.id LIMIT %s""",
        (limit,),
    )
    found = [row[0] for row in cur.fetchall()]
    cur.execute(
        f"""WITH room AS MATERIALIZED ({_ROOM})
           SELECT waiting.delivery_id FROM room CROSS JOIN LATERAL (
               SELECT r.delivery_id, r.contributed_at,
                      sum(r.parked_amount) OVER (ORDER BY r.contributed_at, r.id) AS through
               FROM products.remittance r
               WHERE r.status = 'parked' AND r.parked_account = room.id AND r.delivery_id IS NOT NULL
           ) waiting
           WHERE (room.room IS NULL OR room.room > 0) AND (room.room IS NULL OR waiting.through <= room.room)
           ORDER BY waiting.contributed_at LIMIT %s""",
        (limit - len(found),),
    )
    return found + [row[0] for row in cur.fetchall()]
