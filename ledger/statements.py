"""Statements: what moved on one account, newest first, page by page, each line with the balance after it.

**Order.** Lines stand by (transaction id, seq), newest first. Ids carry the time at which a transaction was made, and
the account's two indexes are in that order, so a page costs the same however long the account's history is. The
journal's order (era, xid, id) would need every posting of the account sorted for each page.

**Nothing is lost.** An id says when a transaction was made, not when it committed, so ids alone would lose late
commits. The first page therefore fixes the settled horizon, every further page of the same walk serves only what lies
behind that horizon, and the cursor carries it: the walk is one unchanging statement, complete up to its horizon. What
settles later, wherever its id sorts, is in the next walk.

**Balance.** The balance at the horizon is the account's present one less what is not behind the horizon, both in one
snapshot; each line's follows from the line above it, and the cursor carries it on.
"""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from ledger import database
from ledger.balances import DEBIT_NORMAL, on_normal_side
from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound

PAGE_LINES_MAX = 200


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk through a statement goes on: its horizon, the last line shown, and the balance before that line."""

    era: int
    horizon: int
    transaction_id: UUID
    seq: int
    balance: int

    def to_json(self) -> list[int | str]:
        """For a cursor that the caller signs."""
        return [self.era, self.horizon, str(self.transaction_id), self.seq, self.balance]

    @classmethod
    def from_json(cls, shown: object) -> "Position":
        """Reads what `to_json` wrote. Raises InvalidInput."""
        match shown:
            case [int(era), int(horizon), str(transaction_id), int(seq), int(balance)]:
                try:
                    return cls(era, horizon, UUID(transaction_id), seq, balance)
                except ValueError:
                    pass
        raise InvalidInput("not a position in a statement")


@dataclass(frozen=True, slots=True)
class Line:
    """One posting as its account sees it; `amount` is signed: positive when the normal side grew.

    `counter_code` is None when the caller may not see the account on the other side.
    """

    transaction_id: UUID
    seq: int
    kind: str
    reference: str
    effective_on: date
    recorded_at: datetime
    counter_account: UUID
    counter_code: str | None
    amount: int
    balance: int


@dataclass(frozen=True, slots=True)
class Page:
    """Lines, newest first, in minor units of `currency`; `next` is None on the last page."""

    account_id: UUID
    currency: str
    lines: tuple[Line, ...]
    next: Position | None


def statement(tx: Tx, account_id: UUID, *, limit: int = 50, after: Position | None = None) -> Page:
    """A page of an account's statement, behind the settled horizon.

    Raises NotFound for an account that is unknown or hidden, InvalidInput for a limit outside 1 to 200.
    """
    if not 1 <= limit <= PAGE_LINES_MAX:
        raise InvalidInput(f"a page has 1 to {PAGE_LINES_MAX} lines")
    kind, currency, start = _start(tx, account_id, after)
    rows = (
        database.cursor(tx)
        .execute(
            _LINES,
            {
                "account": account_id,
                "before": after.transaction_id if after is not None else _LAST_ID,
                "seq": after.seq if after is not None else 0,
                "era": start.era,
                "horizon": str(start.horizon),
                "rows": limit + 1,
            },
        )
        .fetchall()
    )
    lines: list[Line] = []
    balance = start.balance
    for (
        transaction_id,
        seq,
        about,
        reference,
        effective_on,
        recorded_at,
        counter,
        code,
        amount,
        debited,
    ) in rows[:limit]:
        signed = amount if debited == (kind in DEBIT_NORMAL) else -amount
        lines.append(
            Line(
                transaction_id,
                seq,
                about,
                reference,
                effective_on,
                recorded_at,
                counter,
                code,
                signed,
                balance,
            )
        )
        balance -= signed
    following = None
    if len(rows) > limit:
        following = Position(start.era, start.horizon, lines[-1].transaction_id, lines[-1].seq, balance)
    return Page(account_id, currency, tuple(lines), following)


_LAST_ID = UUID(int=2**128 - 1)


def _start(tx: Tx, account_id: UUID, after: Position | None) -> tuple[str, str, Position]:
    """The account's kind and currency, and the horizon and balance that the page starts from."""
    parameters = {"account": account_id}
    if after is not None:
        row = (
            database.cursor(tx)
            .execute("SELECT kind, currency FROM ledger.account WHERE id = %(account)s", parameters)
            .fetchone()
        )
        if row is None:
            raise NotFound("no such account")
        return row[0], row[1], after
    row = database.cursor(tx).execute(_BALANCE_AT_HORIZON, parameters, prepare=False).fetchone()
    if row is None:
        raise NotFound("no such account")
    kind, currency, era, horizon, *moved = row
    return kind, currency, Position(era, horizon, _LAST_ID, 0, on_normal_side(kind, *moved))


_BALANCE_AT_HORIZON = """
    WITH horizon AS MATERIALIZED (
        SELECT max(era) AS era, pg_snapshot_xmin(pg_current_snapshot()) AS xid FROM ledger.era
    ), unsettled AS (
        SELECT coalesce(sum(moved.debits), 0) AS debits, coalesce(sum(moved.credits), 0) AS credits
        FROM horizon CROSS JOIN LATERAL ledger.moved_since(ARRAY[%(account)s], 'infinity', horizon.era, horizon.xid) AS moved
    )
    SELECT account.kind, account.currency, horizon.era, CAST(CAST(horizon.xid AS text) AS bigint),
           CAST(balance.debits - unsettled.debits AS bigint), CAST(balance.credits - unsettled.credits AS bigint)
    FROM ledger.account
    JOIN ledger.account_balance AS balance ON balance.account_id = account.id
    CROSS JOIN horizon CROSS JOIN unsettled
    WHERE account.id = %(account)s
"""


# Every account's lines are read by a function, which asks once whether the caller may see the account: asked of each
# posting and its transaction, it took longer than reading them (migration 0005).
_LINES = """
    SELECT line.transaction_id, line.seq, line.kind, line.reference, line.effective_on, line.recorded_at, line.counter,
           counter.code, line.amount, line.debited
    FROM ledger.lines_of(%(account)s, %(before)s, %(seq)s, %(era)s, CAST(%(horizon)s AS xid8), %(rows)s) AS line
    LEFT JOIN ledger.account AS counter ON counter.id = line.counter
    ORDER BY line.transaction_id DESC, line.seq DESC LIMIT %(rows)s
"""
