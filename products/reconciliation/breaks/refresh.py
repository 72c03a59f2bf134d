"""Bringing breaks up to date with what is open now."""

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx


def refresh(tx: Tx, clock: Clock) -> int:
    """Find, retype and end breaks as the books, the bank and the partners stand now; how many rows changed.

    As the worker. Who waited until today waits no longer.
    """
    return tx.execute(
        text(
            "UPDATE products.break SET state = 'open', waits_until = NULL"
            " WHERE state = 'waiting' AND waits_until <= CAST(:now AS timestamptz)::date"
        ),
        {"now": clock.now()},
    ).rowcount
