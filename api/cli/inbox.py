"""The inbox: `mizan inbox list|show|replay`."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from api.cli import acting, output, session
from integrations.inbox import queries
from integrations.inbox.keys import BodyUnreadable
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id
from products.remittances import partners

app = typer.Typer(name="inbox", help="Webhooks received, and what became of them.", no_args_is_help=True)


class State(StrEnum):
    """What may have become of a delivery."""

    QUEUED = "queued"
    POSTED = "posted"
    DUPLICATE = "duplicate"
    REVERSED = "reversed"
    UNALLOCATED = "unallocated"
    QUARANTINED = "quarantined"
    PARKED = "parked"
    IGNORED = "ignored"
    CONFLICT = "conflict"


Partner = Annotated[str | None, typer.Option(help="Only this partner's.", show_default=False)]
REPLAYED_TOGETHER_MAX = 1_000


@app.command("list")
@session.command
def list_(
    state: Annotated[
        list[State] | None, typer.Option(help="Only in this state; repeat it for more.", show_default=False)
    ] = None,
    partner: Partner = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Only what is quarantined or parked.")
    ] = False,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = 50,
    as_json: session.AsJson = False,
) -> None:
    """List deliveries with their outcome and reason, the newest last; and how many there are in each state."""
    states = ["quarantined", "parked"] if attention else [one.value for one in state or []]
    with session.services() as services, services.worker.read() as tx:
        partner_id = None if partner is None else partners.find(tx, partner).id
        slugs = {one.id: one.slug for one in partners.everyone(tx)}
        counts = _counts(tx, partner_id)
        ids = _newest(tx, partner_id, states, limit)
        rows = [queries.delivery(tx, one) for one in ids]
    if as_json:
        output.as_json({"counts": counts, "data": [_shown(row, slugs) for row in rows]})
        return
    output.table(
        ["delivery", "partner", "type", "received", "state", "reason"],
        [
            (
                public_id("dlv", row.id),
                slugs.get(row.partner_id),
                row.event_type,
                row.received_at,
                row.state,
                row.reason,
            )
            for row in rows
        ],
        empty="no such delivery",
    )
    output.table(
        ["state", "reason", "deliveries>"],
        [(one["state"], one["reason"], f"{one['deliveries']:,}") for one in counts],
    )


@app.command()
@session.command
def show(
    delivery: Annotated[str, typer.Argument(help="Its id, dlv_….")],
    body: Annotated[
        bool, typer.Option("--body", help="Decrypt and print what was received; it holds personal data.")
    ] = False,
    as_json: session.AsJson = False,
) -> None:
    """Show a delivery with the history of its outcomes."""
    delivery_id = parse_public_id("dlv", delivery)
    with session.services() as services, services.worker.read() as tx:
        row = queries.delivery(tx, delivery_id)
        slugs = {one.id: one.slug for one in partners.everyone(tx)}
        history = queries.history(tx, delivery_id)
        received: tuple[str, str] | None = None
        if body:
            try:
                name, raw = queries.content(tx, services.keyring, delivery_id)
            except BodyUnreadable as error:
                raise session.Refused(error.detail) from None
            received = name, raw.decode("utf-8", "backslashreplace")
    shown = _shown(row, slugs)
    if received is not None:
        shown |= {"webhook_id": received[0], "body": received[1]}
    if as_json:
        attempts = [
            {
                "attempt": one.attempt,
                "state": one.state,
                "reason": one.reason,
                "detail": one.detail,
                "processed_at": one.processed_at.isoformat(),
            }
            for one in history
        ]
        output.as_json({**shown, "history": attempts})
        return
    output.fields({name: value for name, value in shown.items() if value is not None})
    output.table(
        ["attempt>", "state", "reason", "detail", "at"],
        [(one.attempt, one.state, one.reason, one.detail, one.processed_at) for one in history],
        empty="it waits for a worker",
    )


@app.command()
@session.command
def replay(
    deliveries: Annotated[
        list[str] | None, typer.Argument(help="Their ids, dlv_….", show_default=False)
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="All that are quarantined or parked for this reason.", show_default=False),
    ] = None,
    partner: Partner = None,
    approve: Annotated[
        bool,
        typer.Option(
            "--approve", help="Let them do what is otherwise only a request: reverse what is settled."
        ),
    ] = False,
    as_json: session.AsJson = False,
) -> None:
    """Queue deliveries that are quarantined or parked again, named one by one or by their reason. Each one's history says who."""
    if bool(deliveries) == (reason is not None):
        raise typer.BadParameter("name deliveries, or give --reason")
    with session.services() as services:

        def work(tx: Tx) -> int:
            ids = [parse_public_id("dlv", one) for one in deliveries or []]
            if reason is not None:
                partner_id = None if partner is None else partners.find(tx, partner).id
                ids = _waiting_for(tx, reason, partner_id)
            if not ids:
                return 0
            return queries.replay(tx, ids, actor=session.actor(), clock=services.clock, approved=approve)

        if approve and acting.two_persons(services):
            raise session.Refused("in production a request is approved: mizan approval list")
        count = acting.run(
            services,
            work,
            "deliveries.replayed",
            reason or ", ".join(deliveries or [])[:200],
            approved=approve,
        )
    if as_json:
        output.as_json({"replayed": count})
    else:
        print(f"{count} deliveries are queued again")


def _shown(row: queries.DeliveryView, slugs: dict[UUID, str]) -> dict[str, Any]:
    return {
        "id": public_id("dlv", row.id),
        "partner": slugs.get(row.partner_id),
        "type": row.event_type,
        "received_at": row.received_at.isoformat(),
        "state": row.state,
        "reason": row.reason,
        "detail": row.detail,
        "remittance": public_id("rmt", row.remittance_id) if row.remittance_id else None,
        "processed_at": row.processed_at.isoformat() if row.processed_at else None,
        "attempts": row.attempts,
    }


_STANDING = """
from integrations.delivery d left join lateral (
    select o.state, o.reason from integrations.delivery_outcome o where o.delivery_id = d.id
    order by o.attempt desc limit 1
) latest on true
where (%(partner)s::uuid is null or d.partner_id = %(partner)s)
"""
_STATE = "case when latest.state is null or latest.state = 'replayed' then 'queued' else latest.state end"


def _counts(tx: Tx, partner_id: UUID | None) -> list[dict[str, Any]]:
    rows = tx.exec_driver_sql(
        f"select {_STATE} as state, latest.reason, count(*) as deliveries {_STANDING} group by 1, 2 order by 1, 2",
        {"partner": partner_id},
    )
    return [row._asdict() for row in rows]


def _newest(tx: Tx, partner_id: UUID | None, states: list[str], limit: int) -> list[UUID]:
    rows = tx.exec_driver_sql(
        f"select d.id {_STANDING} and (cardinality(%(states)s::text[]) = 0 or {_STATE} = any(%(states)s::text[]))"
        " order by d.id desc limit %(limit)s",
        {"partner": partner_id, "states": states, "limit": limit},
    )
    return [row[0] for row in rows][::-1]


def _waiting_for(tx: Tx, reason: str, partner_id: UUID | None) -> list[UUID]:
    rows = tx.exec_driver_sql(
        f"select d.id {_STANDING} and latest.state in ('quarantined', 'parked') and latest.reason = %(reason)s"
        " and d.kind = 'new' order by d.id limit %(limit)s",
        {"partner": partner_id, "reason": reason, "limit": REPLAYED_TOGETHER_MAX},
    )
    return [row[0] for row in rows]
