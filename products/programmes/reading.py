"""A node of a programme file together with where it stands, read into exact values; faults are collected, not raised.

Whoever reads gets a usable value even where there was a fault, so that one pass finds all of them; the loader throws
the result away when there was any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any

from products.facts import FactDeclaration, FactScalar
from products.programmes import scalars
from products.programmes.faults import Fault
from products.programmes.model import Comparison, Condition, Operator, Subject, WindowRule
from products.programmes.strict_yaml import Plain, escape

OPERATORS: tuple[Operator, ...] = ("is", "in", "at_least", "at_most", "below", "above")
_ORDERED = frozenset({"at_least", "at_most", "below", "above"})
_SUBJECT_TYPES = {
    "age": "integer",
    "entry_age": "integer",
    "membership_years": "integer",
    "joined_on": "date",
    "contributed_on": "date",
}


@dataclass(slots=True)
class Context:
    """What the whole file is read against: decimals of the currency, declared facts and sponsors, faults so far.

    ``doubtful`` names facts that are declared but faulty: what refers to them isn't judged a second time.
    """

    places: int = 4
    facts: dict[str, FactDeclaration] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    sponsors: set[str] | None = None
    faults: list[Fault] = field(default_factory=list)
    lines: Mapping[str, int] = field(default_factory=dict)

    def fault(self, pointer: str, message: str) -> None:
        """Something is wrong at this pointer."""
        self.faults.append(Fault(pointer, message, self.line(pointer)))

    def line(self, pointer: str) -> int | None:
        """The line of a pointer, or of the nearest thing around it."""
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer)


class Node:
    """A mapping of the file whose shape the schema has approved."""

    __slots__ = ("context", "pointer", "values")

    def __init__(self, values: Plain, pointer: str, context: Context) -> None:
        self.values: dict[str, Any] = values if isinstance(values, dict) else {}
        self.pointer = pointer
        self.context = context

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def at(self, key: str) -> str:
        """The pointer of one of its keys."""
        return f"{self.pointer}/{escape(key)}"

    def fault(self, key: str, message: str) -> None:
        """Something is wrong with one of its keys."""
        self.context.fault(self.at(key), message)

    def child(self, key: str) -> "Node | None":
        """The mapping under a key, if there is one."""
        return Node(self.values[key], self.at(key), self.context) if key in self.values else None

    def children(self, key: str) -> Iterator["Node"]:
        """The mappings of the list under a key."""
        for position, values in enumerate(self.values.get(key) or ()):
            yield Node(values, f"{self.at(key)}/{position}", self.context)

    def text(self, key: str) -> str:
        """Text that the schema requires."""
        return str(self.values[key])

    def get(self, key: str, default: Any = None) -> Any:  # Any: a literal that the schema has checked
        """The value as it stands."""
        return self.values.get(key, default)

    def money(self, key: str) -> int | None:
        """Minor units, or None where the key is absent."""
        return self._money(self.values[key], self.at(key)) if key in self.values else None

    def percent(self, key: str, *, most: int | None = None) -> Fraction | None:
        """An exact fraction, at most ``most`` (1 is 100 %), or None where the key is absent."""
        if key not in self.values:
            return None
        try:
            value = scalars.parse_percent(self.values[key])
        except ValueError as error:
            self.fault(key, str(error))
            return Fraction(0)
        if most is not None and value > most:
            self.fault(key, f"more than {most * 100} %")
        return value

    def share(self, key: str) -> Fraction:
        """A required fraction of at most one."""
        return self.percent(key, most=1) or Fraction(0)

    def day(self, key: str) -> date | None:
        """A date, or None where the key is absent."""
        if key not in self.values:
            return None
        try:
            return scalars.parse_date(self.values[key])
        except ValueError as error:
            self.fault(key, str(error))
            return date.min

    def days(self, key: str) -> tuple[date | None, date | None]:
        """The two ends of a range of dates."""
        dates = self.child(key)
        if dates is None:
            return None, None
        since, upto = dates.day("from"), dates.day("to")
        if since is not None and upto is not None and upto < since:
            dates.fault("to", "ends before it begins")
        return since, upto

    def month_day(self, key: str) -> tuple[int, int] | None:
        """A month and day, or None where the key is absent."""
        if key not in self.values:
            return None
        try:
            return scalars.parse_month_day(self.values[key])
        except ValueError as error:
            self.fault(key, str(error))
            return 1, 1

    def window(self, key: str) -> WindowRule | None:
        """A window rule, or None where the key is absent."""
        window = self.child(key)
        if window is None:
            return None
        return WindowRule(window.get("kind"), window.get("years", 1), window.month_day("starts") or (1, 1))

    def conditions(self, key: str, *, at_enrolment: bool = False) -> tuple[Condition, ...]:
        """The conditions under a key; only at enrolment is the present age known."""
        return tuple(_condition(node, at_enrolment) for node in self.children(key))

    def scalar(self, key: str, type_: str) -> FactScalar | None:
        """A value of a fact's type, or None where the key is absent."""
        return self.typed(self.values[key], self.at(key), type_) if key in self.values else None

    def typed(self, raw: object, pointer: str, type_: str) -> FactScalar:
        """A raw value as a fact's type says; money and dates are text in the file."""
        if type_ == "money" and isinstance(raw, str):
            return self._money(raw, pointer)
        if type_ == "date" and isinstance(raw, str):
            try:
                return scalars.parse_date(raw)
            except ValueError as error:
                self.context.fault(pointer, str(error))
                return date.min
        if type_ == "integer" and isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        if type_ == "boolean" and isinstance(raw, bool):
            return raw
        if type_ == "text" and isinstance(raw, str):
            return raw
        self.context.fault(pointer, f"must be of type {type_}")
        return date.min if type_ == "date" else 0

    def ordered(self, lesser: str, greater: str) -> None:
        """Fault where one amount or number is above another that should not be below it."""
        if lesser in self.values and greater in self.values:
            low, high = self.values[lesser], self.values[greater]
            if isinstance(low, str):
                low, high = self._money(low, self.at(lesser)), self._money(high, self.at(greater))
            if low > high:
                self.fault(greater, f"less than {lesser}")

    def unique(self, key: str, by: str) -> None:
        """Fault where two mappings of a list have the same value of a key."""
        seen: set[object] = set()
        for node in self.children(key):
            value = node.get(by)
            if value is not None and value in seen:
                node.fault(by, f"{value} stands here twice")
            seen.add(value)

    def _money(self, text: str, pointer: str) -> int:
        try:
            return scalars.parse_money(text, self.context.places)
        except ValueError as error:
            self.context.fault(pointer, str(error))
            return 0


