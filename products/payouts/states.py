"""The states of a payout, and what a report of its rail does to it. Pure.

A payout's money is at exactly one place: with the member (held or not), in clearing, out (paid from the bank or the rail's
float), or back where it came from. Reports come early, twice and out of order; whatever comes, in whatever order, moves
the money at most once from each place to the next, and what contradicts is never guessed: it is kept and shown to a manager.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from products.payouts.rails import Report

State = Literal[
    "requested",
    "awaiting_member",
    "awaiting_operators",
    "approved",
    "submitted",
    "in_transit",
    "unknown",
    "paid",
    "failed",
    "returned",
    "cancelled",
]
"""What a payout is at. ``requested``: something is still being found out, as whether the rail reaches the payee."""

AttemptState = Literal[
    "sending", "not_sent", "unknown", "accepted", "in_transit", "paid", "failed", "returned"
]
"""What is known of the sending of a payout. ``not_sent``: it certainly isn't at the rail, and is sent again."""

Money = Literal["clearing", "out", "back"]
"""Where the money of a payout is that was submitted."""

Outcome = Literal["applied", "repeated", "outdated", "contradicts"]
"""What became of a report: it changed something, said what was known, came too late to matter, or can't be true as well."""

Problem = Literal[
    "amount_differs",
    "currency_differs",
    "paid_after_failed",
    "failed_before_paid",
    "forgotten_by_rail",
    "reference_differs",
]
"""Why a report contradicts."""

CANCELLABLE: Final[frozenset[State]] = frozenset(
    {"requested", "awaiting_member", "awaiting_operators", "approved"}
)
"""States before submission: the money is still held, and goes back by releasing it."""

