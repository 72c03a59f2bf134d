"""Builders for programmes and members in tests of rules."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from fractions import Fraction

from products.facts import Fact, Facts, FactScalar
from products.programmes.loader import InvalidProgramme, catalogue, load
from products.programmes.model import Choice, Match, Programme

EVERYBODY = "2000-01-01"


def programme(slug: str) -> Programme:
    """A programme of the catalogue."""
    return load(catalogue()[slug])


def changed(slug: str, *changes: tuple[str, str]) -> str:
    """A catalogue file with pieces of its text replaced; each piece must be there."""
    text = catalogue()[slug]
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def faults(text: str) -> dict[str, str]:
    """What is wrong with a file, by pointer."""
    try:
        load(text)
    except InvalidProgramme as error:
        return {fault.pointer: fault.message for fault in error.faults}
    return {}


def matched(slug: str, product: str) -> Match:
    """The match of a catalogue product."""
    match = programme(slug).product(product).match
    assert match is not None
    return match


def known(since: str = EVERYBODY, **values: FactScalar) -> Facts:
    """Facts that have held since a day."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Facts(Fact(name, value, date.fromisoformat(since), at) for name, value in values.items())


def held(facts: Mapping[str, FactScalar] | None = None, **values: FactScalar) -> dict[str, FactScalar]:
    """Facts as they held on the day in question."""
    return {**(facts or {}), **values}


def percent(text: str) -> Choice:
    """A chosen percentage."""
    return Choice(percent=Fraction(text) / 100)


def chosen(amount: int) -> Choice:
    """A chosen amount, in minor units."""
    return Choice(amount=amount)


NOTHING = Choice()
