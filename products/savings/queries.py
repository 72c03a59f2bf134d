"""What a member has in each product, to the last minor unit, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from uuid import UUID

from ledger.balances import balances as present_balances
from ledger.balances import balances_as_of
from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.ids import public_id
from products.facts import counting
from products.members.models import AccountHolder, Member
from products.programmes.model import Programme
from products.programmes.registry import Programmes, Version
from products.remittances.context import version_on
from products.savings import rules, ways, withdrawals
from products.savings.ways import Locked

OWED_BY_MEMBER: Final = "owed_by_member"
"""Why money stays that is otherwise free: the member owes as much, having spent what was taken back since."""


@dataclass(frozen=True, slots=True)
class MatchBalance:
    """A member's match in one product: entitled = committed + unvested + vested + awaiting funds."""

    committed: int = 0
    unvested: int = 0
    vested: int = 0
    awaiting_funds: int = 0

    @property
    def entitled(self) -> int:
        """The sum of its parts."""
        return self.committed + self.unvested + self.vested + self.awaiting_funds


@dataclass(frozen=True, slots=True)
class ProductBalance:
    """A member's money in one product, in minor units. ``contributed`` = pending + settled."""

    product: str
    pending: int
    settled: int
    held: int
    locked: tuple[Locked, ...]
    match: MatchBalance

    @property
    def contributed(self) -> int:
        """What the member has put in, net of reversals and withdrawals."""
        return self.pending + self.settled

    @property
    def available(self) -> int:
        """What could leave today: settled, neither held nor locked."""
        return self.settled - self.held - sum(one.amount for one in self.locked)


@dataclass(frozen=True, slots=True)
class MemberBalances:
    """All products of a member. ``unapplied`` was collected for the member and fitted no product."""

    as_of: date
    currency: str
    products: tuple[ProductBalance, ...]
    unapplied: int

    @property
    def total(self) -> int:
        """Everything in the member's name: contributed, unapplied, and the match already granted."""
        return self.unapplied + sum(
            one.contributed + one.match.unvested + one.match.vested for one in self.products
        )


@dataclass(frozen=True, slots=True)
class _Row:
    id: UUID
    product: str
    enrolled_on: date
    accounts: tuple[UUID, UUID, UUID, UUID] | None
    committed: int
    awaiting: int


def member_balances(
    tx: Tx,
    programmes: Programmes,
    member: Member | AccountHolder,
    *,
    today: date,
    as_of: date | None = None,
    versions: Sequence[Version] | None = None,
) -> MemberBalances:
    """What a member has now, or had at the end of a past day by the books' dates.

    As of a past day, what a sponsor had committed and what still awaited its funds are shown together as committed:
    the queue keeps no history. Holds are those of today. `versions` are the programme's, if they were read already.
    """
    versions = versions or programmes.versions(tx, member.programme_id)
    programme = version_on(versions, as_of or today).programme
    unapplied_account, receivable_account, enrolments = _holding(tx, member.member_id)
    accounts = [account for row in enrolments if row.accounts for account in row.accounts]
    posted, held = _posted(tx, [*accounts, unapplied_account, receivable_account], as_of)
    owed = max(0, posted.get(receivable_account, 0))
    elsewhere = _passed_on(tx, [row.id for row in enrolments if row.accounts is None], as_of)
    products = []
    for row in enrolments:
        if row.accounts is None:
            pending, settled = elsewhere.get(row.id, (0, 0))
            match = MatchBalance()
            set_aside = free_match = 0
        else:
            pending, settled, unvested, vested = (posted.get(account, 0) for account in row.accounts)
            set_aside, free_match = held.get(row.accounts[1], 0), vested - held.get(row.accounts[3], 0)
            committed, awaiting = row.committed, row.awaiting
            if as_of is not None:
                entitled = _entitled_as_of(tx, versions, row, as_of)
                met = unvested + vested + _gone(tx, row.id, programme.time_zone, as_of)
                committed, awaiting = max(0, entitled - met), 0
            match = MatchBalance(committed, unvested, vested, awaiting)
        locked = _locked(tx, programme, row, settled - set_aside, free_match, member, as_of or today)
        free = settled - set_aside - sum(one.amount for one in locked)
        if row.accounts is not None and owed and free > 0:
            locked = (*locked, Locked(min(owed, free), OWED_BY_MEMBER, None))
        products.append(ProductBalance(row.product, pending, settled, set_aside, locked, match))
    return MemberBalances(
        as_of or today, programme.currency, tuple(products), posted.get(unapplied_account, 0)
    )


