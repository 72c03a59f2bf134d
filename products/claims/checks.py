"""What must hold between certified claim packs and the books."""

from ledger.checks import SetCheck

CLAIMS = SetCheck(
    "what sponsors certified, less approved adjustments, is what they owe and have paid",
    "SELECT count(*) FROM products.claim_line WHERE kind = 'match'",
    """
    WITH booked AS (
        SELECT p.sponsor_id, l.enrolment_id, l.window_start, l.amount
        FROM products.claim_pack p JOIN products.claim_line l ON l.pack_id = p.id
        WHERE p.state = 'certified' AND l.kind = 'match' AND l.position <= p.booked_lines
    ), fallen AS (
        SELECT sponsor_id, enrolment_id, window_start, -certified AS amount FROM products.match_adjustment
        WHERE state = 'approved' AND certified > 0
    ), moved AS (
        SELECT * FROM booked UNION ALL SELECT * FROM fallen
    ), by_share AS (
        SELECT enrolment_id, window_start, sponsor_id, sum(amount) AS amount FROM moved GROUP BY 1, 2, 3
    ), by_sponsor AS (
        SELECT sponsor_id, sum(amount) AS amount FROM moved GROUP BY 1
    )
    SELECT format('enrolment %s, window of %s', coalesce(h.enrolment_id, b.enrolment_id),
                  coalesce(h.window_start, b.window_start)),
           format('%s of its match is certified, its packs and adjustments come to %s', coalesce(h.certified, 0),
                  coalesce(b.amount, 0))
    FROM (SELECT * FROM products.match_share WHERE certified > 0) h
    FULL JOIN by_share b USING (enrolment_id, window_start, sponsor_id)
    WHERE coalesce(h.certified, 0) <> coalesce(b.amount, 0)
    UNION ALL
    SELECT format('sponsor %s', s.slug),
           format('certified %s, and its receivable was charged with %s', coalesce(b.amount, 0), coalesce(r.amount, 0))
    FROM products.sponsor s
    LEFT JOIN by_sponsor b ON b.sponsor_id = s.id
    LEFT JOIN LATERAL (
        SELECT sum(side.amount) AS amount FROM (
            SELECT p.amount, p.transaction_id FROM ledger.posting p WHERE p.debit_account = s.receivable_account
            UNION ALL
            SELECT -p.amount, p.transaction_id FROM ledger.posting p WHERE p.credit_account = s.receivable_account
        ) AS side JOIN ledger.transaction t ON t.id = side.transaction_id
        WHERE t.kind IN ('claim_certified', 'match_adjusted')
    ) r ON true
    WHERE coalesce(b.amount, 0) <> coalesce(r.amount, 0)
    UNION ALL
    SELECT format('claim pack %s', p.id), 'its totals are not those of its lines'
    FROM products.claim_pack p
    LEFT JOIN (SELECT pack_id, count(*) FILTER (WHERE kind = 'match') AS lines,
                      count(*) FILTER (WHERE kind = 'adjustment') AS adjustments,
                      coalesce(sum(amount) FILTER (WHERE kind = 'match'), 0) AS claimed,
                      coalesce(-sum(amount) FILTER (WHERE kind = 'adjustment'), 0) AS adjusted
               FROM products.claim_line GROUP BY 1) l ON l.pack_id = p.id
    WHERE (p.lines, p.adjustments, p.claimed, p.adjusted)
       IS DISTINCT FROM (l.lines::int, l.adjustments::int, l.claimed::bigint, l.adjusted::bigint)
    """,
)
