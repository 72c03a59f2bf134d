"""The rules by which lines and items are paired: data, validated, versioned for each bank account.

A rule says what a line and an item must have in common (`on`), how far apart in days they may be, and how many of each belong
together (`pairs`); the engine tries them in order. Sign, currency and sums are equal under every rule.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final, Literal
from uuid import UUID

import yaml
from jsonschema import Draft202012Validator
from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput

RULES_BYTES_MAX: Final = 65_536
IDENTIFIERS_MAX: Final = 50
"""How many identifiers are kept of one line."""
TEXT_MAX: Final = 4_000
"""How much of a line's free text is searched, in characters."""

_NAME: Final = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"}
_DAYS: Final = {"type": "integer", "minimum": 0, "maximum": 366}

SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Rules of pairing",
    "type": "object",
    "additionalProperties": False,
    "required": ["rules"],
    "properties": {
        "look_back_days": {
            "type": "integer",
            "minimum": 1,
            "maximum": 3660,
            "description": "older lines and items are left to people",
        },
        "identifiers": {
            "type": "array",
            "maxItems": 20,
            "items": {"type": "string", "minLength": 1, "maxLength": 200},
            "description": "regular expressions that free text is searched for",
        },
        "parties": {
            "type": "array",
            "maxItems": 500,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["party"],
                "anyOf": [{"required": ["names"]}, {"required": ["accounts"]}],
                "properties": {
                    "party": {"type": "string", "minLength": 1, "maxLength": 100},
                    "names": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 3}},
                    "accounts": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 4}},
                },
            },
            "description": "who the other side is, by the name (or a part of it) or the account that the bank says",
        },
        "rules": {
            "type": "array",
            "minItems": 1,
            "maxItems": 40,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "pairs", "on", "days"],
                "properties": {
                    "name": _NAME,
                    "pairs": {"enum": ["one_to_one", "one_line_to_many", "many_lines_to_one"]},
                    "on": {
                        "type": "array",
                        "uniqueItems": True,
                        "items": {
                            "enum": ["reference", "end_to_end", "identifiers", "party", "day", "batch"]
                        },
                    },
                    "days": _DAYS,
                    "alone_days": _DAYS,
                    "search": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["candidates_max", "steps_max"],
                        "properties": {
                            "candidates_max": {"type": "integer", "minimum": 2, "maximum": 24},
                            "steps_max": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
                        },
                    },
                    "tolerance": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["basis_points", "amount_max"],
                        "properties": {
                            "basis_points": {"type": "integer", "minimum": 1, "maximum": 1_000},
                            "amount_max": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}
"""The published shape of a file of rules (JSON Schema 2020-12)."""

_VALIDATOR: Final = Draft202012Validator(SCHEMA)

Pairs = Literal["one_to_one", "one_line_to_many", "many_lines_to_one"]
Field = Literal["reference", "end_to_end", "identifiers", "party", "day", "batch"]
_TELLING: Final = frozenset({"reference", "end_to_end", "identifiers"})
_SHAPES: Final[Mapping[Pairs, frozenset[frozenset[str]]]] = {
    "one_to_one": frozenset(
        frozenset(on)
        for on in (
            {"reference"},
            {"end_to_end"},
            {"reference", "end_to_end"},
            {"identifiers"},
            {"party"},
            set[str](),
        )
    ),
    "one_line_to_many": frozenset(
        frozenset(on) for on in ({"identifiers"}, {"party", "day"}, {"party", "day", "batch"}, {"party"})
    ),
    "many_lines_to_one": frozenset(frozenset(on) for on in ({"identifiers"}, {"party", "day"}, {"party"})),
}
"""What each kind of rule can be on: what the engine has a statement for."""


class InvalidRules(InvalidInput):
    """A file of rules that can't be used; the detail says what is wrong, and where."""

    code = "invalid_pairing_rules"


