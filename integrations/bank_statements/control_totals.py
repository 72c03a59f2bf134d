"""What a bank says of its entries as a whole, beside the balances: how many there are, and what they add up to.

Banks count in more than one way: with the entries that are not booked or without them, a reversal on the side of what it takes back
or on its own, the sum of everything or what remains of it. Totals that are right in one of these ways, all at once, are right.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from typing import Final, Literal

from integrations.bank_statements.canonical import InvalidStatement, shown

Of = Literal["entries", "credits", "debits"]
SIDES: Final[tuple[Of, ...]] = ("entries", "credits", "debits")


@dataclass(frozen=True, slots=True)
class Total:
    """What the bank says of all entries, or of one side's; the sum in minor units, without a sign. None: it doesn't say."""

    of: Of
    number: int | None
    total: int | None


@dataclass(slots=True)
class Tally:
    """The entries that were read, by whether they are booked, are indicated as credits, and whether they are reversals."""

    numbers: Counter[tuple[bool, bool, bool]] = field(default_factory=Counter)
    totals: Counter[tuple[bool, bool, bool]] = field(default_factory=Counter)

    def add(self, amount: int, *, credit: bool, reversal: bool, booked: bool = True) -> None:
        """One more entry, of whatever sign; `credit` as the bank indicates it."""
        key = (booked, credit, reversal)
        self.numbers[key] += 1
        self.totals[key] += abs(amount)

    def check(self, said: list[Total], currency: str, where: str) -> None:
        """Raises `InvalidStatement` where what the bank says is right in no way, with the difference."""
        ways = list(product((False, True), repeat=2))
        for pending, turned in ways:
            if all(self._ties(one, pending, turned) for one in said):
                return
        wrong = next((one for one in said if not any(self._ties(one, *way) for way in ways)), said[0])
        number, total = self._counted(wrong.of, *ways[0])
        raise InvalidStatement(
            f"the bank's control totals say {_said(wrong, currency)}, and what was read is {_counted(number, wrong.of)} of"
            f" {shown(total, currency)}: a difference of {_difference(wrong, number, total, currency)}",
            where=where,
        )

    def _ties(self, said: Total, pending: bool, turned: bool) -> bool:
        number, total = self._counted(said.of, pending, turned)
        sums = {total}
        if said.of == "entries":
            net = self._counted("credits", pending, turned)[1] - self._counted("debits", pending, turned)[1]
            sums.add(abs(net))
        return said.number in (None, number) and (said.total is None or said.total in sums)

    def _counted(self, of: Of, pending: bool, turned: bool) -> tuple[int, int]:
        """How many entries, and their sum; `turned`: a reversal is on the side that its amount is on."""
        keys = [
            key
            for key in self.numbers
            if (key[0] or pending)
            and (of == "entries" or (key[1] ^ (turned and key[2])) == (of == "credits"))
        ]
        return sum(self.numbers[key] for key in keys), sum(self.totals[key] for key in keys)


def _said(one: Total, currency: str) -> str:
    number = _counted(one.number, one.of) if one.number is not None else one.of
    return number if one.total is None else f"{number} of {shown(one.total, currency)}"


def _difference(one: Total, number: int, total: int, currency: str) -> str:
    parts = []
    if one.number is not None and one.number != number:
        parts.append(_counted(one.number - number, one.of))
    if one.total is not None and one.total != total:
        parts.append(shown(one.total - total, currency))
    return " and ".join(parts) or "which entries are counted"


def _counted(number: int, of: Of) -> str:
    singular = {"entries": "entry", "credits": "credit", "debits": "debit"}
    return f"{number} {singular[of] if abs(number) == 1 else of}"
