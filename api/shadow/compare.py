"""The old system's figures beside ours: every difference, and which events count in it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from api.shadow.given import FIGURES, Expected, Figure
from api.shadow.people import Links
from api.shadow.replay import NotTaken
from ledger.database import Tx, cursor
from ledger.ids import public_id

TRAIL_MAX: Final = 20
"""How many events a difference names, the latest first."""
EXPLAINED_MAX: Final = 1_000
"""How many differences are explained; the others are listed."""
NOT_ON_RECORD: Final = "the old system has no such figure"
UNKNOWN: Final = "the members' file has no such member, or not in this product"


@dataclass(frozen=True, slots=True)
class Counted:
    """One event behind a figure, by the partner's own id; what was not taken has the line of the events' file instead."""

    event: str
    on: date | None
    amount: int | None
    state: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two systems differ; amounts in minor units, None where one of them has no such figure. ``at``: in their file."""

    member: str
    reference: str
    partner: str
    product: str
    figure: Figure
    on: date
    ours: int | None
    theirs: int | None
    at: str
    why: str
    trail: tuple[Counted, ...]
    events: int

    @property
    def difference(self) -> int:
        """Ours less theirs."""
        return (self.ours or 0) - (self.theirs or 0)


Figures = Mapping[Figure, int]
_Place = tuple[UUID, str]

_FIGURES: Final = """
    SELECT l.id, e.id, e.product,
           CASE WHEN e.pending_account IS NULL THEN coalesce(c.pending, 0) ELSE p.credits - p.debits END,
           CASE WHEN e.pending_account IS NULL THEN coalesce(c.settled, 0) ELSE s.credits - s.debits END,
           coalesce(h.committed, 0), coalesce(u.credits - u.debits, 0), coalesce(v.credits - v.debits, 0),
           coalesce(h.awaiting, 0), x.credits - x.debits
    FROM products.member_link l JOIN products.member m ON m.id = l.member_id
    JOIN products.enrolment e ON e.member_id = m.id
    LEFT JOIN ledger.account_balance p ON p.account_id = e.pending_account
    LEFT JOIN ledger.account_balance s ON s.account_id = e.savings_account
    LEFT JOIN ledger.account_balance u ON u.account_id = e.unvested_account
    LEFT JOIN ledger.account_balance v ON v.account_id = e.vested_account
    JOIN ledger.account_balance x ON x.account_id = m.unapplied_account
    LEFT JOIN (SELECT enrolment_id, sum(committed)::bigint AS committed, sum(awaiting)::bigint AS awaiting
               FROM products.match_share GROUP BY 1) h ON h.enrolment_id = e.id
    LEFT JOIN (SELECT enrolment_id, sum(amount) FILTER (WHERE state = 'pending')::bigint AS pending,
                      sum(amount) FILTER (WHERE state = 'settled')::bigint AS settled
               FROM products.contribution WHERE destination IN ('agency', 'pool') GROUP BY 1) c ON c.enrolment_id = e.id
"""
_TRAIL: Final = """
    SELECT r.remittance_id, c.contributed_on, c.amount, c.state, count(*) OVER ()
    FROM products.contribution c JOIN products.remittance r ON r.id = c.remittance
    WHERE c.enrolment_id = %s ORDER BY c.contributed_on DESC, c.remittance DESC LIMIT %s
"""


def figures(tx: Tx) -> tuple[dict[_Place, Figures], dict[_Place, UUID]]:
    """Every member's figures as they stand, by the member's id and product, and the enrolment behind each."""
    found: dict[_Place, Figures] = {}
    enrolments: dict[_Place, UUID] = {}
    with cursor(tx) as sql:
        sql.execute(_FIGURES)
        for (
            link,
            enrolment,
            product,
            pending,
            settled,
            committed,
            unvested,
            vested,
            awaiting,
            unapplied,
        ) in sql:
            found[link, product] = {
                "contributed": pending + settled,
                "pending": pending,
                "settled": settled,
                "committed": committed,
                "unvested": unvested,
                "vested": vested,
                "awaiting_funds": awaiting,
                "entitled": committed + unvested + vested + awaiting,
                "unapplied": unapplied,
            }
            enrolments[link, product] = enrolment
    return found, enrolments


