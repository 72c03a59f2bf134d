"""What a person finds in a statement line that nothing was expected for, and what follows: posted, paired, and to be taken back.

Money in of an unknown sender is a receipt until it is known whose it is; money out that nobody asked for is the bank's charge.
Neither is ever done by a rule.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import public_id
from ledger.periods import effective_day
from ledger.reconciliation.pairings import BY_HAND
from products.reconciliation import postings, sources
from products.reconciliation.effects import Effect, pair
from products.reconciliation.postings import Line, Mirrored
from products.remittances.context import Books
from products.remittances.partners import Partner
from products.settlements.pair import record_settlement
from products.settlements.settlement import Landing, Settlement

RECEIPT_PREFIX: Final = "rcp"
"""Of the public ids of receipts."""

State = Literal["open", "identified", "taken_back"]


class ReceiptClosed(Conflict):
    """It is known whose the receipt is, or it was taken back."""

    code = "receipt_closed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Money that came in and lies in unidentified receipts, in minor units; `settlement_id`: what it turned out to be."""

    id: UUID
    bank_account: str
    fund: str
    line_id: UUID
    amount: int
    currency: str
    booked_on: date
    state: State
    settlement_id: UUID | None
    recorded_at: datetime


def receipts(
    tx: Tx, *, bank_account_id: UUID | None, state: State | None, after: UUID | None, limit: int
) -> list[Receipt]:
    """Receipts (of one account, in one state), in the order in which they were recorded, from after one on."""
    rows = cursor(tx).execute(
        """SELECT r.id, b.slug, f.code, r.line_id, r.amount, r.currency, r.booked_on, r.state, r.settlement_id, r.recorded_at
           FROM products.receipt r JOIN ledger.bank_account b ON b.id = r.bank_account_id JOIN ledger.fund f ON f.id = r.fund_id
           WHERE r.id > %(after)s AND (%(account)s::uuid IS NULL OR r.bank_account_id = %(account)s)
             AND (%(state)s::text IS NULL OR r.state = %(state)s) ORDER BY r.id LIMIT %(limit)s""",
        {"account": bank_account_id, "state": state, "after": after or UUID(int=0), "limit": limit},
    )
    return [Receipt(*row) for row in rows]


def receive(tx: Tx, books: Books, line_id: UUID, *, remark: str, actor: str) -> UUID:
    """Money came in and nobody knows whose it is: bank → unidentified receipts, paired with its line; the pairing.

    Raises NotFound, InvalidInput for a debit, Conflict `already_paired`.
    """
    at, line = _line(tx, line_id)
    if line.amount < 0:
        raise InvalidInput("money that went out is no receipt", pointer="/line")
    receipt, transaction = postings.receive(tx, books, at, line, line.amount, by=actor)
    return _paired(tx, books, at, line, [Effect("receipt", receipt, transaction)], remark, actor)


def charge(tx: Tx, books: Books, line_id: UUID, *, remark: str, actor: str) -> UUID:
    """The bank took something for itself: at the administrator's cost, paired with its line; the pairing.

    Raises NotFound, InvalidInput for a credit, Conflict `already_paired`.
    """
    at, line = _line(tx, line_id)
    if line.amount > 0:
        raise InvalidInput("money that came in is no charge", pointer="/line")
    transaction = postings.charge(tx, books, at, line, -line.amount)
    return _paired(tx, books, at, line, [Effect("charge", None, transaction)], remark, actor)


def identify(
    tx: Tx,
    books: Books,
    receipt_id: UUID,
    partner: Partner,
    *,
    days: Sequence[date] | None = None,
    funds: Collection[UUID] | None = None,
) -> Settlement:
    """A receipt turns out to be what a partner paid: unidentified receipts → partner receivable, for some days or the oldest.

    ``funds``: those whose receipts the caller may touch, None for all. Raises NotFound, Conflict `receipt_closed`, InvalidInput for a
    currency that the partner collects nothing in.
    """
    cur = cursor(tx)
    row = cur.execute(
        "SELECT bank_account_id, fund_id, currency, amount, state FROM products.receipt WHERE id = %s FOR NO KEY UPDATE",
        [receipt_id],
    ).fetchone()
    if row is None or (funds is not None and row[1] not in funds):
        raise NotFound("There is no such receipt.")
    account, fund, currency, amount, state = row
    if state != "open":
        raise ReceiptClosed(f"The receipt is {state.replace('_', ' ')}.")
    at = postings.mirrored(tx, account)
    paying = [
        one for one, home in sources.homes(tx, [at.programme_id]).items() if home.bank_account_id == at.id
    ]
    today = effective_day(books.clock.now(), at.time_zone)
    done = record_settlement(
        tx,
        books,
        partner,
        currency=currency,
        amount=amount,
        through=max(days) if days else today,
        reference=public_id(RECEIPT_PREFIX, receipt_id),
        days=days,
        funds=paying,
        landing=Landing(fund, today, booked=True),
    )
    cur.execute(
        "UPDATE products.receipt SET state = 'identified', settlement_id = %s, ended_at = %s WHERE id = %s",
        [done.id, books.clock.now(), receipt_id],
    )
    return done


def _line(tx: Tx, line_id: UUID) -> tuple[Mirrored, Line]:
    [line] = postings.lines(tx, [line_id])
    return postings.mirrored(tx, line.bank_account_id), line


def _paired(
    tx: Tx, books: Books, at: Mirrored, line: Line, effects: Sequence[Effect], remark: str, actor: str
) -> UUID:
    return pair(tx, books, at, [line], effects, rule=BY_HAND, evidence={"remark": remark}, made_by=actor)
