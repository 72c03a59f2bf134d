"""The API's benchmark runs, and says what it promises to say."""

from api.bench.api import Size, run

STEPS = ("token_check", "standing_and_row_level_security", "rate_limit", "member", "balances", "rendering")


def test_the_api_and_the_bare_route_are_read_and_every_step_has_its_share() -> None:
    report = run(1, Size(members=5, remittances=1, reads=100, warm_up=20, steps=20))
    figures = report.figures
    assert figures["errors"] == figures["bare_errors"] == 0
    assert figures["reads_per_second"] > 0
    assert 0 < figures["ratio"] < 1.5
    assert figures["p50_milliseconds"] <= figures["p99_milliseconds"]
    assert all(figures[f"{step}_share"] > 0 for step in STEPS)
    assert 0 <= figures["rest_share"] < 1
