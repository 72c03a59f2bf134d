"""Outbox → events: each message becomes what its partner is told, in the words of that partner's own ids.

One reader at a time holds the row of `outbox_position`; messages are read behind the settled horizon, so none is passed by.
The events, who is to get them, and the new position are one transaction: however often it is tried, each message is told
once. What would only repeat the last event of the same thing is folded away.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from integrations.outbound.catalogue import CATALOGUE, EventType
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.horizon import Position
from ledger.ids import new_id, parse_public_id, public_id
from ledger.outbox import Published, read
from products.remittances import reading
from products.remittances.reading import Read

CONSUMER: Final = "events"
MESSAGES_MAX: Final = 1_000
"""Messages that one transaction turns into events."""

_STATES: Final[Mapping[str, EventType]] = {
    "posted": "remittance.allocated",
    "unallocated": "remittance.unallocated",
    "parked": "remittance.parked",
    "reversed": "remittance.reversed",
}
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Expanded:
    """What one `expand` did; `more` when it stopped at its limit."""

    messages: int
    events: int
    deliveries: int
    more: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has a number. `subject`: the one thing that it is about; `link_id`: the member's, where known."""

    type: EventType
    partner_id: UUID
    subject: str
    stream: UUID
    link_id: UUID | None
    data: Mapping[str, Any]
    occurred_at: datetime

    @property
    def key(self) -> tuple[UUID, str, str]:
        """What it may repeat."""
        return self.partner_id, self.subject, self.type

    @property
    def digest(self) -> bytes:
        """Equal for equal data."""
        return hashlib.sha256(_encode(self.data).encode()).digest()


def expand(tx: Tx, clock: Clock, *, retention: timedelta, limit: int = MESSAGES_MAX) -> Expanded:
    """Turn the next messages of the outbox into events, and queue them for the endpoints that want them.

    Does nothing while another transaction is at it. Messages older than `retention` are passed over: their events would be
    forgotten at once.
    """
    row = (
        cursor(tx)
        .execute(
            "SELECT era, xid::text::bigint, message_id, seq FROM integrations.outbox_position WHERE name = %s"
            " FOR UPDATE SKIP LOCKED",
            (CONSUMER,),
        )
        .fetchone()
    )
    if row is None:
        return Expanded(0, 0, 0, more=False)
    messages = read(tx, Position(row[0], row[1], row[2]), limit=limit)
    if not messages:
        return Expanded(0, 0, 0, more=False)
    since = clock.now() - retention
    drafts = drafts_of(tx, [one for one in messages if one.recorded_at > since])
    fresh = _folded(tx, drafts)
    deliveries = _write(tx, fresh, row[3], clock.now()) if fresh else 0
    last = messages[-1].position
    cursor(tx).execute(
        "UPDATE integrations.outbox_position"
        " SET era = %s, xid = %s::text::xid8, message_id = %s, seq = %s, read_at = %s WHERE name = %s",
        (last.era, str(last.xid), last.id, row[3] + len(fresh), clock.now(), CONSUMER),
    )
    return Expanded(len(messages), len(fresh), deliveries, more=len(messages) >= limit)


def drafts_of(tx: Tx, messages: Sequence[Published]) -> list[Draft]:
    """What the partners are told of these messages, in order; topics that nobody is told of give nothing."""
    known = _Known(tx, messages)
    return [draft for one in messages for draft in _drafts(one, known)]


@dataclass(slots=True)
class _Known:
    """What the messages of a batch refer to, loaded in sets."""

    tx: Tx
    messages: Sequence[Published]
    remittances: Mapping[UUID, Read] = field(init=False)
    settled: Mapping[tuple[UUID, UUID], "_Settled"] = field(init=False)

    def __post_init__(self) -> None:
        payloads = [(one.message.topic, one.message.payload) for one in self.messages]
        ids = {
            parse_public_id("rmt", payload["remittance"])
            for topic, payload in payloads
            if topic.startswith("remittance.")
        }
        self.remittances = {one.id: one for one in reading.remittances_of(self.tx, sorted(ids))}
        self.settled = _settled(
            self.tx,
            [
                (parse_public_id("enr", payload["enrolment"]), parse_public_id("stl", payload["settlement"]))
                for topic, payload in payloads
                if topic == "contributions.settled"
            ],
        )


@dataclass(frozen=True, slots=True)
class _Settled:
    """What a settlement settled for one enrolment; minor units."""

    partner_id: UUID
    link_id: UUID
    product: str
    amount: int
    currency: str


def _drafts(one: Published, known: _Known) -> Iterator[Draft]:
    topic = one.message.topic
    if topic in ("remittance.allocated", "remittance.reversed"):
        yield from _of_remittance(one, known)
    elif topic == "contributions.settled":
        yield from _of_settled(one, known)
    elif topic == "payout.changed":
        yield from _of_payout(one)
    elif topic == "endpoint.disabled":
        yield _of_endpoint(one)


