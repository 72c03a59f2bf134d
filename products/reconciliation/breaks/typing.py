"""What kind of break each thing is that does not tie: found in sets, the first type that fits a subject has it.

`find` fills the working table `products.break_found` with one row for each subject that does not tie. `docs/reference/breaks.md`
says of each type what it means, from what it is found and what usually ends it; what is written there and what stands here are
to be read side by side.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, get_args

from ledger.database import Tx, cursor
from ledger.reconciliation.gaps import gaps
from products.reconciliation.conversions import DAYS_APART_MAX, NAME_CHARACTERS_MIN

BreakType = Literal[
    "timing",
    "missing_in_bank",
    "missing_in_books",
    "short",
    "over",
    "fee",
    "fx",
    "wrong_account",
    "returned_settlement",
    "unapplied_receipt",
    "settled_but_quarantined",
    "reversed_after_settlement",
    "statement_gap",
    "agency_rejection",
    "rail_paid_bank_silent",
    "duplicate",
    "unknown_party",
]
TYPES: Final[tuple[BreakType, ...]] = get_args(BreakType)
SubjectKind = Literal["line", "item", "gap", "delivery", "credit", "settlement", "receipt", "remittal_line"]
"""What a break is of: a statement line or an item that is open; a gap between statements; a delivery; what a fund owes a partner;
a settlement; money in unidentified receipts; a line of a remittal."""

TIMING_DAYS: Final = 3
"""So many days after its own the bank may show what the books have, before it is missing."""
SILENT_DAYS: Final = 5
"""So many days after a rail said that it paid, a bank that has shown nothing is silent."""
NEAR_DAYS: Final = 45
"""So far apart at most are the two sides of one movement that no rule paired."""
NEAR_ACCOUNT_DAYS: Final = 5
"""So far apart at most are the two sides where nothing but their amount says, across accounts, that they belong together."""
FEE_BASIS_POINTS: Final = 200
"""A bank's fee is at most this share of what was sent, in hundredths of a percent; what is more is short."""
ALIKE_MAX: Final = 50
"""Of items with the same amount on one account, so many are compared with a line."""


def find(tx: Tx, now: datetime) -> None:
    """Fill `products.break_found`; as a role that sees everything. The table is empty between two transactions."""
    cur = cursor(tx)
    cur.execute("DELETE FROM products.break_found")
    cur.execute(
        _FIND,
        {
            "now": now,
            "timing": TIMING_DAYS,
            "silent": SILENT_DAYS,
            "near": NEAR_DAYS,
            "near_account": NEAR_ACCOUNT_DAYS,
            "converting": DAYS_APART_MAX,
            "fee": FEE_BASIS_POINTS,
            "alike": ALIKE_MAX,
        },
    )
    _find_gaps(tx)


def _find_gaps(tx: Tx) -> None:
    """Between an account's statements: what is missing is a gap, and of what two say differently one is a duplicate."""
    cur = cursor(tx)
    cur.execute(
        f"WITH {_ACCOUNTS} SELECT id, programme_id, fund_id, currency FROM the_account", {"now": None}
    )
    for account, programme, fund, currency in cur.fetchall():
        rows = [
            (
                f"{gap.kind}:{gap.statement or gap.before}:{gap.from_on}",
                "duplicate" if gap.kind == "overlap_differs" else "statement_gap",
                (gap.found or 0) - (gap.expected or 0),
                gap.from_on,
                gap.to_on,
                gap.kind,
            )
            for gap in gaps(tx, account)
            if not gap.harmless
        ]
        cur.execute(
            """INSERT INTO products.break_found (subject_kind, subject, type, programme_id, bank_account_id, fund_id, amount,
                                                 currency, on_date, details)
               SELECT DISTINCT ON (t.s) 'gap', t.s, t.t, %s, %s, %s, t.a, %s, t.f,
                      jsonb_build_object('kind', t.k, 'from', t.f, 'to', t.l)
               FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::date[], %b::date[], %b::text[]) AS t (s, t, a, f, l, k)""",
            (programme, account, fund, currency, *([row[place] for row in rows] for place in range(6))),
        )


# -- what is open ------------------------------------------------------------------------------------------------

