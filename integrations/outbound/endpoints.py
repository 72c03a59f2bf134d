"""Partners' webhook endpoints: where events go, which ones, signed with what, and whether they are sent now."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from integrations.outbound.addresses import check_url
from integrations.partners import secrets as incoming
from integrations.partners.standard_webhooks import SymmetricSecret, parse_secret
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id, public_id
from ledger.outbox import Message, publish
from products.keyring import Keyring

PREFIX: Final = "whe"
PURPOSE: Final = "endpoint-secret"
ENDPOINTS_MAX: Final = 10
"""Endpoints that a partner may have at once, the removed ones not counted."""
ROTATION_OVERLAP: Final = timedelta(days=1)
SECRET_BYTES: Final = 40
"""Partners sign what they send us with 32 bytes: at another length the two are never the same, whatever chance does."""
_HMAC_BLOCK_BYTES: Final = 64

State = Literal["enabled", "disabled", "removed"]
Reason = Literal["asked", "gone", "failing"]
"""Why an endpoint is disabled: it was asked for, it answered 410, or nothing arrived for days."""

_COLUMNS: Final = (
    "id, partner_id, url, description, event_types, state, reason, created_at, changed_at, failing_since"
)


class EndpointLimit(Conflict):
    """The partner has as many endpoints as it may."""

    code = "endpoint_limit"


class EndpointDisabled(Conflict):
    """Nothing is sent to an endpoint that is disabled."""

    code = "endpoint_disabled"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint. `event_types`: what it is sent, everything when empty. `failing_since`: nothing arrived since then."""

    id: UUID
    partner_id: UUID
    url: str
    description: str
    event_types: tuple[str, ...]
    state: State
    reason: Reason | None
    created_at: datetime
    changed_at: datetime
    failing_since: datetime | None

    @property
    def public_id(self) -> str:
        """``whe_…``."""
        return public_id(PREFIX, self.id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a partner asks for: a URL, types of events of the catalogue (none: all), and words of its own for people."""

    url: str
    event_types: tuple[str, ...] = ()
    description: str = ""


def create(
    tx: Tx, keyring: Keyring, clock: Clock, partner_id: UUID, wanted: Wanted, *, loopback: bool
) -> tuple[Endpoint, str]:
    """A new endpoint and its secret ``whsec_…``, to be shown once. `loopback`: this machine's addresses are allowed.

    Raises `EndpointUrlRefused`, `EndpointLimit`.
    """
    check_url(wanted.url, loopback=loopback)
    endpoint_id, now = new_id(), clock.now()
    with cursor(tx) as sql:
        # one at a time, so that the limit holds: the partner's row is not ours to lock under its own policies
        sql.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"endpoints {partner_id}",))
        row = sql.execute(
            "SELECT count(*) FROM integrations.webhook_endpoint WHERE partner_id = %s AND state <> 'removed'",
            (partner_id,),
        ).fetchone()
        if row is not None and row[0] >= ENDPOINTS_MAX:
            raise EndpointLimit(f"There are {ENDPOINTS_MAX} endpoints already: remove one first.")
        sql.execute(
            "INSERT INTO integrations.webhook_endpoint"
            " (id, partner_id, url, description, event_types, state, created_at, changed_at)"
            " VALUES (%s, %s, %s, %s, %s, 'enabled', %s, %s)",
            (
                endpoint_id,
                partner_id,
                wanted.url,
                wanted.description,
                _listed(wanted.event_types),
                now,
                now,
            ),
        )
    secret = _new_secret(tx, keyring, clock, partner_id, endpoint_id)
    return find(tx, endpoint_id, partner_id), secret


def endpoints_of(tx: Tx, partner_id: UUID | None = None) -> list[Endpoint]:
    """A partner's endpoints that are not removed, oldest first; every partner's that may be seen without one."""
    rows = cursor(tx).execute(
        f"SELECT {_COLUMNS} FROM integrations.webhook_endpoint"
        " WHERE state <> 'removed' AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s) ORDER BY id",
        {"partner": partner_id},
    )
    return [_read(row) for row in rows]


def find(tx: Tx, endpoint_id: UUID, partner_id: UUID | None) -> Endpoint:
    """One endpoint that is not removed; of one partner, unless that is None. Raises NotFound."""
    row = (
        cursor(tx)
        .execute(
            f"SELECT {_COLUMNS} FROM integrations.webhook_endpoint WHERE id = %(id)s AND state <> 'removed'"
            " AND (%(partner)s::uuid IS NULL OR partner_id = %(partner)s)",
            {"id": endpoint_id, "partner": partner_id},
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such endpoint.")
    return _read(row)


def find_any(tx: Tx, endpoint_id: UUID) -> Endpoint | None:
    """One endpoint, removed or not, held until the transaction ends."""
    row = (
        cursor(tx)
        .execute(
            f"SELECT {_COLUMNS} FROM integrations.webhook_endpoint WHERE id = %s FOR UPDATE", (endpoint_id,)
        )
        .fetchone()
    )
    return None if row is None else _read(row)


def note_failing(tx: Tx, endpoint_id: UUID, since: datetime | None) -> None:
    """Since when nothing was delivered to it; None: something was."""
    cursor(tx).execute(
        "UPDATE integrations.webhook_endpoint SET failing_since = %s WHERE id = %s", (since, endpoint_id)
    )


def change(tx: Tx, clock: Clock, endpoint: Endpoint, wanted: Wanted, *, loopback: bool) -> Endpoint:
    """Another URL, filter or description, from the next attempt on. Raises `EndpointUrlRefused`."""
    check_url(wanted.url, loopback=loopback)
    cursor(tx).execute(
        "UPDATE integrations.webhook_endpoint SET url = %s, description = %s, event_types = %s, changed_at = %s"
        " WHERE id = %s",
        (wanted.url, wanted.description, _listed(wanted.event_types), clock.now(), endpoint.id),
    )
    return find(tx, endpoint.id, endpoint.partner_id)


def rotate_secret(
    tx: Tx,
    keyring: Keyring,
    clock: Clock,
    endpoint: Endpoint,
    *,
    overlap: timedelta = ROTATION_OVERLAP,
) -> tuple[str, datetime]:
    """A new secret beside the newest old one, which signs as well for `overlap`; any older one ends now.

    Answers the new one, to be shown once, and when the old one ends.
    """
    now = clock.now()
    cursor(tx).execute(
        """
        WITH valid AS (
            SELECT id, row_number() OVER (ORDER BY id DESC) AS age FROM integrations.endpoint_secret
            WHERE endpoint_id = %(endpoint)s AND (expires_at IS NULL OR expires_at > %(now)s)
        )
        UPDATE integrations.endpoint_secret s
        SET expires_at = least(s.expires_at, CASE WHEN valid.age = 1 THEN %(ends)s ELSE %(now)s END)
        FROM valid WHERE valid.id = s.id
        """,
        {"endpoint": endpoint.id, "now": now, "ends": now + overlap},
    )
    return _new_secret(tx, keyring, clock, endpoint.partner_id, endpoint.id), now + overlap


def enable(tx: Tx, clock: Clock, endpoint: Endpoint) -> Endpoint:
    """Send to it again, from the next event on; what it missed is not sent unless it is replayed."""
    return _turn(tx, clock, endpoint, "enabled", None)


def disable(tx: Tx, clock: Clock, endpoint: Endpoint, reason: Reason = "asked") -> Endpoint:
    """Send nothing to it any more; what still waited failed, and can be replayed. The partner is told unless it asked."""
    if endpoint.state == "disabled":
        return endpoint
    turned = _turn(tx, clock, endpoint, "disabled", reason)
    _drop_waiting(tx, clock, endpoint.id, "endpoint_gone" if reason == "gone" else "endpoint_disabled")
    if reason != "asked":
        publish(
            tx,
            [
                Message(
                    "endpoint.disabled",
                    str(endpoint.id),
                    {
                        "partner": public_id("ptn", endpoint.partner_id),
                        "endpoint": endpoint.public_id,
                        "reason": reason,
                        "at": clock.now().isoformat(),
                    },
                )
            ],
        )
    return turned


def remove(tx: Tx, clock: Clock, endpoint: Endpoint) -> None:
    """Send nothing to it any more, and forget its secrets; its history is kept as long as its events are."""
    _turn(tx, clock, endpoint, "removed", "asked")
    _drop_waiting(tx, clock, endpoint.id, "endpoint_removed")
    cursor(tx).execute(
        "UPDATE integrations.endpoint_secret SET expires_at = %(now)s"
        " WHERE endpoint_id = %(id)s AND (expires_at IS NULL OR expires_at > %(now)s)",
        {"now": clock.now(), "id": endpoint.id},
    )


def secrets_of(
    tx: Tx, keyring: Keyring, endpoint_ids: Sequence[UUID], at: datetime
) -> dict[UUID, list[SymmetricSecret]]:
    """What signs for each endpoint at `at`, the newest first."""
    rows = cursor(tx).execute(
        "SELECT endpoint_id, id, sealed FROM integrations.endpoint_secret"
        " WHERE endpoint_id = ANY (%s) AND (expires_at IS NULL OR expires_at > %s) ORDER BY endpoint_id, id DESC",
        (list(endpoint_ids), at),
    )
    found: dict[UUID, list[SymmetricSecret]] = {}
    for endpoint_id, secret_id, sealed in rows:
        secret = parse_secret(keyring.open(PURPOSE, sealed, secret_id.bytes).decode())
        if isinstance(secret, SymmetricSecret):
            found.setdefault(endpoint_id, []).append(secret)
    return found


def _new_secret(tx: Tx, keyring: Keyring, clock: Clock, partner_id: UUID, endpoint_id: UUID) -> str:
    key = os.urandom(SECRET_BYTES)
    if _as_hmac_key(key) in _incoming_keys(tx, keyring, partner_id):
        raise RuntimeError("the system's randomness repeats itself")
    secret, secret_id = "whsec_" + base64.b64encode(key).decode(), new_id()
    cursor(tx).execute(
        "INSERT INTO integrations.endpoint_secret (id, endpoint_id, partner_id, sealed, created_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        (
            secret_id,
            endpoint_id,
            partner_id,
            keyring.seal(PURPOSE, secret.encode(), secret_id.bytes),
            clock.now(),
        ),
    )
    return secret


def _incoming_keys(tx: Tx, keyring: Keyring, partner_id: UUID) -> set[bytes]:
    """What the partner signs with, expired secrets too: one of these in our hands would let us, or it, speak for the other."""
    rows = cursor(tx).execute(
        "SELECT id, sealed FROM integrations.webhook_secret WHERE partner_id = %s", (partner_id,)
    )
    opened = [
        parse_secret(keyring.open(incoming.PURPOSE, sealed, id_.bytes).decode()) for id_, sealed in rows
    ]
    return {_as_hmac_key(one.key) for one in opened if isinstance(one, SymmetricSecret)}


def _as_hmac_key(key: bytes) -> bytes:
    """HMAC fills a key with zeros (RFC 2104), so keys that differ in zeros at their end are the same."""
    return key.ljust(_HMAC_BLOCK_BYTES, b"\0")


def _turn(tx: Tx, clock: Clock, endpoint: Endpoint, state: State, reason: Reason | None) -> Endpoint:
    row = (
        cursor(tx)
        .execute(
            f"UPDATE integrations.webhook_endpoint SET state = %s, reason = %s, changed_at = %s, failing_since = NULL"
            f" WHERE id = %s RETURNING {_COLUMNS}",
            (state, reason, clock.now(), endpoint.id),
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("There is no such endpoint.")
    return _read(row)


def _drop_waiting(tx: Tx, clock: Clock, endpoint_id: UUID, reason: str) -> None:
    cursor(tx).execute(
        """
        WITH waiting AS MATERIALIZED (
            SELECT event_id FROM integrations.event_delivery WHERE endpoint_id = %(endpoint)s AND state = 'waiting'
            ORDER BY event_id FOR UPDATE
        )
        UPDATE integrations.event_delivery d SET state = 'failed', reason = %(reason)s, finished_at = %(now)s
        FROM waiting WHERE d.endpoint_id = %(endpoint)s AND d.event_id = waiting.event_id
        """,
        {"endpoint": endpoint_id, "reason": reason, "now": clock.now()},
    )


def _listed(types: Sequence[str]) -> list[str]:
    return sorted(set(types))


def _read(row: Sequence[object]) -> Endpoint:
    id_, partner_id, url, description, types, *rest = row
    return Endpoint(id_, partner_id, url, description, tuple(types), *rest)  # type: ignore[arg-type]  # as the table has them
