"""What the first page is made of, each by one set-based statement, keyed by fund and currency."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from ledger.balances import balances_as_of
from ledger.database import Tx, cursor
from products import chart

Key = tuple[UUID, str]
"""Fund and currency."""

WINDOWS: Final = (1, 7, 30, 90)
"""Of the last so many days, that day included, the page says what is tied to the bank."""


@dataclass(frozen=True, slots=True)
class Fund:
    """A fund, its programme if it is of one, and the currencies in which it has a `bank` account."""

    id: UUID
    code: str
    name: str
    time_zone: str
    programme_id: UUID | None
    programme: str | None
    currencies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What partners collected and still have, in minor units, and what they may leave out of their next payments.

    ``net``: on net terms, owed and not settled; ``guaranteed``: advanced, the members' already.
    """

    net: int = 0
    guaranteed: int = 0
    credits: int = 0


@dataclass(frozen=True, slots=True)
class BankPosition:
    """A bank account: what the books have on it, what its last statement says, and which lines are open.

    ``books_then``: the books at the end of the statement's last day. ``open_in`` and ``open_out``: what open lines brought and took.
    """

    id: UUID
    slug: str
    account_id: UUID
    code: str
    owner: str
    books: int
    statement_id: UUID | None
    statement_on: date | None
    statement: int | None
    books_then: int | None
    open_lines: int
    open_in: int
    open_out: int
    open_since: date | None

    @property
    def difference(self) -> int | None:
        """The books less the statement, both at the end of its last day: what is open explains it."""
        if self.books_then is None or self.statement is None:
            return None
        return self.books_then - self.statement


@dataclass(frozen=True, slots=True)
class Tied:
    """Of what the books moved on bank accounts in the last ``days`` days: all of it, and what statement lines show."""

    days: int
    moved: int
    tied: int

    @property
    def tenths(self) -> int | None:
        """The share in tenths of a per cent, rounded down: 1,000 is all of it; None where nothing moved."""
        return self.tied * 1_000 // self.moved if self.moved else None