_ACCOUNTS: Final = """
    the_account AS MATERIALIZED (
        SELECT b.id, b.fund_id, b.currency, coalesce(p.programme_id, g.id) AS programme_id,
               (%(now)s AT TIME ZONE f.time_zone)::date AS today,
               -- how far the bank has told us
               (SELECT max(s.to_on) FROM ledger.bank_statement s WHERE s.bank_account_id = b.id AND s.withdrawn_at IS NULL) AS covered
        FROM ledger.bank_account b JOIN ledger.fund f ON f.id = b.fund_id
        LEFT JOIN products.programme_fund p ON p.fund_id = f.id
        LEFT JOIN products.programme g ON f.code = g.slug || '/administrator'
        WHERE coalesce(p.programme_id, g.id) IS NOT NULL
    )
"""

_CLEAN: Final = "upper(regexp_replace({}, '[^A-Za-z0-9]', '', 'g'))"
_NAMES: Final = f"length({{0}}) >= {NAME_CHARACTERS_MIN} AND {{0}} NOT IN ('NOTPROVIDED', 'NONREF', 'NOREF')"


def _keys(row: str, columns: str) -> str:
    """The references of a row, spelled alike."""
    return (
        f"CROSS JOIN LATERAL (SELECT DISTINCT {_CLEAN.format('k')} AS key FROM unnest({columns.format(row)}) AS k) k"
        f" WHERE {_NAMES.format('k.key')}"
    )


_LINE_KEYS: Final = "{0}.identifiers || {0}.end_to_end || {0}.reference"
_ITEM_KEYS: Final = "{0}.identifiers || {0}.end_to_end || {0}.reference || {0}.batch"

_OPEN: Final[Mapping[str, str]] = {
    "open_line": """
        SELECT l.id, l.bank_account_id, a.programme_id, a.fund_id, l.amount, l.currency, l.booked_on, l.kind, l.party,
               l.end_to_end, l.reference, l.identifiers
        FROM ledger.statement_line l JOIN the_account a ON a.id = l.bank_account_id
        WHERE l.duplicate_of IS NULL AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)""",
    "open_item": """
        SELECT i.id, i.source, i.bank_account_id, a.programme_id, a.fund_id, i.amount, i.currency, i.on_date, i.kind, i.party,
               i.end_to_end, i.reference, i.identifiers, i.batch, i.transaction_id, a.covered, a.today
        FROM ledger.item i JOIN the_account a ON a.id = i.bank_account_id
        WHERE i.closed_at IS NULL
          AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id)""",
    "line_key": f"SELECT l.id AS line_id, k.key FROM open_line l {_keys('l', _LINE_KEYS)}",
    # what is expected under a reference: one item, or all of a batch
    "expected": f"""
        SELECT k.key, i.programme_id, i.bank_account_id, i.currency, sum(i.amount)::bigint AS amount, min(i.on_date) AS on_date,
               array_agg(i.id ORDER BY i.id) AS items
        FROM open_item i {_keys("i", _ITEM_KEYS)} GROUP BY 1, 2, 3, 4""",
    # a line beside what is expected under one of its references; of several the nearest in account, then in amount
    "named": """
        SELECT DISTINCT ON (l.id) l.*, e.amount AS expected, e.items, e.bank_account_id AS of_account, e.currency AS of_currency
        FROM open_line l JOIN line_key k ON k.line_id = l.id
        JOIN expected e ON e.key = k.key AND e.programme_id = l.programme_id AND sign(e.amount) = sign(l.amount)
        WHERE e.bank_account_id = l.bank_account_id OR e.currency <> l.currency OR e.amount = l.amount
        ORDER BY l.id, e.bank_account_id <> l.bank_account_id, e.currency <> l.currency, abs(e.amount - l.amount), e.on_date,
                 e.items""",
    # another line under the same reference, of the same amount or the opposite
    "twin": f"""
        SELECT l.id AS line_id, o.id, o.amount, o.booked_on, o.party FROM open_line l
        JOIN ledger.statement_line o ON o.bank_account_id = l.bank_account_id AND o.end_to_end = l.end_to_end
             AND abs(o.amount) = abs(l.amount) AND o.id <> l.id AND o.duplicate_of IS NULL
        WHERE {_NAMES.format("upper(l.end_to_end)")} AND abs(o.booked_on - l.booked_on) <= %(near)s
        UNION
        SELECT l.id, o.id, o.amount, o.booked_on, o.party FROM open_line l
        JOIN ledger.statement_line o ON o.bank_account_id = l.bank_account_id AND o.reference = l.reference
             AND abs(o.amount) = abs(l.amount) AND o.id <> l.id AND o.duplicate_of IS NULL
        WHERE {_NAMES.format("upper(l.reference)")} AND abs(o.booked_on - l.booked_on) <= %(near)s""",
    # what a partner owes at a bank account: one day, or its oldest days together
    "owed": """
        SELECT bank_account_id, party, on_date, amount, ARRAY[id] AS items FROM open_item
        WHERE source = 'settlement' AND party IS NOT NULL
        UNION ALL
        SELECT bank_account_id, party, on_date, sum(amount) OVER oldest, array_agg(id) OVER oldest FROM open_item
        WHERE source = 'settlement' AND party IS NOT NULL
        WINDOW oldest AS (PARTITION BY bank_account_id, party ORDER BY on_date, id)""",
    # one currency went out and another came in, of one fund under one reference; the nearest in days
    "converted": """
        SELECT DISTINCT ON (l.id) l.*, o.id AS other, o.amount AS other_amount, o.currency AS other_currency,
               o.bank_account_id AS other_account
        FROM open_line l JOIN line_key k ON k.line_id = l.id
        JOIN line_key m ON m.key = k.key JOIN open_line o ON o.id = m.line_id AND o.fund_id = l.fund_id
             AND o.currency <> l.currency AND sign(o.amount) = -sign(l.amount)
             AND abs(o.booked_on - l.booked_on) <= %(converting)s
        ORDER BY l.id, abs(o.booked_on - l.booked_on), o.id""",
    "alike": """
        SELECT * FROM (
            SELECT i.*, row_number() OVER (PARTITION BY bank_account_id, amount ORDER BY on_date DESC, id) AS n FROM open_item i
        ) i WHERE n <= %(alike)s""",
}

