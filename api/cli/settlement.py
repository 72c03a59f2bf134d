"""Settlements: `mizan settlement record|list|show|owed|ageing|return|status`."""

from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from api.approvals.settlements import request_return
from api.bootstrap import Services
from api.cli import acting, approval, output, session
from api.jobs import settle_to_the_end
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id
from ledger.periods import effective_day
from products.remittances import partners
from products.settlements import limits, obligations, reading
from products.settlements.pair import Settlement, record_settlement

app = typer.Typer(name="settlement", help="What partners pay in.", no_args_is_help=True)

SHOWN_MAX = 200
LIST_BYTES_MAX = 16 * 1024 * 1024

Partner = Annotated[str | None, typer.Option(help="One partner's alone, by slug.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="STL", help="The settlement, stl_….")]


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
            help="It pays for what was collected up to and including this day; today in the programme's time zone when left out.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST..LAST", help="It pays for what was collected on these days.", show_default=False
        ),
    ] = None,
    remittances: Annotated[
        Path | None,
        typer.Option(
            help="It pays for the remittances of this file alone, one a line: rmt_… or the partner's own ids.",
            exists=True,
            dir_okay=False,
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

    The oldest contributions owed are paid first, each whole. What covers none stays in unidentified receipts. A long
    settlement is paired part by part; if this command is stopped meanwhile, the worker goes on.
    """
    first, last = _span(days) if days else (None, through.date() if through else None)
    with session.services() as services:

        def work(tx: Tx) -> Settlement:
            known = partners.find(tx, partner)
            chosen, zone = _currency(tx, partner, currency)
            day = last or effective_day(services.clock.now(), zone)
            return record_settlement(
                tx,
                services.books,
                known,
                currency=chosen,
                amount=output.minor_units(amount, chosen),
                through=day,
                since=first,
                remittances=None if remittances is None else reading.named(tx, known.id, _lines(remittances)),
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
        replayed = done.replayed
        if done.state != "paired":
            session.say("pairing part by part …")
            done = settle_to_the_end(services.worker, services.books, done.id)
    if as_json:
        values = asdict(done) | {"replayed": replayed}
        del values["cash_fund"]
        output.as_json({**values, "id": public_id("stl", done.id), "through": done.through.isoformat()})
        return
    shown = {
        name: output.amount_in(getattr(done, name), done.currency)
        for name in ("amount", "paired", "fees", "credits", "unidentified", "topped_up", "carried")
        if name not in ("fees", "credits", "carried") or getattr(done, name)
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
    if replayed:
        print("It was on record already; nothing changed.")


@app.command("list")
@session.command
def list_(partner: Partner = None, as_json: session.AsJson = False) -> None:
    """List settlements, the latest 200 at most."""
    with session.services() as services, services.worker.begin() as tx:
        rows = reading.latest(tx, partner_id=_partner(tx, partner), limit=SHOWN_MAX)
    if as_json:
        output.as_json({"data": [_settlement(row) for row in rows]})
        return
    output.table(
        ["settlement", "partner", "kind", "state", "through", "currency", "amount", "paired", "unidentified"],
        [
            (
                public_id("stl", row.id),
                row.partner,
                row.kind,
                row.state,
                row.through,
                row.currency,
                output.amount_in(row.amount, row.currency),
                output.amount_in(row.paired, row.currency),
                output.amount_in(row.unidentified, row.currency),
            )
            for row in rows
        ],
        empty="no settlement yet: mizan settlement record acme --amount 1500.00",
    )


@app.command()
@session.command
def show(settlement: Name, as_json: session.AsJson = False) -> None:
    """Show a settlement and the first of the contributions that it paid for."""
    with session.services() as services, services.worker.begin() as tx:
        found = reading.settlement(tx, parse_public_id("stl", settlement), partner_id=None)
        paid = [one for _, one in reading.paid_for(tx, found.id, limit=SHOWN_MAX)]
    if as_json:
        listed = [
            {
                "remittance": public_id("rmt", one.remittance),
                "remittance_id": one.remittance_id,
                "fund": one.fund,
                "product": one.product,
                "amount": one.amount,
                "fee": one.fee,
                "collected_on": one.collected_on.isoformat(),
                "state": one.state,
            }
            for one in paid
        ]
        output.as_json(_settlement(found) | {"contributions_shown": listed})
        return
    output.fields(_settlement(found))
    output.table(
        ["remittance", "fund", "product", "collected on", "amount", "fee", "state"],
        [
            (
                one.remittance_id,
                one.fund,
                one.product or "",
                one.collected_on,
                output.amount_in(one.amount, one.currency),
                output.amount_in(one.fee, one.currency),
                one.state,
            )
            for one in paid
        ],
        empty="it paid for no contribution that stands",
    )


@app.command()
@session.command
def owed(
    partner: Partner = None,
    days: Annotated[
        str | None,
        typer.Option(metavar="FIRST..LAST", help="All of these days, settled ones too.", show_default=False),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show what partners collected and owe by fund, day and currency, when it is expected, and their credits."""
    first, last = _span(days) if days else (None, None)
    with session.services() as services, services.worker.begin() as tx:
        whose = _partner(tx, partner)
        rows = obligations.obligations(
            tx, services.clock, whose, since=first, through=last, everything=days is not None
        )
        credits_ = obligations.standing_credits(tx, whose)
    if as_json:
        output.as_json(
            {
                "data": [_obligation(one) for one in rows],
                "credits": [
                    {"partner": one.partner, "fund": one.fund, "currency": one.currency, "amount": one.amount}
                    for one in credits_
                ],
            }
        )
        return
    output.table(
        [
            "partner",
            "fund",
            "day",
            "currency",
            "collected",
            "reversed",
            "settled",
            "fees",
            "owed",
            "expected",
            "late",
        ],
        [
            (
                one.partner,
                one.fund,
                one.collected_on,
                one.currency,
                *(output.amount_in(amount, one.currency) for amount in asdict(one.amounts).values()),
                one.expected_on,
                f"{one.days_overdue} days" if one.days_overdue else "",
            )
            for one in rows
        ],
        empty="no partner owes anything",
    )
    for one in credits_:
        print(
            f"{one.fund} owes {one.partner} {output.amount_in(one.amount, one.currency)} {one.currency}: it nets"
        )


@app.command()
@session.command
def ageing(partner: Partner = None, as_json: session.AsJson = False) -> None:
    """Show what partners owe by how many days it is late."""
    with session.services() as services, services.worker.begin() as tx:
        rows = obligations.ageing(tx, services.clock, _partner(tx, partner))
    if as_json:
        output.as_json(
            {
                "data": [
                    {
                        "partner": one.partner,
                        "programme": one.programme,
                        "currency": one.currency,
                        **one.by_bucket,
                        "owed": one.owed,
                        "credits": one.credits,
                    }
                    for one in rows
                ]
            }
        )
        return
    output.table(
        ["partner", "programme", "currency", *obligations.BUCKETS, "owed", "credits"],
        [
            (
                one.partner,
                one.programme,
                one.currency,
                *(output.amount_in(one.by_bucket[name], one.currency) for name in obligations.BUCKETS),
                output.amount_in(one.owed, one.currency),
                output.amount_in(one.credits, one.currency),
            )
            for one in rows
        ],
        empty="no partner owes anything",
    )


@app.command("return")
@session.command
def return_(
    settlement: Name,
    reason: Annotated[str, typer.Option(help="Why the bank took it back; it is kept.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for a settlement to be taken back. In production another operator approves; in the sandbox it is done at once."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: request_return(
                tx, services, actor, parse_public_id("stl", settlement), reason, origin=origin
            ),
        )
        if asked.state == "approved":
            settle_to_the_end(services.worker, services.books, parse_public_id("stl", settlement))
    approval.tell_asked(asked, as_json)


@app.command()
@session.command
def status(partner: Partner = None, as_json: session.AsJson = False) -> None:
    """Show how close partners are to what they may owe, and how low their prefunds run."""
    with session.services() as services:
        rows = _standings(services, partner)
    if as_json:
        output.as_json({"data": [_standing(one) for one in rows]})
        return
    output.table(
        ["partner", "fund", "what", "currency", "now", "warned at", "ceiling", ""],
        [
            (
                one.partner,
                one.fund,
                "owes" if one.kind == "exposure" else "prepaid",
                one.currency,
                output.amount_in(one.balance, one.currency),
                "" if one.warning_level is None else output.amount_in(one.warning_level, one.currency),
                "" if one.ceiling is None else output.amount_in(one.ceiling, one.currency),
                "WARNING" if one.crossed else "",
            )
            for one in rows
        ],
        empty="no partner yet",
    )


def _standings(services: Services, partner: str | None) -> list[limits.Standing]:
    with services.worker.begin() as tx:
        return limits.standings(tx, services.clock, _partner(tx, partner))


def _standing(one: limits.Standing) -> dict[str, Any]:
    return {
        "partner": one.partner,
        "programme": one.programme,
        "fund": one.fund,
        "kind": one.kind,
        "currency": one.currency,
        "balance": one.balance,
        "ceiling": one.ceiling,
        "warning_level": one.warning_level,
        "warning": one.crossed,
    }


def _settlement(row: reading.Read) -> dict[str, Any]:
    return {
        "id": public_id("stl", row.id),
        "partner": row.partner,
        "programme": row.programme,
        "reference": row.reference,
        "kind": row.kind,
        "state": row.state,
        "currency": row.currency,
        "amount": row.amount,
        "since": row.since.isoformat() if row.since else None,
        "through": row.through.isoformat(),
        "paired": row.paired,
        "fees": row.fees,
        "credits": row.credits,
        "unidentified": row.unidentified,
        "topped_up": row.topped_up,
        "carried": row.carried,
        "contributions": row.contributions,
        "returned_on": row.returned_on.isoformat() if row.returned_on else None,
        "return_reason": row.return_reason,
    }


def _obligation(one: obligations.Obligation) -> dict[str, Any]:
    return {
        "partner": one.partner,
        "programme": one.programme,
        "fund": one.fund,
        "currency": one.currency,
        "collected_on": one.collected_on.isoformat(),
        **asdict(one.amounts),
        "expected_on": one.expected_on.isoformat(),
        "days_overdue": one.days_overdue,
        "bucket": one.bucket,
    }


def _partner(tx: Tx, slug: str | None) -> UUID | None:
    return None if slug is None else partners.find(tx, slug).id


def _span(written: str) -> tuple[date, date]:
    """``2026-03-01..2026-03-05``, or one day. Raises `Refused`."""
    first, _, last = written.partition("..")
    try:
        return date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        raise session.Refused("days are written 2026-03-01..2026-03-05, or as one day") from None


def _lines(file: Path) -> list[str]:
    if file.stat().st_size > LIST_BYTES_MAX:
        raise session.Refused(f"a list has at most {LIST_BYTES_MAX // 1024 // 1024} MiB")
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]


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
