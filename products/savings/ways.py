"""The ways out of a product: which are open on a day, how much may leave by each, and when more may. Pure.

A way lets out a share of what there was before anything was taken by it; what is saved later counts as if it had been
there. The rest stays, is paid monthly, or waits for another way. Amounts are minor units; days are local to the programme.
The readings that the published rules leave open are in `docs/reference/withdrawals.md`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, Final

from products.programmes.model import ANY_TIME, MATCH_PAID_OUT, Product, Withdrawal
from products.programmes.scalars import format_percent
from products.savings.rules import anniversary, complete_years

NEVER: Final = date.max
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Taken:
    """What was withdrawn by a way, paid or on its way; what failed or came back is not among it."""

    way: str
    savings: int
    match: int
    on: date


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rules ask about one enrolment. ``savings`` and ``vested`` are settled and not held.

    ``losable``: match that is not vested, which a way may forfeit. ``since``: the first day of membership, or of the
    product's term. ``saved``: what was contributed in each year from then on. ``events``: those that are proven.
    """

    savings: int
    vested: int
    since: date
    birth_date: date | None
    losable: int = 0
    taken: tuple[Taken, ...] = ()
    saved: tuple[int, ...] = ()
    events: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """What may leave now by one way out, own savings and vested match, and the match that taking all of it forfeits.

    ``until``: the last day on which the way is open, where time closes it.
    """

    code: str
    savings: int
    match_vested: int
    forfeits: int
    until: date | None

    @property
    def total(self) -> int:
        """What reaches the member."""
        return self.savings + self.match_vested

    def forfeits_with(self, savings: int) -> int:
        """The match that is lost when so much of the way's savings leaves."""
        return forfeited(self.forfeits, savings, of=self.savings)


@dataclass(frozen=True, slots=True)
class Locked:
    """Money that may not leave yet: minor units, a stable reason code, and the first day on which time alone frees some."""

    amount: int
    reason: str
    until: date | None


def open_ways(product: Product, standing: Standing, on: date) -> tuple[Way, ...]:
    """The ways by which something may leave on a day, in the programme's order; the first that fits is taken."""
    if product.destination.kind != "savers":
        return ()
    ways = tuple(
        way for rule in _rules(product) if (way := _offer(rule, standing, on)) is not None and way.total > 0
    )
    if product.match is not None and product.match.into == "member_bank_account":
        ways = tuple(
            Way(one.code, one.savings, 0, one.forfeits, one.until) for one in ways if one.savings > 0
        )
        if standing.vested > 0:
            ways += (Way(MATCH_PAID_OUT, 0, standing.vested, 0, None),)
    return ways


def best(ways: Sequence[Way]) -> Way | None:
    """The way that lets out most savings; of equals, the one with most match, then the earlier."""
    return max(ways, key=lambda way: (way.savings, way.match_vested), default=None)


def locked(product: Product, standing: Standing, on: date) -> tuple[Locked, ...]:
    """What of the savings may not leave on a day by the best way out, why, and until when: at most one part."""
    if standing.savings <= 0:
        return ()
    if product.destination.kind != "savers":
        return (Locked(standing.savings, f"held_by_{product.destination.kind}", None),)
    now = best(open_ways(product, standing, on))
    free = 0 if now is None else now.savings
    if free >= standing.savings:
        return ()
    for day in _turning_days(product, standing, on):
        then = best(open_ways(product, standing, day))
        if then is not None and then.savings > free:
            return (Locked(standing.savings - free, _reason_until(product, standing, on, then), day),)
    return (Locked(standing.savings - free, _reason(product, standing, on, now), None),)


def asks_for_history(product: Product, birth_date: date | None, since: date, on: date) -> bool:
    """Whether withdrawals so far, or what was saved in each year, could matter to `open_ways` and `locked` on this day.

    Reading them costs statements, and for most members most of the time neither does.
    """
    return any(
        (_in_time(way, birth_date, since, on) and _partial(way))
        or (way.saved_each_year is not None and complete_years(since, on) >= (way.after_years or 0) - 1)
        for way in product.withdrawals
    )


