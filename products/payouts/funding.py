"""Topping up a rail's float: money that goes from the bank to where the rail pays from."""

from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from ledger.balances import balances
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput
from ledger.posting import Posting, Transaction, post
from products.payouts.registry import ConfiguredRail
from products.payouts.submission import books_day
from products.posting import BooksRefused
from products.remittances.context import Books


@dataclass(frozen=True, slots=True)
class TopUp:
    """A top-up as it stands: minor units in the rail's float afterwards."""

    transaction_id: UUID
    float_: int
    replayed: bool


def top_up(tx: Tx, books: Books, rail: ConfiguredRail, amount: int, *, reference: str) -> TopUp:
    """Book a transfer to the rail, once for each reference: *rail float | bank*.

    Raises InvalidInput for a rail that pays from the bank, Conflict when the reference named another amount.
    """
    if rail.funded != "float":
        raise InvalidInput(f"{rail.slug} pays from the bank: it has no float to top up.")
    if not 0 < len(reference) <= 100:
        raise InvalidInput("A reference has 1 to 100 characters.", pointer="/reference")
    digest = sha256(f"{rail.slug}\n{reference}\n{amount}".encode()).digest()
    posting = Posting(rail.accounts.float_, rail.accounts.bank, amount, rail.currency)
    transaction = Transaction(
        f"rail-top-up:{rail.slug}:{reference}",
        "rail_topped_up",
        books_day(tx, rail, books.clock.now()),
        (posting,),
        digest,
    )
    (outcome,) = post(tx, [transaction], clock=books.clock)
    if outcome.status == "conflict":
        raise Conflict(f"The top-up “{reference}” is on record with another amount.")
    if outcome.transaction_id is None:
        raise BooksRefused(outcome)
    there = balances(tx, [rail.accounts.float_])[rail.accounts.float_].posted
    return TopUp(outcome.transaction_id, there, outcome.status == "replayed")
