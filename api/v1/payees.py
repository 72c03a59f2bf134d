"""Payees: proposed by a partner, released by the member."""

from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from api.deps import Call, calling, path_id
from api.v1.finding import found
from api.v1.proofs import PayeeIn, Reading, proven
from api.v1.schemas import ROUTE_CLASS, Instant, MemberId, Out, errors
from ledger.ids import public_id
from products.members import payees
from products.members.payees import Payee, Rail

router = APIRouter(prefix="/v1/members", tags=["member's proof"], route_class=ROUTE_CLASS)

Naming = Annotated[Call, calling("payees:write")]


class PayeeOut(Out):
    """A payee: money goes to it in the state `in_effect` alone."""

    id: Annotated[str, Field(examples=[f"pye_{'0' * 26}"])]
    name: str
    rail: Rail
    destination: dict[str, str]
    beneficiary: str | None
    state: Literal["proposed", "waiting", "in_effect", "cancelled"]
    proposed_at: Instant
    released_at: Instant | None
    effective_at: Instant | None
    change: str | None


class PayeesOut(Out):
    """The member's payees, oldest first."""

    data: list[PayeeOut]


@router.get("/{member}/payees", operation_id="list_payees", summary="Read payees", responses=errors())
def list_payees(member: MemberId, call: Reading) -> PayeesOut:
    """The payees that are not removed."""
    known = payees.payees_of(call.tx, call.services.keyring, found(call, member), call.now)
    return PayeesOut(data=[_shown(one) for one in known])


@router.post(
    "/{member}/payees",
    operation_id="propose_payee",
    summary="Propose or release a payee",
    status_code=201,
    responses=errors(409),
)
def propose_payee(member: MemberId, body: PayeeIn, call: Naming, afterwards: BackgroundTasks) -> PayeeOut:
    """Name a payee. With the member's proof (purpose `payee`) it takes effect in 72 hours; without, it is a proposal.

    The same payee, sent again with a proof, releases the proposal.
    """
    person = found(call, member)
    wanted = payees.checked(body.payee())
    if body.proof is not None:
        proven(call, person, "payee", body.proof)
    payee = payees.propose(
        call.tx,
        call.services.keyring,
        person,
        wanted,
        released=body.proof is not None,
        public_url=call.services.settings.public_url,
        at=call.now,
    )
    call.audit("member.payee.proposed", public_id("pye", payee.id), state=payee.state)
    afterwards.add_task(call.services.codes.send_notices_soon)
    return _shown(payee)


@router.delete(
    "/{member}/payees/{payee}",
    operation_id="remove_payee",
    summary="Remove a payee",
    status_code=204,
    responses=errors(),
)
def remove_payee(member: MemberId, payee: str, call: Naming, afterwards: BackgroundTasks) -> None:
    """Remove a payee at once. It takes no proof: nothing is paid by it; the member is told."""
    person = found(call, member)
    payees.remove(call.tx, call.services.keyring, person, path_id("pye", payee), call.now)
    call.audit("member.payee.removed", payee)
    afterwards.add_task(call.services.codes.send_notices_soon)


def _shown(payee: Payee) -> PayeeOut:
    return PayeeOut(
        id=public_id("pye", payee.id),
        name=payee.name,
        rail=payee.rail,
        destination=dict(payee.destination),
        beneficiary=public_id("ben", payee.beneficiary_id) if payee.beneficiary_id is not None else None,
        state=payee.state,
        proposed_at=payee.proposed_at,
        released_at=payee.released_at,
        effective_at=payee.effective_at,
        change=public_id("chg", payee.change_id) if payee.change_id is not None else None,
    )
