"""The benchmark of the hook does what it says; how fast is not a test's business."""

from api.bench.hooks import Size, run


def test_the_hooks_benchmark_stores_all_that_it_sends_and_reports_its_figures() -> None:
    report = run(1, Size(deliveries=300, warm_up=50))
    assert report.name == "hooks"
    assert report.figures["errors"] == report.figures["bare_errors"] == 0
    for name in ("deliveries_per_second", "p99_milliseconds", "server_cpu_microseconds"):
        assert report.figures[name] > 0
        assert report.figures[f"bare_{name}"] > 0
    assert report.figures["ratio_min"] <= report.figures["ratio"] <= report.figures["ratio_max"]
