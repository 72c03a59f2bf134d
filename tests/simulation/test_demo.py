"""`mizan demo` in little: it ends well, every figure agrees, and the seed decides."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def demo(seed: int, home: Path) -> dict[str, Any]:
    """The figures of a small run in an empty directory."""
    done = subprocess.run(
        [sys.executable, "-c", "from api.cli import main; main()", "demo", "--seed", str(seed), "--events", "600", "--json"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return dict(json.loads(done.stdout))


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
    assert first["figures_compared"] > 1_500
    assert (
        first["after"]["member_contributions_pending"] == 0 < first["before"]["member_contributions_pending"]
    )
    assert not list(tmp_path.iterdir())
