"""Remittances: the synchronous twin of the hook, and what became of each."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.approvals.reversals import request_reversal
from api.approvals.service import origin_of
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.problem_catalogue import CATALOGUE
from api.problems import ProblemError, request_id
from api.v1.schemas import (
    REPLAYED,
    ROUTE_CLASS,
    Country,
    In,
    Instant,
    MoneyIn,
    MoneyOut,
    Out,
    Page,
    Text,
    errors,
)
from ledger.ids import parse_public_id, public_id
from ledger.money import Money
from products.members.phones import e164
from products.remittances import reading
from products.remittances.events import Event, MemberKey, RemittanceCompleted, RemittanceReversed
from products.remittances.outcomes import told
from products.remittances.process import Delivery, Verdict, process

router = APIRouter(prefix="/v1/remittances", tags=["remittances"], route_class=ROUTE_CLASS)

RemittanceId = Annotated[str, Path(max_length=64, description="our id of the remittance, `rmt_…`")]


class MemberKeyIn(In):
    """Who the member is, in exactly one way."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})
    id: Annotated[str | None, Field(max_length=64, examples=[f"mem_{'0' * 26}"])] = None
    phone: Annotated[str | None, Field(min_length=4, max_length=32, examples=["+971501234567"])] = None
    partner_reference: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> "MemberKeyIn":
        if sum(value is not None for value in (self.id, self.phone, self.partner_reference)) != 1:
            raise ValueError("exactly one of id, phone and partner_reference")
        return self

    def key(self) -> MemberKey:
        """As the rules know it; a phone number in E.164."""
        if self.id is not None:
            return MemberKey("id", self.id)
        if self.phone is not None:
            return MemberKey("phone", e164(self.phone))
        return MemberKey("partner_reference", self.partner_reference or "")


class RemittanceIn(In):
    """A remittance that the migrant has paid for."""

    remittance_id: Annotated[Text, Field(max_length=128, examples=["ACME-000123"])]
    member: MemberKeyIn
    sent: MoneyIn
    received: MoneyIn
    fee: MoneyIn | None = None
    collected: Annotated[
        MoneyIn | None, Field(description="what you took for the products; null: as your terms say")
    ] = None
    origin_country: Country
    destination_country: Country
    completed_at: Annotated[Instant, Field(description="when the migrant paid")]
    quote_id: Annotated[str | None, Field(max_length=64)] = None

    def event(self) -> RemittanceCompleted:
        """As the rules know it. Raises InvalidMoney, InvalidId, InvalidPhone."""
        return RemittanceCompleted(
            remittance_id=self.remittance_id,
            member=self.member.key(),
            sent=_positive(self.sent, "/sent"),
            received=_positive(self.received, "/received"),
            fee=self.fee.money() if self.fee is not None else None,
            collected=self.collected.money() if self.collected is not None else None,
            origin_country=self.origin_country,
            destination_country=self.destination_country,
            completed_at=self.completed_at,
            quote_id=parse_public_id("quo", self.quote_id) if self.quote_id is not None else None,
        )


class ReversalIn(In):
    """Why and when a remittance was taken back."""

    reversed_at: Instant
    reason: Annotated[Text, Field(examples=["the sender cancelled"])]


class AllocationOut(Out):
    """A product's part, and the match that it earned when it was decided."""

    product: str
    amount: MoneyOut
    entitled: MoneyOut


class RemittanceOut(Out):
    """A remittance and what became of it."""

    id: Annotated[str, Field(examples=[f"rmt_{'0' * 26}"])]
    remittance_id: str
    status: Annotated[str, Field(description="posted, reversed, unallocated or parked", examples=["posted"])]
    reason: str | None
    member: str | None
    received: MoneyOut
    collected: MoneyOut | None
    allocations: list[AllocationOut]
    unapplied: MoneyOut
    transaction: str | None
    completed_at: Instant
    reversed_at: Instant | None


@router.post(
    "",
    operation_id="send_remittance",
    summary="Send a remittance",
    status_code=201,
    response_model=RemittanceOut,
    responses={
        200: {"model": RemittanceOut, "description": "It was known already.", **REPLAYED},
        201: REPLAYED,
        **errors(409),
    },
)
def send_remittance(
    body: RemittanceIn,
    call: Annotated[Call, writing("remittances:write")],
    idempotency_key: KeyHeader = None,
) -> Response:
    """Record a remittance and split what was collected, at once; the same as the webhook `remittance.completed`."""

    def effect() -> tuple[int, RemittanceOut]:
        verdict = _process(call, body.event())
        if verdict.remittance is None or verdict.state == "quarantined":
            raise _refused(verdict)
        known = verdict.state == "duplicate"
        return (200 if known else 201), _read(call, verdict.remittance)

    return call.once(idempotency_key, "send_remittance", effect)


