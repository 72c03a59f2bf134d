"""The machine of a payout's states: any reports, in any order, however often; the money is at one place, and moves once."""

from datetime import UTC, datetime, timedelta
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from products.payouts.rails import Report, ReportState
from products.payouts.states import Attempt, Money, apply, lost, state_of
from products.payouts.terms import Fee, shared

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
SENT = Attempt("sending", "clearing", 1_000, "RWF", doubtful=False, sent_at=NOW)
FORGETS_AFTER = 3_600.0
NEXT: dict[Money, set[Money]] = {
    "clearing": {"clearing", "out", "back"},
    "out": {"out", "back"},
    "back": {"back"},
}
FINAL = {"paid": {"paid", "failed", "returned"}, "failed": {"failed"}, "returned": {"returned"}}

said = st.builds(
    Report,
    state=st.sampled_from(get_args(ReportState)),
    rail_reference=st.sampled_from([None, "R-1", "R-1", "R-2"]),
    at=st.sampled_from([None, *(NOW + timedelta(minutes=minutes) for minutes in range(4))]),
    amount=st.sampled_from([None, 1_000, 1_000, 999]),
    currency=st.sampled_from([None, "RWF", "RWF", "KES"]),
    fee=st.sampled_from([None, 5]),
)


@given(st.lists(said, max_size=12), st.integers(0, 7_200))
def test_money_moves_forward_only_and_a_final_state_changes_only_as_rails_may(
    reports: list[Report], seconds: int
) -> None:
    now, attempt = NOW + timedelta(seconds=seconds), SENT
    for report in reports:
        done = apply(attempt, report, now=now, forgets_after_seconds=FORGETS_AFTER)
        after = done.attempt
        assert after.money in NEXT[attempt.money]
        assert state_of(after) in FINAL.get(state_of(attempt), {state_of(after)})
        # where the money is says which state it is in, and the other way round
        assert (after.money == "out") == (after.state == "paid")
        assert (after.money == "back") == (after.state in ("failed", "returned"))
        if done.outcome == "contradicts":
            assert after == attempt
            assert done.problem is not None
        # the same again changes nothing, unless it was asked of what is sent again meanwhile
        again = apply(after, report, now=now, forgets_after_seconds=FORGETS_AFTER)
        assert again.attempt == after
        assert again.outcome != "applied"
        attempt = after


@given(st.lists(said, max_size=8))
def test_what_may_have_arrived_is_sent_again_only_when_the_rail_has_never_heard_of_it(
    reports: list[Report],
) -> None:
    attempt = lost(SENT)
    for report in reports:
        after = apply(
            attempt, report, now=NOW + timedelta(hours=2), forgets_after_seconds=FORGETS_AFTER
        ).attempt
        if after.state == "not_sent" and attempt.state != "not_sent":
            assert report.state == "not_found"
        attempt = after


def test_a_rail_forgets_only_after_its_time() -> None:
    asked = Report("not_found")
    waiting = apply(lost(SENT), asked, now=NOW + timedelta(minutes=59), forgets_after_seconds=FORGETS_AFTER)
    assert (waiting.attempt.state, waiting.outcome) == ("unknown", "repeated")
    known = apply(SENT, Report("accepted", rail_reference="R"), now=NOW, forgets_after_seconds=0).attempt
    forgotten = apply(known, asked, now=NOW + timedelta(days=9), forgets_after_seconds=0)
    assert (forgotten.outcome, forgotten.problem) == ("contradicts", "forgotten_by_rail")


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=3), st.integers(0, 100), st.integers(0, 500))
def test_a_fee_is_shared_over_the_parts_to_the_last_unit(
    amounts: list[int], fixed: int, basis_points: int
) -> None:
    whole = sum(amounts)
    fee = min(Fee(fixed, basis_points, "member").of(whole), whole)
    shares = shared(fee, tuple(amounts))
    assert sum(shares) == fee
    assert all(0 <= share <= amount for share, amount in zip(shares, amounts, strict=True))
