"""What must hold between remittals, contributions and the books."""

from ledger.checks import SetCheck

REMITTALS = SetCheck(
    "what was collected for agencies is there, or was sent to them, and comes to what members contributed",
    "SELECT count(*) FROM products.remittal_line",
    """
    WITH of_line AS (
        SELECT c.remittal_line AS id, sum(c.amount) AS amount,
               sum(c.amount) FILTER (WHERE c.destination = 'agency') AS remitted,
               bool_or(c.state = 'reversed' AND c.destination = 'agency') AS reversed
        FROM products.contribution c WHERE c.remittal_line IS NOT NULL GROUP BY 1
    ), sent AS (
        SELECT r.id, r.fund_id, r.agency, r.currency, r.state, r.amount FROM products.remittal r
        WHERE r.state IN ('sent', 'cleared')
    )
    SELECT format('remittal line %s', l.id),
           format('carries %s, its contributions come to %s', l.amount, coalesce(o.amount, 0))
    FROM products.remittal_line l JOIN products.remittal r ON r.id = l.remittal_id AND r.state <> 'withdrawn'
    LEFT JOIN of_line o ON o.id = l.id WHERE l.amount <> coalesce(o.amount, 0) OR o.reversed
    UNION ALL
    SELECT format('remittal line %s', l.id),
           format('%s of it is accepted, and %s of its contributions are the agency''s', l.accepted,
                  coalesce(o.remitted, 0))
    FROM products.remittal_line l LEFT JOIN of_line o ON o.id = l.id
    WHERE l.accepted IS NOT NULL AND l.accepted <> coalesce(o.remitted, 0)
    UNION ALL
    SELECT format('remittal %s', r.id), 'its totals are not those of its lines'
    FROM products.remittal r
    LEFT JOIN (SELECT remittal_id, count(*) AS lines, sum(amount) AS amount
               FROM products.remittal_line GROUP BY 1) l ON l.remittal_id = r.id
    WHERE (r.lines, r.amount) IS DISTINCT FROM (l.lines::int, l.amount::bigint)
    UNION ALL
    SELECT format('agency %s', a.owner),
           format('%s is collected for it, its contributions not sent come to %s', b.credits - b.debits,
                  coalesce(c.amount, 0))
    FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
    LEFT JOIN (SELECT c.credited_account, sum(c.amount) AS amount
               FROM products.contribution c
               LEFT JOIN products.remittal_line l ON l.id = c.remittal_line
               LEFT JOIN sent s ON s.id = l.remittal_id
               WHERE c.destination = 'agency' AND c.state <> 'reversed' AND s.id IS NULL GROUP BY 1) c
      ON c.credited_account = a.id
    WHERE a.code = 'agency_contributions_collected' AND b.credits - b.debits <> coalesce(c.amount, 0)
    UNION ALL
    SELECT format('fund %s', a.fund_id),
           format('%s is with the bank, the remittals that it has not paid come to %s', b.credits - b.debits,
                  coalesce(s.amount, 0))
    FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
    LEFT JOIN (SELECT fund_id, currency, sum(amount) AS amount FROM sent WHERE state = 'sent' GROUP BY 1, 2) s
      ON s.fund_id = a.fund_id AND s.currency = a.currency
    WHERE a.code = 'bank_clearing' AND b.credits - b.debits <> coalesce(s.amount, 0)
    UNION ALL
    SELECT format('remittal %s', s.id),
           format('the agency returned %s, and %s came back into the books', s.returned, s.posted)
    FROM (SELECT r.id,
                 coalesce((SELECT sum(l.amount - l.accepted) FROM products.remittal_line l
                           WHERE l.remittal_id = r.id AND l.accepted IS NOT NULL), 0) AS returned,
                 coalesce((SELECT sum(p.amount) FROM ledger.reference f
                           JOIN ledger.posting p ON p.transaction_id = f.transaction_id
                           JOIN ledger.account u ON u.id = p.credit_account AND u.code = 'member_unapplied'
                           WHERE f.reference LIKE format('remittal%s%s%s', CHR(58), r.id, CHR(58)) || 'returned%'), 0)
                     AS posted
          FROM products.remittal r) s
    WHERE s.returned <> s.posted
    """,
)
