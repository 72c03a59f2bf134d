"""Deliveries: every webhook that was received, and what became of it."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.csv_export import CSV, AsCsv, export
from api.deps import Call, calling, path_id
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.v1.schemas import ROUTE_CLASS, Instant, Out, Page, errors
from integrations.inbox import queries
from integrations.inbox.queries import DeliveryView
from ledger.ids import public_id

router = APIRouter(prefix="/v1/deliveries", tags=["deliveries"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("deliveries:read")]
State = Literal[
    "queued",
    "posted",
    "duplicate",
    "reversed",
    "unallocated",
    "quarantined",
    "parked",
    "ignored",
    "conflict",
]


class DeliveryOut(Out):
    """A received webhook with its standing outcome."""

    id: Annotated[str, Field(examples=[f"dlv_{'0' * 26}"])]
    kind: str
    type: str
    state: Annotated[str, Field(description="`queued` until it is processed", examples=["posted"])]
    reason: str | None
    detail: dict[str, Any] | None
    remittance: str | None
    received_at: Instant
    processed_at: Instant | None
    attempts: int


class AttemptOut(Out):
    """One outcome in a delivery's history."""

    attempt: int
    state: str
    reason: str | None
    remittance: str | None
    processed_at: Instant


class DeliveryWithHistory(DeliveryOut):
    """A received webhook with every outcome that it has had."""

    history: list[AttemptOut]


@router.get(
    "",
    operation_id="list_deliveries",
    summary="List deliveries",
    response_model=Page[DeliveryOut],
    responses={200: CSV, **errors()},
)
def list_deliveries(
    call: Reading,
    as_csv: AsCsv,
    state: Annotated[
        list[State] | None, Query(max_length=10, description="only those in these states")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[DeliveryOut] | Response:
    """Deliveries in the order in which they were committed; nothing appears behind a cursor later."""
    states = sorted(set(state or ()))
    if as_csv:
        return export(
            call, "deliveries", DeliveryOut, lambda after: _deliveries(call, states, LIMIT_MAX, after), cursor
        )
    return _deliveries(call, states, limit, cursor)


def _deliveries(call: Call, states: list[State], limit: int, cursor: str | None) -> Page[DeliveryOut]:
    at = call.read_cursor(cursor, "deliveries", states=states)
    rows = queries.deliveries(
        call.tx,
        call.actor.partner_id,
        states=states,
        after=(int(at[0]), int(at[1]), UUID(str(at[2]))) if at else None,
        limit=limit + 1,
    )
    shown = rows[:limit]
    last = shown[-1] if len(rows) > limit else None
    position: list[int | str] | None = [last.era, last.xid, str(last.id)] if last else None
    return Page(
        data=[DeliveryOut(**_fields(row)) for row in shown],
        next_cursor=call.write_cursor(position, "deliveries", states=states),
    )


@router.get("/{delivery}", operation_id="get_delivery", summary="Read a delivery", responses=errors())
def get_delivery(
    delivery: Annotated[str, Path(max_length=64, description="a delivery's id, `dlv_…`")], call: Reading
) -> DeliveryWithHistory:
    """What became of a delivery, and every outcome that it has had."""
    found = queries.delivery(call.tx, path_id("dlv", delivery))
    attempts = [
        AttemptOut(
            attempt=one.attempt,
            state=one.state,
            reason=one.reason,
            remittance=public_id("rmt", one.remittance_id) if one.remittance_id else None,
            processed_at=one.processed_at,
        )
        for one in queries.history(call.tx, found.id)
    ]
    return DeliveryWithHistory(**_fields(found), history=attempts)


def _fields(view: DeliveryView) -> dict[str, Any]:
    return {
        "id": public_id("dlv", view.id),
        "kind": view.kind,
        "type": view.event_type,
        "state": view.state,
        "reason": view.reason,
        "detail": view.detail,
        "remittance": public_id("rmt", view.remittance_id) if view.remittance_id else None,
        "received_at": view.received_at,
        "processed_at": view.processed_at,
        "attempts": view.attempts,
    }