# -- lines -------------------------------------------------------------------------------------------------------

_OF_LINE: Final = "l.id, l.programme_id, l.bank_account_id, l.fund_id, l.party"
_MAY_BE: Final = """
    (l.end_to_end IS NULL OR i.end_to_end IS NULL OR l.end_to_end = i.end_to_end)
    AND (l.party IS NULL OR i.party IS NULL OR l.party = i.party)"""


def _of_difference(expected: str) -> str:
    """The type and the value of a line whose amount is not what was expected: the difference."""
    return f"""
        CASE WHEN l.amount = {expected} THEN 'timing'
             WHEN l.amount > {expected} THEN 'over'
             WHEN ({expected} - l.amount) * 10000 <= abs({expected}) * %(fee)s THEN 'fee'
             ELSE 'short' END AS type,
        CASE WHEN l.amount = {expected} THEN l.amount ELSE l.amount - {expected} END AS amount, l.currency, l.booked_on"""


_LINE_TYPES: Final[tuple[str, ...]] = (
    # duplicate: the same was there before under the same reference, and nothing open waits for it once more; what waits for one
    # of two that are both open is the earlier one's
    f"""SELECT DISTINCT ON (l.id) {_OF_LINE}, 'duplicate' AS type, l.amount, l.currency, l.booked_on, '{{}}'::uuid[] AS items,
               jsonb_build_object('lines', jsonb_build_array(o.id)) AS details
        FROM open_line l JOIN twin o ON o.line_id = l.id AND o.amount = l.amount
        LEFT JOIN ledger.paired_line p ON p.line_id = o.id
        WHERE (p.line_id IS NOT NULL OR (o.booked_on, o.id) < (l.booked_on, l.id))
          AND NOT EXISTS (SELECT FROM named n WHERE n.id = l.id AND n.expected = n.amount
                          AND NOT EXISTS (SELECT FROM named m WHERE m.id = o.id AND m.items = n.items))
        ORDER BY l.id, p.line_id IS NULL, o.id""",
    # returned_settlement: money goes out under the reference under which a partner's payment came in, paired or not
    f"""SELECT DISTINCT ON (l.id) l.id, l.programme_id, l.bank_account_id, l.fund_id, s.partner, 'returned_settlement', l.amount,
               l.currency, l.booked_on, '{{}}'::uuid[],
               jsonb_strip_nulls(jsonb_build_object(
                   'settlement', s.settlement_id, 'lines', CASE WHEN s.line_id IS NOT NULL THEN jsonb_build_array(s.line_id) END))
        FROM open_line l JOIN (
            SELECT k.line_id AS of_line, s.programme_id, s.amount, s.currency, p.slug AS partner, s.id AS settlement_id,
                   NULL::uuid AS line_id
            FROM products.settlement s JOIN products.partner p ON p.id = s.partner_id
            JOIN line_key k ON k.key = {_CLEAN.format("s.reference")}
            WHERE s.kind = 'payment' AND s.state IN ('paired', 'pairing')
            UNION ALL
            SELECT o.line_id, s.programme_id, o.amount, s.currency, g.slug, s.id, o.id
            FROM twin o JOIN ledger.paired_line p ON p.line_id = o.id JOIN ledger.paired_item i ON i.pairing_id = p.pairing_id
            JOIN ledger.item ii ON ii.id = i.item_id
            JOIN ledger.transaction t ON t.id = ii.transaction_id AND t.kind = 'settlement_received'
            JOIN products.settlement s ON s.id = CAST(split_part(t.reference, ':', 2) AS uuid)
                 AND s.state IN ('paired', 'pairing')
            JOIN products.partner g ON g.id = s.partner_id
            UNION ALL
            SELECT o.line_id, p.programme_id, o.amount, p.currency, g.slug, NULL, o.id
            FROM twin o JOIN open_line p ON p.id = o.id JOIN products.partner g ON g.slug = o.party
        ) s ON s.of_line = l.id AND s.programme_id = l.programme_id AND s.currency = l.currency AND s.amount = -l.amount
        WHERE l.amount < 0 ORDER BY l.id, s.line_id IS NULL, s.settlement_id""",
    # fx: a conversion that nobody has booked yet
    f"""SELECT {_OF_LINE}, 'fx', l.amount, l.currency, l.booked_on, '{{}}'::uuid[],
               jsonb_build_object('lines', jsonb_build_array(l.other), 'other_amount', l.other_amount,
                                  'other_currency', l.other_currency, 'other_account', l.other_account)
        FROM converted l""",
    # fx: known by its reference, in another currency
    f"""SELECT {_OF_LINE}, 'fx', l.amount, l.currency, l.booked_on, l.items,
               jsonb_build_object('expected', l.expected, 'expected_currency', l.of_currency, 'other_account', l.of_account)
        FROM named l WHERE l.of_currency <> l.currency""",
    # wrong_account: known by its reference, with its amount, on another bank account of the programme
    f"""SELECT {_OF_LINE}, 'wrong_account', l.amount, l.currency, l.booked_on, l.items,
               jsonb_build_object('expected', l.expected, 'other_account', l.of_account)
        FROM named l WHERE l.of_account <> l.bank_account_id""",
    # known by its reference, on its account: both sides are there, or the amount differs
    f"""SELECT {_OF_LINE}, {_of_difference("l.expected")}, l.items,
               jsonb_build_object('expected', l.expected, 'arrived', l.amount)
        FROM named l""",
    # timing: an open item of the same account and amount, that no rule paired for want of evidence or of nearness
    f"""SELECT DISTINCT ON (l.id) {_OF_LINE}, 'timing', l.amount, l.currency, l.booked_on, ARRAY[i.id],
               jsonb_build_object('expected', i.amount, 'arrived', l.amount)
        FROM open_line l
        JOIN alike i ON i.bank_account_id = l.bank_account_id AND i.amount = l.amount
             AND abs(i.on_date - l.booked_on) <= %(near)s AND {_MAY_BE}
        ORDER BY l.id, l.party IS NOT DISTINCT FROM i.party DESC, abs(i.on_date - l.booked_on), i.id""",
    # a partner that is known by its account pays another amount than it owes
    f"""SELECT DISTINCT ON (l.id) {_OF_LINE}, {_of_difference("o.amount")}, o.items,
               jsonb_build_object('expected', o.amount, 'arrived', l.amount)
        FROM open_line l
        JOIN owed o ON o.bank_account_id = l.bank_account_id AND o.party = l.party AND o.on_date <= l.booked_on + %(timing)s
        WHERE l.amount > 0 ORDER BY l.id, abs(o.amount - l.amount), o.items""",
    # fx: a partner that owes nothing in this currency pays in it what it owes in another
    f"""SELECT DISTINCT ON (l.id) {_OF_LINE}, 'fx', l.amount, l.currency, l.booked_on, ARRAY[i.id],
               jsonb_build_object('expected', i.amount, 'expected_currency', i.currency, 'other_account', i.bank_account_id)
        FROM open_line l
        JOIN open_item i ON i.source = 'settlement' AND i.party = l.party AND i.programme_id = l.programme_id
             AND i.currency <> l.currency AND i.on_date <= l.booked_on + %(timing)s
        WHERE l.amount > 0 ORDER BY l.id, abs(i.on_date - l.booked_on), i.id""",
    # wrong_account: nothing but the amount says so, but on both sides it is the only one of it
    f"""SELECT {_OF_LINE}, 'wrong_account', l.amount, l.currency, l.booked_on, ARRAY[i.id],
               jsonb_build_object('expected', i.amount, 'other_account', i.bank_account_id)
        FROM (SELECT l.*, count(*) OVER (PARTITION BY programme_id, currency, amount) AS n FROM open_line l) l
        JOIN (SELECT i.*, count(*) OVER (PARTITION BY programme_id, currency, amount) AS n FROM open_item i) i
             ON i.programme_id = l.programme_id AND i.currency = l.currency AND i.amount = l.amount AND i.n = 1
        WHERE l.n = 1 AND i.bank_account_id <> l.bank_account_id AND abs(i.on_date - l.booked_on) <= %(near_account)s
          AND {_MAY_BE}""",
    # what the bank says it takes for itself; a sender that nobody knows; and what is left
    f"""SELECT {_OF_LINE},
               CASE WHEN l.amount < 0 AND l.kind ~ '(CHRG|COMM|FEES|NCHG|NCOM)' THEN 'fee'
                    WHEN l.amount > 0 AND l.party IS NULL AND coalesce(l.kind, '') !~ '(INTR|NINT)'
                         AND NOT EXISTS (SELECT FROM twin t WHERE t.line_id = l.id AND t.amount = -l.amount) THEN 'unknown_party'
                    ELSE 'missing_in_books' END,
               l.amount, l.currency, l.booked_on, '{{}}'::uuid[], '{{}}'::jsonb
        FROM open_line l""",
)
"""In the order of precedence."""

