"""Payments by rail and day: what the rail was asked to pay, what it took, what it confirmed or gave back, what the bank shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.periods import effective_day

State = Literal["unknown", "under_way", "awaiting_bank", "tied"]


@dataclass(frozen=True, slots=True)
class RailDay:
    """What a rail was asked to pay on one day, in minor units: ``asked`` = ``submitted`` + ``unknown`` + ``not_sent``.

    ``submitted``: the rail has it, or had it; ``confirmed`` and ``back`` of it are final. ``bank``: of what is out and did not
    come back, what statement lines show.
    """

    days_since: int
    on: date
    rail: str
    programme: str
    fund: str
    currency: str
    payments: int
    asked: int
    not_sent: int
    unknown: int
    submitted: int
    confirmed: int
    back: int
    bank: int

    @property
    def under_way(self) -> int:
        """What the rail has and has said no last word on."""
        return self.submitted - self.confirmed - self.back

    @property
    def confirmed_less_bank(self) -> int:
        """What the rail says that it paid and the bank does not show."""
        return self.confirmed - self.bank

    @property
    def state(self) -> State:
        """What is to be done about it first."""
        if self.unknown:
            return "unknown"
        if self.under_way or self.not_sent:
            return "under_way"
        return "awaiting_bank" if self.confirmed_less_bank else "tied"


def rows(
    tx: Tx,
    clock: Clock,
    since: date,
    through: date,
    *,
    rail: str | None = None,
    programme: str | None = None,
    currency: str | None = None,
    state: State | None = None,
    programmes: frozenset[UUID] | None = None,
) -> list[RailDay]:
    """Rails' days, oldest first. ``programmes``: those that whoever asks may see. ``tx`` must see one snapshot, of every row."""
    found = cursor(tx).execute(
        """WITH attempt AS MATERIALIZED (
               SELECT a.*, r.slug, r.programme_id, r.fund_id, r.currency
               FROM products.payout_attempt a JOIN products.rail r ON r.id = a.rail_id
               JOIN products.programme g ON g.id = r.programme_id
               WHERE a.asked_on BETWEEN %(since)s AND %(through)s
                 AND (%(rail)s::text IS NULL OR r.slug = %(rail)s)
                 AND (%(programme)s::text IS NULL OR g.slug = %(programme)s)
                 AND (%(currency)s::text IS NULL OR r.currency = %(currency)s)
                 AND (%(programmes)s::uuid[] IS NULL OR g.id = ANY (%(programmes)s))
           ), shown AS (
               SELECT a.id FROM attempt a
               JOIN ledger.reference k ON k.reference = 'payout:' || a.payout_id || ':' || a.number || ':paid'
               JOIN ledger.item i ON i.transaction_id = k.transaction_id
               JOIN ledger.paired_item s ON s.item_id = i.id
               JOIN ledger.pairing p ON p.id = s.pairing_id AND cardinality(p.lines) > 0
               WHERE a.state = 'paid'
           )
           SELECT a.asked_on, a.slug, g.slug, f.code, a.currency, count(*), sum(a.amount)::bigint,
                  coalesce(sum(a.amount) FILTER (WHERE a.state = 'not_sent'), 0)::bigint,
                  coalesce(sum(a.amount) FILTER (WHERE a.state IN ('sending', 'unknown')), 0)::bigint,
                  coalesce(sum(a.amount) FILTER (WHERE a.state NOT IN ('sending', 'unknown', 'not_sent')), 0)::bigint,
                  coalesce(sum(a.amount) FILTER (WHERE a.state = 'paid'), 0)::bigint,
                  coalesce(sum(a.amount) FILTER (WHERE a.state IN ('failed', 'returned')), 0)::bigint,
                  coalesce(sum(a.amount) FILTER (WHERE a.id IN (SELECT id FROM shown)), 0)::bigint,
                  g.time_zone
           FROM attempt a
           JOIN products.programme g ON g.id = a.programme_id JOIN ledger.fund f ON f.id = a.fund_id
           GROUP BY 1, 2, 3, 4, 5, g.time_zone ORDER BY 1, 2, 4""",
        {
            "since": since,
            "through": through,
            "rail": rail,
            "programme": programme,
            "currency": currency,
            "programmes": None if programmes is None else list(programmes),
        },
    )
    now = clock.now()
    days = [RailDay(max((effective_day(now, zone) - values[0]).days, 0), *values) for *values, zone in found]
    return [day for day in days if state in (None, day.state)]


def totals(days: Iterable[RailDay]) -> dict[str, dict[str, int]]:
    """What days add up to, by currency."""
    summed = ("asked", "not_sent", "unknown", "submitted", "confirmed", "back", "bank")
    sums: dict[str, dict[str, int]] = {}
    for day in days:
        of = sums.setdefault(day.currency, dict.fromkeys(summed, 0))
        for name in summed:
            of[name] += getattr(day, name)
    return dict(sorted(sums.items()))
