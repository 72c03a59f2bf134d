"""Limits of payouts: of the rail, per payout, per member and day, per day; and of the member's verification, per month."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from ledger.database import Tx, cursor
from products.payouts.errors import LimitReached
from products.payouts.registry import ConfiguredRail
from products.programmes.model import Level, LevelLimits


@dataclass(frozen=True, slots=True)
class Spent:
    """What a member asked for already, in minor units: this day, by rail, and this calendar month. What came to nothing does not count."""

    month: int
    day: int
    by_rail: Mapping[UUID, int] | None = None

    def of_rail(self, rail_id: UUID) -> int:
        """This day, by one rail."""
        return (self.by_rail or {}).get(rail_id, 0)


def spent_by(tx: Tx, days: Mapping[UUID, date]) -> dict[UUID, Spent]:
    """What members asked for, each on its day and in that month, in one statement."""
    members = list(days)
    rows = cursor(tx).execute(
        """
        SELECT p.member_id, p.rail_id, sum(p.amount)::bigint,
               coalesce(sum(p.amount) FILTER (WHERE p.requested_on = d.day), 0)::bigint
        FROM unnest(%s::uuid[], %s::date[]) AS d (member_id, day)
        JOIN products.payout p ON p.member_id = d.member_id AND p.requested_on >= date_trunc('month', d.day)::date
            AND p.state NOT IN ('cancelled', 'failed', 'returned')
        GROUP BY 1, 2
        """,
        [members, [days[member] for member in members]],
    )
    months: dict[UUID, int] = defaultdict(int)
    by_rail: dict[UUID, dict[UUID, int]] = defaultdict(dict)
    for member_id, rail_id, month, day in rows:
        months[member_id] += month
        by_rail[member_id][rail_id] = day
    return {
        member: Spent(months[member], sum(by_rail[member].values()), by_rail[member]) for member in months
    }


def judge_limits(
    rail: ConfiguredRail, of_level: LevelLimits, level: Level, spent: Spent, *, amount: int, rail_on: date
) -> None:
    """Raise `LimitReached` for what is beyond a limit: which, how much there is room for, and from when there is more."""
    limits = rail.limits
    if amount < limits.amount_min:
        raise LimitReached(
            f"A payout by {rail.slug} is at least {limits.amount_min} minor units.",
            "below_minimum",
            pointer="/amount/amount",
        )
    if limits.amount_max is not None and amount > limits.amount_max:
        raise LimitReached(
            f"A payout by {rail.slug} is at most {limits.amount_max} minor units.",
            "above_maximum",
            available=limits.amount_max,
            pointer="/amount/amount",
        )
    if limits.per_member_day is not None:
        left = limits.per_member_day - spent.of_rail(rail.id)
        if amount > left:
            raise LimitReached(
                f"A member gets at most {limits.per_member_day} minor units a day by {rail.slug}.",
                "member_day",
                until=rail_on + timedelta(days=1),
                available=max(0, left),
            )
    monthly = of_level.payouts_per_month
    if monthly is not None and amount > monthly - spent.month:
        first = (rail_on.replace(day=1) + timedelta(days=32)).replace(day=1)
        raise LimitReached(
            f"At the verification level {level} a member is paid at most {monthly} minor units a month.",
            "verification_level",
            until=first if monthly >= amount else None,
            available=max(0, monthly - spent.month),
        )


def take_of_day(tx: Tx, asked: Sequence[tuple[ConfiguredRail, date, int]]) -> list[LimitReached | None]:
    """Count amounts towards the day's limit of their rails, where they have one; why not, for those beyond it. In order."""
    answers: list[LimitReached | None] = [None] * len(asked)
    by_day: dict[tuple[UUID, date], list[int]] = defaultdict(list)
    for place, (rail, day, _) in enumerate(asked):
        if rail.limits.per_day is not None:
            by_day[rail.id, day].append(place)
    cur = cursor(tx)
    for (rail_id, day), places in sorted(by_day.items()):
        rail = asked[places[0]][0]
        limit = rail.limits.per_day or 0
        cur.execute(
            "INSERT INTO products.rail_day (rail_id, day, amount) VALUES (%s, %s, 0) ON CONFLICT DO NOTHING",
            [rail_id, day],
        )
        row = cur.execute(
            "SELECT amount FROM products.rail_day WHERE rail_id = %s AND day = %s FOR NO KEY UPDATE",
            [rail_id, day],
        ).fetchone()
        before = taken = int(row[0]) if row else 0
        for place in places:
            amount = asked[place][2]
            if taken + amount <= limit:
                taken += amount
            else:
                answers[place] = LimitReached(
                    f"The rail {rail.slug} pays at most {limit} minor units a day.",
                    "rail_day",
                    until=day + timedelta(days=1),
                    available=max(0, limit - taken),
                )
        if taken > before:
            cur.execute(
                "UPDATE products.rail_day SET amount = %s WHERE rail_id = %s AND day = %s",
                [taken, rail_id, day],
            )
    return answers


def give_back_of_day(tx: Tx, payout_ids: Sequence[UUID]) -> None:
    """Take payouts that come to nothing before they are sent off their rail's day again."""
    cursor(tx).execute(
        "UPDATE products.rail_day AS d SET amount = greatest(0, d.amount - g.amount)"
        " FROM (SELECT rail_id, requested_on, sum(amount)::bigint AS amount FROM products.payout WHERE id = ANY (%s)"
        " GROUP BY 1, 2) AS g WHERE d.rail_id = g.rail_id AND d.day = g.requested_on",
        [list(payout_ids)],
    )
