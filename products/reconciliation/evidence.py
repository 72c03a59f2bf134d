"""What three-way rows are made of: contributions by day, payments and what the bank shows of them, lines that pay for nothing yet.

One statement each, for all days that are asked for.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from products import chart
from products.settlements.settlement import Kind, State

Parameters = Mapping[str, object]
"""``since``, ``through``; ``partner``, ``programme``, ``fund``, ``currency`` (None: any) and ``programmes`` (None: all)."""

_OF: Final = """
    AND (%(partner)s::text IS NULL OR p.slug = %(partner)s) AND (%(programme)s::text IS NULL OR g.slug = %(programme)s)
    AND (%(programmes)s::uuid[] IS NULL OR g.id = ANY (%(programmes)s))
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Contributions of one day and one settlement (or none), added up in minor units.

    ``paid``: by the settlement, gross, or by the partner's prefund; ``fees`` of it, and ``reversed_since`` of it.
    """

    partner_id: UUID
    partner: str
    programme_id: UUID
    programme: str
    fund: str
    currency: str
    on: date
    contributed_on: date
    settlement: UUID | None
    collected: int
    reversed: int
    reversed_since: int
    paid: int
    fees: int
    fees_open: int
    owed: int


@dataclass(frozen=True, slots=True)
class BankLine:
    """A statement line, with both of its dates; ``pairing``: the one that it stands in."""

    id: UUID
    bank_account: str
    booked_on: date
    value_on: date
    amount: int
    currency: str
    pairing: UUID | None


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A line of a partner's that pays for nothing yet: not paired, or an unidentified receipt."""

    partner: str
    programme: str
    fund: str
    line: BankLine


@dataclass(frozen=True, slots=True)
class Posted:
    """What a payment moved on a bank account of a fund, signed as in statements; ``pairing``: with lines, where there is one."""

    fund: str
    amount: int
    pairing: UUID | None


@dataclass(slots=True)
class Payment:
    """A settlement as money: what it brought beyond contributions, and what the bank shows of it, by fund.

    ``home``: the fund whose bank account it came to; all of it where ``whole``, else each fund's got what the fund was owed.
    """

    id: UUID
    partner: str
    programme: str
    currency: str
    kind: Kind
    state: State
    effective_on: date
    home: str
    whole: bool
    beyond: int
    credits: dict[str, int] = field(default_factory=dict)
    charges: dict[str, int] = field(default_factory=dict)
    posted: list[Posted] = field(default_factory=list)
    lines: dict[UUID, list[BankLine]] = field(default_factory=dict)

    def shown_for(self, fund: str) -> bool:
        """Whether statement lines show all that it brought to this fund; a fund whose part was netted away asks for all."""
        return all(one.pairing is not None for one in self._posted_for(fund))

    def lines_for(self, fund: str) -> Sequence[BankLine]:
        """The statement lines that show what it brought to this fund."""
        pairings = dict.fromkeys(one.pairing for one in self._posted_for(fund) if one.pairing is not None)
        return [line for pairing in pairings for line in self.lines.get(pairing, ())]

    @property
    def taken_back(self) -> dict[str, int]:
        """Of a returned settlement: what the bank shows of its coming and going, by fund; nothing once it shows both."""
        found: defaultdict[str, int] = defaultdict(int)
        if self.state == "returned":
            for one in self.posted:
                found[one.fund] += one.amount if one.pairing is not None else 0
        return dict(found)

    def _posted_for(self, fund: str) -> list[Posted]:
        landed = self.home if self.whole else fund
        return [one for one in self.posted if one.fund == landed] or self.posted