def explain(product: Product, standing: Standing, on: date) -> list[dict[str, Any]]:
    """Each way out with its conditions, which of them hold, what it lets out now and when time alone opens it; plain JSON."""
    offered = {way.code: way for way in open_ways(product, standing, on)}
    explained: list[dict[str, Any]] = []
    for rule in _rules(product):
        way = offered.get(rule.code)
        opens = _opening(rule, standing.birth_date, standing.since)
        explained.append(
            {
                "way": rule.code,
                "open": _conditions_hold(rule, standing, on),
                "conditions": [
                    {
                        "of": of,
                        "must_be": compared if bound is None else f"{compared} {bound}",
                        "value": value,
                        "holds": holds,
                    }
                    for of, compared, bound, value, holds in _conditions(rule, standing, on)
                ],
                "opens_on": opens.isoformat() if opens is not None and on < opens < NEVER else None,
                "open_until": _iso(_closing(rule, standing.birth_date, standing.since)),
                "share_at_once": format_percent(rule.lump_sum),
                "rest_over_years": rule.rest_over_years,
                "interest": rule.interest,
                "match": rule.match,
                "savings": 0 if way is None else way.savings,
                "match_vested": 0 if way is None else way.match_vested,
                "forfeits": 0 if way is None else way.forfeits,
            }
        )
    return explained


def forfeited(losable: int, savings: int, *, of: int) -> int:
    """The match lost when ``savings`` leave out of ``of``: in proportion, rounded in the member's favour; all with all."""
    if savings <= 0 or losable <= 0:
        return 0
    return losable if savings >= of else losable * savings // of


