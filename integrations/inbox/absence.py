"""Telling a database that is not there from data that it refuses."""

from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ledger.database import sqlstate

# Connection, transaction rollback (deadlock, serialization), resources, operator intervention, system.
_CLASSES: Final = frozenset({"08", "40", "53", "57", "58"})
_LOCK_NOT_AVAILABLE: Final = "55P03"
_QUERY_CANCELED: Final = "57014"


def database_is_away(error: BaseException) -> bool:
    """Whether the same work may succeed later, unchanged: the fault is the database's state, not the data's.

    A statement that ran into its time limit is the data's fault: less of it may succeed.
    """
    if isinstance(error, PoolTimeout):
        return True
    original = error.orig if isinstance(error, DBAPIError) else error
    state = sqlstate(error)
    if state is None:
        return isinstance(original, psycopg.OperationalError | psycopg.InterfaceError)
    return state == _LOCK_NOT_AVAILABLE or (state[:2] in _CLASSES and state != _QUERY_CANCELED)
