"""Closing a programme's month and opening it again: in one transaction, with the pack, or not at all.

The funds are closed first, which waits for postings under way and keeps new ones out; then everything is judged under those locks.
What came in between and made something red undoes it all.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from ledger import periods
from ledger.audit import entry
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.horizon import horizon
from ledger.ids import new_id
from ledger.seals import seal_covering
from products.closing import checklist, pack
from products.closing.document import PACK_BYTES_MAX, digest
from products.closing.figures import Figure
from products.closing.findings import CheckList
from products.closing.pack import Closed, Pack, Superseded
from products.closing.partners import Valuing
from products.closing.period import Fund, Period, find, label, next_month
from products.reconciliation.breaks.refresh import refresh

Format = Literal["json", "html", "csv", "pdf"]
FORMATS: Final[tuple[Format, ...]] = ("json", "html", "csv", "pdf")
Render = Callable[[Pack], Mapping[Format, bytes]]
"""Writes a pack in each of its forms; the same pack gives the same bytes."""
Note = Callable[[Tx, UUID, Mapping[str, Any]], UUID]
"""Writes the close into the audit log, with the digests of its pack, which seals cover; the entry's id."""


class NotGreen(Conflict):
    """Something on the check-list is red."""

    code = "checklist_not_green"

    def __init__(self, judged: CheckList) -> None:
        super().__init__(
            f"{label(judged.month)} of {judged.programme} can't be closed: "
            + "; ".join(f"{item.title}: red, {len(item.findings)} found" for item in judged.red)
            + "."
        )
        self.judged = judged


class NotNext(Conflict):
    """An earlier month is still open, or this one is closed already."""

    code = "period_not_next"


class DoesNotTie(Conflict):
    """A table of the pack does not add up to what it has to: the books have to be verified."""

    code = "figures_do_not_tie"


@dataclass(frozen=True, slots=True)
class Close:
    """A close on record. ``seal`` is the number of the seal that covers its digests, once there is one."""

    id: UUID
    programme_id: UUID
    programme: str
    month: date
    revision: int
    through: date
    digest: bytes
    closed_by: str
    closed_at: datetime
    remark: str
    reopened_at: datetime | None
    reopened_by: str | None
    reopen_reason: str | None
    era: int
    snapshot: str
    files: Mapping[Format, bytes]
    seal: int | None

    @property
    def stands(self) -> bool:
        """Whether it was not reopened since."""
        return self.reopened_at is None


def close(
    tx: Tx,
    programme: str,
    month: date,
    *,
    actor: str,
    remark: str,
    clock: Clock,
    valuing: Valuing,
    render: Render,
    note: Note,
    programmes: Collection[UUID] | None = None,
) -> Close:
    """Close a programme's month for all its funds, as the worker; the pack is made, kept and noted in the audit log.

    Raises:
        NotFound, PeriodNotOver, NotNext: there is none, it goes on, it is closed already or an earlier month is open.
        NotGreen: something on the check-list is red, now that nothing can be posted any more.
        DoesNotTie: the books do not add up.
    """
    period = find(tx, programme, month, programmes=programmes, lock=True)
    period.require_over(clock.now())
    require_next(tx, period)
    _close_funds(tx, period, actor, remark, clock)
    refresh(tx, clock)
    judged = checklist.judge(tx, period, clock, valuing)
    if not judged.green:
        raise NotGreen(judged)
    before = closes(tx, period.programme_id, month=period.month)
    closed = Closed(
        before[0].revision + 1 if before else 1,
        clock.now(),
        actor,
        remark,
        supersedes=_superseded(before[0]) if before else None,
    )
    made = pack.make(tx, period, judged, closed)
    if not made.ties:
        raise DoesNotTie("The pack's tables don't add up: run `mizan ledger verify`.")
    return _keep(tx, period, made, render(made), note, closed)


