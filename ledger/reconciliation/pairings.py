"""Pairings: made by hand or by a rule, taken back, and what is still open.

A pairing says which statement lines and which booked items belong together; their sums are equal. It changes no books. The
journal `ledger.pairing` keeps every one for ever; triggers keep what stands.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from ledger.clock import Clock
from ledger.database import Tx, cursor, sqlstate
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.horizon import AFTER, SETTLED, START, Position
from ledger.ids import new_id

BY_HAND: Final = "by_hand"
"""The rule of a pairing that a person made."""
MEMBERS_MAX: Final = 5_000
"""How many lines and items one pairing by hand may have."""
REMARK_MAX: Final = 1_000

_UNIQUE_VIOLATION: Final = "23505"
_ADVISORY_CLASS: Final = 0x4D5C


Source = Literal["booked", "payout", "settlement"]
"""Where an item comes from: a posting, a payment that was sent, what a partner owes of one day."""


class AlreadyPaired(Conflict):
    """A line or an item stands in a pairing already; whoever came first has it."""

    code = "already_paired"


class DoesNotAddUp(Conflict):
    """The lines and the items come to different sums; the detail says which."""

    code = "pairing_does_not_add_up"


class AlreadyUndone(Conflict):
    """The pairing was taken back before."""

    code = "pairing_already_undone"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Lines that belong to items whose pairing has an effect on the books: payments to confirm, settlements to record.

    The lines' sum is the items' sum plus `difference` (signed minor units, within the rule's tolerance, for fees; 0 without).
    """

    bank_account_id: UUID
    lines: tuple[UUID, ...]
    items: tuple[UUID, ...]
    rule: str
    evidence: Mapping[str, Any]
    difference: int


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A statement line that stands in no pairing; `amount` is signed minor units, positive when money came in."""

    id: UUID
    amount: int
    currency: str
    booked_on: date
    value_on: date
    kind: str | None
    end_to_end: str | None
    reference: str | None
    identifiers: tuple[str, ...]
    party: str | None


@dataclass(frozen=True, slots=True)
class OpenItem:
    """An item that stands in no pairing and is not closed; `amount` is signed as in statements."""

    id: UUID
    source: Source
    amount: int
    currency: str
    on_date: date
    day: date | None
    kind: str
    end_to_end: str | None
    reference: str | None
    identifiers: tuple[str, ...]
    party: str | None
    batch: str | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class Pairing:
    """A pairing, standing or taken back, on the bank account of this name. `amount`: what its lines, and its items, come to, in signed minor units."""

    id: UUID
    bank_account: str
    run_id: UUID | None
    rule: str
    evidence: Mapping[str, Any]
    amount: int
    currency: str
    lines: tuple[UUID, ...]
    items: tuple[UUID, ...]
    made_by: str
    made_at: datetime
    undone_at: datetime | None
    undone_by: str | None
    undone_remark: str | None
    position: Position


def make(
    tx: Tx,
    bank_account_id: UUID,
    lines: Sequence[UUID],
    items: Sequence[UUID],
    *,
    rule: str,
    evidence: Mapping[str, Any],
    made_by: str,
    clock: Clock,
    run_id: UUID | None = None,
) -> UUID:
    """Pairs these lines with these booked items and answers the pairing's id.

    Without lines: items that take each other back and come to nothing. Raises `AlreadyPaired` when one of them stands in a pairing,
    `DoesNotAddUp` when the sums differ; `NotFound` for what is not of this bank account, a duplicate line or a closed item.
    """
    lines, items = sorted(set(lines)), sorted(set(items))
    if not items or (not lines and len(items) < 2):
        raise InvalidInput("a pairing has items, and lines unless its items take each other back")
    if len(lines) + len(items) > MEMBERS_MAX:
        raise InvalidInput(f"a pairing has at most {MEMBERS_MAX} lines and items")
    hold_pairing(tx, bank_account_id, shared=True)
    amount = _sum(tx, _LINES_OF, bank_account_id, lines, "line")
    booked = _sum(tx, _ITEMS_OF, bank_account_id, items, "item")
    if amount != booked:
        raise DoesNotAddUp(f"the lines come to {amount}, the items to {booked} (minor units)")
    id_ = new_id()
    try:
        with tx.begin_nested():
            tx.execute(
                _MAKE,
                {
                    "id": id_,
                    "account": bank_account_id,
                    "run": run_id,
                    "rule": rule,
                    "evidence": json.dumps({**evidence, "sum": amount}),
                    "amount": amount,
                    "lines": lines,
                    "items": items,
                    "by": made_by,
                    "at": clock.now(),
                },
            )
    except IntegrityError as error:
        if sqlstate(error) != _UNIQUE_VIOLATION:
            raise
        raise AlreadyPaired("a line or an item of these stands in a pairing already") from error
    return id_


_MAKE = text(
    "INSERT INTO ledger.pairing (id, bank_account_id, run_id, rule, evidence, amount, lines, items, made_by, made_at)"
    " VALUES (:id, :account, :run, :rule, CAST(:evidence AS jsonb), :amount, CAST(:lines AS uuid[]), CAST(:items AS uuid[]),"
    " :by, :at)"
)
_LINES_OF = """
    SELECT count(*), coalesce(sum(amount), 0), bool_or(EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id))
    FROM ledger.statement_line l
    WHERE l.id = ANY (CAST(:ids AS uuid[])) AND l.bank_account_id = :account AND l.duplicate_of IS NULL
