"""Match as a file opens it, judged by the programme's own rules: the rules would move nothing of it.

Pure. Entitlement is derived from the file's contributions of a window; what the file says is committed, unvested, vested and
awaiting funds must be where the rules would leave it, so that the next contribution changes only what it earns itself.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from uuid import UUID

from products.opening.given import Row
from products.programmes.model import Match
from products.savings import rules, shares, states
from products.savings.shares import Share
from products.savings.states import MatchState


@dataclass(slots=True)
class OpenedWindow:
    """One enrolment's match in one window, added up over the rows that name it; ``row`` is the first of them."""

    enrolment_id: UUID
    match: Match
    window: rules.Window
    rule_version: int
    row: Row
    by_tier: list[int]
    settled: list[int]
    shares: dict[UUID, Share] = field(default_factory=dict)

    def contribute(self, tier: int, amount: int, *, settled: bool) -> None:
        """Count a contribution under its tier (−1: unmatched)."""
        self.by_tier[tier + 1] += amount
        if settled:
            self.settled[tier + 1] += amount

    def state(self, on: date) -> MatchState:
        """The match state that the books begin with, at the end of a local day."""
        at_the_end = self.match.granted == "end_of_window"
        return MatchState(
            window_end=self.window.end,
            by_tier=self.by_tier,
            settled=self.settled,
            entitled=rules.entitlement(self.match, {at - 1: total for at, total in enumerate(self.by_tier)}),
            rule_version=self.rule_version,
            revision=0,
            grants_on=self.window.end + timedelta(days=1) if at_the_end else None,
            window_over=at_the_end and self.window.end <= on,
            shares=self.shares,
        )

    def differs(self, on: date, sponsors: dict[str, UUID]) -> str | None:
        """How the file's match differs from what the rules give; None where it doesn't."""
        state = self.state(on)
        targets = rules.sponsor_shares(self.match, state.entitled)
        grantable = states.grantable(self.match, state, targets)
        expected = {sponsors[slug]: (slug, target) for slug, target in targets if slug in sponsors}
        for sponsor_id, share in self.shares.items():
            if sponsor_id not in expected and share.entitled:
                return "it names a sponsor that has no share in this match"
        for sponsor_id, (slug, target) in expected.items():
            share = self.shares.get(sponsor_id) or Share()
            moved, _ = shares.move(share, entitled=target, grantable=grantable.get(slug, 0), funded=True)
            if moved != share:
                return (
                    f"the match of the window from {self.window.start} comes to {share.committed} committed, {share.unvested}"
                    f" unvested, {share.vested} vested and {share.awaiting} awaiting funds of {slug} (minor units); by the"
                    f" programme's rules the file's contributions of {sum(self.by_tier)}, {sum(self.settled)} of them settled,"
                    f" earn {target}, {min(target, grantable.get(slug, 0))} of it granted"
                )
        return None
