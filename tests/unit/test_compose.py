"""The files of a container deployment say what Mizan understands. (They are read here, not run.)"""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import tests
from api.cli.app import app
from api.embedded.postgres import JOURNAL_ROLE, LOGIN_ROLES
from api.safety import require_safe
from api.settings import Settings, load

PROJECT = Path(tests.__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text(encoding="utf-8"))
OURS = ("migrate", "api", "worker", "beat")


def without_variables(value: str) -> str:
    """A value as Compose would fill it in."""
    return re.sub(
        r"\$\{MIZAN_ENVIRONMENT[^}]*\}",
        "sandbox",
        re.sub(r"\$\{MIZAN_PUBLIC_URL[^}]*\}", "https://mizan.example", value),
    )


def test_every_process_and_server_has_a_service() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "valkey", *OURS}
    assert COMPOSE["services"]["postgres"]["image"].startswith("postgres:18")
    assert COMPOSE["services"]["valkey"]["image"].startswith("valkey/valkey:9")


@pytest.mark.parametrize("service", OURS)
def test_every_service_runs_a_command_of_mizan(service: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    assert COMPOSE["services"][service]["command"][0] in commands


def test_each_process_has_a_service_of_its_own() -> None:
    assert {name: COMPOSE["services"][name]["command"][0] for name in OURS} == {name: name for name in OURS}


@pytest.mark.parametrize("service", OURS)
def test_every_variable_of_a_service_is_a_setting(service: str) -> None:
    known = {f"MIZAN_{name.upper()}" for name in Settings.model_fields}
    assert set(COMPOSE["services"][service]["environment"]) <= known


@pytest.mark.parametrize("service", OURS)
def test_the_variables_of_a_service_make_settings_that_lack_nothing_but_their_secrets(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in COMPOSE["services"][service]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{[^}]*\}", "a-password", without_variables(value)))
    for number, name in enumerate(("master_key", "seal_key")):
        file = tmp_path / name
        file.write_text(
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
            if number
            else "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
        )
        monkeypatch.setenv(f"MIZAN_{name.upper()}_FILE", str(file))
    settings = load(_env_file=None)
    require_safe(settings)
    assert (settings.database_url_owner is not None) is (service == "migrate")


def test_only_the_migration_knows_the_owners_password() -> None:
    for service in ("api", "worker", "beat"):
        assert "OWNER" not in str(COMPOSE["services"][service])


def test_no_secret_is_written_down() -> None:
    text = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if "PASSWORD" in line and ":" in line and not line.lstrip().startswith("#"):
            assert "${" in line or "$$" in line, line


def test_the_first_start_makes_the_roles_of_embedded_mode() -> None:
    script = (PROJECT / "docker" / "roles.sh").read_text(encoding="utf-8")
    made = dict(re.findall(r"create role (\w+) (.*);", script))
    assert set(made) == {*LOGIN_ROLES, JOURNAL_ROLE}
    assert [role for role, options in made.items() if "bypassrls" in options] == ["mizan_worker"]
    assert "superuser" not in script.replace("POSTGRES_USER", "")


def test_the_image_is_debian_and_does_not_run_as_root() -> None:
    lines = (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert all("trixie" in line for line in lines if line.startswith("FROM"))
    assert "USER mizan" in lines
    assert any("--require-hashes" in line for line in lines)
