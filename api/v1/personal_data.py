"""What the member may ask for all that is held on them: to have it, and to have it gone."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field

from api.deps import Call, calling, writing
from api.problems import ProblemError
from api.v1.finding import found, found_as_worker
from api.v1.proofs import ProofIn, proven
from api.v1.schemas import ROUTE_CLASS, In, Instant, MemberId, Out, errors
from ledger.ids import public_id
from products.members import erasure, export, linking
from products.members.erasure import ErasureBlocked

router = APIRouter(prefix="/v1/members/{member}", tags=["members"], route_class=ROUTE_CLASS)

_EXPORT: Final = "export:read"
_ERASURE: Final = "erasure:write"


class ExportIn(In):
    """The member's word that this partner may hand over everything."""

    proof: Annotated[
        ProofIn, Field(description="of a challenge with the purpose `export`, for an empty body")
    ]


class ErasureIn(In):
    """The member's word to be erased for good."""

    proof: Annotated[
        ProofIn, Field(description="of a challenge with the purpose `erasure`, for an empty body")
    ]


class ErasedOut(Out):
    """The member is erased."""

    member: Annotated[str, Field(examples=[f"mem_{'0' * 26}"])]
    erased_at: Instant


@router.get(
    "/export",
    operation_id="export_member",
    summary="Export what came through you",
    response_model=dict[str, Any],
    responses=errors(),
)
def export_member(member: MemberId, call: Annotated[Call, calling(_EXPORT)]) -> dict[str, Any]:
    """Everything that is held on the member and came through the caller's partner, as one document."""
    person = found(call, member)
    call.audit("member.exported", member, whole=False)
    return export.export(call.tx, call.services.books, [person.link_id], call.now)


@router.post(
    "/export",
    operation_id="export_whole_member",
    summary="Export everything, with the member's proof",
    response_model=dict[str, Any],
    responses=errors(),
)
def export_whole_member(
    member: MemberId, body: ExportIn, call: Annotated[Call, writing(_EXPORT)]
) -> dict[str, Any]:
    """Everything that is held on the person, through whichever partner it came, as one document."""
    person = found_as_worker(call, member, _EXPORT)
    proven(call, person, "export", body.proof)
    members = linking.members_of_person(call.tx, person.member_id)
    links = export.links_of(call.tx, sorted({person.member_id, *members}))
    call.audit("member.exported", member, whole=True)
    return export.export(call.tx, call.services.books, links, call.now)


@router.post(
    "/erasure",
    operation_id="erase_member",
    summary="Erase the member, with the member's proof",
    responses=errors(409),
)
def erase_member(member: MemberId, body: ErasureIn, call: Annotated[Call, writing(_ERASURE)]) -> ErasedOut:
    """Destroy the member's key: nobody can read what was personal again, and the books keep a pseudonym.

    Refused while the member has something here: `reasons` are `balances`, `owed`, `match` and `cover`, and `detail` says
    what has to happen first. Registrations through other partners are erased where they were made.
    """
    person = found_as_worker(call, member, _ERASURE)
    proven(call, person, "erasure", body.proof)
    try:
        erasure.erase(call.tx, person.member_id, call.now)
    except ErasureBlocked as blocked:
        raise ProblemError(blocked.code, blocked.detail, reasons=list(blocked.reasons)) from blocked
    call.audit("member.erased", member)
    return ErasedOut(member=public_id("mem", person.link_id), erased_at=call.now)
