"""Waiting for the settled horizon: what a cursor reads is there once nothing older, in the whole cluster, can still commit."""

from sqlalchemy import text

from ledger.database import Database
from tests.patience import eventually


def all_settled(database: Database) -> None:
    """Wait until whatever has committed by now is behind the horizon: another test's server may have something older under way."""
    with database.begin() as tx:
        now = int(tx.execute(text("SELECT CAST(pg_current_xact_id() AS text)")).scalar_one())

    def is_behind() -> bool:
        with database.read() as tx:
            return int(tx.execute(text("SELECT CAST(ledger.settled_xid() AS text)")).scalar_one()) > now

    eventually(is_behind)
