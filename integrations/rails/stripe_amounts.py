"""Amounts as Stripe writes them: its smallest unit, which is not always ISO 4217's minor unit.

From Stripe's page on currencies: most are alike; MGA has no decimals there; ISK and UGX have none here and two there, both
zero; of three decimals the last must be zero; HUF and TWD are paid out in whole units only. What can't be said exactly is
refused, and so is a currency of a shape that the page does not speak of.
"""

from typing import Final

from ledger.money import AMOUNT_MAX, exponent

_AS_TWO_DECIMALS: Final = frozenset({"ISK", "UGX"})
_AS_NO_DECIMALS: Final = frozenset({"MGA"})
_WHOLE_UNITS: Final = frozenset({"HUF", "TWD"})
_NO_DECIMALS: Final = frozenset(
    "BIF CLP DJF GNF JPY KMF KRW PYG RWF VND VUV XAF XOF XPF".split()  # noqa: SIM905  read as a list of words
)
_THREE_DECIMALS: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


class AmountNotPayable(ValueError):
    """Stripe can't be told this amount exactly, or can't pay it out."""


def to_stripe(amount: int, currency: str) -> int:
    """What to tell Stripe for `amount` minor units of an ISO 4217 `currency`. Raises `AmountNotPayable`, `InvalidMoney`."""
    if not 0 < amount <= AMOUNT_MAX:
        raise AmountNotPayable("an amount is at least one minor unit, at most 2^53−1")
    _require_known(currency)
    if currency in _AS_TWO_DECIMALS:
        return amount * 100
    if currency in _AS_NO_DECIMALS or currency in _WHOLE_UNITS:
        whole, rest = divmod(amount, 100)
        if rest:
            raise AmountNotPayable(f"{currency} is paid out in whole units only")
        return whole if currency in _AS_NO_DECIMALS else amount
    if currency in _THREE_DECIMALS and amount % 10:
        raise AmountNotPayable(f"the third decimal of {currency} must be zero")
    return amount


def from_stripe(amount: int, currency: str) -> int:
    """Minor units of an ISO 4217 `currency` (capitals) from what Stripe says. Raises `AmountNotPayable`, `InvalidMoney`."""
    _require_known(currency)
    if currency in _AS_TWO_DECIMALS:
        whole, rest = divmod(amount, 100)
        if rest:
            raise AmountNotPayable(f"{currency} has no decimals")
        return whole
    return amount * 100 if currency in _AS_NO_DECIMALS else amount


def _require_known(currency: str) -> None:
    """Refuse currencies whose decimals Stripe does not document: a guess would be wrong by a factor of ten or more."""
    places = exponent(currency)
    known = {
        0: currency in _NO_DECIMALS or currency in _AS_TWO_DECIMALS,
        2: True,
        3: currency in _THREE_DECIMALS,
    }
    if not known.get(places, False):
        raise AmountNotPayable(f"Stripe does not pay out in {currency}")
