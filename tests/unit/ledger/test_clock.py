"""Clocks, and the errors' one form."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ledger.clock import FixedClock, SystemClock
from ledger.errors import HoldError, InvalidId, MizanError


def test_the_machines_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_a_fixed_clock_stands_until_it_is_advanced() -> None:
    clock = FixedClock(datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8))))
    assert clock.now() == clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    clock.advance(timedelta(days=1))
    assert clock.now() == datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(ValueError, match="aware"):
        FixedClock(datetime(2026, 1, 1))  # noqa: DTZ001


def test_errors_carry_a_stable_code_and_where_they_point() -> None:
    error = HoldError("ended", code="hold_ended", pointer="/hold")
    assert (error.code, error.status, error.detail, error.pointer) == ("hold_ended", 409, "ended", "/hold")
    assert (InvalidId("no").code, MizanError("no").status) == ("invalid_id", 500)
