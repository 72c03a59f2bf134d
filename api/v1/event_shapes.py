"""What the `data` of each event is: a resource as the API shows it, or what is said of one."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from api.v1.remittances import RemittanceOut
from api.v1.schemas import Instant, MoneyOut, Out
from integrations.outbound.catalogue import CATALOGUE, EventType, Shape

_MEMBER = f"mem_{'0' * 26}"

MemberText = Annotated[str, Field(examples=[_MEMBER], description="the member, by your own id")]


class SettledOut(Out):
    """What a settlement settled of a member's contributions to one product."""

    member: MemberText
    enrolment: str
    product: str
    settlement: str
    settled: MoneyOut


class ReturnedOut(Out):
    """A member's contributions to one product, whose settlement was returned. Balances say what is pending now."""

    member: MemberText
    enrolment: str
    product: str
    settlement: str


class SettlementReturnedOut(Out):
    """A settlement that was returned."""

    id: str
    state: Literal["returned"]


class RemittalReturnedOut(Out):
    """A line of a remittal that the agency did not keep; `GET /v1/members/{id}/balances` has the money."""

    member: MemberText
    enrolment: str
    product: str
    remittal: str
    line: int
    agency: str
    outcome: str
    returned: MoneyOut


class VestedOut(Out):
    """Match that became the member's own."""

    member: MemberText
    enrolment: str
    product: str
    vested: MoneyOut
    vested_at: Instant


class AccruedOut(Out):
    """The match that one contribution earned, when it was decided. Balances say what it has become."""

    member: MemberText
    product: str
    remittance: str
    contributed: MoneyOut
    accrued: MoneyOut


class CoverChangedOut(Out):
    """A member's cover under one policy."""

    member: MemberText
    product: str
    policy: str
    state: Literal["active", "grace", "lapsed", "ended"]
    covered_from: Instant | None
    covered_until: Instant | None


class PayoutChangedOut(Out):
    """A payout, in the state that it has come to; `GET /v1/payouts/{id}` has all of it."""

    id: str
    member: MemberText
    product: str | None
    amount: MoneyOut
    state: str
    reason: str | None
    changed_at: Instant


class EndpointDisabledOut(Out):
    """An endpoint that is sent nothing any more."""

    id: str
    reason: Annotated[Literal["gone", "failing"], Field(description="410, or nothing arrived for 5 days")]
    disabled_at: Instant


SHAPES: Final[Mapping[Shape, type[BaseModel]]] = {
    "remittance": RemittanceOut,
    "contributions": SettledOut,
    "contributions-returned": ReturnedOut,
    "settlement": SettlementReturnedOut,
    "remittal": RemittalReturnedOut,
    "match": AccruedOut,
    "vesting": VestedOut,
    "cover": CoverChangedOut,
    "payout": PayoutChangedOut,
    "endpoint": EndpointDisabledOut,
}

_MONEY: Final = {"amount": 20_000, "currency": "RWF"}
_NUMBERED: Final = {
    prefix: f"{prefix}_{'0' * 26}" for prefix in ("rmt", "txn", "enr", "stl", "rtl", "pol", "pay", "whe")
}

EXAMPLES: Final[Mapping[Shape, Mapping[str, Any]]] = {
    "remittance": {
        "id": _NUMBERED["rmt"],
        "remittance_id": "ACME-000123",
        "status": "posted",
        "reason": None,
        "member": _MEMBER,
        "received": {"amount": 400_000, "currency": "RWF"},
        "collected": _MONEY,
        "allocations": [
            {"product": "savings", "amount": _MONEY, "entitled": {"amount": 18_000, "currency": "RWF"}}
        ],
        "unapplied": {"amount": 0, "currency": "RWF"},
        "transaction": _NUMBERED["txn"],
        "completed_at": "2026-03-02T09:29:41Z",
        "reversed_at": None,
    },
    "contributions": {
        "member": _MEMBER,
        "enrolment": _NUMBERED["enr"],
        "product": "savings",
        "settlement": _NUMBERED["stl"],
        "settled": _MONEY,
    },
    "contributions-returned": {
        "member": _MEMBER,
        "enrolment": _NUMBERED["enr"],
        "product": "savings",
        "settlement": _NUMBERED["stl"],
    },
    "settlement": {"id": _NUMBERED["stl"], "state": "returned"},
    "remittal": {
        "member": _MEMBER,
        "enrolment": _NUMBERED["enr"],
        "product": "pension",
        "remittal": _NUMBERED["rtl"],
        "line": 17,
        "agency": "national-fund",
        "outcome": "rejected",
        "returned": _MONEY,
    },
    "vesting": {
        "member": _MEMBER,
        "enrolment": _NUMBERED["enr"],
        "product": "savings",
        "vested": {"amount": 18_000, "currency": "RWF"},
        "vested_at": "2027-01-01T00:00:00Z",
    },
    "match": {
        "member": _MEMBER,
        "product": "savings",
        "remittance": _NUMBERED["rmt"],
        "contributed": _MONEY,
        "accrued": {"amount": 18_000, "currency": "RWF"},
    },
    "cover": {
        "member": _MEMBER,
        "product": "accident",
        "policy": _NUMBERED["pol"],
        "state": "active",
        "covered_from": "2026-03-01T00:00:00Z",
        "covered_until": "2026-04-01T00:00:00Z",
    },
    "payout": {
        "id": _NUMBERED["pay"],
        "member": _MEMBER,
        "product": "savings",
        "amount": _MONEY,
        "state": "paid",
        "reason": None,
        "changed_at": "2026-03-05T14:00:00Z",
    },
    "endpoint": {"id": _NUMBERED["whe"], "reason": "failing", "disabled_at": "2026-03-07T09:30:00Z"},
}


def example(type_: EventType) -> dict[str, Any]:
    """An event of a type, as it is delivered."""
    shape = CATALOGUE[type_].shape
    data = dict(EXAMPLES[shape])
    if shape == "payout":
        data["state"] = type_.partition(".")[2]
        data["reason"] = "payee_closed" if type_ in ("payout.failed", "payout.returned") else None
    if shape == "remittance":
        data |= _REMITTANCES.get(type_, {})
    return {"id": f"evt_{'0' * 26}", "type": type_, "timestamp": "2026-03-02T09:30:00Z", "data": data}


_REMITTANCES: Final[Mapping[str, Mapping[str, Any]]] = {
    "remittance.unallocated": {
        "status": "unallocated",
        "reason": "member_unknown",
        "member": None,
        "allocations": [],
    },
    "remittance.parked": {
        "status": "parked",
        "reason": "partner_ceiling_reached",
        "allocations": [],
        "transaction": None,
    },
    "remittance.reversed": {"status": "reversed", "reversed_at": "2026-03-03T09:58:12Z"},
}
