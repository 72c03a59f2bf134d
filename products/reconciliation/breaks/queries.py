"""Breaks as they are read: by value or by age, one with its history, and what they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import NotFound
from products.reconciliation.breaks.typing import BreakType, SubjectKind

State = Literal["open", "waiting", "resolved", "gone"]
STATES: Final[tuple[State, ...]] = get_args(State)
Sort = Literal["value", "age"]


@dataclass(frozen=True, slots=True)
class Break:
    """A break. ``amount`` is signed minor units of ``currency``, ``age_days`` counts from ``on_date`` to today, or to its end.

    ``share_basis_points``: of what is broken in its fund and currency now (by size), so much is this one: its priority, where
    values of two currencies can't be compared. None once it is over.
    """

    id: UUID
    type: BreakType
    state: State
    programme_id: UUID
    programme: str
    fund: str
    bank_account: str | None
    partner: str | None
    subject_kind: SubjectKind
    subject: str
    amount: int
    currency: str
    on_date: date
    age_days: int
    share_basis_points: int | None
    owner: str | None
    waits_until: date | None
    remark: str | None
    found_at: datetime
    ended_at: datetime | None
    details: Mapping[str, Any]
    other_account: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a break: what, by whom, when and why."""

    what: str
    by_whom: str
    at: datetime
    remark: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which breaks are wanted; None: any. ``older_than``: days since they were found to be due."""

    types: Sequence[BreakType] = ()
    states: Sequence[State] = ("open", "waiting")
    programme: str | None = None
    bank_account: str | None = None
    fund: str | None = None
    partner: str | None = None
    owner: str | None = None
    currency: str | None = None
    older_than: int | None = None


_AGE: Final = """
    (CASE WHEN b.ended_at IS NULL THEN (CAST(:now AS timestamptz) AT TIME ZONE f.time_zone)::date
          ELSE (b.ended_at AT TIME ZONE f.time_zone)::date END - b.on_date)
"""
_BREAK: Final = f"""
    SELECT b.id, b.type, b.state, b.programme_id, g.slug AS programme, f.code AS fund, a.slug AS bank_account, p.slug AS partner,
           b.subject_kind, b.subject, b.amount, CAST(b.currency AS text) AS currency, b.on_date, {_AGE} AS age_days,
           CASE WHEN b.ended_at IS NULL THEN
               CAST(abs(b.amount) AS numeric) * 10000 / greatest((
                   SELECT sum(abs(o.amount)) FROM products.break o
                   WHERE o.ended_at IS NULL AND o.fund_id = b.fund_id AND o.currency = b.currency), 1) END AS share,
           b.owner, b.waits_until, b.remark, b.found_at, b.ended_at, b.details,
           (SELECT x.slug FROM ledger.bank_account x WHERE x.id = CAST(b.details ->> 'other_account' AS uuid)) AS other_account
    FROM products.break b JOIN products.programme g ON g.id = b.programme_id JOIN ledger.fund f ON f.id = b.fund_id
    LEFT JOIN ledger.bank_account a ON a.id = b.bank_account_id LEFT JOIN products.partner p ON p.id = b.partner_id
"""
_WANTED: Final = f"""
    (:any_type OR b.type = ANY (:types)) AND b.state = ANY (:states)
    AND (CAST(:programme AS text) IS NULL OR g.slug = :programme)
    AND (CAST(:bank_account AS text) IS NULL OR a.slug = :bank_account)
    AND (CAST(:fund AS text) IS NULL OR f.code = :fund)
    AND (CAST(:partner AS text) IS NULL OR p.slug = :partner)
    AND (CAST(:owner AS text) IS NULL OR b.owner = :owner)
    AND (CAST(:currency AS text) IS NULL OR b.currency = CAST(:currency AS char(3)))
    AND (CAST(:older_than AS integer) IS NULL OR {_AGE} > :older_than)
