"""From the text of a programme file to a `Programme`, or to everything that is wrong with it at once.

Three passes: the text is read strictly (`strict_yaml`), its shape is judged by the published schema, and what a
schema can't say is checked while exact values are read. A part whose shape is wrong is left out of the third pass;
the others are judged all the same.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from ledger.errors import InvalidMoney
from ledger.money import exponent
from products.facts import FactDeclaration
from products.programmes import strict_yaml
from products.programmes.faults import InvalidProgramme
from products.programmes.model import (
    LEVELS,
    Corridor,
    Level,
    LevelLimits,
    Product,
    Programme,
    Reading,
    Sponsor,
    Validity,
)
from products.programmes.reading import Context, Node
from products.programmes.reading_contribution import most_of_received
from products.programmes.reading_product import read_product
from products.programmes.scalars import format_percent
from products.programmes.schema import SCHEMA
from products.vocabulary import what_is_never_held

__all__ = ["InvalidProgramme", "catalogue", "digest", "load"]

_VALIDATOR = Draft202012Validator(SCHEMA)


def load(text: str) -> Programme:
    """The programme that a file describes. Raises InvalidProgramme with every fault, each with its pointer and line."""
    document = strict_yaml.read(text)
    context = Context(faults=document.faults, lines=document.lines)
    if not isinstance(document.value, dict):
        if not document.faults:
            context.fault("", "a programme is a mapping")
        raise InvalidProgramme(document.faults)
    twice = {fault.pointer for fault in document.faults}
    for error in _VALIDATOR.iter_errors(document.value):
        for pointer, message in _told(error):
            if pointer not in twice:
                context.fault(pointer, message)
    programme = _read(
        Node(document.value, "", context), frozenset(fault.pointer for fault in document.faults)
    )
    if context.faults or programme is None:
        raise InvalidProgramme(context.faults)
    return programme


def digest(text: str) -> bytes:
    """SHA-256 of the file's bytes: two versions with the same digest are the same file."""
    return hashlib.sha256(text.encode()).digest()


@cache
def catalogue() -> dict[str, str]:
    """The programme files that come with Mizan, by slug."""
    folder = resources.files("products.programmes") / "catalogue"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name
    )
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def _told(error: ValidationError) -> Iterable[tuple[str, str]]:
    """A schema's complaint in the words of people who write programmes."""
    pointer = "".join(f"/{strict_yaml.escape(str(step))}" for step in error.absolute_path)
    instance: Any = error.instance  # what stands there: JSON of any shape
    schema = dict(error.schema) if isinstance(error.schema, Mapping) else {}
    expected: Any = error.validator_value  # what the keyword says, likewise
    match error.validator:
        case "additionalProperties":
            for key in sorted(set(instance) - set(schema.get("properties", {}))):
                yield f"{pointer}/{strict_yaml.escape(key)}", "not a key of the format"
        case "required":
            missing = next(key for key in expected if key not in instance and repr(key) in error.message)
            yield pointer, f"“{missing}” is missing"
        case "pattern":
            meant = schema.get("description", expected)
            yield pointer, f"“{instance}” is not written as the format asks: {meant}"
        case "type":
            yield pointer, f"must be of type {expected}"
        case "enum":
            yield pointer, f"“{instance}” is not one of {', '.join(map(str, expected))}"
        case "not":
            yield pointer, "out of place here"
        case "oneOf" | "anyOf":
            keys = " or ".join(f"“{option['required'][0]}”" for option in expected)
            yield pointer, f"needs {'either ' if error.validator == 'oneOf' else ''}{keys}"
        case _:
            yield pointer, error.message


def _read(top: Node, faulty: frozenset[str]) -> Programme | None:
    """Read the parts whose shape is right; None when the whole can't be put together."""

    def sound(pointer: str) -> bool:
        return not any(at == pointer or at.startswith(f"{pointer}/") for at in faulty)

    context = top.context
    if sound("/currency") and "currency" in top:
        try:
            context.places = exponent(top.text("currency"))
        except InvalidMoney:
            top.fault("currency", "not a currency of ISO 4217")
    if sound("/time_zone") and "time_zone" in top:
        _check_time_zone(top)
    sponsors: tuple[Sponsor, ...] = ()
    if sound("/sponsors"):
        context.sponsors = {sponsor.text("slug") for sponsor in top.children("sponsors")}
        sponsors = _read_sponsors(top)
    _read_facts(top, sound)
    levels = _read_levels(top) if sound("/verification") else {}
    for key in ("in_force_from", "since"):
        if sound(f"/{key}"):
            top.day(key)
    products: list[Product] = []
    if isinstance(top.get("products"), list):
        for node in top.children("products"):
            if sound(node.pointer):
                products.append(read_product(node, str(top.get("currency", ""))))
        _check_waterfall(top)
        _check_receivers(top)
    if sound("/contributions") and "contributions" in top:
        _check_ceiling(top, products)
    if context.faults:
        return None
    limits = top.child("contributions")
    in_force_from = top.day("in_force_from")
    if limits is None or in_force_from is None:
        raise AssertionError("the schema requires both")
    return Programme(
        slug=top.text("slug"),
        name=top.text("name"),
        description=top.text("description"),
        authority=top.text("authority"),
        source=top.text("source"),
        readings=tuple(Reading(one.text("topic"), one.text("reading")) for one in top.children("readings")),
        validity=Validity(top.get("version"), in_force_from, top.get("applies_to"), top.day("since")),
        currency=top.text("currency"),
        time_zone=top.text("time_zone"),
        taken=limits.get("taken"),
        ceiling=limits.share("ceiling"),
        corridors=tuple(
            Corridor(tuple(one.get("from", ())), tuple(one.get("to", ())))
            for one in top.children("corridors")
        ),
        facts=dict(context.facts),
        sponsors=sponsors,
        products=tuple(sorted(products, key=lambda product: product.priority)),
        cooling_off_days=limits.get("cooling_off_days", 0),
        limits=levels,
    )


