"""What must hold between the products' records and the books, as queries that select the lies.

`ledger.verify` takes them as extra checks: remittances and their transactions, contributions and the accounts they lie
in, match and the sponsors' accounts, the queue and what awaits funds.
"""

from ledger.checks import NORMAL_SIDE, SetCheck
from ledger.reconciliation.checks import PAIRING_CHECKS
from products.claims.checks import CLAIMS
from products.payouts.checks import PAYOUT_CHECKS
from products.remittals.checks import REMITTALS

REMITTANCES = SetCheck(
    "remittances have the transactions that their status means, and these their remittances",
    "SELECT count(*) FROM products.remittance",
    """
    SELECT format('remittance %s', r.id), format('is %s, but its transaction is not in the books', r.status)
    FROM products.remittance r LEFT JOIN ledger.transaction t ON t.id = r.transaction_id
    WHERE r.transaction_id IS NOT NULL AND t.id IS NULL
       OR r.status IN ('posted', 'unallocated') AND r.collected_amount > 0 AND r.transaction_id IS NULL
    UNION ALL
    SELECT format('remittance %s', r.id), 'was posted and reversed, but no transaction in the books reverses it'
    FROM products.remittance r LEFT JOIN ledger.transaction t ON t.id = r.reversal_transaction_id
    WHERE r.status = 'reversed' AND r.transaction_id IS NOT NULL
      AND (t.id IS NULL OR t.reverses IS DISTINCT FROM r.transaction_id)
    UNION ALL
    SELECT format('transaction %s', t.id), 'is of a remittance that is not on record'
    FROM ledger.transaction t
    WHERE t.kind IN ('remittance_allocated', 'remittance_unallocated', 'remittance_reversed')
      AND NOT EXISTS (SELECT 1 FROM products.remittance r
                      WHERE r.id = CAST(split_part(t.reference, CHR(58), 2) AS uuid))
    """,
)

CONTRIBUTIONS = SetCheck(
    "what members' contributions come to is what their accounts hold",
    "SELECT count(*) FROM products.contribution",
    f"""
    WITH recorded AS (
        SELECT credited_account AS account_id, sum(amount) AS amount FROM products.contribution
        WHERE state <> 'reversed' GROUP BY credited_account
    ), held AS (
        SELECT a.id AS account_id, {NORMAL_SIDE} AS amount
        FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
        WHERE a.code = 'member_contributions_pending'
    )
    SELECT format('account %s', coalesce(h.account_id, r.account_id)),
           format('holds %s pending, its contributions come to %s', h.amount, coalesce(r.amount, 0))
    FROM held h LEFT JOIN recorded r USING (account_id) WHERE h.amount <> coalesce(r.amount, 0)
    """,
)

MATCH_STATES = SetCheck(
    "match is derived from the contributions on record",
    "SELECT count(*) FROM products.match_state",
    """
    WITH counted AS (
        SELECT enrolment_id, window_start, sum(amount) AS contributed,
               coalesce(sum(amount) FILTER (WHERE state = 'settled'), 0) AS settled
        FROM products.contribution WHERE state <> 'reversed' AND window_start IS NOT NULL GROUP BY 1, 2
    )
    SELECT format('enrolment %s, window of %s', s.enrolment_id, s.window_start),
           format('counts %s contributed and %s settled; the record says %s and %s', t.contributed, t.settled,
                  coalesce(c.contributed, 0), coalesce(c.settled, 0))
    FROM products.match_state s
    CROSS JOIN LATERAL (
        SELECT (SELECT coalesce(sum(x), 0) FROM unnest(s.by_tier) x) AS contributed,
               (SELECT coalesce(sum(x), 0) FROM unnest(s.settled_by_tier) x) AS settled
    ) t
    LEFT JOIN counted c USING (enrolment_id, window_start)
    WHERE (t.contributed, t.settled) IS DISTINCT FROM (coalesce(c.contributed, 0), coalesce(c.settled, 0))
    UNION ALL
    SELECT format('enrolment %s, window of %s', s.enrolment_id, s.window_start),
           format('is entitled to %s; its sponsors'' shares come to %s', s.entitled, coalesce(h.shares, 0))
    FROM products.match_state s
    -- a share may stand above what is earned where it can't fall: vested, forfeited, certified
    LEFT JOIN (SELECT enrolment_id, window_start, sum(committed + unvested + vested + awaiting + forfeited) AS shares,
                      bool_or(committed + unvested + vested + awaiting + forfeited
                              <= greatest(vested + forfeited, certified)) AS cannot_fall
               FROM products.match_share GROUP BY 1, 2) h USING (enrolment_id, window_start)
    WHERE coalesce(h.shares, 0) < s.entitled OR coalesce(h.shares, 0) > s.entitled AND NOT coalesce(h.cannot_fall, false)
    """,
)

