"""A partner's file beside the books: every disturbance of it is found and typed, and nothing else is.

The books are made by real events. A generator that knows the truth lists them as the partner would, disturbs the list in every
way, writes it in a shape of its own with the mapping that describes it, and says what must be found.
"""

import csv
import hashlib
import io
import json
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from integrations.settlement_files.mapping import parse
from integrations.settlement_files.reading import read
from ledger.clock import FixedClock
from products.remittances.events import MemberKey
from products.remittances.partners import Partner
from products.settlements import comparison
from products.settlements.comparison import NewFile
from tests.conftest import FUZZ, Databases
from tests.world import World

KIGALI = ZoneInfo("Africa/Kigali")
FIRST, LAST = date(2026, 3, 2), date(2026, 3, 8)
ROUNDS = 100 * FUZZ

Found = tuple[str, str, str, int | None, str | None]
"""A difference: type, kind, remittance, row, what we have of it."""


@dataclass(frozen=True)
class Event:
    """One event as it truly happened. `stands`: it is in the books; `due`: it belongs into a file of the week."""

    remittance_id: str
    kind: str
    amount: int
    state: str
    stands: bool
    due: bool
    listed: bool = True
    """Whether the partner, with nothing disturbed, lists it."""


@dataclass
class Week:
    """A week of a partner, as it truly was."""

    world: World
    partner: Partner
    events: list[Event]

    @property
    def programme(self) -> UUID:
        return self.world.programmes["ejoheza"]

    def compare(self, content: bytes, mapping: dict[str, Any]) -> list[Found]:
        """Read and compare; what was found. Nothing is kept."""
        read_by = parse(mapping)
        lines = read(content, read_by)
        with self.world.databases.worker.begin() as tx:
            mapping_id = comparison.keep_mapping(
                tx, self.world.clock, self.partner.id, self.programme, mapping
            )
            file, new = comparison.compare(
                tx,
                self.world.clock,
                NewFile(
                    self.partner.id,
                    self.programme,
                    mapping_id,
                    hashlib.sha256(content).digest(),
                    lines,
                    FIRST,
                    LAST,
                    read_by.reversals == "left_out",
                ),
            )
            assert new
            found = comparison.differences(tx, file, limit=10_000)
            assert comparison.one_of(tx, file).lines == len(lines)
            tx.rollback()
        return sorted(
            ((it.type, it.kind, it.remittance_id, it.position, it.here_state) for it in found), key=repr
        )


@pytest.fixture
def week(databases: Databases, clock: FixedClock) -> Week:
    """Collections and reversals before, in and after a week, in every state that we may have of one."""
    world = World(databases, clock)
    partner = world.partner("acme", exposure_ceiling=20_000 * 34)
    other = world.partner("bolt")
    person, theirs = world.member(partner), world.member(other)
    events: list[Event] = []

    def collected(number: int, at: datetime, state: str = "posted", *, stands: bool = True) -> None:
        day = at.astimezone(KIGALI).date()
        events.append(
            Event(
                f"A{number:03}",
                "collection",
                20_000,
                state,
                stands,
                FIRST <= day <= LAST,
                FIRST <= day <= LAST,
            )
        )

    def send(first: int, count: int, at: datetime, **how: Any) -> list[str]:
        numbers = range(first, first + count)
        sent = [
            world.completed(
                how.get("who", person),
                remittance_id=f"A{number:03}",
                at=at + timedelta(seconds=number),
                currency=how.get("currency", "RWF"),
            )
            for number in numbers
        ]
        verdicts = world.send(partner, *sent)
        for number in numbers:
            collected(
                number,
                at + timedelta(seconds=number),
                how.get("state", "posted"),
                stands=how.get("stands", True),
            )
        return [verdict.state for verdict in verdicts]

    def reverse(first: int, count: int, at: datetime) -> None:
        clock.advance(at - clock.now())
        numbers = range(first, first + count)
        verdicts = world.send(
            partner, *(world.reversed(f"A{number:03}", at=at) for number in numbers), approved=True
        )
        assert {verdict.state for verdict in verdicts} == {"reversed"}
        day = at.astimezone(KIGALI).date()
        for number in numbers:
            events.append(
                Event(
                    f"A{number:03}",
                    "reversal",
                    20_000,
                    "reversed",
                    True,
                    FIRST <= day <= LAST,
                    FIRST <= day <= LAST,
                )
            )
        names = {f"A{number:03}" for number in numbers}
        events[:] = [
            Event(one.remittance_id, one.kind, one.amount, "reversed", one.stands, one.due, one.listed)
            if one.remittance_id in names
            else one
            for one in events
        ]

    def at(day: int, hour: int) -> datetime:
        return datetime(2026, 3, day, hour, tzinfo=UTC)

    clock.advance(at(1, 21) - clock.now())
    assert set(send(1, 6, at(1, 21))) == {"posted"}  # 23:00 on the day before, in Kigali
    clock.advance(at(1, 23) - clock.now())
    assert set(send(10, 12, at(1, 22))) == {"posted"}  # midnight in Kigali: the week's first
    clock.advance(at(5, 10) - clock.now())
    assert set(send(30, 12, at(5, 9))) == {"posted"}
    assert set(send(50, 4, at(5, 9), who=MemberKey("phone", "+971509999999"), state="unallocated")) == {
        "unallocated"
    }
    assert set(send(60, 3, at(5, 9), state="parked", stands=False)) == {"parked"}
    quarantined = send(70, 3, at(5, 9), currency="KES", state="quarantined", stands=False)
    assert set(quarantined) == {"quarantined"}
    # another partner's, of the same names
    world.send(
        other,
        *(world.completed(theirs, remittance_id=f"A{number:03}", at=at(5, 9)) for number in (10, 90, 91)),
    )
    reverse(4, 2, at(6, 8))
    reverse(14, 3, at(7, 8))
    world.send(partner, *(world.reversed(f"A{number:03}", at=at(7, 8)) for number in (80, 81)))
    for number in (80, 81):  # the reversal came, what it reverses did not
        events.append(Event(f"A{number:03}", "reversal", 20_000, "awaiting_original", False, False))
    reverse(30, 2, at(9, 8))
    return Week(world, partner, events)


