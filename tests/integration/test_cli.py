"""The command line beside running servers: what it prints, what it refuses, and how it ends."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.cli.app import app
from api.embedded import servers as embedded_servers
from tests.conftest import CARELESS, RUN_DIRECTORY, settings_for
from tests.http.signing import Key


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands on one data directory."""

    data_dir: Path

    def run(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        """The result of a command, whatever it is."""
        return CliRunner().invoke(app, [*arguments, "--data-dir", str(self.data_dir)], input=stdin)

    def text(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """What a command prints that succeeds."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """What it prints with --json."""
        return json.loads(self.text(*arguments, "--json"))

    def refusal(self, *arguments: str) -> str:
        """The one line in which a command is refused."""
        result = self.run(*arguments)
        assert result.exit_code == 1, result.output
        assert "Traceback" not in result.output
        return result.stderr.strip()


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    folder = Path(tempfile.mkdtemp(prefix="commands-", dir=os.environ[RUN_DIRECTORY]))
    folder.chmod(0o711)
    with embedded_servers(settings_for(folder / "mizan"), postgres_overrides=CARELESS, linger_seconds=0):
        made = Commands(folder / "mizan")
        made.text("partner", "create", "acme", "--programme", "ejoheza", "--terms", "net")
        yield made


def test_a_partner_is_created_with_the_contracts_words(commands: Commands) -> None:
    result = commands.run(
        "partner", "create", "bravo", "--format", "standard", "--programme", "pm-sym", "--terms", "guaranteed", "--json"
    )  # fmt: skip

    shown = json.loads(result.stdout)
    assert list(shown) == ["partner", "slug", "client_id", "client_secret", "webhook_secret"]
    assert shown["partner"].startswith("ptn_")
    assert shown["slug"] == "bravo"
    assert shown["client_id"].startswith("cli_")
    assert shown["client_secret"].startswith("mzn_test_")
    assert shown["webhook_secret"].startswith("whsec_")
    assert "applied programme pm-sym of the catalogue" in result.stderr


def test_a_slug_is_taken_once(commands: Commands) -> None:
    assert "there is a partner “acme” already" in commands.refusal(
        "partner", "create", "acme", "--programme", "ejoheza"
    )


def test_a_refused_partner_leaves_nothing_behind(commands: Commands) -> None:
    assert "nowhere" in commands.refusal("partner", "create", "half", "--programme", "nowhere")
    assert "half" not in {one["slug"] for one in commands.json("partner", "list")["data"]}


def test_options_stand_before_or_after_the_subcommand(commands: Commands) -> None:
    result = CliRunner().invoke(app, ["--data-dir", str(commands.data_dir), "partner", "list", "--json"])
    assert json.loads(result.stdout) == commands.json("partner", "list")


def test_secrets_are_rotated(commands: Commands) -> None:
    webhook = commands.json("partner", "rotate-secret", "acme")
    client = commands.json("partner", "rotate-secret", "acme", "--what", "client", "--overlap-hours", "0")
    assert webhook["webhook_secret"].startswith("whsec_")
    assert client["client_secret"].startswith("mzn_test_")


def test_a_clients_keys_are_registered_beside_each_other_and_removed(
    commands: Commands, tmp_path: Path
) -> None:
    acme = commands.json("partner", "rotate-secret", "acme", "--what", "client")["client_id"]
    files = [tmp_path / "one.pem", tmp_path / "two.json"]
    keys = [Key(), Key(kid="next")]
    files[0].write_bytes(keys[0].public_pem)
    files[1].write_text(json.dumps(keys[1].jwk))
    first, second = (commands.json("client", "add-key", acme, str(file)) for file in files)
    assert (second["client_id"], second["kid"]) == (acme, "next")
    assert commands.json("client", "add-key", acme, str(files[1])) == second
    assert [one["kid"] for one in commands.json("client", "keys", acme)["data"]] == [first["kid"], "next"]
    # a thumbprint may begin with a dash
    removed = ["--data-dir", str(commands.data_dir), "client", "remove-key", acme, "--", first["kid"]]
    assert CliRunner().invoke(app, removed).exit_code == 0
    assert [one["kid"] for one in commands.json("client", "keys", acme)["data"]] == ["next"]
    for refused in (
        ("add-key", acme, str(files[0])),  # it was removed
        ("remove-key", acme, "nobody's"),
        ("keys", f"cli_{'0' * 26}"),
        ("revoke", "nonsense"),
    ):
        assert commands.refusal("client", *refused)
    for command in ("revoke", "disable", "enable"):
        commands.text("client", command, acme)


def test_token_signing_keys_are_rotated(commands: Commands) -> None:
    first = commands.json("key", "rotate")
    made = commands.json("key", "rotate")
    assert first["signs_from"] < made["signs_from"] < made["replaced_verify_until"]
    assert commands.text("key", "rotate").startswith(made["kid"])


def test_a_partner_is_disabled_and_enabled(commands: Commands) -> None:
    def state() -> str:
        return next(one["state"] for one in commands.json("partner", "list")["data"] if one["slug"] == "acme")

    commands.text("partner", "disable", "acme")
    assert state() == "disabled"
    commands.text("partner", "enable", "acme")
    assert state() == "active"


def test_verify_prints_the_contracts_words(commands: Commands) -> None:
    shown = commands.json("ledger", "verify")
    assert list(shown) == ["ok", "transactions", "postings", "unsealed", "checks"]
    assert shown["ok"] is True
    assert all(set(one) == {"name", "checked", "violations"} for one in shown["checks"])


def test_a_sponsor_is_funded_once_per_reference_in_major_units(commands: Commands) -> None:
    arguments = (
        "sponsor",
        "fund",
        "gov-in",
        "--programme",
        "pm-sym",
        "--amount",
        "1500.25",
        "--reference",
        "wire-1",
    )
    commands.text("programme", "apply", "pm-sym")
    first, again = commands.json(*arguments), commands.json(*arguments)
    assert first["amount"] == {"amount": 150_025, "currency": "INR"}
    assert first["replayed"] is False
    assert again == first | {"replayed": True}


@pytest.mark.parametrize("amount", ["0", "-5", "1,500", "1.5", "1e3", "99999999999999999", "", "٣"])
def test_an_amount_that_can_not_be_is_refused(commands: Commands, amount: str) -> None:
    result = commands.run("sponsor", "fund", "gov-rw", "--programme", "ejoheza", f"--amount={amount}")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: “")
    assert "Traceback" not in result.output


def test_a_settlement_that_pays_for_nothing_stays_unidentified(commands: Commands) -> None:
    shown = commands.json("settlement", "record", "acme", "--amount", "1000", "--reference", "s-1")
    assert (shown["paired"], shown["unidentified"], shown["currency"]) == (0, 1_000, "RWF")
    assert (
        commands.json("settlement", "record", "acme", "--amount", "1000", "--reference", "s-1")["replayed"]
        is True
    )
    assert "another amount" in commands.refusal(
        "settlement", "record", "acme", "--amount", "1001", "--reference", "s-1"
    )
    assert "acme collects nothing in INR" in commands.refusal(
        "settlement", "record", "acme", "--amount", "1", "--currency", "INR"
    )


def test_the_books_are_shown_folded_and_sealed(commands: Commands) -> None:
    commands.text("sponsor", "fund", "gov-rw", "--programme", "ejoheza", "--amount", "5000")
    commands.text("ledger", "fold")
    commands.text("ledger", "seal")
    assert commands.json("ledger", "verify")["unsealed"] == 0

    fund = next(
        one for one in commands.json("ledger", "trial-balance")["data"] if one["fund"] == "ejoheza/savers"
    )
    assert fund["debit_total"] == fund["credit_total"] > 0

    account = commands.json("ledger", "account", "ejoheza/savers:sponsor_uncommitted:gov-rw")
    assert account["posted"] >= 5_000
    newest = account["lines"][0]["transaction"]
    transaction = commands.json("ledger", "transaction", newest)
    assert transaction["status"] == "sealed"
    assert json.loads(commands.text("ledger", "transaction", newest, "--receipt"))["proof"] is not None


def test_published_seals_are_a_witness(commands: Commands, tmp_path: Path) -> None:
    commands.text("sponsor", "fund", "gov-rw", "--programme", "ejoheza", "--amount", "1")
    published = tmp_path / "seals.jsonl"
    commands.text("ledger", "seal", "--publish", str(published))
    assert commands.json("ledger", "verify", "--against", str(published))["ok"] is True

    forged = json.loads(published.read_text().splitlines()[0]) | {"head": "00" * 32}
    published.write_text(json.dumps(forged) + "\n")
    result = commands.run("ledger", "verify", "--against", str(published), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0]["check"] == "seals are as they were published"


def test_programmes_are_validated_without_a_server_and_shown(commands: Commands, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("format: 1\nslug: X\ncurrency: ZZZ\n")
    refusal = commands.refusal("programme", "validate", str(wrong))
    assert "/currency" in refusal
    assert "/slug" in refusal

    assert commands.text("programme", "validate", "ejoheza").startswith("ejoheza, version 1: valid")
    assert json.loads(commands.text("programme", "schema"))["type"] == "object"
    assert commands.json("programme", "apply", "ejoheza")["created"] is False
    assert commands.json("programme", "show", "ejoheza")["sponsors"][0]["slug"] == "gov-rw"
    assert "slug: ejoheza" in commands.text("programme", "show", "ejoheza", "--version", "1")
    assert "no version 9" in commands.refusal("programme", "show", "ejoheza", "--version", "9")


def test_months_close_and_reopen(commands: Commands, tmp_path: Path) -> None:
    def closed_through() -> set[str | None]:
        funds = commands.json("period", "list")["data"]
        return {one["closed_through"] for one in funds if one["fund"].startswith("ejoheza/")}

    assert closed_through() == {None}
    assert "verified and sealed: red" in commands.refusal("period", "close", "ejoheza", "2021-06")
    commands.text("ledger", "seal")
    assert commands.json("ledger", "verify")["ok"] is True
    judged = commands.json("period", "checklist", "ejoheza", "2021-06")
    assert judged["green"] is True, judged["items"]
    closed = commands.json("period", "close", "ejoheza", "2021-06", "--remark", "the first")
    assert (closed["revision"], closed["through"], closed["seal"]) == (1, "2021-06-30", None)
    assert closed_through() == {"2021-06-30"}
    assert "closed already" in commands.refusal("period", "close", "ejoheza", "2021-06")
    assert "months before" in commands.refusal("period", "close", "ejoheza", "2021-08")
    assert "no programme" in commands.refusal("period", "close", "nothing", "2021-06")
    assert "not over" in commands.refusal("period", "close", "ejoheza", "2999-01")

    commands.text("ledger", "seal")
    for form in ("pdf", "html", "csv", "json"):
        written = tmp_path / f"pack.{form}"
        commands.text("period", "pack", "ejoheza", "2021-06", str(written))
        checked = commands.json("period", "verify-pack", str(written))
        assert (checked["ok"], checked["format"], checked["month"]) == (True, form, "2021-06")
        assert checked["seal"] >= 1
    (tmp_path / "pack.csv").write_bytes((tmp_path / "pack.csv").read_bytes() + b" ")
    assert "no pack" in commands.refusal("period", "verify-pack", str(tmp_path / "pack.csv"))

    commands.text("period", "reopen", "ejoheza", "2021-06", "--reason", "a late fee")
    status = commands.json("period", "status", "ejoheza", "2021-06")
    assert (status["state"], status["close"]["superseded"]) == ("reopened", True)
    assert status["funds"]["ejoheza/savers"] == "2021-05-31"
    assert commands.json("period", "close", "ejoheza", "2021-06")["revision"] == 2
    assert commands.json("period", "verify-pack", str(tmp_path / "pack.pdf"))["superseded"] is True


def test_a_webhook_is_tried_without_leaving_a_trace(commands: Commands) -> None:
    event = {
        "type": "remittance.completed",
        "timestamp": "2026-03-02T09:30:00Z",
        "data": {
            "remittance_id": "TRY-1",
            "member": {"phone": "+971501234567"},
            "sent": {"amount": 85_250, "currency": "KWD"},
            "received": {"amount": 400_675, "currency": "RWF"},
            "collected": {"amount": 20_034, "currency": "RWF"},
            "origin_country": "KW",
            "destination_country": "RW",
            "completed_at": "2026-03-02T09:29:41Z",
        },
    }
    shown = json.loads(
        commands.text("partner", "try", "-", "--partner", "acme", "--json", stdin=json.dumps(event))
    )
    assert (shown["outcome"], shown["sent"]) == ("unallocated", "85.250 KWD")
    assert "no such delivery" in commands.text("inbox", "list")
    assert "unallocated_contributions" not in commands.text("ledger", "trial-balance")

    del event["data"]["member"]  # type: ignore[attr-defined]  # a dict of mixed values
    refused = commands.run("partner", "try", "-", stdin=json.dumps(event))
    assert refused.exit_code == 1
    assert "/data/member is required" in refused.stderr


def test_staff_get_clients(commands: Commands) -> None:
    shown = commands.json("client", "create", "Ada", "--role", "auditor", "--role", "manager")
    assert shown["client_secret"].startswith("mzn_test_")
    assert commands.run("client", "create", "Eve", "--role", "king").exit_code == 2


def test_the_doctor_finds_everything_well(commands: Commands) -> None:
    shown = commands.json("doctor")
    assert shown["ok"] is True, shown
    names = {one["name"] for one in shown["checks"]}
    assert {
        "settings",
        "keys",
        "migrations",
        "Valkey",
        "role api",
        "role sealer",
        "inbox",
        "partitions",
    } <= names
    assert len(commands.text("doctor", "--new-key").strip()) == 44


def test_migrating_again_changes_nothing(commands: Commands) -> None:
    shown = commands.json("migrate")
    assert shown["before"] == shown["after"]


def test_what_waits_for_nobody_is_said(commands: Commands) -> None:
    assert "nothing waits for money" in commands.text("match", "waiting")
    assert commands.json("match", "drain") == {"served": 0}
    assert "no `mizan serve` runs" in commands.refusal("trigger", "remittance.completed", "--partner", "acme")
    assert commands.refusal("inbox", "show", "dlv_" + "0" * 26) == "error: there is no such delivery"
    assert "not an id" in commands.refusal("ledger", "transaction", "txn_nonsense")
    assert commands.run("inbox", "replay").exit_code == 2
    assert "there is no benchmark" in commands.refusal("bench", "nothing")
