"""Money: integers of the currency's minor unit, and the few ways in which they may be divided. No floats."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from iso4217 import raw_table

from ledger.errors import InvalidMoney

AMOUNT_MAX = 2**53 - 1
"""The largest amount, in minor units: what every JSON reader can hold exactly."""


@cache
def exponent(currency: str) -> int:
    """Decimal places of the minor unit (ISO 4217: PHP 2, JPY 0, KWD 3). Raises `InvalidMoney` for what is no currency."""
    places = raw_table.get(currency, {}).get("CcyMnrUnts")
    if not isinstance(places, str) or not places.isdigit():
        raise InvalidMoney("unknown currency")
    return int(places)


def in_major_units(amount: int, places: int) -> str:
    """An amount ≥ 0 of minor units as a decimal with so many places: 150000 by 2 is ``1500.00``, 1500 by 0 ``1500``."""
    whole, rest = divmod(amount, 10**places)
    return f"{whole}.{rest:0{places}d}" if places else str(whole)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of minor units, −AMOUNT_MAX to AMOUNT_MAX, in one ISO 4217 currency; ordered within a currency only."""

    amount: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount) is not int or not -AMOUNT_MAX <= self.amount <= AMOUNT_MAX:
            raise InvalidMoney("an amount is an integer of minor units, up to 2^53−1")
        exponent(self.currency)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount - self._same(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.amount <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.amount > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.amount >= self._same(other)

    def __bool__(self) -> bool:
        return self.amount != 0

    def __str__(self) -> str:
        """For people: ``1,234.50 PHP``, ``-0.005 KWD``, ``1,500 JPY``."""
        places = exponent(self.currency)
        sign = "-" if self.amount < 0 else ""
        whole, rest = divmod(abs(self.amount), 10**places)
        decimals = f".{rest:0{places}d}" if places else ""
        return f"{sign}{whole:,}{decimals} {self.currency}"

    def _same(self, other: "Money") -> int:
        if other.currency != self.currency:
            raise InvalidMoney(f"{self.currency} and {other.currency} can't be put together")
        return other.amount


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Divide ``total`` ≥ 0 by ``weights`` ≥ 0 into parts that add up to it exactly.

    Each part gets the floor of its exact share; the units left over go to the largest remainders, ties to the earlier
    position (Hamilton's method). Raises `ValueError` when nothing can be shared by the weights.
    """
    whole = sum(weights)
    if total < 0 or min(weights, default=0) < 0 or whole == 0:
        raise ValueError("a total of at least 0 is divided by weights of at least 0, not all 0")
    parts, remainders = [], []
    for weight in weights:
        part, remainder = divmod(total * weight, whole)
        parts.append(part)
        remainders.append(remainder)
    left = total - sum(parts)
    for position in sorted(range(len(parts)), key=lambda i: -remainders[i])[:left]:
        parts[position] += 1
    return parts


def share(amount: int, numerator: int, denominator: int) -> int:
    """The floor of ``amount × numerator ÷ denominator``, in minor units; ``amount`` ≥ 0."""
    if amount < 0 or numerator < 0 or denominator <= 0:
        raise ValueError("a share is taken of at least 0, by a fraction of at least 0")
    return amount * numerator // denominator
