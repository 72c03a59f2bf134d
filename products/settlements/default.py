"""Debts that will not be paid: the administrator bears them, so that no saver does.

What a partner collected and never paid in is settled by the administrator in its stead: its members' contributions stop
waiting, and the match they earned is granted (posting table: *partner's fee netted*, *partner defaults*). What a member
owes, having spent what was reversed later, becomes a credit loss. The savers' fund is owed the money by the
administrator's from then on (due-from and due-to), as both sides of a posting lie in one fund.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput
from ledger.posting import Posting, Transaction
from products import chart
from products.posting import post_whole
from products.remittances.context import Books, Joined, load_context
from products.remittances.partners import Partner
from products.settlements.pair import Settlement, Settling

Cause = Literal["default", "fee"]
"""Why a partner's debt is written off: it does not pay, or it kept a fee that the administrator bears."""


class DebtChanged(Conflict):
    """What is owed is no longer what was to be written off."""

    code = "debt_changed"


@dataclass(frozen=True, slots=True)
class Administrator:
    """The administrator's fund and the accounts that a loss moves there."""

    fund: UUID
    due_to: UUID
    charged: UUID


def write_off_partner(
    tx: Tx,
    books: Books,
    partner: Partner,
    *,
    currency: str,
    through: date,
    amount: int,
    cause: Cause,
    reference: str,
) -> Settlement:
    """Write off what a partner owes for what it collected up to and including a local date: exactly ``amount``.

    Raises `DebtChanged` when it owes another amount by now, `InvalidInput` for a currency that it does not collect.
    """
    context = load_context(tx, books, [partner.id])
    joined = context.programme_of(partner.id, currency)
    if joined is None:
        raise InvalidInput(f"{partner.slug} collects nothing in {currency}", pointer="/currency")
    # as for a settlement: one at a time for a partner in a programme
    tx.execute(
        text(
            "SELECT 1 FROM products.partner_programme WHERE partner_id = :p AND programme_id = :g FOR NO KEY UPDATE"
        ),
        {"p": partner.id, "g": joined.programme_id},
    )
    owed = owed_by_partner(tx, partner.id, joined.programme_id, currency, through)
    if owed != amount or not amount:
        raise DebtChanged(f"{partner.slug} owes {owed} {currency} for what it collected through {through}")
    code = chart.CREDIT_LOSS if cause == "default" else chart.ADMINISTRATOR_COST
    bearer = _administrator(tx, joined.programme_id, code)
    return _WritingOff(tx, books, partner, joined, context, amount, through, reference).borne_by(bearer).run()


def owed_by_partner(tx: Tx, partner_id: UUID, programme_id: UUID, currency: str, through: date) -> int:
    """What a partner owes for contributions up to and including a local date, in minor units."""
    return int(
        tx.execute(
            text(
                "SELECT coalesce(sum(amount), 0)::bigint FROM products.contribution WHERE partner_id = :partner"
                " AND programme_id = :programme AND currency = :currency AND owed AND contributed_on <= :through"
            ),
            {"partner": partner_id, "programme": programme_id, "currency": currency, "through": through},
        ).scalar_one()
    )


class _WritingOff(Settling):
    """A settlement that the administrator makes in a partner's stead."""

    bearer: Administrator

    def borne_by(self, bearer: Administrator) -> "_WritingOff":
        self.bearer = bearer
        self.on = periods.open_day(self.tx, [*self.joined.funds.values(), bearer.fund], self.on)
        return self

    def _received(self, paid: Mapping[UUID, int], rest: int) -> Transaction:
        if rest:
            raise DebtChanged("what is owed changed while it was written off")
        postings = _borne(self.joined, self.bearer, paid, self.joined.currency)
        return self._transaction("partner_debt_written_off", "loss", postings)


def _borne(
    joined: Joined, bearer: Administrator, paid: Mapping[UUID, int], currency: str
) -> tuple[Posting, ...]:
    postings: list[Posting] = []
    for fund, amount in sorted(paid.items()):
        due_from = joined.account(fund, chart.DUE_FROM_FUNDS, "")
        postings.append(Posting(due_from, joined.account(fund, chart.PARTNER_RECEIVABLE), amount, currency))
        postings.append(Posting(bearer.charged, bearer.due_to, amount, currency))
    return tuple(postings)


def write_off_member(
    tx: Tx, books: Books, member_id: UUID, *, programme_id: UUID, amount: int, reference: str
) -> UUID:
    """Write off what a member owes, or a part of it; the transaction's id.

    Raises `DebtChanged` when the member owes less by now.
    """
    row = tx.execute(
        text(
            "SELECT a.id, a.fund_id, a.currency, g.time_zone FROM products.programme g"
            " JOIN products.programme_fund f ON f.programme_id = g.id AND f.role = 'savers'"
            " JOIN ledger.account a ON a.fund_id = f.fund_id AND a.code = :code AND a.owner = :owner"
            " WHERE g.id = :programme"
        ),
        {"code": chart.MEMBER_RECEIVABLE.name, "owner": member_id.hex, "programme": programme_id},
    ).one_or_none()
    if row is None:
        raise InvalidInput("the member has no account there", pointer="/member")
    bearer = _administrator(tx, programme_id, chart.CREDIT_LOSS)
    due_from = _account(tx, row.fund_id, chart.DUE_FROM_FUNDS.name)
    # An asset has no floor: what is owed is read under the lock that the posting would take.
    tx.execute(text("SELECT ledger.lock_accounts(:accounts)"), {"accounts": [row.id]})
    owed = tx.execute(
        text("SELECT debits - credits FROM ledger.account_balance WHERE account_id = :id"), {"id": row.id}
    ).scalar_one()
    if not 0 < amount <= owed:
        raise DebtChanged(f"the member owes {owed} {row.currency}")
    on = periods.open_day(
        tx, [row.fund_id, bearer.fund], periods.effective_day(books.clock.now(), row.time_zone)
    )
    postings: Sequence[Posting] = (
        Posting(due_from, row.id, amount, row.currency),
        Posting(bearer.charged, bearer.due_to, amount, row.currency),
    )
    transaction = Transaction(
        reference=reference,
        kind="member_debt_written_off",
        effective_on=on,
        postings=tuple(postings),
        digest=hashlib.sha256(f"{reference}|{member_id}|{amount}".encode()).digest(),
    )
    post_whole(tx, [transaction], clock=books.clock)
    return UUID(
        str(
            tx.execute(
                text("SELECT transaction_id FROM ledger.reference WHERE reference = :reference"),
                {"reference": reference},
            ).scalar_one()
        )
    )


def _administrator(tx: Tx, programme_id: UUID, charged: chart.Code) -> Administrator:
    row = tx.execute(
        text("SELECT slug, name, time_zone, currency FROM products.programme WHERE id = :id"),
        {"id": programme_id},
    ).one()
    fund = chart.open_administrator_fund(tx, row.slug, row.name, row.time_zone, row.currency)
    return Administrator(fund, _account(tx, fund, chart.DUE_TO_FUNDS.name), _account(tx, fund, charged.name))


def _account(tx: Tx, fund: UUID, code: str) -> UUID:
    return UUID(
        str(
            tx.execute(
                text("SELECT id FROM ledger.account WHERE fund_id = :fund AND code = :code AND owner = ''"),
                {"fund": fund, "code": code},
            ).scalar_one()
        )
    )
