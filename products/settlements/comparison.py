"""A partner's own settlement file beside the books, event by event: each collection and each reversal, in sets.

An event is named by the partner's id of the remittance and its kind. The first line that names it is compared; further ones are
duplicates. What is on record here is compared with what was *collected*, not with what it was split into. A remittance that
came but is not in the books (parked, quarantined, waiting for its original) is missing here, and the difference says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id

Kind = Literal["collection", "reversal"]
DifferenceType = Literal["missing_here", "missing_there", "amount", "currency", "duplicate"]
"""``missing_here``: in the file and not in the books. ``missing_there``: in the books, within the file's days, and not in the
file. ``amount``, ``currency``: in both, otherwise. ``duplicate``: a line that names an event which an earlier line named."""
HereState = Literal["posted", "reversed", "unallocated", "parked", "quarantined", "awaiting_original"]
"""What we have of the remittance: its status, or ``quarantined`` for one that came and could not be decided."""
DifferenceState = Literal["open", "explained"]

DAYS_MAX: Final = 400


class InvalidDays(InvalidInput):
    """The days that a file covers are not told, or can't be."""

    code = "invalid_settlement_days"


@dataclass(frozen=True, slots=True)
class FileLine:
    """One event of a file, as the partner has it: ``position`` is the row, ``amount`` minor units without a sign."""

    position: int
    remittance_id: str
    kind: Kind
    amount: int
    currency: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to compare, as read. `reversals_left_out`: what was collected and reversed within its days is in it neither way."""

    partner_id: UUID
    programme_id: UUID
    mapping_id: UUID
    digest: bytes
    lines: Sequence[FileLine]
    first_on: date
    last_on: date
    reversals_left_out: bool


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """A file that was compared. ``differences`` by type; ``open``: those that nobody has explained."""

    id: UUID
    partner: str
    programme: str
    digest: bytes
    first_on: date
    last_on: date
    lines: int
    compared_at: datetime
    differences: Mapping[DifferenceType, int]
    open: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a file and the books differ about one event. Amounts are minor units; `position` is the row in the file."""

    number: int
    type: DifferenceType
    kind: Kind
    remittance_id: str
    remittance: UUID | None
    position: int | None
    there_amount: int | None
    there_currency: str | None
    here_amount: int | None
    here_currency: str | None
    here_state: HereState | None
    here_reason: str | None
    state: DifferenceState
    remark: str | None
    explained_by: str | None
    explained_at: datetime | None


def days_of(
    lines: Sequence[FileLine], time_zone: str, first_on: date | None, last_on: date | None
) -> tuple[date, date]:
    """The days that a file covers: those told, else from its earliest to its latest time. Raises `InvalidDays`."""
    zone = ZoneInfo(time_zone)
    told = [line.at.astimezone(zone).date() for line in lines if line.at is not None]
    first, last = first_on or min(told, default=None), last_on or max(told, default=None)
    if first is None or last is None:
        raise InvalidDays("Say from which day to which the file goes: its lines have no times.")
    if not timedelta(0) <= last - first <= timedelta(days=DAYS_MAX):
        raise InvalidDays(f"A file goes from a day to one up to {DAYS_MAX} days later.")
    return first, last