@dataclass
class Listed:
    """A row of the partner's list."""

    remittance_id: str
    kind: str
    amount: int
    currency: str = "RWF"


def disturb(events: list[Event], left_out: bool, chance: random.Random) -> tuple[list[Listed], list[Found]]:
    """The partner's list, disturbed in every way, and what must be found in it."""
    listed: list[Listed] = []
    both = {
        one.remittance_id
        for one in events
        if one.kind == "reversal"
        and one.due
        and any(it.remittance_id == one.remittance_id and it.kind == "collection" and it.due for it in events)
    }
    for event in events:
        by_itself = event.listed and not (left_out and event.remittance_id in both)
        if by_itself == (chance.random() < 0.1):  # dropped, or put in where it doesn't belong
            continue
        row = Listed(event.remittance_id, event.kind, event.amount)
        if chance.random() < 0.1:
            row.amount += chance.choice((-1, 1, 100, -20_000))
        if chance.random() < 0.05:
            row.currency = chance.choice(("RWF", "KES", "JPY"))
        listed += [row] * (1 if chance.random() < 0.9 else chance.randint(2, 3))
    listed += [
        Listed(f"STRANGER-{number}", chance.choice(("collection", "reversal")), 1)
        for number in range(chance.randint(0, 3))
    ]
    listed += [
        Listed(one.remittance_id, "reversal", 20_000)
        for one in chance.sample(events, 2)
        if one.state == "posted"
    ]
    chance.shuffle(listed)
    return listed, truth(events, listed, left_out, both)


def truth(events: list[Event], listed: list[Listed], left_out: bool, both: set[str]) -> list[Found]:
    """What a person with both lists would find. Rows are counted from 1, the header is the first."""
    known = {(one.remittance_id, one.kind): one for one in events}
    states = {one.remittance_id: one.state for one in events}
    found: list[Found] = []
    seen: set[tuple[str, str]] = set()
    for row, one in enumerate(listed, 2):
        key, state = (one.remittance_id, one.kind), states.get(one.remittance_id)
        event = known.get(key)
        if key in seen:
            found.append(("duplicate", one.kind, one.remittance_id, row, state))
        elif event is None or not event.stands:
            found.append(("missing_here", one.kind, one.remittance_id, row, state))
        elif one.currency != "RWF":
            found.append(("currency", one.kind, one.remittance_id, row, state))
        elif one.amount != event.amount:
            found.append(("amount", one.kind, one.remittance_id, row, state))
        seen.add(key)
    named = {name for name, _ in seen}
    for key, event in known.items():
        if not event.due or key in seen or event.state == "quarantined":
            continue
        if left_out and event.remittance_id in both and event.remittance_id not in named:
            continue
        found.append(("missing_there", event.kind, event.remittance_id, None, event.state))
    return sorted(found, key=repr)


