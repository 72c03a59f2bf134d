"""The watched folder: finished files come in once and are put away, whatever is killed in between."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from api.bootstrap import Services, bootstrap
from api.settings import Settings
from api.statements_folder import Look, take
from ledger.clock import FixedClock
from ledger.reconciliation import bank_accounts
from tests.conftest import Databases, environment_of
from tests.http.test_bank_statements import mt940
from tests.integration.reconciliation import folder_process
from tests.integration.reconciliation.bank import Bank
from tests.patience import eventually
from tests.world import World

LINES = 400


@pytest.fixture
def bank(databases: Databases, clock: FixedClock) -> Bank:
    world = World(databases, clock)
    world.programme()
    bank = Bank(databases, world.books.keyring, clock)
    bank.account()
    return bank


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    services = bootstrap(settings)
    yield services
    services.close()


def a_day(number: int, lines: int = 1) -> bytes:
    """A statement of one day, and the day's number in its content."""
    return mt940(
        *((f"C{number + 1},", f"line {line}") for line in range(lines)),
        opening="C260301RWF0,",
        closing=f"C260302RWF{lines * (number + 1)},",
        number=str(number),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def rows(bank: Bank, query: str) -> list[tuple[object, ...]]:
    with bank.databases.superuser.begin() as tx:
        return [tuple(row) for row in tx.exec_driver_sql(query)]


def test_finished_files_are_taken_once_and_put_away_and_a_refused_one_lies_beside_its_reason(
    bank: Bank, services: Services, tmp_path: Path
) -> None:
    (tmp_path / "1.sta").write_bytes(a_day(1))
    (tmp_path / "2.sta.part").write_bytes(a_day(2))
    (tmp_path / "3.sta").write_bytes(b"nothing that a bank would send")
    (tmp_path / "4.sta").symlink_to(tmp_path / "2.sta.part")
    own = tmp_path / "kigali-savers"
    own.mkdir()
    (own / "5.csv").write_text("Date;Amount\n2026-03-03;7,00\n")
    assert take(services, tmp_path, settled_seconds=3600) == Look()  # somebody may be writing still
    assert take(services, tmp_path, settled_seconds=0) == Look(imported=1, refused=2)
    (tmp_path / "1.sta").write_bytes(a_day(1))
    (tmp_path / "2.sta.part").rename(tmp_path / "2.sta")
    assert take(services, tmp_path, settled_seconds=0) == Look(imported=1, known=1)
    assert names(tmp_path) == ["4.sta", "done", "kigali-savers", "refused"]
    assert names(tmp_path / "done") == ["1-2.sta", "1.sta", "2.sta"]
    assert names(tmp_path / "refused") == ["3.sta", "3.sta.reason", "5.csv", "5.csv.reason"]
    reasons = [
        (tmp_path / "refused" / f"{name}.reason").read_text().split("\n")[0] for name in ("3.sta", "5.csv")
    ]
    assert reasons == ["unknown_statement_format", "invalid_request"]  # nobody has said how its CSV is read
    with bank.databases.worker.begin() as tx:
        mapping = {
            "booked_on": {"column": "Date", "format": "%Y-%m-%d"},
            "amount": {"column": "Amount"},
        }
        bank_accounts.change(tx, bank.accounts["kigali-savers"].id, statement_mapping=mapping)
    outcomes = rows(
        bank,
        "SELECT outcome, count(*) FROM ledger.audit_entry WHERE action = 'bank_statement.imported' GROUP BY 1 ORDER BY 1",
    )
    assert outcomes == [("done", 2), ("refused", 2)]
    # names that no encoding can write, that are too long for a reason beside them, or hold a line's end, stop nobody
    for number, name in enumerate((b"6-\xff\xfe.sta", b"7-\n.sta"), 6):
        (tmp_path / os.fsdecode(name)).write_bytes(a_day(number))
    (tmp_path / f"{'8' * 251}.sta").write_bytes(b"nothing")
    assert take(services, tmp_path, settled_seconds=0) == Look(imported=2, refused=1)
    assert take(services, tmp_path, settled_seconds=0) == Look()
    assert {os.fsdecode(b"6-\xff\xfe.sta"), "7-\n.sta"} < set(names(tmp_path / "done"))
    assert {f"{'8' * 196}.sta", f"{'8' * 196}.sta.reason"} < set(names(tmp_path / "refused"))


@contextmanager
def looking(settings: Settings, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that looks when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", folder_process.__name__, str(folder)],
        env=os.environ | environment_of(settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate(timeout=60)


def told(process: "subprocess.Popen[str]") -> int:
    """Tell it to look; the child that does."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("look\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def ended(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_whoever_is_killed_while_files_come_in_leaves_each_of_them_once(
    bank: Bank, settings: Settings, tmp_path: Path
) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.sta").write_bytes(a_day(number, LINES))
    chance = random.Random(5)
    killed = 0
    with looking(settings, tmp_path) as process:
        # one is stopped for certain in the middle: its file is sealed, and the account is another's
        with bank.databases.superuser.begin() as tx:
            tx.exec_driver_sql("SELECT 1 FROM ledger.bank_account FOR UPDATE")
            child = told(process)
            eventually(lambda: _waits(bank))
            os.kill(child, signal.SIGKILL)
            assert ended(process) == signal.SIGKILL
        eventually(lambda: not _waits(bank))
        assert rows(bank, "SELECT count(*) FROM ledger.statement_file") == [(0,)]
        for _ in range(100):
            child = told(process)
            time.sleep(chance.uniform(0.05, 0.6))
            with suppress(ProcessLookupError):  # it came to its end before
                os.kill(child, signal.SIGKILL)
            if ended(process) == 0:
                break
            killed += 1
            if killed >= 5:
                told(process)
                assert ended(process) == 0
                break
    assert names(tmp_path) == ["done"]
    assert len(names(tmp_path / "done")) == 12
    kept = rows(
        bank,
        "SELECT count(DISTINCT s.file_id), count(DISTINCT s.id), count(l.id), sum(l.amount)::bigint"
        " FROM ledger.bank_statement s JOIN ledger.statement_line l ON l.statement_id = s.id",
    )
    assert kept == [(12, 12, 12 * LINES, LINES * 12 * 13 // 2)]


def _waits(bank: Bank) -> bool:
    return rows(
        bank,
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%NO KEY UPDATE%%'",
    ) != [(0,)]
