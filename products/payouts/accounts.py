"""What each step of a payout posts. Pure: ledger transactions from parts, attempts and the rail's accounts.

Source: the posting table of the design. Submitted: each part of the member's money to payout clearing, a fee that the member
bears to fees payable. Confirmed: clearing to the bank or the rail's float. Failed or returned: everything back where it came
from, from clearing or, when it was out, from the bank or the float.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from typing import Literal
from uuid import UUID

from ledger.ids import new_id
from ledger.posting import Posting, Transaction
from products.payouts.registry import ConfiguredRail

PartSource = Literal["savings", "match_vested", "unapplied"]
"""From which of the member's money a part of a payout is taken."""

Step = Literal["paid", "failed", "returned", "charged", "taken_again", "unconfirmed"]


@dataclass(frozen=True, slots=True)
class HeldPart:
    """A part of a payout as it lies: an account, minor units of which ``fee`` is the fee, and its hold."""

    payout_id: UUID
    position: int
    source: PartSource
    account_id: UUID
    amount: int
    fee: int
    hold_id: UUID


def submission(rail: ConfiguredRail, part: HeldPart, number: int, on: date) -> Transaction:
    """The transaction that captures a part's hold."""
    postings = []
    if part.amount > part.fee:
        postings.append(
            Posting(part.account_id, rail.accounts.clearing, part.amount - part.fee, rail.currency)
        )
    if part.fee:
        postings.append(Posting(part.account_id, rail.accounts.fees, part.fee, rail.currency))
    reference = f"payout:{part.payout_id}:{number}:{part.position}"
    return Transaction(
        reference,
        "payout_submitted",
        on,
        tuple(postings),
        _digest(reference, part.amount, part.fee, part.account_id.hex, rail.slug),
        id=new_id(),
        captures=part.hold_id,
    )


def paid(rail: ConfiguredRail, payout_id: UUID, number: int, amount: int, on: date) -> Transaction:
    """The transaction that confirms a payout: the money has left."""
    postings = (Posting(rail.accounts.clearing, rail.pays_from, amount, rail.currency),)
    return _step(payout_id, number, "paid", postings, on)


def unconfirmed(
    rail: ConfiguredRail, payout_id: UUID, number: int, amount: int, on: date, *, reverses: UUID
) -> Transaction:
    """The transaction that takes a confirmation back: the money is on its way, as far as anybody can prove."""
    postings = (Posting(rail.pays_from, rail.accounts.clearing, amount, rail.currency),)
    return replace(_step(payout_id, number, "unconfirmed", postings, on), reverses=reverses)


def back(
    rail: ConfiguredRail,
    payout_id: UUID,
    number: int,
    parts: Sequence[HeldPart],
    step: Literal["failed", "returned"],
    on: date,
    *,
    was_out: bool,
) -> Transaction:
    """The transaction that puts money and fee back where they came from."""
    from_ = rail.pays_from if was_out else rail.accounts.clearing
    postings = [
        Posting(from_, part.account_id, part.amount - part.fee, rail.currency)
        for part in parts
        if part.amount > part.fee
    ]
    postings += [
        Posting(rail.accounts.fees, part.account_id, part.fee, rail.currency) for part in parts if part.fee
    ]
    return _step(payout_id, number, step, tuple(postings), on)


def charged(rail: ConfiguredRail, payout_id: UUID, number: int, fee: int, on: date) -> Transaction:
    """The transaction for what the rail took for itself."""
    postings = (Posting(rail.accounts.charges, rail.pays_from, fee, rail.currency),)
    return _step(payout_id, number, "charged", postings, on)


def taken_again(
    rail: ConfiguredRail,
    payout_id: UUID,
    number: int,
    parts: Sequence[HeldPart],
    receivable: UUID,
    on: date,
) -> Transaction:
    """The transaction for what was given back and turned out to be paid: from the member, or owed by the member."""
    postings = [
        Posting(
            part.account_id,
            rail.pays_from,
            part.amount - part.fee,
            rail.currency,
            rest_from=None if part.source == "match_vested" else receivable,
        )
        for part in parts
        if part.amount > part.fee
    ]
    postings += [
        Posting(
            part.account_id,
            rail.accounts.fees,
            part.fee,
            rail.currency,
            rest_from=None if part.source == "match_vested" else receivable,
        )
        for part in parts
        if part.fee
    ]
    return _step(payout_id, number, "taken_again", tuple(postings), on)


def _step(payout_id: UUID, number: int, step: Step, postings: tuple[Posting, ...], on: date) -> Transaction:
    end = "back" if step in ("failed", "returned") else step
    reference = f"payout:{payout_id}:{number}:{end}"
    moved = [(p.debit.hex, p.credit.hex, p.amount) for p in postings]
    return Transaction(
        reference, f"payout_{step}", on, postings, _digest(reference, repr(moved)), id=new_id()
    )


def _digest(*parts: object) -> bytes:
    return sha256("\n".join(str(part) for part in parts).encode()).digest()
