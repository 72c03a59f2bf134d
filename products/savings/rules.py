"""The rules of matched savings, pure: which window, which tier, how much match, and who pays how much of it.

Entitlement is a function of what was contributed in a window, tier by tier; order, lateness and repetition of events
don't enter into it. Amounts are minor units of the programme's currency, dates are local to the programme. The rules
themselves come from the programme's file; the readings that this module adds are in
`docs/decisions/entitlement-is-a-function.md`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from math import lcm
from typing import Any
from zoneinfo import ZoneInfo

from products.facts import FactScalar
from products.programmes.model import (
    Comparison,
    Condition,
    Contribution,
    Match,
    Product,
    Programme,
    Reward,
    Share,
    Tier,
    WindowRule,
)
from products.programmes.scalars import format_percent

UNMATCHED = -1
"""The tier of a contribution that counts toward thresholds and is not matched."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of local days; both ends belong to it. One without end ends on ``date.max``."""

    start: date
    end: date

    def __contains__(self, day: date) -> bool:
        return self.start <= day <= self.end


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def local_date(programme: Programme, at: datetime) -> date:
    """The programme's calendar day at an instant; ``at`` must be aware."""
    if at.tzinfo is None:
        raise ValueError("an instant without a zone has no local date")
    return at.astimezone(_zone(programme.time_zone)).date()


def anniversary(day: date, years: int) -> date:
    """The same day so many years later. 29 February becomes 1 March: a year is complete when its last day is past."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        if day.year + years > date.max.year:
            return date.max
        return date(day.year + years, 3, 1)


def complete_years(since: date, on: date) -> int:
    """Complete years from one day to another (ages, years of membership); negative before the first day."""
    years = on.year - since.year
    return years if anniversary(since, years) <= on else years - 1


def window_of(match: Match, contributed_on: date, joined_on: date) -> Window:
    """The match window of a contribution."""
    return window_containing(match.window, contributed_on, joined_on)


def period_of(contribution: Contribution, on: date, joined_on: date) -> Window | None:
    """The instalment period of a day; None where the rule asks anew at each remittance."""
    return None if contribution.period is None else window_containing(contribution.period, on, joined_on)


def window_containing(rule: WindowRule, day: date, joined_on: date) -> Window:
    """The window of a day. Membership years before joining are counted backwards from it."""
    match rule.kind:
        case "day":
            return Window(day, day)
        case "month":
            return _months(date(day.year, day.month, 1), 1)
        case "quarter":
            return _months(date(day.year, day.month - (day.month - 1) % 3, 1), 3)
        case "calendar_year":
            return Window(date(day.year, 1, 1), date(day.year, 12, 31))
        case "financial_year":
            begun = day.year if (day.month, day.day) >= rule.starts else day.year - 1
            return _years(date(begun, *rule.starts), 1)
        case "membership_year":
            before = complete_years(joined_on, day) // rule.years * rule.years
            return Window(anniversary(joined_on, before), _eve(anniversary(joined_on, before + rule.years)))
        case "enrolment":
            return Window(joined_on, date.max)


def _eve(day: date) -> date:
    return day if day == date.max else day - timedelta(days=1)


def _years(start: date, years: int) -> Window:
    return Window(start, _eve(anniversary(start, years)))


def _months(start: date, months: int) -> Window:
    index = start.year * 12 + start.month - 1 + months
    if index // 12 > date.max.year:
        return Window(start, date.max)
    return Window(start, _eve(date(index // 12, index % 12 + 1, 1)))


def tier_of(
    match: Match,
    facts: Mapping[str, FactScalar],
    contributed_on: date,
    joined_on: date,
    entry_age: int | None,
) -> int:
    """Index of the first tier whose conditions hold on the day of a contribution; −1 where none does.

    ``facts`` are those that held on that day (`Facts.on`). −1 also outside the match's own dates and years: such a
    contribution counts toward thresholds and is not matched.
    """
    if _unmatched_because(match, contributed_on, joined_on) is not None:
        return UNMATCHED
    known = _Known(facts, contributed_on, joined_on, entry_age, None)
    for index, tier in enumerate(match.tiers):
        if all(known.satisfies(condition) for condition in tier.when):
            return index
    return UNMATCHED


def unmet(
    conditions: Iterable[Condition],
    facts: Mapping[str, FactScalar],
    on: date,
    joined_on: date,
    entry_age: int | None,
    age: int | None,
) -> tuple[Condition, ...]:
    """Those of the conditions that don't hold on a day; what isn't known doesn't hold."""
    known = _Known(facts, on, joined_on, entry_age, age)
    return tuple(condition for condition in conditions if not known.satisfies(condition))


def in_words(condition: Condition) -> str:
    """What a condition compares with, for people: “at most 1500000”, “in 1, 2”."""
    return " and ".join(
        f"{one.operator.replace('_', ' ')} {_operand_text(one.operand)}" for one in condition.comparisons
    )


