"""What partners collected, and owe: by fund, day and currency, with the day on which it is expected, and how late it is.

Set-based: the contributions are added up by the day that they count for, and each day's terms say when it is expected. What is
owed here, less the credits, is what the partners' receivables hold in the books, to the last unit (`products.checks`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput
from ledger.periods import effective_day
from products.settlements.terms import load_terms, on_day

DAYS_MAX: Final = 366
"""Days of one answer at most."""

Bucket = Literal["not_due", "1-7", "8-30", "31-90", "over_90"]
BUCKETS: Final[tuple[Bucket, ...]] = ("not_due", "1-7", "8-30", "31-90", "over_90")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was collected of a day, in minor units: ``collected`` = ``reversed`` + ``settled`` + ``fees`` + ``owed``.

    ``fees`` is what the partner will keep of what is open, ``settled`` what it, or another, has paid, fees included.
    """

    collected: int
    reversed: int
    settled: int
    fees: int
    owed: int

    def plus(self, other: "Amounts") -> "Amounts":
        """Both together."""
        return Amounts(
            self.collected + other.collected,
            self.reversed + other.reversed,
            self.settled + other.settled,
            self.fees + other.fees,
            self.owed + other.owed,
        )


@dataclass(frozen=True, slots=True)
class Obligation:
    """What a partner collected for a fund on a day, and what of it is still to come."""

    partner_id: UUID
    partner: str
    programme: str
    fund: str
    currency: str
    collected_on: date
    amounts: Amounts
    expected_on: date
    days_overdue: int

    @property
    def bucket(self) -> Bucket:
        """How late it is, in days after the day on which it was expected."""
        return bucket_of(self.days_overdue)


@dataclass(frozen=True, slots=True)
class Credit:
    """What a fund owes a partner, which nets against its next settlement; negative: one that was netted proved void."""

    partner_id: UUID
    partner: str
    programme: str
    fund: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Ageing:
    """What a partner owes in a currency by how late it is, and what it may leave out of its next payment."""

    partner_id: UUID
    partner: str
    programme: str
    currency: str
    by_bucket: dict[Bucket, int]
    credits: int

    @property
    def owed(self) -> int:
        """All that is still to come."""
        return sum(self.by_bucket.values())


def bucket_of(days_overdue: int) -> Bucket:
    """How late so many days are."""
    for bucket, most in zip(BUCKETS, (0, 7, 30, 90), strict=False):
        if days_overdue <= most:
            return bucket
    return "over_90"


def obligations(
    tx: Tx,
    clock: Clock,
    partner_id: UUID | None = None,
    *,
    since: date | None = None,
    through: date | None = None,
    everything: bool = False,
) -> list[Obligation]:
    """What partners (or one) collected and owe, oldest day first, then by partner and fund.

    Days on which nothing is owed are left out unless ``everything`` of a span of days is asked for. Raises InvalidInput for a
    span that is too long, or for none.
    """
    if everything:
        if since is None or through is None or through < since:
            raise InvalidInput("everything is shown of a first and a last day", pointer="/since")
        if through - since >= timedelta(days=DAYS_MAX):
            raise InvalidInput(f"at most {DAYS_MAX} days", pointer="/through")
    return _dated(tx, clock, _sums(tx, partner_id, since, through, everything))


_Sum = tuple[UUID, str, UUID, str, str, str, date, date, int, int, int, int, int]