"""
_ITEMS_OF = """
    SELECT count(*), coalesce(sum(amount), 0), bool_or(EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id))
    FROM ledger.item i
    WHERE i.id = ANY (CAST(:ids AS uuid[])) AND i.bank_account_id = :account AND i.source = 'booked' AND i.closed_at IS NULL
"""


def hold_pairing(tx: Tx, bank_account_id: UUID, *, shared: bool) -> None:
    """Whoever makes single pairings of an account shares this lock; a run that people got in the way of takes it for itself."""
    lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    tx.execute(
        text(f"SELECT {lock}(:class, hashtext(:account))"),
        {"class": _ADVISORY_CLASS, "account": str(bank_account_id)},
    )


def _sum(tx: Tx, query: str, bank_account_id: UUID, ids: Sequence[UUID], what: str) -> int:
    """What lines or items come to; refused where one may not be paired."""
    found, amount, paired = tx.execute(text(query), {"ids": list(ids), "account": bank_account_id}).one()
    if found != len(ids):
        raise NotFound(f"a {what} is not of this bank account, or takes no part in pairing")
    if paired:
        raise AlreadyPaired(f"a {what} of these stands in a pairing already")
    return int(amount)


def undo(tx: Tx, pairing_id: UUID, *, remark: str, actor: str, clock: Clock) -> None:
    """Takes a pairing back: its lines and items are open again, and no rule makes the same pairing again.

    Raises `NotFound`, and `AlreadyUndone`.
    """
    require_remark(remark)
    row = tx.execute(
        text("SELECT undone_at FROM ledger.pairing WHERE id = :id FOR NO KEY UPDATE"), {"id": pairing_id}
    ).first()
    if row is None:
        raise NotFound("there is no such pairing")
    if row.undone_at is not None:
        raise AlreadyUndone("the pairing was taken back before")
    tx.execute(
        text(
            "UPDATE ledger.pairing SET undone_at = :at, undone_by = :by, undone_remark = :remark WHERE id = :id"
        ),
        {"id": pairing_id, "at": clock.now(), "by": actor, "remark": remark.strip()},
    )


def require_remark(remark: str) -> None:
    """What a person does says why. Raises InvalidInput."""
    if not remark.strip() or len(remark) > REMARK_MAX:
        raise InvalidInput(f"a remark says why, in at most {REMARK_MAX} characters", pointer="/remark")


_PAIRING = """
    SELECT p.id, b.slug, p.run_id, p.rule, p.evidence, p.amount, b.currency, p.lines, p.items, p.made_by, p.made_at,
           p.undone_at, p.undone_by, p.undone_remark, p.era, CAST(CAST(p.xid AS text) AS bigint)
    FROM ledger.pairing p JOIN ledger.bank_account b ON b.id = p.bank_account_id
