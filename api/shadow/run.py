"""A shadow run: a year replayed on a database of its own, and compared with the old system's figures."""

import resource
import sys
import time as clocks
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from api.shadow.compare import Difference, compare
from api.shadow.given import Expected, InvalidShadowInput
from api.shadow.replay import Replay, Replayed, Year
from api.shadow.servers import shadow
from ledger.clock import FixedClock
from ledger.database import Tx, cursor
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.programmes.loader import load

DAYS_MAX = 366 * 5


@dataclass(slots=True)
class ShadowReport:
    """What a shadow run found. ``verified``: the shadow's own books verify. Seconds and bytes are those of this run.

    ``breaks``: what did not tie between events, settlements and statements at the end, by type: how many.
    """

    currency: str
    since: date
    through: date
    replayed: Replayed
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    breaks: dict[str, int] = field(default_factory=dict)
    verified: bool = False
    seconds: float = 0.0
    memory_bytes_max: int = 0

    @property
    def totals(self) -> dict[tuple[date, str], tuple[int, int, int]]:
        """By day and figure: how many differ, and what ours and theirs come to in those."""
        sums: defaultdict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for one in self.differences:
            of = sums[one.on, one.figure]
            of[0] += 1
            of[1] += one.ours or 0
            of[2] += one.theirs or 0
        return {key: (value[0], value[1], value[2]) for key, value in sorted(sums.items())}


def run(
    year: Year,
    expected: Sequence[Expected],
    *,
    folder: Path | None = None,
    sample: bool = False,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> ShadowReport:
    """Replay a year in a shadow and compare. ``sample``: the old system's file names some members only. ``told``: days done, of all.

    Raises `InvalidShadowInput`, `FolderNotEmpty`, and what the opening balances raise.
    """
    began = clocks.monotonic()
    sources = [load(source) for source in year.programmes]
    if not sources or len({one.slug for one in sources}) != 1:
        raise InvalidShadowInput("give the versions of one programme, the oldest first")
    programme = sources[-1]
    days = (year.through - year.since).days + 1
    if not 1 <= days <= DAYS_MAX:
        raise InvalidShadowInput(f"a run goes over 1 to {DAYS_MAX} days")
    if any(one.on < year.since for one in expected):
        raise InvalidShadowInput(f"the old system's file has figures from before {year.since}")
    midnight = datetime.combine(year.since, time(0), ZoneInfo(programme.time_zone))
    clock = FixedClock(midnight.astimezone(UTC) - timedelta(seconds=1))
    by_day: defaultdict[date, list[Expected]] = defaultdict(list)
    for one in expected:
        by_day[one.on].append(one)
    with shadow(clock, folder) as services:
        replay = Replay(services, clock, year, programme)
        report = ShadowReport(programme.currency, year.since, year.through, replay.done)
        replay.prepare()
        for day in replay.days():
            if day in by_day:
                with services.worker.read() as tx:
                    compared, differences = compare(
                        tx,
                        replay.links,
                        by_day[day],
                        replay.done.not_taken,
                        day,
                        to_join=replay.to_join(),
                        whole=not sample and day == year.through,
                    )
                report.compared += compared
                report.differences += differences
            told(replay.done.days, days)
        with services.worker.read() as tx:
            report.breaks = _breaks(tx)
            report.verified = verify(tx, extra_checks=tuple(one.run for one in PRODUCT_CHECKS)).ok
    report.seconds = round(clocks.monotonic() - began, 3)
    # Linux counts in KiB, macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    report.memory_bytes_max = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return report


def _breaks(tx: Tx) -> dict[str, int]:
    rows = cursor(tx).execute(
        "SELECT type, count(*) FROM products.break WHERE ended_at IS NULL GROUP BY 1 ORDER BY 1"
    )
    return dict(rows.fetchall())
