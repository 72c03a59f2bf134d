"""What a check-list says: items, what was found for each, and a person's word about it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal

State = Literal["green", "explained", "red"]
ItemName = Literal[
    "statements", "breaks", "verified", "sub_ledgers", "suspense", "quarantine", "event_totals"
]

FINDINGS_MAX: Final = 1_000
"""Findings of one item at most; when there are more, the last says how many, and nobody explains that one away."""
MORE: Final = "more"
"""The subject of the finding that stands for those beyond `FINDINGS_MAX`."""

TITLES: Final[Mapping[ItemName, str]] = {
    "statements": "Bank statements are complete",
    "breaks": "Breaks are explained",
    "verified": "The books are verified and sealed",
    "sub_ledgers": "Sub-ledgers tie to their control accounts",
    "suspense": "Suspense is at zero or explained",
    "quarantine": "Quarantine is listed, valued and owned",
    "event_totals": "Event totals are confirmed with the partners",
}

EXPLAINABLE: Final[frozenset[ItemName]] = frozenset({"breaks", "suspense", "quarantine", "event_totals"})
"""Items whose findings a person may explain; the others have to be put right."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A person's dated word about a finding; ``owner`` is who sees to it, where that has to be said."""

    remark: str
    by: str
    at: datetime
    owner: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For the check-list of a pack."""
        return {"remark": self.remark, "by": self.by, "at": self.at.isoformat(), "owner": self.owner}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    ``subject`` names it within its item. ``amount`` is in minor units, ``count`` of how many things it is the sum; an
    explanation holds as long as both are what they were. ``link`` is where the API shows it. What can't be explained is
    red until it is put right.
    """

    subject: str
    what: str
    amount: int | None = None
    currency: str | None = None
    count: int | None = None
    link: str | None = None
    explainable: bool = True
    explanation: Explanation | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What an explanation is about: another amount or number makes it a finding that nobody has explained."""
        return {"amount": self.amount, "currency": self.currency, "count": self.count}

    def to_json(self) -> dict[str, Any]:
        """For the check-list of a pack."""
        return {
            "subject": self.subject,
            "what": self.what,
            **self.facts,
            "link": self.link,
            "explanation": self.explanation.to_json() if self.explanation else None,
        }


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the check-list; ``figures`` are what was looked at, in numbers."""

    name: ItemName
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, int | str | None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the item says when it is green."""
        return TITLES[self.name]

    @property
    def explainable(self) -> bool:
        """Whether its findings may be explained."""
        return self.name in EXPLAINABLE

    @property
    def state(self) -> State:
        """Green without findings, explained when each has an explanation, else red."""
        if not self.findings:
            return "green"
        return "explained" if all(one.explanation for one in self.findings) else "red"

    def to_json(self) -> dict[str, Any]:
        """For the pack."""
        return {
            "item": self.name,
            "title": self.title,
            "state": self.state,
            "explainable": self.explainable,
            "figures": dict(self.figures),
            "findings": [one.to_json() for one in self.findings],
        }


@dataclass(frozen=True, slots=True)
class CheckList:
    """Every item, judged at one moment."""

    programme: str
    month: date
    judged_at: datetime
    items: tuple[Item, ...]

    @property
    def green(self) -> bool:
        """Whether the month may be closed: nothing is red."""
        return all(item.state != "red" for item in self.items)

    @property
    def red(self) -> tuple[Item, ...]:
        """The items that stand in the way."""
        return tuple(item for item in self.items if item.state == "red")

    @property
    def digest(self) -> str:
        """Of what was found and explained, in hexadecimal: two check-lists with the same say the same."""
        said = [item.to_json() for item in self.items]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def limited(findings: list[Finding]) -> tuple[Finding, ...]:
    """The findings, or the first `FINDINGS_MAX` and one that says how many more there are."""
    if len(findings) <= FINDINGS_MAX:
        return tuple(findings)
    rest = len(findings) - FINDINGS_MAX
    more = Finding(MORE, f"{rest} more of them are not listed here.", count=rest, explainable=False)
    return (*findings[:FINDINGS_MAX], more)
