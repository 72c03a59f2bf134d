"""What paying a contribution in meant, undone when the contribution is reversed later.

What the partner paid for it, less its fee, becomes the partner's credit; the fee is not the administrator's cost any more. What
another bore in the partner's stead is given back to that one, and the partner, who paid nothing, gets nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ledger.database import Tx
from products.remittances.context import Joined
from products.remittances.models import Contributed
from products.settlements.bearers import administrator, bearing
from products.settlements.cash import Move
from products.settlements.credit import Entry
from products.settlements.terms import ADMINISTRATOR, on_day


@dataclass(frozen=True, slots=True)
class Undone:
    """What moves, in which funds beside the contributions' own, and the partner's credits."""

    moves: tuple[Move, ...] = ()
    funds: frozenset[UUID] = frozenset()
    credits: tuple[Entry, ...] = ()


NOTHING = Undone()


def undo(tx: Tx, joined: Joined, contributions: Sequence[Contributed]) -> Undone:
    """What undoing the payment of contributions means, of which some may not be paid in at all."""
    kept: defaultdict[tuple[UUID, str], int] = defaultdict(int)
    lost: dict[str, defaultdict[tuple[UUID, str], int]] = {
        "default": defaultdict(int),
        "fee": defaultdict(int),
    }
    entries: list[Entry] = []
    for one in contributions:
        if one.settled_by is None:
            continue
        if one.settlement_kind in lost:
            bearer = on_day(joined.history, one.contributed_on).guarantor or ADMINISTRATOR
            lost[one.settlement_kind][one.fund_id, bearer] += one.amount
            continue
        if one.fee:
            kept[one.fund_id, ADMINISTRATOR] += one.fee
        entries.append(
            Entry(
                one.fund_id,
                one.amount - one.fee,
                "reversed",
                one.remittance,
                one.position,
                one.settled_by,
                one.settlement_part,
            )
        )
    if not kept and not any(lost.values()):
        return Undone(credits=tuple(entries))
    by = administrator(tx, joined.programme_id)
    moves = [
        *bearing(tx, joined, by, kept, "fee"),
        *bearing(tx, joined, by, lost["default"], "default"),
        *bearing(tx, joined, by, lost["fee"], "fee"),
    ]
    back = tuple((credited, debited, amount) for debited, credited, amount in reversed(moves))
    return Undone(back, frozenset({by.fund}), tuple(entries))