def require_next(tx: Tx, period: Period) -> None:
    """Raises `NotNext` when the month is closed already, or when one before it, since the first that was closed, is not.

    Whoever closes a month for the first time closes what was before along with it.
    """
    with cursor(tx) as sql:
        rows: list[tuple[date, bool]] = sql.execute(
            "SELECT month, bool_or(reopened_at IS NULL) FROM products.close WHERE programme_id = %s AND month <= %s"
            " GROUP BY month",
            (period.programme_id, period.month),
        ).fetchall()
    known = dict(rows)
    if known.pop(period.month, False):
        raise NotNext(f"{period.label} is closed already.")
    if known and not (next_month(max(known)) == period.month and all(known.values())):
        raise NotNext(f"Close the months before {period.label} first.")


def _in_order(tx: Tx, period: Period) -> list[Fund]:
    """The funds in the order in which all take their locks."""
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT id FROM ledger.fund WHERE id = ANY (%s) ORDER BY number", (period.fund_ids,)
        ).fetchall()
    by_id = {fund.id: fund for fund in period.funds}
    return [by_id[id_] for (id_,) in rows]


def _close_funds(tx: Tx, period: Period, actor: str, remark: str, clock: Clock) -> None:
    """Close every fund that is not closed so far already: nothing is posted to it by anybody until this transaction ends."""
    for fund in _in_order(tx, period):
        if fund.closed_through < period.through:
            periods.close_period(tx, fund.id, period.through, actor=actor, clock=clock, remark=remark)


def _superseded(before: Close) -> Superseded | None:
    if before.reopened_at is None or before.reopened_by is None or before.reopen_reason is None:
        return None
    return Superseded(
        before.revision,
        before.digest.hex(),
        before.reopened_at.isoformat(),
        before.reopened_by,
        before.reopen_reason,
    )


def _keep(
    tx: Tx, period: Period, made: Pack, files: Mapping[Format, bytes], note: Note, closed: Closed
) -> Close:
    if max(map(len, files.values())) > PACK_BYTES_MAX:
        raise Conflict(f"a pack has at most {PACK_BYTES_MAX} bytes in each form")
    id_, of_figures = new_id(), digest(made.spelled)
    digests: dict[Format, bytes] = {name: digest(content) for name, content in files.items()}
    noted = note(
        tx,
        period.programme_id,
        {
            "month": period.label,
            "revision": closed.revision,
            "through": period.through.isoformat(),
            "digest": of_figures.hex(),
            "files": {name: value.hex() for name, value in digests.items()},
        },
    )
    with cursor(tx) as sql:
        sql.execute(
            "INSERT INTO products.close (id, programme_id, month, revision, through, funds, digest, audit_entry, era,"
            " snapshot, remark, closed_by, closed_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, pg_current_snapshot(), %s, %s, %s)",
            (
                id_,
                period.programme_id,
                period.month,
                closed.revision,
                period.through,
                period.fund_ids,
                of_figures,
                noted,
                horizon(tx).era,
                closed.remark,
                closed.by,
                closed.at,
            ),
        )
        for name, content in files.items():
            sql.execute(
                "INSERT INTO products.close_file (close_id, format, content, digest) VALUES (%s, %s, %b, %b)",
                (id_, name, content, digests[name]),
            )
    return one(tx, period, revision=closed.revision)


def reopen(
    tx: Tx,
    programme: str,
    month: date,
    *,
    actor: str,
    reason: str,
    clock: Clock,
    programmes: Collection[UUID] | None = None,
) -> list[Close]:
    """Open a programme's month again, with those after it; the closes that are superseded by it. Raises `PeriodError`.

    A fund's reopening marks every close that it was part of: the database does, whoever reopens it.
    """
    period = find(tx, programme, month, programmes=programmes, lock=True)
    before = period.month - timedelta(days=1)
    standing = [one for one in closes(tx, period.programme_id) if one.stands and one.through > before]
    funds = [fund for fund in _in_order(tx, period) if fund.closed_through > before]
    if not funds:
        raise Conflict(f"{period.label} is not closed.")
    for fund in funds:
        periods.reopen_period(tx, fund.id, before, actor=actor, clock=clock, reason=reason)
    return standing


