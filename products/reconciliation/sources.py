"""Where items come from: by what a bank may know what the books posted, and what is expected at the bank and not posted yet.

Expected are payments that were sent and not confirmed, and what partners owe of each business day, less their fees and credits.
All of it in sets; what is expected is brought up to date at each run, and closed when it is expected no more.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.ids import new_id, public_id
from products import chart
from products.settlements.terms import load_terms, on_day

_LOCK_CLASS: Final = 0x4D5E
"""Advisory lock: one at a time brings expected items up to date, or turns them into pairings."""


class ProductNaming:
    """By what a bank may know the postings of payouts, settlements, remittals, sponsors' payments and top-ups.

    Identifiers are in upper case, as rules find them in free text. A batch is the payment file's message id; its one part, as a
    rail has one currency, is named after it.
    """

    def name(self, tx: Tx, items: Sequence[UUID]) -> None:
        """Name those of these items that products know of."""
        for statement in _NAMING:
            cursor(tx).execute(statement, {"items": list(items)})


_PAYOUTS: Final = r"""
    UPDATE ledger.item i
    SET end_to_end = n.end_to_end, reference = n.reference, party = n.party, batch = n.batch, day = n.day,
        subject = n.subject, identifiers = ARRAY[upper(n.subject), upper(n.end_to_end), upper(n.batch), upper(n.batch) || '-01']
    FROM (
        SELECT i.id, replace(a.id::text, '-', '') AS end_to_end, a.rail_reference AS reference, r.slug AS party,
               replace(a.batch_id::text, '-', '') AS batch, a.asked_on AS day, ledger.public_id('pay', a.payout_id) AS subject
        FROM ledger.item i JOIN ledger.transaction t ON t.id = i.transaction_id
        JOIN products.payout_attempt a ON a.payout_id
             = CASE WHEN t.reference LIKE 'payout:%%' THEN split_part(t.reference, ':', 2)::uuid END
        JOIN products.rail r ON r.id = a.rail_id
        WHERE i.id = ANY (%(items)s::uuid[]) AND t.kind LIKE 'payout\_%%'
    ) n WHERE n.id = i.id
"""
_SETTLEMENTS: Final = """
    UPDATE ledger.item i
    SET reference = n.reference, party = n.party, day = n.day, subject = n.subject, identifiers = ARRAY[upper(n.subject)]
    FROM (
        SELECT i.id, s.reference, p.slug AS party, ledger.public_id('stl', s.id) AS subject,
               CASE t.kind WHEN 'settlement_received' THEN s.through ELSE s.returned_on END AS day
        FROM ledger.item i JOIN ledger.transaction t ON t.id = i.transaction_id
        JOIN products.settlement s ON s.id
             = CASE WHEN t.reference LIKE 'settlement:%%' THEN split_part(t.reference, ':', 2)::uuid END
        JOIN products.partner p ON p.id = s.partner_id
        WHERE i.id = ANY (%(items)s::uuid[]) AND t.kind IN ('settlement_received', 'settlement_returned')
    ) n WHERE n.id = i.id
"""
_REMITTALS: Final = """
    UPDATE ledger.item i
    SET reference = n.reference, party = n.party, day = n.day, subject = n.subject, identifiers = ARRAY[upper(n.subject)]
    FROM (
        SELECT i.id, r.bank_reference AS reference, r.agency AS party, r.sent_on AS day,
               ledger.public_id('rtl', r.id) AS subject
        FROM ledger.item i JOIN ledger.transaction t ON t.id = i.transaction_id
        JOIN products.remittal r ON r.id
             = CASE WHEN t.reference LIKE 'remittal:%%' THEN split_part(t.reference, ':', 2)::uuid END
        WHERE i.id = ANY (%(items)s::uuid[]) AND t.kind IN ('remittal_sent', 'remittal_cleared', 'remittal_returned')
    ) n WHERE n.id = i.id
"""
_SPONSORS: Final = """
    UPDATE ledger.item i SET reference = n.reference, party = n.party
    FROM (
        SELECT i.id, m.reference, s.slug AS party
        FROM ledger.item i JOIN products.sponsor_payment m ON m.transaction_id = i.transaction_id
        JOIN products.sponsor s ON s.id = m.sponsor_id WHERE i.id = ANY (%(items)s::uuid[])
    ) n WHERE n.id = i.id
"""
_TOP_UPS: Final = """
    UPDATE ledger.item i SET reference = n.reference, party = n.party
    FROM (
        SELECT i.id, split_part(t.reference, ':', 2) AS party,
               substr(t.reference, length('rail-top-up:' || split_part(t.reference, ':', 2) || ':') + 1) AS reference
        FROM ledger.item i JOIN ledger.transaction t ON t.id = i.transaction_id
        WHERE i.id = ANY (%(items)s::uuid[]) AND t.kind = 'rail_topped_up'
    ) n WHERE n.id = i.id
