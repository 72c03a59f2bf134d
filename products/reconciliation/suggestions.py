"""What a line seems to be that only a person may decide: a payment that came back, a settlement that the bank took back.

Each names its evidence, and becomes true by the requests that two managers decide on: of a payout's resolution, of a settlement's
return; the bank's posting that follows is then paired with the line. Nothing here is ever done by itself: money that is given back to a member or taken from one twice is
not got back.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import public_id
from products import chart

Kind = Literal["payout_returned", "settlement_returned"]
LIMIT_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a line seems to be. ``subject``: the public id of the payout or settlement; ``evidence``: what both have in common."""

    line: UUID
    kind: Kind
    subject: str
    evidence: str


def suggestions(
    tx: Tx,
    bank_account_id: UUID | None = None,
    *,
    subject: str | None = None,
    after: UUID | None = None,
    limit: int = LIMIT_MAX,
) -> list[Suggestion]:
    """What open lines (of one account, of one subject) seem to be, where exactly one thing fits, in the order of the lines."""
    rows = cursor(tx).execute(
        f"""
        WITH line AS MATERIALIZED (
            SELECT l.*, b.account_id, b.fund_id, array_remove(l.identifiers
                       || ARRAY[upper(replace(l.end_to_end, '-', '')), upper(l.reference)], NULL) AS names
            FROM ledger.statement_line l JOIN ledger.bank_account b ON b.id = l.bank_account_id
            WHERE l.duplicate_of IS NULL AND l.id > %(after)s AND (%(account)s::uuid IS NULL OR l.bank_account_id = %(account)s)
              AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)
        ), {_PAYOUTS}, {_SETTLEMENTS}
        SELECT id, kind, min(subject), min(evidence) FROM (SELECT * FROM payout UNION SELECT * FROM settlement) AS found
        GROUP BY id, kind HAVING count(DISTINCT subject) = 1
           AND (%(subject)s::text IS NULL OR min(subject) = %(subject)s) ORDER BY id LIMIT %(limit)s
        """,
        {
            "account": bank_account_id,
            "subject": subject,
            "after": after or UUID(int=0),
            "limit": limit,
            "bank": chart.BANK.name,
        },
    )
    return [Suggestion(*row) for row in rows]


def returned_on(tx: Tx, payout_id: UUID) -> date | None:
    """The day on which the bank booked the one open line that seems to bring a payment back; None where no statement shows it."""
    lines = [one.line for one in suggestions(tx, subject=public_id("pay", payout_id), limit=2)]
    if len(lines) != 1:
        return None
    row = cursor(tx).execute("SELECT booked_on FROM ledger.statement_line WHERE id = %s", lines).fetchone()
    return None if row is None else row[0]


_PAYOUTS: Final = """
    payout AS (
        SELECT l.id, 'payout_returned' AS kind, ledger.public_id('pay', a.payout_id) AS subject,
               'end_to_end ' || replace(a.id::text, '-', '') AS evidence
        FROM line l CROSS JOIN LATERAL unnest(l.names) AS name
        JOIN products.payout_attempt a ON a.id = CASE WHEN name ~ '^[0-9A-F]{32}$' THEN name::uuid END
        JOIN products.rail r ON r.id = a.rail_id
             AND l.account_id = CASE r.funded WHEN 'bank' THEN r.bank_account ELSE r.float_account END
        WHERE l.amount = a.amount AND a.money = 'out'
        UNION
        SELECT l.id, 'payout_returned', i.subject, 'named ' || i.subject
        FROM line l
        JOIN ledger.item i ON i.bank_account_id = l.bank_account_id AND i.amount = -l.amount AND i.kind = 'payout_paid'
             AND l.identifiers @> ARRAY[upper(i.subject)]
        JOIN ledger.transaction t ON t.id = i.transaction_id
        JOIN products.payout_attempt a ON a.money = 'out' AND a.payout_id
             = CASE WHEN t.reference LIKE 'payout:%%' THEN split_part(t.reference, ':', 2)::uuid END
        WHERE l.amount > 0
    )
"""
_SETTLEMENTS: Final = """
    settlement AS (
        SELECT l.id, 'settlement_returned' AS kind, ledger.public_id('stl', s.id) AS subject, k.evidence
        FROM line l
        JOIN products.settlement s ON s.amount = -l.amount AND s.currency = l.currency AND s.kind = 'payment'
             AND s.state = 'paired'
        JOIN products.partner p ON p.id = s.partner_id
        LEFT JOIN products.pairing_effect e ON e.subject = s.id AND e.kind = 'settlement' AND e.undone_at IS NULL
        LEFT JOIN ledger.pairing g ON g.id = e.pairing_id AND g.bank_account_id = l.bank_account_id
        LEFT JOIN ledger.statement_line came ON came.id = ANY (g.lines)
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN upper(ledger.public_id('stl', s.id)) = ANY (l.names) OR upper(s.reference) = ANY (l.names)
                    THEN 'named ' || s.reference
                WHEN came.end_to_end = l.end_to_end THEN 'end_to_end ' || l.end_to_end
                WHEN came.reference = l.reference THEN 'reference ' || l.reference
                WHEN l.party = p.slug THEN 'amount and party ' || p.slug
            END AS evidence) AS k
        WHERE l.amount < 0 AND coalesce(s.cash_fund, l.fund_id) = l.fund_id AND k.evidence IS NOT NULL
          AND EXISTS (SELECT FROM products.programme_fund f WHERE f.programme_id = s.programme_id AND f.fund_id = l.fund_id)
          AND EXISTS (SELECT FROM ledger.account m WHERE m.id = l.account_id AND m.code = %(bank)s)
    )
"""
