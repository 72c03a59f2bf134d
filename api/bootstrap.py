"""The composition root: the only place where settings become services and adapters meet ports."""

from dataclasses import dataclass
from datetime import timedelta

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.auth.keys import SigningKeys
from api.auth.tokens import Tokens
from api.limits import VALKEY_SECONDS_MAX, Limits
from api.pagination import Cursors
from api.settings import Environment, Settings, reveal
from ledger.clock import Clock, SystemClock
from ledger.database import Database
from products.keyring import Keyring
from products.programmes.registry import Programmes
from products.safekeeping import prepare
from products.remittances.context import Books


@dataclass(frozen=True, slots=True)
class Services:
    """What a process of Mizan runs on. `api` is under row-level security; `worker` writes remittances and the books."""

    settings: Settings
    clock: Clock
    keyring: Keyring
    books: Books
    api: Database
    worker: Database
    keys: SigningKeys
    tokens: Tokens
    cursors: Cursors
    valkey: redis.Redis
    limits: Limits

    @property
    def environment(self) -> Environment:
        """Sandbox or production; settings that are safe to run with always say which."""
        return self.settings.environment or Environment.SANDBOX

    def close(self) -> None:
        """Give back every connection."""
        self.api.close()
        self.worker.close()
        self.valkey.close()
        self.limits.close()


def bootstrap(settings: Settings, *, clock: Clock | None = None, name: str = "mizan") -> Services:
    """Build the services of one process; `name` is what PostgreSQL shows of it.

    Raises `UnsafeSettings` for settings that nothing should run with. Connects to nothing yet.
    """
    settings.require_safe()
    ticking = clock or SystemClock()
    keyring = Keyring.of(settings.master_key_bytes, *settings.master_keys_retired_bytes)
    api = _database(settings, "database_url", f"{name} api")
    keyring.index_from(lambda: api.run(lambda tx: prepare(tx, keyring, ticking.now())))
    keys = SigningKeys(api, keyring, ticking)
    return Services(
        settings=settings,
        clock=ticking,
        keyring=keyring,
        books=Books(ticking, keyring, Programmes()),
        api=api,
        worker=_database(settings, "database_url_worker", f"{name} worker"),
        keys=keys,
        tokens=Tokens(keys, settings.public_url, ticking, timedelta(seconds=settings.token_seconds)),
        cursors=Cursors(keyring, ticking, timedelta(seconds=settings.cursor_seconds)),
        valkey=redis.Redis.from_url(
            reveal(settings.redis_url, "MIZAN_REDIS_URL"),
            socket_timeout=VALKEY_SECONDS_MAX / 2,
            socket_connect_timeout=VALKEY_SECONDS_MAX / 2,
            max_connections=settings.database_pool_size * 4,
            retry=Retry(NoBackoff(), 0),
        ),
        limits=Limits(
            reveal(settings.redis_url, "MIZAN_REDIS_URL"),
            ticking,
            requests_per_minute=settings.requests_per_minute,
            anonymous_requests_per_minute=settings.anonymous_requests_per_minute,
        ),
    )


def _database(settings: Settings, field: str, application_name: str) -> Database:
    return Database(
        reveal(getattr(settings, field), f"MIZAN_{field.upper()}"),
        application_name=application_name,
        pool_size=settings.database_pool_size,
        statement_timeout_ms=int(settings.statement_timeout_seconds * 1000),
        lock_timeout_ms=int(settings.lock_timeout_seconds * 1000),
    )