"""


def _pairing(row: Sequence[Any]) -> Pairing:
    values: list[Any] = list(row)  # in the order of Pairing's fields, as the query says
    values[7:9] = map(tuple, values[7:9])
    values[14:] = [Position(values[14], values[15], values[0])]
    return Pairing(*values)


def get(tx: Tx, pairing_id: UUID) -> Pairing:
    """One pairing. Raises NotFound."""
    row = cursor(tx).execute(f"{_PAIRING} WHERE p.id = %(id)s", {"id": pairing_id}).fetchone()
    if row is None:
        raise NotFound("there is no such pairing")
    return _pairing(row)


def page(
    tx: Tx,
    *,
    after: Position | None = None,
    limit: int,
    bank_account_id: UUID | None = None,
    standing: bool | None = None,
    rule: str | None = None,
) -> list[Pairing]:
    """Settled pairings in the order in which they came, from after a position on."""
    conditions = [
        SETTLED.replace("(era, xid)", "(p.era, p.xid)"),
        AFTER.replace("(era, xid, id)", "(p.era, p.xid, p.id)"),
    ]
    values: dict[str, Any] = {**(after or START).parameters, "limit": limit}
    if bank_account_id is not None:
        conditions.append("p.bank_account_id = %(account)s")
        values["account"] = bank_account_id
    if rule is not None:
        conditions.append("p.rule = %(rule)s")
        values["rule"] = rule
    if standing is not None:
        conditions.append(f"p.undone_at IS {'' if standing else 'NOT '}NULL")
    rows = cursor(tx).execute(
        f"{_PAIRING} WHERE {' AND '.join(conditions)} ORDER BY p.era, p.xid, p.id LIMIT %(limit)s",
        values,
        prepare=False,
    )
    return [_pairing(row) for row in rows]


def open_lines(
    tx: Tx, bank_account_id: UUID, *, after: UUID | None = None, limit: int = 200
) -> list[OpenLine]:
    """Lines that stand in no pairing and are no other's duplicate, in the order of their ids, from after one on."""
    rows = tx.execute(
        text("""
            SELECT l.id, l.amount, l.currency, l.booked_on, l.value_on, l.kind, l.end_to_end, l.reference, l.identifiers, l.party
            FROM ledger.statement_line l
            WHERE l.bank_account_id = :account AND l.duplicate_of IS NULL AND l.id > :after
              AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)
            ORDER BY l.id LIMIT :limit
        """),
        {"account": bank_account_id, "after": after or UUID(int=0), "limit": limit},
    )
    return [OpenLine(**{**row, "identifiers": tuple(row["identifiers"])}) for row in rows.mappings()]


def open_items(
    tx: Tx, bank_account_id: UUID, *, after: UUID | None = None, limit: int = 200
) -> list[OpenItem]:
    """Items that stand in no pairing and are not closed, in the order of their ids, from after one on."""
    rows = tx.execute(
        text("""
            SELECT i.id, i.source, i.amount, i.currency, i.on_date, i.day, i.kind, i.end_to_end, i.reference, i.identifiers,
                   i.party, i.batch, i.subject
            FROM ledger.item i
            WHERE i.bank_account_id = :account AND i.closed_at IS NULL AND i.id > :after
              AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id)
            ORDER BY i.id LIMIT :limit
        """),
        {"account": bank_account_id, "after": after or UUID(int=0), "limit": limit},
    )
    return [OpenItem(**{**row, "identifiers": tuple(row["identifiers"])}) for row in rows.mappings()]
