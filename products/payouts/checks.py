"""What must hold between payouts and the books, as queries that select the lies."""

from ledger.checks import NORMAL_SIDE, SetCheck

_HELD = "('requested', 'awaiting_member', 'awaiting_operators', 'approved')"
_LEFT = "('submitted', 'in_transit', 'unknown', 'paid', 'failed', 'returned')"

PARTS = SetCheck(
    "payouts are held, captured or released as their states say, part by part",
    "SELECT count(*) FROM products.payout_part",
    f"""
    SELECT format('payout %s', p.id),
           format('is of %s with a fee of %s; its parts come to %s and %s', p.amount, p.fee, coalesce(s.amount, 0),
                  coalesce(s.fee, 0))
    FROM products.payout p
    LEFT JOIN (SELECT payout_id, sum(amount) AS amount, sum(fee) AS fee FROM products.payout_part GROUP BY 1) s
      ON s.payout_id = p.id
    WHERE (p.amount, p.fee) IS DISTINCT FROM (s.amount, s.fee)
    UNION ALL
    SELECT format('payout %s, part %s', p.id, q.position),
           format('is %s, and its hold of %s on account %s is %s', p.state, h.amount, h.account_id, h.state)
    FROM products.payout_part q JOIN products.payout p ON p.id = q.payout_id
    LEFT JOIN ledger.hold h ON h.id = q.hold_id
    WHERE (h.account_id, h.amount) IS DISTINCT FROM (q.account_id, q.amount)
       OR p.state IN {_HELD} AND h.state <> 'active'
       OR p.state = 'cancelled' AND h.state NOT IN ('released', 'expired')
       OR p.state IN {_LEFT} AND (h.state <> 'captured' OR h.captured <> q.amount)
    """,
)

STEPS = SetCheck(
    "payouts have the transactions that their states mean, and these their payouts",
    "SELECT count(*) FROM products.payout_attempt",
    f"""
    WITH steps AS (
        -- an attempt's number is raised whenever what had been given back is taken again, and is out from then on, and
        -- whenever its confirmation is taken back, and it is on its way again
        SELECT a.payout_id, a.number, a.money, p.state AS shown, w.id AS went, k.id AS came, t.id AS again, u.id AS unconfirmed
        FROM products.payout_attempt a
        JOIN products.payout p ON p.id = a.payout_id
        LEFT JOIN ledger.reference rw ON rw.reference = format('payout:%s:%s:paid', a.payout_id, a.number)
        LEFT JOIN ledger.transaction w ON w.id = rw.transaction_id
        LEFT JOIN ledger.reference rk ON rk.reference = format('payout:%s:%s:back', a.payout_id, a.number)
        LEFT JOIN ledger.transaction k ON k.id = rk.transaction_id
        LEFT JOIN ledger.reference rt ON rt.reference = format('payout:%s:%s:taken_again', a.payout_id,
                                                                        a.number - 1)
        LEFT JOIN ledger.transaction t ON t.id = rt.transaction_id
        LEFT JOIN ledger.reference ru ON ru.reference = format('payout:%s:%s:unconfirmed', a.payout_id,
                                                                        a.number - 1)
        LEFT JOIN ledger.transaction u ON u.id = ru.transaction_id
    )
    SELECT format('payout %s', payout_id), format('is %s, and the books know it as paid: %s, given back: %s, taken again: %s',
           shown, went IS NOT NULL, came IS NOT NULL, again IS NOT NULL)
    FROM steps
    WHERE (money = 'clearing') <> (again IS NULL AND went IS NULL AND came IS NULL)
       OR money = 'out' AND (came IS NOT NULL OR again IS NULL AND went IS NULL)
       OR money = 'back' AND came IS NULL
       OR (number > 1) <> (again IS NOT NULL OR unconfirmed IS NOT NULL)
       OR (shown = 'paid') <> (money = 'out') OR (shown IN ('failed', 'returned')) <> (money = 'back')
    UNION ALL
    SELECT format('payout %s', p.id), format('is %s and has %s attempts', p.state, count(a.id))
    FROM products.payout p LEFT JOIN products.payout_attempt a ON a.payout_id = p.id
    GROUP BY p.id HAVING (p.state IN {_LEFT}) <> (count(a.id) > 0)
    UNION ALL
    SELECT format('payout %s, part %s', q.payout_id, q.position), 'left without the transaction that takes it'
    FROM products.payout_part q JOIN ledger.hold h ON h.id = q.hold_id AND h.state = 'captured'
    LEFT JOIN ledger.reference r ON r.reference = format('payout:%s:1:%s', q.payout_id, q.position)
    WHERE r.transaction_id IS DISTINCT FROM h.transaction_id
    UNION ALL
    SELECT format('payout %s', a.payout_id), 'paid another amount in the books than its rail was asked for'
    FROM products.payout_attempt a
    CROSS JOIN generate_series(1, a.number) AS earlier
    JOIN ledger.reference r ON r.reference = format('payout:%s:%s:paid', a.payout_id, earlier)
    JOIN ledger.posting o ON o.transaction_id = r.transaction_id
    WHERE o.amount <> a.amount
    UNION ALL
    SELECT format('transaction %s', t.id), 'is of a payout that is not on record'
    FROM ledger.transaction t
    WHERE t.kind IN ('payout_submitted', 'payout_paid', 'payout_failed', 'payout_returned', 'payout_charged',
                     'payout_taken_again', 'payout_unconfirmed')
      AND NOT EXISTS (SELECT FROM products.payout p WHERE p.id = CAST(split_part(t.reference, CHR(58), 2) AS uuid))
    """,
)

CLEARING = SetCheck(
    "payout clearing is what rails were asked to pay and have not said the last word on",
    "SELECT count(*) FROM products.rail",
    f"""
    SELECT format('rail %s', r.slug), format('its clearing account holds %s; payouts under way come to %s', {NORMAL_SIDE},
                                             coalesce(o.amount, 0))
    FROM products.rail r
    JOIN ledger.account a ON a.id = r.clearing_account JOIN ledger.account_balance b ON b.account_id = a.id
    LEFT JOIN (SELECT p.rail_id, sum(p.amount - p.fee) AS amount FROM products.payout p
               WHERE p.state IN ('submitted', 'in_transit', 'unknown') GROUP BY 1) o ON o.rail_id = r.id
    WHERE {NORMAL_SIDE} <> coalesce(o.amount, 0)
    """,
)

PAYOUT_CHECKS = (PARTS, STEPS, CLEARING)
"""All of them, in the order in which a report shows them."""
