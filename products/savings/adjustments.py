"""Match beyond entitlement that is vested, or that its sponsor has certified: it never falls by itself, so each fall is
proposed and decided by a person.

Approved, the excess goes back to its sponsor: what it had certified is taken off what it owes (or stands to its credit,
where it has paid), the rest is uncommitted again. What the member has already spent of it, the member owes. Refused, it
stays the member's, until the entitlement is derived anew and still falls short.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx
from ledger.errors import Conflict, NotFound
from ledger.ids import public_id
from ledger.posting import Posting, Transaction
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books
from products.savings.shares import Share, lower


class AdjustmentChanged(Conflict):
    """The adjustment was decided, withdrawn, or is of another amount by now."""

    code = "adjustment_changed"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A proposed fall of one sponsor's match, in minor units of the programme's currency."""

    id: UUID
    programme_id: UUID
    enrolment_id: UUID
    window_start: date
    sponsor: str
    amount: int
    currency: str


def proposed(tx: Tx, *, limit: int) -> list[Adjustment]:
    """Adjustments that wait for a decision, the oldest first."""
    rows = tx.execute(
        text(
            "SELECT a.id, s.programme_id, a.enrolment_id, a.window_start, s.slug, a.amount, g.currency"
            " FROM products.match_adjustment a JOIN products.sponsor s ON s.id = a.sponsor_id"
            " JOIN products.programme g ON g.id = s.programme_id"
            " WHERE a.state = 'proposed' ORDER BY a.id LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [Adjustment(*row) for row in rows]


def approve(tx: Tx, books: Books, adjustment_id: UUID, amount: int) -> str:
    """Take the excess back; the reference of its transaction. Raises `NotFound`, `AdjustmentChanged`."""
    row = _locked(tx, adjustment_id, amount)
    found = tx.execute(
        text(
            "SELECT e.unvested_account, e.vested_account, m.receivable_account AS owed_by_member,"
            " s.uncommitted_account, s.committed_account, s.receivable_account, g.currency, g.time_zone, f.fund_id,"
            " h.committed, h.unvested, h.vested, h.awaiting, h.certified, h.forfeited"
            " FROM products.enrolment e JOIN products.member m ON m.id = e.member_id"
            " JOIN products.programme g ON g.id = e.programme_id"
            " JOIN products.programme_fund f ON f.programme_id = g.id AND f.role = 'savers'"
            " JOIN products.sponsor s ON s.id = :sponsor"
            " JOIN products.match_share h ON h.enrolment_id = e.id AND h.window_start = :window"
            " AND h.sponsor_id = s.id WHERE e.id = :enrolment"
        ),
        {"sponsor": row.sponsor_id, "window": row.window_start, "enrolment": row.enrolment_id},
    ).one()
    share = Share(
        found.committed, found.unvested, found.vested, found.awaiting, found.certified, found.forfeited
    )
    lowered, parts = lower(share, amount)
    if lowered.vested < 0:
        raise AdjustmentChanged(
            f"{amount - parts.vested + share.vested} is there: less than what was to fall"
        )
    reference = f"match-adjustment:{adjustment_id}"
    day = periods.effective_day(books.clock.now(), found.time_zone)
    transaction = Transaction(
        reference=reference,
        kind="match_adjusted",
        effective_on=periods.open_day(tx, [found.fund_id], day),
        postings=tuple(
            Posting(source, target, part, found.currency, owing)
            for (source, owing), target, part in _paired(
                (
                    ((found.committed_account, None), parts.committed),
                    ((found.unvested_account, None), parts.unvested),
                    ((found.vested_account, found.owed_by_member), parts.vested),
                ),
                (
                    (found.receivable_account, parts.certified),
                    (found.uncommitted_account, amount - parts.certified),
                ),
            )
        ),
        digest=hashlib.sha256(f"{reference}|{amount}".encode()).digest(),
        details={"enrolment": public_id("enr", row.enrolment_id), "window": row.window_start.isoformat()},
    )
    try:
        post_whole(tx, [transaction], clock=books.clock)
    except BooksRefused as refused:
        raise AdjustmentChanged(f"the books refuse it: {refused.outcome.reason}") from refused
    owed = _owed(tx, reference, found.owed_by_member)
    tx.execute(
        text(
            "UPDATE products.match_share SET committed = :committed, unvested = :unvested, vested = :vested,"
            " certified = :certified"
            " WHERE enrolment_id = :enrolment AND window_start = :window AND sponsor_id = :sponsor"
        ),
        {
            "committed": lowered.committed,
            "unvested": lowered.unvested,
            "vested": lowered.vested,
            "certified": lowered.certified,
            "enrolment": row.enrolment_id,
            "window": row.window_start,
            "sponsor": row.sponsor_id,
        },
    )
    _close(tx, adjustment_id, "approved", books.clock.now(), parts.certified, owed)
    return reference


def refuse(tx: Tx, books: Books, adjustment_id: UUID, amount: int) -> None:
    """Leave the excess with the member. Raises `NotFound`, `AdjustmentChanged`."""
    _locked(tx, adjustment_id, amount)
    _close(tx, adjustment_id, "refused", books.clock.now(), 0, 0)


Source = tuple[UUID, UUID | None]
"""An account that a fall comes out of, and who owes what is no longer there."""


def _paired(
    sources: Sequence[tuple[Source, int]], targets: Sequence[tuple[UUID, int]]
) -> Iterator[tuple[Source, UUID, int]]:
    """Sources and targets of the same total, laid side by side in their order."""
    rooms = list(targets)
    for source, amount in sources:
        left = amount
        while left:
            target, room = rooms.pop(0)
            part = min(left, room)
            if part:
                yield source, target, part
            left -= part
            if part < room:
                rooms.insert(0, (target, room - part))


@dataclass(frozen=True, slots=True)
class _Row:
    sponsor_id: UUID
    enrolment_id: UUID
    window_start: date


def _locked(tx: Tx, adjustment_id: UUID, amount: int) -> _Row:
    """The adjustment, if it still is what was shown; the match state that it belongs to is locked first, as everywhere."""
    known = tx.execute(
        text("SELECT sponsor_id, enrolment_id, window_start FROM products.match_adjustment WHERE id = :id"),
        {"id": adjustment_id},
    ).one_or_none()
    if known is None:
        raise NotFound("there is no such adjustment")
    tx.execute(
        text(
            "SELECT 1 FROM products.match_state WHERE enrolment_id = :enrolment AND window_start = :window"
            " FOR NO KEY UPDATE"
        ),
        {"enrolment": known.enrolment_id, "window": known.window_start},
    )
    # a new statement: it sees what the lock's last holder decided
    standing = tx.execute(
        text("SELECT state, amount FROM products.match_adjustment WHERE id = :id FOR UPDATE"),
        {"id": adjustment_id},
    ).one()
    if standing.state != "proposed" or standing.amount != amount:
        raise AdjustmentChanged(f"the adjustment is {standing.state}, of {standing.amount}")
    return _Row(known.sponsor_id, known.enrolment_id, known.window_start)


def _owed(tx: Tx, reference: str, receivable: UUID) -> int:
    """What of a fall the member had spent already, and so owes."""
    return int(
        tx.execute(
            text(
                "SELECT coalesce(sum(p.amount), 0)::bigint FROM ledger.posting p"
                " JOIN ledger.reference r ON r.transaction_id = p.transaction_id"
                " WHERE r.reference = :reference AND p.debit_account = :receivable"
            ),
            {"reference": reference, "receivable": receivable},
        ).scalar_one()
    )


def _close(tx: Tx, adjustment_id: UUID, state: str, at: datetime, certified: int, owed: int) -> None:
    tx.execute(
        text(
            "UPDATE products.match_adjustment SET state = :state, decided_at = :at, certified = :certified,"
            " owed = :owed WHERE id = :id"
        ),
        {"state": state, "at": at, "certified": certified, "owed": owed, "id": adjustment_id},
    )
