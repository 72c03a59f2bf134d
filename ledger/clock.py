"""The one clock. Whatever needs the time is given a `Clock`; tests give a `FixedClock`."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        ...


def rfc3339(at: datetime) -> str:
    """An aware instant as others are told it: ``2026-03-01T08:00:00.25Z``, in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is advanced."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("a clock needs an aware time")
        self._at = at.astimezone(UTC)

    def now(self) -> datetime:
        """The instant at which the clock stands."""
        return self._at

    def advance(self, by: timedelta) -> None:
        """Move the clock on (or back, where ``by`` is negative)."""
        self._at += by
