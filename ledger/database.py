"""One way to open a transaction on PostgreSQL.

Services take a `Tx` as an argument; they never commit. The edge (a request, a task, a command) opens it with
`Database.begin` or, when the work may be repeated, with `Database.run`.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import psycopg
import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

Tx = sqlalchemy.Connection
"""An open database transaction."""

Cursor = psycopg.Cursor[tuple[Any, ...]]
"""A raw psycopg cursor."""

T = TypeVar("T")

_REPEATABLE = frozenset(
    {"40001", "40P01"}
)  # serialization failure, deadlock: the victim may simply try again

_APART: Final = "mizan_apart"


CONNECT_SECONDS_MAX = 5
"""How long a server that doesn't answer at all is waited for."""
APART_CONNECTIONS_MAX: Final = 2
"""Connections that `apart` keeps open at most, beside the pool."""


class Database:
    """A pool of connections as one role.

    ``url`` is ``postgresql://…`` or ``postgresql+psycopg://…`` (a Unix socket by ``?host=/directory``). Transactions are
    READ COMMITTED. Time limits are in milliseconds, 0 for none; ``pool_size`` is the most connections ever open.
    """

    def __init__(
        self,
        url: str,
        *,
        application_name: str,
        pool_size: int = 5,
        pool_timeout_seconds: float = 10,
        statement_timeout_ms: int = 60_000,
        lock_timeout_ms: int = 30_000,
        idle_in_transaction_timeout_ms: int = 60_000,
    ) -> None:
        settings = {
            "statement_timeout": statement_timeout_ms,
            "lock_timeout": lock_timeout_ms,
            "idle_in_transaction_session_timeout": idle_in_transaction_timeout_ms,
            "timezone": "UTC",
            "default_transaction_isolation": r"read\ committed",
        }

        def engine(size: int, **options: Any) -> sqlalchemy.Engine:
            return sqlalchemy.create_engine(
                make_url(url).set(drivername="postgresql+psycopg"),
                pool_size=size,
                max_overflow=0,
                pool_timeout=pool_timeout_seconds,
                pool_pre_ping=True,
                connect_args={
                    "application_name": application_name,
                    "connect_timeout": CONNECT_SECONDS_MAX,
                    "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
                },
                **options,
            )

        # Both connect when first used; `apart` says why there are two.
        self._apart = engine(APART_CONNECTIONS_MAX)
        self.engine = engine(pool_size, execution_options={_APART: self._apart})

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        with self.engine.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """One read-only transaction in which every statement sees the same state of the books."""
        with self.engine.begin() as tx:
            tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield tx

    def run(self, work: Callable[[Tx], T], *, attempts: int = 5) -> T:
        """Do ``work`` in one transaction and commit; the whole unit again when it was the victim of a deadlock.

        ``work`` may run up to ``attempts`` times, so it does nothing outside the database. The last failure is raised.
        """
        for attempt in range(1, attempts + 1):
            try:
                with self.begin() as tx:
                    return work(tx)
            except (psycopg.Error, DBAPIError) as error:
                if attempt == attempts or sqlstate(error) not in _REPEATABLE:
                    raise
            time.sleep(random.uniform(0.005, 0.02) * 2**attempt)  # noqa: S311  jitter, not a secret
        raise ValueError("attempts must be at least 1")

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()
        self._apart.dispose()


@contextmanager
def apart(tx: Tx) -> Iterator[Tx]:
    """A transaction of its own as the role of `tx`, kept whatever becomes of `tx`: for what a rollback must not take back.

    Its connections are of a pool of their own: callers that each hold one connection and ask for a second of the same pool
    would wait for each other for ever. So keep it to a statement that waits for no lock which a caller may hold.
    Settings of `tx`, such as whose rows it may see, are not those of this one.
    """
    engine: sqlalchemy.Engine = tx.get_execution_options()[_APART]
    with engine.begin() as own:
        yield own


def cursor(tx: Tx) -> Cursor:
    """A raw psycopg cursor in this transaction, for COPY and for set-based statements on hot paths."""
    return cast("psycopg.Connection[tuple[Any, ...]]", tx.connection.driver_connection).cursor()


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of a database error, whether psycopg's own or wrapped by SQLAlchemy."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return original.sqlstate if isinstance(original, psycopg.Error) else None
