"""Members who may be one person, for managers: known by the same phone or document at different partners."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from api.deps import Call, writing
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.finding import rules_of
from api.v1.schemas import ROUTE_CLASS, Instant, Out, Page, errors
from ledger.ids import public_id
from products.members import duplicates

router = APIRouter(prefix="/v1/duplicates", tags=["members"], route_class=ROUTE_CLASS)

_LIST = "list_duplicates"
_SCOPE = "duplicates:read"


class DuplicateOut(Out):
    """One of them."""

    id: Annotated[str, Field(examples=[f"mem_{'0' * 26}"])]
    partner: Annotated[str, Field(examples=[f"ptn_{'0' * 26}"])]
    programme: str
    registered_at: Instant


class DuplicatesOut(Out):
    """Members who are known by the same. What it is stays unsaid."""

    known_by: Annotated[duplicates.Kind, Field(examples=["phone"])]
    members: list[DuplicateOut]


@router.get("", operation_id=_LIST, summary="Read who may be one person", responses=errors())
def list_duplicates(
    call: Annotated[Call, writing(_SCOPE)], limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[DuplicatesOut]:
    """Groups of members who share a phone or a document, by the oldest registration among them.

    For managers and auditors of the programmes; no partner reads it. That two members are one person is for the person
    to prove.
    """
    position = call.read_cursor(cursor, _LIST)
    programmes = call.actor.sight([_SCOPE]).programmes
    groups = duplicates.groups(
        call.tx,
        programmes=programmes,
        after=_after(position),
        limit=limit + 1,
    )
    following: list[int | str] | None = None
    if len(groups) > limit:
        first, kind, tag = groups[limit - 1].position
        following = [str(first), kind, tag]
    call.audit("duplicates.read", "duplicates", groups=min(len(groups), limit))
    return Page(
        data=[
            DuplicatesOut(
                known_by=group.kind,
                members=[
                    DuplicateOut(
                        id=public_id("mem", one.link_id),
                        partner=public_id("ptn", one.partner_id),
                        programme=rules_of(call, one.programme_id).slug,
                        registered_at=one.registered_at,
                    )
                    for one in group.members
                ],
            )
            for group in groups[:limit]
        ],
        next_cursor=call.write_cursor(following, _LIST),
    )


def _after(position: Sequence[int | str] | None) -> duplicates.Position | None:
    if position is None:
        return None
    first, kind, tag = position
    return UUID(str(first)), "document" if kind == "document" else "phone", str(tag)
