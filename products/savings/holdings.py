"""Enrolments in savings products seen from their match: which rule holds in a window, and the accounts it moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from products import chart
from products.chart import EnrolmentAccounts
from products.programmes.model import Match
from products.programmes.registry import Programmes
from products.savings.match import StateKey


@dataclass(frozen=True, slots=True)
class Holding:
    """One enrolment in one window, whose match state exists."""

    enrolment_id: UUID
    member_id: UUID
    partner_id: UUID
    programme_id: UUID
    product: str
    match: Match
    rule_version: int
    window_start: date
    window_end: date
    accounts: EnrolmentAccounts
    fund_id: UUID
    currency: str
    time_zone: str

    @property
    def lock_values(self) -> tuple[date, int, int]:
        """What `MatchBook.lock` wants to know of the window: its end, the number of tiers, the rules' version."""
        return self.window_end, len(self.match.tiers), self.rule_version


def load_holdings(tx: Tx, programmes: Programmes, keys: Sequence[StateKey]) -> dict[StateKey, Holding]:
    """The holdings behind existing match states, by (enrolment, first day of the window)."""
    cur = cursor(tx)
    cur.execute(
        """SELECT e.id, s.window_start, e.member_id, e.partner_id, e.programme_id, e.product, s.rule_version,
                  s.window_end, e.pending_account, e.savings_account, e.unvested_account, e.vested_account,
                  f.fund_id, g.currency, g.time_zone
           FROM (SELECT DISTINCT * FROM unnest(%b::uuid[], %b::date[])) AS t (e, w)
           JOIN products.match_state s ON s.enrolment_id = t.e AND s.window_start = t.w
           JOIN products.enrolment e ON e.id = s.enrolment_id
           JOIN products.programme g ON g.id = e.programme_id
           JOIN products.programme_fund f ON f.programme_id = g.id AND f.role = %s""",
        ([key[0] for key in keys], [key[1] for key in keys], chart.SAVERS),
    )
    rows = cur.fetchall()
    rules = {
        (version.programme_id, version.version): version.programme
        for programme_id in {row[4] for row in rows}
        for version in programmes.versions(tx, programme_id)
    }
    holdings: dict[StateKey, Holding] = {}
    for row in rows:
        enrolment, start, member, partner, programme_id, product, version, end = row[:8]
        match = rules[programme_id, version].product(product).match
        if match is None:
            raise LookupError(f"version {version} gives {product} no match, yet it has a match state")
        holdings[enrolment, start] = Holding(
            enrolment, member, partner, programme_id, product, match, version, start, end,
            EnrolmentAccounts(*row[8:12]), *row[12:15],
        )  # fmt: skip
    return holdings
