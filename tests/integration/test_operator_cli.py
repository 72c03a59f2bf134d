"""Operators from the command line: two founders by links, everyone after them by approval."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyotp
import pytest

from api.auth import links, sessions
from api.bootstrap import bootstrap
from api.embedded import connected
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


def set_up(data_dir: Path, email: str, link: str) -> str:
    """What a person does with a link and then logs in; the session's token."""
    token, password = link.partition("#")[2], "Kigali-harbour-7-lanterns"
    with connected(settings_for(data_dir)) as settings:
        services = bootstrap(settings)
        now = services.clock.now()
        begun = services.worker.run(lambda tx: links.begin(tx, services.keyring, token, now))
        totp = pyotp.TOTP(begun.secret)
        services.worker.run(
            lambda tx: links.complete(
                tx, services.keyring, token, code=None, password=password, totp_code=totp.at(now), at=now
            )
        )
        opened = sessions.log_in(
            services.worker,
            services.keyring,
            email,
            sessions.Proof(password, totp.at(now + timedelta(seconds=30))),
            address="127.0.0.1",
            now=now,
            lifetimes=sessions.Lifetimes(timedelta(hours=1), timedelta(hours=1)),
            opened=lambda _, __: None,
        )
        services.close()
    return opened.token


def test_commands_at_once_make_two_administrators_and_never_three(commands: Commands) -> None:
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", "from api.cli import main; main()", "operator", "create"),
                *(f"founder{number}@fund.example", "--name", "Founder", "--role", "administrator"),
                *("--json", "--data-dir", str(commands.data_dir)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    ended = [one.communicate(timeout=60) for one in started]
    shown = [json.loads(out) for out, _ in ended if out]
    assert len(shown) == 2, ended
    assert all("/set-up#mzn_link_" in one["link"] for one in shown)
    # the third is requested by an administrator, or not at all
    assert [b"say who you are: --as" in errors for out, errors in ended if not out] == [True]
    listed = commands.json("operator", "list")["data"]
    assert [(one["roles"], one["set_up"]) for one in listed] == [
        ([{"role": "administrator", "programme": None}], False)
    ] * 2

    # a link that was lost is made anew as long as nobody used it
    again = commands.json(
        "operator", "create", listed[0]["email"].upper(), "--name", "Founder", "--role", "administrator"
    )
    assert again["operator"] == listed[0]["operator"]
    assert again["link"] not in [one["link"] for one in shown]
    table = commands.text("operator", "list")
    assert "administrator (all programmes)" in table


def test_whoever_is_let_in_is_requested_by_a_person_and_whoever_is_kept_out_is_out(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = commands.json("operator", "list")["data"]
    again = commands.json("operator", "create", first["email"], "--name", "F", "--role", "administrator")
    token = set_up(commands.data_dir, first["email"], again["link"])
    assert "say who you are" in commands.refusal("operator", "recover", first["email"])
    monkeypatch.setenv("MIZAN_OPERATOR_TOKEN", token)
    create = ("operator", "create", "keza@fund.example", "--name", "Keza")
    asked = commands.json(*create, "--role", "manager", "--programme", "ejoheza")
    assert sorted(asked) == ["approval", "code", "expires_at"]
    assert "already asks for something else" in commands.refusal(*create, "--role", "auditor")
    assert "works for an organisation" in commands.refusal(
        "operator", "create", "x@fund.example", "--name", "X", "--role", "caseworker"
    )
    assert "no such operator" in commands.refusal("operator", "disable", "keza@fund.example")
    assert sorted(commands.json("operator", "recover", first["operator"])) == [
        "approval",
        "code",
        "expires_at",
    ]
    assert "is active" in commands.refusal("operator", "enable", first["email"])
    assert "last administrator" in commands.refusal("operator", "disable", first["email"])
    assert commands.text("operator", "disable", second["operator"]).endswith("is disabled\n")
    assert sorted(commands.json("operator", "enable", second["email"])) == ["approval", "expires_at"]
