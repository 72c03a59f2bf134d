"""A load of opening balances: staged whole or not at all, looked at, posted in sets, and final once the control account is at zero.

A load is `loaded` (nothing is posted), `committing` and `committed`, then `final`; until then it can be taken back whole, by
reversals (`taking_back`, `taken_back`). What is staged never changes: it was judged when it was loaded, and is posted as it was.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal, Protocol
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id, public_id
from ledger.money import Money
from ledger.periods import effective_day
from products.chart import MIGRATION_CONTROL
from products.opening import codes
from products.opening.given import Fault, Faulty, Row
from products.opening.resolve import OF_ONE_MAX, Programme, Resolver
from products.opening.rows import Resolved
from products.opening.windows import OpenedWindow
from products.remittances.context import Books

PREFIX: Final = "opn"
ROWS_TOGETHER: Final = 2_000
"""Rows that are posted in one database transaction; the rows of one member stay together."""

State = Literal["loaded", "committing", "committed", "final", "taking_back", "taken_back"]


class OpeningFaulty(InvalidInput):
    """The file has faults; nothing of it is kept. ``faults`` are those that are told, ``count`` is how many there are."""

    code = "invalid_opening"

    def __init__(self, faults: Sequence[Fault], count: int) -> None:
        shown = " · ".join(str(one) for one in faults[:10])
        more = f" (and {count - 10} more)" if count > 10 else ""
        super().__init__(f"The file has {count} fault{'s' if count != 1 else ''}: {shown}{more}")
        self.faults, self.count = tuple(faults), count


class OpeningState(Conflict):
    """The load is at another step."""

    code = "opening_state"


class OpeningNotZero(Conflict):
    """The migration control account is not at zero: something is missing, or too much."""

    code = "opening_not_zero"


class OpeningMovedOn(Conflict):
    """Money that the load brought in has moved on since: what moved it is taken back first."""

    code = "opening_moved_on"


class Sheets(Protocol):
    """A file's rows, and the faults that were found on the way."""

    faults: list[Fault]
    faulty: int

    def __iter__(self) -> Iterator[Row]:
        """Every row."""
        ...

    def add(self, fault: Fault) -> None:
        """Take one more fault."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """A load; ``done`` of ``batches`` transactions of the database stand in the books."""

    id: UUID
    programme: str
    programme_id: UUID
    name: str
    digest: bytes
    effective_on: date
    rows: int
    batches: int
    done: int
    state: State
    loaded_by: str
    loaded_at: datetime
    committed_by: str | None
    committed_at: datetime | None
    final_by: str | None
    final_at: datetime | None
    taken_back_by: str | None
    taken_back_at: datetime | None
    taken_back_because: str | None

    @property
    def public_id(self) -> str:
        """``opn_…``."""
        return public_id(PREFIX, self.id)


@dataclass(frozen=True, slots=True)
class Total:
    """What a load's rows of one account code come to in a fund; minor units of the account's normal side.

    ``posted``: they stand against the control account; what is only told (what partners owe in all) is not.
    """

    fund: str
    currency: str
    code: str
    rows: int
    amount: int
    debit: bool
    posted: bool


@dataclass(frozen=True, slots=True)
class Control:
    """A fund's control account: what this load alone leaves there, and what is there now. Credit positive, minor units."""

    fund: str
    currency: str
    of_load: int
    now: int


