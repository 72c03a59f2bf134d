"""What a resolution did, told: so that what was previewed and what is done can be compared, and shown."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from products.reconciliation.breaks.postings import Done

POSTINGS_SHOWN_MAX: Final = 200

_NOW: Final = "t.era = ledger.current_era() AND t.xid = pg_current_xact_id()"


def before(tx: Tx) -> frozenset[UUID]:
    """The transactions that this database transaction has posted so far."""
    rows = tx.execute(text(f"SELECT t.id FROM ledger.transaction t WHERE {_NOW}")).scalars()
    return frozenset(rows)


def told(tx: Tx, done: Done, since: frozenset[UUID], facts: bytes) -> tuple[Mapping[str, Any], bytes, int]:
    """What a resolution did since ``since``, its digest, and how much of it moved on bank accounts.

    Ids that are made anew each time are left out of the digest: accounts are named by fund, code and owner. Of very many
    postings the first are shown; the digest is of all.
    """
    rows = [
        row._asdict()
        for row in tx.execute(
            text(
                "SELECT t.kind, CAST(p.effective_on AS text) AS effective_on, df.code AS fund, d.code AS debit,"
                " d.owner AS debit_owner, c.code AS credit, c.owner AS credit_owner, p.amount, CAST(p.currency AS text) AS currency"
                " FROM ledger.transaction t JOIN ledger.posting p ON p.transaction_id = t.id"
                " JOIN ledger.account d ON d.id = p.debit_account JOIN ledger.account c ON c.id = p.credit_account"
                f" JOIN ledger.fund df ON df.id = d.fund_id WHERE {_NOW} AND NOT t.id = ANY (:since)"
                " ORDER BY t.id, p.seq"
            ),
            {"since": list(since)},
        )
    ]
    found = tx.execute(
        text(
            "SELECT b.slug AS bank_account, p.amount,"
            " ARRAY(SELECT CAST(l AS text) FROM unnest(p.lines) l ORDER BY 1) AS lines,"
            " ARRAY(SELECT CAST(i.id AS text) FROM ledger.item i JOIN ledger.transaction t ON t.id = i.transaction_id"
            f"       WHERE i.id = ANY (p.items) AND NOT ({_NOW} AND NOT t.id = ANY (:since)) ORDER BY 1) AS items,"
            " ARRAY(SELECT i.amount FROM ledger.item i JOIN ledger.transaction t ON t.id = i.transaction_id"
            f"       WHERE i.id = ANY (p.items) AND {_NOW} AND NOT t.id = ANY (:since) ORDER BY 1) AS posted"
            " FROM ledger.pairing p JOIN ledger.bank_account b ON b.id = p.bank_account_id WHERE p.id = ANY (:ids) ORDER BY 1"
        ),
        {"ids": done.pairings, "since": list(since)},
    ).all()
    paired = [row._asdict() for row in found]
    canonical = json.dumps([facts.hex(), sorted(json.dumps(row) for row in rows), paired], sort_keys=True)
    shown = {
        "postings": rows[:POSTINGS_SHOWN_MAX],
        "postings_in_all": len(rows),
        "pairings": paired,
    }
    moved = sum(abs(row["amount"]) for row in paired) + sum(
        abs(amount) for row in paired if not row["amount"] for amount in row["posted"]
    )
    return shown, hashlib.sha256(canonical.encode()).digest(), moved
