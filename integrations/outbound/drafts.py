"""What partners are told of each message of the outbox: its type, whose it is, and its data in that partner's own ids."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from integrations.outbound.catalogue import CATALOGUE, EventType
from ledger.clock import rfc3339
from ledger.database import Tx, cursor
from ledger.ids import parse_public_id, public_id
from ledger.outbox import Published
from products.remittances import reading
from products.remittances.reading import Read

_STATES: Final[Mapping[str, EventType]] = {
    "posted": "remittance.allocated",
    "unallocated": "remittance.unallocated",
    "parked": "remittance.parked",
    "reversed": "remittance.reversed",
}
encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
"""Data as it is stored and compared."""


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
        return hashlib.sha256(encode(self.data).encode()).digest()


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
    settled: Mapping[tuple[UUID, UUID | None], "_Settled"] = field(init=False)
    enrolled: Mapping[tuple[UUID, UUID | None], "_Enrolled"] = field(init=False)

    def __post_init__(self) -> None:
        payloads = [(one.message.topic, one.message.payload) for one in self.messages]
        ids = {
            parse_public_id("rmt", payload["remittance"])
            for topic, payload in payloads
            if topic.startswith("remittance.")
        }
        self.remittances = {one.id: one for one in reading.remittances_of(self.tx, sorted(ids))}
        self.settled = _settled(
            self.tx, [_enrolment(one) for topic, one in payloads if topic == "contributions.settled"]
        )
        self.enrolled = _enrolled(
            self.tx,
            [
                _enrolment(one)
                for topic, one in payloads
                if topic in ("contributions.returned", "remittal.returned")
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


@dataclass(frozen=True, slots=True)
class _Enrolled:
    """Whose an enrolment is, as the partner that is to be told knows them."""

    partner_id: UUID
    link_id: UUID
    product: str


def _drafts(one: Published, known: _Known) -> Iterator[Draft]:
    topic = one.message.topic
    if topic in ("remittance.allocated", "remittance.reversed"):
        yield from _of_remittance(one, known)
    elif topic == "contributions.settled":
        yield from _of_settled(one, known)
    elif topic in ("contributions.returned", "remittal.returned"):
        yield from _of_returned(one, known)
    elif topic == "match.vested":
        yield _of_vested(one)
    elif topic == "settlement.returned":
        yield _of_settlement(one)
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
        "completed_at": rfc3339(read_.contributed_at),
        "reversed_at": rfc3339(read_.reversed_at) if status == "reversed" and read_.reversed_at else None,
    }


def _of_settled(one: Published, known: _Known) -> Iterator[Draft]:
    payload = one.message.payload
    found = known.settled.get(_enrolment(payload))
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


def _of_returned(one: Published, known: _Known) -> Iterator[Draft]:
    payload = one.message.payload
    found = known.enrolled.get(_enrolment(payload))
    if found is None:
        return
    said = {
        name: payload[name]
        for name in ("enrolment", "settlement", "remittal", "line", "agency", "outcome", "returned")
        if name in payload
    }
    subject = payload.get("settlement") or f"{payload['remittal']}/{payload['line']}"
    yield Draft(
        cast("EventType", one.message.topic),
        found.partner_id,
        f"{subject}/{payload['enrolment']}",
        found.link_id,
        found.link_id,
        {"member": public_id("mem", found.link_id), "product": found.product, **said},
        one.recorded_at,
    )


def _of_vested(one: Published) -> Draft:
    payload = one.message.payload
    link_id = parse_public_id("mem", payload["member"])
    return Draft(
        "match.vested",
        parse_public_id("ptn", payload["partner"]),
        payload["enrolment"],
        link_id,
        link_id,
        {
            "member": payload["member"],
            "enrolment": payload["enrolment"],
            "product": payload["product"],
            "vested": payload["amount"],
            "vested_at": rfc3339(datetime.fromisoformat(payload["at"])),
        },
        one.recorded_at,
    )


def _of_settlement(one: Published) -> Draft:
    payload = one.message.payload
    return Draft(
        "settlement.returned",
        parse_public_id("ptn", payload["partner"]),
        payload["settlement"],
        parse_public_id("stl", payload["settlement"]),
        None,
        {"id": payload["settlement"], "state": "returned"},
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
            "changed_at": rfc3339(datetime.fromisoformat(payload["at"])),
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
            "disabled_at": rfc3339(datetime.fromisoformat(payload["at"])),
        },
        one.recorded_at,
    )


def _enrolment(payload: Mapping[str, Any]) -> tuple[UUID, UUID | None]:
    """The enrolment that a message is of, and its settlement, where it is of one."""
    settlement = payload.get("settlement")
    return (
        parse_public_id("enr", payload["enrolment"]),
        parse_public_id("stl", settlement) if settlement is not None else None,
    )


def _enrolled(
    tx: Tx, wanted: Sequence[tuple[UUID, UUID | None]]
) -> dict[tuple[UUID, UUID | None], _Enrolled]:
    """By enrolment and settlement: the settlement's partner, or else the enrolment's, and the member as it knows them."""
    if not wanted:
        return {}
    rows = cursor(tx).execute(
        """
        SELECT DISTINCT ON (w.enrolment, w.settlement)
               w.enrolment, w.settlement, l.partner_id, l.id, e.product
        FROM unnest(%b::uuid[], %b::uuid[]) AS w (enrolment, settlement)
        JOIN products.enrolment e ON e.id = w.enrolment
        LEFT JOIN products.settlement s ON s.id = w.settlement
        JOIN products.member_link l
            ON l.member_id = e.member_id AND l.partner_id = coalesce(s.partner_id, e.partner_id)
        ORDER BY w.enrolment, w.settlement, l.ended_at DESC NULLS FIRST, l.id DESC
        """,
        ([one[0] for one in wanted], [one[1] for one in wanted]),
    )
    return {(row[0], row[1]): _Enrolled(*row[2:]) for row in rows}


def _settled(tx: Tx, wanted: Sequence[tuple[UUID, UUID | None]]) -> dict[tuple[UUID, UUID | None], _Settled]:
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


def _money(amount: int, currency: str) -> dict[str, object]:
    return {"amount": amount, "currency": currency}