def _condition(node: Node, at_enrolment: bool) -> Condition:
    fact = node.get("fact")
    subject: Subject = "fact" if fact is not None else node.get("subject")
    if subject == "age" and not at_enrolment:
        node.fault("subject", "the present age is known at enrolment only: use entry_age or membership_years")
    if fact is not None:
        declared = node.context.facts.get(fact)
        if declared is None:
            if fact not in node.context.doubtful:
                node.fault("fact", f"the programme declares no fact “{fact}”")
            return Condition("fact", fact, ())
        type_ = str(declared.type)
    else:
        type_ = _SUBJECT_TYPES[subject]
    comparisons: list[Comparison] = []
    for operator in OPERATORS:
        if operator not in node:
            continue
        if operator in _ORDERED and type_ in {"text", "boolean"}:
            node.fault(operator, f"{type_} has no order: use “is” or “in”")
            continue
        if operator == "in":
            operands = tuple(
                node.typed(raw, f"{node.at('in')}/{position}", type_)
                for position, raw in enumerate(node.get("in"))
            )
            comparisons.append(Comparison("in", operands))
        else:
            value = node.typed(node.get(operator), node.at(operator), type_)
            comparisons.append(Comparison(operator, value))
    if not any(operator in node for operator in OPERATORS):
        node.context.fault(node.pointer, "compares with nothing")
    return Condition(subject, fact, tuple(comparisons))
