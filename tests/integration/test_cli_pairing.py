"""Pairing as a manager does it on the command line: `docs/how-to/pair-statement-lines.md`, followed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.bootstrap import Services
from api.cli import session
from api.settings import load
from ledger.clock import FixedClock
from ledger.ids import public_id
from tests.conftest import Databases
from tests.integration.reconciliation.breaking import Breaking, days
from tests.integration.test_cli import Commands, commands

__all__ = ["commands"]


@pytest.fixture
def world(commands: Commands) -> Iterator[Breaking]:
    """A bank account in the books that the commands work on."""
    with session.services(load(data_dir=commands.data_dir)) as services:
        made = Breaking(_databases(services), FixedClock(datetime.now(UTC)))
        today = datetime.now(UTC).date()
        made.statement(made.savers, today, since=days(60))
        yield made


def _databases(services: Services) -> Databases:
    worker = services.worker
    return Databases("mizan", worker, services.api, worker, worker, worker, worker, {})


def test_lines_are_paired_by_rules_and_by_hand_and_taken_back(
    commands: Commands, world: Breaking, tmp_path: Path
) -> None:
    line, item = world.line(8_100), world.booked(8_100, on=days(30))
    today = datetime.now(UTC).date()
    world.line(4_400, on=today, end_to_end="E-1")
    world.booked(4_400, on=today)
    world.rows("UPDATE ledger.item SET end_to_end = 'E-1' WHERE amount = 4400 RETURNING id")
    assert commands.json("reconcile", "run", "--account", "kigali-savers")["pairings"] == 1
    assert "paired" in commands.text("reconcile", "run")
    (paired,) = commands.json("reconcile", "pairings", "--account", "kigali-savers")
    assert (paired["rule"], paired["evidence"]) == ("end_to_end", {"days": 0, "end_to_end": "E-1"})
    assert paired["id"] in commands.text("reconcile", "pairings")

    assert public_id("itm", item) in commands.text("reconcile", "items", "kigali-savers")
    both = ("--line", public_id("bsl", line), "--item", public_id("itm", item))
    made = commands.json("reconcile", "pair", *both, "--remark", "the reference was cut off")
    assert made["rule"] == "by_hand"
    assert "already" in commands.refusal("reconcile", "pair", *both, "--remark", "again")
    undone = commands.json("reconcile", "unpair", made["id"], "--remark", "it was another")
    assert undone["undone_remark"] == "it was another"
    assert [one["id"] for one in commands.json("reconcile", "pairings", "--undone")] == [made["id"]]
    assert commands.json("reconcile", "pairings", "--id", made["id"]) == [undone]

    rules = tmp_path / "rules.yaml"
    rules.write_text(commands.text("reconcile", "rules", "show", "kigali-savers"), "utf-8")
    assert commands.json("reconcile", "rules", "check", str(rules))["ok"]
    assert commands.json("reconcile", "rules", "apply", "kigali-savers", str(rules))["version"] == 1
    rules.write_text("rules: [{name: x}]", "utf-8")
    assert "required" in commands.refusal("reconcile", "rules", "apply", "kigali-savers", str(rules))
    assert commands.json("reconcile", "rules", "show", "kigali-savers")["version"] == 1
    assert commands.json("reconcile", "rules", "check", "--schema")["type"] == "object"
