"""The posting benchmark does what it says; how fast is not a test's business."""

import json

from api.bench.measure import medians
from api.bench.posting import Size, compare
from tests.conftest import Databases


def test_both_sides_write_all_events_and_agree_on_every_balance(databases: Databases) -> None:
    report = compare(databases.urls, 1, Size(members=30, batch=20, batches=2))
    assert report.name == "posting"
    for figure in ("events_per_second", "floor_events_per_second", "ratio"):
        assert (
            0 < report.figures[f"{figure}_min"] <= report.figures[figure] <= report.figures[f"{figure}_max"]
        )
    written = json.loads(report.to_json())
    assert set(written) == {"name", "figures", "machine"}
    assert set(written["machine"]) == {"cpu", "cores", "memory", "python", "postgres", "settings"}


def test_a_median_keeps_its_extremes_beside_it() -> None:
    assert medians([{"a": 1.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0, "a_min": 1.0, "a_max": 9.0}
