"""Tying the books to a rail's own list: every payment, to the last unit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ledger.balances import balances
from ledger.database import Tx, cursor
from products.payouts.rails import Report
from products.payouts.registry import ConfiguredRail

_NOT_THERE: Final = frozenset({"sending", "not_sent", "unknown", "failed"})
"""What may lack at the rail without being a difference: it may never have arrived, or was refused and is on no list of payments."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the rail and the books say differently of one payment."""

    payout_id: UUID | None
    attempt_id: UUID | None
    rail_reference: str | None
    what: str
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class Tie:
    """What was compared. Amounts are minor units; ``clearing`` is what the account holds, ``out`` what payouts under way come to."""

    rail: str
    since: datetime
    until: datetime
    ours: int
    theirs: int
    paid_ours: int
    paid_theirs: int
    clearing: int
    out: int
    differences: tuple[Difference, ...]

    @property
    def ties(self) -> bool:
        """Whether nothing differs."""
        return not self.differences and self.clearing == self.out


@dataclass(frozen=True, slots=True)
class _Ours:
    payout_id: UUID
    attempt_id: UUID
    rail_reference: str | None
    state: str
    amount: int
    sent_at: datetime


def tie(tx: Tx, rail: ConfiguredRail, listed: Iterable[Report], *, since: datetime, until: datetime) -> Tie:
    """Compare the attempts of [since, until) with the rail's list of that time.

    Ours that may never have arrived, or are on their way, may lack there or be further on; a payment there that we never sent, one
    that is paid twice, another amount, and final states that contradict are differences.
    """
    rows = cursor(tx).execute(
        "SELECT payout_id, id, rail_reference, state, amount, sent_at FROM products.payout_attempt"
        " WHERE rail_id = %s AND sent_at < %s",
        [rail.id, until],
    )
    # Sent before and listed since is no difference, so what lies before is known too; what lacks is judged from `since` on.
    every = [_Ours(*row) for row in rows]
    recent = [one for one in every if one.sent_at >= since]
    by_id = {one.attempt_id: one for one in every}
    by_reference = {one.rail_reference: one for one in every if one.rail_reference is not None}
    differences: list[Difference] = []
    seen: dict[UUID, int] = {}
    theirs = paid_theirs = 0
    for report in listed:
        theirs += 1
        paid_theirs += (report.amount or 0) if report.state == "paid" else 0
        ours = _found(report, by_id, by_reference)
        if ours is None:
            differences.append(
                Difference(None, report.attempt, report.rail_reference, "not ours", "nothing", report.state)
            )
            continue
        seen[ours.attempt_id] = seen.get(ours.attempt_id, 0) + 1
        differences += _compared(ours, report)
    differences += [
        Difference(
            one.payout_id,
            one.attempt_id,
            one.rail_reference,
            "listed more than once",
            "once",
            f"{count} times",
        )
        for one in every
        if (count := seen.get(one.attempt_id, 0)) > 1
    ]
    differences += [
        Difference(one.payout_id, one.attempt_id, one.rail_reference, "not at the rail", one.state, "nothing")
        for one in recent
        if one.attempt_id not in seen and one.state not in _NOT_THERE
    ]
    held = balances(tx, [rail.accounts.clearing])[rail.accounts.clearing].posted
    (out,) = cursor(tx).execute(
        "SELECT coalesce(sum(amount), 0)::bigint FROM products.payout_attempt WHERE rail_id = %s AND money = 'clearing'",
        [rail.id],
    ).fetchone() or (0,)
    return Tie(
        rail.slug,
        since,
        until,
        len(recent),
        theirs,
        sum(one.amount for one in recent if one.state == "paid"),
        paid_theirs,
        held,
        out,
        tuple(differences),
    )


def _found(report: Report, by_id: Mapping[UUID, _Ours], by_reference: Mapping[str, _Ours]) -> _Ours | None:
    if report.attempt is not None:
        return by_id.get(report.attempt)
    return by_reference.get(report.rail_reference) if report.rail_reference is not None else None


def _compared(ours: _Ours, report: Report) -> list[Difference]:
    found = []
    if report.amount is not None and report.amount != ours.amount:
        found.append(("amount", str(ours.amount), str(report.amount)))
    if _contradict(ours.state, report.state):
        found.append(("state", ours.state, report.state))
    return [
        Difference(ours.payout_id, ours.attempt_id, report.rail_reference, what, mine, theirs)
        for what, mine, theirs in found
    ]


def _contradict(ours: str, theirs: str) -> bool:
    """Whether both can't be true: what one side has not heard of yet is no contradiction, money at another place is."""
    if theirs == "paid":
        return ours != "paid"
    if theirs in ("failed", "returned"):
        return ours not in ("failed", "returned")
    return ours in ("paid", "failed", "returned")
