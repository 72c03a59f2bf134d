"""What had to come of the events beside what came of them: figure by figure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import text

from api.demo.events import Booked, Planned
from api.demo.sender import Answered
from api.demo.world import GROUPS, PARTNERS, PREFUND, PROGRAMMES
from ledger.database import Tx
from ledger.ids import public_id

_TERMS: Final = {plan.slug: plan.terms for plan in PARTNERS}
SAVED: Final = ("member_contributions_pending", "member_savings")
MATCHED: Final = ("sponsor_committed", "match_unvested", "match_vested")


@dataclass(slots=True)
class Comparison:
    """Figures that must be equal."""

    figures: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, what: str, expected: object, found: object) -> None:
        """Two figures that must be the same."""
        self.figures += 1
        if expected != found:
            self.wrong.append(f"{what}: expected {expected}, found {found}")


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds from the acknowledgement of a delivery to its posting."""

    p50: float
    p99: float


def compare_answers(comparison: Comparison, answered: Sequence[Answered]) -> None:
    """Each delivery got the answer that it had to get."""
    for one in answered:
        comparison.expect(f"answer to {one.planned.what}", one.planned.status, one.status)
        if one.status == 202:
            comparison.expect(
                f"duplicate in the answer to {one.planned.what}",
                one.planned.duplicate,
                one.answer.get("duplicate"),
            )


def compare_outcomes(comparison: Comparison, answered: Sequence[Answered], tx: Tx) -> None:
    """Every acknowledged delivery is accounted for, with the outcome that it had to have; and nothing else is there."""
    rows = tx.execute(
        text(
            "SELECT d.id, o.state, o.reason FROM integrations.delivery d LEFT JOIN LATERAL ("
            " SELECT state, reason FROM integrations.delivery_outcome WHERE delivery_id = d.id"
            " ORDER BY attempt DESC LIMIT 1) o ON true"
        )
    ).all()
    found = {public_id("dlv", row[0]): (row[1], row[2]) for row in rows}
    for one in answered:
        if one.status == 202 and one.planned.outcome is not None:
            at = str(one.answer.get("id"))
            comparison.expect(f"outcome of {one.planned.what} {at}", one.planned.outcome, found.get(at))
    expected = Counter(one.planned.outcome for one in answered if one.planned.outcome is not None)
    for outcome in sorted({*expected, *found.values()}, key=str):
        count = sum(1 for other in found.values() if other == outcome)
        comparison.expect(f"deliveries in {outcome}", expected[outcome], count)


def compare_books(
    comparison: Comparison,
    planned: Sequence[Planned],
    tx: Tx,
    settled: Mapping[tuple[str, str], int],
    paid_out: Mapping[str, int],
) -> None:
    """What lies in the accounts is what the events and the published rules come to. ``settled``: paid in for good,
    by partner and programme. ``paid_out``: what has left savings for good, by programme."""
    booked = [one.booked for one in planned if one.booked is not None]
    held = balances(tx)
    for programme in PROGRAMMES:
        here = [one for one in booked if one.group.programme == programme]
        agency = programme == "ssf-nepal"
        product = sum(one.product for one in here)
        comparison.expect(
            f"{programme}: contributions",
            product - paid_out.get(programme, 0),
            sum(
                held.get((programme, code, ""), 0)
                for code in (("agency_contributions_collected",) if agency else SAVED)
            ),
        )
        comparison.expect(
            f"{programme}: unapplied",
            sum(one.unapplied for one in here),
            held.get((programme, "member_unapplied", ""), 0),
        )
        comparison.expect(
            f"{programme}: unallocated",
            sum(one.unallocated for one in here),
            held.get((programme, "unallocated_contributions", ""), 0),
        )
        comparison.expect(
            f"{programme}: match",
            entitled(here, programme),
            sum(held.get((programme, code, ""), 0) for code in MATCHED),
        )
        # EjoHeza's match has no steps and PM-SYM's one is the age of sixty, which nobody here has reached
        code = "match_vested" if programme == "pm-sym" else "match_unvested"
        comparison.expect(f"{programme}: {code}", 0, held.get((programme, code, ""), 0))
    for slug, programme, currency in sorted({(g.partner, g.programme, g.currency) for g in GROUPS}):
        collected = sum(
            one.collected for one in booked if (one.group.partner, one.group.programme) == (slug, programme)
        )
        if _TERMS[slug] == "prefunded":
            comparison.expect(
                f"{slug} in {programme}: prefund left",
                PREFUND[currency] - collected,
                held.get((programme, "partner_prefund", slug), 0),
            )
        else:
            paid = settled.get((slug, programme), 0)
            comparison.expect(
                f"{slug} in {programme}: owed",
                collected - paid,
                held.get((programme, "partner_receivable", slug), 0),
            )