KNOWN_TO_RAIL: Final = frozenset({"accepted", "in_transit", "paid", "failed", "returned"})
"""States of an attempt that its rail certainly has, or had."""
_ENDED: Final = frozenset({"failed", "returned"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sending as it stands: amount is minor units that the rail was asked to pay.

    ``doubtful``: a sending of it may have arrived without our seeing the answer; then nothing is sent again before the rail
    says that it has never heard of it. ``reported_at``: when what is known happened, by the rail's clock.
    """

    state: AttemptState
    money: Money
    amount: int
    currency: str
    doubtful: bool
    sent_at: datetime
    reported_at: datetime | None = None
    rail_reference: str | None = None
    reason: str | None = None
    code: str | None = None
    rail_fee: int | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What a report did: the attempt afterwards, and why it contradicts, if it does."""

    attempt: Attempt
    outcome: Outcome
    problem: Problem | None = None


def state_of(attempt: Attempt) -> State:
    """The payout's state while this is its attempt."""
    match attempt.state:
        case "sending" | "not_sent" | "accepted":
            return "submitted"
        case other:
            return other


def apply(attempt: Attempt, report: Report, *, now: datetime, forgets_after_seconds: float) -> Applied:
    """What a report does to an attempt.

    Only what says more than is known changes anything: accepted, in transit, paid, and then back. A rail that has never heard
    of what it took is a contradiction; one that hasn't heard of what may have been lost lets it be sent again, once the time
    is over in which it could still arrive.
    """
    fault = _mismatch(attempt, report)
    if fault is not None:
        return Applied(attempt, "contradicts", fault)
    named = replace(attempt, rail_reference=attempt.rail_reference or report.rail_reference)
    done = _judged(named, report, now, forgets_after_seconds)
    # nothing of what contradicts is believed, not even the name
    return replace(done, attempt=attempt) if done.outcome == "contradicts" else done


def _judged(named: Attempt, report: Report, now: datetime, forgets_after_seconds: float) -> Applied:
    match report.state:
        case "not_sent":
            return _not_sent(named)
        case "not_found":
            return _not_found(named, now, forgets_after_seconds)
        case "unknown":
            return _unknown(named)
        case "accepted" | "in_transit":
            return _on_its_way(named, report)
        case "paid":
            return _paid(named, report)
        case "failed" | "returned":
            return _back(named, report)


def lost(attempt: Attempt) -> Attempt:
    """An attempt whose sender never said what came of it: it may be there or not."""
    return replace(attempt, state="unknown", doubtful=True) if attempt.state == "sending" else attempt


def _mismatch(attempt: Attempt, report: Report) -> Problem | None:
    """Whether the report is of this payment at all."""
    if report.state in ("not_sent", "not_found", "unknown"):
        return None
    if report.currency is not None and report.currency != attempt.currency:
        return "currency_differs"
    if report.amount is not None and report.amount != attempt.amount:
        return "amount_differs"
    if None not in (report.rail_reference, attempt.rail_reference) and (
        report.rail_reference != attempt.rail_reference
    ):
        return "reference_differs"
    return None


def _not_sent(attempt: Attempt) -> Applied:
    if attempt.state != "sending":
        return Applied(attempt, "outdated")
    if attempt.doubtful:
        # this sending never left; one before it may have
        return Applied(replace(attempt, state="unknown"), "applied")
    return Applied(replace(attempt, state="not_sent"), "applied")


def _not_found(attempt: Attempt, now: datetime, forgets_after_seconds: float) -> Applied:
    if attempt.state in KNOWN_TO_RAIL:
        if attempt.state in _ENDED:
            return Applied(attempt, "outdated")
        return Applied(attempt, "contradicts", "forgotten_by_rail")
    if attempt.state == "not_sent":
        return Applied(attempt, "repeated")
    if (now - attempt.sent_at).total_seconds() < forgets_after_seconds:
        waiting = lost(attempt)
        return Applied(waiting, "repeated" if waiting == attempt else "applied")
    return Applied(replace(attempt, state="not_sent", doubtful=False), "applied")


def _unknown(attempt: Attempt) -> Applied:
    if attempt.state == "sending":
        return Applied(lost(attempt), "applied")
    return Applied(attempt, "repeated" if attempt.state == "unknown" else "outdated")


def _on_its_way(attempt: Attempt, report: Report) -> Applied:
    ranks = {"sending": 0, "not_sent": 0, "unknown": 0, "accepted": 1, "in_transit": 2}
    rank = ranks.get(attempt.state, 3)
    wanted = ranks[report.state]
    if rank >= wanted:
        return Applied(attempt, "repeated" if attempt.state == report.state else "outdated")
    return Applied(_as_reported(attempt, report), "applied")


def _paid(attempt: Attempt, report: Report) -> Applied:
    if attempt.state == "paid":
        return Applied(_with_fee(attempt, report), "repeated")
    if attempt.state in _ENDED:
        # It was paid before it came back: nothing new. Paid after it failed: then the member has it twice.
        earlier = _before(report.at, attempt.reported_at)
        if attempt.state == "returned" or earlier:
            return Applied(attempt, "outdated")
        return Applied(attempt, "contradicts", "paid_after_failed")
    return Applied(replace(_as_reported(attempt, report), money="out"), "applied")


def _back(attempt: Attempt, report: Report) -> Applied:
    if attempt.state in _ENDED:
        return Applied(attempt, "repeated" if attempt.state == report.state else "outdated")
    if (
        attempt.state == "paid"
        and report.state == "failed"
        and report.at is not None
        and _before(report.at, attempt.reported_at)
    ):
        return Applied(attempt, "contradicts", "failed_before_paid")
    return Applied(replace(_as_reported(attempt, report), money="back"), "applied")


def _as_reported(attempt: Attempt, report: Report) -> Attempt:
    state: AttemptState
    match report.state:
        case "accepted" | "in_transit" | "paid" | "failed" | "returned":
            state = report.state
        case other:
            raise AssertionError(f"{other} is no state of a payment at its rail")
    return _with_fee(
        replace(
            attempt,
            state=state,
            doubtful=False,
            reported_at=report.at or attempt.reported_at,
            reason=report.reason,
            code=report.code,
        ),
        report,
    )


def _with_fee(attempt: Attempt, report: Report) -> Attempt:
    return attempt if attempt.rail_fee is not None else replace(attempt, rail_fee=report.fee)


def _before(at: datetime | None, other: datetime | None) -> bool:
    return at is not None and other is not None and at < other
