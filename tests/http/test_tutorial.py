"""The tutorial works as it is written: every block is run against a real `mizan serve`, and answers what the page shows.

`TUTORIAL=write pytest tests/http/test_tutorial.py` writes the answers into the page anew.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests
from tests.conftest import RUN_DIRECTORY
from tests.http.tutorial import Shell, constant, follow, with_answers

PAGE = Path(tests.__file__).parents[1] / "docs" / "tutorial.md"
ADDRESS = "http://127.0.0.1:8000"
START_SECONDS_MAX = 60


@pytest.fixture
def project() -> Iterator[Path]:
    """A folder like the project's, with the environment in `.venv` and a running `mizan serve` on `.mizan`."""
    folder = Path(tempfile.mkdtemp(prefix="tutorial-", dir=os.environ[RUN_DIRECTORY]))
    folder.chmod(0o711)
    (folder / ".venv").symlink_to(sys.prefix)
    with (folder / "serve.log").open("wb") as log:
        serving = subprocess.Popen(
            [folder / ".venv/bin/mizan", "--data-dir", folder / ".mizan", "serve", "--port", "0"],
            cwd=folder,
            # readers read on within half a minute; a test's moment is not to decide what it sees
            env={**os.environ, "MIZAN_VEST_SECONDS": "3600"},
            stdout=log,
            stderr=log,
        )
    try:
        yield folder
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def address(project: Path) -> str:
    """Where the service listens, once it does."""
    announced = project / ".mizan" / "serve.json"
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if announced.exists() and (text := announced.read_text(encoding="utf-8")):
            return str(json.loads(text)["url"])
        time.sleep(0.1)
    raise AssertionError((project / "serve.log").read_text(encoding="utf-8"))


@pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("openssl") is None,
    reason="the tutorial needs curl and openssl",
)
@pytest.mark.timeout(300)
def test_every_block_of_the_tutorial_answers_what_the_page_shows(project: Path) -> None:
    writing = os.environ.get("TUTORIAL") == "write"
    page = PAGE.read_text(encoding="utf-8")
    url = address(project)
    shell = Shell(project, instead={ADDRESS: url})
    answers = []
    try:
        for block, output, answer in follow(page, shell, writing=writing):
            if answer is None:
                continue
            shown = output.replace(url, ADDRESS)
            answers.append((answer, shown))
            if not writing:
                assert constant(shown) == constant(answer.text), f"after\n{block.text}"
    finally:
        shell.close()
    assert len(answers) > 20
    if writing:
        PAGE.write_text(with_answers(page, answers), encoding="utf-8")
