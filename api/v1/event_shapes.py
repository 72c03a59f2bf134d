"""What the `data` of each event is: a resource as the API shows it, or what is said of one."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

from api.v1.remittances import RemittanceOut
from api.v1.schemas import Instant, MoneyOut, Out
from integrations.outbound.catalogue import Shape

_MEMBER = f"mem_{'0' * 26}"

MemberText = Annotated[str, Field(examples=[_MEMBER], description="the member, by your own id")]


class SettledOut(Out):
    """What a settlement settled of a member's contributions to one product."""

    member: MemberText
    enrolment: str
    product: str
    settlement: str
    settled: MoneyOut


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
    "match": AccruedOut,
    "cover": CoverChangedOut,
    "payout": PayoutChangedOut,
    "endpoint": EndpointDisabledOut,
}
