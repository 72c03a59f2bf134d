"""Bringing breaks up to date with what is open now."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Cursor, Tx, cursor
from ledger.ids import new_id
from products.reconciliation.breaks import typing

SYSTEM: Final = "system"
_LOCK_CLASS: Final = 0x4D5F
"""Advisory lock: one refresh at a time."""


def refresh(tx: Tx, clock: Clock) -> int:
    """Find, retype and end breaks as the books, the bank and the partners stand now; how many changed. As the worker.

    A break that persists keeps its id, its owner and its remark, whatever its type becomes. One that no longer holds is `gone`.
    One that was explained stays so until its subject says something else. Who waited until today waits no longer.
    """
    tx.execute(text("SELECT pg_advisory_xact_lock(:class, 0)"), {"class": _LOCK_CLASS})
    cur, now = cursor(tx), clock.now()
    typing.find(tx, now)
    changed = _woken(cur, now) + _gone(cur, now) + _changed(cur, now) + _new(cur, now)
    cur.execute("DELETE FROM products.break_found")
    return changed


_FACTS: Final = "sha256(convert_to(concat_ws('|', f.subject_kind, f.subject, f.type, f.amount, f.currency, f.items), 'UTF8'))"
"""By what a break that was explained is told from one whose subject says something else."""


def _woken(cur: Cursor, now: datetime) -> int:
    cur.execute(
        """UPDATE products.break b SET state = 'open', waits_until = NULL
           FROM ledger.fund f
           WHERE f.id = b.fund_id AND b.state = 'waiting' AND b.waits_until <= (%s AT TIME ZONE f.time_zone)::date
           RETURNING b.id""",
        (now,),
    )
    return _tell(cur, "woken", [row[0] for row in cur.fetchall()], now)


def _gone(cur: Cursor, now: datetime) -> int:
    cur.execute(
        """UPDATE products.break b SET state = 'gone', ended_at = %s, waits_until = NULL
           WHERE b.ended_at IS NULL AND NOT EXISTS (
               SELECT FROM products.break_found f WHERE f.subject_kind = b.subject_kind AND f.subject = b.subject)
           RETURNING b.id""",
        (now,),
    )
    return _tell(cur, "gone", [row[0] for row in cur.fetchall()], now)


def _changed(cur: Cursor, now: datetime) -> int:
    cur.execute(
        f"""WITH was AS MATERIALIZED (
               SELECT b.id, b.type, f.type AS becomes, f.partner_id, f.amount, f.on_date, {_FACTS} AS facts, f.details
               FROM products.break b JOIN products.break_found f ON f.subject_kind = b.subject_kind AND f.subject = b.subject
               WHERE b.ended_at IS NULL AND (b.facts, b.details, b.partner_id, b.on_date)
                     IS DISTINCT FROM ({_FACTS}, f.details, f.partner_id, f.on_date)
               ORDER BY b.id FOR NO KEY UPDATE OF b
           ), now AS (
               UPDATE products.break b
               SET type = w.becomes, partner_id = w.partner_id, amount = w.amount, on_date = w.on_date, facts = w.facts,
                   details = w.details
               FROM was w WHERE w.id = b.id
           )
           SELECT id, type, becomes FROM was"""
    )
    rows = cur.fetchall()
    retyped = [(id_, was, becomes) for id_, was, becomes in rows if was != becomes]
    cur.execute(
        """INSERT INTO products.break_event (id, break_id, what, by_whom, at, details)
           SELECT t.e, t.b, 'retyped', %s, %s, jsonb_build_object('from', t.f, 'to', t.t)
           FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[]) AS t (e, b, f, t)""",
        (SYSTEM, now, [new_id() for _ in retyped], *([row[place] for row in retyped] for place in range(3))),
    )
    return len(rows)


def _new(cur: Cursor, now: datetime) -> int:
    """What was explained, and says the same, is not found again; what was paired or booked and is open all the same, is."""
    cur.execute(
        f"""SELECT f.subject_kind, f.subject FROM products.break_found f
           WHERE NOT EXISTS (SELECT FROM products.break b WHERE b.subject_kind = f.subject_kind AND b.subject = f.subject
                             AND b.ended_at IS NULL)
             AND NOT EXISTS (
                 SELECT FROM products.break b JOIN products.break_resolution r ON r.break_id = b.id
                 WHERE b.subject_kind = f.subject_kind AND b.subject = f.subject AND b.facts = {_FACTS}
                   AND b.state = 'resolved' AND r.state = 'done' AND r.method = 'explain')
           ORDER BY f.on_date, f.subject_kind, f.subject"""
    )
    rows = cur.fetchall()
    ids = [new_id() for _ in rows]
    cur.execute(
        f"""INSERT INTO products.break (id, type, programme_id, bank_account_id, fund_id, partner_id, subject_kind, subject, amount,
                                       currency, on_date, facts, details, found_at)
           SELECT t.id, f.type, f.programme_id, f.bank_account_id, f.fund_id, f.partner_id, f.subject_kind, f.subject, f.amount,
                  f.currency, f.on_date, {_FACTS}, f.details, %s
           FROM unnest(%b::uuid[], %b::text[], %b::text[]) AS t (id, kind, subject)
           JOIN products.break_found f ON f.subject_kind = t.kind AND f.subject = t.subject""",
        (now, ids, [kind for kind, _ in rows], [subject for _, subject in rows]),
    )
    return _tell(cur, "found", ids, now)


def _tell(cur: Cursor, what: str, breaks: Sequence[UUID], now: datetime) -> int:
    """Write the same into the history of many breaks."""
    cur.execute(
        """INSERT INTO products.break_event (id, break_id, what, by_whom, at)
           SELECT t.e, t.b, %s, %s, %s FROM unnest(%b::uuid[], %b::uuid[]) AS t (e, b)""",
        (what, SYSTEM, now, [new_id() for _ in breaks], breaks),
    )
    return len(breaks)
