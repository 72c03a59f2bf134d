"""A load's rows on their way into the books and out of them again: one batch in one database transaction.

Each row is a transaction `opening:{load}:{number}` against the fund's migration control account, and brings with it what products
keep beside the books: the contribution and its remittance, the state of its match, what awaits a sponsor's funds. So the books
verify between any two batches, and a kill loses nothing and doubles nothing. One who posts a load at a time: its row is locked.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from ledger import periods
from ledger.database import Cursor, Tx, cursor
from ledger.ids import new_id
from ledger.posting import Posting, Transaction, swapped
from products import chart
from products.opening import codes
from products.opening.load import Load, OpeningMovedOn, by_id
from products.posting import BooksRefused, post_whole
from products.remittances.context import Books, load_context
from products.savings.shares import Share

KIND: Final = "opening_balance"
KIND_BACK: Final = "opening_taken_back"
POSTINGS_TOGETHER: Final = 400
_PENDING: Final = chart.CONTRIBUTIONS_PENDING.name
_COLUMNS: Final = (
    "number, code, fund_id, control_id, account_id, against, currency, amount, partner_id, member_id, link_id, enrolment_id,"
    " product, sponsor_id, contributed_on, contributed, window_start, tier, rule_version, remittance_id, remittance, transaction_id"
)
_StateKey = tuple[UUID, date]


@dataclass(slots=True)
class _Row:
    """A staged row; fields as in `products.opening_row`."""

    number: int
    code: str
    fund_id: UUID
    control_id: UUID
    account_id: UUID | None
    against: UUID | None
    currency: str
    amount: int
    partner_id: UUID | None
    member_id: UUID | None
    link_id: UUID | None
    enrolment_id: UUID | None
    product: str | None
    sponsor_id: UUID | None
    contributed_on: date | None
    contributed: int
    window_start: date | None
    tier: int | None
    rule_version: int | None
    remittance_id: str | None
    remittance: UUID | None
    transaction_id: UUID | None

    def named(self, load: Load) -> str:
        """How the partner knows its remittance; a name of ours where the file has none."""
        return self.remittance_id or self.name_of_ours(load)

    def name_of_ours(self, load: Load) -> str:
        """A name that nobody else gives a remittance."""
        return f"opening-{load.public_id}-{self.number}"

    def postings(self) -> tuple[Posting, ...]:
        """The row against the control account; what a partner still owes of it is posted with it."""
        if self.account_id is None or not self.amount:
            return ()
        debit = codes.debit_normal(codes.code_of(self.code)) == (self.amount > 0)
        pair = (self.account_id, self.control_id) if debit else (self.control_id, self.account_id)
        made = Posting(*pair, abs(self.amount), self.currency)
        if self.against is None:
            return (made,)
        return (made, Posting(self.against, self.control_id, self.contributed, self.currency))


def post_next(tx: Tx, books: Books, load_id: UUID) -> int:
    """Post a load's next batch; how many rows, 0 when all are in or it isn't being committed. As the worker's role.

    Raises `OpeningMovedOn` when what was free when the load was staged no longer is, `BooksRefused`.
    """
    load = by_id(tx, load_id, lock=True)
    if load.state != "committing":
        return 0
    batch = load.done + 1
    rows = _rows(tx, load_id, batch)
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


def take_back_next(tx: Tx, books: Books, load_id: UUID) -> int:
    """Take a load's last batch back by reversals; how many rows, 0 when nothing is left. As the worker's role.

    Raises `OpeningMovedOn` when money that the batch brought in has moved on since.
    """
    load = by_id(tx, load_id, lock=True)
    if load.state != "taking_back":
        return 0
    rows = _rows(tx, load_id, load.done)
    _still_open(tx, rows)
    back = _close_windows(tx, load, rows)
    posted = [row for row in rows if row.transaction_id is not None]
    mirrored = swapped(tx, [row.transaction_id for row in posted if row.transaction_id is not None])
    day = periods.open_day(tx, sorted({row.fund_id for row in rows}), load.effective_on)
    batch = [
        Transaction(
            reference=f"opening:{load.id}:{row.number}:back",
            kind=KIND_BACK,
            effective_on=day,
            postings=mirrored[row.transaction_id],
            digest=hashlib.sha256(f"{row.transaction_id}|back".encode()).digest(),
            id=new_id(),
            reverses=row.transaction_id,
            details={"opening": load.public_id, "row": row.number},
        )
        for row in posted
        if row.transaction_id is not None
    ]
    by_number = {row.number: one.id for row, one in zip(posted, batch, strict=True)}
    restored = [
        Transaction(
            reference=f"opening:{load.id}:match:{load.done}:{first}:back",
            kind=KIND_BACK,
            effective_on=day,
            postings=tuple(back[first : first + POSTINGS_TOGETHER]),
            digest=hashlib.sha256(f"{load.id}|{load.done}|{first}|match".encode()).digest(),
            id=new_id(),
            details={"opening": load.public_id},
        )
        for first in range(0, len(back), POSTINGS_TOGETHER)
    ]
    cur = cursor(tx)
    cur.execute(
        "UPDATE products.opening_row r SET reversal_id = t.x FROM unnest(%b::int[], %b::uuid[]) AS t (n, x)"
        " WHERE r.load_id = %s AND r.number = t.n",
        (list(by_number), list(by_number.values()), load_id),
    )
    contributed = [row for row in rows if row.remittance is not None]
    cur.execute(
        "UPDATE products.contribution SET state = 'reversed', owed = false WHERE remittance = ANY (%b)",
        ([row.remittance for row in contributed],),
    )
    _release(cur, load, contributed, by_number, books.clock.now())
    try:
        post_whole(tx, restored, clock=books.clock)
        post_whole(tx, batch, clock=books.clock)
    except BooksRefused as refused:
        raise OpeningMovedOn(
            f"Money of batch {load.done} has moved on since ({refused.outcome.reason}): what moved it is taken back first."
        ) from refused
    cur.execute(
        "UPDATE products.opening_load SET done = done - 1, state = CASE WHEN done = 1 THEN 'taken_back' ELSE state END"
        " WHERE id = %s",
        (load_id,),
    )
    return len(rows)


def _release(
    cur: Cursor, load: Load, rows: Sequence[_Row], reversed_by: dict[int, UUID | None], now: datetime
) -> None:
    """Mark the rows' remittances reversed, and free the names by which partners know them: they may still come in as events."""
    cur.execute(
        """UPDATE products.remittance_claim c SET id = t.new FROM unnest(%b::uuid[], %b::text[], %b::uuid[]) AS t (p, r, new)
           WHERE c.partner_id = t.p AND c.remittance_id = t.r""",
        ([row.partner_id for row in rows], [row.named(load) for row in rows], [new_id() for _ in rows]),
    )
    cur.execute(
        """UPDATE products.remittance r SET status = 'reversed', remittance_id = t.name, reversal_transaction_id = t.x,
               reversed_at = %s, reversal_reason = 'opening balances taken back'
           FROM unnest(%b::uuid[], %b::text[], %b::uuid[]) AS t (id, name, x) WHERE r.id = t.id""",
        (
            now,
            [row.remittance for row in rows],
            [row.name_of_ours(load) for row in rows],
            [reversed_by.get(row.number) for row in rows],
        ),
    )