# -- items -------------------------------------------------------------------------------------------------------

_OF_ITEMS: Final[Mapping[str, str]] = {
    "of_line": "SELECT DISTINCT ON (id) * FROM ("
    + " UNION ALL ".join(
        f"(SELECT {place} AS place, t.* FROM ({one}) t)" for place, one in enumerate(_LINE_TYPES)
    )
    + ") t ORDER BY id, place",
    # what an agency gives back, until the bank shows it
    "given_back": """
        SELECT l.id, r.programme_id, i.bank_account_id, r.fund_id, l.partner_id, l.amount - l.accepted AS amount, r.currency,
               (l.answered_at AT TIME ZONE f.time_zone)::date AS on_date, i.id AS item_id,
               jsonb_strip_nulls(jsonb_build_object('remittal', r.id, 'position', l.position, 'agency', r.agency,
                                                    'outcome', l.state, 'reason', l.reason)) AS details
        FROM products.remittal_line l JOIN products.remittal r ON r.id = l.remittal_id JOIN ledger.fund f ON f.id = r.fund_id
        LEFT JOIN ledger.reference t ON t.reference = format('remittal:%%s:returned:%%s', r.id, l.position)
        LEFT JOIN ledger.item i ON i.transaction_id = t.transaction_id
        WHERE l.state IN ('rejected', 'corrected') AND l.accepted < l.amount
          AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id)""",
    # what another break names as its other side has none of its own
    "told": """
        SELECT unnest(items) AS item_id FROM of_line UNION SELECT item_id FROM given_back WHERE item_id IS NOT NULL""",
    # booked once more under the same reference, when the first is paired
    "twice": """
        SELECT i.id, min(o.id::text) AS other FROM open_item i
        JOIN ledger.item o ON o.bank_account_id = i.bank_account_id AND o.amount = i.amount AND o.end_to_end = i.end_to_end
             AND o.id <> i.id AND o.source = 'booked'
        JOIN ledger.paired_item p ON p.item_id = o.id
        WHERE i.source = 'booked' AND abs(o.on_date - i.on_date) <= %(near)s GROUP BY 1
        UNION
        SELECT i.id, min(o.id::text) FROM open_item i
        JOIN ledger.item o ON o.bank_account_id = i.bank_account_id AND o.amount = i.amount AND o.reference = i.reference
             AND o.id <> i.id AND o.source = 'booked'
        JOIN ledger.paired_item p ON p.item_id = o.id
        WHERE i.source = 'booked' AND abs(o.on_date - i.on_date) <= %(near)s GROUP BY 1""",
    "of_item": """
        SELECT DISTINCT ON (i.id) i.*,
               CASE WHEN o.id IS NOT NULL THEN 'duplicate'
                    WHEN t.kind IN ('payout_paid', 'payout_taken_again') AND i.on_date + %(silent)s <= i.covered
                        THEN 'rail_paid_bank_silent'
                    WHEN i.on_date + %(timing)s > coalesce(i.covered, '-infinity') THEN 'timing'
                    ELSE 'missing_in_bank' END AS type,
               jsonb_strip_nulls(jsonb_build_object('source', i.source, 'other_item', o.other)) AS details
        FROM open_item i
        LEFT JOIN ledger.transaction t ON t.id = i.transaction_id
        LEFT JOIN twice o ON o.id = i.id
        -- what is still to come may be a line's other side, and is no break of its own
        WHERE i.on_date <= i.today AND NOT EXISTS (SELECT FROM told WHERE told.item_id = i.id) ORDER BY i.id""",
}