"""
_ORDER: Final[Mapping[Sort, tuple[str, str]]] = {
    "value": (
        "b.currency, abs(b.amount) DESC, b.id",
        "(b.currency, -abs(b.amount), b.id) > (CAST(:first AS char(3)), -CAST(:second AS bigint), :last)",
    ),
    "age": ("b.on_date, b.id", "(b.on_date, b.id) > (CAST(:first AS date), :last)"),
}


def breaks(
    tx: Tx,
    clock: Clock,
    filters: Filters,
    *,
    sort: Sort = "value",
    after: Break | tuple[str, int, UUID] | None = None,
    limit: int,
) -> list[Break]:
    """Breaks that `tx` sees: by currency and the largest first, or the oldest first, from ``after`` on (`place`)."""
    order, later = _ORDER[sort]
    at = place(after, sort) if isinstance(after, Break) else after
    rows = tx.execute(
        text(
            f"{_BREAK} WHERE {_WANTED} {'AND ' + later if at is not None else ''} ORDER BY {order} LIMIT :limit"
        ),
        {
            "now": clock.now(),
            "any_type": not filters.types,
            "types": list(filters.types),
            "states": list(filters.states),
            "programme": filters.programme,
            "bank_account": filters.bank_account,
            "fund": filters.fund,
            "partner": filters.partner,
            "owner": filters.owner,
            "currency": filters.currency,
            "older_than": filters.older_than,
            "limit": limit,
            **({"first": at[0], "second": at[1], "last": at[2]} if at is not None else {}),
        },
    )
    return [_break(row._asdict()) for row in rows]


def place(one: Break, sort: Sort) -> tuple[str, int, UUID]:
    """Where a list goes on after a break."""
    if sort == "age":
        return one.on_date.isoformat(), 0, one.id
    return one.currency, abs(one.amount), one.id


def one_of(tx: Tx, clock: Clock, break_id: UUID) -> Break:
    """One break. Raises NotFound, also for what `tx` does not see."""
    row = tx.execute(text(f"{_BREAK} WHERE b.id = :id"), {"id": break_id, "now": clock.now()}).one_or_none()
    if row is None:
        raise NotFound("There is no such break.")
    return _break(row._asdict())


def _break(values: dict[str, Any]) -> Break:
    share = values.pop("share")
    return Break(**values, share_basis_points=None if share is None else round(share))


def history(tx: Tx, break_id: UUID) -> list[Event]:
    """What happened to a break, in order."""
    rows = tx.execute(
        text(
            "SELECT what, by_whom, at, remark, details FROM products.break_event WHERE break_id = :id ORDER BY id"
        ),
        {"id": break_id},
    )
    return [Event(**row._asdict()) for row in rows]


@dataclass(frozen=True, slots=True)
class BrokenItem:
    """An item that a break is of, or names as its other side."""

    id: UUID
    source: str
    bank_account: str
    amount: int
    currency: str
    on_date: date
    kind: str
    end_to_end: str | None
    reference: str | None
    party: str | None
    batch: str | None
    subject: str | None
    transaction_id: UUID | None


def items(tx: Tx, ids: Sequence[UUID]) -> list[BrokenItem]:
    """Items by their ids, in the order of their days."""
    rows = tx.execute(
        text(
            "SELECT i.id, i.source, b.slug AS bank_account, i.amount, CAST(i.currency AS text) AS currency, i.on_date, i.kind,"
            " i.end_to_end, i.reference, i.party, i.batch, i.subject, i.transaction_id FROM ledger.item i"
            " JOIN ledger.bank_account b ON b.id = i.bank_account_id WHERE i.id = ANY (:ids) ORDER BY i.on_date, i.id"
        ),
        {"ids": list(ids)},
    )
    return [BrokenItem(**row._asdict()) for row in rows]


def lines_and_items(one: Break) -> tuple[list[UUID], list[UUID]]:
    """The statement lines and items that a break is of, and those that it names as the other side."""
    lines = [UUID(id_) for id_ in one.details.get("lines", ())]
    found = [UUID(id_) for id_ in one.details.get("items", ())]
    if "other_item" in one.details:
        found.append(UUID(one.details["other_item"]))
    if one.subject_kind == "line":
        lines.insert(0, UUID(one.subject))
    if one.subject_kind == "item":
        found.insert(0, UUID(one.subject))
    return lines, found