def in_some_shape(
    listed: list[Listed], left_out: bool, chance: random.Random
) -> tuple[bytes, dict[str, Any]]:
    """The list as CSV of some shape, and the mapping that describes it."""
    decimal, thousands = chance.choice(((".", ","), (",", "."), (".", ""), (",", " "), (".", "'")))
    delimiter = chance.choice([it for it in ",;\t|" if it not in (decimal, thousands)])
    encoding = chance.choice(("utf-8", "utf-16", "iso-8859-1", "windows-1252"))
    sign = chance.choice(("positive", "by_sign", "reversals_negative"))
    header = chance.random() < 0.7
    skip = chance.randint(0, 2)
    places = {"RWF": 0, "KES": 2, "JPY": 0}
    names = ["Réf", "Date", "Montant", "Devise", "Type"]
    order = chance.sample(names, len(names))

    def amount(one: Listed) -> str:
        whole, cents = divmod(one.amount, 10 ** places[one.currency])
        written = f"{whole:,}".replace(",", thousands) + (
            f"{decimal}{cents:02}" if places[one.currency] else ""
        )
        negative = one.kind == "reversal" and sign != "positive"
        return f"-{written}" if negative else written

    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    file.write("Relevé du partenaire\r\n" * skip if header else "")
    if header:
        writer.writerow(order)
    for one in listed:
        cells = {
            "Réf": f" {one.remittance_id} ",
            "Date": "05/03/2026 11:00",
            "Montant": amount(one),
            "Devise": {"RWF": "Frw"}.get(one.currency, one.currency),
            "Type": {"collection": "C", "reversal": "Annulé"}[one.kind],
        }
        writer.writerow([cells[name] for name in order])
    net = sum(one.amount if one.kind == "collection" else -one.amount for one in listed)
    one_currency = {one.currency for one in listed} == {"RWF"}
    trailer = one_currency and chance.random() < 0.7
    if trailer:
        row = dict.fromkeys(order, "") | {"Réf": "TOTAL", "Date": str(len(listed)), "Montant": str(net)}
        writer.writerow([row[name] for name in order])

    def place(name: str) -> str | int:
        return name if header else order.index(name) + 1

    mapping: dict[str, Any] = {
        "encoding": encoding,
        "delimiter": delimiter,
        "header": header,
        "skip_rows": skip if header else 0,
        "decimal": decimal,
        "thousands": thousands,
        "remittance_id": {"column": place("Réf")},
        "amount": {"column": place("Montant")},
        "currency": {"column": place("Devise"), "values": {"Frw": "RWF"}},
        "at": {"column": place("Date"), "format": "%d/%m/%Y %H:%M", "zone": "Africa/Kigali"},
        "sign": sign,
        "reversals": "left_out" if left_out else "listed",
    }
    if sign != "by_sign":
        mapping["kind"] = {"column": place("Type"), "values": {"C": "collection", "Annulé": "reversal"}}
    if trailer:
        mapping["trailer"] = {
            "column": place("Réf"),
            "equals": "TOTAL",
            "count": place("Date"),
            "total": place("Montant"),
        }
    return file.getvalue().encode(encoding), mapping


def test_every_disturbance_is_found_and_typed_and_nothing_else(week: Week) -> None:
    found_types: set[tuple[str, str | None]] = set()
    for number in range(ROUNDS):
        chance = random.Random(number if FUZZ == 1 else None)
        left_out = chance.random() < 0.4
        listed, expected = disturb(week.events, left_out, chance)
        content, mapping = in_some_shape(listed, left_out, chance)
        shift = mapping["skip_rows"] + (0 if mapping["header"] else -1)
        if mapping["sign"] == "by_sign" and any(it.kind == "reversal" and it.amount == 0 for it in listed):
            continue  # nothing with a sign is no reversal
        moved = sorted(
            ((a, b, c, None if d is None else d + shift, e) for a, b, c, d, e in expected), key=repr
        )
        assert week.compare(content, mapping) == moved, json.dumps(mapping)
        found_types |= {(it[0], it[4]) for it in expected}
    assert {kind for kind, _ in found_types} == {
        "missing_here",
        "missing_there",
        "amount",
        "currency",
        "duplicate",
    }
    assert {state for kind, state in found_types if kind == "missing_here"} >= {
        None,
        "posted",
        "parked",
        "quarantined",
        "awaiting_original",
    }
    assert {state for kind, state in found_types if kind == "missing_there"} >= {
        "posted",
        "reversed",
        "unallocated",
        "parked",
    }
