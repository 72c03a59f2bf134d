"""The suite runs on the PostgreSQL that it was told to run on: the wheel's, or MIZAN_TESTS_POSTGRES."""

import subprocess
import tempfile
from pathlib import Path

import pytest

from api.embedded import ServersUnavailable, servers
from tests.conftest import Databases, postgres_programs, settings_for
from tests.integration.embedded_world import folder


def test_tests_run_on_the_postgresql_that_was_asked_for(databases: Databases) -> None:
    with databases.auditor.begin() as tx:
        running = tx.exec_driver_sql("show server_version").scalar_one()
    given = postgres_programs()
    if given is None:
        assert running.startswith("18.")
    else:
        said = subprocess.run(
            [given / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
        assert running in said


def test_a_folder_without_postgresqls_programs_is_refused() -> None:
    data_dir = folder()
    with tempfile.TemporaryDirectory() as empty:
        refused = pytest.raises(ServersUnavailable, match="postgres is no program")
        with refused, servers(settings_for(data_dir), postgres_programs=Path(empty)):
            pass
