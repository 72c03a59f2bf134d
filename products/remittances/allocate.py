"""The split of a remittance over a member's products: a waterfall, decided once from what was loaded before.

Each product asks for what its rule says (*wanted*); what was *collected* is given out in priority order. A shortfall
cuts the last ones first, an excess is unapplied, and the parts always add up to what was collected. Pure: integers of
the currency's minor units and exact fractions, no clock, no database. What the programme's file leaves to this module
is in `docs/decisions/allocation.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from math import lcm
from typing import Any

from ledger.errors import InvalidInput
from ledger.money import AMOUNT_MAX, largest_remainder
from products.facts import Facts
from products.programmes.model import Choice, ChoiceRange, Contribution, Product, Programme, Row
from products.programmes.scalars import format_percent, parse_percent
from products.savings import rules


class InvalidChoice(InvalidInput):
    """What a member chose is not what the product offers."""

    code = "invalid_choice"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A member in a product, as the split needs it.

    ``already_in_period`` is what was contributed in the instalment period of this day (0 for rules without one);
    ``age`` is the age on this day, needed only where a table goes by it.
    """

    product: str
    choice: Choice
    entry_age: int | None
    already_in_period: int = 0
    age: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that all products together may take now, besides the ceiling, and why: a code of the outcomes."""

    reason: str
    amount: int


@dataclass(frozen=True, slots=True)
class Leg:
    """One product's part: what its rule wanted, and what it gets."""

    product_code: str
    wanted: int
    amount: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """The split. ``legs`` stand in the order of the enrolments given; Σ amounts + unapplied = collected.

    ``trace`` is plain JSON: inputs, dates, version and the reasons, for whoever asks why. ``limited_by`` is the reason of
    the limit that kept products from taking more.
    """

    legs: tuple[Leg, ...]
    unapplied: int
    collected: int
    trace: dict[str, Any]
    limited_by: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why somebody can't enrol: a stable code, and a sentence for people."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class EntryTerms:
    """What enrolling fixes: the age at entry (None where no birth date is known), or why it is refused."""

    entry_age: int | None
    refusals: tuple[Refusal, ...]


@dataclass(slots=True)
class _Asking:
    """One product on its way through the waterfall."""

    product: Product
    enrolled: Enrolled
    inputs: dict[str, Any]
    because: list[str]
    rate: Fraction | None = None
    due: int = 0
    wanted: int = 0
    amount: int = 0

    @property
    def rule(self) -> Contribution:
        return self.product.contribution

    def fit(self, amount: int) -> int:
        """As much of an amount as the rule takes: whole steps, and nothing below the minimum unless it adds up."""
        rule = self.rule
        if rule.step:
            amount -= amount % rule.step
        before = self.enrolled.already_in_period if rule.period else 0
        if rule.minimum and amount > 0 and before + amount < rule.minimum and rule.below_minimum == "skip":
            self.because.append("below_minimum")
            return 0
        return amount


def allocate(
    programme: Programme,
    *,
    received: int,
    collected: int | None,
    enrolments: Sequence[Enrolled],
    facts: Facts,
    contributed_on: date,
    limit: Limit | None = None,
) -> Allocation:
    """Split what was collected over the products of one member.

    ``received`` is the remittance in minor units of the programme's currency: percentages are of it. ``collected``
    None means *by rule*: exactly what the rules want. Facts are read as of ``contributed_on``, a local date. What
    ``limit`` keeps the products from taking is unapplied.
    """
    if received < 0 or (collected is not None and collected < 0):
        raise ValueError("amounts of a remittance are never negative")
    asking = [_Asking(programme.product(enrolled.product), enrolled, {}, []) for enrolled in enrolments]
    waterfall = sorted(asking, key=lambda one: one.product.priority)
    for one in waterfall:
        _ask(one, facts, contributed_on)
    _round_together([one for one in waterfall if one.rate is not None], received)
    ceiling = _nearest(received, programme.ceiling)
    bound, most = "ceiling", ceiling
    if limit is not None and limit.amount < ceiling:
        bound, most = limit.reason, limit.amount
    _want(waterfall, most, bound)
    by_rule = collected is None
    total = sum(one.wanted for one in waterfall) if collected is None else collected
    unapplied = _give(waterfall, total, most, bound)
    limited = bound != "ceiling" and any(bound in one.because for one in waterfall)
    trace = {
        "programme": programme.slug,
        "version": programme.validity.version,
        "contributed_on": contributed_on.isoformat(),
        "received": received,
        "collected": total,
        "by_rule": by_rule,
        "ceiling": {"share": format_percent(programme.ceiling), "amount": ceiling},
        **({} if limit is None else {"limit": {"reason": limit.reason, "amount": limit.amount}}),
        "products": [
            {
                "product": one.product.code,
                "rule": one.rule.rule,
                "inputs": one.inputs,
                "due": one.due,
                "wanted": one.wanted,
                "amount": one.amount,
                "because": one.because,
            }
            for one in waterfall
        ],
        "unapplied": unapplied,
    }
    legs = tuple(Leg(one.product.code, one.wanted, one.amount) for one in asking)
    return Allocation(legs, unapplied, total, trace, bound if limited and (by_rule or unapplied) else None)


