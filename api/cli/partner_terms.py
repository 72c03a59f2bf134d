"""The terms on which a partner pays in: `mizan partner terms`."""

from datetime import datetime
from fractions import Fraction
from typing import Annotated, Any

import typer

from api.approvals.settlements import current_terms, request_terms, written
from api.cli import acting, approval, output, session
from products.programmes.scalars import parse_percent
from products.remittances import partners
from products.settlements.terms import Bearer, Pays, SettlementTerms, Terms, parse_cut_off

NONE = "none"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("terms")(session.command(terms))


def terms(
    slug: Annotated[str, typer.Argument(help="The partner's slug.")],
    programme: Annotated[
        str | None, typer.Option(help="The programme, where it has joined several.", show_default=False)
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="From which day on; the earliest that it may be when left out. What was collected before stays as it was.",
            show_default=False,
        ),
    ] = None,
    terms_: Annotated[Terms | None, typer.Option("--terms", help="When it pays.", show_default=False)] = None,
    cut_off: Annotated[
        str | None,
        typer.Option(help="When its day ends, as 17:00; 24:00 is midnight.", show_default=False),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Of the cut-off, as Asia/Dubai.", show_default=False)
    ] = None,
    business_days: Annotated[
        int | None, typer.Option(help="It pays so many business days later.", show_default=False)
    ] = None,
    country: Annotated[
        list[str] | None,
        typer.Option(help="Whose holidays count, as AE; repeat it for more.", show_default=False),
    ] = None,
    pays: Annotated[Pays | None, typer.Option(help="All, or less its fee.", show_default=False)] = None,
    fee_fixed: Annotated[
        str | None, typer.Option(help="Its fee for each remittance, in major units.", show_default=False)
    ] = None,
    fee_percent: Annotated[
        str | None, typer.Option(help="Its fee of what it collected, as 1.5.", show_default=False)
    ] = None,
    fee_borne_by: Annotated[
        Bearer | None, typer.Option(help="Who bears the fee; never a member.", show_default=False)
    ] = None,
    exposure_ceiling: Annotated[
        str | None,
        typer.Option(
            help="The most it may owe each fund, in major units; none: no limit.", show_default=False
        ),
    ] = None,
    warning_percent: Annotated[
        int | None, typer.Option(help="Of the ceiling, from which on to warn.", show_default=False)
    ] = None,
    prefund_warning: Annotated[
        str | None,
        typer.Option(help="Warn when no more is prepaid, in major units; none: never.", show_default=False),
    ] = None,
    guarantor: Annotated[
        str | None,
        typer.Option(help="Who bears its default, by slug; none: the administrator.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "",
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Show the terms on which a partner pays in, or change them from a day on.

    A contribution is judged by the terms of its own day. Limits and warnings hold at once. In production another person
    approves a change.
    """
    given: dict[str, Any] = {
        "terms": terms_,
        "cut_off_minutes": None if cut_off is None else parse_cut_off(cut_off),
        "time_zone": time_zone,
        "business_days": business_days,
        "countries": None if country is None else tuple(country),
        "pays": pays,
        "fee_percent": None if fee_percent is None else _percent(fee_percent),
        "fee_borne_by": fee_borne_by,
        "warning_percent": warning_percent,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with session.services() as services:
        with services.worker.begin() as tx:
            known = partners.find(tx, slug)
            _, standing = current_terms(tx, services, known.id, programme)
        for name, amount in (
            ("fee_fixed", fee_fixed),
            ("exposure_ceiling", exposure_ceiling),
            ("prefund_warning", prefund_warning),
        ):
            if amount is not None:
                changes[name] = None if amount == NONE else output.minor_units(amount, standing.currency)
        if guarantor is not None:
            changes["guarantor"] = None if guarantor == NONE else guarantor
        if not changes:
            _show(standing, as_json)
            return
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: request_terms(
                tx,
                services,
                actor,
                partner=slug,
                programme=programme,
                changes=changes,
                since=since.date() if since else None,
                remark=reason,
                origin=origin,
            ),
        )
    approval.tell_asked(asked, as_json)


def _percent(given: str) -> Fraction:
    try:
        return parse_percent(given)
    except ValueError as error:
        raise session.Refused(str(error)) from None


def _show(standing: SettlementTerms, as_json: bool) -> None:
    shown: dict[str, Any] = (
        {"since": standing.since.isoformat()} | written(standing) | {"cut_off": standing.cut_off}
    )
    if as_json:
        output.as_json(shown)
        return
    amounts = {
        name: "" if shown[name] is None else output.amount_in(shown[name], standing.currency)
        for name in ("fee_fixed", "exposure_ceiling", "prefund_warning")
    }
    del shown["cut_off_minutes"]
    output.fields(shown | amounts | {"countries": ", ".join(standing.countries)})