def contributions(tx: Tx, asked: Parameters) -> list[Counted]:
    """What was collected for these days, by day and by the settlement that paid for it."""
    cur = cursor(tx)
    cur.execute(
        """SELECT p.id, p.slug, g.id, g.slug, f.code, n.currency, n.collected_on, n.contributed_on, n.settlement_id,
                   n.collected::bigint, n.reversed::bigint, n.reversed_since::bigint, n.paid::bigint, n.fees::bigint,
                   n.fees_open::bigint, n.owed::bigint
            FROM (
                SELECT c.partner_id, c.programme_id, c.fund_id, c.currency, c.collected_on, c.contributed_on, c.settlement_id,
                       sum(c.amount) AS collected,
                       coalesce(sum(c.amount) FILTER (WHERE c.state = 'reversed'), 0) AS reversed,
                       coalesce(sum(c.amount) FILTER (WHERE c.state = 'reversed' AND c.settlement_id IS NOT NULL), 0)
                           AS reversed_since,
                       coalesce(sum(c.amount) FILTER (WHERE c.settlement_id IS NOT NULL
                                                         OR c.state <> 'reversed' AND NOT c.owed), 0) AS paid,
                       coalesce(sum(c.fee) FILTER (WHERE c.settlement_id IS NOT NULL), 0) AS fees,
                       coalesce(sum(c.fee) FILTER (WHERE c.owed), 0) AS fees_open,
                       coalesce(sum(c.amount - c.fee) FILTER (WHERE c.owed), 0) AS owed
                FROM products.contribution c
                WHERE c.collected_on BETWEEN %(since)s AND %(through)s
                  AND (%(partner)s::text IS NULL
                       OR c.partner_id = (SELECT id FROM products.partner WHERE slug = %(partner)s))
                  AND (%(programme)s::text IS NULL
                       OR c.programme_id = (SELECT id FROM products.programme WHERE slug = %(programme)s))
                  AND (%(programmes)s::uuid[] IS NULL OR c.programme_id = ANY (%(programmes)s))
                  AND (%(fund)s::text IS NULL OR c.fund_id = (SELECT id FROM ledger.fund WHERE code = %(fund)s))
                  AND (%(currency)s::text IS NULL OR c.currency = %(currency)s)
                  -- what had no member then and went on to the member's products is counted there
                  AND NOT (c.state = 'reversed' AND c.destination = 'unallocated' AND EXISTS (
                      SELECT 1 FROM products.contribution n WHERE n.remittance = c.remittance AND n.position > c.position))
                GROUP BY 1, 2, 3, 4, 5, 6, 7
            ) n
            JOIN products.partner p ON p.id = n.partner_id
            JOIN products.programme g ON g.id = n.programme_id
            JOIN ledger.fund f ON f.id = n.fund_id""",
        asked,
    )
    return [Counted(*row) for row in cur.fetchall()]


def payments(tx: Tx, asked: Parameters, named: Collection[UUID]) -> dict[UUID, Payment]:
    """The settlements that are named, and those booked on these days, with what the bank shows of them."""
    cur = cursor(tx)
    cur.execute(
        f"""SELECT s.id, p.slug, g.slug, s.currency, s.kind, s.state, s.effective_on, f.code, s.cash_fund IS NOT NULL,
                   CASE s.state WHEN 'returned' THEN 0 ELSE s.unidentified + s.topped_up + s.carried END
            FROM products.settlement s
            JOIN products.partner p ON p.id = s.partner_id
            JOIN products.programme g ON g.id = s.programme_id
            JOIN products.programme_fund savers ON savers.programme_id = g.id AND savers.role = %(savers)s
            JOIN ledger.fund f ON f.id = coalesce(s.cash_fund, savers.fund_id)
            WHERE s.id = ANY (%(named)s)
               OR s.effective_on BETWEEN %(since)s AND %(through)s {_OF}
                  AND (%(currency)s::text IS NULL OR s.currency = %(currency)s)""",
        {**asked, "named": list(named), "savers": chart.SAVERS},
    )
    found = {row[0]: Payment(*row) for row in cur.fetchall()}
    _load_posted(tx, found)
    _load_credits(tx, found)
    pairings = {one.pairing for money in found.values() for one in money.posted if one.pairing is not None}
    by_pairing = lines_of(tx, pairings)
    for money in found.values():
        money.lines = {
            one.pairing: by_pairing[one.pairing] for one in money.posted if one.pairing is not None
        }
    _load_charges(tx, found)
    return found


def unmatched(tx: Tx, asked: Parameters) -> list[Unmatched]:
    """Lines of partners', booked by the bank on these days, that pay for nothing yet."""
    rows = cursor(tx).execute(
        f"""SELECT p.slug, g.slug, f.code, l.id, b.slug, l.booked_on, l.value_on, l.amount, l.currency, k.pairing_id
            FROM ledger.bank_account b
            JOIN ledger.fund f ON f.id = b.fund_id
            JOIN products.programme_fund pf ON pf.fund_id = f.id
            JOIN products.programme g ON g.id = pf.programme_id
            JOIN ledger.statement_line l ON l.bank_account_id = b.id AND l.duplicate_of IS NULL
            JOIN products.partner p ON p.slug = l.party AND p.kind = 'remitter'
            LEFT JOIN ledger.paired_line k ON k.line_id = l.id
            LEFT JOIN products.receipt r ON r.line_id = l.id AND r.state = 'open'
            WHERE l.booked_on BETWEEN %(since)s AND %(through)s {_OF}
              AND (k.line_id IS NULL OR r.id IS NOT NULL)
              AND (%(fund)s::text IS NULL OR f.code = %(fund)s)
              AND (%(currency)s::text IS NULL OR l.currency = %(currency)s)
            ORDER BY l.booked_on, l.id""",
        asked,
    )
    return [Unmatched(partner, programme, fund, BankLine(*line)) for partner, programme, fund, *line in rows]


