"""The match that waits for its sponsor's money: `mizan match drain|waiting`."""

import typer

from api.cli import output, session
from api.jobs import drain_funds

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
    if as_json:
        output.as_json({"served": served})
    else:
        print(f"{served} entitlements served")
