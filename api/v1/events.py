"""Events: the feed of what a partner is told, for who was away, or would rather ask."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from api.deps import Call, calling, path_id
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, Instant, Out, Page, errors
from integrations.outbound import feed
from integrations.outbound.catalogue import EventType
from integrations.outbound.signing import EVENT_PREFIX
from ledger.errors import InvalidId
from ledger.ids import parse_public_id, public_id

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("events:read")]


class EventOut(Out):
    """An event: the same as is delivered to endpoints, where `data` has the shape of its `type`."""

    id: Annotated[str, Field(examples=[f"evt_{'0' * 26}"])]
    type: Annotated[str, Field(examples=["remittance.allocated"])]
    timestamp: Annotated[Instant, Field(description="when it was recorded")]
    data: Annotated[dict[str, Any], Field(description="as the `webhooks` of this document say for its type")]


@router.get("", operation_id="list_events", summary="List events", responses=errors())
def list_events(
    call: Reading,
    type_: Annotated[
        list[EventType] | None, Query(alias="type", max_length=50, description="only these types")
    ] = None,
    member: Annotated[
        str | None, Query(max_length=64, description="only those of one member, `mem_…`")
    ] = None,
    after: Annotated[
        str | None,
        Query(max_length=64, description="only those after this event, `evt_…`: the last one that you have"),
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[EventOut]:
    """Your events in the order in which they are told, kept for 90 days; nothing appears behind one that you have seen.

    To follow the feed, ask for what is `after` the last event that you have; `next_cursor` leads through what there is now.
    """
    types = sorted(set(type_ or ()))
    at = call.read_cursor(cursor, "events", types=types, member=member, after=after)
    begin = int(at[0]) if at else 0
    if at is None and after is not None:
        begin = feed.event(call.tx, path_id(EVENT_PREFIX, after), call.partner).seq
    try:
        link_id = parse_public_id("mem", member) if member is not None else None
    except InvalidId:
        return Page(data=[], next_cursor=None)
    rows = feed.events(
        call.tx,
        call.partner,
        types=types,
        link_id=link_id,
        after=begin,
        limit=limit + 1,
    )
    last = rows[limit - 1].seq if len(rows) > limit else None
    return Page(
        data=[_shown(row) for row in rows[:limit]],
        next_cursor=call.write_cursor(
            [last] if last is not None else None, "events", types=types, member=member, after=after
        ),
    )


@router.get("/{event}", operation_id="get_event", summary="Read an event", responses=errors())
def get_event(
    event: Annotated[
        str, Path(max_length=64, description="an event's id, `evt_…`", examples=[f"evt_{'0' * 26}"])
    ],
    call: Reading,
) -> EventOut:
    """One event."""
    return _shown(feed.event(call.tx, path_id(EVENT_PREFIX, event), call.partner))


def _shown(one: feed.Event) -> EventOut:
    return EventOut(
        id=public_id(EVENT_PREFIX, one.id), type=one.type, timestamp=one.occurred_at, data=one.data
    )