def stage(
    tx: Tx,
    books: Books,
    sheets: Sheets,
    *,
    programme: str,
    name: str,
    digest: bytes,
    effective_on: date,
    by: str,
    programmes: Collection[UUID] | None = None,
) -> tuple[Load, bool]:
    """Resolve and keep a file's rows; answers the load, and whether it is new: the same file twice is the same load.

    As the worker's role. Raises NotFound for no such programme (``programmes``: those that the caller sees), `OpeningFaulty`.
    """
    found = tx.execute(
        text("SELECT id, slug, currency, time_zone FROM products.programme WHERE slug = :slug"),
        {"slug": programme},
    ).one_or_none()
    if found is None or (programmes is not None and found.id not in programmes):
        raise NotFound(f"There is no programme “{programme}”.")
    if effective_on > effective_day(books.clock.now(), found.time_zone):
        raise InvalidInput("The books can't be opened for a day to come.", pointer="/effective_on")
    # one load is staged at a time: of two files that open the same account, the second finds the first
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('products.opening', 4712))"))
    standing = _standing(tx, found.id, digest)
    if standing is not None:
        return standing, False
    of = Programme(found.id, found.slug, found.currency, effective_on)
    resolver = Resolver(tx, books, of, sheets.add)
    rows = list(resolver.resolve(sheets))
    windows = resolver.finish()
    _unopened(tx, rows, sheets)
    batches = _batches(rows, sheets)
    if not rows and not sheets.faulty:
        sheets.add(Fault("", "", "the file has no row"))
    if sheets.faulty:
        raise OpeningFaulty(sheets.faults, sheets.faulty)
    id_ = new_id()
    tx.execute(
        text(
            "INSERT INTO products.opening_load (id, programme_id, name, digest, effective_on, rows, batches, loaded_by, loaded_at)"
            " VALUES (:id, :programme, :name, :digest, :on, :rows, :batches, :by, :at)"
        ),
        {
            "id": id_,
            "programme": found.id,
            "name": name[:200] or "opening balances",
            "digest": digest,
            "on": effective_on,
            "rows": len(rows),
            "batches": max(batches),
            "by": by,
            "at": books.clock.now(),
        },
    )
    _copy_rows(tx, id_, rows, batches)
    of_group = {row.group: batch for row, batch in zip(rows, batches, strict=True)}
    _copy_windows(tx, id_, effective_on, windows, of_group)
    return by_id(tx, id_), True


def by_id(tx: Tx, id_: UUID, *, lock: bool = False) -> Load:
    """A load. Raises NotFound, also for what row-level security hides."""
    [*found] = _loads(tx, "WHERE l.id = :id", {"id": id_}, " FOR NO KEY UPDATE OF l" if lock else "")
    if not found:
        raise NotFound("There is no such load of opening balances.")
    return found[0]


def loads(tx: Tx, *, before: UUID | None = None, limit: int = 50) -> list[Load]:
    """Loads, the newest first."""
    where = "WHERE CAST(:before AS uuid) IS NULL OR l.id < :before"
    return _loads(tx, where, {"before": before, "limit": limit}, " ORDER BY l.id DESC LIMIT :limit")


def at_work(tx: Tx) -> list[UUID]:
    """Loads that are being posted or taken back."""
    rows = tx.execute(
        text("SELECT id FROM products.opening_load WHERE state IN ('committing', 'taking_back') ORDER BY id")
    )
    return list(rows.scalars())


