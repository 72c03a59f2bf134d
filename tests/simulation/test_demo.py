"""`mizan demo` in little: it ends well, every figure agrees, and the seed decides."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def demo(seed: int, home: Path) -> dict[str, Any]:
    """The figures of a small run in an empty directory."""
    done = subprocess.run(
        [sys.executable, "-c", "from api.cli import main; main()", "demo", "--seed", str(seed), "--events", "600", "--json"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return dict(json.loads(done.stdout))


@pytest.mark.timeout(580)
def test_every_figure_is_as_it_has_to_be_and_the_seed_decides_them(tmp_path: Path) -> None:
    first, again = demo(3, tmp_path), demo(3, tmp_path)
    for one in (first, again):
        assert one["ok"] is True
        assert one["wrong"] == []
        assert one["verify"]["unsealed"] == 0
        assert one["timing"].pop("lag_p99_seconds") >= 0
        del one["timing"]
    assert first == again
    assert first["sent"] == sum(first["answers"].values()) == 600
    assert first["figures_compared"] > 1_800
    assert (
        first["after"]["member_contributions_pending"] == 0 < first["before"]["member_contributions_pending"]
    )
    assert [(one["states"][-1], one["reason"]) for one in first["payouts"]] == [
        ("paid", None),
        ("failed", "payee_closed"),
        ("returned", "payee_closed"),
    ]
    assert ["payout_returned", "bank", "match_vested", 18_000] in first["payouts"][2]["postings"]
    assert first["payouts"][2]["events"][-2:] == ["payout.paid", "payout.returned"]
    paid = first["payouts"][0]["amount"]
    before, after = first["balance"]["before"], first["balance"]["after"]
    assert (before["settled"] - after["settled"], before["match"]) == (paid, after["match"])
    assert (first["clearing"], first["bank"], first["tie"]["ties"]) == (0, -paid, True)
    assert first["returned"]["amount"] > 0 == sum(first["left"]["ejoheza"].values())
    assert sum(first["left"]["pm-sym"].values()) == first["owed"]["pm-sym"] > 0
    month, days = first["bank_statements"]
    assert (month["format"], days["format"]) == ("camt.053", "mt940")
    assert (month["opening"], month["closing"]) == (0, days["opening"])
    assert sum(first["paired_by"].values()) == month["lines"] + days["lines"] - 3
    assert {one["type"]: one["resolved"] for one in first["breaks"]} == {
        "timing": False,
        "duplicate": False,
        "unknown_party": False,
        "short": False,
        "fee": True,
    }
    assert (first["closed"]["asked_by"], first["closed"]["approved_by"]) == ("Keza", "Mugisha")
    assert first["closed"]["checklist_before"]["event_totals"] == "red"
    assert set(first["closed"]["checklist"].values()) == {"green", "explained"}
    (_, _, _, bank), *between, (_, _, _, books), (_, _, _, difference) = first["closed"][
        "bank_reconciliation"
    ]
    assert bank == month["closing"]
    assert bank + sum(row[3] for row in between) == books
    assert (len(between), difference) == (3, 0)
    assert not list(tmp_path.iterdir())
