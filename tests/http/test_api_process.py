"""`mizan api`: the API alone, on servers that are configured, as a container runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from api.serving import listen
from api.settings import Settings
from tests.conftest import environment_of

ROOT = Path(__file__).parents[2]
READY_SECONDS_MAX = 60


def free_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("it never got ready")


def test_it_answers_runs_no_workers_and_ends_well_when_told_to(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from api.cli import main; main()", "api", "--port", str(port)],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environment_of(settings)},
        cwd=tmp_path,
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        assert psutil.Process(process.pid).children() == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
