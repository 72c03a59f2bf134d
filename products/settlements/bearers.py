"""Who bears what a partner does not pay in: the administrator its fee or its default, a guarantor its default.

The administrator's fund owes it to the fund that misses it (due-to and due-from), as both sides of a posting lie in one
fund. A guarantor owes it to that fund itself: its receivable takes the partner's place there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import open_accounts
from ledger.database import Tx
from products import chart
from products.remittances.context import Joined
from products.settlements.cash import Move
from products.settlements.terms import ADMINISTRATOR

Cause = Literal["default", "fee"]
"""Why a partner's debt is borne by another: it does not pay, or it keeps a fee that the administrator bears."""

Borne = Mapping[tuple[UUID, str], int]
"""What is borne in each fund by whom (`ADMINISTRATOR` or a guarantor), in minor units."""


@dataclass(frozen=True, slots=True)
class Administrator:
    """The administrator's fund of a programme and the accounts there that take what it bears."""

    fund: UUID
    due_to: UUID
    cost: UUID
    loss: UUID

    def charged(self, cause: Cause) -> UUID:
        """Its cost for a fee, its credit loss for a default."""
        return self.cost if cause == "fee" else self.loss


def administrator(tx: Tx, programme_id: UUID) -> Administrator:
    """The administrator of a programme; its fund is opened where it is not there yet."""
    row = tx.execute(
        text("SELECT slug, name, time_zone, currency FROM products.programme WHERE id = :id"),
        {"id": programme_id},
    ).one()
    fund = chart.open_administrator_fund(tx, row.slug, row.name, row.time_zone, row.currency)
    codes = (chart.DUE_TO_FUNDS, chart.ADMINISTRATOR_COST, chart.CREDIT_LOSS)
    return Administrator(
        fund, *open_accounts(tx, [chart.spec(code, fund, "", row.currency) for code in codes])
    )


def bearing(tx: Tx, joined: Joined, by: Administrator, borne: Borne, cause: Cause) -> list[Move]:
    """What moves when others bear what a partner owes."""
    moves: list[Move] = []
    for (fund, who), amount in sorted(borne.items()):
        receivable = joined.account(fund, chart.PARTNER_RECEIVABLE)
        if who == ADMINISTRATOR or cause == "fee":
            moves.append((joined.account(fund, chart.DUE_FROM_FUNDS, ""), receivable, amount))
            moves.append((by.charged(cause), by.due_to, amount))
        else:
            moves.append((guarantor_account(tx, joined, fund, who), receivable, amount))
    return moves


def guarantor_account(tx: Tx, joined: Joined, fund: UUID, guarantor: str) -> UUID:
    """What a guarantor owes a fund; opened at its first default."""
    [account] = open_accounts(tx, [chart.spec(chart.GUARANTOR_RECEIVABLE, fund, guarantor, joined.currency)])
    return account
