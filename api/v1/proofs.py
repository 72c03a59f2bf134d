"""The member's proof: challenges, what waits for 72 hours, and the notices of it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from api.deps import Call, calling, path_id
from api.problems import ProblemError
from api.v1.finding import found
from api.v1.schemas import ROUTE_CLASS, In, Instant, MemberId, Out, Text, errors
from integrations import strict_json
from ledger.errors import InvalidInput, NotFound
from ledger.ids import parse_public_id, public_id
from ledger.money import Money
from products.members import challenges, payees, verification, waiting
from products.members.challenges import Method, Proof, Proven, Purpose, Started, TooManyChallenges
from products.members.models import Member
from products.members.payees import NewPayee, Rail
from products.members.phones import e164
from products.members.waiting import Change
from products.payouts import queries as payouts

router = APIRouter(prefix="/v1/members", tags=["member's proof"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("members:read")]
Proving = Annotated[Call, calling("proofs:write")]

PROOFS: frozenset[str] = frozenset({"proof", "phone_proof"})
"""The fields of a body that prove, and are not what is proven."""

_TAIL = 4
_SIGNATURE_BYTES = 64


class ProofIn(In):
    """A member's answer to a challenge: the `code` that they were sent, or a `device` and its `signature`."""

    challenge: Annotated[str, Field(max_length=64, examples=[f"chl_{'0' * 26}"])]
    code: Annotated[str | None, Field(pattern=r"^[0-9]{6}$", examples=["204917"])] = None
    device: Annotated[str | None, Field(max_length=64, examples=[f"dev_{'0' * 26}"])] = None
    signature: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9_-]{86}$",
            description="ES256 (RFC 7518 §3.4) of `to_sign`: r and s, 64 bytes in base64url",
        ),
    ] = None


class ChallengeIn(In):
    """What is to be proven."""

    purpose: Annotated[Purpose, Field(examples=["payee"])]
    subject: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="the body of the request that will carry the proof, without its proofs",
            examples=[{"phone": "+971501234567"}],
        ),
    ]
    method: Annotated[
        Method, Field(description="`device`: no code is sent; a device in effect signs `to_sign`")
    ] = "code"


class ChallengeOut(Out):
    """A challenge: answered once, within ten minutes, in at most five tries."""

    id: Annotated[str, Field(examples=[f"chl_{'0' * 26}"])]
    purpose: Purpose
    method: Method
    sent_to: Annotated[str | None, Field(description="masked; null where a device answers")]
    to_sign: Annotated[str, Field(description="what a device signs, as ASCII")]
    expires_at: Instant


class ChangeOut(Out):
    """A new phone, device or payee."""

    id: Annotated[str, Field(examples=[f"chg_{'0' * 26}"])]
    kind: Literal["phone", "device", "payee"]
    subject: Annotated[str | None, Field(description="the device or payee; null for a phone")]
    phone: Annotated[str | None, Field(description="the new phone, masked")]
    state: Literal["waiting", "in_effect", "cancelled"]
    asked_at: Instant
    effective_at: Instant
    cancelled_at: Instant | None
    cancelled_by: Literal["member", "contact", "replaced", "removed", "phone_taken"] | None


class ChangesOut(Out):
    """All changes asked for through the partner, oldest first."""

    data: list[ChangeOut]


class NoticeOut(Out):
    """What the member was told, without its text."""

    id: Annotated[str, Field(examples=[f"ntc_{'0' * 26}"])]
    kind: Text
    change: str | None
    created_at: Instant
    sent_at: Annotated[Instant | None, Field(description="null: not yet, or there is no phone to send it to")]


class NoticesOut(Out):
    """The latest notices, newest first, at most 100."""

    data: list[NoticeOut]


class CancellationIn(In):
    """A change to stop, with the member's proof (purpose `cancel`)."""

    change: Annotated[str, Field(max_length=64, examples=[f"chg_{'0' * 26}"])]
    proof: ProofIn


