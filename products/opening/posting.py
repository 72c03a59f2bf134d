"""A load's rows on their way into the books: one batch in one database transaction.

Each row is a transaction `opening:{load}:{number}` against the fund's migration control account, and brings with it what products
keep beside the books: the contribution and its remittance, the state of its match, what awaits a sponsor's funds. So the books
verify between any two batches, and a kill loses nothing and doubles nothing. One who posts a load at a time: its row is locked.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from ledger import periods
from ledger.database import Cursor, Tx, cursor
from ledger.ids import new_id
from ledger.posting import Transaction
from products import chart
from products.opening import codes
from products.opening.load import Load, OpeningMovedOn, by_id
from products.opening.rows import Staged, shares_of, staged_rows
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books, load_context

KIND: Final = "opening_balance"
_PENDING: Final = chart.CONTRIBUTIONS_PENDING.name


def post_next(tx: Tx, books: Books, load_id: UUID) -> int:
    """Post a load's next batch; how many rows, 0 when all are in or it isn't being committed. As the worker's role.

    Raises `OpeningMovedOn` when what was free when the load was staged no longer is, `BooksRefused`.
    """
    load = by_id(tx, load_id, lock=True)
    if load.state != "committing":
        return 0
    batch = load.done + 1
    rows = staged_rows(tx, load_id, batch)
    now = books.clock.now()
    _claim(tx, load, rows)
    _open_windows(tx, load_id, batch)
    _open_shares(tx, rows, _noon(tx, load))
    day = periods.open_day(tx, sorted({row.fund_id for row in rows}), load.effective_on)
    batch_ = [
        Transaction(
            reference=f"opening:{load.id}:{row.number}",
            kind=KIND,
            effective_on=day,
            postings=postings,
            digest=hashlib.sha256(f"{load.digest.hex()}|{row.number}|{row.amount}".encode()).digest(),
            id=new_id(),
            details={"opening": load.public_id, "row": row.number},
        )
        for row in rows
        if (postings := row.postings())
    ]
    of_row = {int(one.reference.rpartition(":")[2]): one.id for one in batch_}
    _contribute(tx, books, load, rows, of_row, now)
    cursor(tx).execute(
        "UPDATE products.opening_row r SET transaction_id = t.x FROM unnest(%b::int[], %b::uuid[]) AS t (n, x)"
        " WHERE r.load_id = %s AND r.number = t.n",
        (list(of_row), list(of_row.values()), load_id),
    )
    # Last, as it locks accounts that many share.
    try:
        post_whole(tx, batch_, clock=books.clock)
    except BooksRefused as refused:
        raise OpeningMovedOn(
            f"The books refuse a row of batch {batch}: {refused.outcome.reason}."
        ) from refused
    cursor(tx).execute(
        "UPDATE products.opening_load SET done = %s, state = CASE WHEN batches = %s THEN 'committed' ELSE state END WHERE id = %s",
        (batch, batch, load_id),
    )
    return len(rows)


def _noon(tx: Tx, load: Load) -> "_Noon":
    (zone,) = cursor(tx).execute(
        "SELECT time_zone FROM products.programme WHERE id = %s", (load.programme_id,)
    ).fetchone() or ("UTC",)
    return _Noon(ZoneInfo(zone))


@dataclass(frozen=True, slots=True)
class _Noon:
    """The file says days; what needs an instant gets their noon, in the programme's time zone."""

    zone: ZoneInfo

    def of(self, day: date) -> datetime:
        return datetime.combine(day, time(12), self.zone).astimezone(UTC)


def _claim(tx: Tx, load: Load, rows: Sequence[Staged]) -> None:
    """Claim the remittances that the rows stand for, by the partner's names for them: what comes later under one is a duplicate."""
    ours = sorted(
        (row.partner_id.bytes, row.named(load.public_id), row.partner_id, row.remittance)
        for row in rows
        if row.remittance is not None and row.partner_id is not None
    )
    cur = cursor(tx)
    cur.execute(
        """INSERT INTO products.remittance_claim AS c (partner_id, remittance_id, id)
           SELECT * FROM unnest(%b::uuid[], %b::text[], %b::uuid[])
           ON CONFLICT (partner_id, remittance_id) DO UPDATE SET id = excluded.id
           WHERE NOT EXISTS (SELECT FROM products.remittance r WHERE r.id = c.id)""",
        ([one[2] for one in ours], [one[1] for one in ours], [one[3] for one in ours]),
    )
    if cur.rowcount != len(ours):
        raise OpeningMovedOn(
            "A remittance of the file has come in since it was loaded: take the load back and load it anew."
        )


def _open_windows(tx: Tx, load_id: UUID, batch: int) -> None:
    cur = cursor(tx)
    cur.execute(
        """INSERT INTO products.match_state AS s (enrolment_id, window_start, window_end, by_tier, settled_by_tier, entitled,
                                                  rule_version, revision, grants_on, window_over)
           SELECT enrolment_id, window_start, window_end, by_tier, settled_by_tier, entitled, rule_version, 0, grants_on, window_over
           FROM products.opening_window WHERE load_id = %s AND batch = %s ORDER BY enrolment_id, window_start
           ON CONFLICT (enrolment_id, window_start) DO UPDATE
           SET window_end = excluded.window_end, by_tier = excluded.by_tier, settled_by_tier = excluded.settled_by_tier,
               entitled = excluded.entitled, rule_version = excluded.rule_version, revision = s.revision + 1,
               grants_on = excluded.grants_on, window_over = excluded.window_over
           WHERE s.entitled = 0 AND NOT EXISTS (SELECT FROM unnest(s.by_tier) AS total WHERE total <> 0)""",
        (load_id, batch),
    )
    opened = cur.rowcount
    cur.execute(
        "SELECT count(*) FROM products.opening_window WHERE load_id = %s AND batch = %s", (load_id, batch)
    )
    if cur.fetchone() != (opened,):
        raise OpeningMovedOn(
            "A member has contributed since the file was loaded: take the load back and load it anew."
        )


