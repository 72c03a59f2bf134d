"""A member's new phone."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from api.v1.finding import found
from api.v1.proofs import ChangeOut, ProofIn, Proving, change_out, proven
from api.v1.schemas import ROUTE_CLASS, In, MemberId, errors
from ledger.errors import InvalidInput
from ledger.ids import public_id
from products.members import devices, waiting
from products.members.phones import e164

router = APIRouter(prefix="/v1/members", tags=["member's proof"], route_class=ROUTE_CLASS)


class PhoneIn(In):
    """A new phone, with the member's proof (purpose `phone`) and that the new phone is theirs (purpose `new_phone`)."""

    phone: Annotated[str, Field(min_length=4, max_length=32, examples=["+971501234567"])]
    phone_proof: Annotated[ProofIn, Field(description="the code sent to the new phone")]
    proof: Annotated[
        ProofIn | None,
        Field(description="by the old phone or a device; left out only where the member has neither"),
    ] = None


@router.post(
    "/{member}/phone",
    operation_id="change_phone",
    summary="Change the member's phone",
    status_code=202,
    responses=errors(409),
)
def change_phone(member: MemberId, body: PhoneIn, call: Proving, afterwards: BackgroundTasks) -> ChangeOut:
    """Ask for a new phone. It takes effect in 72 hours; until then codes go to the old one, which is told and can stop it."""
    person = found(call, member)
    phone = e164(body.phone)
    has_none = waiting.phone_in_effect(call.tx, call.services.keyring, person, call.now) is None
    if body.proof is not None:
        proven(call, person, "phone", body.proof)
    elif not (has_none and not devices.effective(call.tx, call.services.keyring, person, call.now)):
        raise InvalidInput("A new phone takes a proof by the old one, or by a device.", pointer="/proof")
    if body.phone_proof.code is None:
        raise InvalidInput("A phone is confirmed by the code that was sent to it.", pointer="/phone_proof")
    proven(call, person, "new_phone", body.phone_proof, field="phone_proof")
    change = waiting.ask_phone(
        call.tx,
        call.services.keyring,
        person,
        phone,
        public_url=call.services.settings.public_url,
        at=call.now,
    )
    call.audit("member.phone.asked", public_id("chg", change.id))
    afterwards.add_task(call.services.codes.send_notices_soon)
    return change_out(change)