@dataclass(frozen=True, slots=True)
class Unidentified:
    """Money whose sender or purpose is not known: receipts, and what payments left over; ``oldest`` is when the bank had it."""

    amount: int = 0
    count: int = 0
    oldest: date | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Payouts of a rail that may be paid or not."""

    rail: str
    count: int
    amount: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class RailNeed:
    """What payouts of a rail will take: queued, held for a second person, and under way; with what the rail takes for itself.

    ``available``: what its float holds; None where it pays from the fund's bank account.
    """

    rail: str
    funded: Literal["bank", "float"]
    paused: bool
    queued: int
    queued_count: int
    held: int
    held_count: int
    under_way: int
    under_way_count: int
    fees: int
    available: int | None

    @property
    def need(self) -> int:
        """All of it."""
        return self.queued + self.held + self.under_way + self.fees


@dataclass(frozen=True, slots=True)
class Remittals:
    """What is due to agencies: made and not sent, sent and not cleared; and what is paid in and in no remittal yet."""

    made: int = 0
    made_count: int = 0
    sent: int = 0
    sent_count: int = 0
    to_make: int = 0


def funds(tx: Tx, programmes: frozenset[UUID] | None) -> list[Fund]:
    """The funds of these programmes, administrators' included; with None all, and those that are no programme's."""
    rows = cursor(tx).execute(
        """SELECT f.id, f.code, f.name, f.time_zone, g.id, g.slug, coalesce(c.currencies, '{}')
           FROM ledger.fund f
           LEFT JOIN products.programme_fund pf ON pf.fund_id = f.id
           LEFT JOIN products.programme g ON g.id = pf.programme_id OR f.code = g.slug || '/' || %(administrator)s
           LEFT JOIN LATERAL (
               SELECT array_agg(a.currency::text ORDER BY a.currency) AS currencies FROM ledger.account a
               WHERE a.fund_id = f.id AND a.code = %(bank)s AND a.owner = ''
           ) AS c ON true
           WHERE %(programmes)s::uuid[] IS NULL OR g.id = ANY (%(programmes)s) ORDER BY f.code""",
        {
            "administrator": chart.ADMINISTRATOR,
            "bank": chart.BANK.name,
            "programmes": None if programmes is None else list(programmes),
        },
    )
    return [
        Fund(id_, code, name, zone, programme_id, programme, tuple(currencies))
        for id_, code, name, zone, programme_id, programme, currencies in rows
    ]


def waiting(tx: Tx) -> dict[Key, Waiting]:
    """What partners collected and still have, and their credits."""
    rows = cursor(tx).execute(
        """SELECT fund_id, currency, sum(net)::bigint, sum(guaranteed)::bigint, sum(credits)::bigint FROM (
               SELECT fund_id, currency::text, coalesce(sum(amount) FILTER (WHERE NOT guaranteed), 0) AS net,
                      coalesce(sum(amount) FILTER (WHERE guaranteed), 0) AS guaranteed, 0 AS credits
               FROM products.contribution WHERE owed GROUP BY 1, 2
               UNION ALL
               SELECT fund_id, currency::text, 0, 0, sum(amount) FROM products.settlement_credit GROUP BY 1, 2
           ) one GROUP BY 1, 2"""
    )
    return {(fund, currency): Waiting(*amounts) for fund, currency, *amounts in rows}


def bank_accounts(tx: Tx, days: Mapping[UUID, date], *, past: bool) -> dict[Key, list[BankPosition]]:
    """The bank accounts of funds, each as of its fund's day, by slug."""
    rows = (
        cursor(tx)
        .execute(
            """WITH asked AS MATERIALIZED (SELECT * FROM unnest(%s::uuid[], %s::date[]) AS asked (fund_id, day)),
           open_line AS MATERIALIZED (
               SELECT l.bank_account_id, count(*) AS lines, coalesce(sum(l.amount) FILTER (WHERE l.amount > 0), 0)::bigint AS paid_in,
                      coalesce(-sum(l.amount) FILTER (WHERE l.amount < 0), 0)::bigint AS paid_out, min(l.booked_on) AS since
               FROM asked JOIN ledger.bank_account b ON b.fund_id = asked.fund_id
               JOIN ledger.statement_line l ON l.bank_account_id = b.id
               WHERE l.duplicate_of IS NULL AND l.booked_on <= asked.day
                 AND NOT EXISTS (SELECT FROM ledger.paired_line k WHERE k.line_id = l.id)
               GROUP BY 1
           )
           SELECT b.fund_id, b.currency, b.id, b.slug, a.id, a.code, a.owner, t.debits - t.credits, s.id, s.to_on, s.closing,
                  coalesce(o.lines, 0), coalesce(o.paid_in, 0), coalesce(o.paid_out, 0), o.since
           FROM asked
           JOIN ledger.bank_account b ON b.fund_id = asked.fund_id
           JOIN ledger.account a ON a.id = b.account_id
           JOIN ledger.account_balance t ON t.account_id = a.id
           LEFT JOIN LATERAL (
               SELECT s.id, s.to_on, s.closing FROM ledger.bank_statement s
               WHERE s.bank_account_id = b.id AND s.to_on <= asked.day AND s.withdrawn_at IS NULL
               ORDER BY s.to_on DESC, s.from_on DESC, s.made_at DESC NULLS LAST, s.imported_at DESC, s.position DESC LIMIT 1
           ) AS s ON true
           LEFT JOIN open_line AS o ON o.bank_account_id = b.id ORDER BY b.slug""",
            (list(days), list(days.values())),
        )
        .fetchall()
    )
    then: dict[tuple[UUID, date], int] = {}
    wanted: defaultdict[date, list[UUID]] = defaultdict(list)
    for row in rows:
        for day in {row[9], days[row[0]] if past else None} - {None}:
            wanted[day].append(row[4])
    for day, accounts in wanted.items():
        then |= {(account, day): balance for account, balance in balances_as_of(tx, accounts, day).items()}
    found: defaultdict[Key, list[BankPosition]] = defaultdict(list)
    for fund, currency, id_, slug, account, code, owner, books, statement, on, closing, *open_ in rows:
        found[fund, currency].append(
            BankPosition(
                id_, slug, account, code, owner, then[account, days[fund]] if past else books, statement, on, closing,
                None if on is None else then[account, on], *open_,
            )
        )  # fmt: skip
    return found


def tied(tx: Tx, days: Mapping[UUID, date]) -> dict[Key, list[Tied]]:
    """What the books moved on bank accounts in each window that ends on the fund's day, and what statement lines show of it.

    Postings that take each other back, so that the bank shows neither, are left out.
    """
    rows = cursor(tx).execute(
        """SELECT fund_id, currency, asked_on - on_date, sum(moved)::bigint, sum(tied)::bigint FROM (
               SELECT b.fund_id, b.currency, asked.day AS asked_on, i.on_date, sum(abs(i.amount)) AS moved,
                      coalesce(sum(abs(i.amount)) FILTER (WHERE k.item_id IS NOT NULL), 0) AS tied
               FROM unnest(%(funds)s::uuid[], %(days)s::date[]) AS asked (fund_id, day)
               JOIN ledger.bank_account b ON b.fund_id = asked.fund_id
               JOIN ledger.item i ON i.bank_account_id = b.id AND i.source = 'booked'
                                 AND i.on_date <= asked.day AND i.on_date > asked.day - %(longest)s
               LEFT JOIN ledger.paired_item k ON k.item_id = i.id
               WHERE k.pairing_id IS NULL
                  OR k.pairing_id NOT IN (SELECT g.id FROM ledger.pairing g WHERE cardinality(g.lines) = 0)
               GROUP BY 1, 2, 3, 4
           ) one GROUP BY 1, 2, 3""",
        {"funds": list(days), "days": list(days.values()), "longest": WINDOWS[-1]},
    )
    found: defaultdict[Key, dict[int, Tied]] = defaultdict(lambda: {one: Tied(one, 0, 0) for one in WINDOWS})
    for fund, currency, age, moved, shown in rows:
        windows = found[fund, currency]
        for window in WINDOWS:
            if age < window:
                before = windows[window]
                windows[window] = Tied(window, before.moved + moved, before.tied + shown)
    return {key: list(windows.values()) for key, windows in found.items()}