def _open_shares(tx: Tx, rows: Sequence[Staged], noon: _Noon) -> None:
    opened = sorted(shares_of(rows).items(), key=lambda one: (one[0][0].bytes, one[0][1], one[0][2].bytes))
    cur = cursor(tx)
    cur.execute(
        """INSERT INTO products.match_share AS s (enrolment_id, window_start, sponsor_id, committed, unvested, vested, awaiting)
           SELECT * FROM unnest(%b::uuid[], %b::date[], %b::uuid[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
           ON CONFLICT (enrolment_id, window_start, sponsor_id) DO UPDATE
           SET committed = excluded.committed, unvested = excluded.unvested, vested = excluded.vested,
               awaiting = excluded.awaiting, vests_on = '0001-01-01'
           WHERE s.committed + s.unvested + s.vested + s.awaiting + s.forfeited + s.certified = 0""",
        (
            [key[0] for key, _ in opened],
            [key[1] for key, _ in opened],
            [key[2] for key, _ in opened],
            *(
                [getattr(share, part) for _, share in opened]
                for part in ("committed", "unvested", "vested", "awaiting")
            ),
        ),
    )
    if cur.rowcount != len(opened):
        raise OpeningMovedOn(
            "A member's match has moved since the file was loaded: take the load back and load it anew."
        )
    waiting = [
        row for row in rows if row.code == codes.AWAITING and row.amount and row.contributed_on is not None
    ]
    cur.execute(
        """INSERT INTO products.match_queue (id, sponsor_id, enrolment_id, window_start, contributed_at, amount)
           SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::uuid[], %b::date[], %b::timestamptz[], %b::bigint[])""",
        (
            [new_id() for _ in waiting],
            [row.sponsor_id for row in waiting],
            [row.enrolment_id for row in waiting],
            [row.window_start for row in waiting],
            [noon.of(row.contributed_on) for row in waiting if row.contributed_on is not None],
            [row.amount for row in waiting],
        ),
    )
    # what waits is served in its order: nothing of the sponsor's overtakes it
    cur.execute(
        "UPDATE products.sponsor SET queueing = true WHERE id = ANY (%b) AND NOT queueing",
        (list({row.sponsor_id for row in waiting}),),
    )


def _contribute(
    tx: Tx, books: Books, load: Load, rows: Sequence[Staged], posted: dict[int, UUID | None], now: datetime
) -> None:
    """Write the contributions that the rows stand for, each with its remittance."""
    given = [row for row in rows if row.remittance is not None and row.contributed_on is not None]
    if not given:
        return
    context = load_context(tx, books, {row.partner_id for row in given if row.partner_id is not None})
    noon = _noon(tx, load)
    remittances: list[tuple[object, ...]] = []
    contributions: list[tuple[object, ...]] = []
    for row in given:
        if row.partner_id is None or row.contributed_on is None:
            continue
        at = noon.of(row.contributed_on)
        agreed = context.joined_in(row.partner_id, load.programme_id).on(row.contributed_on)
        remittances.append(
            (
                row.remittance, row.partner_id, row.named(load.public_id), "posted", load.programme_id, row.rule_version, row.member_id,
                row.link_id, row.contributed, row.currency, row.contributed, row.currency, at, posted.get(row.number), now,
                hashlib.sha256(f"opening|{load.id}|{row.number}".encode()).digest(),
            )
        )  # fmt: skip
        owed = row.against is not None
        destination = {"agency_contributions_collected": "agency", "unearned_contributions": "pool"}.get(
            row.code, "savers"
        )
        pending = row.code == _PENDING or (owed and destination != "savers" and not agreed.settles_at_once)
        debited = row.against if row.against is not None else row.control_id
        contributions.append(
            (
                row.remittance, 0, row.partner_id, load.programme_id, destination, row.product, row.enrolment_id, row.member_id,
                row.fund_id, debited, row.account_id, row.contributed, row.currency, at, row.contributed_on, row.window_start,
                row.tier, "pending" if pending else "settled", owed, row.contributed_on,
                agreed.agreed.fees([row.contributed])[0] if owed else 0, owed and agreed.settles_at_once,
            )
        )  # fmt: skip
    cur = cursor(tx)
    _copy(
        cur,
        "products.remittance (id, partner_id, remittance_id, status, programme_id, rule_version, member_id, link_id,"
        " received_amount, received_currency, collected_amount, collected_currency, contributed_at, transaction_id, recorded_at,"
        " digest)",
        remittances,
    )
    _copy(
        cur,
        "products.contribution (remittance, position, partner_id, programme_id, destination, product, enrolment_id, member_id,"
        " fund_id, debited_account, credited_account, amount, currency, contributed_at, contributed_on, window_start, tier, state,"
        " owed, collected_on, fee, guaranteed)",
        contributions,
    )


def _copy(cur: Cursor, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    with cur.copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
