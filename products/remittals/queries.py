"""Remittals as they stand, their lines, and the schedule that an agency was sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.horizon import SETTLED, START, Position
from ledger.ids import public_id
from products.keyring import FieldCipher, Keyring, field_place
from products.remittals import layouts
from products.remittals.layouts import ScheduleLine

PREFIX: Final = "rtl"
LINE_TABLE: Final = "products.remittal_line"
RETURNED_MAX: Final = 100
"""Returned lines in one explanation, the latest first."""

State = Literal["made", "sent", "cleared", "withdrawn"]
LineState = Literal["sent", "accepted", "rejected", "corrected"]


@dataclass(frozen=True, slots=True)
class Remittal:
    """What an agency is sent at once, in minor units. ``accepted``, ``returned`` and ``claimed`` are what it answered so far."""

    id: UUID
    programme_id: UUID
    programme: str
    agency: str
    number: int
    fund_id: UUID
    currency: str
    through: date
    lines: int
    amount: int
    columns: Mapping[str, Any]
    answer: Mapping[str, Any]
    second_person_above: int
    digest: bytes
    state: State
    made_at: datetime
    bank_reference: str | None
    sent_on: date | None
    cleared_on: date | None
    answered: int
    accepted: int
    returned: int
    claimed: int
    position: Position

    @property
    def public_id(self) -> str:
        """``rtl_…``."""
        return public_id(PREFIX, self.id)


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it stands; personal data stays sealed. ``accepted`` of ``amount``; ``claimed`` is asked for beyond it."""

    id: UUID
    position: int
    partner_id: UUID
    member_id: UUID
    enrolment_id: UUID
    product: str
    applies_to: date
    paid_on: date
    rate: str | None
    amount: int
    has_number: bool
    state: LineState
    accepted: int | None
    claimed: int
    reason: str | None


_SELECT = (
    "SELECT r.id, r.programme_id, g.slug AS programme, r.agency, r.number, r.fund_id, r.currency, r.through, r.lines,"
    " r.amount, r.columns, r.answer, r.second_person_above, r.digest, r.state, r.made_at, r.bank_reference, r.sent_on,"
    " r.cleared_on, coalesce(a.lines, 0)::int AS answered, coalesce(a.accepted, 0)::bigint AS accepted,"
    " coalesce(a.returned, 0)::bigint AS returned, coalesce(a.claimed, 0)::bigint AS claimed, r.era,"
    " r.xid::text::bigint AS xid FROM products.remittal r JOIN products.programme g ON g.id = r.programme_id"
    " LEFT JOIN LATERAL (SELECT sum(lines) AS lines, sum(accepted) AS accepted, sum(returned) AS returned,"
    " sum(claimed) AS claimed FROM products.remittal_answer WHERE remittal_id = r.id) a ON true"
)


