"""Breaks as a manager ends them on the command line: `docs/how-to/resolve-a-break.md`, followed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

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

BREAKS = ("reconcile", "breaks")


@pytest.fixture
def world(commands: Commands) -> Iterator[Breaking]:
    """Breaks in the books that the commands work on."""
    with session.services(load(data_dir=commands.data_dir)) as services:
        made = Breaking(_databases(services), FixedClock(datetime.now(UTC)))
        made.statement(made.savers, days(0), since=days(60))
        yield made


def _databases(services: Services) -> Databases:
    worker = services.worker
    return Databases("mizan", worker, services.api, worker, worker, worker, worker, {})


def test_a_break_is_found_assigned_previewed_resolved_and_taken_back(
    commands: Commands, world: Breaking
) -> None:
    line = world.line(-2_500, kind="NCHG")
    item = world.booked(9_000, on=days(9))
    world.line(10_000, party="somebody")
    world.refresh()
    shown = commands.json(*BREAKS, "list")
    assert [(one["type"], one["amount"]["amount"]) for one in shown] == [
        ("missing_in_books", 10_000),
        ("missing_in_bank", 9_000),
        ("fee", -2_500),
    ]
    assert "missing_in_bank" in commands.text(*BREAKS, "list", "--type", "missing_in_bank", "--sort", "age")
    assert "there is no type" in commands.refusal(*BREAKS, "list", "--type", "nonsense")
    other, _, fee = (one["id"] for one in shown)
    assert commands.json(*BREAKS, "assign", fee, "treasury", "--remark", "asks")["owner"] == "treasury"
    waits = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    waiting = commands.json(*BREAKS, "wait", fee, "--until", waits, "--remark", "the bank looks into it")
    assert (waiting["state"], waiting["waits_until"]) == ("waiting", waits)
    told = commands.text(*BREAKS, "list")
    assert all(one["id"] in told for one in shown)  # whole, however narrow
    assert f"line {public_id('bsl', line)}: -2,500 RWF booked" in commands.text(*BREAKS, "show", fee)

    commands.text(*BREAKS, "limit", "ejoheza", "5000")
    book = ("resolve", fee, "--method", "book", "--to", "bank_charges", "--remark", "fees of March")
    seen = commands.json(*BREAKS, *book)  # a preview: nothing is done
    assert (seen["state"], seen["second_person"], len(seen["postings"])) == ("previewed", False, 2)
    assert str(line) in world.open()
    asked = commands.run(*BREAKS, *book, stdin="n\n")
    assert asked.exit_code == 1
    assert "due_from_funds" in asked.stdout
    assert "is resolved" in commands.text(*BREAKS, *book, "--yes")
    assert "nothing is booked to" in commands.refusal(
        *BREAKS, "resolve", other, "--method", "book", "--to", "member_savings", "--remark", "x"
    )
    assert commands.json(*BREAKS, "undo", fee, "--remark", "not ours")["state"] == "open"
    history = [event["what"] for event in commands.json(*BREAKS, "show", fee)["history"]]
    assert history == ["found", "assigned", "waiting", "resolved", "undone"]

    # above the limit the same is asked for as over the API; in the sandbox it is carried out at once
    split = ("--part", f"9000={public_id('itm', item)}", "--part", "1000=fees_payable")
    asked_for = commands.json(
        *BREAKS, "resolve", other, "--method", "split", *split, "--remark", "their invoice", "--yes"
    )
    assert (asked_for["kind"], asked_for["state"]) == ("break_resolution", "approved")
    assert "their invoice" in commands.text(*BREAKS, "show", other)
    world.refresh()
    assert list(world.open().values()) == [("fee", -2_500)]
