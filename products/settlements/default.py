"""Debts that will not be paid: another bears them, so that no saver does.

What a partner collected and never paid in is settled in its stead, by its guarantor where the terms of the day name one, else
by the administrator: its members' contributions stop waiting, and the match they earned is granted (posting table: *partner's
fee netted*, *partner defaults*). What a member owes, having spent what was reversed later, becomes a credit loss.
"""

import hashlib
from datetime import date
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput
from ledger.ids import new_id
from ledger.posting import Posting, Transaction
from products import chart
from products.posting import post_whole
from products.remittances.context import Books, load_context
from products.remittances.partners import Partner
from products.settlements.bearers import Cause as Cause
from products.settlements.bearers import administrator
from products.settlements.pair import begin
from products.settlements.settlement import Chosen, Settlement, lock


class DebtChanged(Conflict):
    """What is owed is no longer what was to be written off."""

    code = "debt_changed"


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
    """Write off what a partner owes for what it collected for days up to and including one: exactly ``amount``.

    It is what was collected, before any fee: a partner that does not pay earns none. Raises `DebtChanged` when it owes
    another amount by now, `InvalidInput` for a currency that it does not collect.
    """
    joined = load_context(tx, books, [partner.id]).programme_of(partner.id, currency)
    if joined is None:
        raise InvalidInput(f"{partner.slug} collects nothing in {currency}", pointer="/currency")
    lock(tx, partner.id, joined.programme_id)
    owed = owed_by_partner(tx, partner.id, joined.programme_id, currency, through)
    if owed != amount or not amount:
        raise DebtChanged(f"{partner.slug} owes {owed} {currency} for what it collected through {through}")
    return begin(tx, books, partner, cause, currency, amount, Chosen(through), reference)


def owed_by_partner(tx: Tx, partner_id: UUID, programme_id: UUID, currency: str, through: date) -> int:
    """What a partner owes for contributions of days up to and including one, before any fee, in minor units."""
    return int(
        tx.execute(
            text(
                "SELECT coalesce(sum(amount), 0)::bigint FROM products.contribution WHERE partner_id = :partner"
                " AND programme_id = :programme AND currency = :currency AND owed AND collected_on <= :through"
            ),
            {"partner": partner_id, "programme": programme_id, "currency": currency, "through": through},
        ).scalar_one()
    )


def write_off_member(
    tx: Tx, books: Books, member_id: UUID, *, programme_id: UUID, amount: int, reference: str
) -> UUID:
    """Write off what a member owes, or a part of it; the transaction's id.

    Raises `DebtChanged` when the member owes less by now.
    """
    row = tx.execute(
        text(
            "SELECT a.id, a.fund_id, a.currency, g.time_zone, d.id AS due_from FROM products.programme g"
            " JOIN products.programme_fund f ON f.programme_id = g.id AND f.role = 'savers'"
            " JOIN ledger.account a ON a.fund_id = f.fund_id AND a.code = :code AND a.owner = :owner"
            " JOIN ledger.account d ON d.fund_id = f.fund_id AND d.code = :due_from AND d.owner = ''"
            " AND d.currency = a.currency"
            " WHERE g.id = :programme"
        ),
        {
            "code": chart.MEMBER_RECEIVABLE.name,
            "due_from": chart.DUE_FROM_FUNDS.name,
            "owner": member_id.hex,
            "programme": programme_id,
        },
    ).one_or_none()
    if row is None:
        raise InvalidInput("the member has no account there", pointer="/member")
    bearer = administrator(tx, programme_id)
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
    id_ = new_id()
    transaction = Transaction(
        reference=reference,
        kind="member_debt_written_off",
        effective_on=on,
        postings=(
            Posting(row.due_from, row.id, amount, row.currency),
            Posting(bearer.loss, bearer.due_to, amount, row.currency),
        ),
        digest=hashlib.sha256(f"{reference}|{member_id}|{amount}".encode()).digest(),
        id=id_,
    )
    post_whole(tx, [transaction], clock=books.clock)
    return id_