class PayeeIn(In):
    """Where the member's money may be paid. Without `proof` it is a proposal, which nobody pays."""

    name: Annotated[Text, Field(examples=["Aline Uwase"])]
    rail: Annotated[Rail, Field(examples=["mobile_money"])]
    destination: Annotated[
        dict[str, Text],
        Field(
            max_length=3,
            description="`mobile_money`: phone, perhaps operator; `bank`: iban, or account, bank_code and country;"
            " `card`: token",
            examples=[{"phone": "+250788123456", "operator": "MTN"}],
        ),
    ]
    beneficiary: Annotated[
        str | None, Field(max_length=64, description="a beneficiary of the member; null: the member")
    ] = None
    proof: ProofIn | None = None

    def payee(self) -> NewPayee:
        """As the domain's. Raises InvalidInput."""
        beneficiary = parse_public_id("ben", self.beneficiary) if self.beneficiary is not None else None
        return NewPayee(self.name, self.rail, self.destination, beneficiary)


@router.post(
    "/{member}/challenges",
    operation_id="start_challenge",
    summary="Ask the member for proof",
    status_code=201,
    responses=errors(409),
)
def start_challenge(
    member: MemberId, body: ChallengeIn, call: Proving, afterwards: BackgroundTasks
) -> ChallengeOut:
    """Start a challenge for exactly one request; with the method `code`, the member is sent a code after this answer."""
    person = found(call, member)
    if body.method == "code" and not call.services.codes.available:
        raise ProblemError("unavailable", "No sender of codes is configured in this deployment.")
    to, tail = _about(call, person, body)
    try:
        started = challenges.start(
            call.tx,
            call.services.keyring,
            person,
            body.purpose,
            challenges.subject_digest(person, body.purpose, _without_proofs(body.subject)),
            call.services.clock,
            method=body.method,
            to=to,
            tail=tail,
        )
    except TooManyChallenges as error:
        raise ProblemError(
            error.code, error.detail, headers={"Retry-After": str(error.retry_after_seconds)}
        ) from error
    if started.outbound is not None:
        afterwards.add_task(call.services.codes.send_code, started.id, started.outbound)
    call.audit("member.challenge.started", started_id(started), purpose=body.purpose)
    return ChallengeOut(
        id=started_id(started),
        purpose=started.purpose,
        method=started.method,
        sent_to=started.sent_to,
        to_sign=challenges.signed_bytes(
            started.id, started.nonce, started.purpose, started.subject_digest
        ).decode("ascii"),
        expires_at=started.expires_at,
    )


@router.get("/{member}/changes", operation_id="list_changes", summary="Read what waits", responses=errors())
def list_changes(member: MemberId, call: Reading) -> ChangesOut:
    """New phones, devices and payees, with what became of them."""
    person = found(call, member)
    changes = waiting.changes_of(call.tx, call.services.keyring, person, call.now)
    return ChangesOut(data=[change_out(change) for change in changes])


@router.post(
    "/{member}/changes/cancellation",
    operation_id="cancel_change",
    summary="Stop a change",
    responses=errors(409),
)
def cancel_change(
    member: MemberId, body: CancellationIn, call: Proving, afterwards: BackgroundTasks
) -> ChangeOut:
    """Stop a change that waits, with the member's proof."""
    person = found(call, member)
    proven(call, person, "cancel", body.proof)
    change = waiting.cancel(call.tx, call.services.keyring, person, path_id("chg", body.change), call.now)
    call.audit("member.change.cancelled", body.change, kind=change.kind)
    afterwards.add_task(call.services.codes.send_notices_soon)
    return change_out(change)


@router.get("/{member}/notices", operation_id="list_notices", summary="Read notices", responses=errors())
def list_notices(member: MemberId, call: Reading) -> NoticesOut:
    """What the member was told: for their devices to show, also where a message was lost."""
    notices = waiting.notices_of(call.tx, found(call, member))
    return NoticesOut(
        data=[
            NoticeOut(
                id=public_id("ntc", one.id),
                kind=one.kind,
                change=public_id("chg", one.change_id) if one.change_id is not None else None,
                created_at=one.created_at,
                sent_at=one.sent_at,
            )
            for one in notices
        ]
    )