def _ask(one: _Asking, facts: Facts, on: date) -> None:
    """What the rule says before any bound: a due amount, or a rate of what is received."""
    rule, choice = one.rule, one.enrolled.choice
    match rule.rule:
        case "fixed":
            amount = rule.amount if rule.choice is None else _chosen(choice.amount, rule.choice)
            if amount is None:
                one.because.append("nothing_chosen")
            one.due = int(amount or 0)
        case "percent":
            percent = rule.percent if rule.choice is None else _chosen(choice.percent, rule.choice)
            if percent is None:
                one.because.append("nothing_chosen")
            else:
                _take_percent(one, Fraction(percent), facts, on)
        case "table":
            row = _row_of(one, facts, on)
            if row is None:
                one.because.append("outside_the_table")
            elif row.percent is not None:
                _take_percent(one, row.percent, facts, on)
            else:
                one.due = row.amount or 0
        case "remainder":
            one.because.append("takes_the_remainder")


def _chosen(choice: Fraction | int | None, offered: ChoiceRange) -> Fraction | int | None:
    return offered.suggested if choice is None else choice


def _take_percent(one: _Asking, percent: Fraction, facts: Facts, on: date) -> None:
    of = one.rule.of or "received"
    one.inputs["percent"] = format_percent(percent)
    if of == "received":
        one.rate = percent
        return
    base = facts.value(of, on)
    one.inputs[of] = base
    if isinstance(base, int) and not isinstance(base, bool):
        one.due = _nearest(base, percent)
    else:
        one.because.append("fact_unknown")


def _row_of(one: _Asking, facts: Facts, on: date) -> Row | None:
    by = one.rule.by or ""
    ages = {"entry_age": one.enrolled.entry_age, "age": one.enrolled.age}
    value = ages[by] if by in ages else facts.value(by, on)
    one.inputs[by] = value
    if value is None or isinstance(value, bool) or not isinstance(value, int):
        return None
    return next(
        (row for row in one.rule.rows if row.since <= value and (row.upto is None or value <= row.upto)), None
    )


def _nearest(amount: int, rate: Fraction) -> int:
    """A part of an amount, rounded to the nearest minor unit, halves up."""
    return (2 * amount * rate.numerator + rate.denominator) // (2 * rate.denominator)


