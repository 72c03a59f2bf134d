"""Consents, each given as a mandate: to deduct contributions, to see the whole account, to work on a case."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter
from pydantic import Field

from api.deps import Call, calling, writing
from api.v1.finding import found, found_as_worker, rules_of
from api.v1.proofs import ProofIn, proven
from api.v1.schemas import (
    ROUTE_CLASS,
    In,
    Instant,
    MemberId,
    MoneyIn,
    MoneyOut,
    Out,
    Reference,
    Text,
    errors,
)
from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.ids import public_id
from products.members import mandates
from products.members.models import Mandate, Member, NewMandate, Purpose
from products.programmes.model import Programme
from products.remittances import cooling_off

router = APIRouter(prefix="/v1/members/{member}/consents", tags=["members"], route_class=ROUTE_CLASS)

_SCOPE: Final = "consents:write"


class MandateIn(In):
    """The member's consent to deductions."""

    text_version: Annotated[
        Reference, Field(description="which text the member agreed to", examples=["2026-1"])
    ]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", examples=["rw"])]
    given_at: Instant | None = None
    evidence: Annotated[Text | None, Field(description="where the partner keeps the proof")] = None
    limit_per_month: Annotated[
        MoneyIn | None, Field(description="the most that may be deducted in a calendar month")
    ] = None


class ConsentIn(MandateIn):
    """A consent for one purpose."""

    purpose: Annotated[
        Purpose,
        Field(
            description="`contributions`: deduct, and show what came through you. `whole_view`: show you the whole account. "
            "`casework`: let an organisation see it. The last two take the member's proof."
        ),
    ] = "contributions"
    proof: Annotated[
        ProofIn | None,
        Field(description="of a challenge with the purpose `consent`, for this body without it"),
    ] = None


class MandateOut(Out):
    """A consent: in force from `given_at` until it is withdrawn, asleep while it is paused."""

    id: Annotated[str, Field(examples=[f"con_{'0' * 26}"])]
    purpose: Purpose
    state: Literal["in_force", "paused", "ended"]
    text_version: str
    language: str
    given_at: Instant
    limit_per_month: MoneyOut | None
    paused_at: Instant | None
    withdrawn_at: Instant | None
    cooling_off_until: Annotated[
        Instant | None, Field(description="withdrawn before: what was collected and not paid in goes back")
    ]


class MandateChange(In):
    """What becomes of the consent in force."""

    state: Literal["in_force", "paused", "ended"]
    purpose: Purpose = "contributions"


class MandatesOut(Out):
    """All consents of a member."""

    data: list[MandateOut]


@router.get("", operation_id="list_mandates", summary="Read consents", responses=errors())
def list_mandates(member: MemberId, call: Annotated[Call, calling("members:read")]) -> MandatesOut:
    """Every consent given through the caller's partner, oldest first, ended ones too."""
    return MandatesOut(data=[mandate_out(mandate) for mandate in found(call, member).mandates])


@router.post(
    "",
    operation_id="give_mandate",
    summary="Record a consent",
    status_code=201,
    responses=errors(),
)
def give_mandate(member: MemberId, body: ConsentIn, call: Annotated[Call, calling(_SCOPE)]) -> MandateOut:
    """Record the member's consent; the one in force for the same purpose, if any, ends.

    A partner's word is enough for `contributions`. What lets it see more takes the member's proof.
    """
    person = found(call, member)
    given = mandate_in(
        body, rules_of(call, person.programme_id), call.now, purpose=body.purpose, first=_is_first(person)
    )
    if body.proof is not None:
        proof = proven(call, person, "consent", body.proof)
        given = replace(given, proof=proof.challenge)
    mandate = mandates.give(call.tx, call.services.keyring, person, given, call.now)
    call.audit("member.consent.given", public_id("con", mandate.id), purpose=body.purpose)
    return mandate_out(mandate)


@router.patch(
    "",
    operation_id="change_mandate",
    summary="Pause, resume or withdraw a consent",
    responses=errors(409),
)
def change_mandate(
    member: MemberId, body: MandateChange, call: Annotated[Call, writing(_SCOPE)]
) -> MandateOut:
    """Pause, resume or end the consent that is in force; it holds from the next event and the next request.

    Withdrawn while it cools off, what was collected under it and has not been paid in is taken back: those remittances
    are reversed, and you return the money. Withdrawing takes no proof: nobody is kept in.
    """
    person = found_as_worker(call, member, _SCOPE)
    act: Callable[[Tx, Member, datetime, Purpose], Mandate] = {
        "in_force": mandates.resume,
        "paused": mandates.pause,
        "ended": mandates.withdraw,
    }[body.state]
    mandate = act(call.tx, person, call.now, body.purpose)
    taken_back = (
        cooling_off.take_back(call.tx, call.services.books, person, mandate) if body.state == "ended" else 0
    )
    call.audit(
        "member.consent.changed",
        public_id("con", mandate.id),
        purpose=body.purpose,
        state=body.state,
        taken_back=taken_back,
    )
    return mandate_out(mandate)


def mandate_in(
    given: MandateIn,
    programme: Programme,
    now: datetime,
    *,
    purpose: Purpose = "contributions",
    first: bool = True,
    pointer: str = "",
) -> NewMandate:
    """A consent as the domain knows it. The first mandate of a member cools off as long as the programme says.

    Raises InvalidInput for a limit that the programme's currency or the purpose does not fit.
    """
    limit = given.limit_per_month.money() if given.limit_per_month is not None else None
    if limit is not None and (purpose != "contributions" or limit.currency != programme.currency):
        raise InvalidInput(
            f"A limit is of contributions, in {programme.currency}.", pointer=f"{pointer}/limit_per_month"
        )
    if limit is not None and limit.amount == 0:
        raise InvalidInput(
            "A limit is more than nothing; pause the consent instead.", pointer=f"{pointer}/limit_per_month"
        )
    given_at = given.given_at or now
    days = programme.cooling_off_days if purpose == "contributions" and first else 0
    return NewMandate(
        given.text_version,
        given.language,
        given.given_at,
        given.evidence,
        limit,
        purpose,
        cooling_off_until=given_at + timedelta(days=days) if days else None,
    )


def mandate_out(mandate: Mandate) -> MandateOut:
    """A consent as it is shown."""
    limit = mandate.limit_per_month
    state: Literal["in_force", "paused", "ended"] = (
        "ended"
        if mandate.withdrawn_at is not None
        else "paused"
        if mandate.paused_at is not None
        else "in_force"
    )
    return MandateOut(
        id=public_id("con", mandate.id),
        purpose=mandate.purpose,
        state=state,
        text_version=mandate.text_version,
        language=mandate.language,
        given_at=mandate.given_at,
        limit_per_month=MoneyOut.of(limit.amount, limit.currency) if limit is not None else None,
        paused_at=mandate.paused_at,
        withdrawn_at=mandate.withdrawn_at,
        cooling_off_until=mandate.cooling_off_until,
    )


def _is_first(person: Member) -> bool:
    return all(mandate.purpose != "contributions" for mandate in person.mandates)