def compare(tx: Tx, clock: Clock, file: NewFile) -> tuple[UUID, bool]:
    """Record a file and where it differs from the books as they stand; its id, and whether it is new.

    The same file, read by the same mapping for the same days, is compared once. As the worker's role, which `COPY` needs.
    """
    file_id = new_id()
    with cursor(tx) as sql:
        row = sql.execute(
            "INSERT INTO products.settlement_file (id, partner_id, programme_id, mapping_id, digest, first_on, last_on,"
            " lines, compared_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (partner_id, programme_id, digest, mapping_id, first_on, last_on) DO NOTHING RETURNING id",
            (
                file_id,
                file.partner_id,
                file.programme_id,
                file.mapping_id,
                file.digest,
                file.first_on,
                file.last_on,
                len(file.lines),
                clock.now(),
            ),
        ).fetchone()
        if row is None:
            known = sql.execute(
                "SELECT id FROM products.settlement_file WHERE partner_id = %s AND programme_id = %s AND digest = %s"
                " AND mapping_id = %s AND first_on = %s AND last_on = %s",
                (
                    file.partner_id,
                    file.programme_id,
                    file.digest,
                    file.mapping_id,
                    file.first_on,
                    file.last_on,
                ),
            ).fetchone()
            if known is None:
                raise NotFound("The file is there and can't be read.")
            return known[0], False
        columns = ("uuid", "int4", "text", "text", "int8", "text", "timestamptz")
        with sql.copy("COPY products.settlement_file_line FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(columns)
            for line in file.lines:
                copy.write_row(
                    (
                        file_id,
                        line.position,
                        line.remittance_id,
                        line.kind,
                        line.amount,
                        line.currency,
                        line.at,
                    )
                )
        # the new lines are in no statistics: what looks like few rows would be joined one by one
        sql.execute("SET LOCAL enable_nestloop = off")
        sql.execute(
            _COMPARE,
            {
                "file": file_id,
                "partner": file.partner_id,
                "programme": file.programme_id,
                "left_out": file.reversals_left_out,
                "first": file.first_on,
                "last": file.last_on,
            },
        )
        sql.execute("SET LOCAL enable_nestloop = on")
    return file_id, True


_COMPARE: Final = """
WITH programme AS MATERIALIZED (
    SELECT g.id, g.currency, (%(first)s::date)::timestamp AT TIME ZONE g.time_zone AS since,
           (%(last)s::date + 1)::timestamp AT TIME ZONE g.time_zone AS until
    FROM products.programme g WHERE g.id = %(programme)s
), line AS MATERIALIZED (
    SELECT l.position, l.remittance_id, l.kind, l.amount, l.currency,
           row_number() OVER (PARTITION BY l.remittance_id, l.kind ORDER BY l.position) AS copy
    FROM products.settlement_file_line l WHERE l.file_id = %(file)s
), there AS MATERIALIZED (
    -- a remittance's two events in one row
    SELECT remittance_id, bool_or(kind = 'collection') AS collected, bool_or(kind = 'reversal') AS reversed
    FROM line GROUP BY remittance_id
), recorded AS MATERIALIZED (
    SELECT c.id, c.remittance_id, coalesce(r.status, 'quarantined') AS status, r.reason, r.collected_amount AS amount,
           r.collected_currency AS currency
    FROM there t
    -- one by one down their indexes, however many remittances there are (OFFSET 0 keeps it so)
    CROSS JOIN LATERAL (
        SELECT c.id, c.remittance_id FROM products.remittance_claim c
        WHERE c.partner_id = %(partner)s AND c.remittance_id = t.remittance_id OFFSET 0
    ) AS c
    LEFT JOIN LATERAL (
        SELECT r.status, r.reason, r.collected_amount, r.collected_currency FROM products.remittance r
        WHERE r.id = c.id OFFSET 0
    ) AS r ON true
), within AS MATERIALIZED (
    -- what is on record here of the file's days
    SELECT r.id, r.remittance_id, r.status, r.reason, r.collected_amount AS amount, r.collected_currency AS currency,
           r.contributed_at >= g.since AND r.contributed_at < g.until AS collected,
           r.status = 'reversed' AND r.reversed_at >= g.since AND r.reversed_at < g.until AS reversed
    FROM programme g CROSS JOIN products.remittance r
    WHERE r.partner_id = %(partner)s AND r.status <> 'awaiting_original' AND r.collected_amount > 0
      AND (r.programme_id = g.id OR r.programme_id IS NULL AND r.collected_currency = g.currency)
      AND (r.contributed_at >= g.since AND r.contributed_at < g.until OR r.reversed_at >= g.since AND r.reversed_at < g.until)
), difference AS (
    SELECT 'duplicate' AS type, l.kind, l.remittance_id, h.id AS remittance, l.position, l.amount, l.currency,
           h.amount AS here_amount, h.currency AS here_currency, h.status, h.reason
    FROM line l LEFT JOIN recorded h USING (remittance_id) WHERE l.copy > 1
    UNION ALL
    SELECT CASE WHEN h.id IS NULL
                     OR NOT (h.status = 'reversed' OR l.kind = 'collection' AND h.status IN ('posted', 'unallocated'))
                THEN 'missing_here'
                WHEN l.currency <> h.currency THEN 'currency'
                ELSE 'amount' END,
           l.kind, l.remittance_id, h.id, l.position, l.amount, l.currency, h.amount, h.currency, h.status, h.reason
    FROM line l LEFT JOIN recorded h USING (remittance_id)
    WHERE l.copy = 1
      AND (h.id IS NULL
           OR NOT (h.status = 'reversed' OR l.kind = 'collection' AND h.status IN ('posted', 'unallocated'))
           OR (l.amount, l.currency) IS DISTINCT FROM (h.amount, h.currency))
    UNION ALL
    SELECT 'missing_there', e.kind, h.remittance_id, h.id, NULL, NULL, NULL, h.amount, h.currency, h.status, h.reason
    FROM within h LEFT JOIN there t USING (remittance_id)
    CROSS JOIN LATERAL (VALUES ('collection', h.collected, coalesce(t.collected, false)),
                               ('reversal', h.reversed, coalesce(t.reversed, false))) AS e (kind, due, listed)
    WHERE e.due AND NOT e.listed
      AND NOT (%(left_out)s AND h.collected AND h.reversed AND t.remittance_id IS NULL)
)
INSERT INTO products.settlement_difference (file_id, number, type, kind, remittance_id, remittance, position, there_amount,
    there_currency, here_amount, here_currency, here_state, here_reason)
SELECT %(file)s, row_number() OVER (ORDER BY position NULLS LAST, remittance_id, kind), type, kind, remittance_id, remittance,
       position, amount, currency, here_amount, here_currency, status, reason
FROM difference
"""

_FILE: Final = """
SELECT f.id, p.slug, g.slug, f.digest, f.first_on, f.last_on, f.lines, f.compared_at, d.types, d.open
FROM products.settlement_file f
JOIN products.partner p ON p.id = f.partner_id
JOIN products.programme g ON g.id = f.programme_id
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_object_agg(type, of_type), '{}') AS types, coalesce(sum(open), 0)::int AS open
    FROM (SELECT type, count(*) AS of_type, count(*) FILTER (WHERE state = 'open') AS open
          FROM products.settlement_difference WHERE file_id = f.id GROUP BY type) AS counted
) AS d
"""


def files(
    tx: Tx, *, partner_id: UUID | None = None, before: UUID | None = None, limit: int
) -> list[ComparedFile]:
    """Compared files that `tx` may see, newest first, older than `before`."""
    with cursor(tx) as sql:
        sql.execute(
            f"{_FILE} WHERE (%(partner)s::uuid IS NULL OR f.partner_id = %(partner)s)"
            " AND (%(before)s::uuid IS NULL OR f.id < %(before)s) ORDER BY f.id DESC LIMIT %(limit)s",
            {"partner": partner_id, "before": before, "limit": limit},
        )
        return [ComparedFile(*row) for row in sql]


def one_of(tx: Tx, file_id: UUID) -> ComparedFile:
    """A compared file that `tx` may see. Raises NotFound."""
    with cursor(tx) as sql:
        row = sql.execute(f"{_FILE} WHERE f.id = %s", (file_id,)).fetchone()
    if row is None:
        raise NotFound("There is no such settlement file.")
    return ComparedFile(*row)


def differences(
    tx: Tx,
    file_id: UUID,
    *,
    types: Sequence[DifferenceType] = (),
    state: DifferenceState | None = None,
    after: int = 0,
    limit: int,
) -> list[Difference]:
    """Differences of a file behind number `after`, in the file's order, those that are missing there last."""
    with cursor(tx) as sql:
        sql.execute(
            "SELECT number, type, kind, remittance_id, remittance, position, there_amount, there_currency, here_amount,"
            " here_currency, here_state, here_reason, state, remark, explained_by, explained_at"
            " FROM products.settlement_difference WHERE file_id = %(file)s AND number > %(after)s"
            " AND (%(types)s::text[] IS NULL OR type = ANY(%(types)s)) AND (%(state)s::text IS NULL OR state = %(state)s)"
            " ORDER BY number LIMIT %(limit)s",
            {"file": file_id, "after": after, "types": list(types) or None, "state": state, "limit": limit},
        )
        return [Difference(*row) for row in sql]


def explain(tx: Tx, clock: Clock, file_id: UUID, number: int, *, remark: str, by: str) -> Difference:
    """Say why a difference is one: it is explained from now on, by this remark. Raises NotFound."""
    with cursor(tx) as sql:
        sql.execute(
            "UPDATE products.settlement_difference SET state = 'explained', remark = %s, explained_by = %s, explained_at = %s"
            " WHERE file_id = %s AND number = %s",
            (remark, by, clock.now(), file_id, number),
        )
        found = differences(tx, file_id, after=number - 1, limit=1)
    if not found or found[0].number != number:
        raise NotFound("There is no such difference.")
    return found[0]


def keep_mapping(
    tx: Tx, clock: Clock, partner_id: UUID, programme_id: UUID, mapping: Mapping[str, Any]
) -> UUID:
    """Read the partner's files for the programme by this mapping from now on; its id. The same again changes nothing."""
    known = current_mapping(tx, partner_id, programme_id)
    if known is not None and known[1] == mapping:
        return known[0]
    made = new_id()
    with cursor(tx) as sql:
        sql.execute(
            "INSERT INTO products.settlement_mapping (id, partner_id, programme_id, mapping, recorded_at)"
            " VALUES (%s, %s, %s, %s, %s)",
            (made, partner_id, programme_id, Jsonb(dict(mapping)), clock.now()),
        )
    return made


def current_mapping(tx: Tx, partner_id: UUID, programme_id: UUID) -> tuple[UUID, dict[str, Any]] | None:
    """The mapping by which the partner's files for the programme are read now."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT id, mapping FROM products.settlement_mapping WHERE partner_id = %s AND programme_id = %s"
            " ORDER BY id DESC LIMIT 1",
            (partner_id, programme_id),
        ).fetchone()
    return (row[0], row[1]) if row else None
