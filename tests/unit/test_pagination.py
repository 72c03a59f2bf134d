"""Cursors: signed, bound to what they belong to, and dead after a week."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.pagination import Cursors, Position
from api.problems import ProblemError
from ledger.clock import FixedClock
from products.keyring import Keyring

KEYRING = Keyring.of(bytes(range(32)))
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
BOUND = {"route": "remittances", "client": "cli_x", "filters": {"state": "posted"}}


def cursors(clock: FixedClock | None = None) -> Cursors:
    return Cursors(KEYRING, clock or FixedClock(NOW))


def written(position: Position) -> str:
    cursor = cursors().write(position, **BOUND)  # type: ignore[arg-type]  # the three keywords, as one dict
    assert cursor is not None
    return cursor


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])), max_size=5)
)
def test_a_cursor_carries_its_position(position: Position) -> None:
    assert cursors().read(written(position), **BOUND) == position  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"route": "deliveries"}, {"client": "cli_y"}, {"filters": {"state": "parked"}}, {"filters": {}}],
)
def test_a_cursor_belongs_to_its_list_client_and_filters(change: dict[str, object]) -> None:
    with pytest.raises(ProblemError) as refused:
        cursors().read(written([1]), **(BOUND | change))  # type: ignore[arg-type]
    assert refused.value.code == "invalid_cursor"


def test_a_cursor_dies_after_seven_days() -> None:
    clock = FixedClock(NOW)
    cursor = written([1])
    clock.advance(timedelta(days=7) - timedelta(seconds=1))
    assert cursors(clock).read(cursor, **BOUND) == [1]  # type: ignore[arg-type]
    clock.advance(timedelta(seconds=1))
    with pytest.raises(ProblemError):
        cursors(clock).read(cursor, **BOUND)  # type: ignore[arg-type]


@given(st.text(min_size=1))
def test_what_we_did_not_write_is_no_cursor(text: str) -> None:
    with pytest.raises(ProblemError):
        cursors().read(text, **BOUND)  # type: ignore[arg-type]


def test_no_cursor_is_the_beginning_and_no_position_the_end() -> None:
    assert cursors().read(None, **BOUND) is None  # type: ignore[arg-type]
    assert cursors().write(None, **BOUND) is None  # type: ignore[arg-type]
