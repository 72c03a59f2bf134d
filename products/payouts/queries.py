"""Payouts as they are read: each with its parts and history, by id, or page by page behind the settled horizon."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.horizon import AFTER, SETTLED, START, Position
from products.payouts.accounts import PartSource
from products.payouts.rails import Report
from products.payouts.reports import Outcome, Source
from products.payouts.states import State
from products.payouts.terms import FeeBearer


@dataclass(frozen=True, slots=True)
class PartRead:
    """From where an amount is taken; ``transaction_id`` once it left the member's account."""

    source: PartSource
    amount: int
    transaction_id: UUID | None


@dataclass(frozen=True, slots=True)
class ChangeRead:
    """A state of the history."""

    state: State
    reason: str | None
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AttemptRead:
    """The sending of a payout, as it stands."""

    id: UUID
    batch_id: UUID
    number: int
    state: str
    sendings: int
    sent_at: datetime
    next_at: datetime | None
    rail_reference: str | None
    reason: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class Read:
    """A payout on record; amounts are minor units of ``currency``."""

    id: UUID
    partner_id: UUID
    programme_id: UUID
    link_id: UUID
    payee_id: UUID
    product: str | None
    enrolment_id: UUID | None
    way: str | None
    rail: str
    rail_kind: str
    amount: int
    fee: int
    rail_fee: int
    fee_bearer: FeeBearer
    currency: str
    arrival_earliest: datetime
    arrival_latest: datetime
    state: State
    reason: str | None
    payee_name: Literal["not_checked", "matches", "differs"]
    problem: str | None
    requested_at: datetime
    requested_on: date
    expires_at: datetime
    approved_at: datetime | None
    submitted_at: datetime | None
    ended_at: datetime | None
    position: Position
    parts: tuple[PartRead, ...]
    history: tuple[ChangeRead, ...]
    attempt: AttemptRead | None


@dataclass(frozen=True, slots=True)
class KeptReport:
    """What a rail said, as it was kept."""

    id: UUID
    rail: str
    source: Source
    report: Report
    payout_id: UUID | None
    outcome: Outcome
    problem: str | None
    received_at: datetime


_COLUMNS: Final = (
    "p.id, p.partner_id, p.programme_id, p.link_id, p.payee_id, p.product, p.enrolment_id, p.way, r.slug, r.kind, p.amount,"
    " p.fee, p.rail_fee, r.fee_bearer, p.currency, p.arrival_earliest, p.arrival_latest, p.state, p.reason, p.payee_name,"
    " p.problem, p.requested_at, p.requested_on, p.expires_at, p.approved_at, p.submitted_at, p.ended_at, p.era,"
    " p.xid::text::bigint"
)


_NAMES: Final = tuple(field.name for field in fields(Read))[:-4]
"""What the columns are, in order; what follows is read apart."""


def payout(tx: Tx, id_: UUID, *, partner_id: UUID | None = None) -> Read:
    """One payout as `tx` may see it; of one partner, where row-level security doesn't hold. Raises NotFound."""
    rows = _rows(
        tx,
        "p.id = %(id)s AND (%(partner)s::uuid IS NULL OR p.partner_id = %(partner)s)",
        {"id": id_, "partner": partner_id},
    )
    if not rows:
        raise NotFound("There is no such payout.")
    return rows[0]


def payouts(
    tx: Tx,
    *,
    link_id: UUID | None = None,
    state: State | None = None,
    with_problem: bool = False,
    after: Position | None = None,
    limit: int = 50,
) -> list[Read]:
    """Payouts behind the settled horizon, in their order; of one member, in one state, or with a problem."""
    settled = SETTLED.replace("(era, xid)", "(p.era, p.xid)")
    beyond = AFTER.replace("(era, xid, id)", "(p.era, p.xid, p.id)")
    return _rows(
        tx,
        f"{settled} AND {beyond} AND (%(link)s::uuid IS NULL OR p.link_id = %(link)s)"
        " AND (%(state)s::text IS NULL OR p.state = %(state)s) AND (NOT %(problem)s OR p.problem IS NOT NULL)"
        " ORDER BY p.era, p.xid, p.id LIMIT %(limit)s",
        {
            "link": link_id,
            "state": state,
            "problem": with_problem,
            "limit": limit,
            **(after or START).parameters,
        },
    )


def kept_reports(
    tx: Tx,
    *,
    rail_id: UUID | None = None,
    payout_id: UUID | None = None,
    outcome: str | None = None,
    after: UUID | None = None,
    limit: int = 50,
) -> list[KeptReport]:
    """What rails said beyond answers, the newest first, after (older than) one of them."""
    rows = cursor(tx).execute(
        "SELECT k.id, r.slug, k.source, k.said, k.attempt_id, k.rail_reference, k.at, k.reason, k.code, k.amount, k.currency,"
        " k.fee, k.payout_id, k.outcome, k.problem, k.received_at FROM products.rail_report k"
        " JOIN products.rail r ON r.id = k.rail_id WHERE (%(rail)s::uuid IS NULL OR k.rail_id = %(rail)s)"
        " AND (%(payout)s::uuid IS NULL OR k.payout_id = %(payout)s)"
        " AND (%(outcome)s::text IS NULL OR k.outcome = %(outcome)s) AND (%(after)s::uuid IS NULL OR k.id < %(after)s)"
        " ORDER BY k.id DESC LIMIT %(limit)s",
        {"rail": rail_id, "payout": payout_id, "outcome": outcome, "after": after, "limit": limit},
    )
    return [
        KeptReport(id_, slug, source, Report(*said), payout_id_, outcome_, problem, received_at)
        for id_, slug, source, *said, payout_id_, outcome_, problem, received_at in rows
    ]


def _rows(tx: Tx, where: str, parameters: dict[str, Any]) -> list[Read]:
    cur = cursor(tx)
    rows = cur.execute(
        f"SELECT {_COLUMNS} FROM products.payout p JOIN products.rail r ON r.id = p.rail_id WHERE {where}",
        parameters,
    ).fetchall()
    ids = [row[0] for row in rows]
    parts = _grouped(
        tx,
        "SELECT p.payout_id, p.source, p.amount, h.transaction_id FROM products.payout_part p"
        " LEFT JOIN ledger.hold h ON h.id = p.hold_id WHERE p.payout_id = ANY (%s) ORDER BY p.payout_id, p.position",
        ids,
    )
    history = _grouped(
        tx,
        "SELECT payout_id, state, reason, actor, at FROM products.payout_change WHERE payout_id = ANY (%s)"
        " ORDER BY payout_id, number",
        ids,
    )
    attempts = _grouped(
        tx,
        "SELECT payout_id, id, batch_id, number, state, sendings, sent_at, next_at, rail_reference, reason, code"
        " FROM products.payout_attempt WHERE payout_id = ANY (%s) ORDER BY payout_id, number",
        ids,
    )
    return [
        Read(
            **dict(zip(_NAMES, columns, strict=True)),
            position=Position(era, xid, columns[0]),
            parts=tuple(PartRead(*one) for one in parts.get(columns[0], ())),
            history=tuple(ChangeRead(*one) for one in history.get(columns[0], ())),
            attempt=next((AttemptRead(*one) for one in reversed(attempts.get(columns[0], []))), None),
        )
        for *columns, era, xid in rows
    ]


def _grouped(tx: Tx, query: str, ids: Sequence[UUID]) -> dict[UUID, list[tuple[Any, ...]]]:
    found: dict[UUID, list[tuple[Any, ...]]] = {}
    for id_, *columns in cursor(tx).execute(query, [list(ids)]):
        found.setdefault(id_, []).append(tuple(columns))
    return found
