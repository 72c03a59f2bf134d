"""The match that waits for its sponsor's money: `mizan match drain|waiting`."""

from typing import Annotated

import typer

from api.approvals import books, service
from api.bootstrap import Services
from api.cli import acting, approval, output, session
from api.jobs import drain_funds, vest_all
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import parse_public_id, public_id
from products.savings import adjustments

ADJUSTMENTS_MAX = 1_000

app = typer.Typer(name="match", help="Entitlement and the money it waits for.", no_args_is_help=True)


@app.command()
@session.command
def waiting(as_json: session.AsJson = False) -> None:
    """List what waits for money, by sponsor, and since which contribution."""
    with session.services() as services, services.worker.begin() as tx:
        rows = tx.exec_driver_sql(
            "select g.slug, s.slug, g.currency, count(*), sum(q.amount)::bigint, min(q.contributed_at)"
            " from products.match_queue q join products.sponsor s on s.id = q.sponsor_id"
            " join products.programme g on g.id = s.programme_id group by g.slug, s.slug, g.currency order by 1, 2"
        ).all()
    if as_json:
        output.as_json(
            {
                "data": [
                    {
                        "programme": programme,
                        "sponsor": sponsor,
                        "entries": entries,
                        "amount": output.money_json(amount, currency),
                        "oldest_contributed_at": oldest.isoformat(),
                    }
                    for programme, sponsor, currency, entries, amount, oldest in rows
                ]
            }
        )
        return
    output.table(
        ["programme", "sponsor", "entries>", "amount>", "currency", "oldest"],
        [
            (programme, sponsor, entries, output.amount_in(amount, currency), currency, oldest)
            for programme, sponsor, currency, entries, amount, oldest in rows
        ],
        empty="nothing waits for money",
    )


@app.command()
@session.command
def drain(as_json: session.AsJson = False) -> None:
    """Serve the queues now, as far as the sponsors' money reaches. A running `mizan serve` does it every few seconds."""
    with session.services() as services:
        served = drain_funds(services.worker, services.books)
        if served:
            services.worker.run(lambda tx: acting.note(tx, services, "match.drained", "queue", served=served))
    if as_json:
        output.as_json({"served": served})
    else:
        print(f"{served} entitlements served")


@app.command()
@session.command
def vest(as_json: session.AsJson = False) -> None:
    """Grant match of windows that are over, and vest what is due, now. A running `mizan serve` does it every half minute."""
    with session.services() as services:
        ended, vested = vest_all(services.worker, services.books)
        if ended or vested:
            services.worker.run(
                lambda tx: acting.note(
                    tx, services, "match.vested", "due", windows_ended=ended, enrolments_vested=vested
                )
            )
    if as_json:
        output.as_json({"windows_ended": ended, "enrolments_vested": vested})
    else:
        print(f"{ended} windows are over, {vested} members' match was looked at")


@app.command("adjustments")
@session.command
def adjustments_(as_json: session.AsJson = False) -> None:
    """List vested match that should fall, as the member is entitled to less: each waits for a decision."""
    with session.services() as services, services.worker.begin() as tx:
        found = adjustments.proposed(tx, limit=ADJUSTMENTS_MAX)
    if as_json:
        output.as_json(
            {
                "data": [
                    {
                        "id": public_id("adj", one.id),
                        "sponsor": one.sponsor,
                        "enrolment": public_id("enr", one.enrolment_id),
                        "window": one.window_start.isoformat(),
                        "amount": output.money_json(one.amount, one.currency),
                    }
                    for one in found
                ]
            }
        )
        return
    output.table(
        ["id", "sponsor", "enrolment", "window", "amount>", "currency"],
        [
            (
                public_id("adj", one.id),
                one.sponsor,
                public_id("enr", one.enrolment_id),
                one.window_start,
                output.amount_in(one.amount, one.currency),
                one.currency,
            )
            for one in found
        ],
        empty="no vested match should fall",
    )


@app.command()
@session.command
def approve(
    adjustment: Annotated[str, typer.Argument(help="Its id, adj_….")],
    as_: acting.As = None,
    remark: Annotated[str, typer.Option(help="Kept with the decision.")] = "",
    as_json: session.AsJson = False,
) -> None:
    """Let vested match fall back to its sponsor. In production an operator does, with a code of the authenticator."""
    wanted = parse_public_id("adj", adjustment)
    with session.services() as services:
        services.worker.run(lambda tx: books.request_adjustments(tx, services))
        with services.worker.begin() as tx:
            request = request_for(tx, services, public_id("adj", wanted))
        if acting.two_persons(services):
            done = acting.decide(
                services,
                as_,
                request.public_id,
                lambda tx, actor: service.approve(
                    tx,
                    services,
                    actor,
                    request.id,
                    remark=remark,
                    origin=service.Origin(acting.ADDRESS),
                ),
            )
        else:
            done = services.worker.run(lambda tx: service.carry_out(tx, services, request))
    approval.tell_asked(done, as_json)


def request_for(tx: Tx, services: Services, adjustment: str) -> service.Request:
    """The request that asks for an adjustment, ``adj_…``. Raises `NotFound` when none waits."""
    row = tx.exec_driver_sql(
        "select id from api.approval_request where kind = 'match_adjustment' and state = 'requested'"
        " and starts_with(object, %s) order by id desc limit 1",
        (f"{adjustment}:",),
    ).first()
    if row is None:
        raise NotFound("no such adjustment waits: `mizan match adjustments` lists them")
    return service.one(tx, services, row[0])
