"""Pairing: tries a bank account's rules in order over everything that is open, in sets, inside the database."""

from dataclasses import dataclass
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx
from ledger.reconciliation.pairings import Proposal
from ledger.reconciliation.rules import Rules


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run paired (how many pairings with booked items) and what it proposes (payments, settlements)."""

    pairings: int
    proposals: tuple[Proposal, ...]


def pair(
    tx: Tx, bank_account_id: UUID, rules: Rules, *, run_id: UUID, clock: Clock, made_by: str = "reconcile"
) -> Outcome:
    """Pairs what the rules find no second answer for. One run of a bank account at a time: another waits its turn."""
    raise NotImplementedError
