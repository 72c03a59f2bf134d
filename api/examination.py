"""What `mizan doctor` looks at, one thing after another: each is a function that says what it found, or raises.

What it says is for people: what is so, and if it isn't well, what to do. No secret is ever in it: of keys it shows ids.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from zoneinfo import available_timezones

import redis
from celery import Celery

from api import rotation
from api.migrations import run as migrations
from api.observability.state import State, look
from api.safety import require_safe
from api.settings import Environment, Settings, reveal
from api.stamp import require_stamp
from api.worker import QUEUE
from ledger.database import Database, Tx
from ledger.errors import MizanError
from products import safekeeping
from products.keyring import Keyring, KeyringError

ROLES: Final = ("api", "worker", "sealer", "auditor", "owner")
SKEW_SECONDS_WARN: Final = 2.0
SKEW_SECONDS_MAX: Final = 30.0
"""Webhooks are good for 5 minutes and tokens for 15: clocks further apart than this refuse what is good."""
LATE_SECONDS: Final = 60.0
WORKERS_SECONDS: Final = 1.0
FREE_BYTES_MIN: Final = 1 << 30
QUEUE_LONG: Final = 1_000

Level = Literal["ok", "warn", "fail"]


class Ill(MizanError):
    """Something is not as it has to be; the detail says what to do."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found, and what to do where it is not `ok`."""

    name: str
    level: Level
    detail: str


Look = Callable[[], str | tuple[Level, str]]


def examine(complete: Settings, explain: Callable[[Exception], str]) -> Iterator[Finding]:
    """Look at everything that configured or running servers can tell; `explain` puts an error into one line."""

    def found(name: str, at: Look) -> Finding:
        try:
            said = at()
        except Exception as error:  # whatever it is, it is what was found
            return Finding(name, "fail", explain(error))
        return Finding(name, "ok", said) if isinstance(said, str) else Finding(name, *said)

    yield found("keys", lambda: _keys(complete))
    schema = found("migrations", lambda: _migrations(complete))
    yield schema
    valkey = found("Valkey", lambda: _valkey(complete))
    yield valkey
    if valkey.level != "fail":
        yield found("workers", lambda: _workers(complete))
    if complete.database_url is not None and complete.data_dir.exists():
        yield found("disk", lambda: _disk(complete))
    if schema.level == "fail":
        return
    for role in ROLES:
        if getattr(complete, _url_of(role)) is not None:
            yield found(f"role {role}", lambda role=role: _role(complete, role))  # type: ignore[misc]  # a default is the way to bind a loop's name
    for name, at in (
        ("master key", _master_key),
        ("clocks", _clocks),
        ("durability", _durability),
        ("time zones", _time_zones),
        ("partitions", _partitions),
    ):
        yield found(name, lambda at=at: at(complete))  # type: ignore[misc]  # as above
    yield from _standing(complete, found)


def _url_of(role: str) -> str:
    return "database_url" if role == "api" else f"database_url_{role}"


@contextmanager
def _opened(complete: Settings, role: str) -> Iterator[Tx]:
    name = _url_of(role)
    opened = Database(
        reveal(getattr(complete, name), f"MIZAN_{name.upper()}"),
        application_name=f"mizan doctor {role}",
        pool_size=1,
        statement_timeout_ms=10_000,
    )
    try:
        with opened.begin() as tx:
            yield tx
    finally:
        opened.close()


def _keys(complete: Settings) -> str:
    require_safe(complete)
    given = complete.environment.value if complete.environment else "nothing"
    return f"present, random and fit for {given}"


def _migrations(complete: Settings) -> tuple[Level, str]:
    with _opened(complete, "api") as tx:
        found, stands = migrations.revision_of(tx), migrations.standing(tx)
    newest = migrations.newest()
    match stands:
        case "ok":
            return "ok", f"at {found}"
        case "ahead":
            return "warn", f"the database is at {found}, newer than this program ({newest}): upgrade it soon"
        case "outdated":
            raise Ill(f"the database is at {found or 'nothing'}, newest is {newest}: run `mizan migrate`")
        case "incompatible":
            raise Ill(f"the database is at {found}, which this program is too old for: install the newer one")


