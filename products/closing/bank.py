"""The bank reconciliation statement: what the books say of each bank account at a day's end, what the bank says, and what
lies between them, one by one, so that the two tie."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from ledger.balances import balances_as_of
from ledger.database import Cursor, Tx, cursor
from ledger.reconciliation import bank_accounts
from ledger.reconciliation.bank_accounts import BankAccount
from ledger.reconciliation.gaps import Gap, gaps
from products.opening import posting, taking_back

TIMING_MAX: Final = 1_000
"""Timing items of one bank account that are listed; what is beyond them is added up in one line."""

Side = Literal["line", "item", "rest"]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one of the two has at the day's end and the other not.

    A line is in the bank's statement and not in the books; an item the other way round. ``amount`` is as the bank signs
    it: positive is money in. ``since`` is its day, ``within`` the line's statement or the item's transaction.
    """

    side: Side
    id: UUID | None
    since: date
    amount: int
    what: str
    within: UUID | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One bank account at the end of a day, in minor units.

    ``books`` + lines that the books don't have − items that the bank doesn't have + ``before`` = ``bank``, or `difference`
    is what nobody can say. ``before``: what the first statement opened with beyond the books of that day.
    """

    account: BankAccount
    on: date
    books: int
    bank: int | None
    statement_id: UUID | None
    statement_on: date | None
    before: int
    timing: tuple[Timing, ...]

    @property
    def in_transit(self) -> int:
        """What the timing items add up to: by so much the bank's balance is more than that of the books."""
        return sum(one.amount if one.side != "item" else -one.amount for one in self.timing)

    @property
    def difference(self) -> int | None:
        """What is left unexplained; None without a statement."""
        return None if self.bank is None else self.bank - self.books - self.before - self.in_transit


def accounts(tx: Tx, funds: Sequence[UUID], through: date) -> list[BankAccount]:
    """The bank accounts of these funds that statements are expected of on or before a day, by name."""
    return [one for one in bank_accounts.every(tx, funds=funds) if one.statements_since <= through]


@dataclass(frozen=True, slots=True)
class Unproven:
    """Money at a bank that no statement is expected to show: the days in the month on which it moved, and what is there."""

    account_id: UUID
    fund: str
    currency: str
    mirrored: bool
    first_on: date | None
    last_on: date | None
    held: int


def unproven(tx: Tx, funds: Sequence[UUID], code: str, since: date, through: date) -> list[Unproven]:
    """Accounts of this code that moved in the month, or hold money at its end, without a statement being expected of that day.

    Whoever says that statements are expected later, or no longer, says nothing about the money. What opening balances brought in
    is shown by the first statement, which opens with it.
    """
    with cursor(tx) as sql:
        rows: Sequence[tuple[Any, ...]] = sql.execute(
            """
            WITH account AS (
                SELECT a.id, f.code AS fund, a.currency, m.statements_since, m.statements_until, m.id IS NOT NULL AS mirrored
                FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id
                LEFT JOIN ledger.bank_account m ON m.account_id = a.id
                WHERE a.fund_id = ANY (%(funds)s) AND a.code = %(code)s
            )
            SELECT a.id, a.fund, a.currency, a.mirrored, moved.first_on, moved.last_on,
                   coalesce(%(through)s BETWEEN a.statements_since AND coalesce(a.statements_until, %(through)s), false)
            FROM account a CROSS JOIN LATERAL (
                SELECT min(p.effective_on) AS first_on, max(p.effective_on) AS last_on
                FROM ledger.posting p JOIN ledger.transaction t ON t.id = p.transaction_id
                WHERE a.id IN (p.debit_account, p.credit_account) AND p.effective_on BETWEEN %(since)s AND %(through)s
                  AND t.kind NOT IN (%(opened)s, %(taken_back)s)
                  AND coalesce(p.effective_on < a.statements_since OR p.effective_on > a.statements_until, NOT a.mirrored)
            ) AS moved ORDER BY a.fund, a.currency
            """,
            {
                "funds": list(funds),
                "code": code,
                "since": since,
                "through": through,
                "opened": posting.KIND,
                "taken_back": taking_back.KIND,
            },
            prepare=False,
        ).fetchall()
    held = balances_as_of(tx, [row[0] for row in rows], through)
    return [
        Unproven(id_, fund, currency, mirrored, first_on, last_on, held.get(id_, 0))
        for id_, fund, currency, mirrored, first_on, last_on, expected in rows
        if first_on is not None or (held.get(id_) and not expected)
    ]


def missing(tx: Tx, account: BankAccount, through: date) -> list[Gap]:
    """What is missing between an account's statements up to a day, or does not go on from one to the next."""
    return [
        one for one in gaps(tx, account.id, through=through) if not one.harmless and one.from_on <= through
    ]


