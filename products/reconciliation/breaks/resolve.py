"""How a break is ended by people: assigned, previewed, confirmed as it was seen, and taken back.

A preview does everything in the books and pairs everything, tells what that was, and undoes it all: so it is exactly what a
confirmation does. The confirmation names the preview's digest, does it again, and is refused where that comes to anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, MizanError, NotFound
from ledger.ids import new_id
from ledger.periods import effective_day
from products.reconciliation import effects
from products.reconciliation.breaks import limits
from products.reconciliation.breaks.choices import Choice, Method, checked, read, written
from products.reconciliation.breaks.postings import Done, Resolving, subject_of
from products.reconciliation.breaks.telling import before, told
from products.remittances.context import Books

REMARK_CHARACTERS_MAX: Final = 1_000
OWNER_CHARACTERS_MAX: Final = 200
WAIT_DAYS_MAX: Final = 366

ResolutionState = Literal["previewed", "requested", "done", "refused", "undone"]


class StalePreview(Conflict):
    """What was previewed is no longer what would be done: look again."""

    code = "stale_preview"


class BreakEnded(Conflict):
    """The break is over: somebody else resolved it, or it no longer holds."""

    code = "break_ended"


@dataclass(frozen=True, slots=True)
class Resolution:
    """How somebody would end a break, or has. ``preview``: postings and pairings; ``digest``: of what it does.

    ``amount``: how much it is about (minor units), by which a second person decides: of its value and what it pairs and books.
    """

    id: UUID
    break_id: UUID
    method: Method
    choice: Mapping[str, Any]
    preview: Mapping[str, Any]
    digest: bytes
    amount: int
    state: ResolutionState
    previewed_by: str
    previewed_at: datetime
    remark: str | None
    confirmed_by: str | None
    confirmed_at: datetime | None
    approved_by: str | None
    transactions: tuple[UUID, ...]
    pairings: tuple[UUID, ...]
    undone_by: str | None
    undone_at: datetime | None
    undone_remark: str | None


@dataclass(frozen=True, slots=True)
class Locked:
    """A break, held by this transaction."""

    id: UUID
    type: str
    programme_id: UUID
    fund_id: UUID
    subject_kind: str
    subject: str
    amount: int
    currency: str
    facts: bytes
    state: str
    time_zone: str


def assign(tx: Tx, clock: Clock, break_id: UUID, owner: str | None, *, remark: str = "", actor: str) -> None:
    """Give a break to somebody, or to nobody. Raises NotFound, `BreakEnded`."""
    if owner is not None and not 0 < len(owner) <= OWNER_CHARACTERS_MAX:
        raise InvalidInput(f"an owner has 1 to {OWNER_CHARACTERS_MAX} characters", pointer="/owner")
    found = _open(lock(tx, break_id))
    tx.execute(
        text("UPDATE products.break SET owner = :owner, remark = coalesce(:remark, remark) WHERE id = :id"),
        {"owner": owner, "remark": remark or None, "id": found.id},
    )
    _tell(tx, clock, break_id, "assigned", actor, _remark(remark, required=False), {"owner": owner})


def preview(tx: Tx, books: Books, break_id: UUID, choice: Choice, *, actor: str) -> Resolution:
    """Choose how to end a break, and see what that would post and pair; nothing is done. As the worker.

    Raises NotFound, `BreakEnded`, `InvalidInput` for what can't be chosen, and Conflict for what the books refuse.
    """
    found = _open(lock(tx, break_id))
    checked(choice)
    resolution_id, now = new_id(), books.clock.now()
    since = before(tx)
    attempt = tx.begin_nested()
    try:
        _, shown, digest, moved = _carry_out(tx, books, found, choice, resolution_id, since, actor)
    finally:
        attempt.rollback()
    amount = max(abs(found.amount), moved)
    cursor(tx).execute(
        "INSERT INTO products.break_resolution (id, break_id, method, choice, preview, digest, amount, previewed_by,"
        " previewed_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            resolution_id,
            break_id,
            choice.method,
            Jsonb(written(choice)),
            Jsonb(shown),
            digest,
            amount,
            actor,
            now,
        ),
    )
    return resolution(tx, resolution_id)


def request(
    tx: Tx, clock: Clock, resolution_id: UUID, *, digest: bytes, remark: str, actor: str
) -> Resolution:
    """Confirm what was previewed, for a second person to decide. Raises as `confirm` does."""
    asked = resolution(tx, resolution_id)
    _open(lock(tx, asked.break_id))
    _require_seen(asked, digest)
    tx.execute(
        text("UPDATE products.break_resolution SET state = 'requested', remark = :remark WHERE id = :id"),
        {"remark": _remark(remark), "id": resolution_id},
    )
    _tell(tx, clock, asked.break_id, "requested", actor, remark, {"resolution": str(resolution_id)})
    return resolution(tx, resolution_id)


def refuse(tx: Tx, clock: Clock, resolution_id: UUID, *, actor: str) -> None:
    """A second person does not agree: the break stays open."""
    changed = tx.execute(
        text(
            "UPDATE products.break_resolution SET state = 'refused' WHERE id = :id AND state = 'requested' RETURNING break_id"
        ),
        {"id": resolution_id},
    ).scalar_one_or_none()
    if changed is not None:
        _tell(tx, clock, changed, "refused", actor, "", {"resolution": str(resolution_id)})


def confirm(
    tx: Tx,
    books: Books,
    resolution_id: UUID,
    *,
    digest: bytes,
    remark: str,
    actor: str,
    approved_by: str | None = None,
) -> Resolution:
    """Do what was previewed; the break is over. As the worker; the caller rolls back when this raises.

    Raises NotFound, `BreakEnded` where it is over already, and `StalePreview` where doing it now is not what was seen.
    """
    asked = resolution(tx, resolution_id)
    found = _open(lock(tx, asked.break_id))
    asked = resolution(tx, resolution_id)  # as it stands under the lock
    _require_seen(asked, digest)
    remark, choice = _remark(remark), read(asked.choice)
    try:
        done, _, now_digest, _ = _carry_out(
            tx, books, found, choice, resolution_id, before(tx), asked.previewed_by
        )
    except MizanError as error:
        raise StalePreview(f"What was previewed can't be done now: {error.detail}") from error
    if now_digest != asked.digest:
        raise StalePreview(
            "Doing it now would post or pair something else than the preview showed: look again."
        )
    now = books.clock.now()
    tx.execute(
        text(
            "UPDATE products.break_resolution SET state = 'done', remark = :remark, confirmed_by = :by, confirmed_at = :now,"
            " approved_by = :approved, transactions = CAST(:transactions AS uuid[]), pairings = CAST(:pairings AS uuid[])"
            " WHERE id = :id"
        ),
        {
            "remark": remark,
            "by": actor,
            "now": now,
            "approved": approved_by,
            "transactions": _transactions(tx, done),
            "pairings": done.pairings,
            "id": resolution_id,
        },
    )
    waits = choice.method == "wait"
    tx.execute(
        text(
            "UPDATE products.break SET state = :state, waits_until = :until, remark = :remark, ended_at = :ended WHERE id = :id"
        ),
        {
            "state": "waiting" if waits else "resolved",
            "until": choice.until,
            "remark": remark,
            "ended": None if waits else now,
            "id": found.id,
        },
    )
    details = {"resolution": str(resolution_id), "method": choice.method, "approved_by": approved_by}
    _tell(tx, books.clock, found.id, "waiting" if waits else "resolved", actor, remark, details)
    return resolution(tx, resolution_id)


def undo(tx: Tx, books: Books, break_id: UUID, *, remark: str, actor: str) -> None:
    """Take back how a break was ended: reversals linked to what they reverse, pairings undone, and the break is open again.

    One that waits waits no longer. Raises NotFound, Conflict `not_resolved`, and what keeps it from being taken back.
    """
    found = lock(tx, break_id)
    remark = _remark(remark)
    if found.state == "waiting":
        tx.execute(
            text("UPDATE products.break SET state = 'open', waits_until = NULL WHERE id = :id"),
            {"id": break_id},
        )
        _tell(tx, books.clock, break_id, "woken", actor, remark, {})
        return
    row = tx.execute(
        text(
            "SELECT id FROM products.break_resolution WHERE break_id = :id AND state = 'done' AND method <> 'wait'"
        ),
        {"id": break_id},
    ).one_or_none()
    if found.state != "resolved" or row is None:
        raise Conflict("The break is not resolved: there is nothing to take back.", code="not_resolved")
    standing = resolution(tx, row.id)
    for pairing in standing.pairings:
        undone = tx.execute(
            text("SELECT undone_at IS NOT NULL FROM ledger.pairing WHERE id = :id"), {"id": pairing}
        ).scalar_one()
        if not undone:  # what took two pairings is taken back with the first of them
            effects.undo(tx, books, pairing, remark=remark, actor=actor)
    tx.execute(
        text(
            "UPDATE products.break_resolution SET state = 'undone', undone_by = :by, undone_at = :now, undone_remark = :remark"
            " WHERE id = :id"
        ),
        {"by": actor, "now": books.clock.now(), "remark": remark, "id": standing.id},
    )
    # a refresh may have found the subject again meanwhile: then that break goes on, and this one stays its history
    tx.execute(
        text(
            "UPDATE products.break b SET state = 'open', ended_at = NULL WHERE b.id = :id AND NOT EXISTS (SELECT FROM"
            " products.break o WHERE o.subject_kind = b.subject_kind AND o.subject = b.subject AND o.ended_at IS NULL)"
        ),
        {"id": break_id},
    )
    _tell(tx, books.clock, break_id, "undone", actor, remark, {"resolution": str(standing.id)})


def _carry_out(
    tx: Tx,
    books: Books,
    found: Locked,
    choice: Choice,
    resolution_id: UUID,
    since: frozenset[UUID],
    actor: str,
) -> tuple[Done, Mapping[str, Any], bytes, int]:
    if choice.method in ("wait", "explain"):
        _require_possible(books.clock, found, choice)
        done = Done()
    else:
        subject = subject_of(tx, found.subject_kind, found.subject, found.programme_id)
        done = Resolving(tx, books, resolution_id, subject, actor).carry_out(choice)
    return done, *told(tx, done, since, found.facts)


def _transactions(tx: Tx, done: Done) -> list[UUID]:
    """What was posted: by the resolution itself, or by what pairing meant."""
    rows = tx.execute(
        text("SELECT transaction_id FROM products.pairing_effect WHERE pairing_id = ANY (:ids)"),
        {"ids": done.pairings},
    ).scalars()
    return sorted({*done.transactions, *rows})


def _require_possible(clock: Clock, found: Locked, choice: Choice) -> None:
    if choice.method == "explain" and found.subject_kind in ("line", "item"):
        raise InvalidInput(
            "money that is open is paired, booked or waited for: words don't close it", pointer="/method"
        )
    if choice.until is not None:
        days = (choice.until - effective_day(clock.now(), found.time_zone)).days
        if not 0 < days <= WAIT_DAYS_MAX:
            raise InvalidInput(f"it waits until a day of the next {WAIT_DAYS_MAX} days", pointer="/until")


def _require_seen(asked: Resolution, digest: bytes) -> None:
    if asked.state not in ("previewed", "requested"):
        raise BreakEnded(f"It was {asked.state} already.")
    if asked.digest != digest:
        raise StalePreview("That is not the digest of this preview.")


# -- what is on record -------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    "id, break_id, method, choice, preview, digest, amount, state, previewed_by, previewed_at, remark, confirmed_by,"
    " confirmed_at, approved_by, transactions, pairings, undone_by, undone_at, undone_remark"
)


def resolution(tx: Tx, resolution_id: UUID) -> Resolution:
    """One resolution. Raises NotFound."""
    found = _resolutions(tx, "id = :id", {"id": resolution_id})
    if not found:
        raise NotFound("There is no such resolution.")
    return found[0]


def resolutions_of(tx: Tx, break_id: UUID) -> list[Resolution]:
    """What was confirmed or asked for of a break, in order; mere previews are left out."""
    return _resolutions(tx, "break_id = :id AND state <> 'previewed'", {"id": break_id})


def _resolutions(tx: Tx, where: str, names: Mapping[str, object]) -> list[Resolution]:
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM products.break_resolution WHERE {where} ORDER BY id"), names
    )
    found = []
    for row in rows:
        values = row._asdict()
        for name in ("transactions", "pairings"):
            values[name] = tuple(values[name])
        found.append(Resolution(**values | {"digest": bytes(values["digest"])}))
    return found


def lock(tx: Tx, break_id: UUID) -> Locked:
    """A break, locked: of two who resolve it at once, the second finds it over. Raises NotFound."""
    row = tx.execute(
        text(
            "SELECT b.id, b.type, b.programme_id, b.fund_id, b.subject_kind, b.subject, b.amount, b.currency, b.facts, b.state,"
            " f.time_zone FROM products.break b JOIN ledger.fund f ON f.id = b.fund_id WHERE b.id = :id FOR NO KEY UPDATE OF b"
        ),
        {"id": break_id},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such break.")
    return Locked(**row._asdict() | {"facts": bytes(row.facts)})


def _open(found: Locked) -> Locked:
    if found.state not in ("open", "waiting"):
        raise BreakEnded(f"The break is {found.state} already.")
    return found


def _remark(remark: str, *, required: bool = True) -> str:
    if len(remark) > REMARK_CHARACTERS_MAX or (required and not remark.strip()):
        raise InvalidInput(f"a remark has 1 to {REMARK_CHARACTERS_MAX} characters", pointer="/remark")
    return remark


def _tell(
    tx: Tx, clock: Clock, break_id: UUID, what: str, actor: str, remark: str, details: Mapping[str, Any]
) -> None:
    cursor(tx).execute(
        "INSERT INTO products.break_event (id, break_id, what, by_whom, at, remark, details) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (new_id(), break_id, what, actor, clock.now(), remark, Jsonb(dict(details))),
    )


def takes_two(tx: Tx, asked: Resolution) -> bool:
    """Whether a second person decides this resolution: above the limit, and for more than waiting."""
    if asked.method == "wait":
        return False
    return asked.amount > limits.of_break(tx, asked.break_id)