def proven(
    call: Call,
    member: Member,
    purpose: Purpose,
    proof: ProofIn,
    *,
    field: str = "proof",
    also: Mapping[str, object] | None = None,
) -> Proven:
    """What the member has proven for exactly this request: its body without its proofs, and `also` what its path says.

    Raises `ProofRefused`.
    """
    body = strict_json.loads(call.request.scope["state"]["body"])
    digest = challenges.subject_digest(member, purpose, {**_without_proofs(body), **(also or {})})
    done = challenges.prove(
        call.tx,
        call.services.keyring,
        member,
        _proof(proof, field),
        purpose,
        digest,
        call.services.clock,
    )
    if done.method == "code" and purpose != "new_phone":
        verification.by_code(call.tx, call.services.keyring, member, done.challenge, done.at)
    return done


def change_out(change: Change) -> ChangeOut:
    """A change as the API shows it."""
    prefix = {"device": "dev", "payee": "pye", "phone": ""}[change.kind]
    return ChangeOut(
        id=public_id("chg", change.id),
        kind=change.kind,
        subject=public_id(prefix, change.subject_id) if change.subject_id is not None else None,
        phone=challenges.masked(change.phone) if change.phone is not None else None,
        state=change.state,
        asked_at=change.asked_at,
        effective_at=change.effective_at,
        cancelled_at=change.cancelled_at,
        cancelled_by=change.cancelled_by,
    )


def started_id(started: Started) -> str:
    """The public id of a challenge."""
    return public_id("chl", started.id)


def _about(call: Call, member: Member, body: ChallengeIn) -> tuple[str | None, str]:
    """The phone to confirm, where that is the purpose, and the end of the number that the message names."""
    if body.purpose in ("phone", "new_phone"):
        phone = body.subject.get("phone")
        if not isinstance(phone, str):
            raise InvalidInput("A challenge about a phone names it.", pointer="/subject/phone")
        number = e164(phone)
        return (number if body.purpose == "new_phone" else None), number[-_TAIL:]
    if body.purpose == "payee":
        return None, payees.tail_of(payees.checked(_payee_in(body.subject)))
    if body.purpose == "payout":
        return None, _payout_told(call, member, body.subject.get("payout"))
    return None, ""


def _payout_told(call: Call, member: Member, payout: object) -> str:
    """How much goes where, for the member to recognise: ``RWF 5,000 > 3456``. Raises NotFound."""
    if not isinstance(payout, str):
        raise InvalidInput("A challenge about a payout names it.", pointer="/subject/payout")
    asked = payouts.payout(call.tx, path_id("pay", payout))
    if asked.link_id != member.link_id:
        raise NotFound("There is no such payout.")
    payee = payees.one_of(call.tx, call.services.keyring, member, asked.payee_id, call.now)
    tail = payees.tail_of(NewPayee(payee.name, payee.rail, payee.destination))
    return f"{Money(asked.amount, asked.currency)} > {tail}"


def _payee_in(subject: dict[str, Any]) -> NewPayee:
    rail, name, destination = (subject.get(field) for field in ("rail", "name", "destination"))
    if rail not in ("mobile_money", "bank", "card") or not isinstance(name, str):
        raise InvalidInput(
            "A challenge about a payee names it, its rail and its destination.", pointer="/subject"
        )
    if not isinstance(destination, dict) or not all(isinstance(one, str) for one in destination.values()):
        raise InvalidInput("A payee's destination is an object of texts.", pointer="/subject/destination")
    return NewPayee(name, rail, destination)


def _without_proofs(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in PROOFS}


def _proof(given: ProofIn, field: str) -> Proof:
    if (given.code is None) == (given.device is None) or (given.device is None) != (given.signature is None):
        raise InvalidInput("A proof has either a code, or a device and its signature.", pointer=f"/{field}")
    device: UUID | None = None
    signature: bytes | None = None
    if given.device is not None and given.signature is not None:
        device = parse_public_id("dev", given.device)
        signature = challenges.from_base64url(given.signature)
    return Proof(parse_public_id("chl", given.challenge), given.code, device, signature)