def _rows(tx: Tx, load_id: UUID, batch: int) -> list[_Row]:
    found = cursor(tx).execute(
        f"SELECT {_COLUMNS} FROM products.opening_row WHERE load_id = %s AND batch = %s ORDER BY number",
        (load_id, batch),
    )
    return [_Row(*row) for row in found.fetchall()]


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


def _claim(tx: Tx, load: Load, rows: Sequence[_Row]) -> None:
    """Claim the remittances that the rows stand for, by the partner's names for them: what comes later under one is a duplicate."""
    ours = sorted(
        (row.partner_id.bytes, row.named(load), row.partner_id, row.remittance)
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


def _shares_of(rows: Sequence[_Row]) -> dict[tuple[UUID, date, UUID], Share]:
    """What the rows open of each sponsor's share, by enrolment, window and sponsor."""
    parts: defaultdict[tuple[UUID, date, UUID], defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    names = {
        chart.SPONSOR_COMMITTED.name: "committed",
        chart.MATCH_UNVESTED.name: "unvested",
        chart.MATCH_VESTED.name: "vested",
        codes.AWAITING: "awaiting",
    }
    for row in rows:
        if row.code in names and row.enrolment_id and row.window_start and row.sponsor_id:
            parts[row.enrolment_id, row.window_start, row.sponsor_id][names[row.code]] += row.amount
    return {key: Share(**share) for key, share in parts.items()}


def _open_shares(tx: Tx, rows: Sequence[_Row], noon: _Noon) -> None:
    opened = sorted(_shares_of(rows).items(), key=lambda one: (one[0][0].bytes, one[0][1], one[0][2].bytes))
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
    tx: Tx, books: Books, load: Load, rows: Sequence[_Row], posted: dict[int, UUID | None], now: datetime
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
                row.remittance, row.partner_id, row.named(load), "posted", load.programme_id, row.rule_version, row.member_id,
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


def _still_open(tx: Tx, rows: Sequence[_Row]) -> None:
    """What the rows contributed is as they wrote it: nothing was settled, reversed or remitted since."""
    ours = [row for row in rows if row.remittance is not None]
    cur = cursor(tx)
    cur.execute(
        """SELECT count(*) FROM (
               SELECT FROM products.contribution WHERE remittance = ANY (%b) AND state <> 'reversed' AND settlement_id IS NULL
                      AND remittal_line IS NULL FOR NO KEY UPDATE) c""",
        ([row.remittance for row in ours],),
    )
    if cur.fetchone() != (len(ours),):
        raise OpeningMovedOn(
            "Contributions of the load were settled, reversed or remitted since: take that back first."
        )


def _close_windows(tx: Tx, load: Load, rows: Sequence[_Row]) -> list[Posting]:
    """Empty the batch's match; answers what puts it back where the load had put it, where it vested or was granted since."""
    cur = cursor(tx)
    cur.execute(
        """SELECT s.enrolment_id, s.window_start, (s.by_tier, s.settled_by_tier) = (w.by_tier, w.settled_by_tier)
           FROM products.opening_window w JOIN products.match_state s USING (enrolment_id, window_start)
           WHERE w.load_id = %s AND w.batch = %s ORDER BY s.enrolment_id, s.window_start FOR NO KEY UPDATE OF s""",
        (load.id, load.done),
    )
    keys: list[_StateKey] = []
    for enrolment_id, start, same in cur.fetchall():
        if not same:
            raise OpeningMovedOn(
                "Members have contributed since in windows that the load opened: take that back first."
            )
        keys.append((enrolment_id, start))
    arrays = ([key[0] for key in keys], [key[1] for key in keys])
    opened = _shares_of(rows)
    cur.execute(
        """SELECT h.enrolment_id, h.window_start, h.sponsor_id, h.committed, h.unvested, h.vested, h.awaiting, h.certified,
                  h.forfeited, s.committed_account, e.unvested_account, e.vested_account
           FROM products.match_share h JOIN unnest(%b::uuid[], %b::date[]) AS t (e, w) ON h.enrolment_id = t.e AND h.window_start = t.w
           JOIN products.sponsor s ON s.id = h.sponsor_id JOIN products.enrolment e ON e.id = h.enrolment_id""",
        arrays,
    )
    currency = rows[0].currency
    back: list[Posting] = []
    for enrolment_id, start, sponsor_id, *rest in cur.fetchall():
        now, accounts = Share(*rest[:6]), rest[6:]
        before = opened.get((enrolment_id, start, sponsor_id), Share())
        if (now.awaiting, now.certified, now.forfeited, now.entitled) != (
            before.awaiting,
            0,
            0,
            before.entitled,
        ):
            raise OpeningMovedOn(
                "Match of the load was funded, certified or lost since: take that back first."
            )
        change = [getattr(now, part) - getattr(before, part) for part in ("committed", "unvested", "vested")]
        back += _put_back(change, accounts, currency)
    cur.execute(
        """UPDATE products.match_share h SET committed = 0, unvested = 0, vested = 0, awaiting = 0
           FROM unnest(%b::uuid[], %b::date[]) AS t (e, w) WHERE h.enrolment_id = t.e AND h.window_start = t.w""",
        arrays,
    )
    cur.execute(
        """DELETE FROM products.match_queue q USING unnest(%b::uuid[], %b::date[]) AS t (e, w)
           WHERE q.enrolment_id = t.e AND q.window_start = t.w""",
        arrays,
    )
    cur.execute(
        """UPDATE products.match_state s SET by_tier = array_fill(0::bigint, ARRAY[cardinality(by_tier)]),
               settled_by_tier = array_fill(0::bigint, ARRAY[cardinality(by_tier)]), entitled = 0, revision = revision + 1
           FROM unnest(%b::uuid[], %b::date[]) AS t (e, w) WHERE s.enrolment_id = t.e AND s.window_start = t.w""",
        arrays,
    )
    return back


def _put_back(change: Sequence[int], accounts: Sequence[UUID], currency: str) -> list[Posting]:
    """Postings from the accounts that have more than the load gave them to those that have less; the changes add up to 0."""
    more = {account: amount for amount, account in zip(change, accounts, strict=True) if amount > 0}
    less = {account: -amount for amount, account in zip(change, accounts, strict=True) if amount < 0}
    made: list[Posting] = []
    for source, account in ((source, account) for source in more for account in less):
        amount = min(more[source], less[account])
        if amount:
            made.append(Posting(source, account, amount, currency))
            more[source] -= amount
            less[account] -= amount
    return made
