"""One person's enrolments in one product: linked members earn match once, not once for each partner they came through.

Entitlement stays a function, of what the person contributed in a window over all of these enrolments. Each enrolment gets
what its contributions add to what the older ones earn: f(older and own) − f(older), so that the parts add up to the whole
and thresholds are reached together. Where the windows of two enrolments begin at different days (a membership year), the younger
earns nothing in a window that overlaps one of the older's with money in it: nothing is doubled, and nobody is surprised.

Batches that meet such an enrolment keep its totals and leave the rest to the job (`products.savings.reevaluate`).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ledger.database import Tx, cursor

StateKey = tuple[UUID, date]
"""Enrolment and first day of the window."""

_SIBLINGS = """
    JOIN products.enrolment e ON e.id = t.e AND NOT e.several
    JOIN products.person_member p ON p.member_id = e.member_id AND p.left_at IS NULL
    JOIN products.person_member o ON o.person_id = p.person_id AND o.left_at IS NULL AND o.member_id <> p.member_id
    JOIN products.enrolment x ON x.member_id = o.member_id AND x.programme_id = e.programme_id
                             AND x.product = e.product AND NOT x.several
"""


@dataclass(frozen=True, slots=True)
class Older:
    """A window of an older enrolment of the same person; `aligned`: it begins and ends on the same days."""

    key: StateKey
    aligned: bool
    by_tier: list[int]
    settled: list[int]


def linked(tx: Tx, enrolments: Collection[UUID]) -> set[UUID]:
    """Those of the enrolments whose person has another one in the same product, through another member."""
    cur = cursor(tx)
    # Few people are linked: a batch asks this for thousands, and mostly nobody is.
    cur.execute("SELECT EXISTS (SELECT 1 FROM products.person_member WHERE left_at IS NULL)")
    (anybody,) = cur.fetchone() or (False,)
    if not anybody:
        return set()
    cur.execute(f"SELECT DISTINCT t.e FROM unnest(%b::uuid[]) AS t (e) {_SIBLINGS}", (list(enrolments),))
    return {row[0] for row in cur.fetchall()}


def with_siblings(tx: Tx, keys: Sequence[StateKey]) -> list[StateKey]:
    """The windows, and those of the same person's other enrolments that overlap them; sorted."""
    cur = cursor(tx)
    cur.execute(
        f"""SELECT DISTINCT x.id, y.window_start FROM unnest(%b::uuid[], %b::date[]) AS t (e, w) {_SIBLINGS}
            JOIN products.match_state s ON s.enrolment_id = t.e AND s.window_start = t.w
            JOIN products.match_state y ON y.enrolment_id = x.id AND y.window_start <= s.window_end
                                       AND y.window_end >= s.window_start""",
        ([key[0] for key in keys], [key[1] for key in keys]),
    )
    return sorted({*keys, *cur.fetchall()})


def older_windows(tx: Tx, keys: Sequence[StateKey]) -> Mapping[StateKey, Sequence[Older]]:
    """For each window, those of the person's older enrolments that overlap it, with their totals as stored."""
    cur = cursor(tx)
    cur.execute(
        f"""SELECT t.e, t.w, x.id, y.window_start,
                   y.window_start = s.window_start AND y.window_end = s.window_end, y.by_tier, y.settled_by_tier
            FROM unnest(%b::uuid[], %b::date[]) AS t (e, w) {_SIBLINGS}
            JOIN products.match_state s ON s.enrolment_id = t.e AND s.window_start = t.w
            JOIN products.match_state y ON y.enrolment_id = x.id AND y.window_start <= s.window_end
                                       AND y.window_end >= s.window_start
            WHERE x.id < t.e""",
        ([key[0] for key in keys], [key[1] for key in keys]),
    )
    found: defaultdict[StateKey, list[Older]] = defaultdict(list)
    for enrolment, start, other, other_start, aligned, by_tier, settled in cur.fetchall():
        found[enrolment, start].append(Older((other, other_start), aligned, by_tier, settled))
    return found