def _sums(
    tx: Tx, partner_id: UUID | None, since: date | None, through: date | None, everything: bool
) -> Sequence[_Sum]:
    cur = cursor(tx)
    # Days with something owed are found by the index of what is owed; all of a day by the index of days.
    cur.execute(
        """WITH days AS MATERIALIZED (
               SELECT DISTINCT partner_id, programme_id, collected_on FROM products.contribution
               WHERE owed AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)
                 AND (%(since)s::date IS NULL OR collected_on >= %(since)s)
                 AND (%(through)s::date IS NULL OR collected_on <= %(through)s)
           ), span AS MATERIALIZED (
               SELECT CASE WHEN %(everything)s THEN %(since)s::date ELSE min(collected_on) END AS first,
                      CASE WHEN %(everything)s THEN %(through)s::date ELSE max(collected_on) END AS last FROM days
           )
           SELECT p.id, p.slug, g.id, g.slug, g.slug || '/' || f.role, c.currency, c.collected_on, c.contributed_on,
                  sum(c.amount)::bigint,
                  coalesce(sum(c.amount) FILTER (WHERE c.state = 'reversed'), 0)::bigint,
                  coalesce(sum(c.amount) FILTER (WHERE c.state <> 'reversed' AND NOT c.owed), 0)::bigint,
                  coalesce(sum(c.fee) FILTER (WHERE c.owed), 0)::bigint,
                  coalesce(sum(c.amount - c.fee) FILTER (WHERE c.owed), 0)::bigint
           FROM products.contribution c
           JOIN products.partner p ON p.id = c.partner_id
           JOIN products.programme g ON g.id = c.programme_id
           JOIN products.programme_fund f ON f.fund_id = c.fund_id
           WHERE c.collected_on BETWEEN (SELECT first FROM span) AND (SELECT last FROM span)
             AND (%(partner)s::uuid IS NULL OR c.partner_id = %(partner)s)
             AND (%(everything)s OR (c.partner_id, c.programme_id, c.collected_on) IN (SELECT * FROM days))
             -- what had no member then and went on to the member's products is counted there
             AND NOT (c.state = 'reversed' AND c.destination = 'unallocated' AND EXISTS (
                 SELECT 1 FROM products.contribution n WHERE n.remittance = c.remittance AND n.position > c.position))
           GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 7, 2, 5, 8""",
        {"partner": partner_id, "since": since, "through": through, "everything": everything},
    )
    return cur.fetchall()


def _dated(tx: Tx, clock: Clock, sums: Sequence[_Sum]) -> list[Obligation]:
    """Each day with when it is expected; what counts for one day by two days' terms is expected on two."""
    now = clock.now()
    terms = load_terms(tx, sorted({row[0] for row in sums}))
    merged: dict[tuple[date, str, str, str, date], Obligation] = {}
    for partner_id, partner, programme_id, programme, fund, currency, day, contributed_on, *counted in sums:
        amounts = Amounts(*counted)
        agreed = on_day(terms[partner_id, programme_id], contributed_on)
        expected = agreed.expected_on(day)
        late = max((effective_day(now, agreed.time_zone) - expected).days, 0) if amounts.owed else 0
        key = (day, partner, programme, fund, expected)
        before = merged.get(key)
        if before is not None:
            amounts = before.amounts.plus(amounts)
            late = max(late, before.days_overdue)
        merged[key] = Obligation(partner_id, partner, programme, fund, currency, day, amounts, expected, late)
    return [merged[key] for key in sorted(merged)]


def standing_credits(tx: Tx, partner_id: UUID | None = None) -> list[Credit]:
    """What funds owe partners (or one), by partner, programme and fund."""
    cur = cursor(tx)
    cur.execute(
        """SELECT p.id, p.slug, g.slug, g.slug || '/' || f.role, k.currency, sum(k.amount)::bigint
           FROM products.settlement_credit k JOIN products.partner p ON p.id = k.partner_id
           JOIN products.programme g ON g.id = k.programme_id JOIN products.programme_fund f ON f.fund_id = k.fund_id
           WHERE %(partner)s::uuid IS NULL OR k.partner_id = %(partner)s
           GROUP BY 1, 2, 3, 4, 5 HAVING sum(k.amount) <> 0 ORDER BY 2, 3, 4""",
        {"partner": partner_id},
    )
    return [Credit(*row) for row in cur.fetchall()]


def ageing(tx: Tx, clock: Clock, partner_id: UUID | None = None) -> list[Ageing]:
    """What partners (or one) owe by how late it is, by partner, programme and currency."""
    credits_of: dict[tuple[UUID, str, str, str], int] = {}
    for one in standing_credits(tx, partner_id):
        whose = (one.partner_id, one.partner, one.programme, one.currency)
        credits_of[whose] = credits_of.get(whose, 0) + one.amount
    sums: dict[tuple[UUID, str, str, str], dict[Bucket, int]] = {
        whose: dict.fromkeys(BUCKETS, 0) for whose in credits_of
    }
    for day in obligations(tx, clock, partner_id):
        whose = (day.partner_id, day.partner, day.programme, day.currency)
        buckets = sums.setdefault(whose, dict.fromkeys(BUCKETS, 0))
        buckets[day.bucket] += day.amounts.owed
    return [
        Ageing(*whose, buckets, credits_of.get(whose, 0))
        for whose, buckets in sorted(sums.items(), key=lambda one: one[0][1:])
    ]
