"""Operators from the command line: two founders by links, everyone after them by approval."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.embedded import servers as embedded_servers
from tests.conftest import CARELESS, RUN_DIRECTORY, settings_for
from tests.integration.test_cli import Commands


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    folder = Path(tempfile.mkdtemp(prefix="operators-", dir=os.environ[RUN_DIRECTORY]))
    folder.chmod(0o711)
    with embedded_servers(settings_for(folder / "mizan"), postgres_overrides=CARELESS, linger_seconds=0):
        made = Commands(folder / "mizan")
        made.text("programme", "apply", "ejoheza")
        yield made


def test_commands_at_once_make_two_administrators_and_request_the_third(commands: Commands) -> None:
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", "from api.cli import main; main()", "operator", "create"),
                *(f"founder{number}@fund.example", "--name", "Founder", "--role", "administrator"),
                *("--json", "--data-dir", str(commands.data_dir)),
            ],
            stdout=subprocess.PIPE,
        )
        for number in range(3)
    ]
    made = [json.loads(one.communicate(timeout=60)[0]) for one in started]
    links = [one for one in made if "link" in one]
    assert len(links) == 2
    assert all("/set-up#mzn_link_" in one["link"] for one in links)
    [requested] = [one for one in made if "approval" in one]
    assert requested["approval"].startswith("apr_")
    assert requested["code"]
    listed = commands.json("operator", "list")["data"]
    assert [(one["roles"], one["set_up"]) for one in listed] == [
        ([{"role": "administrator", "programme": None}], False)
    ] * 2

    # a link that was lost is made anew as long as nobody used it
    again = commands.json(
        "operator", "create", listed[0]["email"].upper(), "--name", "Founder", "--role", "administrator"
    )
    assert again["operator"] == listed[0]["operator"]
    assert again["link"] not in [one["link"] for one in links]
    table = commands.text("operator", "list")
    assert "administrator (all programmes)" in table


def test_whoever_is_let_in_is_approved_and_whoever_is_kept_out_is_out(commands: Commands) -> None:
    create = ("operator", "create", "keza@fund.example", "--name", "Keza")
    asked = commands.json(*create, "--role", "manager", "--programme", "ejoheza")
    assert sorted(asked) == ["approval", "code", "expires_at"]
    assert "already asks for something else" in commands.refusal(*create, "--role", "auditor")
    assert "works for an organisation" in commands.refusal(
        "operator", "create", "x@fund.example", "--name", "X", "--role", "caseworker"
    )
    assert "no such operator" in commands.refusal("operator", "disable", "keza@fund.example")
    first = commands.json("operator", "list")["data"][0]
    assert sorted(commands.json("operator", "recover", first["operator"])) == [
        "approval",
        "code",
        "expires_at",
    ]
    assert "is active" in commands.refusal("operator", "enable", first["email"])
    assert "last administrator" in commands.refusal("operator", "disable", first["email"])