# what has vested less what was paid out of it; what fell after it was paid out is the member's debt
_OF_SHARES = """CASE a.code WHEN 'match_unvested' THEN coalesce(h.unvested, 0)
    ELSE coalesce(h.vested, 0) - coalesce(w.paid, 0) + coalesce(o.owed, 0) END"""

SPONSORS = SetCheck(
    "what sponsors have committed, and what is unvested and vested, is what the accounts hold",
    "SELECT count(*) FROM products.match_share",
    f"""
    SELECT format('sponsor %s', s.slug),
           format('its account holds %s committed, its shares come to %s', {NORMAL_SIDE}, coalesce(h.committed, 0))
    FROM products.sponsor s
    JOIN ledger.account a ON a.id = s.committed_account JOIN ledger.account_balance b ON b.account_id = a.id
    LEFT JOIN (SELECT sponsor_id, sum(committed) AS committed FROM products.match_share GROUP BY 1) h
      ON h.sponsor_id = s.id
    WHERE {NORMAL_SIDE} <> coalesce(h.committed, 0)
    UNION ALL
    SELECT format('enrolment %s', e.id),
           format('%s holds %s, its shares come to %s', a.code, {NORMAL_SIDE}, {_OF_SHARES})
    FROM products.enrolment e
    JOIN ledger.account a ON a.id IN (e.unvested_account, e.vested_account)
    JOIN ledger.account_balance b ON b.account_id = a.id
    LEFT JOIN (SELECT enrolment_id, sum(unvested) AS unvested, sum(vested) AS vested
               FROM products.match_share GROUP BY 1) h ON h.enrolment_id = e.id
    LEFT JOIN (SELECT enrolment_id, sum(match) AS paid FROM products.withdrawal WHERE left_at IS NOT NULL GROUP BY 1) w
      ON w.enrolment_id = e.id
    LEFT JOIN (SELECT enrolment_id, sum(owed) AS owed FROM products.match_adjustment GROUP BY 1) o
      ON o.enrolment_id = e.id
    WHERE {NORMAL_SIDE} <> {_OF_SHARES}
    """,
)

FORFEITURES = SetCheck(
    "match that was forfeited left with a withdrawal",
    "SELECT count(*) FROM products.forfeiture",
    """
    SELECT format('enrolment %s, window of %s', coalesce(h.enrolment_id, f.enrolment_id),
                  coalesce(h.window_start, f.window_start)),
           format('has lost %s, its forfeitures come to %s', coalesce(h.forfeited, 0), coalesce(f.amount, 0))
    FROM (SELECT enrolment_id, window_start, sponsor_id, forfeited FROM products.match_share WHERE forfeited > 0) h
    FULL JOIN (SELECT enrolment_id, window_start, sponsor_id, sum(amount) AS amount
               FROM products.forfeiture GROUP BY 1, 2, 3) f USING (enrolment_id, window_start, sponsor_id)
    WHERE coalesce(h.forfeited, 0) <> coalesce(f.amount, 0)
    UNION ALL
    SELECT format('payout %s', f.payout_id), 'forfeits match, but its money is not out'
    FROM products.forfeiture f LEFT JOIN products.withdrawal w USING (payout_id, enrolment_id)
    WHERE w.left_at IS NULL
    """,
)

QUEUE = SetCheck(
    "what awaits a sponsor's funds is what stands in its queue",
    "SELECT count(*) FROM products.match_queue",
    """
    SELECT format('enrolment %s, window of %s', coalesce(h.enrolment_id, q.enrolment_id),
                  coalesce(h.window_start, q.window_start)),
           format('awaits %s, its queue entries come to %s', coalesce(h.awaiting, 0), coalesce(q.amount, 0))
    FROM (SELECT enrolment_id, window_start, sponsor_id, awaiting FROM products.match_share WHERE awaiting > 0) h
    FULL JOIN (SELECT enrolment_id, window_start, sponsor_id, sum(amount) AS amount
               FROM products.match_queue GROUP BY 1, 2, 3) q USING (enrolment_id, window_start, sponsor_id)
    WHERE coalesce(h.awaiting, 0) <> coalesce(q.amount, 0)
    """,
)