def _locked(
    tx: Tx,
    programme: Programme,
    row: _Row,
    savings: int,
    vested: int,
    member: Member | AccountHolder,
    on: date,
) -> tuple[Locked, ...]:
    if row.product not in programme.codes:
        return (Locked(savings, "product_ended", None),) if savings > 0 else ()
    product = programme.product(row.product)
    if savings <= 0:
        return ()
    standing = withdrawals.standing_of(
        tx,
        product,
        row.id,
        row.enrolled_on,
        savings=savings,
        vested=vested,
        birth_date=member.birth_date,
        events=withdrawals.proven_events(programme, product, member.facts, on),
        on=on,
    )
    return ways.locked(product, standing, on)


def _gone(tx: Tx, enrolment_id: UUID, time_zone: str, as_of: date) -> int:
    """The match that had been paid out, or was forfeited, by the end of a local day."""
    cur = cursor(tx)
    cur.execute(
        """SELECT coalesce(sum(w.match + coalesce(f.amount, 0)), 0)::bigint FROM products.withdrawal w
           LEFT JOIN (SELECT payout_id, enrolment_id, sum(amount) AS amount FROM products.forfeiture GROUP BY 1, 2) f
             ON f.payout_id = w.payout_id AND f.enrolment_id = w.enrolment_id
           WHERE w.enrolment_id = %s AND (w.left_at AT TIME ZONE %s)::date <= %s""",
        (enrolment_id, time_zone, as_of),
    )
    (gone,) = cur.fetchone() or (0,)
    return int(gone)


def _holding(tx: Tx, member_id: UUID) -> tuple[UUID, UUID, list[_Row]]:
    """The accounts of what fitted no product and of what the member owes, and the enrolments with what sponsors committed to each, over all windows.

    Raises NotFound for a member that is unknown or hidden.
    """
    rows = (
        cursor(tx)
        .execute(
            """SELECT m.unapplied_account, m.receivable_account, e.id, e.product, e.enrolled_on, e.pending_account, e.savings_account,
                      e.unvested_account, e.vested_account, coalesce(s.committed, 0), coalesce(s.awaiting, 0)
               FROM products.member m LEFT JOIN products.enrolment e ON e.member_id = m.id
               LEFT JOIN LATERAL (
                   SELECT sum(committed)::bigint AS committed, sum(awaiting)::bigint AS awaiting
                   FROM products.match_share WHERE enrolment_id = e.id) s ON true
               WHERE m.id = %s ORDER BY e.id""",
            (member_id,),
        )
        .fetchall()
    )
    if not rows:
        raise NotFound("There is no such member.")
    enrolments = [
        _Row(id_, product, since, None if accounts[0] is None else (*accounts,), committed, awaiting)
        for _, _, id_, product, since, *accounts, committed, awaiting in rows
        if id_ is not None
    ]
    return rows[0][0], rows[0][1], enrolments


def _posted(tx: Tx, accounts: Sequence[UUID], as_of: date | None) -> tuple[dict[UUID, int], dict[UUID, int]]:
    present = present_balances(tx, accounts)
    held = {id_: balance.held for id_, balance in present.items()}
    if as_of is not None:
        return balances_as_of(tx, accounts, as_of), held
    return {id_: balance.posted for id_, balance in present.items()}, held


def _passed_on(tx: Tx, enrolments: Sequence[UUID], as_of: date | None) -> dict[UUID, tuple[int, int]]:
    """Contributions to an agency or a pool: pending and settled, by enrolment."""
    if not enrolments:
        return {}
    cur = cursor(tx)
    cur.execute(
        """SELECT enrolment_id, coalesce(sum(amount) FILTER (WHERE state = 'pending'), 0)::bigint,
                  coalesce(sum(amount) FILTER (WHERE state = 'settled'), 0)::bigint
           FROM products.contribution
           WHERE enrolment_id = ANY (%s) AND (%s::date IS NULL OR contributed_on <= %s) GROUP BY enrolment_id""",
        (list(enrolments), as_of, as_of),
    )
    return {row[0]: (row[1], row[2]) for row in cur.fetchall()}


def _entitled_as_of(tx: Tx, versions: Sequence[Version], row: _Row, as_of: date) -> int:
    """Entitlement from the contributions of days up to ``as_of``, window by window."""
    cur = cursor(tx)
    cur.execute(
        """SELECT c.window_start, c.tier, sum(c.amount)::bigint, s.rule_version
           FROM products.contribution c
           JOIN products.match_state s ON s.enrolment_id = c.enrolment_id AND s.window_start = c.window_start
           WHERE c.enrolment_id = %s AND c.contributed_on <= %s AND c.state <> 'reversed'
           GROUP BY c.window_start, c.tier, s.rule_version""",
        (row.id, as_of),
    )
    windows: dict[tuple[date, int], dict[int, int]] = {}
    for start, tier, amount, version in cur.fetchall():
        windows.setdefault((start, version), {})[tier] = amount
    by_number = {version.version: version.programme for version in versions}
    entitled = 0
    for (_, number), by_tier in windows.items():
        match = by_number[number].product(row.product).match
        entitled += rules.entitlement(match, by_tier) if match is not None else 0
    return entitled


