"""One person at several partners, linked by the person."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from api.deps import Call, path_id, writing
from api.v1.balances import BalancesOut, rendered
from api.v1.finding import found, found_as_worker, rules_of
from api.v1.proofs import ProofIn, Proving, proven
from api.v1.schemas import ROUTE_CLASS, In, Instant, MemberId, Out, errors
from products.members import linking, mandates, registry
from products.members.models import Purpose
from products.savings import queries
from products.savings.rules import local_date

router = APIRouter(prefix="/v1/members", tags=["member's proof"], route_class=ROUTE_CLASS)


_BALANCES: Final = "balances:read"
_WHOLE: Final[tuple[Purpose, ...]] = ("whole_view", "casework")


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


class AccountOut(Out):
    """What the person has in one programme through one partner."""

    partner: Annotated[str, Field(description="the partner's or organisation's name")]
    programme: str
    balances: Annotated[
        BalancesOut, Field(description="`member` is the member that was asked for, whoever's account it is")
    ]


class WholeAccountOut(Out):
    """Everything that the person has, whichever partner it came through."""

    accounts: list[AccountOut]


@router.get(
    "/{member}/whole-account",
    operation_id="get_whole_account",
    summary="Read the whole account of a linked person",
    responses=errors(),
)
def get_whole_account(member: MemberId, call: Annotated[Call, writing(_BALANCES)]) -> WholeAccountOut:
    """Balances over all members that were proven to be one person.

    A partner sees them while the member's consent `whole_view` (an organisation: `casework`) is in force, and what came
    through it alone without; staff see them in their programmes.
    """
    sight = call.actor.sight([_BALANCES])
    if sight.everyones:
        person = registry.find(
            call.tx, call.services.keyring, path_id("mem", member), programmes=sight.programmes
        )
    else:
        person = found_as_worker(call, member, _BALANCES)
    whole = sight.everyones or any(
        mandates.consented(call.tx, person.member_id, call.partner, purpose, call.now) for purpose in _WHOLE
    )
    seen = linking.members_of_person(call.tx, person.member_id) if whole else [person.member_id]
    accounts = []
    for account in linking.accounts_of(call.tx, call.services.keyring, seen):
        if sight.programmes is not None and account.member.programme_id not in sight.programmes:
            continue
        programme = rules_of(call, account.member.programme_id)
        shown = queries.member_balances(
            call.tx,
            call.services.books.programmes,
            account.member,
            today=local_date(programme, call.now),
        )
        accounts.append(
            AccountOut(partner=account.partner, programme=programme.slug, balances=rendered(person, shown))
        )
    return WholeAccountOut(accounts=accounts)


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
