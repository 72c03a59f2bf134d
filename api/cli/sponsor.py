"""Sponsors: `mizan sponsor fund|list|warn|claim`."""

from typing import Annotated

import typer

from api.cli import acting, claim, output, session
from api.jobs import drain_funds
from ledger.ids import new_id, public_id
from products.programmes.registry import find
from products.savings.sponsors import fund_sponsor, money_of_sponsors, set_warning

app = typer.Typer(name="sponsor", help="Governments and donors that fund a match.", no_args_is_help=True)
app.add_typer(claim.app)


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
                "paid_off": output.money_json(funded.paid_off, currency),
                "uncommitted": output.money_json(left, currency),
                "served": served,
                "replayed": funded.replayed,
            }
        )
        return
    if funded.replayed:
        print("This payment was on record already; nothing changed.")
    else:
        print(
            f"{sponsor} paid in {output.amount_in(minor, currency)} {currency}; {served} waiting entitlements served"
        )
    if funded.paid_off:
        print(f"of it for certified claims: {output.amount_in(funded.paid_off, currency)} {currency}")
    print(f"uncommitted now: {output.amount_in(left, currency)} {currency}")


@app.command()
@session.command
def warn(
    sponsor: Annotated[str, typer.Argument(help="The sponsor's slug, as the programme names it.")],
    programme: Annotated[str, typer.Option(help="The programme that it funds.")],
    percent: Annotated[
        int, typer.Option(min=0, max=100, help="Of what it had after it last paid in; 0: never.")
    ],
) -> None:
    """Set when a prefunded sponsor's money counts as low: then the message sponsor.fund_low goes out, once."""
    with session.services() as services:
        acting.run(
            services,
            lambda tx: set_warning(tx, programme=programme, sponsor=sponsor, percent=percent),
            "sponsor.warning_set",
            sponsor,
            programme=programme,
            percent=percent,
        )
    print(f"{sponsor} is warned below {percent} % of what it had after it last paid in")


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List sponsors: uncommitted, committed, owed on claims, what waits for their money, and where it counts as low."""
    with session.services() as services, services.worker.begin() as tx:
        rows = money_of_sponsors(tx)
    if as_json:
        output.as_json(
            {
                "data": [
                    {
                        "programme": one.programme,
                        "sponsor": one.sponsor,
                        "funding": one.funding,
                        "uncommitted": output.money_json(one.uncommitted, one.currency),
                        "committed": output.money_json(one.committed, one.currency),
                        "receivable": output.money_json(one.receivable, one.currency),
                        "waiting": output.money_json(one.waiting, one.currency),
                        "warned_below": output.money_json(one.warned_below, one.currency),
                        "low": one.low,
                    }
                    for one in rows
                ]
            }
        )
        return
    output.table(
        [
            "programme",
            "sponsor",
            "funding",
            "currency",
            "uncommitted>",
            "committed>",
            "owed on claims>",
            "waiting for money>",
            "low below>",
            "low",
        ],
        [
            (
                one.programme,
                one.sponsor,
                one.funding,
                one.currency,
                *(
                    output.amount_in(value, one.currency)
                    for value in (
                        one.uncommitted,
                        one.committed,
                        one.receivable,
                        one.waiting,
                        one.warned_below,
                    )
                ),
                one.low,
            )
            for one in rows
        ],
        empty="no sponsor: apply a programme that has one",
    )
