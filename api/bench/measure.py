"""What the benchmarks share: the form of a report, the machine, and servers that live as long as the run."""

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from api.embedded import EmbeddedServers, servers
from api.migrations.run import upgrade
from api.settings import load

_TOLD_SETTINGS = ("shared_buffers", "fsync", "synchronous_commit", "full_page_writes", "max_wal_size", "jit")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures come from."""

    cpu: str
    cores: int
    memory: str
    python: str
    postgres: str
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one benchmark: medians over the rounds, each with its ``_min`` and ``_max``."""

    name: str
    figures: dict[str, float]
    machine: Machine

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(asdict(self))


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds, beside its extremes."""
    figures: dict[str, float] = {}
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        figures[name] = round(statistics.median(values), 3)
        figures[f"{name}_min"] = round(min(values), 3)
        figures[f"{name}_max"] = round(max(values), 3)
    return figures


def machine(postgres_url: str) -> Machine:
    """This machine and the server behind a libpq URL."""
    with psycopg.connect(postgres_url) as connection:
        settings = {}
        for name in _TOLD_SETTINGS:
            row = connection.execute("select current_setting(%s)", [name]).fetchone()
            settings[name] = str(row[0]) if row else ""
        version = connection.info.server_version
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=f"{pages / 2**30:.1f} GiB",
        python=platform.python_version(),
        postgres=f"{version // 10_000}.{version % 10_000}",
        settings=settings,
    )


@contextmanager
def temporary_servers(postgres_overrides: Mapping[str, str] | None = None) -> Iterator[EmbeddedServers]:
    """Migrated embedded servers in a temporary directory, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mizan-bench-") as folder:
        Path(folder).chmod(0o711)
        settings = load(data_dir=Path(folder) / "data", _env_file=None)
        with servers(settings, postgres_overrides=postgres_overrides) as running:
            upgrade(running.url("mizan_owner"))
            yield running


def libpq(url: str) -> str:
    """A SQLAlchemy URL as psycopg itself reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def show(report: Report, *, as_json: bool) -> None:
    """Print the report: one line of JSON, or a table for people."""
    if as_json:
        print(report.to_json())
        return
    table = Table("figure", "median", "min", "max", title=report.name)
    for name, value in report.figures.items():
        if f"{name}_min" in report.figures:
            low, high = report.figures[f"{name}_min"], report.figures[f"{name}_max"]
            table.add_row(name, f"{value:,}", f"{low:,}", f"{high:,}")
    console = Console()
    console.print(table)
    console.print(asdict(report.machine))


def command(run: Callable[[int], Report], *, rounds: int) -> None:
    """The command line of a benchmark: ``--json`` and ``--rounds``."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--rounds", type=int, default=rounds)
    arguments = parser.parse_args()
    show(run(arguments.rounds), as_json=arguments.as_json)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
