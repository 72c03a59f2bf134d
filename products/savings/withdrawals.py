"""What a programme's withdrawal rules keep locked, and until when. Pure.

Payouts go deeper into these rules; here they answer one question: how much of a member's settled savings could leave
today, and for the rest, why not and when that changes.
"""

from dataclasses import dataclass
from datetime import date

from products.programmes.model import Product, Withdrawal
from products.savings import rules


@dataclass(frozen=True, slots=True)
class Locked:
    """Money that may not leave yet: minor units, a stable reason code, and the day it changes where that is known."""

    amount: int
    reason: str
    until: date | None


def locked(
    product: Product, savings: int, *, birth_date: date | None, joined_on: date, on: date
) -> tuple[Locked, ...]:
    """What of settled savings (minor units, not held) is locked on a day.

    The best of the ways out that are open counts. Ways that depend on an event (disability, death) open with a claim,
    so they lock nothing open here.
    """
    if savings <= 0:
        return ()
    if product.destination.kind != "savers":
        return (Locked(savings, f"held_by_{product.destination.kind}", None),)
    ways = [way for way in product.withdrawals if way.event is None]
    if not ways:
        return () if not product.withdrawals else (Locked(savings, "until_an_event", None),)
    free = max((_free(way, savings, birth_date, joined_on, on) for way in ways), default=0)
    if free >= savings:
        return ()
    if free > 0:
        return (Locked(savings - free, "paid_in_instalments", None),)
    reason, until = _soonest(ways, birth_date, joined_on, on)
    return (Locked(savings, reason, until),)


def _free(way: Withdrawal, savings: int, birth_date: date | None, joined_on: date, on: date) -> int:
    """What one way lets out at once on a day."""
    age = None if birth_date is None else rules.complete_years(birth_date, on)
    years = rules.complete_years(joined_on, on)
    closed = (
        (way.from_age is not None and (age is None or age < way.from_age))
        or (way.before_age is not None and (age is None or age >= way.before_age))
        or (way.after_years is not None and years < way.after_years)
        or (way.before_years is not None and years >= way.before_years)
        or (way.balance_at_least is not None and savings < way.balance_at_least)
        or (way.balance_below is not None and savings >= way.balance_below)
        # Whether enough was saved in each year is judged when a payout asks for it, from the years' contributions.
        or way.saved_each_year is not None
    )
    return 0 if closed else savings * way.lump_sum.numerator // way.lump_sum.denominator


def _soonest(
    ways: list[Withdrawal], birth_date: date | None, joined_on: date, on: date
) -> tuple[str, date | None]:
    """Why nothing may leave, and the first day on which a way opens by time alone."""
    openings: list[tuple[date, str]] = []
    for way in ways:
        days: list[tuple[date, str]] = []
        if way.from_age is not None:
            if birth_date is None:
                continue
            days.append((rules.anniversary(birth_date, way.from_age), f"before_age_{way.from_age}"))
        if way.after_years is not None:
            days.append((rules.anniversary(joined_on, way.after_years), f"before_{way.after_years}_years"))
        if days and max(days)[0] > on:
            openings.append(max(days))
    if openings:
        until, reason = min(openings)
        return reason, until
    return ("birth_date_needed" if birth_date is None else "conditions_not_met"), None
