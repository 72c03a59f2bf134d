"""What one person asks for and another decides."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints
from starlette.responses import Response

from api.approvals import service
from api.approvals.kinds import books, programmes
from api.approvals.service import PREFIX, REMARK_CHARACTERS_MAX, Request, State
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.problems import ProblemError
from api.v1.schemas import (
    REPLAYED,
    ROUTE_CLASS,
    Currency,
    Day,
    In,
    Instant,
    MoneyIn,
    Out,
    Page,
    Slug,
    Text,
    errors,
)
from ledger.ids import public_id

router = APIRouter(tags=["approvals"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("approvals:read")]
Writing = Annotated[Call, writing("approvals:write")]
ApprovalId = Annotated[str, Path(max_length=64, examples=[f"apr_{'0' * 26}"])]
Remark = Annotated[
    str,
    StringConstraints(max_length=REMARK_CHARACTERS_MAX, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$", strict=True),
]
AccountId = Annotated[str, Field(max_length=64, pattern=r"^acc_", examples=[f"acc_{'0' * 26}"])]
SOURCE_CHARACTERS_MAX: Final = 200_000
POSTINGS_MAX: Final = 100


class ApprovalOut(Out):
    """A request: what is asked for, by whom, and what became of it."""

    id: Annotated[str, Field(examples=[f"apr_{'0' * 26}"])]
    kind: Annotated[str, Field(examples=["manual_transaction"])]
    object: Annotated[
        str, Field(description="what it concerns; one request of a kind is open for it at a time")
    ]
    programme: str | None
    description: Annotated[str, Field(description="what approving does")]
    payload: Annotated[
        dict[str, Any] | None, Field(description="what is asked for; null once its key is destroyed")
    ]
    payload_digest: str
    remark: str
    state: Literal["requested", "approved", "refused", "expired", "withdrawn"]
    requested_by: str
    requested_at: Instant
    expires_at: Instant
    decided_by: str | None
    decided_at: Instant | None
    decision_remark: str | None
    result: dict[str, Any] | None


class DecisionIn(In):
    """Why it is decided so."""

    remark: Remark = ""


class PostingIn(In):
    """One amount from one debited to one credited account of the same fund."""

    debit: AccountId
    credit: AccountId
    amount: MoneyIn


class ManualTransactionIn(In):
    """A transaction by hand. `member_reason` says why a member's own money moves, where it does."""

    postings: Annotated[list[PostingIn], Field(min_length=1, max_length=POSTINGS_MAX)]
    reason: Text
    member_reason: Text | None = None
    effective_on: Annotated[Day | None, Field(description="the next open day when left out")] = None


class PartnerDebtIn(In):
    """What a partner owes for what it collected up to and including a day: all of it."""

    partner: Slug
    currency: Currency
    through: Day
    cause: Literal["default", "fee"]


class MemberDebtIn(In):
    """What a member owes, named by the member's receivable account."""

    account: AccountId
    amount: Annotated[int, Field(gt=0, le=2**53 - 1)]


class WriteOffIn(In):
    """A debt that will not be paid: a partner's or a member's."""

    partner_debt: PartnerDebtIn | None = None
    member_debt: MemberDebtIn | None = None
    reason: Text


class ReopeningIn(In):
    """A fund whose books are to be closed through an earlier day only."""

    fund: Annotated[str, Field(max_length=200, pattern=r"^[!-~]+$", examples=["ejoheza/savers"])]
    through: Day
    reason: Text


class ProgrammeIn(In):
    """A programme file, as text."""

    source: Annotated[str, Field(min_length=1, max_length=SOURCE_CHARACTERS_MAX)]
    remark: Remark = ""