def totals(tx: Tx, id_: UUID) -> list[Total]:
    """What a load's rows come to by fund, currency and account code."""
    rows = tx.execute(
        text(
            "SELECT f.code AS fund, r.currency, r.code, count(*) AS rows, sum(r.amount)::bigint AS amount,"
            " bool_or(r.account_id IS NOT NULL) AS posted"
            " FROM products.opening_row r JOIN ledger.fund f ON f.id = r.fund_id WHERE r.load_id = :id"
            " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ),
        {"id": id_},
    )
    return [
        Total(
            row.fund,
            row.currency,
            row.code,
            row.rows,
            row.amount,
            codes.debit_normal(codes.code_of(row.code)),
            row.posted,
        )
        for row in rows
    ]


def controls(tx: Tx, id_: UUID) -> list[Control]:
    """The control accounts of a load's funds, each with its end: what the load's rows leave there, and what is there now."""
    rows = tx.execute(
        text(
            "SELECT f.code AS fund, a.currency, o.amount::bigint AS of_load, (b.credits - b.debits)::bigint AS now"
            " FROM (SELECT r.control_id, sum(CASE"
            "           WHEN r.account_id IS NULL AND r.code <> 'partner_receivable' THEN 0"
            "           WHEN r.code = ANY (:debit) THEN r.amount ELSE -r.amount END) AS amount"
            "       FROM products.opening_row r WHERE r.load_id = :id GROUP BY 1) o"
            " JOIN ledger.account a ON a.id = o.control_id JOIN ledger.account_balance b ON b.account_id = a.id"
            " JOIN ledger.fund f ON f.id = a.fund_id ORDER BY 1, 2"
        ),
        {"id": id_, "debit": [name for name, code in codes.OPENABLE.items() if codes.debit_normal(code)]},
    )
    return [Control(*row) for row in rows]


def begin_commit(tx: Tx, id_: UUID, *, by: str, clock: Clock) -> Load:
    """Let a loaded file be posted; `posting.post_next` does it. Raises `OpeningState`."""
    found = by_id(tx, id_, lock=True)
    if found.state in ("committing", "committed"):
        return found
    if found.state != "loaded":
        raise OpeningState(f"It is {said(found.state)}: only what is loaded can be committed.")
    tx.execute(
        text(
            "UPDATE products.opening_load SET state = 'committing', committed_by = :by, committed_at = :at WHERE id = :id"
        ),
        {"id": id_, "by": by, "at": clock.now()},
    )
    return by_id(tx, id_)


def finalise(tx: Tx, id_: UUID, *, by: str, clock: Clock) -> Load:
    """Make a committed load final: it can't be taken back after that.

    Raises `OpeningState`, and `OpeningNotZero` when the control account of one of its funds is not at zero, saying by how much.
    """
    found = by_id(tx, id_, lock=True)
    if found.state == "final":
        return found
    if found.state != "committed":
        raise OpeningState(f"It is {said(found.state)}: only what is committed can be final.")
    off = [
        f"{one.fund}: {Money(abs(one.now), one.currency)} too much on the {'credit' if one.now > 0 else 'debit'} side"
        for one in controls(tx, id_)
        if one.now
    ]
    if off:
        raise OpeningNotZero(f"The {MIGRATION_CONTROL.name} account is not at zero. {'; '.join(off)}.")
    tx.execute(
        text(
            "UPDATE products.opening_load SET state = 'final', final_by = :by, final_at = :at WHERE id = :id"
        ),
        {"id": id_, "by": by, "at": clock.now()},
    )
    return by_id(tx, id_)


def begin_take_back(tx: Tx, id_: UUID, *, by: str, because: str, clock: Clock) -> Load:
    """Let a load be taken back; `taking_back.take_back_next` does it. One that was never posted is taken back at once.

    Raises `OpeningState`: it is final, or being posted.
    """
    found = by_id(tx, id_, lock=True)
    if found.state in ("taking_back", "taken_back"):
        return found
    if found.state == "final":
        raise OpeningState("It is final: corrections are transactions of their own.")
    state = "taking_back" if found.done else "taken_back"
    tx.execute(
        text(
            "UPDATE products.opening_load SET state = :state, taken_back_by = :by, taken_back_at = :at,"
            " taken_back_because = :because WHERE id = :id"
        ),
        {"id": id_, "state": state, "by": by, "at": clock.now(), "because": because},
    )
    return by_id(tx, id_)


def said(state: State) -> str:
    """A state as a word in a sentence."""
    return {
        "committing": "being committed",
        "taking_back": "being taken back",
        "taken_back": "taken back",
    }.get(state, state)


_COLUMNS: Final = (
    "l.id, g.slug, l.programme_id, l.name, l.digest, l.effective_on, l.rows, l.batches, l.done, l.state, l.loaded_by,"
    " l.loaded_at, l.committed_by, l.committed_at, l.final_by, l.final_at, l.taken_back_by, l.taken_back_at, l.taken_back_because"
)


def _loads(tx: Tx, where: str, values: dict[str, object], rest: str) -> list[Load]:
    rows = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM products.opening_load l JOIN products.programme g ON g.id = l.programme_id {where}{rest}"
        ),
        values,
    )
    return [Load(*row) for row in rows]


