"""The how-tos on claims and remittals, as somebody follows them on the command line."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from api.bootstrap import Services
from api.cli import session
from api.settings import load
from ledger.clock import FixedClock
from products.facts import Fact
from products.programmes.loader import catalogue
from tests.conftest import Databases
from tests.integration.remittals.conftest import SSF, Agencies
from tests.integration.test_cli import Commands, commands
from tests.integration.test_cli_approvals import log
from tests.world import World

__all__ = ["commands"]

ARREARS = catalogue()["ejoheza"].replace("funding: prefunded", "funding: arrears")


@pytest.fixture
def world(commands: Commands) -> Iterator[World]:
    """Members in the books that the commands work on."""
    with session.services(load(data_dir=commands.data_dir)) as services:
        made = World(_databases(services), FixedClock(datetime.now(UTC)))
        made.books = services.books
        yield made


def _databases(services: Services) -> Databases:
    worker = services.worker
    return Databases("mizan", worker, services.api, worker, worker, worker, worker, {})


def test_a_claim_from_making_it_to_its_payment(commands: Commands, world: World, tmp_path: Path) -> None:
    world.programme("late", ARREARS.replace("slug: ejoheza", "slug: late", 1))
    partner = world.partner("late", programme="late")
    category = Fact("income_category", 1, date(2020, 1, 1), world.clock.now(), "institution")
    member = world.member(partner, programme="late", facts=[category])
    world.send(partner, world.completed(member, remittance_id="CLAIMED"))
    claim = ("sponsor", "claim")

    assert "pays ahead" in commands.refusal(*claim, "make", "gov-rw", "--programme", "ejoheza")
    made = commands.json(*claim, "make", "gov-rw", "--programme", "late")
    assert (made["state"], made["total"]["amount"]) == ("made", 18_000)
    file = tmp_path / "claim-1.jsonl"
    commands.text(*claim, "file", made["id"], "--to", str(file))
    assert json.loads(file.read_bytes().splitlines()[-1])["sha256"] == made["sha256"]
    certified = ("--reference", "MIN/1", "--on", world.clock.now().date().isoformat())
    assert "another file" in commands.refusal(*claim, "certify", made["id"], *certified, "--sha256", "0" * 64)
    done = commands.json(*claim, "certify", made["id"], *certified, "--sha256", made["sha256"])
    assert done["state"] == "approved"
    shown = commands.json(*claim, "show", made["id"])
    assert (shown["state"], shown["booked_lines"], shown["certification"]) == ("certified", 1, "MIN/1")

    def sponsor() -> tuple[int, int, int]:
        one = next(one for one in commands.json("sponsor", "list")["data"] if one["programme"] == "late")
        return (one["receivable"]["amount"], one["committed"]["amount"], one["waiting"]["amount"])

    assert sponsor() == (18_000, 18_000, 0)
    pay = ("sponsor", "fund", "gov-rw", "--programme", "late", "--amount", "18000", "--reference", "T-1")
    assert commands.json(*pay)["paid_off"]["amount"] == 18_000
    assert "on record already" in commands.text(*pay)
    world.send(partner, world.reversed("CLAIMED"), approved=True)
    assert sponsor() == (0, 18_000, 0)
    [fallen] = commands.json(*claim, "adjust", "gov-rw", "--programme", "late")["data"]
    assert fallen["state"] == "approved"
    assert sponsor() == (-18_000, 0, 0)  # a credit
    credit = commands.json(*claim, "make", "gov-rw", "--programme", "late")
    assert (credit["number"], credit["total"]["amount"]) == (2, -18_000)
    assert "withdrawn" in commands.text(*claim, "withdraw", credit["id"])
    assert "withdrawn" in commands.text(*claim, "list")
    commands.text("sponsor", "warn", "gov-rw", "--programme", "ejoheza", "--percent", "30")
    assert {"claim_pack.made", "claim_pack.withdrawn", "sponsor.warning_set"} <= {
        entry["action"] for entry in log(commands)
    }


def test_a_remittal_from_its_agencys_mapping_to_its_answer(
    commands: Commands, world: World, tmp_path: Path
) -> None:
    ssf = Agencies(world, world.partner("ssf", programme=SSF))
    for number in ("S-1", "S-2"):
        ssf.pay(ssf.person(number))
    ssf.settle(426_600)
    remittal = ("remittal",)
    page = (Path(__file__).parents[2] / "docs/how-to/remit-to-an-agency.md").read_text("utf-8")
    mapping = tmp_path / "mapping.json"
    mapping.write_text(page.partition("```json\n")[2].partition("```")[0])
    agency = ("agency", SSF, "--programme", SSF)
    told = commands.json(
        *remittal, *agency, "--mapping", str(mapping), "--number-document", "ssf_nepal_number",
        "--second-person-above", "1000",
    )  # fmt: skip
    assert told["owed"]["amount"] == 426_600
    made = commands.json(*remittal, "make", SSF, "--programme", SSF)
    file = tmp_path / "schedule.csv"
    commands.text(*remittal, "schedule", made["id"], "--to", str(file))
    header, first, *_ = file.read_text().splitlines()
    assert header == "Ref;SSID;Month;Basic;Rate;Rs;Paid;Scheme"
    assert first.startswith("1;S1;")
    assert first.endswith(";FE")
    asked = commands.json(*remittal, "send", made["id"], "--reference", "PAY-1")
    assert (asked["kind"], asked["state"]) == ("remittal", "approved")
    assert commands.json(*remittal, "confirm", made["id"])["state"] == "cleared"
    answer = tmp_path / "answer.csv"
    answer.write_text("Ref;Status;Remark\n1;OK;\n2;REJ;E07\n#total;2;4266.00\n")
    assert "213300 of difference" in commands.refusal(*remittal, "answer", made["id"], str(answer))
    answer.write_text("Ref;Status;Remark\n1;OK;\n2;REJ;E07\n#total;2;2133.00\n")
    assert commands.json(*remittal, "answer", made["id"], str(answer))["returned"]["amount"] == 213_300
    assert "nothing changed" in commands.text(*remittal, "answer", made["id"], str(answer))
    assert "E07" in commands.text(*remittal, "show", made["id"], "--state", "rejected")
    assert made["id"] in commands.text(*remittal, "list")
