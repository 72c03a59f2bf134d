"""Facts about a member: dated values with their evidence, on which rules depend (income category, declared pay …).

A programme declares the facts that it uses; the registry records them; a rule reads the value that was true on a
date. Money among them is in minor units of the programme's currency. Nothing here reads a clock or a database.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal

from ledger.errors import InvalidInput
from ledger.money import AMOUNT_MAX

FactType = Literal["integer", "money", "text", "boolean", "date"]
Evidence = Literal["self_declared", "document", "institution"]
FactScalar = int | str | bool | date

EVIDENCE: Final[Mapping[Evidence, int]] = {"self_declared": 0, "document": 1, "institution": 2}
"""Kinds of evidence by their weight."""

TEXT_LENGTH_MAX = 200


class InvalidFact(InvalidInput):
    """A fact that the programme doesn't declare, or a value that is not of the declared type or range."""

    code = "invalid_fact"

    def __init__(self, detail: str, pointer: str) -> None:
        super().__init__(detail, pointer=pointer)


@dataclass(frozen=True, slots=True)
class FactDeclaration:
    """What a programme says about a fact: its type, the least evidence that it accepts, and the allowed values.

    ``weaker``: what has less evidence than that ``counts`` until something better is known, or is ``ignored``.
    """

    name: str
    type: FactType
    evidence: Evidence
    description: str
    values: tuple[FactScalar, ...] | None
    minimum: int | None
    maximum: int | None
    weaker: Literal["counts", "ignored"] = "ignored"

    def proven(self, evidence: Evidence) -> bool:
        """Whether this is at least the evidence that the programme asks for."""
        return EVIDENCE[evidence] >= EVIDENCE[self.evidence]

    def counts(self, evidence: Evidence) -> bool:
        """Whether the rules see a fact of this evidence."""
        return self.weaker == "counts" or self.proven(evidence)


@dataclass(frozen=True, slots=True)
class Fact:
    """One recorded value: true from ``since`` until a later ``since`` replaces it."""

    name: str
    value: FactScalar
    since: date
    recorded_at: datetime
    evidence: Evidence = "self_declared"


class Facts:
    """A member's facts, asked for by date.

    Of several values with the same ``since`` the one recorded last wins (a correction); of two recorded at the same
    instant, the one given last.
    """

    __slots__ = ("_by_name",)

    def __init__(self, recorded: Iterable[Fact] = ()) -> None:
        by_name: dict[str, dict[date, Fact]] = {}
        for fact in recorded:
            same = by_name.setdefault(fact.name, {})
            standing = same.get(fact.since)
            if standing is None or fact.recorded_at >= standing.recorded_at:
                same[fact.since] = fact
        self._by_name: dict[str, Sequence[Fact]] = {
            name: sorted(dated.values(), key=lambda fact: fact.since, reverse=True)
            for name, dated in by_name.items()
        }

    def value(self, name: str, on: date) -> FactScalar | None:
        """The value that held on a date; None when nothing was known to hold then."""
        for fact in self._by_name.get(name, ()):
            if fact.since <= on:
                return fact.value
        return None

    def on(self, day: date) -> Mapping[str, FactScalar]:
        """Every fact that held on a date, by name."""
        held = ((name, self.value(name, day)) for name in self._by_name)
        return {name: value for name, value in held if value is not None}


def counting(declarations: Mapping[str, FactDeclaration], recorded: Iterable[Fact]) -> Facts:
    """The facts that a programme's rules see: those of the evidence that it asks for.

    What has less is on record all the same, and gives way here to an earlier one that was proven. Recording the value
    again with better evidence makes it count from its own date on.
    """
    return Facts(
        [
            fact
            for fact in recorded
            if (declared := declarations.get(fact.name)) is None or declared.counts(fact.evidence)
        ]
    )


def read_value(
    declarations: Mapping[str, FactDeclaration], currency: str, name: str, raw: object, *, pointer: str = ""
) -> FactScalar:
    """Turn a value from JSON into the declared type, or raise InvalidFact with a pointer below ``pointer``.

    Money arrives as ``{"amount": 1500000, "currency": "INR"}`` and becomes minor units; dates as ISO text.
    """
    declared = declarations.get(name)
    if declared is None:
        raise InvalidFact(f"the programme declares no fact “{name}”", f"{pointer}/name")
    value = _typed(declared, currency, raw, f"{pointer}/value")
    if declared.values is not None and value not in declared.values:
        raise InvalidFact(f"“{name}” must be one of {_listed(declared.values)}", f"{pointer}/value")
    if isinstance(value, int) and not isinstance(value, bool):
        if declared.minimum is not None and value < declared.minimum:
            raise InvalidFact(f"“{name}” must be at least {declared.minimum}", f"{pointer}/value")
        if declared.maximum is not None and value > declared.maximum:
            raise InvalidFact(f"“{name}” must be at most {declared.maximum}", f"{pointer}/value")
    return value


def _typed(declared: FactDeclaration, currency: str, raw: object, pointer: str) -> FactScalar:
    match declared.type:
        case "integer":
            return _whole(declared.name, raw, pointer)
        case "money":
            if not isinstance(raw, Mapping) or set(raw) != {"amount", "currency"}:
                raise InvalidFact(f"“{declared.name}” must be an amount and a currency", pointer)
            if raw["currency"] != currency:
                raise InvalidFact(f"“{declared.name}” must be in {currency}", f"{pointer}/currency")
            amount = _whole(declared.name, raw["amount"], f"{pointer}/amount")
            if amount < 0:
                raise InvalidFact(f"“{declared.name}” can't be negative", f"{pointer}/amount")
            return amount
        case "boolean":
            if isinstance(raw, bool):
                return raw
            raise InvalidFact(f"“{declared.name}” must be true or false", pointer)
        case "date":
            if isinstance(raw, str):
                try:
                    return date.fromisoformat(raw)
                except ValueError:
                    pass
            raise InvalidFact(f"“{declared.name}” must be a date such as 2026-01-31", pointer)
        case "text":
            if isinstance(raw, str) and 0 < len(raw) <= TEXT_LENGTH_MAX and raw.isprintable():
                return raw
            raise InvalidFact(
                f"“{declared.name}” must be 1 to {TEXT_LENGTH_MAX} printable characters", pointer
            )


def _whole(name: str, raw: object, pointer: str) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise InvalidFact(f"“{name}” must be a whole number", pointer)
    if abs(raw) > AMOUNT_MAX:
        raise InvalidFact(f"“{name}” is too large", pointer)
    return raw


def _listed(values: Iterable[FactScalar]) -> str:
    return ", ".join(str(value) for value in values)