def compare(
    tx: Tx,
    links: Links,
    expected: Sequence[Expected],
    not_taken: Sequence[NotTaken],
    on: date,
    *,
    to_join: Collection[tuple[str, str, str]] = (),
    whole: bool,
) -> tuple[int, list[Difference]]:
    """Compare what the old system says of a day that has just ended with what the shadow says; how many figures, and which differ.

    ``to_join``: who joins on a later day, by partner, reference and product, and has nothing yet. ``whole``: the file is to name
    everybody, so who has something here and is not in it differs too.
    """
    ours, enrolments = figures(tx)
    by_link: defaultdict[UUID, list[str]] = defaultdict(list)
    for member, product in ours:
        by_link[member].append(product)
    by_name = _by_name(not_taken)
    differences: list[Difference] = []
    named: set[_Place] = set()
    asked: set[Figure] = set()
    for one in expected:
        link = links.get((one.partner, one.reference))
        product = one.product or (by_link[link][0] if link is not None and by_link.get(link) else "")
        has = ours.get((link, product)) if link is not None else None
        asked.add(one.figure)
        if link is not None:
            named.add((link, product))
        amount = has[one.figure] if has is not None else None
        if has is None and (one.partner, one.reference, product) in to_join:
            amount = 0
        if amount == one.amount:
            continue
        trail, events = _trail(
            tx, enrolments.get((link, product)) if link is not None else None, len(differences)
        )
        missed = by_name.get((one.partner, one.reference), ())
        differences.append(
            Difference(
                public_id("mem", link) if link is not None else "unknown",
                one.reference,
                one.partner,
                product,
                one.figure,
                on,
                amount,
                one.amount,
                one.at,
                UNKNOWN if amount is None else _why(amount, one.amount, missed),
                (*missed, *trail)[:TRAIL_MAX],
                events + len(missed),
            )
        )
    if whole:
        differences += _unnamed(tx, links, ours, enrolments, named, asked, on, len(differences))
    return len(expected), differences


def _why(ours: int, theirs: int, missed: Sequence[Counted]) -> str:
    if missed and ours < theirs:
        return f"{len(missed)} events of this member were not taken"
    return (
        "more than the events come to in the old system" if ours > theirs else "less than the old system has"
    )


def _unnamed(
    tx: Tx,
    links: Links,
    ours: Mapping[_Place, Figures],
    enrolments: Mapping[_Place, UUID],
    named: set[_Place],
    asked: Iterable[Figure],
    on: date,
    before: int,
) -> list[Difference]:
    """What the shadow has of members whom the file leaves out."""
    names = {link: key for key, link in links.items()}
    wanted = [one for one in FIGURES if one in set(asked)]
    found: list[Difference] = []
    for (link, product), has in ours.items():
        if (link, product) in named or link not in names:
            continue
        partner, reference = names[link]
        for figure in wanted:
            if has[figure]:
                trail, events = _trail(tx, enrolments[link, product], before + len(found))
                found.append(
                    Difference(
                        public_id("mem", link), reference, partner, product, figure, on, has[figure], None, "",
                        NOT_ON_RECORD, trail, events,
                    )
                )  # fmt: skip
    return found


def _by_name(not_taken: Sequence[NotTaken]) -> dict[tuple[str, str], list[Counted]]:
    by_name: defaultdict[tuple[str, str], list[Counted]] = defaultdict(list)
    for one in not_taken:
        state = one.state if one.reason is None else f"{one.state}: {one.reason}"
        by_name[one.partner, one.member].append(Counted(f"line {one.line}", None, None, state))
    return by_name


def _trail(tx: Tx, enrolment: UUID | None, explained: int) -> tuple[tuple[Counted, ...], int]:
    """The latest contributions behind a figure, and how many there are."""
    if enrolment is None or explained >= EXPLAINED_MAX:
        return (), 0
    rows = cursor(tx).execute(_TRAIL, (enrolment, TRAIL_MAX)).fetchall()
    return tuple(Counted(*row[:4]) for row in rows), rows[0][4] if rows else 0
