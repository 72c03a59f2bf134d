"""Leaves: each thing that a transaction says changes its leaf."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from ledger.leaves import canonical_details, leaf, microseconds

A, B, C, SELF = (UUID(int=n) for n in (1, 2, 3, 9))


@dataclass(frozen=True)
class Row:
    salt: bytes = b"s" * 16
    id: UUID = SELF
    reference: str = "remittance:1"
    kind: str = "contribution"
    effective_on: date = date(2026, 3, 2)
    recorded_at: datetime = datetime(2026, 3, 2, 9, 30, 0, 1, tzinfo=UTC)
    reverses: UUID | None = None
    details: dict[str, Any] | None = None
    postings: tuple[tuple[UUID, UUID, int, str, date], ...] = (
        (A, B, 5, "PHP", date(2026, 3, 2)),
        (B, C, 2, "PHP", date(2026, 3, 2)),
    )

    def leaf(self) -> bytes:
        return leaf(**vars(self))


@pytest.mark.parametrize(
    "change",
    [
        {"salt": b"t" * 16},
        {"id": UUID(int=10)},
        {"reference": "remittance:2"},
        {"reference": "remittance:1contribution", "kind": ""},
        {"kind": "contributions"},
        {"effective_on": date(2026, 3, 3)},
        {"recorded_at": datetime(2026, 3, 2, 9, 30, 0, 2, tzinfo=UTC)},
        {"reverses": A},
        {"details": {}},
        {"postings": Row.postings[::-1]},
        {"postings": Row.postings[:1]},
        {"postings": ((B, A, *Row.postings[0][2:]), Row.postings[1])},
        {"postings": ((A, B, 6, "PHP", date(2026, 3, 2)), Row.postings[1])},
        {"postings": ((A, B, 5, "USD", date(2026, 3, 2)), Row.postings[1])},
        {"postings": ((A, B, 5, "PHP", date(2026, 3, 3)), Row.postings[1])},
    ],
)
def test_each_change_shows(change: dict[str, Any]) -> None:
    assert replace(Row(), **change).leaf() != Row().leaf()


def test_the_leaf_is_what_its_definition_says() -> None:
    def field(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    def number(value: int, size: int) -> bytes:
        return field(value.to_bytes(size, "big"))

    day = (date(2026, 3, 2) - date(2000, 1, 1)).days
    instant = (Row.recorded_at - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    written = b"\x00\x01" + field(SELF.bytes) + field(b"remittance:1") + field(b"contribution")
    written += (
        number(day, 4)
        + number(instant, 8)
        + b"\xff\xff\xff\xff"
        + number(2, 2)
        + field(b'\x01{"a":"\\u00e9"}')
    )
    written += field(b"s" * 16)
    for seq, (debit, credit, amount, currency, _) in enumerate(Row.postings, start=1):
        written += b"\x00\x07" + field(SELF.bytes) + number(seq, 2) + field(debit.bytes) + field(credit.bytes)
        written += number(amount, 8) + field(currency.encode()) + number(day, 4)
    assert replace(Row(), details={"a": "é"}).leaf() == sha256(written).digest()


def test_an_instant_has_one_number_whatever_its_zone() -> None:
    assert microseconds(datetime(2000, 1, 1, 0, 0, 0, 7, tzinfo=UTC)) == 7


def test_details_have_one_spelling() -> None:
    assert canonical_details({"b": [1, None], "a": {"y": True, "x": "é"}}) == (
        b'{"a":{"x":"\\u00e9","y":true},"b":[1,null]}'
    )
    assert canonical_details(None) is None
    for loose in ({"a": 1.5}, {"a": [{"b": 0.1}]}, {"a": {1: 2}}):
        with pytest.raises(TypeError):
            canonical_details(loose)
