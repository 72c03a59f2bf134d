"""What must hold of pairings, as queries over whole sets that select the lies: `ledger.verify` takes them as extra checks."""

from ledger.checks import SetCheck

PAIRINGS = SetCheck(
    "every standing pairing's lines add up to its booked items, on one bank account and in its currency",
    "SELECT count(*) FROM ledger.pairing WHERE undone_at IS NULL",
    """
    WITH standing AS (
        SELECT p.id, p.bank_account_id, p.amount, p.lines, p.items, b.currency
        FROM ledger.pairing p LEFT JOIN ledger.bank_account b ON b.id = p.bank_account_id WHERE p.undone_at IS NULL
    ), lines AS (
        SELECT s.id, count(l.id) AS there, coalesce(sum(l.amount), 0) AS amount,
               count(*) FILTER (WHERE l.bank_account_id <> s.bank_account_id OR l.currency <> s.currency) AS elsewhere,
               count(l.duplicate_of) AS duplicates
        FROM (SELECT id, bank_account_id, currency, unnest(lines) AS line FROM standing) AS s
        LEFT JOIN ledger.statement_line l ON l.id = s.line GROUP BY s.id
    ), items AS (
        SELECT s.id, count(i.id) AS there, coalesce(sum(i.amount), 0) AS amount,
               count(*) FILTER (WHERE i.bank_account_id <> s.bank_account_id OR i.currency <> s.currency
                                OR i.source <> 'booked') AS elsewhere
        FROM (SELECT id, bank_account_id, currency, unnest(items) AS item FROM standing) AS s
        LEFT JOIN ledger.item i ON i.id = s.item GROUP BY s.id
    )
    SELECT format('pairing %s', s.id),
           CASE WHEN coalesce(l.there, 0) <> cardinality(s.lines) THEN 'one of its lines is not there'
                WHEN coalesce(i.there, 0) <> cardinality(s.items) THEN 'one of its items is not there'
                WHEN l.elsewhere > 0 OR i.elsewhere > 0 OR s.currency IS NULL
                     THEN 'a line or an item is of another bank account or currency, or not booked'
                WHEN l.duplicates > 0 THEN 'one of its lines is the same as another, and takes no part'
                ELSE format('is of %s; its lines come to %s, its items to %s', s.amount, coalesce(l.amount, 0), i.amount)
           END
    FROM standing s LEFT JOIN lines l USING (id) LEFT JOIN items i USING (id)
    WHERE coalesce(l.there, 0) <> cardinality(s.lines) OR coalesce(i.there, 0) <> cardinality(s.items)
       OR s.currency IS NULL OR l.elsewhere > 0 OR i.elsewhere > 0 OR l.duplicates > 0
       OR coalesce(l.amount, 0) <> s.amount OR i.amount <> s.amount
    """,
)

STANDING = SetCheck(
    "what stands in pairings is what they say, and no line and no item stands in two",
    "SELECT (SELECT count(*) FROM ledger.paired_line) + (SELECT count(*) FROM ledger.paired_item)",
    """
    WITH said AS (
        SELECT p.id AS pairing_id, 'line' AS what, unnest(p.lines) AS id FROM ledger.pairing p WHERE p.undone_at IS NULL
        UNION ALL SELECT p.id, 'item', unnest(p.items) FROM ledger.pairing p WHERE p.undone_at IS NULL
    ), stands AS (
        SELECT pairing_id, 'line' AS what, line_id AS id FROM ledger.paired_line
        UNION ALL SELECT pairing_id, 'item', item_id FROM ledger.paired_item
    )
    SELECT format('%s %s', coalesce(said.what, stands.what), coalesce(said.id, stands.id)),
           CASE WHEN stands.id IS NULL THEN format('pairing %s says that it is of it; it does not stand there', said.pairing_id)
                ELSE format('stands in pairing %s, which does not say so or was taken back', stands.pairing_id) END
    FROM said FULL JOIN stands ON stands.id = said.id AND stands.what = said.what AND stands.pairing_id = said.pairing_id
    WHERE said.id IS NULL OR stands.id IS NULL
    """,
)

ITEMS = SetCheck(
    "booked items are the postings on the accounts that bank accounts mirror",
    "SELECT count(*) FROM ledger.item WHERE source = 'booked'",
    """
    SELECT format('item %s', i.id),
           CASE WHEN p.transaction_id IS NULL THEN 'its posting is not in the books'
                ELSE format('is of %s on %s; its posting is not', i.amount, i.on_date) END
    FROM ledger.item i
    LEFT JOIN ledger.bank_account b ON b.id = i.bank_account_id
    LEFT JOIN ledger.posting p ON p.transaction_id = i.transaction_id AND p.seq = i.seq
    WHERE i.source = 'booked'
      AND (p.transaction_id IS NULL OR p.currency <> i.currency OR p.effective_on <> i.on_date
           OR CASE b.account_id WHEN p.debit_account THEN p.amount WHEN p.credit_account THEN -p.amount END
              IS DISTINCT FROM i.amount)
    """,
)

PAIRING_CHECKS = (PAIRINGS, STANDING, ITEMS)
"""All of them, in the order in which a report shows them."""
