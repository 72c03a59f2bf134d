"""Partners' webhook endpoints: `mizan endpoint create|list|show|change|rotate-secret|disable|enable|remove|deliveries|replay|events`."""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from api.bootstrap import Services
from api.cli import acting, output, session
from integrations.outbound import endpoints, feed, queries
from integrations.outbound.catalogue import EVENT_TYPES
from integrations.outbound.endpoints import Endpoint, Wanted
from integrations.outbound.queries import DeliveryView
from integrations.outbound.signing import EVENT_PREFIX
from ledger.database import Tx
from ledger.errors import InvalidId, NotFound
from ledger.ids import parse_public_id, public_id
from products.remittances import partners

app = typer.Typer(
    name="endpoint", help="Where partners want their events, and what was delivered.", no_args_is_help=True
)

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id, whe_….")]
REPLAYS_MAX = 1_000


class State(StrEnum):
    """What may have become of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@app.command()
@session.command
def create(
    partner: Annotated[str, typer.Argument(help="The partner's slug.")],
    url: Annotated[
        str, typer.Argument(help="https://… on port 443; in a sandbox also http://127.0.0.1:port.")
    ],
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="A type of event to send; repeat it for more. All when left out.", show_default=False
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="Words for people.", show_default=False)] = "",
    as_json: session.AsJson = False,
) -> None:
    """Register an endpoint for a partner. Its secret is shown this once."""
    types = types_said(event)
    with session.services() as services:

        def work(tx: Tx) -> tuple[Endpoint, str]:
            return endpoints.create(
                tx,
                services.keyring,
                services.clock,
                partners.find(tx, partner).id,
                Wanted(url, types, description),
                loopback=services.loopback_endpoints,
            )

        made, secret = acting.run(
            services, work, "endpoint.created", lambda done: done[0].public_id, partner=partner
        )
    if as_json:
        output.as_json({**_json(made, partner), "secret": secret})
        return
    output.fields({"endpoint": made.public_id, "url": made.url, "secret": secret})
    print("The secret is not shown again.")


@app.command("list")
@session.command
def list_(
    partner: Annotated[str | None, typer.Option(help="Only this partner's.", show_default=False)] = None,
    as_json: session.AsJson = False,
) -> None:
    """List endpoints and how they stand."""
    with session.services() as services, services.worker.read() as tx:
        slugs = {one.id: one.slug for one in partners.everyone(tx)}
        found = endpoints.endpoints_of(tx, partners.find(tx, partner).id if partner else None)
    if as_json:
        output.as_json({"data": [_json(one, slugs.get(one.partner_id)) for one in found]})
        return
    output.table(
        ["endpoint", "partner", "url", "events", "state", "failing since"],
        [
            (
                one.public_id,
                slugs.get(one.partner_id),
                one.url,
                ", ".join(one.event_types) or "all",
                _state(one),
                one.failing_since,
            )
            for one in found
        ],
        empty="no endpoint: mizan endpoint create",
    )


@app.command()
@session.command
def show(endpoint: EndpointId, as_json: session.AsJson = False) -> None:
    """Show an endpoint, and how many deliveries are in each state."""
    with session.services() as services, services.worker.read() as tx:
        found = _find(tx, endpoint)
        slugs = {one.id: one.slug for one in partners.everyone(tx)}
        counts = queries.counts(tx, found)
    if as_json:
        output.as_json({**_json(found, slugs.get(found.partner_id)), "deliveries": counts})
        return
    output.fields(
        {
            "endpoint": found.public_id,
            "partner": slugs.get(found.partner_id),
            "url": found.url,
            "description": found.description or None,
            "events": ", ".join(found.event_types) or "all",
            "state": _state(found),
            "failing since": found.failing_since,
            **counts,
        }
    )


@app.command()
@session.command
def change(
    endpoint: EndpointId,
    url: Annotated[
        str | None, typer.Option(help="Where to send them from now on.", show_default=False)
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="A type of event to send from now on, and no other; repeat it for more.", show_default=False
        ),
    ] = None,
    every_event: Annotated[
        bool, typer.Option("--every-event", help="Send every type from now on, later ones too.")
    ] = False,
    description: Annotated[str | None, typer.Option(help="Words for people.", show_default=False)] = None,
    as_json: session.AsJson = False,
) -> None:
    """Change where an endpoint's events go, or which ones; what is left out stays."""
    if event and every_event:
        raise typer.BadParameter("say --event or --every-event")
    if url is None and not event and not every_event and description is None:
        raise typer.BadParameter("say what to change: --url, --event, --every-event or --description")
    types = None if not event and not every_event else types_said(event)
    with session.services() as services:

        def work(tx: Tx) -> Endpoint:
            known = _find(tx, endpoint)
            wanted = Wanted(
                known.url if url is None else url,
                known.event_types if types is None else types,
                known.description if description is None else description,
            )
            return endpoints.change(tx, services.clock, known, wanted, loopback=services.loopback_endpoints)

        changed = acting.run(services, work, "endpoint.changed", endpoint)
    if as_json:
        output.as_json(_json(changed, None))
        return
    output.fields(
        {
            "endpoint": changed.public_id,
            "url": changed.url,
            "description": changed.description or None,
            "events": ", ".join(changed.event_types) or "all",
        }
    )