@router.get("", operation_id="list_remittances", summary="List remittances", responses=errors())
def list_remittances(
    call: Annotated[Call, calling("remittances:read")],
    remittance_id: Annotated[
        str | None, Query(min_length=1, max_length=128, description="your own id of one remittance")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[RemittanceOut]:
    """Remittances that came through the partner, in the order in which they were committed."""
    after = call.read_position(cursor, "remittances", remittance_id=remittance_id)
    rows = reading.remittances(
        call.tx,
        partner_id=call.actor.partner_id,
        remittance_id=remittance_id,
        after=after,
        limit=limit + 1,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[_shown(row) for row in rows[:limit]],
        next_cursor=call.write_position(last, "remittances", remittance_id=remittance_id),
    )


@router.get("/{remittance}", operation_id="get_remittance", summary="Read a remittance", responses=errors())
def get_remittance(
    remittance: RemittanceId, call: Annotated[Call, calling("remittances:read")]
) -> RemittanceOut:
    """A remittance and what became of it."""
    return _shown(reading.remittance(call.tx, path_id("rmt", remittance), partner_id=call.actor.partner_id))


class ApprovalRequired(BaseModel):
    """The problem `approval_required`, with the request that was made for it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    approval: str

    @classmethod
    def of(cls, approval: str, request: str) -> "ApprovalRequired":
        """The problem for a request `apr_…`."""
        kind = CATALOGUE["approval_required"]
        return cls(
            type=f"/problems/{kind.code}",
            title=kind.title,
            status=kind.status,
            detail="What is settled is reversed by a fund manager, who is asked to.",
            code=kind.code,
            request_id=request,
            approval=approval,
        )


@router.post(
    "/{remittance}/reversal",
    operation_id="reverse_remittance",
    summary="Take a remittance back",
    status_code=200,
    response_model=RemittanceOut,
    responses={200: REPLAYED, **errors(409)},
)
def reverse_remittance(
    remittance: RemittanceId,
    body: ReversalIn,
    call: Annotated[Call, writing("remittances:write")],
    idempotency_key: KeyHeader = None,
) -> Response:
    """Reverse a remittance; what is settled already is not reversed without a fund manager's approval.

    Then the answer is 409 `approval_required`, and `approval` names the request that a manager decides.
    """

    def effect() -> tuple[int, BaseModel]:
        known = reading.remittance(call.tx, path_id("rmt", remittance), partner_id=call.partner)
        event = RemittanceReversed(known.remittance_id, body.reversed_at, body.reason)
        verdict = _process(call, event)
        if verdict.reason == "reversal_needs_approval":
            # answered, not raised: the request for approval is kept with the answer
            filed = request_reversal(
                call.tx, call.services, call.actor, known.id, event, origin=origin_of(call)
            )
            return 409, ApprovalRequired.of(filed.public_id, request_id(call.request))
        if verdict.state not in ("reversed", "duplicate"):
            raise _refused(verdict)
        return 200, _read(call, known.id)

    return call.once(idempotency_key, "reverse_remittance", effect)


def _process(call: Call, event: Event) -> Verdict:
    delivery = Delivery(None, call.partner, event)
    (verdict,) = process(call.tx, [delivery], books=call.services.books)
    return verdict


def _refused(verdict: Verdict) -> ProblemError:
    reason = verdict.reason or verdict.state
    if reason == "remittance_conflict":
        return ProblemError("remittance_conflict", "The remittance_id is known with other content.")
    return ProblemError("remittance_refused", told(reason), reason=reason)


def _positive(given: MoneyIn, pointer: str) -> Money:
    if given.amount == 0:
        raise ProblemError(
            "invalid_request",
            "An amount of a remittance is at least 1.",
            errors=[{"pointer": f"{pointer}/amount", "detail": "at least 1"}],
        )
    return given.money()


def _read(call: Call, id_: UUID) -> RemittanceOut:
    return _shown(reading.remittance(call.tx, id_, partner_id=call.partner))


def _shown(read: reading.Read) -> RemittanceOut:
    # what is allocated and what is unapplied is in the programme's currency: that of what is received
    currency = read.received.currency
    return RemittanceOut(
        id=public_id("rmt", read.id),
        remittance_id=read.remittance_id,
        status=read.status,
        reason=read.reason,
        member=public_id("mem", read.link_id) if read.link_id is not None else None,
        received=MoneyOut.of(read.received.amount, currency),
        collected=MoneyOut.of(read.collected.amount, read.collected.currency) if read.collected else None,
        allocations=[
            AllocationOut(
                product=part.product,
                amount=MoneyOut.of(part.amount, part.currency),
                entitled=MoneyOut.of(part.entitled, part.currency),
            )
            for part in read.allocations
        ],
        unapplied=MoneyOut.of(read.unapplied, currency),
        transaction=public_id("txn", read.transaction_id) if read.transaction_id is not None else None,
        completed_at=read.contributed_at,
        reversed_at=read.reversed_at,
    )
