"""What a person makes of lines that no rule pairs: `mizan reconcile receipts|identify|conversions|convert|suggestions`."""

from datetime import datetime
from typing import Annotated

import typer

from api import bank_statements
from api.cli import acting, output, session
from api.v1.receipts import candidate_out, receipt_out, suggestion_out
from ledger.ids import parse_public_id, public_id
from ledger.reconciliation import bank_accounts
from products.reconciliation import by_hand, conversions
from products.reconciliation.by_hand import RECEIPT_PREFIX
from products.reconciliation.hand_pairing import PAIRING_PREFIX
from products.reconciliation.suggestions import suggestions
from products.remittances import partners

A_DAY = ["%Y-%m-%d"]
SHOWN_MAX = 200

OfAccount = Annotated[
    str | None, typer.Option("--account", help="Only this bank account's.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `mizan reconcile`."""
    app.command("receipts")(list_receipts)
    app.command("identify")(identify)
    app.command("conversions")(list_conversions)
    app.command("convert")(convert)
    app.command("suggestions")(list_suggestions)


@session.command
def list_receipts(account: OfAccount = None, as_json: session.AsJson = False) -> None:
    """Show money of senders that are not known: it lies in unidentified receipts."""
    with session.services() as services, services.worker.read() as tx:
        of = None if account is None else bank_accounts.by_slug(tx, account).id
        found = by_hand.receipts(tx, bank_account_id=of, state="open", after=None, limit=SHOWN_MAX)
    if as_json:
        output.as_json([receipt_out(one).model_dump(mode="json") for one in found])
        return
    output.table(
        ["receipt", "account", "booked on", "currency", "amount", "line"],
        [
            [
                public_id(RECEIPT_PREFIX, one.id),
                one.bank_account,
                one.booked_on,
                one.currency,
                output.amount_in(one.amount, one.currency),
                public_id(bank_statements.LINE, one.line_id),
            ]
            for one in found
        ],
    )


@session.command
def identify(
    receipt: Annotated[str, typer.Argument(help="The receipt, rcp_….")],
    partner: Annotated[str, typer.Argument(help="The partner that sent it.")],
    day: Annotated[
        list[datetime] | None,
        typer.Option(
            formats=A_DAY,
            help="A day that it pays for, one after the other; the oldest that are owed when left out.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Say who sent a receipt: it pays for what the partner owes. What pays for no whole contribution stays."""
    with session.services() as services:
        done = acting.run(
            services,
            lambda tx: by_hand.identify(
                tx,
                services.books,
                parse_public_id(RECEIPT_PREFIX, receipt),
                partners.find(tx, partner),
                days=None if day is None else [one.date() for one in day],
            ),
            "receipt.identified",
            lambda _: receipt,
            partner=partner,
        )
    values = {
        "settlement": public_id("stl", done.id),
        "state": done.state,
        "currency": done.currency,
        "paired": done.paired,
        "unidentified": done.unidentified,
    }
    if as_json:
        output.as_json(values)
        return
    amounts = {
        name: output.amount_in(getattr(done, name), done.currency) for name in ("paired", "unidentified")
    }
    output.fields({**values, **amounts})


@session.command
def list_conversions(as_json: session.AsJson = False) -> None:
    """Show open lines, two by two, that may be conversions: one currency went out and another came in under one reference."""
    with session.services() as services, services.worker.read() as tx:
        found = conversions.candidates(tx)
    if as_json:
        output.as_json([candidate_out(one).model_dump(mode="json") for one in found])
        return
    output.table(
        ["from", "to", "fund", "sold>", "bought>", "rate>", "reference"],
        [
            [
                public_id(bank_statements.LINE, one.from_line),
                public_id(bank_statements.LINE, one.to_line),
                one.fund,
                f"{output.amount_in(one.sold, one.sold_currency)} {one.sold_currency}",
                f"{output.amount_in(one.bought, one.bought_currency)} {one.bought_currency}",
                one.rate,
                one.evidence,
            ]
            for one in found
        ],
    )


@session.command
def convert(
    from_line: Annotated[str, typer.Argument(help="The line that went out, bsl_….")],
    to_line: Annotated[str, typer.Argument(help="The line that came in, bsl_….")],
    remark: Annotated[str, typer.Option(help="What was converted, and why.")],
    as_json: session.AsJson = False,
) -> None:
    """Book a conversion: money that left a fund's account in one currency came to its account in another."""
    with session.services() as services:
        made = acting.run(
            services,
            lambda tx: conversions.convert(
                tx,
                services.books,
                parse_public_id(bank_statements.LINE, from_line),
                parse_public_id(bank_statements.LINE, to_line),
                remark=remark,
                actor=session.actor(),
            ),
            "conversion.booked",
            lambda _: from_line,
            to=to_line,
        )
    pairings = [public_id(PAIRING_PREFIX, one) for one in made]
    if as_json:
        output.as_json({"pairings": pairings})
    else:
        output.fields({"pairings": ", ".join(pairings)})


@session.command
def list_suggestions(account: OfAccount = None, as_json: session.AsJson = False) -> None:
    """Show lines that seem to bring back a payment or take back a settlement: two managers decide on either."""
    with session.services() as services, services.worker.read() as tx:
        of = None if account is None else bank_accounts.by_slug(tx, account).id
        found = suggestions(tx, of)
    if as_json:
        output.as_json([suggestion_out(one).model_dump(mode="json") for one in found])
        return
    output.table(
        ["line", "seems to be", "of", "evidence"],
        [[public_id(bank_statements.LINE, one.line), one.kind, one.subject, one.evidence] for one in found],
    )