def entitled(booked: Sequence[Booked], programme: str) -> int:
    """The match by the published rules, worked out a second time, from the events alone; minor units.

    EjoHeza: by calendar year; categories 1 and 2 from RWF 15,000, in full; category 3 from RWF 18,000, half; at most
    RWF 18,000. PM-SYM: as much as the instalments.
    """
    if programme == "pm-sym":
        return sum(one.product for one in booked)
    if programme != "ejoheza":
        return 0
    years: Counter[tuple[int, int, int]] = Counter()
    for one in booked:
        if one.person is not None:
            years[one.person.number, one.person.category, one.on.year] += one.product
    total = 0
    for (_, category, _), saved in years.items():
        if category in (1, 2) and saved >= 15_000:
            total += min(saved, 18_000)
        elif category == 3 and saved >= 18_000:
            total += min(saved // 2, 18_000)
    return total


def balances(tx: Tx) -> dict[tuple[str, str, str], int]:
    """Normal-side balances by programme and account code, over all owners (""), and of partners by slug."""
    rows = tx.execute(
        text(
            "SELECT g.slug, a.code, a.owner, CASE WHEN a.kind IN ('asset', 'expense') THEN b.debits - b.credits"
            " ELSE b.credits - b.debits END FROM ledger.account a JOIN ledger.account_balance b ON b.account_id = a.id"
            " JOIN products.programme_fund f ON f.fund_id = a.fund_id JOIN products.programme g ON g.id = f.programme_id"
        )
    )
    found: Counter[tuple[str, str, str]] = Counter()
    slugs = {plan.slug for plan in PARTNERS}
    for programme, code, owner, amount in rows:
        found[programme, code, ""] += amount
        if owner in slugs:
            found[programme, code, owner] += amount
    return dict(found)


def outcomes(tx: Tx) -> list[tuple[str, str, int]]:
    """Deliveries by standing state and reason."""
    rows = tx.execute(
        text(
            "SELECT coalesce(o.state, 'queued'), coalesce(o.reason, ''), count(*) FROM integrations.delivery d"
            " LEFT JOIN LATERAL (SELECT state, reason FROM integrations.delivery_outcome WHERE delivery_id = d.id"
            " ORDER BY attempt DESC LIMIT 1) o ON true GROUP BY 1, 2 ORDER BY 1, 2"
        )
    )
    return [(state, reason, count) for state, reason, count in rows]


def lag(tx: Tx) -> Lag:
    """From acknowledged to posted, over everything that a worker decided."""
    row = tx.execute(
        text(
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s), percentile_cont(0.99) WITHIN GROUP (ORDER BY s)"
            " FROM (SELECT extract(epoch FROM o.processed_at - d.received_at)::float8 AS s FROM integrations.delivery d"
            " JOIN integrations.delivery_outcome o ON o.delivery_id = d.id AND o.attempt = 1 WHERE d.kind = 'new') AS l"
        )
    ).one()
    return Lag(float(row[0] or 0), float(row[1] or 0))
