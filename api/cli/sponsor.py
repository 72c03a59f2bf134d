"""Sponsors: `mizan sponsor fund|list`."""

from typing import Annotated

import typer

from api.cli import acting, output, session
from api.jobs import drain_funds
from ledger.ids import new_id, public_id
from products.programmes.registry import find
from products.savings.sponsors import fund_sponsor

app = typer.Typer(name="sponsor", help="Governments and donors that fund a match.", no_args_is_help=True)


@app.command()
@session.command
def fund(
    sponsor: Annotated[str, typer.Argument(help="The sponsor's slug, as the programme names it.")],
    programme: Annotated[str, typer.Option(help="The programme that it funds.")],
    amount: Annotated[
        str, typer.Option(help="What it paid in, in major units of the programme's currency: 1500.00")
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            help="Names the payment: the same reference books it once. New when left out.", show_default=False
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Record money that a sponsor paid into the programme's bank account, then serve the match that waits for it."""
    with session.services() as services:
        with services.worker.begin() as tx:
            currency = services.books.programmes.versions(tx, find(tx, programme))[-1].programme.currency
        minor = output.minor_units(amount, currency)
        funded = acting.run(
            services,
            lambda tx: fund_sponsor(
                tx,
                services.books,
                programme=programme,
                sponsor=sponsor,
                amount=minor,
                reference=reference or new_id().hex,
            ),
            "sponsor.funded",
            lambda funded: public_id("txn", funded.transaction_id),
            sponsor=sponsor,
            programme=programme,
            amount=minor,
        )
        served = drain_funds(services.worker, services.books)
        with services.worker.begin() as tx:
            left = tx.exec_driver_sql(
                "select b.credits - b.debits from products.sponsor s"
                " join products.programme g on g.id = s.programme_id"
                " join ledger.account_balance b on b.account_id = s.uncommitted_account"
                " where g.slug = %s and s.slug = %s",
                (programme, sponsor),
            ).scalar_one()
    if as_json:
        output.as_json(
            {
                "sponsor": sponsor,
                "programme": programme,
                "transaction": public_id("txn", funded.transaction_id),
                "amount": output.money_json(minor, currency),
                "uncommitted": output.money_json(left, currency),
                "served": served,
            }
        )
        return
    print(
        f"{sponsor} paid in {output.amount_in(minor, currency)} {currency}; {served} waiting entitlements served"
    )
    print(f"uncommitted now: {output.amount_in(left, currency)} {currency}")


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List sponsors with what they have uncommitted, committed, and what waits for their money."""
    with session.services() as services, services.worker.begin() as tx:
        rows = tx.exec_driver_sql(
            "select g.slug, s.slug, s.funding, g.currency, u.credits - u.debits, c.credits - c.debits,"
            " (select coalesce(sum(q.amount), 0)::bigint from products.match_queue q where q.sponsor_id = s.id)"
            " from products.sponsor s join products.programme g on g.id = s.programme_id"
            " join ledger.account_balance u on u.account_id = s.uncommitted_account"
            " join ledger.account_balance c on c.account_id = s.committed_account order by g.slug, s.slug"
        ).all()
    if as_json:
        output.as_json(
            {
                "data": [
                    {
                        "programme": programme,
                        "sponsor": sponsor,
                        "funding": funding,
                        "uncommitted": output.money_json(uncommitted, currency),
                        "committed": output.money_json(committed, currency),
                        "waiting": output.money_json(waiting, currency),
                    }
                    for programme, sponsor, funding, currency, uncommitted, committed, waiting in rows
                ]
            }
        )
        return
    output.table(
        ["programme", "sponsor", "funding", "currency", "uncommitted>", "committed>", "waiting for money>"],
        [(*row[:4], *(output.amount_in(value, row[3]) for value in row[4:])) for row in rows],
        empty="no sponsor: apply a programme that has one",
    )
