"""The trial balance: per fund and currency, what each account code holds, debits beside credits, and that they tie."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from ledger.balances import MOVEMENTS_THROUGH, movements_parameters
from ledger.database import Tx, cursor
from ledger.fold import watermark


@dataclass(frozen=True, slots=True)
class Line:
    """All accounts of one code: those with a debit balance added up, and those with a credit balance.

    The two are not set off against each other: what one partner owes is not paid by another's advance.
    """

    code: str
    kind: str
    debit: int
    credit: int


@dataclass(frozen=True, slots=True)
class FundBalance:
    """One fund in one currency, in minor units. The totals are equal, or the books are wrong."""

    fund_id: UUID
    fund: str
    currency: str
    accounts: tuple[Line, ...]
    debit_total: int
    credit_total: int

    def to_json(self) -> dict[str, Any]:
        """The shape of the published contract."""
        return {
            "fund": self.fund,
            "currency": self.currency,
            "accounts": [
                {"code": line.code, "kind": line.kind, "debit": line.debit, "credit": line.credit}
                for line in self.accounts
            ],
            "debit_total": self.debit_total,
            "credit_total": self.credit_total,
        }


def trial_balance(tx: Tx, *, as_of: date | None = None, fund: UUID | None = None) -> list[FundBalance]:
    """Every fund (or one), by fund code and currency, from one snapshot; codes that never moved are left out.

    Without `as_of` it is what is posted now; with it, what is effective on or before that day.
    """
    of_fund = "WHERE account.fund_id = %(fund)s" if fund is not None else ""
    parameters: dict[str, object] = {"fund": fund}
    moved = "SELECT account_id, debits, credits FROM ledger.account_balance"
    if as_of is not None:
        folded = watermark(tx)
        moved = (
            "SELECT account_id, sum(debits) AS debits, sum(credits) AS credits"
            f" FROM ({MOVEMENTS_THROUGH}) AS movement GROUP BY account_id"
        )
        parameters |= movements_parameters(as_of, folded.era, folded.xid)
    rows = cursor(tx).execute(
        f"""
        SELECT fund.code, account.currency, fund.id, account.code, account.kind,
               CAST(sum(greatest(moved.debits - moved.credits, 0)) AS text),
               CAST(sum(greatest(moved.credits - moved.debits, 0)) AS text)
        FROM ({moved}) AS moved
        JOIN ledger.account ON account.id = moved.account_id
        JOIN ledger.fund ON fund.id = account.fund_id
        {of_fund}
        GROUP BY fund.id, account.currency, account.code, account.kind
        HAVING sum(moved.debits) + sum(moved.credits) > 0
        ORDER BY fund.code, account.currency, account.code, account.kind
        """,
        parameters,
        prepare=False,
    )
    return [_fund_balance(head, group) for head, group in groupby(rows, key=itemgetter(0, 1, 2))]


def _fund_balance(head: tuple[str, str, UUID], rows: Iterable[tuple[Any, ...]]) -> FundBalance:
    fund, currency, fund_id = head
    lines = [Line(code, kind, int(debit), int(credit)) for _, _, _, code, kind, debit, credit in rows]
    return FundBalance(
        fund_id=fund_id,
        fund=fund,
        currency=currency,
        accounts=tuple(lines),
        debit_total=sum(line.debit for line in lines),
        credit_total=sum(line.credit for line in lines),
    )
