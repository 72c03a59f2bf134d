"""Pairings: made by hand or by a rule, taken back, and what is still open.

A pairing says which statement lines and which booked items belong together; their sums are equal. It changes no books. The
journal `ledger.pairing` keeps every one for ever; triggers keep what stands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx

BY_HAND = "by_hand"
"""The rule of a pairing that a person made."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Lines that belong to items whose pairing has an effect on the books: payments to confirm, settlements to record.

    The lines' sum is the items' sum plus `difference` (signed minor units, within the rule's tolerance, for fees; 0 without).
    """

    bank_account_id: UUID
    lines: tuple[UUID, ...]
    items: tuple[UUID, ...]
    rule: str
    evidence: Mapping[str, Any]
    difference: int


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A statement line that stands in no pairing; `amount` is signed minor units, positive when money came in."""

    id: UUID
    amount: int
    currency: str
    booked_on: date
    value_on: date
    kind: str | None
    end_to_end: str | None
    reference: str | None
    identifiers: tuple[str, ...]
    party: str | None


@dataclass(frozen=True, slots=True)
class OpenItem:
    """An item that stands in no pairing and is not closed; `amount` is signed as in statements."""

    id: UUID
    source: str
    amount: int
    currency: str
    on_date: date
    day: date | None
    kind: str
    end_to_end: str | None
    reference: str | None
    identifiers: tuple[str, ...]
    party: str | None
    batch: str | None
    subject: str | None


def make(
    tx: Tx,
    bank_account_id: UUID,
    lines: Sequence[UUID],
    items: Sequence[UUID],
    *,
    rule: str,
    evidence: Mapping[str, Any],
    made_by: str,
    clock: Clock,
    run_id: UUID | None = None,
) -> UUID:
    """Pairs these lines with these booked items and answers the pairing's id.

    Raises `Conflict` `already_paired` when one of them stands in a pairing, `does_not_add_up` when the sums differ; `NotFound`
    for what is not of this bank account, a duplicate line or a closed item.
    """
    raise NotImplementedError


def undo(tx: Tx, pairing_id: UUID, *, remark: str, actor: str, clock: Clock) -> None:
    """Takes a pairing back: its lines and items are open again, and the same rule won't make the same pairing again.

    Raises `NotFound`, and `Conflict` `already_undone`.
    """
    raise NotImplementedError


def open_lines(
    tx: Tx, bank_account_id: UUID, *, after: UUID | None = None, limit: int = 200
) -> list[OpenLine]:
    """Lines that stand in no pairing, in the order of their ids, from after one on."""
    raise NotImplementedError


def open_items(
    tx: Tx, bank_account_id: UUID, *, after: UUID | None = None, limit: int = 200
) -> list[OpenItem]:
    """Items that stand in no pairing and are not closed, in the order of their ids, from after one on."""
    raise NotImplementedError