def _standing(tx: Tx, programme_id: UUID, digest: bytes) -> Load | None:
    where = "WHERE l.programme_id = :programme AND l.digest = :digest AND l.state <> 'taken_back'"
    found = _loads(tx, where, {"programme": programme_id, "digest": digest}, "")
    return found[0] if found else None


def _unopened(tx: Tx, rows: Sequence[Resolved], sheets: Sheets) -> None:
    """An account is opened by one load: a second file with the same accounts would double them."""
    first = {row.account_id: row.row for row in rows if row.account_id is not None and _own(row)}
    found = cursor(tx).execute(
        "SELECT DISTINCT r.account_id FROM products.opening_row r JOIN products.opening_load l ON l.id = r.load_id"
        " WHERE l.state <> 'taken_back' AND r.account_id = ANY (%b)",
        (list(first),),
    )
    for (account_id,) in found.fetchall():
        sheets.add(first[account_id].fault(Faulty("account", "another load has opened this account")))


def _own(row: Resolved) -> bool:
    """Whether the account is one member's, partner's or fund's: what a sponsor has committed is spread over members."""
    return row.code.name not in ("sponsor_committed", *codes.COLLECTED)


def _batches(rows: Sequence[Resolved], sheets: Sheets) -> list[int]:
    """In which transaction each row is posted: in the file's order, the rows of one member with the first of them."""
    of_group: dict[UUID, list[int]] = {}
    units: list[list[int]] = []
    for place, row in enumerate(rows):
        if row.group is not None and row.group in of_group:
            unit = of_group[row.group]
            unit.append(place)
            if len(unit) == OF_ONE_MAX + 1:
                sheets.add(row.row.fault(Faulty("member", f"a member has at most {OF_ONE_MAX} rows")))
            continue
        unit = [place]
        units.append(unit)
        if row.group is not None:
            of_group[row.group] = unit
    batches = [0] * len(rows)
    number, filled = 1, 0
    for unit in units:
        if filled and filled + len(unit) > ROWS_TOGETHER:
            number, filled = number + 1, 0
        filled += len(unit)
        for place in unit:
            batches[place] = number
    return batches


def _copy_rows(tx: Tx, load_id: UUID, rows: Sequence[Resolved], batches: Sequence[int]) -> None:
    with cursor(tx).copy(
        "COPY products.opening_row (load_id, number, batch, sheet, line, code, fund_id, control_id, account_id, against, currency,"
        " amount, partner_id, member_id, link_id, enrolment_id, product, sponsor_id, contributed_on, contributed, window_start,"
        " tier, rule_version, remittance_id, remittance) FROM STDIN"
    ) as copy:
        for number, (one, batch) in enumerate(zip(rows, batches, strict=True), start=1):
            copy.write_row(
                (
                    load_id, number, batch, one.row.sheet, one.row.line, one.code.name, one.fund_id, one.control_id,
                    one.account_id, one.against, one.currency, one.amount, one.partner_id, one.member_id, one.link_id,
                    one.enrolment_id, one.product, one.sponsor_id, one.contributed_on, one.contributed, one.window_start,
                    one.tier, one.rule_version, one.remittance_id, one.remittance,
                )
            )  # fmt: skip


def _copy_windows(
    tx: Tx, load_id: UUID, on: date, windows: Iterable[OpenedWindow], batches: dict[UUID | None, int]
) -> None:
    with cursor(tx).copy(
        "COPY products.opening_window (load_id, batch, enrolment_id, window_start, window_end, by_tier, settled_by_tier, entitled,"
        " rule_version, grants_on, window_over) FROM STDIN"
    ) as copy:
        for one in windows:
            state = one.state(on)
            copy.write_row(
                (
                    load_id, batches[one.enrolment_id], one.enrolment_id, one.window.start, one.window.end, state.by_tier,
                    state.settled, state.entitled, state.rule_version, state.grants_on, state.window_over,
                )
            )  # fmt: skip
