"""Balances: now, from the rows that the posting trigger keeps, and at the end of a day, from folded movements.

A balance is told on the account's normal side: an asset's and an expense's is debits minus credits, all others'
credits minus debits. Amounts are minor units of the account's currency.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.fold import WATERMARK, watermark

DEBIT_NORMAL = frozenset({"asset", "expense"})
"""The kinds of account whose balance grows by debits."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account holds now; `held` is what active holds set aside, `floor` the least it may hold."""

    account_id: UUID
    kind: str
    currency: str
    debits: int
    credits: int
    held: int
    floor: int | None

    @property
    def posted(self) -> int:
        """What was posted, on the normal side."""
        return on_normal_side(self.kind, self.debits, self.credits)

    @property
    def available(self) -> int:
        """What may leave the account: posted, less what is held and, where there is a floor, what must remain."""
        return self.posted - self.held - (self.floor or 0)


def on_normal_side(kind: str, debits: int, credits: int) -> int:  # noqa: A002
    """The balance of an account of this kind."""
    return debits - credits if kind in DEBIT_NORMAL else credits - debits


def balances(tx: Tx, account_ids: Collection[UUID]) -> dict[UUID, Balance]:
    """The present balances of many accounts in one statement; an account that is unknown or hidden is left out."""
    rows = cursor(tx).execute(
        """
        SELECT account.id, account.kind, account.currency, balance.debits, balance.credits, balance.held, account.floor
        FROM ledger.account JOIN ledger.account_balance AS balance ON balance.account_id = account.id
        WHERE account.id = ANY(%s)
        """,
        (list(account_ids),),
    )
    return {row[0]: Balance(*row) for row in rows}


def balances_as_of(tx: Tx, account_ids: Collection[UUID], day: date) -> dict[UUID, int]:
    """The posted balances, on the normal side, by what is effective on or before `day`.

    Months before the day's, days of its month, and whatever is not folded yet, in one statement: its snapshot sees
    the folder's movements and watermark together, so nothing counts twice or not at all while folding and posting go
    on. An account that is unknown or hidden is left out. The cost grows with the months and with the unfolded tail,
    not with the postings.
    """
    folded = watermark(tx)
    rows = cursor(tx).execute(
        f"""
        SELECT account.id, account.kind, CAST(coalesce(sum(moved.debits), 0) AS bigint),
               CAST(coalesce(sum(moved.credits), 0) AS bigint)
        FROM ledger.account
        LEFT JOIN ({_OF_ACCOUNTS}) AS moved ON moved.account_id = account.id
        WHERE account.id = ANY(%(accounts)s)
        GROUP BY account.id
        """,
        {"accounts": list(account_ids)} | movements_parameters(day, folded.era, folded.xid),
        prepare=False,
    )
    return {account: on_normal_side(kind, *moved) for account, kind, *moved in rows}


def movements_parameters(day: date, era: int, xid: int) -> dict[str, object]:
    """The parameters of MOVEMENTS_THROUGH; (era, xid) is a watermark read before, at most the present one."""
    return {
        "day": day,
        "month": day.replace(day=1),
        "watermark": WATERMARK,
        "era": era,
        "xid": str(xid),
    }


_FOLDED = """
    SELECT account_id, debits, credits FROM ledger.account_month
    WHERE {of_row} AND month < %(month)s
    UNION ALL
    SELECT account_id, debits, credits FROM ledger.account_day
    WHERE {of_row} AND day >= %(month)s AND day <= %(day)s
"""

_BEHIND_WATERMARK = """
    (tail.era, tail.xid) >= (
        coalesce((SELECT era FROM ledger.fold WHERE name = %(watermark)s), 0),
        coalesce((SELECT xid FROM ledger.fold WHERE name = %(watermark)s), CAST('0' AS xid8))
    )
"""

# The function asks once whether the caller may see an account: asked of each transaction of the tail, it took longer than
# reading them (migration 0005).
_OF_ACCOUNTS = f"""
    {_FOLDED.format(of_row="account_id = ANY(%(accounts)s)")}
    UNION ALL
    SELECT tail.account_id, tail.debits, tail.credits
    FROM ledger.moved_since(%(accounts)s, %(day)s, %(era)s, CAST(%(xid)s AS xid8)) AS tail
    WHERE {_BEHIND_WATERMARK}
"""

# The watermark is read again inside the statement, and that is the one that decides. The earlier one, as a constant,
# only tells the planner how short the tail is, which it cannot know of a value that it has yet to read. LATERAL with
# OFFSET 0 keeps the tail's postings behind their primary key.
MOVEMENTS_THROUGH = f"""
    {_FOLDED.format(of_row="true")}
    UNION ALL
    SELECT side.account_id, side.debits, side.credits
    FROM (
        SELECT id, era, xid FROM ledger.transaction WHERE era = %(era)s AND xid >= CAST(%(xid)s AS xid8)
        UNION ALL
        SELECT id, era, xid FROM ledger.transaction WHERE era > %(era)s
    ) AS tail
    CROSS JOIN LATERAL (
        SELECT debit_account, credit_account, amount FROM ledger.posting
        WHERE transaction_id = tail.id AND effective_on <= %(day)s OFFSET 0
    ) AS posting
    CROSS JOIN LATERAL (
        VALUES (posting.debit_account, posting.amount, 0), (posting.credit_account, 0, posting.amount)
    ) AS side (account_id, debits, credits)
    WHERE {_BEHIND_WATERMARK}
"""
