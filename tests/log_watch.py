"""Everything that Mizan logs during a run of the tests, searched at its end for what the tests have planted.

Whatever this process logs goes through Mizan's own pipeline into a file of the run's folder, from INFO up; processes that
tests start are told by MIZAN_LOG_FILE to do the same. It does not matter which test logged it: the run fails.
"""

import logging
import os
from pathlib import Path

import pytest

from api.observability import logs
from tests import planted

LOG_FILE = "MIZAN_LOG_FILE"
SHOWN_MAX = 20


def pytest_configure() -> None:
    """For a run of this plugin alone: watch in the folder that LOG_FILE is in."""
    if LOG_FILE in os.environ:
        begin(Path(os.environ[LOG_FILE]).parent)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """For a run of this plugin alone."""
    if LOG_FILE in os.environ:
        end(session, Path(os.environ[LOG_FILE]).parent)


def begin(folder: Path) -> None:
    """Write what is logged from now on into `folder`, which all workers of the run share."""
    logs.use_structlog()
    root = logging.getLogger()
    root.addHandler(logs.file_handler(folder / f"tests-{os.getpid()}.jsonl", "tests"))
    root.setLevel(logging.INFO)
    for name in ("httpx", "alembic"):  # the tests' own requests, and each test's schema
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ[LOG_FILE] = str(folder / "processes.jsonl")


def found(folder: Path) -> list[str]:
    """The lines of the run's logs that hold something planted."""
    return [
        f"{file.name}: {line}"
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if planted.PERSONAL.search(line) or planted.SECRET.search(line)
    ]


def end(session: pytest.Session, folder: Path) -> None:
    """Fail the run if there are any."""
    lines = found(folder)
    if lines:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\n{len(lines)} lines of the log hold personal data or secrets that tests have planted:")
        print("\n".join(line[:2000] for line in lines[:SHOWN_MAX]))