def _operand_text(operand: FactScalar | tuple[FactScalar, ...]) -> str:
    return ", ".join(map(_plain_text, operand)) if isinstance(operand, tuple) else _plain_text(operand)


def _plain_text(value: FactScalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unmatched_because(match: Match, contributed_on: date, joined_on: date) -> str | None:
    """Why a contribution of this day isn't matched whatever the facts; None where it may be."""
    if not _within(joined_on, match.joined_from, match.joined_to):
        return "joined outside the days in which members are matched"
    if not _within(contributed_on, match.paid_from, match.paid_to):
        return "contributed outside the days in which contributions are matched"
    if match.years is None:
        return None
    if match.years.counted == "membership_years":
        past = contributed_on >= anniversary(joined_on, match.years.count)
    else:
        first = window_of(match, joined_on, joined_on)
        past = _windows_since(match, first, contributed_on, joined_on) >= match.years.count
    return f"after the first {match.years.count} years" if past else None


def _windows_since(match: Match, first: Window, day: date, joined_on: date) -> int:
    """How many windows after the first a day lies; the loader allows this only for windows of whole years."""
    window = window_of(match, day, joined_on)
    return (window.start.year - first.start.year) // match.window.years


def _within(day: date, since: date | None, upto: date | None) -> bool:
    return (since is None or day >= since) and (upto is None or day <= upto)


@dataclass(frozen=True, slots=True)
class _Known:
    """What conditions may ask about a member on a day."""

    facts: Mapping[str, FactScalar]
    on: date
    joined_on: date
    entry_age: int | None
    age: int | None

    def value(self, condition: Condition) -> FactScalar | None:
        match condition.subject:
            case "fact":
                return self.facts.get(condition.fact or "")
            case "age":
                return self.age
            case "entry_age":
                return self.entry_age
            case "joined_on":
                return self.joined_on
            case "contributed_on":
                return self.on
            case "membership_years":
                return complete_years(self.joined_on, self.on)

    def satisfies(self, condition: Condition) -> bool:
        value = self.value(condition)
        return value is not None and all(_compares(value, one) for one in condition.comparisons)


def _compares(value: FactScalar, comparison: Comparison) -> bool:
    operand = comparison.operand
    if comparison.operator == "in":
        return isinstance(operand, tuple) and any(_same(value, one) for one in operand)
    if isinstance(operand, tuple):
        return False
    if comparison.operator == "is":
        return _same(value, operand)
    if isinstance(value, date) and isinstance(operand, date):
        sign = (value > operand) - (value < operand)
    elif _is_number(value) and _is_number(operand):
        sign = (int(value) > int(operand)) - (int(value) < int(operand))  # type: ignore[arg-type]  # just checked
    else:
        return False
    return {"at_least": sign >= 0, "at_most": sign <= 0, "below": sign < 0, "above": sign > 0}[
        comparison.operator
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _same(value: FactScalar, operand: FactScalar) -> bool:
    return type(value) is type(operand) and value == operand


def entitlement(match: Match, by_tier: Mapping[int, int]) -> int:
    """The match that a window's contributions earn.

    ``by_tier`` maps tiers (−1: unmatched) to what was contributed under each, net of reversals. Thresholds are judged
    on the total over all tiers; each tier met gives min(cap, floor(rate × contributed)), and all together at most the
    greatest cap among them. Never falls when a contribution is added.
    """
    total = sum(by_tier.values())
    met = [
        (tier, amount)
        for index, tier in enumerate(match.tiers)
        if (amount := by_tier.get(index, 0)) > 0 and total >= tier.threshold
    ]
    if not met:
        return 0
    entitled = sum(_of_tier(tier, amount) for tier, amount in met)
    caps = [tier.cap for tier, _ in met if tier.cap is not None]
    return min(entitled, max(caps)) if len(caps) == len(met) else entitled


def _of_tier(tier: Tier, contributed: int) -> int:
    matched = contributed * tier.rate.numerator // tier.rate.denominator
    return matched if tier.cap is None else min(matched, tier.cap)


def sponsor_shares(match: Match, entitled: int) -> tuple[tuple[str, int], ...]:
    """Each sponsor's part of a cumulative entitlement; the parts add up to it.

    Apportioned by Webster's method (Sainte-Laguë), ties to the earlier sponsor: with two sponsors that is the largest
    remainder, and with more no part ever falls while the whole grows, which largest remainders can't promise
    (the Alabama paradox); so the differences of two cumulative totals never take back from a sponsor by themselves.
    """
    if entitled < 0:
        raise ValueError("an entitlement is never negative")
    if len(match.shares) == 1:
        return ((match.shares[0].sponsor, entitled),)
    weights = _weights(match.shares)
    parts = _lower_bounds(weights, entitled)
    for _ in range(entitled - sum(parts)):
        first = 0
        for at in range(1, len(parts)):
            # The greatest weight ÷ (2 × part + 1) gets the next unit; multiplied out, to stay with integers.
            if weights[at] * (2 * parts[first] + 1) > weights[first] * (2 * parts[at] + 1):
                first = at
        parts[first] += 1
    return tuple((share.sponsor, part) for share, part in zip(match.shares, parts, strict=True))


def _weights(shares: Sequence[Share]) -> list[int]:
    common = lcm(*(one.share.denominator for one in shares))
    return [one.share.numerator * (common // one.share.denominator) for one in shares]


def _lower_bounds(weights: Sequence[int], entitled: int) -> list[int]:
    """What each sponsor surely gets: its rounded share of a total smaller by the number of sponsors."""
    surely, whole = entitled - len(weights), sum(weights)
    if surely <= 0:
        return [0] * len(weights)
    # Rounded half down, so that no tie is decided here.
    return [max(0, -((whole - 2 * surely * weight) // (2 * whole))) for weight in weights]


def rule_version_for(versions: Iterable[Programme], window: Window) -> Programme:
    """The version whose rules decide over a window: the latest that governs it; before the first, the first.

    ``new_windows`` governs windows that begin while it is in force, ``open_windows`` also those that haven't ended
    when it comes into force, ``since`` all that end on or after its date.
    """
    ordered = sorted(versions, key=lambda programme: programme.validity.version)
    if not ordered:
        raise ValueError("a programme has at least one version")
    for programme in reversed(ordered):
        validity = programme.validity
        match validity.applies_to:
            case "new_windows":
                governs = window.start >= validity.in_force_from
            case "open_windows":
                governs = window.end >= validity.in_force_from
            case "since":
                governs = window.end >= (validity.since or validity.in_force_from)
        if governs:
            return programme
    return ordered[0]


def rewards_earned(
    product: Product,
    totals: Mapping[str, int],
    facts: Mapping[str, FactScalar],
    on: date,
    joined_on: date,
    entry_age: int | None,
) -> tuple[Reward, ...]:
    """The rewards whose conditions hold on a day and whose threshold is reached by the total of its window (``totals``, by reward code)."""
    return tuple(
        reward
        for reward in product.rewards
        if totals.get(reward.code, 0) >= reward.threshold
        and not unmet(reward.when, facts, on, joined_on, entry_age, None)
    )


def explain(
    programme: Programme,
    product: Product,
    *,
    contributed_on: date,
    joined_on: date,
    entry_age: int | None,
    facts: Mapping[str, FactScalar],
    by_tier: Mapping[int, int],
) -> dict[str, Any]:
    """Why a contribution of this day is matched as it is, and how its window's entitlement comes about; plain JSON.

    ``facts`` are those of the day, ``by_tier`` the window's totals as they stand. ``programme`` is the version that
    governs the window. Amounts are minor units.
    """
    match = product.match
    if match is None:
        return {"programme": programme.slug, "product": product.code, "matched": False, "because": "no match"}
    window = window_of(match, contributed_on, joined_on)
    known = _Known(facts, contributed_on, joined_on, entry_age, None)
    index = tier_of(match, facts, contributed_on, joined_on, entry_age)
    total, entitled = sum(by_tier.values()), entitlement(match, by_tier)
    because = _unmatched_because(match, contributed_on, joined_on)
    if because is None and index == UNMATCHED:
        because = "the conditions of no tier hold"
    return {
        "programme": programme.slug,
        "version": programme.validity.version,
        "source": programme.source,
        "readings": {one.topic: one.reading for one in programme.readings},
        "product": product.code,
        "currency": programme.currency,
        "contributed_on": contributed_on.isoformat(),
        "joined_on": joined_on.isoformat(),
        "entry_age": entry_age,
        "window": {"start": window.start.isoformat(), "end": window.end.isoformat()},
        "matched": index != UNMATCHED,
        "because": because,
        "tier": None if index == UNMATCHED else match.tiers[index].code,
        "contributed": total,
        "unmatched": by_tier.get(UNMATCHED, 0),
        "tiers": [_explained(tier, by_tier.get(at, 0), total, known) for at, tier in enumerate(match.tiers)],
        "entitled": entitled,
        "sponsors": dict(sponsor_shares(match, entitled)),
    }


def _explained(tier: Tier, contributed: int, total: int, known: _Known) -> dict[str, Any]:
    met = contributed > 0 and total >= tier.threshold
    return {
        "tier": tier.code,
        "conditions": [
            {
                "of": condition.fact or condition.subject,
                "must_be": in_words(condition),
                "value": _plain(known.value(condition)),
                "holds": known.satisfies(condition),
            }
            for condition in tier.when
        ],
        "rate": format_percent(tier.rate),
        "threshold": tier.threshold,
        "threshold_met": total >= tier.threshold,
        "cap": tier.cap,
        "contributed": contributed,
        "gives": _of_tier(tier, contributed) if met else 0,
    }


def _plain(value: FactScalar | None) -> str | int | bool | None:
    return value.isoformat() if isinstance(value, date) else value