def _valkey(complete: Settings) -> tuple[Level, str]:
    with _valkey_of(complete) as client:
        client.ping()
        waiting = int(client.llen(QUEUE))
    if waiting > QUEUE_LONG:
        return "warn", f"answers; {waiting} tasks wait: is a worker running?"
    return "ok", f"answers; {waiting} tasks wait for workers"


def _valkey_of(complete: Settings) -> redis.Redis:
    return redis.Redis.from_url(
        reveal(complete.redis_url, "MIZAN_REDIS_URL"), socket_timeout=2, socket_connect_timeout=2
    )


def _workers(complete: Settings) -> tuple[Level, str]:
    app = Celery("mizan", broker=complete.broker_url, set_as_current=False)
    with app.connection_for_write() as connection:  # of its own: the library's pool keeps some that have died
        answers: list[Any] = app.control.ping(timeout=WORKERS_SECONDS, connection=connection) or []
    if not answers:
        return "warn", "none answers: `mizan serve` or `mizan worker` runs one; what comes in waits for it"
    return "ok", f"{len(answers)} answer"


def _disk(complete: Settings) -> tuple[Level, str]:
    usage = shutil.disk_usage(complete.data_dir)
    said = f"{usage.free / (1 << 30):.1f} GiB free where the data directory is"
    return (
        ("warn", f"{said}: make room, a full disk stops the books")
        if usage.free < FREE_BYTES_MIN
        else (
            "ok",
            said,
        )
    )


_POWERS: Final = """
SELECT current_user, r.rolsuper, r.rolbypassrls, r.rolcreaterole OR r.rolcreatedb OR r.rolreplication,
    (SELECT count(*)::int FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('ledger', 'products', 'integrations', 'api') AND c.relkind IN ('r', 'p')
        AND c.relowner = r.oid),
    has_table_privilege('ledger.posting', 'UPDATE, DELETE, TRUNCATE'),
    has_table_privilege('ledger.posting', 'INSERT'),
    has_table_privilege('ledger.seal', 'INSERT'),
    has_table_privilege('ledger.posting', 'SELECT'),
    (SELECT relrowsecurity FROM pg_class WHERE oid = 'products.member_link'::regclass)
FROM pg_roles r WHERE r.rolname = current_user
"""
_MAY: Final = {
    # inserts postings, inserts seals, reads postings
    "api": (False, False, True),
    "worker": (True, False, True),
    "sealer": (False, True, True),
    "auditor": (False, False, True),
}


def _role(complete: Settings, role: str) -> str:
    with _opened(complete, role) as tx:
        user, superuser, bypasses, more, owns, changes, *may, guarded = tx.exec_driver_sql(_POWERS).one()
        require_stamp(tx, complete)
        foreign = 0
        if role == "api" and not bypasses:
            # without saying for whom, nothing may come back
            foreign = tx.exec_driver_sql("SELECT count(*) FROM products.member_link").scalar_one()
    stamped = complete.environment.value if complete.environment else "?"
    if role == "owner":
        if not owns:
            raise Ill(
                f"connects as {user}, who doesn't own the tables: give MIZAN_DATABASE_URL_OWNER to mizan_owner"
            )
        return f"connects as {user} and owns {owns} tables; the stamp says {stamped}"
    if superuser:
        raise Ill(f"connects as {user}, a superuser: give it a role of its own")
    if owns or more:
        raise Ill(f"connects as {user}, who owns tables or may make roles: give it a role of its own")
    if bypasses != (role == "worker"):
        word = "must bypass" if role == "worker" else "must not bypass"
        raise Ill(f"connects as {user}, who {word} row-level security: see docker/roles.sh")
    if changes or tuple(may) != _MAY[role]:
        raise Ill(
            f"connects as {user}, whose grants on the books are not the migrations': run `mizan migrate` anew"
        )
    if not guarded or foreign:
        raise Ill("row-level security is not in force on the registry: run `mizan migrate` anew")
    return f"connects as {user}, with what it needs and no more; the stamp says {stamped}"