@app.command("rotate-secret")
@session.command
def rotate_secret(endpoint: EndpointId, as_json: session.AsJson = False) -> None:
    """Make a new secret, shown this once; for a day every event is signed with both."""
    with session.services() as services:
        secret, ends = acting.run(
            services,
            lambda tx: endpoints.rotate_secret(tx, services.keyring, services.clock, _find(tx, endpoint)),
            "endpoint.secret.rotated",
            endpoint,
        )
    if as_json:
        output.as_json({"endpoint": endpoint, "secret": secret, "former_expires_at": ends})
    else:
        output.fields({"endpoint": endpoint, "secret": secret, "the former one until": ends})
        print("The secret is not shown again.")


@app.command()
@session.command
def disable(endpoint: EndpointId, as_json: session.AsJson = False) -> None:
    """Send nothing to an endpoint until it is enabled; what waits is given up and can be replayed."""
    _turn(
        endpoint,
        "endpoint.disabled",
        lambda tx, services, one: endpoints.disable(tx, services.clock, one),
        as_json,
    )


@app.command()
@session.command
def enable(endpoint: EndpointId, as_json: session.AsJson = False) -> None:
    """Send to an endpoint again, from the next event on."""
    _turn(
        endpoint,
        "endpoint.enabled",
        lambda tx, services, one: endpoints.enable(tx, services.clock, one),
        as_json,
    )


@app.command()
@session.command
def remove(endpoint: EndpointId) -> None:
    """Remove an endpoint for good, with its secrets."""
    with session.services() as services:
        acting.run(
            services,
            lambda tx: endpoints.remove(tx, services.clock, _find(tx, endpoint)),
            "endpoint.removed",
            endpoint,
        )
    print(f"{endpoint} is removed")