@router.get(
    "/v1/approvals", operation_id="list_approvals", summary="List requests for approval", responses=errors()
)
def list_approvals(
    call: Reading,
    kind: Annotated[str | None, Query(max_length=64, pattern=r"^[a-z_]+$")] = None,
    state: State | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[ApprovalOut]:
    """Requests behind the settled horizon, in the order in which they were made."""
    after = call.read_position(cursor, "approvals", kind=kind, state=state)
    rows = service.requests(call.tx, call.services, kind=kind, state=state, after=after, limit=limit + 1)
    shown = rows[:limit]
    last = shown[-1].position if len(rows) > limit else None
    return Page(
        data=[shown_out(row) for row in shown],
        next_cursor=call.write_position(last, "approvals", kind=kind, state=state),
    )


@router.get(
    "/v1/approvals/{approval}",
    operation_id="get_approval",
    summary="Read a request for approval",
    responses=errors(),
)
def get_approval(approval: ApprovalId, call: Reading) -> ApprovalOut:
    """One request."""
    return shown_out(service.one(call.tx, call.services, path_id(PREFIX, approval)))


@router.post(
    "/v1/approvals/{approval}/approval",
    operation_id="approve_request",
    summary="Approve a request",
    response_model=ApprovalOut,
    responses={200: REPLAYED, **errors(409)},
)
def approve_request(
    approval: ApprovalId, body: DecisionIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Approve, and carry it out at once: all of it, or nothing.

    Takes another operator than the one who asked, with the kind's role, who gave a TOTP within the last five minutes.
    What no longer fits is refused with 409, and the request stays open.
    """

    def effect() -> tuple[int, ApprovalOut]:
        return 200, _decided(service.approve, approval, body, call)

    return call.once(idempotency_key, "approve_request", effect)


@router.post(
    "/v1/approvals/{approval}/refusal",
    operation_id="refuse_request",
    summary="Refuse a request",
    responses=errors(409),
)
def refuse_request(approval: ApprovalId, body: DecisionIn, call: Writing) -> ApprovalOut:
    """Refuse: nothing is done. Takes the same person, role and TOTP as approving."""
    return _decided(service.refuse, approval, body, call)


@router.post(
    "/v1/approvals/{approval}/withdrawal",
    operation_id="withdraw_request",
    summary="Withdraw a request",
    responses=errors(409),
)
def withdraw_request(approval: ApprovalId, body: DecisionIn, call: Writing) -> ApprovalOut:
    """Take back what you asked for yourself."""
    return _decided(service.withdraw, approval, body, call)


@router.post(
    "/v1/ledger/transactions",
    operation_id="request_transaction",
    summary="Ask for a transaction by hand",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_transaction(
    body: ManualTransactionIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Ask for postings by hand. They are tried against the books now, and posted when another manager approves."""
    payload: dict[str, Any] = {
        "postings": [
            {
                "debit": one.debit,
                "credit": one.credit,
                "amount": one.amount.amount,
                "currency": one.amount.currency,
            }
            for one in body.postings
        ],
        "effective_on": body.effective_on.isoformat() if body.effective_on else None,
        "member_reason": body.member_reason,
    }
    return call.once(
        idempotency_key,
        "request_transaction",
        lambda: (
            202,
            shown_out(
                books.request_transaction(
                    call.tx,
                    call.services,
                    call.actor,
                    payload,
                    body.reason,
                    origin=service.origin_of(call),
                )
            ),
        ),
    )


@router.post(
    "/v1/ledger/write-offs",
    operation_id="request_write_off",
    summary="Ask for a debt to be written off",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_write_off(body: WriteOffIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Ask for what a partner or a member owes to be borne by the administrator, when another manager approves."""

    def effect() -> tuple[int, ApprovalOut]:
        origin = service.origin_of(call)
        if body.partner_debt is not None and body.member_debt is None:
            filed = books.request_partner_write_off(
                call.tx,
                call.services,
                call.actor,
                partner=body.partner_debt.partner,
                currency=body.partner_debt.currency,
                through=body.partner_debt.through,
                cause=body.partner_debt.cause,
                remark=body.reason,
                origin=origin,
            )
        elif body.member_debt is not None and body.partner_debt is None:
            filed = books.request_member_write_off(
                call.tx,
                call.services,
                call.actor,
                account=path_id("acc", body.member_debt.account),
                amount=body.member_debt.amount,
                remark=body.reason,
                origin=origin,
            )
        else:
            raise ProblemError("invalid_request", "Name one debt: partner_debt or member_debt.")
        return 202, shown_out(filed)

    return call.once(idempotency_key, "request_write_off", effect)


@router.post(
    "/v1/periods/reopenings",
    operation_id="request_reopening",
    summary="Ask for a period to be reopened",
    status_code=202,
    responses=errors(409),
)
def request_reopening(body: ReopeningIn, call: Writing) -> ApprovalOut:
    """Ask for a fund's books to be closed through an earlier day only; another manager approves."""
    return shown_out(
        books.request_reopening(
            call.tx,
            call.services,
            call.actor,
            fund=body.fund,
            through=body.through,
            reason=body.reason,
            origin=service.origin_of(call),
        )
    )


@router.post(
    "/v1/programmes",
    operation_id="request_programme_version",
    summary="Ask for a programme version to be applied",
    status_code=202,
    responses=errors(409),
)
def request_programme_version(body: ProgrammeIn, call: Writing) -> ApprovalOut:
    """Ask for a programme file to be applied. It is tried now, and applied when another administrator approves."""
    return shown_out(
        programmes.request_version(
            call.tx,
            call.services,
            call.actor,
            body.source,
            body.remark,
            origin=service.origin_of(call),
        )
    )


def shown_out(request: Request) -> ApprovalOut:
    """A request in the API's shape."""
    return ApprovalOut(
        id=request.public_id,
        kind=request.kind,
        object=request.object,
        programme=public_id("prg", request.programme_id) if request.programme_id else None,
        description=request.description,
        payload=request.payload,
        payload_digest=request.payload_digest.hex(),
        remark=request.remark,
        state=request.state,
        requested_by=request.requested_by,
        requested_at=request.requested_at,
        expires_at=request.expires_at,
        decided_by=request.decided_by,
        decided_at=request.decided_at,
        decision_remark=request.decision_remark,
        result=request.result,
    )


def _decided(decide: Callable[..., Request], approval: str, body: DecisionIn, call: Call) -> ApprovalOut:
    """The request after the caller approved, refused or withdrew it."""
    decided = decide(
        call.tx,
        call.services,
        call.actor,
        path_id(PREFIX, approval),
        remark=body.remark,
        origin=service.origin_of(call),
    )
    return shown_out(decided)
