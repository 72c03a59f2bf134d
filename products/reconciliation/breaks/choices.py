"""How somebody would end a break: what may be chosen, as it is asked for, kept and read back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, get_args
from uuid import UUID

from ledger.errors import InvalidInput
from products import chart

Method = Literal["pair", "book", "split", "write_off", "wait", "explain"]
"""``pair``: with these items or lines, by hand. ``book``: to an account. ``split``: among several accounts and items. ``write_off``: a
loss, to the administrator's cost. ``wait``: until a day. ``explain``: nothing is booked, and a remark says why it is right as it is."""
METHODS: Final[tuple[Method, ...]] = get_args(Method)

PARTS_MAX: Final = 50
PAIRED_MAX: Final = 1_000

BOOKABLE: Final[Mapping[str, chart.Code]] = {
    code.name: code
    for code in (
        chart.UNIDENTIFIED_RECEIPTS,
        chart.FEES_PAYABLE,
        chart.PAYOUT_CHARGES,
        chart.RETURN_FOR_ALLOCATION,
        chart.SPONSOR_UNCOMMITTED,
        chart.GUARANTOR_RECEIVABLE,
        chart.RAIL_FLOAT,
        chart.BANK,
        chart.BANK_CHARGES,
        chart.ADMINISTRATOR_COST,
        chart.CREDIT_LOSS,
    )
}
"""What a break may be booked to. Accounts that hold exactly what records come to (members' money, contributions, match, what partners
owe, clearing) are not among them: a posting by hand would make the two disagree."""

OF_ADMINISTRATOR: Final = frozenset(
    {chart.BANK_CHARGES.name, chart.ADMINISTRATOR_COST.name, chart.CREDIT_LOSS.name}
)
"""Accounts of the administrator's fund: what is booked there is borne by it, by due-to and due-from."""


@dataclass(frozen=True, slots=True)
class Target:
    """An account to book to: its code, its owner where it has one, its fund where it is not the bank account's own."""

    account: str
    owner: str = ""
    fund: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a split, signed minor units: to an account, or paired with an item."""

    amount: int
    to: Target | None = None
    item: UUID | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. ``lines`` and ``items`` are paired with the break's own; ``to`` takes all of it, or what they differ by."""

    method: Method
    lines: tuple[UUID, ...] = ()
    items: tuple[UUID, ...] = ()
    to: Target | None = None
    parts: tuple[Part, ...] = ()
    until: date | None = None


def checked(choice: Choice) -> Choice:
    """The choice, if it says what its method needs and nothing else. Raises `InvalidInput`."""
    needed: Mapping[Method, tuple[frozenset[str], frozenset[str]]] = {
        "pair": (frozenset(), frozenset({"lines", "items", "to"})),
        "book": (frozenset({"to"}), frozenset({"to"})),
        "split": (frozenset({"parts"}), frozenset({"parts"})),
        "write_off": (frozenset(), frozenset()),
        "wait": (frozenset({"until"}), frozenset({"until"})),
        "explain": (frozenset(), frozenset()),
    }
    required, allowed = needed[choice.method]
    for name in ("lines", "items", "to", "parts", "until"):
        given = getattr(choice, name) not in ((), None)
        if given and name not in allowed:
            raise InvalidInput(f"{choice.method} takes no {name}", pointer=f"/{name}")
        if not given and name in required:
            raise InvalidInput(f"{choice.method} needs {name}", pointer=f"/{name}")
    if choice.method == "pair" and not (choice.lines or choice.items):
        raise InvalidInput("say with which lines or items it is paired", pointer="/items")
    if max(len(choice.lines), len(choice.items)) > PAIRED_MAX or len(choice.parts) > PARTS_MAX:
        raise InvalidInput(f"at most {PAIRED_MAX} lines and items, and {PARTS_MAX} parts")
    for place, part in enumerate(choice.parts):
        if not part.amount or (part.to is None) == (part.item is None):
            raise InvalidInput("a part has an amount, and an account or an item", pointer=f"/parts/{place}")
    for target in _targets(choice):
        if target.account not in BOOKABLE:
            raise InvalidInput(
                f"nothing is booked to {target.account} by hand; to {', '.join(sorted(BOOKABLE))} it is",
                pointer="/to/account",
            )
        if target.account in OF_ADMINISTRATOR and target.fund is not None:
            raise InvalidInput(f"{target.account} lies in the administrator's fund", pointer="/to/fund")
    return choice


def _targets(choice: Choice) -> list[Target]:
    return [one for one in (choice.to, *(part.to for part in choice.parts)) if one is not None]


def written(choice: Choice) -> dict[str, Any]:
    """The choice as JSON."""
    return {
        "method": choice.method,
        "lines": [str(one) for one in choice.lines],
        "items": [str(one) for one in choice.items],
        "to": _written(choice.to),
        "parts": [
            {"amount": part.amount, "to": _written(part.to), "item": str(part.item) if part.item else None}
            for part in choice.parts
        ],
        "until": choice.until.isoformat() if choice.until else None,
    }


def read(stored: Mapping[str, Any]) -> Choice:
    """What `written` wrote."""
    return Choice(
        method=stored["method"],
        lines=tuple(UUID(one) for one in stored["lines"]),
        items=tuple(UUID(one) for one in stored["items"]),
        to=_read(stored["to"]),
        parts=tuple(
            Part(one["amount"], _read(one["to"]), UUID(one["item"]) if one["item"] else None)
            for one in stored["parts"]
        ),
        until=date.fromisoformat(stored["until"]) if stored["until"] else None,
    )


def _written(target: Target | None) -> dict[str, Any] | None:
    return {"account": target.account, "owner": target.owner, "fund": target.fund} if target else None


def _read(stored: Mapping[str, Any] | None) -> Target | None:
    return Target(stored["account"], stored["owner"], stored["fund"]) if stored else None
