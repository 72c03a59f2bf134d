"""Webhook endpoints: where a partner wants its events, what was delivered to them, and sending again."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from api.deps import Call, calling, path_id
from api.pagination import CURSOR_CHARACTERS_MAX, LIMIT_DEFAULT, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, In, Instant, Out, Page, Text, errors
from integrations.outbound import endpoints, queries
from integrations.outbound.addresses import URL_CHARACTERS_MAX
from integrations.outbound.catalogue import EventType
from integrations.outbound.endpoints import Endpoint, Wanted
from integrations.outbound.queries import DeliveryView
from integrations.outbound.signing import EVENT_PREFIX
from ledger.ids import public_id

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["events"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("endpoints:read")]
Writing = Annotated[Call, calling("endpoints:write")]
EndpointId = Annotated[
    str, Path(max_length=64, description="an endpoint's id, `whe_…`", examples=[f"whe_{'0' * 26}"])
]
EventId = Annotated[
    str, Path(max_length=64, description="an event's id, `evt_…`", examples=[f"evt_{'0' * 26}"])
]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=URL_CHARACTERS_MAX, strict=True),
    Field(
        description="`https://` and a full domain name, port 443; in a sandbox also `http://127.0.0.1:port`",
        examples=["https://hooks.acme.example/mizan"],
    ),
]
Types = Annotated[
    list[EventType],
    Field(
        max_length=50,
        description="the types of events to send; none: all, later ones too",
        examples=[["remittance.allocated", "payout.paid"]],
    ),
]
State = Literal["waiting", "delivered", "failed"]


class EndpointIn(In):
    """Where to send what."""

    url: Url
    event_types: Types = Field(default_factory=list)
    description: Text | None = None


class EndpointChangeIn(In):
    """What to change; what is left out stays."""

    url: Url | None = None
    event_types: Types | None = None
    description: Text | None = None


class ReplayIn(In):
    """Which events to send again."""

    since: Annotated[Instant, Field(description="events that happened from then on")]
    which: Annotated[
        Literal["all", "failed"],
        Field(description="`failed`: only those that did not arrive, or were never queued for this endpoint"),
    ] = "all"
    cursor: Annotated[
        str | None,
        Field(max_length=CURSOR_CHARACTERS_MAX, description="`next_cursor` of the replay before, to go on"),
    ] = None


class EndpointOut(Out):
    """An endpoint."""

    id: Annotated[str, Field(examples=[f"whe_{'0' * 26}"])]
    url: str
    description: str | None
    event_types: list[str]
    state: Literal["enabled", "disabled"]
    reason: Annotated[
        Literal["asked", "gone", "failing"] | None,
        Field(description="why it is disabled: you asked, it answered 410, or nothing arrived for 5 days"),
    ]
    failing_since: Annotated[Instant | None, Field(description="nothing was delivered since then")]
    created_at: Instant
    changed_at: Instant


class NewEndpointOut(EndpointOut):
    """An endpoint, and the secret that its events are signed with: shown this once."""

    secret: Annotated[str, Field(examples=["whsec_…"])]


class EndpointSecretOut(Out):
    """A new secret, shown this once. Until then events carry the signatures of both."""

    secret: Annotated[str, Field(examples=["whsec_…"])]
    former_expires_at: Instant


class EventDeliveryOut(Out):
    """An event for an endpoint, and how far it has come."""

    event: Annotated[str, Field(examples=[f"evt_{'0' * 26}"])]
    type: str
    member: str | None
    state: Annotated[
        State, Field(description="`failed`: given up; it can be replayed as long as the event is kept")
    ]
    reason: Annotated[
        Literal["exhausted", "endpoint_gone", "endpoint_disabled", "endpoint_removed"] | None,
        Field(description="why it was given up"),
    ]
    attempts: int
    last_status: Annotated[int | None, Field(description="HTTP status of the last attempt, if there was one")]
    last_error: Annotated[str | None, Field(description="what went wrong with it", examples=["timeout"])]
    next_attempt_at: Annotated[
        Instant | None, Field(description="when the member's oldest waiting event is tried next")
    ]
    queued_at: Instant
    finished_at: Instant | None


class EventAttemptOut(Out):
    """One attempt; bodies are not kept."""

    number: int
    started_at: Instant
    milliseconds: int
    status: int | None
    error: Annotated[
        str | None,
        Field(
            description="`status` (answered, but not 2xx), `timeout`, `dns`, `address_refused`, `url_refused`, `connection`, `tls`,"
            " `protocol`; null: delivered"
        ),
    ]


class EventDeliveryWithHistory(EventDeliveryOut):
    """An event for an endpoint, with every attempt."""

    history: list[EventAttemptOut]


class ReplayOut(Out):
    """What was queued again."""

    queued: int
    next_cursor: Annotated[
        str | None, Field(description="there are more: send it again with this as `cursor`")
    ]


@router.post(
    "",
    operation_id="create_webhook_endpoint",
    summary="Register an endpoint",
    status_code=201,
    responses=errors(409),
)
def create_webhook_endpoint(body: EndpointIn, call: Writing) -> NewEndpointOut:
    """Register an endpoint: it is sent every event of its types from now on. Its secret is shown this once."""
    wanted = Wanted(body.url, tuple(body.event_types), body.description or "")
    made, secret = endpoints.create(
        call.tx,
        call.services.keyring,
        call.services.clock,
        call.partner,
        wanted,
        loopback=call.services.loopback_endpoints,
    )
    call.audit("endpoint.created", made.public_id, event_types=list(made.event_types))
    return NewEndpointOut(**_fields(made), secret=secret)


@router.get("", operation_id="list_webhook_endpoints", summary="List endpoints", responses=errors())
def list_webhook_endpoints(call: Reading) -> Page[EndpointOut]:
    """Your endpoints, oldest first; all on one page, as there are ten at most."""
    found = endpoints.endpoints_of(call.tx, call.partner)
    return Page(data=[EndpointOut(**_fields(one)) for one in found], next_cursor=None)


@router.get(
    "/{endpoint}", operation_id="get_webhook_endpoint", summary="Read an endpoint", responses=errors()
)
def get_webhook_endpoint(endpoint: EndpointId, call: Reading) -> EndpointOut:
    """An endpoint and how it stands."""
    return EndpointOut(**_fields(_found(call, endpoint)))


@router.patch(
    "/{endpoint}", operation_id="change_webhook_endpoint", summary="Change an endpoint", responses=errors()
)
def change_webhook_endpoint(endpoint: EndpointId, body: EndpointChangeIn, call: Writing) -> EndpointOut:
    """Change where events go, or which ones. A change of types counts for events from now on."""
    known = _found(call, endpoint)
    wanted = Wanted(
        body.url if body.url is not None else known.url,
        tuple(body.event_types) if body.event_types is not None else known.event_types,
        body.description if body.description is not None else known.description,
    )
    changed = endpoints.change(
        call.tx, call.services.clock, known, wanted, loopback=call.services.loopback_endpoints
    )
    call.audit("endpoint.changed", changed.public_id, event_types=list(changed.event_types))
    return EndpointOut(**_fields(changed))


@router.delete(
    "/{endpoint}",
    operation_id="remove_webhook_endpoint",
    summary="Remove an endpoint",
    status_code=204,
    responses=errors(),
)
def remove_webhook_endpoint(endpoint: EndpointId, call: Writing) -> None:
    """Send nothing to it any more, and forget its secrets."""
    known = _found(call, endpoint)
    endpoints.remove(call.tx, call.services.clock, known)
    call.audit("endpoint.removed", known.public_id)


@router.post(
    "/{endpoint}/secret",
    operation_id="rotate_webhook_endpoint_secret",
    summary="Rotate an endpoint's secret",
    status_code=201,
    responses=errors(),
)
def rotate_webhook_endpoint_secret(endpoint: EndpointId, call: Writing) -> EndpointSecretOut:
    """Make a new secret. For a day every event carries two signatures, of the new one and of the one before."""
    known = _found(call, endpoint)
    secret, ends = endpoints.rotate_secret(call.tx, call.services.keyring, call.services.clock, known)
    call.audit("endpoint.secret.rotated", known.public_id)
    return EndpointSecretOut(secret=secret, former_expires_at=ends)


@router.post(
    "/{endpoint}/disable",
    operation_id="disable_webhook_endpoint",
    summary="Disable an endpoint",
    responses=errors(),
)
def disable_webhook_endpoint(endpoint: EndpointId, call: Writing) -> EndpointOut:
    """Send nothing to it until it is enabled. What waited is given up; replay it when it is there again."""
    disabled = endpoints.disable(call.tx, call.services.clock, _found(call, endpoint))
    call.audit("endpoint.disabled", disabled.public_id)
    return EndpointOut(**_fields(disabled))


@router.post(
    "/{endpoint}/enable",
    operation_id="enable_webhook_endpoint",
    summary="Enable an endpoint",
    responses=errors(),
)
def enable_webhook_endpoint(endpoint: EndpointId, call: Writing) -> EndpointOut:
    """Send to it again, from the next event on. What it missed is sent when you replay it."""
    enabled = endpoints.enable(call.tx, call.services.clock, _found(call, endpoint))
    call.audit("endpoint.enabled", enabled.public_id)
    return EndpointOut(**_fields(enabled))


@router.get(
    "/{endpoint}/deliveries",
    operation_id="list_event_deliveries",
    summary="List an endpoint's deliveries",
    responses=errors(),
)
def list_event_deliveries(
    endpoint: EndpointId,
    call: Reading,
    state: Annotated[
        list[State] | None, Query(max_length=3, description="only those in these states")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[EventDeliveryOut]:
    """What was queued for an endpoint, the newest event first."""
    known = _found(call, endpoint)
    states = sorted(set(state or ()))
    at = call.read_cursor(cursor, "event deliveries", endpoint=endpoint, states=states)
    rows = queries.deliveries(
        call.tx, known, states=states, before=int(at[0]) if at else None, limit=limit + 1
    )
    last = rows[limit - 1].seq if len(rows) > limit else None
    return Page(
        data=[EventDeliveryOut(**_delivery(row)) for row in rows[:limit]],
        next_cursor=call.write_cursor(
            [last] if last is not None else None, "event deliveries", endpoint=endpoint, states=states
        ),
    )


@router.get(
    "/{endpoint}/deliveries/{event}",
    operation_id="get_event_delivery",
    summary="Read a delivery's history",
    responses=errors(),
)
def get_event_delivery(endpoint: EndpointId, event: EventId, call: Reading) -> EventDeliveryWithHistory:
    """What became of one event at one endpoint: every attempt with its status and duration."""
    known, event_id = _found(call, endpoint), path_id(EVENT_PREFIX, event)
    return _with_history(call, known, event_id)


@router.post(
    "/{endpoint}/deliveries/{event}/replay",
    operation_id="replay_event",
    summary="Send one event again",
    status_code=202,
    responses=errors(409),
)
def replay_event(endpoint: EndpointId, event: EventId, call: Writing) -> EventDeliveryWithHistory:
    """Send one of your events to the endpoint again, or for the first time: the same id and body, a new schedule."""
    known, event_id = _found(call, endpoint), path_id(EVENT_PREFIX, event)
    queries.replay(call.tx, call.services.clock, known, event_id)
    call.audit("endpoint.replayed", known.public_id, event=event)
    return _with_history(call, known, event_id)


@router.post(
    "/{endpoint}/replay",
    operation_id="replay_events",
    summary="Send events again since a time",
    status_code=202,
    responses=errors(409),
)
def replay_events(endpoint: EndpointId, body: ReplayIn, call: Writing) -> ReplayOut:
    """Send again what happened since a time, oldest first, at most 10,000 events at once; ids stay the same."""
    known = _found(call, endpoint)
    filters = {"endpoint": endpoint, "since": body.since.isoformat(), "which": body.which}
    at = call.read_cursor(body.cursor, "event replay", **filters)
    done = queries.replay_since(
        call.tx,
        call.services.clock,
        known,
        body.since,
        body.which,
        after=int(at[0]) if at else 0,
    )
    call.audit("endpoint.replayed", known.public_id, since=body.since.isoformat(), queued=done.queued)
    cursor = call.write_cursor([done.last] if done.last is not None else None, "event replay", **filters)
    return ReplayOut(queued=done.queued, next_cursor=cursor)


def _found(call: Call, endpoint: str) -> Endpoint:
    return endpoints.find(call.tx, path_id(endpoints.PREFIX, endpoint), call.partner)


def _with_history(call: Call, endpoint: Endpoint, event_id: UUID) -> EventDeliveryWithHistory:
    attempts = [
        EventAttemptOut(
            number=one.number,
            started_at=one.started_at,
            milliseconds=one.milliseconds,
            status=one.status,
            error=one.error,
        )
        for one in queries.history(call.tx, endpoint, event_id)
    ]
    return EventDeliveryWithHistory(
        **_delivery(queries.delivery(call.tx, endpoint, event_id)), history=attempts
    )


def _fields(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.public_id,
        "url": endpoint.url,
        "description": endpoint.description or None,
        "event_types": list(endpoint.event_types),
        "state": endpoint.state,
        "reason": endpoint.reason,
        "failing_since": endpoint.failing_since,
        "created_at": endpoint.created_at,
        "changed_at": endpoint.changed_at,
    }


def _delivery(view: DeliveryView) -> dict[str, Any]:
    return {
        "event": public_id(EVENT_PREFIX, view.event_id),
        "type": view.type,
        "member": public_id("mem", view.link_id) if view.link_id is not None else None,
        "state": view.state,
        "reason": view.reason,
        "attempts": view.attempts,
        "last_status": view.status,
        "last_error": view.error,
        "next_attempt_at": view.due_at,
        "queued_at": view.queued_at,
        "finished_at": view.finished_at,
    }