def remittal_of(tx: Tx, remittal_id: UUID, *, lock: bool = False) -> Remittal:
    """One remittal. Raises `NotFound`, also for what row-level security hides."""
    row = tx.execute(
        text(f"{_SELECT} WHERE r.id = :id{' FOR NO KEY UPDATE OF r' if lock else ''}"), {"id": remittal_id}
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such remittal.")
    return _remittal(row)


def remittals(
    tx: Tx,
    *,
    agency: str | None = None,
    state: State | None = None,
    after: Position | None = None,
    limit: int,
) -> list[Remittal]:
    """Remittals behind the settled horizon, in the order in which they were made."""
    rows = tx.execute(
        text(
            f"{_SELECT} WHERE {SETTLED} AND (r.era, r.xid, r.id) > (:era, CAST(:xid AS xid8), :id)"
            " AND (CAST(:agency AS text) IS NULL OR r.agency = :agency)"
            " AND (CAST(:state AS text) IS NULL OR r.state = :state) ORDER BY r.era, r.xid, r.id LIMIT :limit"
        ),
        (after or START).parameters | {"agency": agency, "state": state, "limit": limit},
    )
    return [_remittal(row) for row in rows]


def _remittal(row: Any) -> Remittal:  # a row of _SELECT
    values = row._asdict()
    position = Position(values.pop("era"), values.pop("xid"), row.id)
    return Remittal(**values, position=position)


def lines_of(
    tx: Tx,
    remittal_id: UUID,
    *,
    state: LineState | None = None,
    after: int = 0,
    limit: int | None = None,
) -> list[Line]:
    """A remittal's lines behind a position, in order."""
    rows = cursor(tx).execute(
        """SELECT id, position, partner_id, member_id, enrolment_id, product, applies_to, paid_on, rate, amount,
                  number IS NOT NULL, state, accepted, claimed, reason
           FROM products.remittal_line
           WHERE remittal_id = %s AND position > %s AND (%s::text IS NULL OR state = %s) ORDER BY position LIMIT %s""",
        (remittal_id, after, state, state, limit),
    )
    return [Line(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Told:
    """What an agency was told of a member, for one product and month, and what it answered; amounts in minor units."""

    product: str
    applies_to: date
    paid_on: date
    number: str | None
    base: int | None
    rate: str | None
    amount: int
    state: LineState
    accepted: int | None
    reason: str | None
    corrected_number: str | None


def told_to_agencies(tx: Tx, cipher: FieldCipher | None, member_id: UUID, partner_id: UUID) -> list[Told]:
    """All that agencies were told of a member for what came through one partner, oldest first."""
    rows = cursor(tx).execute(
        """SELECT id, product, applies_to, paid_on, number, base, rate, amount, state, accepted, reason, corrected_number
           FROM products.remittal_line WHERE member_id = %s AND partner_id = %s ORDER BY id""",
        (member_id, partner_id),
    )
    told = []
    for (
        id_,
        product,
        applies_to,
        paid_on,
        number,
        base,
        rate,
        amount,
        state,
        accepted,
        reason,
        corrected,
    ) in rows:
        pay = opened(cipher, base, "base", id_)
        told.append(
            Told(
                product,
                applies_to,
                paid_on,
                opened(cipher, number, "number", id_),
                None if pay is None else int(pay),
                rate,
                amount,
                state,
                accepted,
                reason,
                opened(cipher, corrected, "corrected_number", id_),
            )
        )
    return told


def explain_unapplied(tx: Tx, member_id: UUID, unapplied: int, currency: str) -> dict[str, Any]:
    """What a member has unapplied, in minor units, and what of it an agency returned: for which month, and why."""
    rows = cursor(tx).execute(
        """SELECT product, applies_to, amount, accepted, state, reason, answered_at FROM products.remittal_line
           WHERE member_id = %s AND accepted < amount ORDER BY answered_at DESC, id DESC LIMIT %s""",
        (member_id, RETURNED_MAX),
    )
    return {
        "unapplied": {"amount": unapplied, "currency": currency},
        "returned_by_agencies": [
            {
                "product": product,
                "applies_to": applies_to.isoformat(),
                "sent": {"amount": amount, "currency": currency},
                "returned": {"amount": amount - accepted, "currency": currency},
                "outcome": state,
                "reason": reason,
                "answered_at": answered_at.isoformat(),
            }
            for product, applies_to, amount, accepted, state, reason, answered_at in rows
        ],
    }


def schedule_lines(tx: Tx, keyring: Keyring, remittal_id: UUID) -> list[ScheduleLine]:
    """The lines as the agency is told them. An erased member's number and pay are gone."""
    rows = cursor(tx).execute(
        """SELECT l.id, l.position, l.number, l.applies_to, l.base, l.rate, l.amount, l.paid_on, l.product, m.id,
                  m.wrapped_key
           FROM products.remittal_line l JOIN products.member m ON m.id = l.member_id
           WHERE l.remittal_id = %s ORDER BY l.position""",
        (remittal_id,),
    )
    found = []
    for id_, position, number, applies_to, base, rate, amount, paid_on, product, member, wrapped in rows:
        cipher = None if wrapped is None else keyring.cipher(wrapped, member)
        pay = opened(cipher, base, "base", id_)
        found.append(
            ScheduleLine(
                position,
                opened(cipher, number, "number", id_),
                applies_to,
                None if pay is None else int(pay),
                rate,
                amount,
                paid_on,
                product,
            )
        )
    return found


def opened(cipher: FieldCipher | None, sealed: bytes | None, column: str, line: UUID) -> str | None:
    """A sealed field of a line; None where there is none, or its member was erased."""
    if cipher is None or sealed is None:
        return None
    return cipher.decrypt(sealed, field_place(LINE_TABLE, column, line))


def schedule_of(tx: Tx, keyring: Keyring, remittal: Remittal) -> bytes:
    """The schedule as CSV, byte for byte as it was when the remittal was made (unless a member was erased since)."""
    return written(schedule_lines(tx, keyring, remittal.id), remittal)


def written(lines: Sequence[ScheduleLine], remittal: Remittal) -> bytes:
    """These lines as this remittal's agency is told them."""
    return layouts.written(lines, remittal.columns, currency=remittal.currency, remittal=remittal.public_id)