def _master_key(complete: Settings) -> tuple[Level, str]:
    """Whether the master keys open their canaries, and one value of each kind under each key that anything needs."""
    ring = Keyring.of(complete.master_key_bytes, *complete.master_keys_retired_bytes)
    role = "worker" if complete.database_url_worker is not None else "api"
    with _opened(complete, role) as tx:
        known = safekeeping.known(tx, ring)
        if not known:
            return "ok", "nothing is sealed yet"
        needed: dict[str, int] = {}
        for one, key_id, value, bound in rotation.samples(tx):
            if key_id not in ring.ids:
                raise Ill(
                    f"{one.name} needs the master key {key_id}, which is not given: add it to MIZAN_MASTER_KEYS_RETIRED"
                )
            try:
                rotation.opens(one, ring, value, bound)
            except KeyringError:
                raise Ill(
                    f"a value of {one.name} does not open under the master key {key_id}: it was changed or moved; restore it"
                ) from None
            needed[key_id] = needed.get(key_id, 0) + 1
    ill = [one.id for one in known if one.id in ring.ids and not one.opens]
    if ill:
        raise Ill(f"the canary of the master key {', '.join(ill)} does not open: the database was changed")
    kinds = f"{ring.current} opens its canary and a sample of all {needed.get(ring.current, 0)} kinds that it sealed"
    others = sorted(set(needed) - {ring.current})
    if others:
        return "warn", f"{kinds}; {', '.join(others)} is still needed: run `mizan key rotate-master`"
    idle = sorted(set(ring.ids) - {ring.current})
    if idle:
        return "warn", f"{kinds}; nothing needs {', '.join(idle)} any more: take it out of the settings"
    return "ok", kinds


def _clocks(complete: Settings) -> tuple[Level, str]:
    skews: dict[str, float] = {}
    with _opened(complete, "api") as tx:
        before = time.time()
        there: datetime = tx.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        skews["PostgreSQL"] = there.timestamp() - (before + time.time()) / 2
    with suppress(redis.RedisError), _valkey_of(complete) as client:  # that it is away is said elsewhere
        before = time.time()
        seconds, micros = client.time()
        skews["Valkey"] = seconds + micros / 1e6 - (before + time.time()) / 2
    name, worst = max(skews.items(), key=lambda item: abs(item[1]))
    if abs(worst) > SKEW_SECONDS_MAX:
        raise Ill(f"the clock of {name} is {worst:+.1f} s from this host's: run a time service (NTP) on both")
    if abs(worst) > SKEW_SECONDS_WARN:
        return (
            "warn",
            f"the clock of {name} is {worst:+.1f} s from this host's: run a time service (NTP) on both",
        )
    return "ok", f"this host and {' and '.join(skews)} agree within {abs(worst) * 1000:.0f} ms"


def _durability(complete: Settings) -> tuple[Level, str]:
    with _opened(complete, "api") as tx:
        rows = tx.exec_driver_sql(
            "SELECT name, setting FROM pg_settings"
            " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'max_prepared_transactions')"
        )
        found = {str(row[0]): str(row[1]) for row in rows}
    wrong = [
        f"{name} = {found[name]}"
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if found.get(name) == "off"
    ]
    if wrong:
        said = f"PostgreSQL runs with {', '.join(wrong)}: what was acknowledged may be lost; set it to on"
        if complete.environment is Environment.PRODUCTION:
            raise Ill(said)
        return "warn", said
    if found.get("max_prepared_transactions", "0") != "0":
        return (
            "warn",
            "max_prepared_transactions is not 0: a forgotten one holds back the settled horizon; set it to 0",
        )
    return "ok", "PostgreSQL waits for the disk"


