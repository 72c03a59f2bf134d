"""What a person finds in a statement line that nothing was expected for, and what follows: posted, paired, and to be taken back.

Money in of an unknown sender is a receipt until it is known whose it is; money out that nobody asked for is the bank's charge; a
credit can be a payment that came back. None of this is ever done by a rule.
"""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import public_id
from ledger.periods import effective_day
from ledger.reconciliation.pairings import BY_HAND
from products.payouts import confirmation
from products.reconciliation import postings, sources
from products.reconciliation.booked import items_of
from products.reconciliation.effects import Effect, pair
from products.reconciliation.postings import Line, Mirrored
from products.remittances.context import Books
from products.remittances.partners import Partner
from products.settlements.pair import record_settlement
from products.settlements.settlement import Landing, Settlement

RECEIPT_PREFIX = "rcp"
"""Of the public ids of receipts."""


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


def came_back(tx: Tx, books: Books, line_id: UUID, payout_id: UUID, *, remark: str, actor: str) -> UUID:
    """A payment that was paid came back as this line: the money is the member's again; the pairing.

    Raises NotFound, InvalidInput for another amount than was paid, `WrongState`, Conflict `already_paired`.
    """
    at, line = _line(tx, line_id)
    row = (
        cursor(tx)
        .execute("SELECT amount FROM products.payout_attempt WHERE payout_id = %s", [payout_id])
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such payout, or it was never submitted.")
    if row[0] != line.amount:
        raise InvalidInput(f"the payout was of {row[0]} minor units", pointer="/payout")
    transaction = confirmation.came_back(tx, books, payout_id, on=line.booked_on, actor=actor)
    # the payout is returned by its own rules: taking the pairing back leaves it so, and the line open
    return pair(
        tx,
        books,
        at,
        [line],
        [],
        rule=BY_HAND,
        evidence={"remark": remark, "payout": public_id("pay", payout_id)},
        made_by=actor,
        booked=[id_ for id_, _ in items_of(tx, [transaction], at.id)],
    )


def identify(
    tx: Tx,
    books: Books,
    receipt_id: UUID,
    partner: Partner,
    *,
    days: Sequence[date] | None = None,
) -> Settlement:
    """A receipt turns out to be what a partner paid: unidentified receipts → partner receivable, for some days or the oldest.

    Raises NotFound, Conflict `receipt_closed`, InvalidInput for a currency that the partner collects nothing in.
    """
    cur = cursor(tx)
    row = cur.execute(
        "SELECT bank_account_id, fund_id, currency, amount, state FROM products.receipt WHERE id = %s FOR NO KEY UPDATE",
        [receipt_id],
    ).fetchone()
    if row is None:
        raise NotFound("There is no such receipt.")
    account, fund, currency, amount, state = row
    if state != "open":
        raise Conflict(f"The receipt is {state.replace('_', ' ')}.", code="receipt_closed")
    at = postings.mirrored(tx, account)
    funds = [
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
        funds=funds,
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