_COLUMNS: Final = """
    c.id, c.programme_id, g.slug, c.month, c.revision, c.through, c.digest, c.closed_by, c.closed_at, c.remark, c.reopened_at,
    c.reopened_by, c.reopen_reason, c.era, CAST(c.snapshot AS text),
    (SELECT jsonb_object_agg(f.format, encode(f.digest, 'hex')) FROM products.close_file f WHERE f.close_id = c.id),
    e.era, CAST(CAST(e.xid AS text) AS bigint)
"""
_FIELDS: Final = (
    "id",
    "programme_id",
    "programme",
    "month",
    "revision",
    "through",
    "digest",
    "closed_by",
    "closed_at",
    "remark",
    "reopened_at",
    "reopened_by",
    "reopen_reason",
    "era",
    "snapshot",
    "files",
    "entry_era",
    "entry_xid",
)
_FROM: Final = """
    products.close c JOIN products.programme g ON g.id = c.programme_id JOIN ledger.audit_entry e ON e.id = c.audit_entry
"""


def closes(tx: Tx, programme_id: UUID, *, month: date | None = None) -> list[Close]:
    """Every close of a programme, or of one month of it, the newest first."""
    with cursor(tx) as sql:
        rows = sql.execute(
            f"SELECT {_COLUMNS} FROM {_FROM} WHERE c.programme_id = %s AND (CAST(%s AS date) IS NULL OR c.month = %s)"
            " ORDER BY c.month DESC, c.revision DESC",
            (programme_id, month, month),
        ).fetchall()
    return [_read(tx, row) for row in rows]


def one(tx: Tx, period: Period, *, revision: int | None = None) -> Close:
    """A month's close: the last, or a revision. Raises `NotFound`."""
    for found in closes(tx, period.programme_id, month=period.month):
        if revision in (None, found.revision):
            return found
    raise NotFound("There is no such close.")


def sealed(tx: Tx, digest_: bytes) -> tuple[Close, Format] | None:
    """The close whose pack has a form with this SHA-256, and which form: by the audit log, which the seals cover.

    None as well when that entry of the log was changed.
    """
    with cursor(tx) as sql:
        row = sql.execute(
            f"SELECT x.key, e.id, {_COLUMNS} FROM {_FROM}, jsonb_each_text(e.detail->'files') x WHERE x.value = %s"
            " ORDER BY c.id DESC LIMIT 1",
            (digest_.hex(),),
        ).fetchone()
    if row is None:
        return None
    logged = entry(tx, row[1])
    return (_read(tx, row[2:]), row[0]) if logged.computed_leaf() == logged.leaf else None


def file(tx: Tx, close_id: UUID, format_: Format) -> bytes:
    """A form of a pack, as it was made. Raises `NotFound`."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT content FROM products.close_file WHERE close_id = %s AND format = %s", (close_id, format_)
        ).fetchone()
    if row is None:
        raise NotFound("There is no such file.")
    return bytes(row[0])


def figure(tx: Tx, of: Close, name: str) -> Figure:
    """A figure of a close's pack, as it was then. Raises `NotFound`."""
    found = json.loads(file(tx, of.id, "json"))["figures"].get(name)
    if found is None:
        raise NotFound("There is no such figure in the pack.")
    return Figure.from_json(found)


def _read(tx: Tx, row: tuple[Any, ...]) -> Close:
    named = dict(zip(_FIELDS, row, strict=True))
    seal = seal_covering(tx, named.pop("entry_era"), named.pop("entry_xid"))
    files: dict[Format, bytes] = {
        name: bytes.fromhex(value) for name, value in (named.pop("files") or {}).items()
    }
    return Close(**named, files=files, seal=seal.number if seal is not None else None)
