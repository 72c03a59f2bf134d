"""Payouts: asked for by a partner or the member, released by the member's proof, followed to their end."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.approvals.payouts import request_release, request_resolution
from api.approvals.service import origin_of
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.problems import ProblemError
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.finding import found_as_worker
from api.v1.proofs import ProofIn, proven
from api.v1.schemas import (
    REPLAYED,
    ROUTE_CLASS,
    In,
    Instant,
    MoneyIn,
    MoneyOut,
    Out,
    Page,
    ProductCode,
    Slug,
    Text,
    errors,
)
from ledger.errors import NotFound
from ledger.ids import parse_public_id, public_id
from products.members import registry
from products.members.models import Member
from products.payouts import approve, cancel, queries, request
from products.payouts.approve import Approval
from products.payouts.errors import PayoutRefused, QueueFull
from products.payouts.queries import Read
from products.payouts.request import NewPayout
from products.payouts.resolve import Finding
from products.payouts.states import State

router = APIRouter(prefix="/v1/payouts", tags=["payouts"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("payouts:read")]
Writing = Annotated[Call, writing("payouts:write")]
Deciding = Annotated[Call, writing("approvals:write")]
PayoutId = Annotated[
    str, Path(max_length=64, description="a payout's id, `pay_…`", examples=[f"pay_{'0' * 26}"])
]
QUEUE_RETRY_AFTER_SECONDS: Final = 60


class PayoutIn(In):
    """Money to pay out. `amount` leaves the member's money; a fee that the member bears is taken out of it."""

    member: Annotated[str, Field(max_length=64, examples=[f"mem_{'0' * 26}"])]
    payee: Annotated[str, Field(max_length=64, examples=[f"pye_{'0' * 26}"])]
    amount: MoneyIn
    product: Annotated[
        ProductCode | None,
        Field(
            description="null: what was collected for the member and fitted no product", examples=["savings"]
        ),
    ] = None
    enrolment: Annotated[
        str | None, Field(max_length=64, description="one of several enrolments in the product")
    ] = None
    way: Annotated[
        Slug | None, Field(description="one of the ways out that are open; the first that fits when left out")
    ] = None
    rail: Annotated[
        Slug | None, Field(description="how it travels; the programme's own choice when left out")
    ] = None


class PayoutApprovalIn(In):
    """What the member approves, exactly as it was shown.

    The challenge (purpose `payout`) is about this body without its proof, and `payout`, the payout's id.
    """

    payee: Annotated[str, Field(max_length=64, examples=[f"pye_{'0' * 26}"])]
    amount: MoneyIn
    fee: MoneyIn
    accepts_name: Annotated[
        bool,
        Field(
            description="the payee is right although the rail knows it by another name (`payee_name`: `differs`)"
        ),
    ] = False
    proof: ProofIn


class ReleaseIn(In):
    """Why a payout above its rail's limit is to be released."""

    remark: Text


class ResolutionIn(In):
    """What was found out of a payout that its rail does not answer for, and where the evidence is kept."""

    finding: Annotated[Finding, Field(examples=["paid"])]
    evidence: Annotated[Text, Field(examples=["Bank's letter of 3 March, file 2026/118"])]


class PayoutFeeOut(Out):
    """What the payout costs, and who bears it; only what the member bears is taken out of the amount."""

    amount: MoneyOut
    bearer: Literal["member", "fund"]


class ArrivalOut(Out):
    """When the money is with the payee, once it was released."""

    earliest: Instant
    latest: Instant


class PayoutPartOut(Out):
    """From where the payout is taken; `transaction` once it left there."""

    source: Literal["savings", "match_vested", "unapplied"]
    amount: MoneyOut
    transaction: str | None


class PayoutChangeOut(Out):
    """A state that the payout went through."""

    state: State
    reason: str | None
    at: Instant


class SendingOut(Out):
    """The sending of the payout: under one id at its rail, however often it is repeated."""

    id: Annotated[str, Field(description="the payment's end-to-end id at the rail")]
    rail_reference: str | None
    sent_at: Instant
    code: Annotated[str | None, Field(description="the rail's own word for what became of it")]


