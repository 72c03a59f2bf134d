"""`mizan doctor`: whether everything that Mizan needs is there, and what to do where it isn't."""

import base64
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import redis
import typer

from api.cli import output, session
from api.cli.serve import running_url
from api.embedded import connected
from api.migrations import run as migrations
from api.settings import KEY_BYTES, Settings, reveal
from api.stamp import require_stamp
from api.worker import QUEUE
from integrations.inbox import queries
from ledger.database import Tx

ROLES = ("api", "worker", "sealer", "auditor", "owner")


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""
    app.command(rich_help_panel="Run")(session.command(doctor))


@dataclass(slots=True)
class Findings:
    """What was looked at: name, whether it is well, and what there is to say."""

    listed: list[tuple[str, bool, str]] = field(default_factory=list)

    def look(self, name: str, at: Callable[[], str]) -> bool:
        """Look at one thing; whatever it raises is what is wrong with it."""
        try:
            self.listed.append((name, True, at()))
        except Exception as error:  # whatever it is, it is what the doctor has found
            self.listed.append((name, False, session.explain(error)))
            return False
        return True

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return all(ok for _, ok, _ in self.listed)


def doctor(
    as_json: session.AsJson = False,
    new_key: Annotated[
        bool,
        typer.Option(
            "--new-key", help="Print a new key for MIZAN_MASTER_KEY or MIZAN_SEAL_KEY, and nothing else."
        ),
    ] = False,
) -> None:
    """Look at settings, keys, database, migrations, stamp, roles, Valkey, queues and partitions; exit code 1 if one is ill."""
    if new_key:
        print(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())
        return
    findings = Findings()
    given: list[Settings] = []
    if findings.look("settings", lambda: _read_settings(given)):
        try:
            with connected(given[0]) as complete:
                _examine(findings, given[0], complete)
        except Exception as error:  # servers that don't start are a finding, too
            findings.listed.append(("servers", False, session.explain(error)))
    if as_json:
        output.as_json(
            {
                "ok": findings.well,
                "checks": [
                    {"name": name, "ok": ok, "detail": detail} for name, ok, detail in findings.listed
                ],
            }
        )
    else:
        output.table(
            ["", "what", "finding"],
            [("ok" if ok else "ILL", name, detail) for name, ok, detail in findings.listed],
        )
    if not findings.well:
        raise typer.Exit(session.FAILED)


def _read_settings(given: list[Settings]) -> str:
    given.append(session.settings())
    return f"embedded servers in {given[0].data_dir}" if given[0].embedded else "configured servers"


def _examine(findings: Findings, given: Settings, complete: Settings) -> None:
    findings.look("keys", lambda: _keys(complete))
    if given.embedded:
        findings.look("service", lambda: running_url(given.data_dir) or "no `mizan serve` runs here")
    reached = findings.look("migrations", lambda: _migrations(complete))
    findings.look("Valkey", lambda: _valkey(complete))
    if not reached:
        return
    for role in ROLES:
        if getattr(complete, "database_url" if role == "api" else f"database_url_{role}") is None:
            continue
        findings.look(f"role {role}", lambda role=role: _role(complete, role))  # type: ignore[misc]  # a default is the way to bind a loop's name
    findings.look("inbox", lambda: _inbox(complete))
    findings.look("partitions", lambda: _partitions(complete))


def _keys(complete: Settings) -> str:
    complete.require_safe()
    return f"present and fit for {complete.environment.value if complete.environment else 'nothing'}"


def _migrations(complete: Settings) -> str:
    found, newest = (
        migrations.current(reveal(complete.database_url, "MIZAN_DATABASE_URL")),
        migrations.newest(),
    )
    if found != newest:
        raise session.Refused(
            f"the database is at {found or 'nothing'}, newest is {newest}: run `mizan migrate`"
        )
    return f"at {found}"


@contextmanager
def _opened(complete: Settings, role: str) -> Iterator[Tx]:
    with session.database(complete, role) as opened, opened.begin() as tx:
        yield tx


def _role(complete: Settings, role: str) -> str:
    with _opened(complete, role) as tx:
        user, superuser = tx.exec_driver_sql(
            "select current_user, rolsuper from pg_roles where rolname = current_user"
        ).one()
        require_stamp(tx, complete)
    if superuser and role != "owner":
        raise session.Refused(f"connects as {user}, a superuser: give it a role of its own")
    return f"connects as {user}; the stamp says {complete.environment.value if complete.environment else '?'}"


def _valkey(complete: Settings) -> str:
    with redis.Redis.from_url(reveal(complete.redis_url, "MIZAN_REDIS_URL"), socket_timeout=2) as client:
        client.ping()
        waiting = client.llen(QUEUE)
    return f"answers; {waiting} tasks wait for workers"


def _inbox(complete: Settings) -> str:
    with _opened(complete, "worker") as tx:
        backlog = queries.backlog(tx)
        attention = tx.exec_driver_sql(
            "select count(*) from integrations.delivery_outcome o where o.state in ('quarantined', 'parked')"
            " and not exists (select from integrations.delivery_outcome n"
            " where n.delivery_id = o.delivery_id and n.attempt > o.attempt)"
        ).scalar_one()
    since = (
        f", the oldest since {backlog.oldest_received_at:%Y-%m-%d %H:%M:%SZ}"
        if backlog.oldest_received_at
        else ""
    )
    return f"{backlog.deliveries} deliveries wait{since}; {attention} quarantined or parked"


def _partitions(complete: Settings) -> str:
    with _opened(complete, "worker") as tx:
        newest, needed = tx.exec_driver_sql(
            "select max(right(inhrelid::regclass::text, 7)), to_char(now() + interval '1 month', 'YYYY_MM') from pg_inherits"
            " where inhparent = 'ledger.transaction'::regclass and inhrelid::regclass::text ~ '_[0-9]{4}_[0-9]{2}$'"
        ).one()
    if newest is None or newest < needed:
        raise session.Refused(f"the journal's partitions end with {newest or 'none'}: is a worker running?")
    return f"the journal's months are there through {newest.replace('_', '-')}"