def _time_zones(complete: Settings) -> str:
    with _opened(complete, "worker" if complete.database_url_worker else "api") as tx:
        named = [
            row[0] for row in tx.exec_driver_sql("SELECT DISTINCT time_zone FROM ledger.fund ORDER BY 1")
        ]
        there = {row[0] for row in tx.exec_driver_sql("SELECT name FROM pg_timezone_names")}
    here = available_timezones()
    missing = [one for one in named if one not in here or one not in there]
    if missing:
        raise Ill(
            f"no rules for {', '.join(missing)}: install the time zone data of this host and of PostgreSQL's"
        )
    return f"rules for {', '.join(named) or 'UTC'} are here and in PostgreSQL"


def _partitions(complete: Settings) -> str:
    with _opened(complete, "worker" if complete.database_url_worker else "api") as tx:
        newest, needed = tx.exec_driver_sql(
            "select max(right(inhrelid::regclass::text, 7)), to_char(now() + interval '1 month', 'YYYY_MM') from pg_inherits"
            " where inhparent = 'ledger.transaction'::regclass and inhrelid::regclass::text ~ '_[0-9]{4}_[0-9]{2}$'"
        ).one()
    if newest is None or newest < needed:
        raise Ill(f"the journal's partitions end with {newest or 'none'}: is a worker running?")
    return f"the journal's months are there through {newest.replace('_', '-')}"


def _standing(complete: Settings, found: Callable[[str, Look], Finding]) -> Iterator[Finding]:
    """How the work stands: four findings of one look."""
    states: list[State] = []

    def look_once() -> tuple[Level, str]:
        with _opened(complete, "worker" if complete.database_url_worker else "auditor") as tx:
            states.append(look(tx))
        return _inbox(states[0])

    yield found("inbox", look_once)
    if not states:
        return
    state = states[0]
    yield Finding("settled horizon", *_horizon(state))
    yield Finding(
        "seals",
        *_age(
            state.unsealed_seconds,
            max(LATE_SECONDS, 3 * complete.seal_seconds),
            "every settled transaction is sealed",
            "the oldest transaction without a seal is {age}: is a worker with MIZAN_DATABASE_URL_SEALER running?",
        ),
    )
    yield Finding(
        "folding",
        *_age(
            state.unfolded_seconds,
            max(LATE_SECONDS, 3 * complete.fold_seconds),
            "daily movements are up to date",
            "the oldest transaction that isn't folded is {age}: is a worker running?",
        ),
    )


def _inbox(state: State) -> tuple[Level, str]:
    attention = f"{state.quarantined} quarantined, {state.parked} parked"
    if not state.inbox_deliveries:
        return (
            ("warn", f"nothing waits; {attention}: see `mizan inbox list`")
            if state.quarantined
            else (
                "ok",
                f"nothing waits; {attention}",
            )
        )
    age = _old(state.inbox_seconds or 0)
    said = f"{state.inbox_deliveries} deliveries wait, the oldest {age}; {attention}"
    if (state.inbox_seconds or 0) > LATE_SECONDS:
        return "warn", f"{said}: is a worker running?"
    return "ok", said


def _horizon(state: State) -> tuple[Level, str]:
    return _age(
        state.outbox_seconds,
        LATE_SECONDS,
        "nothing holds it back",
        "an event has waited {age} for it: end the oldest transaction in pg_stat_activity",
    )


def _age(seconds: float | None, late: float, well: str, ill: str) -> tuple[Level, str]:
    if seconds is None:
        return "ok", well
    if seconds <= late:
        return "ok", f"{well} but for the last {seconds:.0f} s"
    return "warn", ill.format(age=_old(seconds))


def _old(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s old"
    since = datetime.fromtimestamp(time.time() - seconds, UTC)
    return f"since {since:%Y-%m-%d %H:%M:%SZ}"