class PayoutOut(Out):
    """A payout, with where it is taken from and what it went through."""

    id: Annotated[str, Field(examples=[f"pay_{'0' * 26}"])]
    member: str
    payee: str
    product: str | None
    way: str | None
    rail: str
    amount: Annotated[MoneyOut, Field(description="what leaves the member's money")]
    fee: PayoutFeeOut
    to_payee: Annotated[MoneyOut, Field(description="what the payee gets")]
    arrival: ArrivalOut
    payee_name: Annotated[
        Literal["not_checked", "matches", "differs"],
        Field(description="what the rail says of the payee's name"),
    ]
    state: State
    reason: Annotated[str | None, Field(description="a stable code: docs/reference/payouts.md lists them")]
    problem: Annotated[str | None, Field(description="what its rail says that can't be true as well")]
    requested_at: Instant
    expires_at: Annotated[Instant, Field(description="given up then, unless it is approved")]
    approved_at: Instant | None
    submitted_at: Instant | None
    ended_at: Instant | None
    parts: list[PayoutPartOut]
    sending: SendingOut | None
    history: list[PayoutChangeOut]


@router.post(
    "",
    operation_id="request_payout",
    summary="Ask for a payout",
    status_code=201,
    response_model=PayoutOut,
    responses={201: REPLAYED, **errors(409)},
)
def request_payout(body: PayoutIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Ask for money to be paid out, and hold it. Nothing leaves before the member's proof.

    What can't be had is refused with its `reason`, `until` when that changes, and how much is `available`.
    """

    def effect() -> tuple[int, PayoutOut]:
        person = found_as_worker(call, body.member, "payouts:write")
        enrolment = parse_public_id("enr", body.enrolment) if body.enrolment is not None else None
        money = body.amount.money()
        asked = NewPayout(
            link_id=person.link_id,
            payee_id=path_id("pye", body.payee),
            amount=money.amount,
            currency=money.currency,
            product=body.product,
            requested_by=call.actor.id,
            enrolment_id=enrolment,
            way=body.way,
            rail=body.rail,
        )
        try:
            payout_id = request.request(call.tx, call.services.books, asked)
        except PayoutRefused as refused:
            raise _refused(refused, money.currency) from refused
        except QueueFull as full:
            raise ProblemError(
                full.code, full.detail, headers={"Retry-After": str(QUEUE_RETRY_AFTER_SECONDS)}
            ) from full
        call.audit("payout.requested", public_id("pay", payout_id), programme_id=person.programme_id)
        return 201, _shown(queries.payout(call.tx, payout_id))

    return call.once(idempotency_key, "request_payout", effect)


@router.get("", operation_id="list_payouts", summary="List payouts", responses=errors())
def list_payouts(
    call: Reading,
    member: Annotated[str | None, Query(max_length=64, description="of one member, `mem_…`")] = None,
    state: Annotated[State | None, Query(description="in one state")] = None,
    problem: Annotated[bool, Query(description="only what its rail contradicts")] = False,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[PayoutOut]:
    """Payouts, in the order in which they were committed."""
    filters = {"member": member, "state": state, "problem": problem}
    after = call.read_position(cursor, "payouts", **filters)
    rows = queries.payouts(
        call.tx,
        link_id=path_id("mem", member) if member is not None else None,
        state=state,
        with_problem=problem,
        after=after,
        limit=limit + 1,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[_shown(row) for row in rows[:limit]],
        next_cursor=call.write_position(last, "payouts", **filters),
    )


@router.get("/{payout}", operation_id="get_payout", summary="Read a payout", responses=errors())
def get_payout(payout: PayoutId, call: Reading) -> PayoutOut:
    """A payout with its history."""
    return _shown(queries.payout(call.tx, path_id("pay", payout)))


@router.post(
    "/{payout}/approval",
    operation_id="approve_payout",
    summary="Approve a payout",
    response_model=PayoutOut,
    responses={200: REPLAYED, **errors(409)},
)
def approve_payout(
    payout: PayoutId, body: PayoutApprovalIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Release a payout with the member's proof (purpose `payout`) over payee, amount, fee and payout.

    Above its rail's limit it then waits for two operators; otherwise it is sent off.
    """

    def effect() -> tuple[int, PayoutOut]:
        asked, person = _own(call, payout)
        done = proven(call, person, "payout", body.proof, also={"payout": payout})
        amount, fee = body.amount.money(), body.fee.money()
        if fee.currency != amount.currency:
            raise ProblemError("approval_differs", "The fee is in the payout's currency.")
        approve.approve(
            call.tx,
            call.services.books,
            Approval(
                asked.id,
                person.link_id,
                path_id("pye", body.payee),
                amount.amount,
                fee.amount,
                amount.currency,
                body.accepts_name,
                done.challenge,
            ),
        )
        call.audit("payout.approved", payout, programme_id=asked.programme_id, method=done.method)
        return 200, _shown(queries.payout(call.tx, asked.id))

    return call.once(idempotency_key, "approve_payout", effect)


@router.post(
    "/{payout}/cancel",
    operation_id="cancel_payout",
    summary="Cancel a payout",
    response_model=PayoutOut,
    responses={200: REPLAYED, **errors(409)},
)
def cancel_payout(payout: PayoutId, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Give up a payout that was not sent off: its money is released."""

    def effect() -> tuple[int, PayoutOut]:
        asked, person = _own(call, payout)
        by = "member" if call.actor.kind == "member" else "partner"
        cancel.cancel(
            call.tx,
            call.services.books,
            asked.id,
            reason=f"cancelled_by_{by}",
            actor=call.actor.id,
        )
        call.audit("payout.cancelled", payout, programme_id=person.programme_id)
        return 200, _shown(queries.payout(call.tx, asked.id))

    return call.once(idempotency_key, "cancel_payout", effect)


@router.post(
    "/{payout}/release",
    operation_id="request_payout_release",
    summary="Ask for a payout to be released",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_payout_release(
    payout: PayoutId, body: ReleaseIn, call: Deciding, idempotency_key: KeyHeader = None
) -> Response:
    """Ask for a payout above its rail's limit to be released: as the first of two managers."""
    return call.once(
        idempotency_key,
        "request_payout_release",
        lambda: (
            202,
            shown_out(
                request_release(
                    call.tx,
                    call.services,
                    call.actor,
                    path_id("pay", payout),
                    body.remark,
                    origin=origin_of(call),
                )
            ),
        ),
    )


@router.post(
    "/{payout}/resolution",
    operation_id="request_payout_resolution",
    summary="Ask for a payout to be resolved by hand",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_payout_resolution(
    payout: PayoutId, body: ResolutionIn, call: Deciding, idempotency_key: KeyHeader = None
) -> Response:
    """Ask for what was found out of a payout to be recorded, with its evidence: as the first of two managers."""
    return call.once(
        idempotency_key,
        "request_payout_resolution",
        lambda: (
            202,
            shown_out(
                request_resolution(
                    call.tx,
                    call.services,
                    call.actor,
                    path_id("pay", payout),
                    body.finding,
                    body.evidence,
                    origin=origin_of(call),
                )
            ),
        ),
    )


def _own(call: Call, payout: str) -> tuple[Read, Member]:
    """The caller's own payout and its member, where row-level security does not hold. Raises NotFound."""
    asked = queries.payout(call.tx, path_id("pay", payout), partner_id=call.partner)
    sight = call.actor.sight(["payouts:write"])
    if sight.member_link is not None and asked.link_id != sight.member_link:
        raise NotFound("There is no such payout.")
    person = registry.find(
        call.tx, call.services.keyring, asked.link_id, partner_id=call.partner, programmes=sight.programmes
    )
    return asked, person


def _refused(refused: PayoutRefused, currency: str) -> ProblemError:
    available = None if refused.available is None else {"amount": refused.available, "currency": currency}
    problem = ProblemError(
        refused.code,
        refused.detail,
        reason=refused.reason,
        until=refused.until.isoformat() if refused.until is not None else None,
        available=available,
    )
    problem.pointer = refused.pointer
    return problem


def _shown(read: Read) -> PayoutOut:
    bearer, sending = read.fee_bearer, read.attempt
    return PayoutOut(
        id=public_id("pay", read.id),
        member=public_id("mem", read.link_id),
        payee=public_id("pye", read.payee_id),
        product=read.product,
        way=read.way,
        rail=read.rail,
        amount=MoneyOut.of(read.amount, read.currency),
        fee=PayoutFeeOut(
            amount=MoneyOut.of(read.fee if bearer == "member" else read.rail_fee, read.currency),
            bearer=bearer,
        ),
        to_payee=MoneyOut.of(read.amount - read.fee, read.currency),
        arrival=ArrivalOut(earliest=read.arrival_earliest, latest=read.arrival_latest),
        payee_name=read.payee_name,
        state=read.state,
        reason=read.reason,
        problem=read.problem,
        requested_at=read.requested_at,
        expires_at=read.expires_at,
        approved_at=read.approved_at,
        submitted_at=read.submitted_at,
        ended_at=read.ended_at,
        parts=[
            PayoutPartOut(
                source=part.source,
                amount=MoneyOut.of(part.amount, read.currency),
                transaction=public_id("txn", part.transaction_id)
                if part.transaction_id is not None
                else None,
            )
            for part in read.parts
        ],
        sending=None
        if sending is None
        else SendingOut(
            id=str(sending.id),
            rail_reference=sending.rail_reference,
            sent_at=sending.sent_at,
            code=sending.code,
        ),
        history=[PayoutChangeOut(state=one.state, reason=one.reason, at=one.at) for one in read.history],
    )
