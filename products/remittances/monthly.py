"""What members have contributed in a calendar month, where something limits that: their mandate, or their level.

A mandate limits what may be deducted through its partner, a level of verification what may be contributed in all. Months
are those of the programme's time zone, by when the migrant paid. What is reversed gives its room back.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor
from products.members import verification
from products.members.models import Mandate, MemberRecord
from products.programmes.model import Level, Programme
from products.remittances.allocate import Limit
from products.remittances.context import Context, Enrolled


class Contributed:
    """Amounts contributed by member, partner and month, kept up to date while a batch is planned.

    Only of the members that something limits: mostly that is nobody, and then nothing is kept.
    """

    def __init__(self, limited: Iterable[UUID] = (), levels: Mapping[UUID, Level] | None = None) -> None:
        self._limited = frozenset(limited)
        self._levels = levels or {}
        self._through: defaultdict[tuple[UUID, UUID, date], int] = defaultdict(int)
        self._in_all: defaultdict[tuple[UUID, date], int] = defaultdict(int)

    def add(self, member_id: UUID, partner_id: UUID, on: date, amount: int) -> None:
        """Count what a member contributed through a partner on a day."""
        if member_id not in self._limited:
            return
        month = on.replace(day=1)
        self._through[member_id, partner_id, month] += amount
        self._in_all[member_id, month] += amount

    def limit(
        self, member: MemberRecord, mandate: Mandate | None, programme: Programme, on: date
    ) -> Limit | None:
        """The tightest limit on what the member may contribute on a day, with its reason; None: no limit."""
        if member.member_id not in self._limited:
            return None
        month = on.replace(day=1)
        limits: list[Limit] = []
        if mandate is not None and mandate.limit_per_month is not None:
            most = mandate.limit_per_month
            # a limit in another currency can't be compared, so it lets nothing through
            amount = most.amount if most.currency == programme.currency else 0
            used = self._through[member.member_id, member.partner_id, month]
            limits.append(Limit(reason="mandate_limit", amount=max(0, amount - used)))
        level = self._levels.get(member.member_id, "none")
        contributions = verification.limits(programme, level).contributions_per_month
        if contributions is not None:
            used = self._in_all[member.member_id, month]
            limits.append(Limit(reason="verification_limit", amount=max(0, contributions - used)))
        return min(limits, key=lambda limit: limit.amount, default=None)


def load(
    tx: Tx,
    context: Context,
    members: Iterable[MemberRecord],
    enrolments: Mapping[UUID, Sequence[Enrolled]],
    on: date,
) -> Contributed:
    """Lock the members that something limits, in order, and load what they have contributed and their levels `on` a day.

    The lock is on the member and not on its mandate, as a mandate given anew is another row: whoever contributes for
    the member waits here, so that two batches at once can't both use the same room.
    """
    limited = _limited(context, members)
    if limited:
        cursor(tx).execute(
            "SELECT id FROM products.member WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE", (limited,)
        )
    # A new statement: it sees what the last holder of the locks has committed.
    return _load(tx, context, limited, enrolments, on)


def read(
    tx: Tx,
    context: Context,
    members: Iterable[MemberRecord],
    enrolments: Mapping[UUID, Sequence[Enrolled]],
    on: date,
) -> Contributed:
    """Load the same without locking: good enough to show, not to decide."""
    return _load(tx, context, _limited(context, members), enrolments, on)


def _limited(context: Context, members: Iterable[MemberRecord]) -> list[UUID]:
    by_level = {id_ for id_ in context.versions if _limits_levels(context, id_)}
    return sorted(
        {
            one.member_id
            for one in members
            if one.programme_id in by_level
            or any(mandate.limit_per_month is not None for mandate in one.mandates)
        }
    )


def _limits_levels(context: Context, programme_id: UUID) -> bool:
    return any(
        verification.limits(version.programme, level).contributions_per_month is not None
        for version in context.versions[programme_id]
        for level in version.programme.limits
    )


def _load(
    tx: Tx, context: Context, limited: Sequence[UUID], enrolments: Mapping[UUID, Sequence[Enrolled]], on: date
) -> Contributed:
    if not limited:
        return Contributed()
    by_level = any(_limits_levels(context, programme_id) for programme_id in context.versions)
    contributed = Contributed(limited, verification.levels(tx, limited, on) if by_level else None)
    ids = [one.id for member_id in limited for one in enrolments.get(member_id, ())]
    rows = cursor(tx).execute(
        """SELECT member_id, partner_id, date_trunc('month', contributed_on)::date, sum(amount)::bigint
           FROM products.contribution
           WHERE enrolment_id = ANY (%s) AND state <> 'reversed' GROUP BY 1, 2, 3""",
        (ids,),
    )
    for member_id, partner_id, month, amount in rows:
        contributed.add(member_id, partner_id, month, amount)
    return contributed