@app.command()
@session.command
def deliveries(
    endpoint: EndpointId,
    event: Annotated[
        str | None,
        typer.Option(help="Only this event, evt_…, with every attempt.", show_default=False),
    ] = None,
    state: Annotated[
        list[State] | None, typer.Option(help="Only in this state; repeat it for more.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = 50,
    as_json: session.AsJson = False,
) -> None:
    """List what was queued for an endpoint, the newest first; or the attempts of one event."""
    with session.services() as services, services.worker.read() as tx:
        found = _find(tx, endpoint)
        if event is not None:
            event_id = _id(EVENT_PREFIX, event)
            rows = [queries.delivery(tx, found, event_id)]
            attempts = queries.history(tx, found, event_id)
        else:
            rows = queries.deliveries(tx, found, states=[one.value for one in state or ()], limit=limit)
            attempts = []
    if as_json:
        shown = [_delivery(one) for one in rows]
        history = [
            {
                "number": one.number,
                "started_at": one.started_at,
                "milliseconds": one.milliseconds,
                "status": one.status,
                "error": one.error,
            }
            for one in attempts
        ]
        output.as_json({"data": shown} if event is None else {**shown[0], "history": history})
        return
    output.table(
        ["event", "type", "state", "attempts>", "last", "next attempt"],
        [
            (
                public_id(EVENT_PREFIX, one.event_id),
                one.type,
                one.reason or one.state,
                one.attempts,
                one.status or one.error,
                one.due_at,
            )
            for one in rows
        ],
        empty="nothing was queued for it",
    )
    if attempts:
        output.table(
            ["attempt>", "at", "took>", "status", "error"],
            [
                (one.number, one.started_at, f"{one.milliseconds} ms", one.status, one.error)
                for one in attempts
            ],
        )


@app.command()
@session.command
def replay(
    endpoint: EndpointId,
    event: Annotated[str | None, typer.Option(help="This event alone, evt_….", show_default=False)] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Every event from this time on, UTC.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what did not arrive.")] = False,
    as_json: session.AsJson = False,
) -> None:
    """Send one event again, or all since a time, with the same ids and in the same order."""
    if (event is None) == (since is None):
        raise typer.BadParameter("say --event or --since")
    with session.services() as services:
        if since is not None:
            queued = _replay_since(
                services, endpoint, since.replace(tzinfo=UTC), "failed" if failed else "all"
            )
        else:
            event_id = _id(EVENT_PREFIX, event or "")
            acting.run(
                services,
                lambda tx: queries.replay(tx, services.clock, _find(tx, endpoint), event_id),
                "endpoint.replayed",
                endpoint,
                event=event,
            )
            queued = 1
    if as_json:
        output.as_json({"endpoint": endpoint, "queued": queued})
    else:
        print(f"{queued:,} events are queued again")


@app.command()
@session.command
def events(
    partner: Annotated[str, typer.Argument(help="The partner's slug.")],
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this type; repeat it for more.", show_default=False),
    ] = None,
    member: Annotated[
        str | None, typer.Option(help="Only those of one member, mem_….", show_default=False)
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Only those after this event, evt_….", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="The oldest so many.", min=1, max=10_000)] = 50,
    as_json: session.AsJson = False,
) -> None:
    """Read the feed of a partner's events, the oldest first, whatever became of their deliveries."""
    types = types_said(type_)
    link_id = _id("mem", member) if member is not None else None
    with session.services() as services, services.worker.read() as tx:
        of = partners.find(tx, partner).id
        seen = feed.event(tx, _id(EVENT_PREFIX, after), of).seq if after is not None else 0
        found = feed.events(tx, of, types=types, link_id=link_id, after=seen, limit=limit)
    if as_json:
        shown = [
            {
                "id": public_id(EVENT_PREFIX, one.id),
                "type": one.type,
                "timestamp": one.occurred_at,
                "data": one.data,
            }
            for one in found
        ]
        output.as_json({"data": shown})
        return
    output.table(
        ["event", "type", "at", "member"],
        [
            (
                public_id(EVENT_PREFIX, one.id),
                one.type,
                one.occurred_at,
                public_id("mem", one.link_id) if one.link_id is not None else None,
            )
            for one in found
        ],
        empty="no events",
    )


def types_said(given: list[str] | None) -> tuple[str, ...]:
    """The types of events that were said; none: all. Raises `Refused` for one that there isn't."""
    unknown = sorted(set(given or ()) - set(EVENT_TYPES))
    if unknown:
        raise session.Refused(f"there is no event {', '.join(unknown)}; there are {', '.join(EVENT_TYPES)}")
    return tuple(given or ())


def _replay_since(services: Services, endpoint: str, since: datetime, which: queries.Which) -> int:
    queued = after = 0
    for _ in range(REPLAYS_MAX):
        done = acting.run(
            services,
            lambda tx, after=after: queries.replay_since(  # type: ignore[misc]  # a default is the way to bind a loop's name
                tx, services.clock, _find(tx, endpoint), since, which, after=after
            ),
            "endpoint.replayed",
            endpoint,
            since=since.isoformat(),
        )
        queued += done.queued
        if done.last is None:
            break
        after = done.last
    return queued


def _turn(
    endpoint: str, action: str, turn: Callable[[Tx, Services, Endpoint], Endpoint], as_json: bool
) -> None:
    with session.services() as services:
        turned = acting.run(services, lambda tx: turn(tx, services, _find(tx, endpoint)), action, endpoint)
    if as_json:
        output.as_json(_json(turned, None))
    else:
        print(f"{endpoint} is {turned.state}")


def _find(tx: Tx, endpoint: str) -> Endpoint:
    return endpoints.find(tx, _id(endpoints.PREFIX, endpoint), None)


def _id(prefix: str, text: str) -> UUID:
    try:
        return parse_public_id(prefix, text)
    except InvalidId:
        raise NotFound(f"{text} is not the id of one: {prefix}_…") from None


def _state(one: Endpoint) -> str:
    return f"{one.state} ({one.reason})" if one.reason else one.state


def _json(one: Endpoint, partner: str | None) -> dict[str, Any]:
    named = {"partner": partner} if partner is not None else {}
    return {
        "id": one.public_id,
        **named,
        "url": one.url,
        "description": one.description or None,
        "event_types": list(one.event_types),
        "state": one.state,
        "reason": one.reason,
        "failing_since": one.failing_since,
        "created_at": one.created_at,
        "changed_at": one.changed_at,
    }


def _delivery(one: DeliveryView) -> dict[str, Any]:
    return {
        "event": public_id(EVENT_PREFIX, one.event_id),
        "type": one.type,
        "state": one.state,
        "reason": one.reason,
        "attempts": one.attempts,
        "last_status": one.status,
        "last_error": one.error,
        "next_attempt_at": one.due_at,
        "queued_at": one.queued_at,
        "finished_at": one.finished_at,
    }
