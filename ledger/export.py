"""The general ledger as rows: every posting behind the settled horizon, in one snapshot, in bounded memory, with control totals.

What comes out is complete or it has no totals: whoever reads a file without them reads a torn one.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import public_id

BATCH: Final = 10_000
"""Rows that are fetched, and held in memory, at a time."""

ACCOUNTS_KNOWN_MAX: Final = 50_000
"""Accounts whose public ids are kept: a few are in most postings."""

COLUMNS: Final = (
    "transaction",
    "seq",
    "reference",
    "kind",
    "effective_on",
    "recorded_at",
    "fund",
    "debit_account",
    "debit_code",
    "debit_owner",
    "credit_account",
    "credit_code",
    "credit_owner",
    "amount",
    "currency",
    "reverses",
    "belongs_on",
)
"""One row is one posting; `amount` is in minor units of `currency`, and positive."""

Row = tuple[
    str, int, str, str, date, datetime, str, str, str, str, str, str, str, int, str, str | None, str | None
]
"""The values of `COLUMNS`."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which postings: effective from ``since`` to ``through``, of these funds; None leaves it open."""

    since: date | None = None
    through: date | None = None
    funds: Collection[UUID] | None = None


@dataclass(slots=True)
class Totals:
    """Control totals: how many postings, what they come to per currency, and the SHA-256 of their lines of CSV."""

    postings: int = 0
    amounts: Counter[str] = field(default_factory=Counter)
    _digest: Any = field(default_factory=hashlib.sha256)  # hashlib has no public type

    def add(self, rows: list[Row], lines: bytes) -> None:
        """Count rows, written as these lines."""
        self.postings += len(rows)
        for row in rows:
            self.amounts[row[14]] += row[13]
        self._digest.update(lines)

    def to_json(self) -> dict[str, Any]:
        """For a trailer, a file's metadata, and whoever asks."""
        return {
            "postings": self.postings,
            "amounts": dict(sorted(self.amounts.items())),
            "sha256": self._digest.hexdigest(),
        }


def batches(tx: Tx, wanted: Wanted) -> Iterator[list[Row]]:
    """The postings in the order of their transactions' ids; ``tx`` is a repeatable-read one that sees all of the books."""
    # all of it is read: a plan that gives the first rows soonest takes half as long again
    cursor(tx).execute("SET LOCAL cursor_tuple_fraction = 1")
    with cursor(tx).connection.cursor(name="general_ledger") as rows:
        rows.itersize = BATCH
        rows.execute(
            """
            SELECT t.id, p.seq, t.reference, t.kind, p.effective_on, t.recorded_at, f.code, d.id, d.code, d.owner,
                   c.id, c.code, c.owner, p.amount, p.currency, t.reverses, t.details->>'belongs_on'
            FROM ledger.posting p JOIN ledger.transaction t ON t.id = p.transaction_id
            JOIN ledger.account d ON d.id = p.debit_account JOIN ledger.account c ON c.id = p.credit_account
            JOIN ledger.fund f ON f.id = d.fund_id
            WHERE (t.era, t.xid) < ((SELECT ledger.current_era()), (SELECT ledger.settled_xid()))
              AND (CAST(%(since)s AS date) IS NULL OR p.effective_on >= %(since)s)
              AND (CAST(%(through)s AS date) IS NULL OR p.effective_on <= %(through)s)
              AND (CAST(%(funds)s AS uuid[]) IS NULL OR f.id = ANY (%(funds)s))
            ORDER BY p.transaction_id, p.seq
            """,
            {
                "since": wanted.since,
                "through": wanted.through,
                "funds": None if wanted.funds is None else list(wanted.funds),
            },
            binary=True,
        )
        while fetched := rows.fetchmany(BATCH):
            yield [_row(*one) for one in fetched]


@lru_cache(maxsize=ACCOUNTS_KNOWN_MAX)
def _account(id_: UUID) -> str:
    return public_id("acc", id_)


def _row(
    transaction: UUID,
    seq: int,
    reference: str,
    kind: str,
    effective_on: date,
    recorded_at: datetime,
    fund: str,
    debit: UUID,
    debit_code: str,
    debit_owner: str,
    credit: UUID,
    credit_code: str,
    credit_owner: str,
    amount: int,
    currency: str,
    reverses: UUID | None,
    belongs_on: str | None,
) -> Row:
    return (
        public_id("txn", transaction),
        seq,
        reference,
        kind,
        effective_on,
        recorded_at,
        fund,
        _account(debit),
        debit_code,
        debit_owner,
        _account(credit),
        credit_code,
        credit_owner,
        amount,
        currency,
        public_id("txn", reverses) if reverses is not None else None,
        belongs_on,
    )


def lines(rows: list[Row]) -> bytes:
    """Rows as CSV (RFC 4180), without a header: what the totals' digest is of, whatever form the rows are written in."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        *head, effective_on, recorded_at = row[:6]
        at = recorded_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        writer.writerow([*head, effective_on.isoformat(), at, *row[6:]])
    return text.getvalue().encode()