def unidentified(tx: Tx, days: Mapping[UUID, date]) -> dict[Key, Unidentified]:
    """Money of unknown sender or purpose: open receipts, and what settlements brought beyond whole contributions."""
    rows = cursor(tx).execute(
        """SELECT fund_id, currency, sum(amount)::bigint, count(*), min(since) FROM (
               SELECT fund_id, currency::text, amount, booked_on AS since FROM products.receipt WHERE state = 'open'
               UNION ALL
               SELECT coalesce(s.cash_fund, f.fund_id), s.currency::text, s.unidentified, s.effective_on
               FROM products.settlement s
               JOIN products.programme_fund f ON f.programme_id = s.programme_id AND f.role = %s
               WHERE s.unidentified > 0 AND s.kind = 'payment' AND s.state <> 'returned'
           ) one WHERE fund_id = ANY (%s) GROUP BY 1, 2""",
        (chart.SAVERS, list(days)),
    )
    return {(fund, currency): Unidentified(*values) for fund, currency, *values in rows}


def unknown(tx: Tx) -> dict[Key, list[Unknown]]:
    """Payouts that may be paid or not, by rail."""
    found: defaultdict[Key, list[Unknown]] = defaultdict(list)
    rows = cursor(tx).execute(
        """SELECT r.fund_id, r.currency, r.slug, count(*), sum(p.amount - p.fee)::bigint, min(p.submitted_at)
           FROM products.payout p JOIN products.rail r ON r.id = p.rail_id
           WHERE p.state = 'unknown'
           GROUP BY 1, 2, 3 ORDER BY 3"""
    )
    for fund, currency, *values in rows:
        found[fund, currency].append(Unknown(*values))
    return found


def rail_needs(tx: Tx) -> dict[Key, list[RailNeed]]:
    """What payouts that have not left yet will take, by rail; rails without any are left out."""
    found: defaultdict[Key, list[RailNeed]] = defaultdict(list)
    rows = cursor(tx).execute(
        """SELECT r.fund_id, r.currency, r.slug, r.funded, r.paused_at IS NOT NULL,
                  coalesce(sum(n.amount) FILTER (WHERE n.state = 'approved'), 0)::bigint,
                  coalesce(sum(n.payouts) FILTER (WHERE n.state = 'approved'), 0)::bigint,
                  coalesce(sum(n.amount) FILTER (WHERE n.state = 'awaiting_operators'), 0)::bigint,
                  coalesce(sum(n.payouts) FILTER (WHERE n.state = 'awaiting_operators'), 0)::bigint,
                  coalesce(sum(n.amount) FILTER (WHERE n.state NOT IN ('approved', 'awaiting_operators')), 0)::bigint,
                  coalesce(sum(n.payouts) FILTER (WHERE n.state NOT IN ('approved', 'awaiting_operators')), 0)::bigint,
                  sum(n.fees)::bigint, CASE r.funded WHEN 'float' THEN t.debits - t.credits END
           FROM products.rail r
           JOIN (SELECT rail_id, state, sum(amount - fee) AS amount, sum(rail_fee) AS fees, count(*) AS payouts
                 FROM products.payout
                 WHERE state IN ('approved', 'awaiting_operators', 'submitted', 'in_transit', 'unknown')
                 GROUP BY 1, 2) AS n ON n.rail_id = r.id
           JOIN ledger.account_balance t ON t.account_id = r.float_account
           GROUP BY r.id, t.account_id ORDER BY r.slug"""
    )
    for fund, currency, *values in rows:
        found[fund, currency].append(RailNeed(*values))
    return found


def remittals(tx: Tx) -> dict[Key, Remittals]:
    """What agencies are to get."""
    rows = cursor(tx).execute(
        """SELECT fund_id, currency, sum(made)::bigint, sum(made_count)::bigint, sum(sent)::bigint, sum(sent_count)::bigint,
                  sum(to_make)::bigint FROM (
               SELECT fund_id, currency::text, coalesce(sum(amount) FILTER (WHERE state = 'made'), 0) AS made,
                      count(*) FILTER (WHERE state = 'made') AS made_count,
                      coalesce(sum(amount) FILTER (WHERE state = 'sent'), 0) AS sent,
                      count(*) FILTER (WHERE state = 'sent') AS sent_count, 0 AS to_make
               FROM products.remittal WHERE state IN ('made', 'sent') GROUP BY 1, 2
               UNION ALL
               SELECT fund_id, currency::text, 0, 0, 0, 0, sum(amount) FROM products.contribution
               WHERE destination = 'agency' AND remittal_line IS NULL AND state = 'settled' AND NOT owed GROUP BY 1, 2
           ) one GROUP BY 1, 2"""
    )
    return {(fund, currency): Remittals(*values) for fund, currency, *values in rows}