def _check_time_zone(top: Node) -> None:
    try:
        ZoneInfo(top.text("time_zone"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        top.fault("time_zone", "not a time zone of the IANA database")


def _read_sponsors(top: Node) -> tuple[Sponsor, ...]:
    top.unique("sponsors", "slug")
    sponsors: list[Sponsor] = []
    for node in top.children("sponsors"):
        budget = node.child("budget")
        sponsors.append(
            Sponsor(
                slug=node.text("slug"),
                name=node.text("name"),
                kind=node.get("kind"),
                funding=node.get("funding"),
                budget=budget.money("amount") if budget else None,
                budget_per=budget.get("per", "programme") if budget else None,
            )
        )
    return tuple(sponsors)


def _read_facts(top: Node, sound: Callable[[str], bool]) -> None:
    facts = top.child("facts")
    for name in facts.values if facts is not None else ():
        if unheld := what_is_never_held(name):
            top.context.fault(f"/facts/{name}", f"Mizan holds nothing on {unheld}")
        node = facts.child(name) if facts is not None else None
        if node is None or not sound(node.pointer):
            top.context.doubtful.add(name)
            continue
        type_ = node.text("type")
        if type_ not in {"integer", "money"}:
            for key in {"minimum", "maximum"} & set(node.values):
                node.fault(key, f"{type_} has no {key}")
        values = node.get("values")
        top.context.facts[name] = FactDeclaration(
            name=name,
            type=node.get("type"),
            evidence=node.get("evidence"),
            description=node.text("description"),
            values=None
            if values is None
            else tuple(
                node.typed(raw, f"{node.at('values')}/{position}", type_)
                for position, raw in enumerate(values)
            ),
            minimum=_limit(node, "minimum", type_),
            maximum=_limit(node, "maximum", type_),
            weaker=node.get("weaker", "ignored"),
        )


def _read_levels(top: Node) -> dict[Level, LevelLimits]:
    """The limits of every level: what a level doesn't say is as at the level below it, and none at the lowest."""
    top.unique("verification", "level")
    declared = {node.text("level"): node for node in top.children("verification")}
    limits: dict[Level, LevelLimits] = {}
    below = LevelLimits(None, None)
    for level in LEVELS:
        node = declared.get(level)
        if node is not None:
            below = LevelLimits(
                node.money("contributions_per_month")
                if "contributions_per_month" in node
                else below.contributions_per_month,
                node.money("payouts_per_month") if "payouts_per_month" in node else below.payouts_per_month,
            )
        limits[level] = below
    return limits


def _limit(node: Node, key: str, type_: str) -> int | None:
    value = node.scalar(key, type_) if type_ in {"integer", "money"} else None
    return value if isinstance(value, int) else None


def _check_waterfall(top: Node) -> None:
    """Codes and priorities are unique, and what takes the remainder comes last."""
    top.unique("products", "code")
    top.unique("products", "priority")
    priorities = [node.get("priority") for node in top.children("products")]
    last = max((priority for priority in priorities if isinstance(priority, int)), default=0)
    for node in top.children("products"):
        contribution = node.child("contribution")
        if (
            contribution is not None
            and contribution.get("rule") == "remainder"
            and node.get("priority") != last
        ):
            node.fault("priority", "the product that takes the remainder must come last")


def _check_receivers(top: Node) -> None:
    """What is forfeited to a pool needs a pool that there is no doubt about."""
    pools = {node.get("pool") for node in top.children("products") if "pool" in node}
    for node in top.children("products"):
        match = node.child("match")
        if match is not None and match.get("forfeit_to") == "pool" and len(pools) != 1:
            match.fault(
                "forfeit_to", "the programme has no pool" if not pools else "which of the programme's pools?"
            )


def _check_ceiling(top: Node, products: Iterable[Product]) -> None:
    """Over-allocation is refused here, not when money moves: percentages of one remittance must fit the ceiling."""
    limits = top.child("contributions")
    ceiling = limits.percent("ceiling", most=1) if limits is not None else None
    if limits is None or ceiling is None:
        return
    if ceiling == 0:
        limits.fault("ceiling", "a ceiling is more than nothing")
        return
    asked = sum((most_of_received(product.contribution) for product in products), start=Fraction(0))
    if asked > ceiling:
        limits.fault(
            "ceiling",
            f"over-allocated: the products may ask for {format_percent(asked)} % of what is received, "
            f"and {format_percent(ceiling)} % is the most",
        )
