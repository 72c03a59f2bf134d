"""Settlements: `mizan settlement record`."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from api.cli import acting, output, session
from ledger.database import Tx
from ledger.ids import public_id
from ledger.periods import effective_day
from products.remittances import partners
from products.settlements.pair import Settlement, record_settlement

app = typer.Typer(name="settlement", help="What partners pay in.", no_args_is_help=True)


@app.command()
@session.command
def record(
    partner: Annotated[str, typer.Argument(help="The partner's slug.")],
    amount: Annotated[str, typer.Option(help="What arrived, in major units of the currency: 1500.00")],
    currency: Annotated[
        str | None,
        typer.Option(help="Its currency; the partner's only one when left out.", show_default=False),
    ] = None,
    through: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="It pays for what was contributed up to and including this day; today in the programme's time zone when left out.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Names the payment: the same one is recorded once. Partner, currency, amount and day when left out.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Record that a partner paid in: what was pending becomes the members' savings, and the match it earned is granted.

    The oldest contributions owed are paid first, each whole. What covers none stays in unidentified receipts.
    """
    with session.services() as services:

        def work(tx: Tx) -> Settlement:
            known = partners.find(tx, partner)
            chosen, zone = _currency(tx, partner, currency)
            day = through.date() if through else effective_day(services.clock.now(), zone)
            return record_settlement(
                tx,
                services.books,
                known,
                currency=chosen,
                amount=output.minor_units(amount, chosen),
                through=day,
                reference=reference,
            )

        done = acting.run(
            services,
            work,
            "settlement.recorded",
            lambda done: public_id("stl", done.id),
            partner=partner,
            amount=amount,
        )
    if as_json:
        output.as_json({**asdict(done), "id": public_id("stl", done.id), "through": done.through.isoformat()})
        return
    shown = {
        name: output.amount_in(getattr(done, name), done.currency)
        for name in ("amount", "paired", "unidentified", "topped_up")
    }
    output.fields(
        {
            "settlement": public_id("stl", done.id),
            "partner": partner,
            "currency": done.currency,
            "through": done.through,
            **shown,
            "contributions": done.contributions,
        }
    )
    if done.replayed:
        print("It was on record already; nothing changed.")


def _currency(tx: Tx, partner: str, wanted: str | None) -> tuple[str, str]:
    """The currency and time zone of the programme that the money is for. Raises `Refused`."""
    rows = tx.exec_driver_sql(
        "select g.currency, g.time_zone from products.partner_programme pp"
        " join products.programme g on g.id = pp.programme_id join products.partner p on p.id = pp.partner_id"
        " where p.slug = %s order by g.currency",
        (partner,),
    ).all()
    found = [(currency, zone) for currency, zone in rows if wanted in (None, currency)]
    if len(found) != 1:
        collects = ", ".join(row[0] for row in rows) or "nothing"
        raise session.Refused(
            f"{partner} collects nothing in {wanted}, but {collects}"
            if wanted
            else f"say --currency: {partner} collects {collects}"
        )
    return found[0][0], found[0][1]
