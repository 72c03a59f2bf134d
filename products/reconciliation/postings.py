"""What a statement line makes the books post by itself: a bank's charge, and money whose sender is not known.

Who bears a bank's charge: the administrator, through due-to and due-from, as it bears what partners keep (posting table of the
design, *partner's fee netted*): savers' cash never pays a fee. Money beyond what was expected is nobody's income: it lies in
unidentified receipts until it is known whose it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from ledger import periods
from ledger.accounts import open_accounts
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id, public_id
from ledger.posting import Posting, Transaction, reverse
from ledger.reconciliation.pairings import AlreadyPaired
from products import chart
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books
from products.settlements.bearers import administrator

LINE_PREFIX: Final = "bsl"
"""Of the public ids of statement lines."""


class DuplicateLine(Conflict):
    """The line takes part in nothing: it stands in an overlapping statement too, where it does, or its statement was withdrawn."""

    code = "duplicate_line"


class NotUndoable(Conflict):
    """What a pairing posted can't be taken back any more."""

    code = "not_undoable"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A bank account with the ledger account that mirrors it; its programme, and the fund's time zone."""

    id: UUID
    slug: str
    fund_id: UUID
    account_id: UUID
    currency: str
    time_zone: str
    programme_id: UUID


@dataclass(frozen=True, slots=True)
class Line:
    """A statement line: signed minor units, positive when money came in."""

    id: UUID
    bank_account_id: UUID
    amount: int
    currency: str
    booked_on: date

    @property
    def public_id(self) -> str:
        """How people name it."""
        return public_id(LINE_PREFIX, self.id)