def _of_remittance(one: Published, known: _Known) -> Iterator[Draft]:
    payload = one.message.payload
    id_ = parse_public_id("rmt", payload["remittance"])
    remittance = known.remittances.get(id_)
    type_ = _STATES.get(payload["status"])
    if remittance is None or type_ is None:
        return  # a reversal that came before its original: there is no remittance to show yet
    link_id = parse_public_id("mem", payload["member"]) if "member" in payload else None
    partner_id = parse_public_id("ptn", payload["partner"])
    yield Draft(
        type_,
        partner_id,
        public_id("rmt", id_),
        link_id or id_,
        link_id,
        _remittance(remittance, payload),
        one.recorded_at,
    )
    currency = remittance.received.currency
    for part in payload.get("allocations", ()):
        if type_ == "remittance.allocated" and part["entitled"] > 0 and link_id is not None:
            yield Draft(
                "match.accrued",
                partner_id,
                f"{public_id('rmt', id_)}/{part['product']}",
                link_id,
                link_id,
                {
                    "member": public_id("mem", link_id),
                    "product": part["product"],
                    "remittance": public_id("rmt", id_),
                    "contributed": _money(part["amount"], currency),
                    "accrued": _money(part["entitled"], currency),
                },
                one.recorded_at,
            )


def _remittance(read_: Read, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A remittance as the API shows it, in the state that the message is of: by now it may be in the next one."""
    currency = read_.received.currency
    status = payload["status"]
    if status == "reversed":
        parts: list[tuple[str, int, int]] = [(p.product, p.amount, p.entitled) for p in read_.allocations]
    else:
        parts = [(p["product"], p["amount"], p["entitled"]) for p in payload.get("allocations", ())]
    return {
        "id": public_id("rmt", read_.id),
        "remittance_id": read_.remittance_id,
        "status": status,
        "reason": payload.get("reason"),
        "member": payload.get("member"),
        "received": _money(read_.received.amount, currency),
        "collected": _money(read_.collected.amount, read_.collected.currency) if read_.collected else None,
        "allocations": [
            {"product": product, "amount": _money(amount, currency), "entitled": _money(entitled, currency)}
            for product, amount, entitled in parts
        ],
        "unapplied": _money(read_.unapplied, currency),
        "transaction": public_id("txn", read_.transaction_id) if read_.transaction_id else None,
        "completed_at": _instant(read_.contributed_at),
        "reversed_at": _instant(read_.reversed_at) if status == "reversed" and read_.reversed_at else None,
    }


def _of_settled(one: Published, known: _Known) -> Iterator[Draft]:
    payload = one.message.payload
    enrolment = parse_public_id("enr", payload["enrolment"])
    found = known.settled.get((enrolment, parse_public_id("stl", payload["settlement"])))
    if found is None:
        return  # returned since, or nothing of it is a member's
    yield Draft(
        "contributions.settled",
        found.partner_id,
        f"{payload['settlement']}/{payload['enrolment']}",
        found.link_id,
        found.link_id,
        {
            "member": public_id("mem", found.link_id),
            "enrolment": payload["enrolment"],
            "product": found.product,
            "settlement": payload["settlement"],
            "settled": _money(found.amount, found.currency),
        },
        one.recorded_at,
    )


def _of_payout(one: Published) -> Iterator[Draft]:
    payload = one.message.payload
    type_ = f"payout.{payload['state']}"
    if type_ not in CATALOGUE:
        return
    link_id = parse_public_id("mem", payload["member"])
    yield Draft(
        cast("EventType", type_),
        parse_public_id("ptn", payload["partner"]),
        payload["payout"],
        link_id,
        link_id,
        {
            "id": payload["payout"],
            "member": payload["member"],
            "product": payload["product"],
            "amount": payload["amount"],
            "state": payload["state"],
            "reason": payload["reason"],
            "changed_at": _instant(datetime.fromisoformat(payload["at"])),
        },
        one.recorded_at,
    )


def _of_endpoint(one: Published) -> Draft:
    payload = one.message.payload
    return Draft(
        "endpoint.disabled",
        parse_public_id("ptn", payload["partner"]),
        payload["endpoint"],
        parse_public_id("whe", payload["endpoint"]),
        None,
        {
            "id": payload["endpoint"],
            "reason": payload["reason"],
            "disabled_at": _instant(datetime.fromisoformat(payload["at"])),
        },
        one.recorded_at,
    )


def _settled(tx: Tx, wanted: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], _Settled]:
    """By enrolment and settlement: the partner whose settlement it is, the member as it knows them, and how much."""
    if not wanted:
        return {}
    rows = cursor(tx).execute(
        """
        SELECT c.enrolment_id, c.settlement_id, c.partner_id, r.link_id, min(c.product), sum(c.amount)::bigint,
               min(c.currency)
        FROM unnest(%b::uuid[], %b::uuid[]) AS w (enrolment, settlement)
        JOIN products.contribution c ON c.enrolment_id = w.enrolment AND c.settlement_id = w.settlement
        JOIN products.remittance r ON r.id = c.remittance
        WHERE r.link_id IS NOT NULL GROUP BY 1, 2, 3, 4
        """,
        ([one[0] for one in wanted], [one[1] for one in wanted]),
    )
    return {(row[0], row[1]): _Settled(*row[2:]) for row in rows}


def _folded(tx: Tx, drafts: Sequence[Draft]) -> list[Draft]:
    """Without those that say of their subject what the last event of that type said already."""
    if not drafts:
        return []
    last = _last_digests(tx, {draft.key for draft in drafts})
    fresh: list[Draft] = []
    for draft in drafts:
        digest = draft.digest
        if last.get(draft.key) != digest:
            last[draft.key] = digest
            fresh.append(draft)
    return fresh


def _last_digests(tx: Tx, keys: Iterable[tuple[UUID, str, str]]) -> dict[tuple[UUID, str, str], bytes]:
    wanted = sorted(keys)
    rows = cursor(tx).execute(
        """
        SELECT k.partner, k.subject, k.type, e.digest
        FROM unnest(%b::uuid[], %b::text[], %b::text[]) AS k (partner, subject, type)
        CROSS JOIN LATERAL (
            SELECT digest FROM integrations.event e
            WHERE e.partner_id = k.partner AND e.subject = k.subject AND e.type = k.type ORDER BY e.seq DESC LIMIT 1
        ) AS e
        """,
        ([key[0] for key in wanted], [key[1] for key in wanted], [key[2] for key in wanted]),
    )
    return {(row[0], row[1], row[2]): bytes(row[3]) for row in rows}


def _write(tx: Tx, fresh: Sequence[Draft], seq: int, now: datetime) -> int:
    """Number and store the events, and queue them for the endpoints that want them; how many deliveries."""
    ids = [new_id() for _ in fresh]
    sql = cursor(tx)
    sql.execute(
        """
        INSERT INTO integrations.event
            (id, seq, partner_id, stream, link_id, type, subject, digest, data, occurred_at)
        SELECT * FROM unnest(%b::uuid[], %b::bigint[], %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[],
                             %b::bytea[], %b::text[]::jsonb[], %b::timestamptz[])
        """,
        (
            ids,
            list(range(seq + 1, seq + 1 + len(fresh))),
            [one.partner_id for one in fresh],
            [one.stream for one in fresh],
            [one.link_id for one in fresh],
            [one.type for one in fresh],
            [one.subject for one in fresh],
            [one.digest for one in fresh],
            [_encode(one.data) for one in fresh],
            [one.occurred_at for one in fresh],
        ),
    )
    # Held, so that an endpoint which is disabled meanwhile is seen so here, or sees these deliveries there.
    sql.execute(
        "SELECT id FROM integrations.webhook_endpoint WHERE partner_id = ANY (%s) AND state = 'enabled'"
        " ORDER BY id FOR SHARE",
        (sorted({one.partner_id for one in fresh}),),
    )
    endpoints = [row[0] for row in sql.fetchall()]
    wanted = {"ids": ids, "endpoints": endpoints, "now": now}
    return queue(tx, _NEW, wanted) if endpoints else 0


_NEW: Final = """
SELECT w.id AS endpoint_id, e.id AS event_id, e.partner_id, e.stream, e.seq
FROM integrations.event e JOIN integrations.webhook_endpoint w ON w.partner_id = e.partner_id
WHERE e.id = ANY (%(ids)s) AND w.id = ANY (%(endpoints)s)
  AND (cardinality(w.event_types) = 0 OR e.type = ANY (w.event_types))
"""


def queue(tx: Tx, wanted: str, parameters: Mapping[str, Any], *, again: bool = False) -> int:
    """Queue what a query finds (endpoint_id, event_id, partner_id, stream, seq) to be sent at ``now``; how many.

    What is queued already stays as it is; what was delivered or given up begins anew. `again`: somebody asks for it, so a
    stream that waits for its next attempt waits no longer.

    A stream's row is taken before its deliveries, by everyone who writes them: whoever finishes a stream either sees them or
    leaves the row to be made here.
    """
    sql = cursor(tx)
    sql.execute(
        f"""
        INSERT INTO integrations.event_stream (endpoint_id, stream, partner_id, due_at)
        SELECT DISTINCT endpoint_id, stream, partner_id, %(now)s::timestamptz FROM ({wanted}) AS wanted
        ORDER BY endpoint_id, stream
        ON CONFLICT (endpoint_id, stream) DO UPDATE SET due_at =
            CASE WHEN %(again)s AND event_stream.claim IS NULL THEN excluded.due_at ELSE event_stream.due_at END
        """,
        {**parameters, "again": again},
    )
    sql.execute(
        f"""
        INSERT INTO integrations.event_delivery AS d
            (endpoint_id, event_id, partner_id, stream, seq, state, queued_at)
        SELECT endpoint_id, event_id, partner_id, stream, seq, 'waiting', %(now)s FROM ({wanted}) AS wanted
        ORDER BY endpoint_id, event_id
        ON CONFLICT (endpoint_id, event_id) DO UPDATE
            SET state = 'waiting', reason = NULL, tries = 0, queued_at = excluded.queued_at, finished_at = NULL
            WHERE d.state <> 'waiting'
        """,
        parameters,
    )
    return max(0, sql.rowcount)


def _money(amount: int, currency: str) -> dict[str, object]:
    return {"amount": amount, "currency": currency}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
