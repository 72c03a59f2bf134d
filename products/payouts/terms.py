"""What a rail costs, allows and promises. Pure: amounts in minor units, days in the programme's time zone."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from products.settlements.calendar import business_days

FeeBearer = Literal["member", "fund"]
ArrivalUnit = Literal["minutes", "business_days"]
BASIS_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Fee:
    """A fixed amount, and a share of the payout in basis points, rounded up; and who bears it."""

    fixed: int
    basis_points: int
    bearer: FeeBearer

    def of(self, amount: int) -> int:
        """The fee of a payout of this amount."""
        return self.fixed + -(-amount * self.basis_points // BASIS_POINTS)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How long the money takes, at best and at worst; business days are those of all ``countries`` together."""

    unit: ArrivalUnit
    earliest: int
    latest: int
    countries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be asked of a rail; None is no limit.

    ``release_above``: two operators release more than this. ``queue_max``: approved payouts that may wait for it.
    """

    amount_min: int
    amount_max: int | None
    per_member_day: int | None
    per_day: int | None
    release_above: int | None
    queue_max: int


def arrives(arrival: Arrival, at: datetime, time_zone: str) -> tuple[datetime, datetime]:
    """When a payout that is released at `at` is with the payee: at the earliest and at the latest.

    Counted in business days, it is there from the beginning of the earliest day to the end of the latest, in the time zone.
    """
    if arrival.unit == "minutes":
        return at + timedelta(minutes=arrival.earliest), at + timedelta(minutes=arrival.latest)
    zone, calendar = ZoneInfo(time_zone), business_days(arrival.countries)
    local = at.astimezone(zone)
    today = local.date()
    earliest = datetime.combine(calendar.after(today, arrival.earliest), datetime.min.time(), zone)
    latest = datetime.combine(calendar.after(today, arrival.latest), datetime.max.time(), zone)
    return max(earliest, local).astimezone(at.tzinfo), latest.replace(microsecond=0).astimezone(at.tzinfo)


def shared(fee: int, amounts: tuple[int, ...]) -> tuple[int, ...]:
    """A fee over the parts of a payout, from the first on: each bears at most its own amount."""
    left, shares = fee, []
    for amount in amounts:
        taken = min(left, amount)
        shares.append(taken)
        left -= taken
    return tuple(shares)