def lines_of(tx: Tx, pairings: Collection[UUID]) -> dict[UUID, list[BankLine]]:
    """The statement lines of pairings, by the day on which the bank booked them."""
    found: dict[UUID, list[BankLine]] = {pairing: [] for pairing in pairings}
    rows = cursor(tx).execute(
        """SELECT l.id, b.slug, l.booked_on, l.value_on, l.amount, l.currency, g.id
           FROM ledger.pairing g CROSS JOIN LATERAL unnest(g.lines) AS n (line)
           JOIN ledger.statement_line l ON l.id = n.line
           JOIN ledger.bank_account b ON b.id = l.bank_account_id
           WHERE g.id = ANY (%s) ORDER BY l.booked_on, l.id""",
        (list(pairings),),
    )
    for row in rows:
        line = BankLine(*row)
        found[row[-1]].append(line)
    return found


def time_zones(tx: Tx, programmes: Iterable[str]) -> dict[str, str]:
    """Programmes' time zones by slug."""
    rows = cursor(tx).execute(
        "SELECT slug, time_zone FROM products.programme WHERE slug = ANY (%s)", (list(programmes),)
    )
    found: dict[str, str] = dict(rows.fetchall())
    return found


def _load_posted(tx: Tx, found: Mapping[UUID, Payment]) -> None:
    """What payments moved on bank accounts: in parts, or as receipts that lay there already; and what took it back."""
    rows = cursor(tx).execute(
        """WITH named AS (
               SELECT s.id, 'settlement:' || s.id || part.name AS reference
               FROM products.settlement s CROSS JOIN LATERAL (
                   SELECT ':cash' UNION ALL SELECT ':returned:rest'
                   UNION ALL SELECT ':' || n || ':cash' FROM generate_series(1, s.parts) AS n
                   UNION ALL SELECT ':returned:' || n || ':cash' FROM generate_series(1, s.parts) AS n
               ) AS part (name) WHERE s.id = ANY (%(ids)s)
           ), moved AS MATERIALIZED (
               SELECT n.id, k.transaction_id FROM named n JOIN ledger.reference k ON k.reference = n.reference
               UNION ALL
               SELECT r.settlement_id, r.transaction_id FROM products.receipt r WHERE r.settlement_id = ANY (%(ids)s)
           )
           SELECT m.id, f.code, side.amount, g.id
           FROM moved m
           JOIN ledger.posting p ON p.transaction_id = m.transaction_id
           CROSS JOIN LATERAL (VALUES (p.debit_account, p.amount), (p.credit_account, -p.amount)) AS side (account_id, amount)
           JOIN ledger.account a ON a.id = side.account_id AND a.code = %(bank)s
           JOIN ledger.fund f ON f.id = a.fund_id
           LEFT JOIN ledger.bank_account b ON b.account_id = a.id
           LEFT JOIN ledger.item i ON i.transaction_id = p.transaction_id AND i.seq = p.seq AND i.bank_account_id = b.id
           LEFT JOIN ledger.paired_item k ON k.item_id = i.id
           LEFT JOIN ledger.pairing g ON g.id = k.pairing_id AND cardinality(g.lines) > 0""",
        {"ids": list(found), "bank": chart.BANK.name},
    )
    for id_, fund, amount, pairing in rows:
        found[id_].posted.append(Posted(fund, amount, pairing))


def _load_credits(tx: Tx, found: Mapping[UUID, Payment]) -> None:
    rows = cursor(tx).execute(
        """SELECT k.settlement_id, f.code, (-sum(k.amount))::bigint
           FROM products.settlement_credit k JOIN ledger.fund f ON f.id = k.fund_id
           WHERE k.settlement_id = ANY (%s) AND k.reason = 'netted' GROUP BY 1, 2""",
        (list(found),),
    )
    for id_, fund, amount in rows:
        if found[id_].state != "returned":
            found[id_].credits[fund] = amount


def _load_charges(tx: Tx, found: Mapping[UUID, Payment]) -> None:
    """What the bank kept of a payment, by the pairing that said so; of several payments in a pairing the first bears it."""
    first: dict[UUID, Payment] = {}
    for id_ in sorted(found):
        for one in found[id_].posted:
            if one.pairing is not None and found[id_].state != "returned":
                first.setdefault(one.pairing, found[id_])
    rows = cursor(tx).execute(
        """SELECT e.pairing_id, f.code, sum(side.amount)::bigint
           FROM products.pairing_effect e
           JOIN ledger.posting p ON p.transaction_id = e.transaction_id
           CROSS JOIN LATERAL (VALUES (p.debit_account, -p.amount), (p.credit_account, p.amount)) AS side (account_id, amount)
           JOIN ledger.account a ON a.id = side.account_id AND a.code = %s
           JOIN ledger.fund f ON f.id = a.fund_id
           WHERE e.pairing_id = ANY (%s) AND e.kind = 'charge' AND e.undone_at IS NULL GROUP BY 1, 2""",
        (chart.BANK.name, list(first)),
    )
    for pairing, fund, amount in rows:
        charges = first[pairing].charges
        charges[fund] = charges.get(fund, 0) + amount
