"""`mizan serve` as a process: commands beside it, children that die, and every way to end it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner, Result

from api.cli.app import app
from tests.conftest import RUN_DIRECTORY
from tests.http.served import a_person

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from api.cli import main; main()"]
PATIENCE_SECONDS = 45.0


@pytest.fixture
def data_dir() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="serve ", dir=os.environ[RUN_DIRECTORY]))
    folder.chmod(0o711)
    return folder / "mizan"


def environment(data_dir: Path) -> dict[str, str]:
    told = {"MIZAN_CODE_SENDER": "file", "MIZAN_CODE_FILE": str(data_dir.parent / "messages.jsonl")}
    return {**os.environ, **told, "PYTHONPATH": str(ROOT), "MIZAN_DATA_DIR": str(data_dir)}


def command(data_dir: Path, *arguments: str) -> Result:
    """A command beside the service, or alone."""
    return CliRunner().invoke(app, [*arguments, "--data-dir", str(data_dir)])


def answer(data_dir: Path, *arguments: str) -> Any:
    """What a command says in JSON."""
    done = command(data_dir, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@dataclass(slots=True)
class Service:
    """A running `mizan serve`."""

    process: subprocess.Popen[str]
    url: str

    def child(self, role: str) -> psutil.Process:
        """The child of this role."""
        for child in psutil.Process(self.process.pid).children():
            if child.cmdline()[1:4] == ["-m", "api.serving", role]:
                return child
        raise LookupError(role)

    def family(self) -> list[psutil.Process]:
        """All processes below it, servers included."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def serving(data_dir: Path, port: int = 0) -> Iterator[Service]:
    """A service of its own, killed at the end if it is still there."""
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", str(port)],
        cwd=data_dir.parent,
        env=environment(data_dir),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    family: list[psutil.Process] = []
    try:
        welcome = process.stdout.readline()
        found = re.match(r"Mizan serves at (http://127\.0\.0\.1:\d+) \(sandbox\)", welcome)
        assert found, welcome
        service = Service(process, found[1])
        family = service.family()
        yield service
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for one in family:
            if one.is_running():
                one.kill()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.1)


def sent(data_dir: Path, remittance_id: str) -> str:
    """The id of an event that was sent and acknowledged."""
    shown = answer(
        data_dir, "trigger", "remittance.completed", "--partner", "acme", "--remittance-id", remittance_id
    )
    assert shown["status"] == 202
    return str(shown["answer"]["id"])


def states(data_dir: Path) -> dict[str, str]:
    """The state of each delivery."""
    return {one["id"]: one["state"] for one in answer(data_dir, "inbox", "list")["data"]}


def create_partner(data_dir: Path) -> dict[str, str]:
    """A partner with its credentials."""
    made: dict[str, str] = answer(
        data_dir, "partner", "create", "acme", "--programme", "ejoheza", "--terms", "guaranteed"
    )
    return made


def registered(service: Service, partner: dict[str, str]) -> str:
    """A member of the partner's."""
    with httpx.Client(base_url=service.url, timeout=30) as http:
        token = http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(partner["client_id"], partner["client_secret"]),
        ).json()["access_token"]
        answered = http.post("/v1/members", json=a_person(), headers={"Authorization": f"Bearer {token}"})
    assert answered.status_code == 201, answered.text
    return str(answered.json()["id"])


def link_told(data_dir: Path) -> str | None:
    """The link with which the member can stop the payee, as it was sent to the phone."""
    messages = data_dir.parent / "messages.jsonl"
    found = re.search(r"http[^\s\"]*/stop/\w+", messages.read_text() if messages.exists() else "")
    return found[0] if found else None


@pytest.mark.timeout(180)
def test_it_serves_beside_commands_survives_its_children_and_ends_in_order(data_dir: Path) -> None:
    with serving(data_dir) as service:
        partner = create_partner(data_dir)
        first = sent(data_dir, "R-1")
        until(lambda: states(data_dir)[first] == "unallocated")
        assert answer(data_dir, "doctor")["ok"] is True

        # a link that a command writes leads to the service that runs beside it
        member = registered(service, partner)
        answer(data_dir, "payout", "payee", member, "--phone", "+250788123456")
        until(lambda: link_told(data_dir) is not None)
        link = link_told(data_dir)
        assert link is not None
        assert link.startswith(f"{service.url}/stop/")
        assert httpx.get(link).status_code == 200
        person = ("amina@fund.example", "--name", "Amina Uwase", "--role", "administrator")
        set_up = answer(data_dir, "operator", "create", *person)["link"]
        assert set_up.startswith(f"{service.url}/set-up#")
        assert httpx.get(set_up).status_code == 200

        for role in ("worker", "api"):
            died = service.child(role)
            died.kill()
            until(lambda died=died, role=role: _other(service, role, died.pid))  # type: ignore[misc]
        second = sent(data_dir, "R-2")
        until(lambda: states(data_dir)[second] == "unallocated")

        twice = command(data_dir, "serve", "--port", "0")
        assert twice.exit_code == 1
        assert f"runs for {data_dir} already, at {service.url}" in twice.stderr

        taken = command(data_dir, "serve", "--port", service.url.rpartition(":")[2])
        assert taken.exit_code == 1
        assert "can't be listened on" in taken.stderr

        family = service.family()
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(60) == 0
        until(lambda: not any(one.is_running() for one in family))

    # Alone, a command starts the servers itself: everything is still there.
    assert states(data_dir) == {first: "unallocated", second: "unallocated"}
    assert answer(data_dir, "ledger", "verify")["ok"] is True


@pytest.mark.timeout(120)
def test_what_was_acknowledged_survives_the_death_of_everything(data_dir: Path) -> None:
    with serving(data_dir) as service:
        create_partner(data_dir)
        worker = service.child("worker")
        worker.suspend()  # it takes nothing any more
        acknowledged = [sent(data_dir, f"R-{number}") for number in range(3)]
        children = [service.child(role) for role in ("api", "worker", "beat")]
        service.process.kill()
        service.process.wait()
        worker.resume()
        # They notice that nobody holds the other end of their pipe.
        until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))

    with serving(data_dir) as service:
        until(lambda: all(states(data_dir)[one] == "unallocated" for one in acknowledged))
        service.process.terminate()
        assert service.process.wait(60) == 0


def test_a_taken_port_is_said_in_one_line_before_anything_starts(data_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused = command(data_dir, "serve", "--port", str(other.getsockname()[1]))
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "choose another one with --port" in refused.stderr
    assert not data_dir.exists()


@pytest.mark.timeout(120)
def test_the_first_command_of_the_contract_works_on_an_empty_directory(data_dir: Path) -> None:
    done = command(
        data_dir, "partner", "create", "acme", "--format", "standard", "--programme", "ejoheza", "--terms", "guaranteed", "--json"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["slug"] == "acme"
    assert "applied programme ejoheza" in done.stderr


def _other(service: Service, role: str, pid: int) -> bool:
    try:
        return service.child(role).pid != pid
    except (LookupError, psutil.Error):
        return False