def _round_together(asking: Sequence[_Asking], received: int) -> None:
    """Percentages of one remittance are rounded together: their sum to the nearest unit, split by largest remainder."""
    if len(asking) == 1:
        asking[0].due = _nearest(received, asking[0].rate or Fraction(0))
        return
    rates = [one.rate or Fraction(0) for one in asking]
    whole = sum(rates, start=Fraction(0))
    if whole == 0:
        return
    common = lcm(*(rate.denominator for rate in rates))
    weights = [rate.numerator * (common // rate.denominator) for rate in rates]
    for one, due in zip(asking, largest_remainder(_nearest(received, whole), weights), strict=True):
        one.due = due


def _want(waterfall: Sequence[_Asking], most: int, bound: str) -> None:
    """Bound what each asks for by its own limits, what the period has had already, and the most for all."""
    left = most
    for one in waterfall:
        rule, already = one.rule, one.enrolled.already_in_period
        if rule.rule == "remainder" or one.due == 0:
            continue
        wanted = max(one.due, rule.at_least or 0)
        if rule.maximum is not None and wanted > rule.maximum:
            wanted = rule.maximum
            one.because.append("maximum")
        if rule.period is not None:
            wanted = _still_due(one, wanted, already)
        if wanted > left:
            wanted = left
            one.because.append(bound)
        one.wanted = one.fit(wanted)
        left -= one.wanted


def _still_due(one: _Asking, wanted: int, already: int) -> int:
    """What is left of a period's instalment. A part of what is received is no instalment: only its maximum counts."""
    one.inputs["already_in_period"] = already
    if one.rate is None:
        left = wanted - already
    else:
        left = wanted if one.rule.maximum is None else min(wanted, one.rule.maximum - already)
    if left <= 0:
        one.because.append("period_complete")
        return 0
    return left


def _give(waterfall: Sequence[_Asking], collected: int, most: int, bound: str) -> int:
    """Give out what was collected in priority order; the answer is what nobody took."""
    left, room = collected, most
    for one in waterfall:
        wanted = one.wanted
        if one.rule.rule == "remainder":
            wanted = min(left, room)
            if room < left:
                one.because.append(bound)
            if one.rule.maximum is not None:
                already = one.enrolled.already_in_period if one.rule.period else 0
                wanted = max(0, min(wanted, one.rule.maximum - already))
            one.wanted = one.fit(wanted)
            one.amount = one.wanted
        elif wanted <= left:
            one.amount = wanted
        else:
            one.because.append("shortfall")
            one.amount = one.fit(left)
        left -= one.amount
        room -= one.amount
    return left


def validate_choice(product: Product, choice: object) -> Choice:
    """A member's choice from JSON, as the product offers it. Raises InvalidChoice with a pointer.

    ``{"percent": "5"}`` for a percent rule, ``{"amount": {"amount": 50000, "currency": "PHP"}}`` for a fixed one; None
    or ``{}`` takes what the product suggests, or is right where there is nothing to choose.
    """
    offered, rule = product.contribution.choice, product.contribution.rule
    if choice is None or choice == {}:
        if offered is not None and offered.suggested is None:
            raise InvalidChoice(f"{product.code} needs a choice", pointer="/choice")
        return Choice()
    if not isinstance(choice, Mapping):
        raise InvalidChoice("a choice is an object", pointer="/choice")
    if offered is None:
        raise InvalidChoice(f"{product.code} leaves nothing to choose", pointer="/choice")
    key = "percent" if rule == "percent" else "amount"
    for other in choice:
        if other != key:
            raise InvalidChoice(f"{product.code} lets its members choose “{key}”", pointer=f"/choice/{other}")
    pointer = f"/choice/{key}"
    if key == "amount":
        amount = _read_amount(product, choice[key], pointer)
        _check_offered(amount, offered, pointer)
        return Choice(amount=amount)
    if not isinstance(choice[key], str):
        raise InvalidChoice("a percentage is text, such as “5” or “7.5”", pointer=pointer)
    try:
        percent = parse_percent(choice[key])
    except ValueError as error:
        raise InvalidChoice(str(error), pointer=pointer) from None
    _check_offered(percent, offered, pointer)
    return Choice(percent=percent)


def _read_amount(product: Product, raw: object, pointer: str) -> int:
    if not isinstance(raw, Mapping) or set(raw) != {"amount", "currency"}:
        raise InvalidChoice("an amount has an amount and a currency", pointer=pointer)
    if raw["currency"] != product.currency:
        raise InvalidChoice(f"{product.code} is in {product.currency}", pointer=f"{pointer}/currency")
    amount = raw["amount"]
    if type(amount) is not int or not 0 <= amount <= AMOUNT_MAX:
        raise InvalidChoice("an amount is an integer of minor units", pointer=f"{pointer}/amount")
    return amount


def _check_offered(value: Fraction | int, offered: ChoiceRange, pointer: str) -> None:
    if value < offered.minimum:
        raise InvalidChoice("less than may be chosen", pointer=pointer)
    if offered.maximum is not None and value > offered.maximum:
        raise InvalidChoice("more than may be chosen", pointer=pointer)
    if offered.step and value % offered.step:
        raise InvalidChoice("not a whole number of steps", pointer=pointer)


def entry_terms(product: Product, facts: Facts, joined_on: date, birth_date: date | None) -> EntryTerms:
    """Whether a member may enrol on a day, judged on that day, and the age that enrolling fixes.

    Ages are complete years on the day of joining, the birthday included. All refusals are told at once.
    """
    rule = product.eligibility
    age = None if birth_date is None else rules.complete_years(birth_date, joined_on)
    refusals: list[Refusal] = []
    needs_age = rule.age_from is not None or rule.age_to is not None or product.contribution.by == "entry_age"
    if age is None and needs_age:
        refusals.append(
            Refusal("birth_date_needed", "the product depends on age, and no birth date is known")
        )
    if age is not None and rule.age_from is not None and age < rule.age_from:
        refusals.append(Refusal("too_young", f"members join from age {rule.age_from}, not at {age}"))
    if age is not None and rule.age_to is not None and age > rule.age_to:
        refusals.append(Refusal("too_old", f"members join up to age {rule.age_to}, not at {age}"))
    if rule.joined_from is not None and joined_on < rule.joined_from:
        refusals.append(Refusal("too_early", f"members join from {rule.joined_from.isoformat()}"))
    if rule.joined_to is not None and joined_on > rule.joined_to:
        refusals.append(Refusal("too_late", f"members joined until {rule.joined_to.isoformat()}"))
    for condition in rules.unmet(rule.when, facts.on(joined_on), joined_on, joined_on, age, age):
        name = condition.fact or condition.subject
        known = condition.fact is None or facts.value(condition.fact, joined_on) is not None
        reason = "condition_not_met" if known else "fact_needed"
        refusals.append(Refusal(reason, f"“{name}” must be {rules.in_words(condition)}"))
    return EntryTerms(age, tuple(refusals))
