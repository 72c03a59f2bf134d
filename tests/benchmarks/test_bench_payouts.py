"""The payouts' benchmark pays what it says, and checks itself; how fast is not a test's business."""

from api.bench import payouts, pipeline


def test_every_payout_is_paid_once_and_the_figure_stands_beside_the_pipelines() -> None:
    size = payouts.Size(payouts=60, remittances=pipeline.Size(members=20, events=60))
    report = payouts.run(1, size)
    assert report.name == "payouts"
    figures = report.figures
    assert figures["ratio"] > 0
    assert figures["payouts_per_second"] > 0
    assert figures["pipeline_events_per_second"] > 0
