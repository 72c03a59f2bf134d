"""The items of the check-list that are about partners: what they sent that is not in the books, and totals that they confirm."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from products.closing.findings import Finding, Item, limited
from products.closing.period import Period

Valued = Mapping[UUID, tuple[int, str]]
"""What deliveries are about, in minor units and a currency; those that can't be read are not in it."""
Valuing = Callable[[Tx, Sequence[UUID]], Valued]
"""Reads what deliveries say: their bodies rest sealed, under keys of the inbox."""

VALUED_MAX: Final = 5_000
"""Deliveries whose amounts are read at most, the oldest first."""


def quarantine(tx: Tx, period: Period, valuing: Valuing) -> Item:
    """Deliveries received by the month's end that are quarantined or parked, per partner and reason: number, value, owner.

    Of a partner that has joined several programmes, those that can't be told apart are in each one's list. An explanation
    says who sees to them (its owner); without one it is none.
    """
    with cursor(tx) as sql:
        rows = sql.execute(
            """
            SELECT d.id, p.slug, o.state, coalesce(o.reason, '')
            FROM integrations.delivery_outcome o JOIN integrations.delivery d ON d.id = o.delivery_id
            JOIN products.partner p ON p.id = d.partner_id
            JOIN products.partner_programme j ON j.partner_id = p.id AND j.programme_id = %(programme)s
            LEFT JOIN products.remittance r ON r.id = o.remittance_id
            WHERE o.state IN ('quarantined', 'parked') AND (r.programme_id IS NULL OR r.programme_id = %(programme)s)
              AND d.received_at < (%(through)s::date + 1)::timestamp AT TIME ZONE %(zone)s
              AND NOT EXISTS (SELECT FROM integrations.delivery_outcome n
                              WHERE n.delivery_id = o.delivery_id AND n.attempt > o.attempt)
            ORDER BY d.id
            """,
            {"programme": period.programme_id, "through": period.through, "zone": period.time_zone},
        ).fetchall()
    valued = valuing(tx, [row[0] for row in rows[:VALUED_MAX]])
    grouped: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for id_, partner, state, reason in rows:
        amount, currency = valued.get(id_, (None, ""))
        grouped[partner, state, reason, currency].append(amount if amount is not None else 0)
    found = []
    for (partner, state, reason, currency), amounts in sorted(grouped.items()):
        because = f" ({reason.replace('_', ' ')})" if reason else ""
        what = f"{len(amounts)} of {partner} are {state}{because}"
        found.append(
            Finding(
                ":".join(filter(None, (partner, state, reason, currency))),
                f"{what}." if currency else f"{what}; what they are worth can't be read.",
                sum(amounts) if currency else None,
                currency or None,
                len(amounts),
                link=f"/v1/deliveries?state={state}",
            )
        )
    return Item("quarantine", limited(found), {"deliveries": len(rows), "valued": len(valued)})


_TOTALS: Final = """
    SELECT p.id, p.slug, r.currency, count(*) FILTER (WHERE r.collected), count(*) FILTER (WHERE r.reversed),
           coalesce(sum(r.amount) FILTER (WHERE r.collected), 0), coalesce(sum(r.amount) FILTER (WHERE r.reversed), 0),
           max(greatest(r.recorded_at, CASE WHEN r.reversed THEN r.reversed_recorded_at END))
    FROM (
        SELECT r.partner_id, r.collected_currency AS currency, r.collected_amount AS amount, r.recorded_at,
               (SELECT t.recorded_at FROM ledger.transaction t WHERE t.id = r.reversal_transaction_id) AS reversed_recorded_at,
               r.contributed_at >= m.since AND r.contributed_at < m.until AS collected,
               coalesce(r.status = 'reversed' AND r.reversed_at >= m.since AND r.reversed_at < m.until, false) AS reversed
        FROM products.remittance r
        CROSS JOIN (SELECT %(first)s::date::timestamp AT TIME ZONE %(zone)s AS since,
                           (%(through)s::date + 1)::timestamp AT TIME ZONE %(zone)s AS until) AS m
        WHERE r.partner_id IN (SELECT partner_id FROM products.partner_programme WHERE programme_id = %(programme)s)
          AND r.status IN ('posted', 'reversed', 'unallocated') AND r.collected_amount > 0
          AND (r.programme_id = %(programme)s OR r.programme_id IS NULL AND r.collected_currency = %(currency)s)
          AND (r.contributed_at >= m.since AND r.contributed_at < m.until
               OR r.reversed_at >= m.since AND r.reversed_at < m.until)
    ) r JOIN products.partner p ON p.id = r.partner_id
    WHERE r.collected OR r.reversed
    GROUP BY p.id, p.slug, r.currency ORDER BY p.slug, r.currency
"""


def event_totals(tx: Tx, period: Period) -> Item:
    """What each partner collected and reversed in the month: confirmed by its settlement files, or by a person.

    Its files confirm the month when those without open differences cover each of its days, and were compared after the
    month's last event was recorded.
    """
    with cursor(tx) as sql:
        totals = sql.execute(
            _TOTALS,
            {
                "programme": period.programme_id,
                "currency": period.currency,
                "zone": period.time_zone,
                "first": period.month,
                "through": period.through,
            },
        ).fetchall()
        files: dict[UUID, list[tuple[date, date, datetime]]] = defaultdict(list)
        for partner_id, first_on, last_on, compared_at in sql.execute(
            "SELECT f.partner_id, f.first_on, f.last_on, f.compared_at FROM products.settlement_file f"
            " WHERE f.programme_id = %s AND f.first_on <= %s AND f.last_on >= %s AND NOT EXISTS ("
            "SELECT FROM products.settlement_difference d WHERE d.file_id = f.id AND d.state = 'open')",
            (period.programme_id, period.through, period.month),
        ):
            files[partner_id].append((first_on, last_on, compared_at))
    found = []
    by_file = 0
    for partner_id, partner, currency, collected, reversed_, amount, taken_back, recorded_at in totals:
        fresh = [
            (first, last) for first, last, compared_at in files[partner_id] if compared_at >= recorded_at
        ]
        if _cover(fresh, period.month, period.through):
            by_file += 1
            continue
        back = f", and took back {reversed_}" if reversed_ else ""
        found.append(
            Finding(
                f"{partner}:{currency}",
                f"{partner} collected {collected} times{back}: it has not confirmed it.",
                int(amount - taken_back),
                currency,
                collected + reversed_,
                link=f"/v1/settlement-files?partner={partner}",
            )
        )
    return Item("event_totals", limited(found), {"partners": len(totals), "confirmed_by_file": by_file})


def _cover(spans: Sequence[tuple[date, date]], first: date, through: date) -> bool:
    """Whether spans of days leave none out from the first to the last."""
    reached = first
    for begins, ends in sorted(spans):
        if begins > reached:
            return False
        reached = max(reached, ends + timedelta(days=1))
    return reached > through
