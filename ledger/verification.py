"""Runs of the verification that are on record: who asked, what the verdict was, and how far it looked.

A run sees one snapshot: everything before its horizon was replayed. What was posted since is found by (era, xid) from there.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.horizon import Horizon
from ledger.ids import new_id
from ledger.report import Report

_ADVISORY_CLASS: Final = 0x4D5A
_ADVISORY_VERIFIER: Final = 4


@dataclass(frozen=True, slots=True)
class Verification:
    """A run that has its verdict; nothing before `horizon` was left out. ``findings`` are the first lies."""

    id: UUID
    asked_by: str
    verified_at: datetime
    ok: bool
    transactions: int
    postings: int
    unsealed: int
    findings: list[dict[str, Any]]
    horizon: Horizon


def ask(tx: Tx, *, actor: str, clock: Clock) -> UUID:
    """Ask for a run; the one that is asked for and not carried out yet, if there is one."""
    made = new_id()
    with cursor(tx) as sql:
        sql.execute(
            "INSERT INTO ledger.verification (id, asked_by, asked_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (made, actor, clock.now()),
        )
    return asked(tx) or made


def asked(tx: Tx) -> UUID | None:
    """The run that is asked for and not carried out yet."""
    with cursor(tx) as sql:
        row = sql.execute("SELECT id FROM ledger.verification WHERE verified_at IS NULL").fetchone()
    return row[0] if row is not None else None


def alone(tx: Tx) -> bool:
    """Whether nobody else carries one out until ``tx`` ends."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT pg_try_advisory_xact_lock(%s, %s)", (_ADVISORY_CLASS, _ADVISORY_VERIFIER)
        ).fetchone()
    return row == (True,)


def record(tx: Tx, report: Report, seen: Horizon, *, actor: str, clock: Clock) -> UUID:
    """Write a verdict down: of the run that is asked for, or of one that nobody asked for before.

    ``seen`` is the horizon of the snapshot that was verified, read in it.
    """
    findings = [{"check": name, "where": one.where, "what": one.what} for name, one in report.findings()]
    told = (clock.now(), report.ok, report.transactions, report.postings, report.unsealed, Jsonb(findings))
    while True:
        found = ask(tx, actor=actor, clock=clock)
        with cursor(tx) as sql:
            sql.execute(
                "UPDATE ledger.verification SET verified_at = %s, ok = %s, transactions = %s, postings = %s,"
                " unsealed = %s, findings = %s, era = %s, horizon = CAST(%s AS xid8)"
                " WHERE id = %s AND verified_at IS NULL",
                (*told, seen.era, str(seen.xid), found),
            )
            if (
                sql.rowcount
            ):  # else another run has just answered what was asked for, and this one is on record beside it
                return found


def latest(tx: Tx) -> Verification | None:
    """The last run that has its verdict."""
    with cursor(tx) as sql:
        row = sql.execute(
            "SELECT id, asked_by, verified_at, ok, transactions, postings, unsealed, findings, era,"
            " CAST(CAST(horizon AS text) AS bigint) FROM ledger.verification WHERE verified_at IS NOT NULL"
            " ORDER BY verified_at DESC, id DESC LIMIT 1"
        ).fetchone()
    if row is None:
        return None
    id_, by, at, ok, transactions, postings, unsealed, findings, era, xid = row
    return Verification(id_, by, at, ok, transactions, postings, unsealed, findings, Horizon(era, xid))