@dataclass(frozen=True, slots=True)
class Search:
    """How far a search for sums goes: at most so many candidates for one sum, and so many steps."""

    candidates_max: int
    steps_max: int


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much of an item's amount the bank may have kept as its fee: within both."""

    basis_points: int
    amount_max: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``alone_days``: within so many days no other line or item, paired or not, may have the amount."""

    name: str
    pairs: Pairs
    on: frozenset[str]
    days: int
    alone_days: int
    search: Search | None
    tolerance: Tolerance | None

    @property
    def is_telling(self) -> bool:
        """Whether it rests on something that names the one payment, and not on amounts and days."""
        return bool(self.on & _TELLING)


@dataclass(frozen=True)
class Rules:
    """The rules of a bank account, in the order in which they are tried. Version 0 comes with the program."""

    version: int
    content: Mapping[str, Any]
    rules: tuple[Rule, ...]
    look_back_days: int
    _patterns: tuple[re.Pattern[str], ...] = field(repr=False)

    @cached_property
    def _accounts(self) -> Mapping[str, str]:
        return {
            _bare(account): one["party"]
            for one in reversed(self.content.get("parties", []))
            for account in one.get("accounts", [])
        }

    def identifiers_in(self, text: str) -> tuple[str, ...]:
        """What the patterns find in a line's free text: each in upper case, without spaces, once.

        Banks break references where their lines end, so what a pattern finds with one blank left out counts too.
        """
        searched = text[:TEXT_MAX]
        found: dict[str, str] = {}
        for variant in (searched, *_joined(searched)):
            for pattern in self._patterns:
                for match in pattern.finditer(variant):
                    name = "".join(match.group().split()).upper()
                    found.setdefault(name.translate(_WITHOUT_SEPARATORS), name)
                    if len(found) == IDENTIFIERS_MAX:
                        return tuple(found.values())
        return tuple(found.values())

    def party_of(self, counterparty: str | None, account: str | None, text: str) -> str | None:
        """Who the other side of a line is: by its account, else by the first of `parties` whose name it bears."""
        if account is not None and (known := self._accounts.get(_bare(account))) is not None:
            return known
        named = " ".join((counterparty or text).casefold().split())
        for one in self.content.get("parties", []):
            if any(" ".join(name.casefold().split()) in named for name in one.get("names", [])):
                return str(one["party"])
        return None


_WITHOUT_SEPARATORS: Final = str.maketrans("", "", "-_/.")


def _joined(text: str) -> Sequence[str]:
    """The text with every other blank left out, both ways: two neighbours at a time become one word."""
    words = text.split()
    return [
        " ".join("".join(words[at : at + 2]) for at in range(start, len(words), 2))
        for start in (0, 1)
        if len(words) > start + 1
    ]


def _bare(account: str) -> str:
    return "".join(account.split()).upper()


def read(content: str) -> Mapping[str, Any]:
    """The rules that a YAML file holds, checked. Raises InvalidRules with the first fault."""
    if len(content.encode()) > RULES_BYTES_MAX:
        raise InvalidRules(f"a file of rules has at most {RULES_BYTES_MAX} bytes")
    try:
        data = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise InvalidRules(f"not YAML: {' '.join(str(error).split())}") from error
    check(data)
    document: Mapping[str, Any] = data
    return document


def check(data: object) -> None:
    """Raises InvalidRules unless these are rules that the engine can follow."""
    for error in sorted(
        _VALIDATOR.iter_errors(data), key=lambda error: [str(step) for step in error.absolute_path]
    ):
        raise InvalidRules(error.message, pointer="".join(f"/{step}" for step in error.absolute_path))
    assert isinstance(data, dict)  # noqa: S101  the schema says so
    for number, pattern in enumerate(data.get("identifiers", [])):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidRules(
                f"not a regular expression: {error}", pointer=f"/identifiers/{number}"
            ) from error
    names: set[str] = set()
    for number, one in enumerate(data["rules"]):
        _check_rule(one, f"/rules/{number}", names)
        names.add(one["name"])


def _check_rule(one: Mapping[str, Any], pointer: str, names: set[str]) -> None:
    on = frozenset(one["on"])
    if one["name"] in names or one["name"] == "by_hand":
        raise InvalidRules(f"the name {one['name']} is taken", pointer=f"{pointer}/name")
    if on not in _SHAPES[one["pairs"]]:
        possible = "; ".join(sorted(", ".join(sorted(each)) or "nothing" for each in _SHAPES[one["pairs"]]))
        raise InvalidRules(f"{one['pairs']} goes on one of: {possible}", pointer=f"{pointer}/on")
    searched = one["pairs"] != "one_to_one" and on == {"party"}
    if searched != ("search" in one):
        raise InvalidRules(
            "a search is for one_line_to_many and many_lines_to_one on party alone, and these need its limits",
            pointer=f"{pointer}/search",
        )
    if "tolerance" in one and (one["pairs"] != "one_to_one" or not on & _TELLING):
        raise InvalidRules(
            "only a reference can tell which amount a fee was kept of", pointer=f"{pointer}/tolerance"
        )
    if one.get("alone_days", one["days"]) < one["days"]:
        raise InvalidRules("alone_days is at least days", pointer=f"{pointer}/alone_days")


def of_content(version: int, content: Mapping[str, Any]) -> Rules:
    """Checked content as rules."""
    return Rules(
        version=version,
        content=content,
        rules=tuple(
            Rule(
                name=one["name"],
                pairs=one["pairs"],
                on=frozenset(one["on"]),
                days=one["days"],
                alone_days=one.get("alone_days", one["days"]),
                search=Search(**one["search"]) if "search" in one else None,
                tolerance=Tolerance(**one["tolerance"]) if "tolerance" in one else None,
            )
            for one in content["rules"]
        ),
        look_back_days=content.get("look_back_days", 400),
        _patterns=tuple(re.compile(pattern) for pattern in content.get("identifiers", [])),
    )


@cache
def default() -> Rules:
    """The rules that come with the program."""
    file = resources.files("ledger.reconciliation") / "default_rules.yaml"
    return of_content(0, read(file.read_text(encoding="utf-8")))


def of_account(tx: Tx, bank_account_id: UUID) -> Rules:
    """The newest version that was applied to a bank account, or the rules that come with the program."""
    row = tx.execute(
        text(
            "SELECT version, content FROM ledger.pairing_rules WHERE bank_account_id = :account"
            " ORDER BY version DESC LIMIT 1"
        ),
        {"account": bank_account_id},
    ).first()
    return default() if row is None else of_content(row.version, row.content)


def apply(
    tx: Tx, bank_account_id: UUID, content: Mapping[str, Any], *, applied_by: str, clock: Clock
) -> Rules:
    """Makes these the bank account's rules from now on; what was paired before stays. The same content again changes nothing.

    Raises InvalidRules, and Conflict where somebody applied another version at the same moment.
    """
    check(content)
    current = of_account(tx, bank_account_id)
    if current.version > 0 and current.content == content:
        return current
    version = current.version + 1
    row = tx.execute(
        text(
            "INSERT INTO ledger.pairing_rules (bank_account_id, version, content, applied_by, applied_at)"
            " VALUES (:account, :version, CAST(:content AS jsonb), :by, :at) ON CONFLICT DO NOTHING RETURNING version"
        ),
        {
            "account": bank_account_id,
            "version": version,
            "content": json.dumps(content),
            "by": applied_by,
            "at": clock.now(),
        },
    ).first()
    if row is None:
        raise Conflict("another version was applied at the same moment")
    return of_content(version, content)