"""
_NAMING: Final = (_PAYOUTS, _SETTLEMENTS, _REMITTALS, _SPONSORS, _TOP_UPS)

NAMING: Final = (ProductNaming(),)
"""Who names what the books posted."""


def lock_expected(tx: Tx) -> None:
    """Wait until nobody else changes what is expected; nobody does until `tx` ends."""
    cursor(tx).execute("SELECT pg_advisory_xact_lock(%s, 0)", [_LOCK_CLASS])


def refresh(tx: Tx, clock: Clock) -> int:
    """Bring what is expected at the bank up to date; how many items changed."""
    lock_expected(tx)
    return _refresh_payouts(tx, clock) + refresh_settlements(tx, clock)


def _refresh_payouts(tx: Tx, clock: Clock) -> int:
    """Payments that were sent and not confirmed, where a bank account mirrors what their rail pays from."""
    cur = cursor(tx)
    cur.execute(
        """
        INSERT INTO ledger.item AS i (id, source, bank_account_id, amount, currency, on_date, day, kind, end_to_end, reference,
            identifiers, party, batch, subject)
        SELECT a.id, 'payout', b.id, -a.amount, r.currency, (a.sent_at AT TIME ZONE f.time_zone)::date, a.asked_on, 'payout',
               n.attempt, a.rail_reference, ARRAY[upper(n.payout), upper(n.attempt), upper(n.batch), upper(n.batch) || '-01'], r.slug, n.batch, n.payout
        FROM products.payout p
        JOIN products.payout_attempt a ON a.payout_id = p.id AND a.money = 'clearing'
        JOIN products.rail r ON r.id = a.rail_id
        JOIN ledger.bank_account b
          ON b.account_id = CASE r.funded WHEN 'bank' THEN r.bank_account ELSE r.float_account END
        JOIN ledger.fund f ON f.id = b.fund_id
        CROSS JOIN LATERAL (SELECT replace(a.id::text, '-', '') AS attempt, replace(a.batch_id::text, '-', '') AS batch,
                                   ledger.public_id('pay', p.id) AS payout) AS n
        WHERE p.state IN ('submitted', 'in_transit', 'unknown') AND a.state <> 'not_sent'
        ON CONFLICT (id) DO UPDATE SET reference = EXCLUDED.reference, closed_at = NULL
            WHERE i.reference IS DISTINCT FROM EXCLUDED.reference OR i.closed_at IS NOT NULL
        """
    )
    changed = cur.rowcount
    cur.execute(
        """UPDATE ledger.item i SET closed_at = %s WHERE i.source = 'payout' AND i.closed_at IS NULL
           AND NOT EXISTS (SELECT FROM products.payout_attempt a WHERE a.id = i.id AND a.money = 'clearing'
                           AND a.state <> 'not_sent')""",
        [clock.now()],
    )
    return changed + cur.rowcount


@dataclass(frozen=True, slots=True)
class Home:
    """Where a fund's money arrives: its own bank account, or the savers' where it has none."""

    bank_account_id: UUID
    fund_id: UUID


_Day = tuple[UUID, UUID, UUID, date]
"""Partner, programme, bank account, day."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a partner is expected to pay for one day to one bank account, in minor units."""

    amount: int
    currency: str
    on: date


def homes(tx: Tx, programme_ids: Iterable[UUID]) -> dict[UUID, Home]:
    """Where the money of programmes' funds arrives, by fund; funds whose money no bank account shows are left out."""
    rows = cursor(tx).execute(
        """
        SELECT pf.fund_id, coalesce(own.id, savers.id), coalesce(own.fund_id, savers.fund_id)
        FROM products.programme_fund pf
        JOIN products.programme_fund main ON main.programme_id = pf.programme_id AND main.role = %(savers)s
        JOIN products.programme g ON g.id = pf.programme_id
        LEFT JOIN (ledger.bank_account own JOIN ledger.account oa ON oa.id = own.account_id AND oa.code = %(bank)s)
               ON own.fund_id = pf.fund_id AND own.currency = g.currency
        LEFT JOIN (ledger.bank_account savers JOIN ledger.account sa ON sa.id = savers.account_id AND sa.code = %(bank)s)
               ON savers.fund_id = main.fund_id AND savers.currency = g.currency
        WHERE pf.programme_id = ANY (%(programmes)s) AND coalesce(own.id, savers.id) IS NOT NULL
        """,
        {"savers": chart.SAVERS, "bank": chart.BANK.name, "programmes": list(set(programme_ids))},
    )
    return {fund: Home(bank_account, home) for fund, bank_account, home in rows}


