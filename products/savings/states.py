"""One enrolment's match in one window, and what its totals earn. Pure.

Entitlement is a function of the totals per tier; where a person earns in several enrolments, each adds to what the older
ones earn (`products.savings.persons`). Amounts are minor units of the programme's currency.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import zip_longest
from uuid import UUID

from products.programmes.model import Match
from products.savings import rules
from products.savings.shares import Share


@dataclass(frozen=True, slots=True)
class Ahead:
    """What the same person's older enrolments in the product have in a window, and so earn first.

    ``blocked``: one of them has money in a window that overlaps this one and is not the same; then this one earns nothing.
    """

    by_tier: list[int]
    settled: list[int]
    blocked: bool


@dataclass(slots=True)
class MatchState:
    """One enrolment's match in one window. ``by_tier`` and ``settled`` hold totals: first unmatched, then tier 0…"""

    window_end: date
    by_tier: list[int]
    settled: list[int]
    entitled: int
    rule_version: int
    revision: int
    grants_on: date | None
    window_over: bool
    shares: dict[UUID, Share] = field(default_factory=dict)
    ahead: Ahead | None = None


def grantable(match: Match, state: MatchState, targets: Sequence[tuple[str, int]]) -> dict[str, int]:
    """What settled contributions earn from each sponsor; nothing before the end of the window where the rule says so."""
    if match.granted == "end_of_window" and not state.window_over:
        return {}
    if state.settled == state.by_tier and state.ahead is None:
        return dict(targets)
    return dict(rules.sponsor_shares(match, earned(match, state.settled, state.ahead, settled=True)))


def earned_by_settled(match: Match, state: MatchState, *, alone: bool = True) -> tuple[tuple[str, int], ...]:
    """What settled contributions earn from each sponsor, granted or not yet.

    ``alone``: the person earns in no other enrolment. Where it does, this one's part is known once all of it is settled.
    """
    if state.settled == state.by_tier:
        return rules.sponsor_shares(match, state.entitled)
    own = earned(match, state.settled, state.ahead, settled=True) if alone else 0
    return rules.sponsor_shares(match, own)


def earned(match: Match, totals: list[int], ahead: Ahead | None, *, settled: bool) -> int:
    """What a window's totals earn; where the person earns elsewhere too, what they add to what that earns."""
    if ahead is None:
        return rules.entitlement(match, _per_tier(totals))
    if ahead.blocked:
        return 0
    first = ahead.settled if settled else ahead.by_tier
    together = [one + other for one, other in zip_longest(totals, first, fillvalue=0)]
    return rules.entitlement(match, _per_tier(together)) - rules.entitlement(match, _per_tier(first))


def _per_tier(totals: list[int]) -> dict[int, int]:
    return {position - 1: total for position, total in enumerate(totals)}