def mirrored(tx: Tx, bank_account_id: UUID) -> Mirrored:
    """The bank account of an id. Raises NotFound."""
    row = (
        cursor(tx)
        .execute(
            """SELECT b.id, b.slug, b.fund_id, b.account_id, b.currency, f.time_zone, coalesce(pf.programme_id, g.id)
               FROM ledger.bank_account b JOIN ledger.fund f ON f.id = b.fund_id
               LEFT JOIN products.programme_fund pf ON pf.fund_id = f.id
               LEFT JOIN products.programme g ON f.code = g.slug || '/' || %s WHERE b.id = %s""",
            [chart.ADMINISTRATOR, bank_account_id],
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such bank account.")
    return Mirrored(*row)


def lines(tx: Tx, ids: Sequence[UUID]) -> list[Line]:
    """Statement lines by their ids, the earliest booked first. Raises NotFound, and Conflict `duplicate_line`."""
    rows = (
        cursor(tx)
        .execute(
            "SELECT id, bank_account_id, amount, currency, booked_on, duplicate_of FROM ledger.statement_line"
            " WHERE id = ANY (%s) ORDER BY booked_on, id",
            [list(ids)],
        )
        .fetchall()
    )
    if len(rows) != len(set(ids)):
        raise NotFound("There is no such statement line.")
    if any(row[5] == row[0] for row in rows):
        raise DuplicateLine("The line's statement was withdrawn: it takes part in nothing.")
    if any(row[5] is not None for row in rows):
        raise DuplicateLine("The line stands in another statement, too: that one takes part.")
    return [Line(*row[:5]) for row in rows]


def times_undone(tx: Tx, line: Line) -> int:
    """How often a pairing of this line was taken back: what it posts next is another transaction than those times."""
    (times,) = cursor(tx).execute(
        "SELECT count(*) FROM ledger.pairing WHERE bank_account_id = %s AND undone_at IS NOT NULL AND lines @> %s",
        [line.bank_account_id, [line.id]],
    ).fetchone() or (0,)
    return int(times)


def charge(tx: Tx, books: Books, at: Mirrored, line: Line, amount: int) -> UUID:
    """Book what the bank took beyond what was expected (minor units), at the administrator's cost; the transaction."""
    bearer = administrator(tx, at.programme_id).fund
    charges, due_to = open_accounts(
        tx,
        [chart.spec(code, bearer, "", at.currency) for code in (chart.BANK_CHARGES, chart.DUE_TO_FUNDS)],
    )
    if bearer == at.fund_id:
        postings = [Posting(charges, at.account_id, amount, at.currency)]
    else:
        [due_from] = open_accounts(tx, [chart.spec(chart.DUE_FROM_FUNDS, at.fund_id, "", at.currency)])
        postings = [
            Posting(due_from, at.account_id, amount, at.currency),
            Posting(charges, due_to, amount, at.currency),
        ]
    return book(tx, books, at, line, "bank_charged", postings, funds=[at.fund_id, bearer])


def receive(tx: Tx, books: Books, at: Mirrored, line: Line, amount: int, *, by: str) -> tuple[UUID, UUID]:
    """Take money in that nobody expected (minor units), into unidentified receipts; the receipt and the transaction."""
    [unidentified] = open_accounts(tx, [chart.spec(chart.UNIDENTIFIED_RECEIPTS, at.fund_id, "", at.currency)])
    posting = Posting(at.account_id, unidentified, amount, at.currency)
    transaction = book(tx, books, at, line, "receipt_unidentified", [posting], funds=[at.fund_id])
    receipt = new_id()
    cursor(tx).execute(
        "INSERT INTO products.receipt (id, bank_account_id, fund_id, currency, amount, line_id, transaction_id, booked_on,"
        " recorded_by, recorded_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            receipt,
            at.id,
            at.fund_id,
            at.currency,
            amount,
            line.id,
            transaction,
            line.booked_on,
            by,
            books.clock.now(),
        ],
    )
    return receipt, transaction


def book(
    tx: Tx,
    books: Books,
    at: Mirrored,
    line: Line,
    kind: str,
    postings: Sequence[Posting],
    *,
    funds: Sequence[UUID],
    details: Mapping[str, Any] | None = None,
) -> UUID:
    """Post what a line means, once, on the day on which the bank booked it (the next open one); the transaction.

    Raises Conflict `already_paired` where the line was booked before.
    """
    reference = f"statement-line:{line.id}:{kind}:{times_undone(tx, line)}"
    id_ = new_id()
    transaction = Transaction(
        reference=reference,
        kind=kind,
        effective_on=books_day(tx, books, at, line.booked_on, funds),
        postings=tuple(postings),
        digest=sha256(f"{reference}|{[(p.debit, p.credit, p.amount) for p in postings]}".encode()).digest(),
        id=id_,
        details={"line": line.public_id, **(details or {})},
    )
    try:
        post_whole(tx, [transaction], clock=books.clock)
    except BooksRefused as refused:
        if refused.outcome.status in ("replayed", "conflict"):
            raise AlreadyPaired("the line is paired already") from None
        raise
    return id_


def take_back(tx: Tx, books: Books, at: Mirrored, transaction: UUID, *, remark: str) -> UUID:
    """Reverse what a line made the books post; the reversing transaction. Raises Conflict where it is reversed already."""
    fund_rows = cursor(tx).execute(
        "SELECT DISTINCT a.fund_id, t.kind FROM ledger.posting p JOIN ledger.account a ON a.id = p.debit_account"
        " JOIN ledger.transaction t ON t.id = p.transaction_id WHERE p.transaction_id = %s",
        [transaction],
    )
    found = fund_rows.fetchall()
    reference = f"taken-back:{transaction}"
    today = periods.effective_day(books.clock.now(), at.time_zone)
    outcome = reverse(
        tx,
        transaction,
        reference=reference,
        digest=sha256(reference.encode()).digest(),
        kind=f"{found[0][1]}_taken_back",
        effective_on=periods.open_day(tx, [row[0] for row in found], today),
        clock=books.clock,
        details={"remark": remark},
    )
    if outcome.status != "posted" or outcome.transaction_id is None:
        raise NotUndoable(f"What the pairing posted can't be taken back: {outcome.reason or outcome.status}.")
    return outcome.transaction_id


def books_day(tx: Tx, books: Books, at: Mirrored, booked_on: date, funds: Sequence[UUID]) -> date:
    """The bank's day as the books' day: the next open one where the period is closed, and never one that is to come."""
    today = periods.effective_day(books.clock.now(), at.time_zone)
    return periods.open_day(tx, funds, min(booked_on, today))