# -- the rest ----------------------------------------------------------------------------------------------------

_SAVERS: Final = "JOIN products.programme_fund f ON f.programme_id = s.programme_id AND f.role = 'savers'"

_EVERYTHING: Final[tuple[str, ...]] = (
    """SELECT 'line', id::text, type, programme_id, bank_account_id, fund_id, party, NULL::uuid, amount, currency, booked_on, items,
              details FROM of_line""",
    """SELECT 'item', id::text, type, programme_id, bank_account_id, fund_id, party, NULL, amount, currency, on_date, '{}', details
       FROM of_item""",
    """SELECT DISTINCT ON (id) 'remittal_line', id::text, 'agency_rejection', programme_id, bank_account_id, fund_id, NULL,
              partner_id, amount, currency, on_date, CASE WHEN item_id IS NULL THEN '{}' ELSE ARRAY[item_id] END, details
       FROM given_back""",
    # returned_settlement: the partner has not paid again since; where a pairing was taken back the bank returned nothing, and it is
    # the line that is open
    f"""SELECT 'settlement', s.id::text, 'returned_settlement', s.programme_id, NULL, f.fund_id, NULL, s.partner_id, -s.amount,
               s.currency, s.returned_on, '{{}}', jsonb_build_object('settlement', s.id, 'through', s.through)
        FROM products.settlement s {_SAVERS}
        WHERE s.state IN ('returning', 'returned') AND s.kind = 'payment'
          AND NOT EXISTS (
              SELECT FROM products.pairing_effect e LEFT JOIN products.receipt r ON r.id = e.subject AND e.kind = 'receipt'
              WHERE coalesce(r.settlement_id, e.subject) = s.id AND e.undone_at IS NOT NULL)
          AND NOT EXISTS (
              SELECT FROM products.settlement n WHERE n.partner_id = s.partner_id AND n.programme_id = s.programme_id
                AND n.kind = 'payment' AND n.state = 'paired' AND n.recorded_at > s.recorded_at
                AND n.effective_on >= s.returned_on AND n.through >= s.through)""",
    # unapplied_receipt: money in unidentified receipts, of a partner or of nobody that is known
    f"""SELECT 'receipt', s.id::text, 'unapplied_receipt', s.programme_id, NULL, f.fund_id, NULL, s.partner_id, s.unidentified,
               s.currency, s.effective_on, '{{}}', jsonb_build_object('settlement', s.id)
        FROM products.settlement s {_SAVERS} WHERE s.state = 'paired' AND s.unidentified > 0""",
    """SELECT 'receipt', r.id::text, 'unapplied_receipt', a.programme_id, r.bank_account_id, r.fund_id, NULL, NULL, r.amount,
              r.currency, r.booked_on, '{}', jsonb_build_object('lines', jsonb_build_array(r.line_id))
       FROM products.receipt r JOIN the_account a ON a.id = r.bank_account_id WHERE r.state = 'open'""",
    # settled_but_quarantined: what a partner sent is not in the books, and the partner has paid for its day; while nothing says of
    # which programme it is, it is a break of each in which the partner has
    f"""(SELECT DISTINCT ON (d.id, s.programme_id) 'delivery', d.id || ':' || g.slug, 'settled_but_quarantined', s.programme_id, NULL::uuid, f.fund_id,
                NULL, d.partner_id, coalesce(told.there_amount, 0), coalesce(told.there_currency, s.currency),
                (d.received_at AT TIME ZONE g.time_zone)::date, '{{}}'::uuid[],
                jsonb_strip_nulls(jsonb_build_object('settlement', s.id, 'reason', o.reason,
                                                     'valued', told.there_amount IS NOT NULL))
         FROM integrations.delivery_outcome o JOIN integrations.delivery d ON d.id = o.delivery_id
         LEFT JOIN products.remittance r ON r.id = o.remittance_id
         JOIN products.settlement s ON s.partner_id = d.partner_id AND s.kind = 'payment' AND s.state IN ('pairing', 'paired')
              AND (r.programme_id IS NULL OR r.programme_id = s.programme_id)
         {_SAVERS} JOIN products.programme g ON g.id = s.programme_id
         LEFT JOIN LATERAL (
             SELECT x.there_amount, x.there_currency, file.programme_id FROM products.settlement_difference x
             JOIN products.settlement_file file ON file.id = x.file_id
             WHERE x.remittance = o.remittance_id AND x.here_state = 'quarantined' AND x.there_amount IS NOT NULL
             ORDER BY x.file_id DESC LIMIT 1
         ) told ON true
         WHERE o.state = 'quarantined' AND coalesce(told.programme_id, s.programme_id) = s.programme_id AND s.through >= (d.received_at AT TIME ZONE g.time_zone)::date
           AND NOT EXISTS (
               SELECT FROM integrations.delivery_outcome n WHERE n.delivery_id = o.delivery_id AND n.attempt > o.attempt)
         ORDER BY d.id, s.programme_id, s.through, s.id)""",
    # reversed_after_settlement: a credit that no later payment has used up; the oldest are used first
    """SELECT 'credit', c.id::text, 'reversed_after_settlement', c.programme_id, NULL, c.fund_id, NULL, c.partner_id,
              -least(c.amount, c.through_here - c.used)::bigint, c.currency, (c.recorded_at AT TIME ZONE f.time_zone)::date, '{}',
              jsonb_strip_nulls(jsonb_build_object('remittance', c.remittance, 'settlement', c.settlement_id))
       FROM (
           SELECT k.*, sum(k.amount) OVER (
                      PARTITION BY k.partner_id, k.fund_id, k.currency ORDER BY k.recorded_at, k.id) AS through_here,
                  coalesce((SELECT -sum(u.amount) FROM products.settlement_credit u
                            WHERE u.partner_id = k.partner_id AND u.fund_id = k.fund_id AND u.currency = k.currency
                              AND u.amount < 0), 0) AS used
           FROM products.settlement_credit k WHERE k.amount > 0
       ) c JOIN ledger.fund f ON f.id = c.fund_id
       WHERE c.reason = 'reversed' AND c.through_here > c.used""",
)

_FIND: Final = (
    f"WITH {_ACCOUNTS}, "
    + ", ".join(f"{name} AS MATERIALIZED ({query})" for name, query in {**_OPEN, **_OF_ITEMS}.items())
    + """
    INSERT INTO products.break_found (subject_kind, subject, type, programme_id, bank_account_id, fund_id, partner_id, amount,
                                      currency, on_date, items, details)
    SELECT t.kind, t.subject, t.type, t.programme_id, t.bank_account_id, t.fund_id, coalesce(t.partner_id, p.id), t.amount,
           t.currency, t.on_date, t.items,
           CASE WHEN cardinality(t.items) > 0 THEN t.details || jsonb_build_object('items', to_jsonb(t.items)) ELSE t.details END
    FROM ("""
    + " UNION ALL ".join(_EVERYTHING)
    + """) AS t (kind, subject, type, programme_id, bank_account_id, fund_id, party, partner_id, amount, currency, on_date, items,
                 details)
    LEFT JOIN products.partner p ON p.slug = t.party
    ON CONFLICT (subject_kind, subject) DO NOTHING"""
)
