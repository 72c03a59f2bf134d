"""What the accounts of a programme's funds held when a month began and when it ended, and what moved in it: in sets, per code
and group, as the close pack needs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

from ledger.balances import MOVEMENTS_THROUGH, movements_parameters
from ledger.database import Tx, cursor
from ledger.fold import watermark
from ledger.periods import BELONGS_ON
from products.closing.figures import ENROLMENT, FLOW, GROUP, Flow
from products.closing.period import Period

ACCOUNTS_NAMED_MAX: Final = 20
"""Accounts of one code and group that are named by their ids; of more, the query lists the transactions."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the accounts of one code and group held at a day's end: debit balances added up, and credit balances."""

    fund: UUID
    currency: str
    code: str
    kind: str
    group: str
    debit: int
    credit: int
    accounts: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """What one flow moved in the month on the accounts of one code and group."""

    fund: UUID
    currency: str
    code: str
    kind: str
    group: str
    flow: Flow
    debits: int
    credits: int


@dataclass(frozen=True, slots=True)
class Late:
    """What was booked in the month and belongs to an earlier one, whose period was closed."""

    fund: UUID
    currency: str
    belongs: str
    kind: str
    transactions: int
    amount: int


@dataclass(frozen=True, slots=True)
class Month:
    """Everything that the pack's tables are made of."""

    opening: tuple[Held, ...]
    moved: tuple[Moved, ...]
    closing: tuple[Held, ...]
    late: tuple[Late, ...]


def month(tx: Tx, period: Period) -> Month:
    """Read the month; as a role that sees all of the books."""
    return Month(
        tuple(_held(tx, period, period.month - timedelta(days=1))),
        tuple(_moved(tx, period)),
        tuple(_held(tx, period, period.through)),
        tuple(_late(tx, period)),
    )


def _held(tx: Tx, period: Period, day: date) -> Iterator[Held]:
    folded = watermark(tx)
    with cursor(tx) as sql:
        rows: Sequence[tuple[Any, ...]] = sql.execute(
            f"""
            SELECT a.fund_id, a.currency, a.code, a.kind, {GROUP} AS grouped,
                   CAST(sum(greatest(moved.debits - moved.credits, 0)) AS text),
                   CAST(sum(greatest(moved.credits - moved.debits, 0)) AS text),
                   (array_agg(a.id ORDER BY a.id))[1:{ACCOUNTS_NAMED_MAX + 1}]
            FROM (SELECT account_id, sum(debits) AS debits, sum(credits) AS credits
                  FROM ({MOVEMENTS_THROUGH}) AS movement GROUP BY account_id) AS moved
            JOIN ledger.account a ON a.id = moved.account_id {ENROLMENT}
            WHERE a.fund_id = ANY (%(funds)s)
            GROUP BY 1, 2, 3, 4, 5 HAVING sum(moved.debits) + sum(moved.credits) > 0 ORDER BY 1, 2, 3, 4, 5
            """,
            movements_parameters(day, folded.era, folded.xid) | {"funds": period.fund_ids},
            prepare=False,
        ).fetchall()
    for fund, currency, code, kind, group, debit, credit, accounts in rows:
        named = tuple(accounts) if len(accounts) <= ACCOUNTS_NAMED_MAX else ()
        yield Held(fund, currency, code, kind, group, int(debit), int(credit), named)


def _moved(tx: Tx, period: Period) -> Iterator[Moved]:
    with cursor(tx) as sql:
        rows = sql.execute(
            f"""
            SELECT a.fund_id, a.currency, a.code, a.kind, {GROUP} AS grouped, {FLOW} AS flow,
                   CAST(sum(s.debit) AS text), CAST(sum(s.credit) AS text)
            FROM ledger.posting p JOIN ledger.transaction t ON t.id = p.transaction_id
            CROSS JOIN LATERAL (VALUES (p.debit_account, p.credit_account, p.amount, 0),
                                       (p.credit_account, p.debit_account, 0, p.amount)) AS s (account_id, other, debit, credit)
            JOIN ledger.account a ON a.id = s.account_id {ENROLMENT}
            JOIN ledger.account c ON c.id = s.other
            WHERE p.effective_on BETWEEN %(since)s AND %(through)s AND a.fund_id = ANY (%(funds)s)
            GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
            """,
            {"since": period.month, "through": period.through, "funds": period.fund_ids},
            prepare=False,
        ).fetchall()
    for fund, currency, code, kind, group, flow, debits, credited in rows:
        yield Moved(fund, currency, code, kind, group, flow, int(debits), int(credited))


def _late(tx: Tx, period: Period) -> Iterator[Late]:
    with cursor(tx) as sql:
        rows = sql.execute(
            f"""
            SELECT a.fund_id, a.currency, left(t.details->>'{BELONGS_ON}', 7), t.kind, count(DISTINCT t.id),
                   CAST(sum(p.amount) AS text)
            FROM ledger.transaction t JOIN ledger.posting p ON p.transaction_id = t.id
            JOIN ledger.account a ON a.id = p.debit_account
            WHERE t.details ? '{BELONGS_ON}' AND t.effective_on BETWEEN %(since)s AND %(through)s
              AND t.details->>'{BELONGS_ON}' < %(first)s AND a.fund_id = ANY (%(funds)s)
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
            """,
            {
                "since": period.month,
                "through": period.through,
                "first": period.month.isoformat(),
                "funds": period.fund_ids,
            },
            prepare=False,
        ).fetchall()
    for fund, currency, belongs, kind, transactions, amount in rows:
        yield Late(fund, currency, belongs, kind, transactions, int(amount))
