"""The money of a remittal leaves by a bank payment, and clears when the bank has paid it."""

import hashlib
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.accounts import open_accounts
from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.posting import Posting, Transaction
from products import chart
from products.posting import post_whole
from products.remittals.making import RemittalClosed
from products.remittals.queries import Remittal, remittal_of
from products.remittances.context import Books


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts that remittals of one agency move, in its fund and in the savers'."""

    savers: UUID
    time_zone: str
    collected: UUID
    clearing: UUID
    bank: UUID
    due_to: UUID
    due_from: UUID
    savers_bank: UUID
    savers_due_to: UUID
    savers_due_from: UUID


def send(tx: Tx, books: Books, remittal_id: UUID, *, reference: str, on: date) -> Remittal:
    """Record that the bank was told to pay a remittal, under the payment's reference; the same again changes nothing.

    What prefunded partners paid lies in the savers' bank account: it is moved first. Raises `NotFound`, `RemittalClosed`.
    """
    remittal = remittal_of(tx, remittal_id, lock=True)
    if remittal.state in ("sent", "cleared") and (remittal.bank_reference, remittal.sent_on) == (
        reference,
        on,
    ):
        return remittal
    if remittal.state != "made":
        raise RemittalClosed(f"the remittal is {remittal.state}")
    if not reference:
        raise InvalidInput("a bank payment has a reference", pointer="/reference")
    accounts = accounts_of(tx, remittal)
    prepaid = tx.execute(
        text(
            "SELECT coalesce(sum(c.amount), 0)::bigint FROM products.remittal_line l"
            " JOIN products.contribution c ON c.enrolment_id = l.enrolment_id AND c.remittal_line = l.id"
            " WHERE l.remittal_id = :id AND c.debited_account = :due_from"
        ),
        {"id": remittal_id, "due_from": accounts.due_from},
    ).scalar_one()
    currency = remittal.currency
    postings = [Posting(accounts.collected, accounts.clearing, remittal.amount, currency)]
    if prepaid:
        postings = [
            Posting(accounts.savers_due_to, accounts.savers_bank, prepaid, currency),
            Posting(accounts.bank, accounts.due_from, prepaid, currency),
            *postings,
        ]
    _post(tx, books, remittal, accounts, "sent", on, tuple(postings))
    tx.execute(
        text(
            "UPDATE products.remittal SET state = 'sent', bank_reference = :reference, sent_on = :on, sent_at = :now"
            " WHERE id = :id"
        ),
        {"reference": reference, "on": on, "now": books.clock.now(), "id": remittal_id},
    )
    return remittal_of(tx, remittal_id)


def clear(tx: Tx, books: Books, remittal_id: UUID, *, on: date) -> Remittal:
    """Record that the bank has paid a remittal; the same again changes nothing. Raises `NotFound`, `RemittalClosed`."""
    remittal = remittal_of(tx, remittal_id, lock=True)
    if remittal.state == "cleared" and remittal.cleared_on == on:
        return remittal
    if remittal.state != "sent":
        raise RemittalClosed(f"the remittal is {remittal.state}")
    accounts = accounts_of(tx, remittal)
    posting = Posting(accounts.clearing, accounts.bank, remittal.amount, remittal.currency)
    _post(tx, books, remittal, accounts, "cleared", on, (posting,))
    tx.execute(
        text(
            "UPDATE products.remittal SET state = 'cleared', cleared_on = :on, cleared_at = :now WHERE id = :id"
        ),
        {"on": on, "now": books.clock.now(), "id": remittal_id},
    )
    return remittal_of(tx, remittal_id)


def accounts_of(tx: Tx, remittal: Remittal) -> Accounts:
    """The accounts that a remittal moves; an agency's fund of before there were remittals is given its clearing account."""
    savers, zone = tx.execute(
        text(
            "SELECT f.fund_id, g.time_zone FROM products.programme_fund f JOIN products.programme g"
            " ON g.id = f.programme_id WHERE f.programme_id = :id AND f.role = :role"
        ),
        {"id": remittal.programme_id, "role": chart.SAVERS},
    ).one()
    own = (
        (chart.AGENCY_COLLECTED, remittal.agency),
        (chart.BANK_CLEARING, ""),
        (chart.BANK, ""),
        (chart.DUE_TO_FUNDS, ""),
        (chart.DUE_FROM_FUNDS, ""),
    )
    shared = (chart.BANK, chart.DUE_TO_FUNDS, chart.DUE_FROM_FUNDS)
    ids = open_accounts(
        tx,
        [
            *(chart.spec(code, remittal.fund_id, owner, remittal.currency) for code, owner in own),
            *(chart.spec(code, savers, "", remittal.currency) for code in shared),
        ],
    )
    return Accounts(savers, zone, *ids)


def _post(
    tx: Tx,
    books: Books,
    remittal: Remittal,
    accounts: Accounts,
    what: str,
    on: date,
    postings: tuple[Posting, ...],
) -> None:
    if on > periods.effective_day(books.clock.now(), accounts.time_zone):
        raise InvalidInput("a payment is of a day that has come", pointer="/on")
    reference = f"remittal:{remittal.id}:{what}"
    funds = sorted({remittal.fund_id, accounts.savers})
    transaction = Transaction(
        reference=reference,
        kind=f"remittal_{what}",
        effective_on=periods.open_day(tx, funds, on),
        postings=postings,
        digest=hashlib.sha256(f"{reference}|{remittal.amount}|{on}".encode()).digest(),
        details={"remittal": remittal.public_id, "agency": remittal.agency},
    )
    post_whole(tx, [transaction], clock=books.clock)
