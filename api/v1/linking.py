"""One person at several partners, linked by the person."""

from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from api.v1.finding import found
from api.v1.proofs import ProofIn, Proving, proven
from api.v1.schemas import ROUTE_CLASS, In, Instant, MemberId, Out, errors
from products.members import linking

router = APIRouter(prefix="/v1/members", tags=["member's proof"], route_class=ROUTE_CLASS)


class OfferIn(In):
    """The member's proof (purpose `link`)."""

    offer: Literal[True]
    proof: ProofIn


class OfferOut(Out):
    """What the member types into the other partner's app."""

    code: Annotated[str, Field(examples=["7kq2-m4xp-9dzr"])]
    expires_at: Instant


class LinkIn(In):
    """A linking code with the member's proof (purpose `link`)."""

    code: Annotated[
        str, Field(min_length=12, max_length=20, pattern=r"^[0-9A-Za-z -]+$", examples=["7kq2-m4xp-9dzr"])
    ]
    proof: ProofIn


class LinkOut(Out):
    """The member is one person with the one who was shown the code. Whose partner that is, is not said."""

    linked: Literal[True]


class UnlinkIn(In):
    """The member's proof (purpose `link`)."""

    leave: Literal[True]
    proof: ProofIn


@router.post(
    "/{member}/link-offers",
    operation_id="offer_link",
    summary="Show the member a linking code",
    status_code=201,
    responses=errors(),
)
def offer_link(member: MemberId, body: OfferIn, call: Proving) -> OfferOut:
    """A code for the member to type into another partner's app. Nothing is looked up: the answer tells nothing of anyone."""
    person = found(call, member)
    proven(call, person, "link", body.proof)
    offer = linking.offer(call.tx, call.services.keyring, person, call.now)
    call.audit("member.link.offered", member)
    return OfferOut(code=offer.code, expires_at=offer.expires_at)


@router.post(
    "/{member}/links", operation_id="link_member", summary="Link by a linking code", responses=errors()
)
def link_member(member: MemberId, body: LinkIn, call: Proving, afterwards: BackgroundTasks) -> LinkOut:
    """Make this member one person with the one who was shown the code in another partner's app."""
    person = found(call, member)
    proven(call, person, "link", body.proof)
    linking.join(call.tx, call.services.keyring, person, body.code, call.now)
    call.audit("member.linked", member)
    afterwards.add_task(call.services.codes.send_notices_soon)
    return LinkOut(linked=True)


@router.post(
    "/{member}/links/end",
    operation_id="unlink_member",
    summary="Unlink the member",
    status_code=204,
    responses=errors(),
)
def unlink_member(member: MemberId, body: UnlinkIn, call: Proving) -> None:
    """Make the member a person of their own again; the same answer where they were one already."""
    person = found(call, member)
    proven(call, person, "link", body.proof)
    linking.leave(call.tx, person, call.now)
    call.audit("member.unlinked", member)