def reconcile(tx: Tx, account: BankAccount, on: date) -> Reconciliation:
    """One bank account at the end of a day."""
    held = balances_as_of(tx, [account.account_id], on)
    with cursor(tx) as sql:
        statement_id, statement_on, balance = _bank(sql, account, on)
        first = sql.execute(
            "SELECT from_on, opening FROM ledger.bank_statement WHERE bank_account_id = %s AND withdrawn_at IS NULL"
            " ORDER BY from_on, to_on, made_at NULLS LAST, id LIMIT 1",
            (account.id,),
        ).fetchone()
        timing = _timing(sql, account, on)
    before = 0
    if first is not None and first[0] <= on:
        opened = balances_as_of(tx, [account.account_id], account.statements_since - timedelta(days=1))
        before = first[1] - opened.get(account.account_id, 0)
    return Reconciliation(
        account,
        on,
        held.get(account.account_id, 0),
        balance,
        statement_id,
        statement_on,
        before,
        timing,
    )


def _bank(sql: Cursor, account: BankAccount, on: date) -> tuple[UUID | None, date | None, int | None]:
    """The statement that says how much was there at the day's end, the day that it reaches, and that balance.

    The last that ends by then closes with it; one that goes on has its lines up to that day.
    """
    row = sql.execute(
        """
        SELECT s.id, s.to_on,
               CASE WHEN s.to_on <= %(on)s THEN s.closing
                    ELSE s.opening + coalesce((SELECT sum(l.amount) FROM ledger.statement_line l
                                               WHERE l.statement_id = s.id AND l.booked_on <= %(on)s), 0) END
        FROM ledger.bank_statement s
        WHERE s.bank_account_id = %(account)s AND s.from_on <= %(on)s AND s.withdrawn_at IS NULL
        ORDER BY least(s.to_on, %(on)s) DESC, s.to_on > %(on)s,
                 -- of several that end on one day: the one that no other goes on from
                 EXISTS (SELECT FROM ledger.bank_statement n WHERE n.bank_account_id = s.bank_account_id AND n.id <> s.id
                         AND n.withdrawn_at IS NULL AND n.from_on >= s.from_on AND n.to_on = s.to_on AND n.opening = s.closing AND n.lines > 0),
                 s.from_on DESC, s.made_at DESC NULLS LAST, s.id DESC
        LIMIT 1
        """,
        {"account": account.id, "on": on},
    ).fetchone()
    return (row[0], min(row[1], on), int(row[2])) if row is not None else (None, None, None)


_TIMING: Final = """
    WITH line AS (
        SELECT l.id, l.booked_on AS since, l.amount, coalesce(l.party, l.reference, l.end_to_end, l.kind, '') AS what,
               p.pairing_id, l.statement_id AS within
        FROM ledger.statement_line l LEFT JOIN ledger.paired_line p ON p.line_id = l.id
        WHERE l.bank_account_id = %(account)s AND l.booked_on <= %(on)s AND l.duplicate_of IS NULL
    ), item AS (
        SELECT i.id, i.on_date AS since, i.amount, i.kind AS what, p.pairing_id, i.transaction_id AS within
        FROM ledger.item i LEFT JOIN ledger.paired_item p ON p.item_id = i.id
        WHERE i.bank_account_id = %(account)s AND i.source = 'booked' AND i.on_date <= %(on)s AND i.on_date >= %(since)s
    ), crossing AS (
        -- pairings of which one side is dated later, in whole or in part: what is left of it stands open at the day's end
        SELECT pairing_id FROM (
            SELECT pairing_id, amount FROM line WHERE pairing_id IS NOT NULL
            UNION ALL SELECT pairing_id, -amount FROM item WHERE pairing_id IS NOT NULL) AS side
        GROUP BY pairing_id HAVING sum(amount) <> 0
    ), open AS (
        SELECT 'line' AS side, line.* FROM line WHERE pairing_id IS NULL OR pairing_id IN (SELECT pairing_id FROM crossing)
        UNION ALL
        SELECT 'item', item.* FROM item WHERE pairing_id IS NULL OR pairing_id IN (SELECT pairing_id FROM crossing)
    )
    SELECT side, id, since, amount, what, within, count(*) OVER (),
           sum(CASE side WHEN 'line' THEN amount ELSE -amount END) OVER ()
    FROM open ORDER BY abs(amount) DESC, since, id LIMIT %(limit)s
"""


def _timing(sql: Cursor, account: BankAccount, on: date) -> tuple[Timing, ...]:
    rows: list[tuple[Any, ...]] = sql.execute(
        _TIMING,
        {"account": account.id, "on": on, "since": account.statements_since, "limit": TIMING_MAX},
    ).fetchall()
    listed = [
        Timing(side, id_, since, amount, what, within) for side, id_, since, amount, what, within, *_ in rows
    ]
    listed.sort(key=lambda one: (one.since, one.side, str(one.id)))
    if rows and rows[0][6] > len(rows):
        rest, total = rows[0][6] - len(rows), int(rows[0][7])
        shown = sum(one.amount if one.side == "line" else -one.amount for one in listed)
        beyond = f"{rest} smaller ones that are not listed here"
        listed.append(Timing("rest", None, on, total - shown, beyond, None, rest))
    return tuple(listed)