def month_after(day: date, months: int) -> date:
    """The same day so many months later; where the month lacks it, the first of the next, as a month is then complete."""
    index = day.year * 12 + day.month - 1 + months
    if index // 12 > date.max.year:
        return NEVER
    try:
        return date(index // 12, index % 12 + 1, day.day)
    except ValueError:
        return month_after(date(index // 12, index % 12 + 1, 1), 1)


def complete_months(since: date, on: date) -> int:
    """Complete months from one day to another."""
    months = (on.year - since.year) * 12 + on.month - since.month
    return months if month_after(since, months) <= on else months - 1


def _rules(product: Product) -> tuple[Withdrawal, ...]:
    return product.withdrawals or (_ANY_TIME,)


_ANY_TIME: Final = Withdrawal(
    code=ANY_TIME,
    from_age=None,
    before_age=None,
    after_years=None,
    before_years=None,
    event=None,
    proven_by=None,
    balance_at_least=None,
    balance_below=None,
    saved_each_year=None,
    lump_sum=Fraction(1),
    rest_over_years=None,
    interest=None,
    match="paid",
)


def _partial(way: Withdrawal) -> bool:
    """Whether what the way lets out depends on what was taken before."""
    return way.lump_sum < 1 or way.balance_at_least is not None or way.balance_below is not None


def _offer(way: Withdrawal, standing: Standing, on: date) -> Way | None:
    """What one way lets out on a day; None where it is closed."""
    if not _conditions_hold(way, standing, on):
        return None
    taken = [one for one in standing.taken if one.way == way.code]
    begun = min((one.on for one in taken), default=None)
    savings = _promised(way, standing.savings, sum(one.savings for one in taken), begun, on)
    match = _promised(way, standing.vested, sum(one.match for one in taken), begun, on)
    lost = forfeited(standing.losable, savings, of=standing.savings) if way.match == "forfeited" else 0
    closing = _closing(way, standing.birth_date, standing.since)
    return Way(way.code, savings, match, lost, None if closing is None else closing - _DAY)


def _promised(way: Withdrawal, there: int, taken: int, begun: date | None, on: date) -> int:
    """What of ``there`` may leave now: the share of it and of what was taken, with the instalments due, less what was taken."""
    base = there + taken
    promise = base * way.lump_sum.numerator // way.lump_sum.denominator
    if way.rest_over_years is not None and begun is not None:
        due, all_of_them = complete_months(begun, on), way.rest_over_years * 12
        # the last instalment takes the rest
        promise = base if due >= all_of_them else promise + (base - promise) // all_of_them * due
    return min(there, max(0, promise - taken))


Condition = tuple[str, str, int | None, int | None, bool]
"""Of what, how it is compared, with what, what it is, and whether that holds."""


def _conditions_hold(way: Withdrawal, standing: Standing, on: date) -> bool:
    return all(condition[-1] for condition in _conditions(way, standing, on))


def _conditions(way: Withdrawal, standing: Standing, on: date) -> Iterator[Condition]:
    """What a way asks, cheapest first: the first that doesn't hold closes it."""
    if way.event is not None:
        yield way.event, "proven", None, None, way.event in standing.events
    if way.from_age is not None or way.before_age is not None:
        born = standing.birth_date
        age = None if born is None else complete_years(born, on)
        if way.from_age is not None:
            yield "age", "at least", way.from_age, age, age is not None and age >= way.from_age
        if way.before_age is not None:
            yield "age", "below", way.before_age, age, age is not None and age < way.before_age
    if way.after_years is not None or way.before_years is not None:
        years = complete_years(standing.since, on)
        if way.after_years is not None:
            yield "membership_years", "at least", way.after_years, years, years >= way.after_years
        if way.before_years is not None:
            yield "membership_years", "below", way.before_years, years, years < way.before_years
    if way.balance_at_least is not None or way.balance_below is not None:
        balance = _balance(way, standing)
        if way.balance_at_least is not None:
            yield "balance", "at least", way.balance_at_least, balance, balance >= way.balance_at_least
        if way.balance_below is not None:
            yield "balance", "below", way.balance_below, balance, balance < way.balance_below
    if way.saved_each_year is not None:
        asked = standing.saved[: way.after_years]
        least = min(asked, default=0) if len(asked) == way.after_years else 0
        yield "saved_each_year", "at least", way.saved_each_year, least, least >= way.saved_each_year


def _balance(way: Withdrawal, standing: Standing) -> int:
    """Savings and vested match as they would be, had nothing been taken since the way's age and years were reached."""
    opened = _opening(way, standing.birth_date, standing.since) or date.min
    since = sum(one.savings + one.match for one in standing.taken if one.on >= opened)
    return standing.savings + standing.vested + since


def _in_time(way: Withdrawal, birth_date: date | None, since: date, on: date) -> bool:
    """Whether a day is one on which the way's ages and years let it be open."""
    if birth_date is None and (way.from_age is not None or way.before_age is not None):
        return False
    opening, closing = _opening(way, birth_date, since), _closing(way, birth_date, since)
    return (opening is None or opening <= on) and (closing is None or on < closing)


def _opening(way: Withdrawal, birth_date: date | None, since: date) -> date | None:
    """The first day on which age and years let a way open; None where neither is asked or the age isn't known."""
    aged = None if way.from_age is None or birth_date is None else anniversary(birth_date, way.from_age)
    if way.after_years is None:
        return aged
    staid = anniversary(since, way.after_years)
    return staid if aged is None else max(aged, staid)


def _closing(way: Withdrawal, birth_date: date | None, since: date) -> date | None:
    """The first day on which age or years close a way; None where they don't."""
    days = []
    if way.before_age is not None and birth_date is not None:
        days.append(anniversary(birth_date, way.before_age))
    if way.before_years is not None:
        days.append(anniversary(since, way.before_years))
    return min(days, default=None)


def _turning_days(product: Product, standing: Standing, on: date) -> list[date]:
    """The days to come on which time alone opens a way or makes an instalment due, in order."""
    days = {
        opening
        for way in product.withdrawals
        if (opening := _opening(way, standing.birth_date, standing.since)) is not None
        and on < opening < NEVER
    }
    for way in product.withdrawals:
        begun = min((one.on for one in standing.taken if one.way == way.code), default=None)
        if way.rest_over_years is not None and begun is not None:
            due, all_of_them = complete_months(begun, on), way.rest_over_years * 12
            # small sums have instalments of nothing before the last, which takes the rest
            days |= (
                {month_after(begun, due + 1), month_after(begun, all_of_them)} if due < all_of_them else set()
            )
    return sorted(day for day in days if on < day < NEVER)


def _reason_until(product: Product, standing: Standing, on: date, then: Way) -> str:
    """Why money is locked that time frees by this way."""
    rule = next(one for one in product.withdrawals if one.code == then.code)
    still = []
    if rule.from_age is not None and standing.birth_date is not None:
        still.append((anniversary(standing.birth_date, rule.from_age), f"before_age_{rule.from_age}"))
    if rule.after_years is not None:
        still.append((anniversary(standing.since, rule.after_years), f"before_{rule.after_years}_years"))
    day, reason = max(still, default=(on, ""))
    return reason if day > on else "paid_in_instalments"


def _reason(product: Product, standing: Standing, on: date, now: Way | None) -> str:
    """Why money is locked that time alone doesn't free."""
    opened = [way for way in product.withdrawals if _conditions_hold(way, standing, on)]
    if opened:
        monthly = any(
            way.rest_over_years is not None and (now is None or now.code == way.code) for way in opened
        )
        return "paid_in_instalments" if monthly else "beyond_the_share"
    rules = [way for way in product.withdrawals if way.event is None]
    if not rules:
        return "until_an_event"
    if standing.birth_date is None and any(
        way.from_age is not None or way.before_age is not None for way in rules
    ):
        return "birth_date_needed"
    return "conditions_not_met"


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