def explain_remittance(tx: Tx, programmes: Programmes, member: Member, remittance: UUID) -> dict[str, Any]:
    """Why a remittance was split as it was, and why each part is matched as it is. Raises NotFound."""
    cur = cursor(tx)
    cur.execute(
        """SELECT remittance_id, status, rule_version, trace FROM products.remittance
           WHERE id = %s AND member_id = %s""",
        (remittance, member.member_id),
    )
    row = cur.fetchone()
    if row is None:
        raise NotFound("There is no such remittance of this member.")
    cur.execute(
        """SELECT enrolment_id, contributed_on FROM products.contribution
           WHERE remittance = %s AND window_start IS NOT NULL ORDER BY position""",
        (remittance,),
    )
    matches = [_explain_day(tx, programmes, member, enrolment, on) for enrolment, on in cur.fetchall()]
    return {
        "subject": public_id("rmt", remittance),
        "remittance_id": row[0],
        "status": row[1],
        "allocation": row[3],
        "matches": matches,
    }


def explain_match(
    tx: Tx, programmes: Programmes, member: Member, product: str, *, on: date
) -> dict[str, Any]:
    """Why the match of a product stands where it stands, in the window of a day. Raises NotFound."""
    enrolment = next((row for row in _holding(tx, member.member_id)[2] if row.product == product), None)
    if enrolment is None:
        raise NotFound("The member is not enrolled in this product.")
    return {
        "subject": f"match:{product}",
        "matches": [_explain_day(tx, programmes, member, enrolment.id, on)],
    }


def explain_withdrawal(
    tx: Tx, programmes: Programmes, member: Member, product: str, *, on: date
) -> dict[str, Any]:
    """Which ways out of a product are open to a member, what each asks, and until when. Raises NotFound.

    A member who holds the product several times gets an answer for each of them.
    """
    enrolments = [row.id for row in _holding(tx, member.member_id)[2] if row.product == product]
    if not enrolments:
        raise NotFound("The member is not enrolled in this product.")
    return {
        "subject": f"withdrawal:{product}",
        "withdrawals": [
            withdrawals.explain_withdrawal(tx, programmes, member, one, on=on) for one in enrolments
        ],
    }


def _explain_day(tx: Tx, programmes: Programmes, member: Member, enrolment: UUID, on: date) -> dict[str, Any]:
    cur = cursor(tx)
    cur.execute("SELECT product, terms, enrolled_on FROM products.enrolment WHERE id = %s", (enrolment,))
    row = cur.fetchone()
    if row is None:
        raise NotFound("There is no such enrolment.")
    product_code, terms, enrolled_on = row
    versions = programmes.versions(tx, member.programme_id)
    having = [version.programme for version in versions if product_code in version.programme.codes]
    product = having[-1].product(product_code)
    if product.match is None:
        return {"product": product_code, "matched": False, "because": "the product has no match"}
    window = rules.window_of(product.match, on, enrolled_on)
    programme = rules.rule_version_for(having, window)
    cur.execute(
        """SELECT by_tier, settled_by_tier, entitled FROM products.match_state
           WHERE enrolment_id = %s AND window_start = %s""",
        (enrolment, window.start),
    )
    state = cur.fetchone()
    by_tier: Mapping[int, int] = {} if state is None else {at - 1: total for at, total in enumerate(state[0])}
    explained = rules.explain(
        programme,
        programme.product(product_code),
        contributed_on=on,
        joined_on=min(enrolled_on, on),
        entry_age=terms.get("entry_age"),
        facts=counting(programme.facts, member.facts).on(on),
        by_tier=by_tier,
    )
    cur.execute(
        """SELECT coalesce(sum(committed), 0)::bigint, coalesce(sum(unvested), 0)::bigint,
                  coalesce(sum(vested), 0)::bigint, coalesce(sum(awaiting), 0)::bigint
           FROM products.match_share WHERE enrolment_id = %s AND window_start = %s""",
        (enrolment, window.start),
    )
    committed, unvested, vested, awaiting = cur.fetchone() or (0, 0, 0, 0)
    explained["settled"] = 0 if state is None else sum(state[1])
    explained["standing"] = {
        "committed": committed,
        "unvested": unvested,
        "vested": vested,
        "awaiting_funds": awaiting,
    }
    return explained