def refresh_settlements(tx: Tx, clock: Clock, partner_id: UUID | None = None) -> int:
    """What partners (or one) owe of each day, at the bank account where it is expected; how many items changed.

    Net of what the partner keeps as its fee, and of what it may leave out of its next payment: from the oldest day on.
    """
    wanted = _expected(tx, partner_id)
    known: dict[_Day, UUID] = {
        (row[1], row[2], row[3], row[4]): row[0]
        for row in cursor(tx).execute(
            "SELECT item_id, partner_id, programme_id, bank_account_id, day FROM products.expected_settlement"
            " WHERE %(partner)s::uuid IS NULL OR partner_id = %(partner)s",
            {"partner": partner_id},
        )
    }
    keys = sorted(wanted)
    ids = {key: known.get(key) or new_id() for key in keys}
    slugs = _slugs(tx, {key[0] for key in keys})
    cur = cursor(tx)
    cur.execute(
        """
        INSERT INTO ledger.item AS i (id, source, bank_account_id, amount, currency, on_date, day, kind, party, subject)
        SELECT n.id, 'settlement', n.account, n.amount, n.currency, n.on_date, n.day, 'settlement', n.party, n.subject
        FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::date[], %s::date[], %s::text[], %s::text[])
             AS n (id, account, amount, currency, on_date, day, party, subject)
        ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount, on_date = EXCLUDED.on_date, closed_at = NULL
            WHERE (i.amount, i.on_date) IS DISTINCT FROM (EXCLUDED.amount, EXCLUDED.on_date) OR i.closed_at IS NOT NULL
        """,
        [
            [ids[key] for key in keys],
            [key[2] for key in keys],
            [wanted[key].amount for key in keys],
            [wanted[key].currency for key in keys],
            [wanted[key].on for key in keys],
            [key[3] for key in keys],
            [slugs[key[0]] for key in keys],
            [public_id("ptn", key[0]) for key in keys],
        ],
    )
    changed = cur.rowcount
    fresh = [key for key in keys if key not in known]
    cur.execute(
        "INSERT INTO products.expected_settlement (item_id, partner_id, programme_id, bank_account_id, day)"
        " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::date[])",
        [[ids[key] for key in fresh], *([key[column] for key in fresh] for column in range(4))],
    )
    cur.execute(
        "UPDATE ledger.item SET closed_at = %s WHERE id = ANY (%s) AND closed_at IS NULL",
        [clock.now(), [id_ for key, id_ in known.items() if key not in wanted]],
    )
    return changed + cur.rowcount


def _expected(tx: Tx, partner_id: UUID | None) -> dict[_Day, _Expected]:
    """What is expected of each day, where it is more than nothing."""
    rows = (
        cursor(tx)
        .execute(
            """SELECT partner_id, programme_id, fund_id, currency, collected_on, min(contributed_on),
                      sum(amount - fee)::bigint FROM products.contribution
               WHERE owed AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)
               GROUP BY 1, 2, 3, 4, 5 ORDER BY collected_on""",
            {"partner": partner_id},
        )
        .fetchall()
    )
    arrives = homes(tx, {row[1] for row in rows})
    terms = load_terms(tx, sorted({row[0] for row in rows}))
    gross: defaultdict[_Day, int] = defaultdict(int)
    dated: dict[_Day, tuple[str, date]] = {}
    for partner, programme, fund, currency, day, contributed_on, amount in rows:
        if fund not in arrives:
            continue
        key = (partner, programme, arrives[fund].bank_account_id, day)
        gross[key] += amount
        expected_on = on_day(terms[partner, programme], contributed_on).expected_on(day)
        dated[key] = (currency, min(expected_on, dated[key][1]) if key in dated else expected_on)
    less = _left_out(tx, partner_id, arrives)
    found: dict[_Day, _Expected] = {}
    for key in sorted(gross, key=lambda one: one[3]):
        left_out = min(less.get(key[:3], 0), gross[key])
        less[key[:3]] = less.get(key[:3], 0) - left_out
        if gross[key] - left_out > 0:
            found[key] = _Expected(gross[key] - left_out, *dated[key])
    return found


def _left_out(
    tx: Tx, partner_id: UUID | None, arrives: Mapping[UUID, Home]
) -> dict[tuple[UUID, UUID, UUID], int]:
    """What partners may leave out of what they pay next, by partner, programme and bank account; negative: they owe it besides.

    Credits, and what earlier payments left in unidentified receipts.
    """
    rows = cursor(tx).execute(
        """
        SELECT partner_id, programme_id, fund_id, sum(amount)::bigint FROM (
            SELECT partner_id, programme_id, fund_id, amount FROM products.settlement_credit
            UNION ALL
            SELECT s.partner_id, s.programme_id, coalesce(s.cash_fund, f.fund_id), s.unidentified
            FROM products.settlement s
            JOIN products.programme_fund f ON f.programme_id = s.programme_id AND f.role = %(savers)s
            WHERE s.unidentified > 0 AND s.state = 'paired' AND s.kind = 'payment'
        ) one WHERE %(partner)s::uuid IS NULL OR partner_id = %(partner)s
        GROUP BY 1, 2, 3 HAVING sum(amount) <> 0
        """,
        {"savers": chart.SAVERS, "partner": partner_id},
    )
    found: defaultdict[tuple[UUID, UUID, UUID], int] = defaultdict(int)
    for partner, programme, fund, amount in rows:
        if fund in arrives:
            found[partner, programme, arrives[fund].bank_account_id] += amount
    return dict(found)


def _slugs(tx: Tx, partners: Iterable[UUID]) -> dict[UUID, str]:
    rows = cursor(tx).execute("SELECT id, slug FROM products.partner WHERE id = ANY (%s)", [list(partners)])
    found: dict[UUID, str] = dict(rows.fetchall())
    return found