OWED = SetCheck(
    "what partners owe is what they collected and have not paid in, less their credits",
    "SELECT count(*) FROM products.contribution WHERE owed",
    f"""
    WITH owed AS (
        SELECT debited_account AS account_id, sum(amount) AS amount
        FROM products.contribution WHERE owed GROUP BY 1
    )
    SELECT format('account %s of %s', a.id, a.owner),
           format('holds %s, the contributions still owed come to %s, its credits to %s', {NORMAL_SIDE}, coalesce(o.amount, 0),
                  coalesce(credit.amount, 0))
    FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
    LEFT JOIN owed o ON o.account_id = a.id
    LEFT JOIN (SELECT partner_id, fund_id, currency, sum(amount) AS amount
               FROM products.settlement_credit GROUP BY 1, 2, 3) credit
      ON credit.partner_id = a.partner_id AND credit.fund_id = a.fund_id AND credit.currency = a.currency
    WHERE a.code = 'partner_receivable' AND {NORMAL_SIDE} <> coalesce(o.amount, 0) - coalesce(credit.amount, 0)
    """,
)

SETTLEMENTS = SetCheck(
    "settlements add up, and paid for the contributions that name them",
    "SELECT count(*) FROM products.settlement",
    """
    SELECT format('settlement %s', s.id),
           format('of %s, with %s of credits and %s of fees, has %s paired, %s unidentified, %s topped up and %s carried', s.amount,
                  s.credits, s.fees, s.paired, s.unidentified, s.topped_up, s.carried)
    FROM products.settlement s
    WHERE s.amount + s.credits + s.fees <> s.paired + s.unidentified + s.topped_up + s.carried
    UNION ALL
    SELECT format('settlement %s', coalesce(s.id, c.settlement_id)),
           format('has %s paired; the contributions that name it come to %s', s.paired, coalesce(c.amount, 0))
    FROM (SELECT * FROM products.settlement WHERE state NOT IN ('returning', 'returned')) s
    FULL JOIN (
        SELECT settlement_id, sum(amount) AS amount FROM products.contribution c
        WHERE settlement_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM products.settlement r WHERE r.id = c.settlement_id AND r.state = 'returning')
          -- what had no member then went on to the member's products, which stand here too
          AND NOT (destination = 'unallocated' AND EXISTS (
              SELECT 1 FROM products.contribution n WHERE n.remittance = c.remittance AND n.position > c.position))
        GROUP BY 1) c ON c.settlement_id = s.id
    WHERE coalesce(s.paired, 0) <> coalesce(c.amount, 0)
    """,
)

RECEIPTS = SetCheck(
    "unidentified receipts hold what settlements left over, money whose sender nobody knows, and what was posted by hand",
    "SELECT count(*) FROM products.receipt",
    f"""
    WITH held AS (
        SELECT fund_id, currency, sum(amount) AS amount FROM (
            SELECT coalesce(s.cash_fund, f.fund_id) AS fund_id, s.currency, s.unidentified AS amount
            FROM products.settlement s
            JOIN products.programme_fund f ON f.programme_id = s.programme_id AND f.role = 'savers'
            WHERE s.kind = 'payment' AND s.state NOT IN ('returning', 'returned')
            UNION ALL
            SELECT fund_id, currency, amount FROM products.receipt WHERE state = 'open'
            UNION ALL
            -- what two managers posted there by hand, and what took that back
            SELECT a.fund_id, a.currency, CASE WHEN p.credit_account = a.id THEN p.amount ELSE -p.amount END
            FROM ledger.account a JOIN ledger.posting p ON a.id IN (p.credit_account, p.debit_account)
            JOIN ledger.transaction t ON t.id = p.transaction_id
            LEFT JOIN ledger.transaction o ON o.id = t.reverses
            WHERE a.code = 'unidentified_receipts' AND 'manual' IN (t.kind, o.kind)
        ) one GROUP BY fund_id, currency
    ), booked AS (
        SELECT a.fund_id, a.currency, sum({NORMAL_SIDE}) AS amount
        FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id
        WHERE a.code = 'unidentified_receipts' GROUP BY a.fund_id, a.currency
    )
    SELECT format('fund %s', coalesce(b.fund_id, h.fund_id)),
           format('has %s in unidentified receipts; settlements, receipts and what was posted by hand come to %s', coalesce(b.amount, 0),
                  coalesce(h.amount, 0))
    FROM booked b FULL JOIN held h USING (fund_id, currency) WHERE coalesce(b.amount, 0) <> coalesce(h.amount, 0)
    """,
)

PRODUCT_CHECKS = (
    REMITTANCES,
    CONTRIBUTIONS,
    MATCH_STATES,
    SPONSORS,
    FORFEITURES,
    QUEUE,
    OWED,
    SETTLEMENTS,
    RECEIPTS,
    CLAIMS,
    REMITTALS,
    *PAYOUT_CHECKS,
    *PAIRING_CHECKS,
)
"""All of them, in the order in which a report shows them."""
