"""The nouns of the books: posting, transaction, and the answer to what was asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from uuid import UUID

from ledger.errors import InvalidPosting
from ledger.money import AMOUNT_MAX

BATCH_MAX = 10_000
"""Transactions in one batch."""
POSTINGS_MAX = 500
"""Postings asked for in one transaction."""
DIGEST_BYTES = 32
TEXT_CHARACTERS_MAX = 255
"""Characters of a reference or a kind."""

Status = Literal["posted", "replayed", "conflict", "rejected"]
Reason = Literal[
    "insufficient_funds",
    "ceiling_exceeded",
    "account_closed",
    "period_closed",
    "unknown_account",
    "fund_mismatch",
    "currency_mismatch",
    "already_reversed",
    "unknown_transaction",
    "hold_ended",
    "hold_exceeded",
    "batch_rejected",
]


@dataclass(frozen=True, slots=True)
class Posting:
    """One amount, in minor units, from one debited account to one credited account.

    With ``rest_from``: debit at most what is available on ``debit``, and the rest from this account.
    """

    debit: UUID
    credit: UUID
    amount: int
    currency: str
    rest_from: UUID | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is asked of the books: an atomic, ordered list of postings under a reference that is unique for ever.

    ``digest`` is the SHA-256 of the caller's canonical input. ``reverses`` names the transaction that this one takes
    back, ``captures`` the hold that it uses up. ``details`` is JSON without floats and without personal data. Where the
    caller assigns ``id`` it must be a UUIDv7; a batch is judged in the order of its ids.
    """

    reference: str
    kind: str
    effective_on: date
    postings: tuple[Posting, ...]
    digest: bytes
    id: UUID | None = None
    reverses: UUID | None = None
    captures: UUID | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer for one transaction.

    ``transaction_id`` is the posted one, also for a replay or a conflict (the reference's holder). ``account_id`` is the
    account that refused. ``postings`` is what was really posted where ``rest_from`` was used, else empty.
    """

    status: Status
    transaction_id: UUID | None = None
    reason: Reason | None = None
    account_id: UUID | None = None
    postings: tuple[Posting, ...] = ()


def check(transaction: Transaction) -> None:
    """Raise `InvalidPosting` for what could never be posted, whatever the state of the books."""
    for text in (transaction.reference, transaction.kind):
        if not 0 < len(text) <= TEXT_CHARACTERS_MAX or not _storable(text):
            raise InvalidPosting(f"a reference and a kind have 1 to {TEXT_CHARACTERS_MAX} Unicode characters")
    if len(transaction.digest) != DIGEST_BYTES:
        raise InvalidPosting("a digest is a SHA-256: 32 bytes")
    if not 0 < len(transaction.postings) <= POSTINGS_MAX:
        raise InvalidPosting(f"a transaction has 1 to {POSTINGS_MAX} postings", pointer="/postings")
    for seq, posting in enumerate(transaction.postings):
        if type(posting.amount) is not int or not 0 < posting.amount <= AMOUNT_MAX:
            raise _invalid(seq, "an amount is a positive integer of minor units, up to 2^53−1")
        if posting.debit == posting.credit or posting.rest_from in (posting.debit, posting.credit):
            raise _invalid(seq, "a posting moves money between different accounts")
        if len(posting.currency) != 3 or not posting.currency.isascii():
            raise _invalid(seq, "a currency is an ISO 4217 code")


def _invalid(seq: int, detail: str) -> InvalidPosting:
    return InvalidPosting(detail, pointer=f"/postings/{seq}")


def _storable(text: str) -> bool:
    if text.isascii():
        return "\x00" not in text
    return not any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text)
