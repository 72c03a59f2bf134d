"""How payouts stand, measured at each scrape: what waits, what is under way, what nobody knows, and rails that are down."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from ledger.database import Tx, cursor

MEASURED: Final = {
    "mizan_payouts": "Payouts that are not final, by `state`: `approved` is the rails' queue, `unknown` may be paid or not.",
    "mizan_payouts_oldest_seconds": "Age of the oldest payout, from its submission, that its rail has no last word on; 0 when there is none.",
    "mizan_payout_problems": "Payouts of which rails say what can't be true as well, and reports that match no payment; by `kind`: `contradicts`, `unmatched`.",
    "mizan_rails": "Rails by `state`: `ready`, `paused`, `down` (the breaker is open).",
}
"""Gauges that `read` measures."""

STATES: Final = ("awaiting_operators", "approved", "submitted", "in_transit", "unknown")


@dataclass(frozen=True, slots=True)
class PayoutState:
    """One look."""

    by_state: dict[str, int]
    oldest_seconds: float
    contradicting: int
    unmatched: int
    ready: int
    paused: int
    down: int


def read(tx: Tx) -> PayoutState:
    """How payouts and rails stand, as a role that sees every row."""
    cur = cursor(tx)
    by_state: dict[str, int] = dict(
        cur.execute(
            "SELECT state, count(*) FROM products.payout WHERE state IN ('approved', 'submitted', 'in_transit', 'unknown',"
            " 'awaiting_operators') GROUP BY state"
        ).fetchall()
    )
    row = cur.execute(
        """
        SELECT coalesce((SELECT extract(epoch FROM now() - min(submitted_at)) FROM products.payout
                         WHERE state IN ('submitted', 'in_transit', 'unknown')), 0)::float8,
               (SELECT count(*) FROM products.payout WHERE problem IS NOT NULL),
               (SELECT count(*) FROM products.rail_report WHERE outcome = 'unmatched'),
               count(*) FILTER (WHERE r.paused_at IS NULL AND b.opened_at IS NULL),
               count(*) FILTER (WHERE r.paused_at IS NOT NULL),
               count(*) FILTER (WHERE r.paused_at IS NULL AND b.opened_at IS NOT NULL)
        FROM products.rail r LEFT JOIN products.rail_breaker b ON b.rail_id = r.id
        """
    ).fetchone()
    seconds, *counts = row or (0.0, 0, 0, 0, 0, 0)
    return PayoutState(by_state, max(0.0, seconds), *counts)


def shown(state: PayoutState) -> Iterator[Metric]:
    """The gauges of a look."""
    payouts = _labelled("mizan_payouts", "state")
    for name in STATES:
        payouts.add_metric([name], state.by_state.get(name, 0))
    yield payouts
    oldest = GaugeMetricFamily(
        "mizan_payouts_oldest_seconds", MEASURED["mizan_payouts_oldest_seconds"], value=state.oldest_seconds
    )
    yield oldest
    problems = _labelled("mizan_payout_problems", "kind")
    problems.add_metric(["contradicts"], state.contradicting)
    problems.add_metric(["unmatched"], state.unmatched)
    yield problems
    rails = _labelled("mizan_rails", "state")
    for name, count in (("ready", state.ready), ("paused", state.paused), ("down", state.down)):
        rails.add_metric([name], count)
    yield rails


def _labelled(name: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, MEASURED[name], labels=[label])
