"""What is passed on to agencies: `mizan remittal agency|make|list|show|schedule|send|confirm|withdraw|answer`."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.approvals.remittals import request_sending
from api.cli import acting, output, session
from api.cli.approval import tell_asked
from ledger.ids import parse_public_id, public_id
from ledger.periods import effective_day
from products.remittals import agencies, answers, making, paying, queries
from products.remittals.agencies import Agency, WithoutNumber
from products.remittals.layouts import read_answer
from products.remittals.queries import PREFIX, LineState, Remittal, State

app = typer.Typer(name="remittal", help="What is passed on to agencies.", no_args_is_help=True)

RemittalArgument = Annotated[str, typer.Argument(metavar="REMITTAL", help="The remittal's id, rtl_….")]
AgencyArgument = Annotated[
    str, typer.Argument(metavar="AGENCY", help="The agency's code, as the programme names it.")
]
Programme = Annotated[str, typer.Option(help="The programme that collects for it.")]
DAY = ["%Y-%m-%d"]
On = Annotated[
    datetime | None,
    typer.Option(
        "--on", formats=DAY, help="The day of the payment; today when left out.", show_default=False
    ),
]


@app.command()
@session.command
def agency(
    agency_: AgencyArgument,
    programme: Programme,
    number_document: Annotated[
        str | None,
        typer.Option(help="The type of document that holds a member's number there.", show_default=False),
    ] = None,
    without_number: Annotated[
        WithoutNumber | None,
        typer.Option(help="What becomes of a line without a number.", show_default=False),
    ] = None,
    second_person_above: Annotated[
        str | None,
        typer.Option(help="In major units: above it a second manager sends.", show_default=False),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="JSON with `columns` of the schedule and `answer`.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show an agency, or say how it is told and how it answers."""
    told: dict[str, Any] = {}
    if mapping is not None:
        try:
            told = json.loads(mapping.read_text("utf-8"))
        except ValueError as error:
            raise session.Refused(f"{mapping} is not JSON: {error}") from None
    with session.services() as services:
        with services.worker.begin() as tx:
            known = agencies.agency_of(tx, programme, agency_)
        above = None
        if second_person_above is not None:
            above = (
                0 if second_person_above == "0" else output.minor_units(second_person_above, known.currency)
            )
        if told or number_document or without_number or above is not None:
            known = acting.run(
                services,
                lambda tx: agencies.set_up(
                    tx,
                    known,
                    number_document=number_document,
                    without_number=without_number,
                    second_person_above=above,
                    columns=told.get("columns"),
                    answer=told.get("answer"),
                    at=services.clock.now(),
                ),
                "agency.set_up",
                f"{programme}/{agency_}",
            )
    _tell_agency(known, as_json)


@app.command()
@session.command
def make(
    agency_: AgencyArgument,
    programme: Programme,
    through: Annotated[
        datetime | None,
        typer.Option(
            formats=DAY,
            help="What was contributed up to and including this day; today when left out.",
            show_default=False,
        ),
    ] = None,
    without_number: Annotated[
        WithoutNumber | None,
        typer.Option(
            help="Lines without a number: as the agency is set up, when left out.", show_default=False
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Gather what was paid in for an agency and not sent yet. No money moves."""
    with session.services() as services:
        with services.worker.begin() as tx:
            zone = agencies.agency_of(tx, programme, agency_).time_zone
        day = through.date() if through else effective_day(services.clock.now(), zone)
        made = acting.run(
            services,
            lambda tx: making.make(
                tx,
                services.books,
                programme=programme,
                agency=agency_,
                through=day,
                without_number=without_number,
            ),
            "remittal.made",
            lambda made: made.remittal.public_id,
            agency=agency_,
        )
    currency = made.remittal.currency
    held = [
        {
            "enrolment": public_id("enr", one.enrolment_id),
            "applies_to": f"{one.applies_to:%Y-%m}",
            "amount": output.money_json(one.amount, currency),
        }
        for one in made.held
    ]
    if as_json:
        output.as_json({**_shown(made.remittal), "held": held})
        return
    _tell(made.remittal, as_json=False)
    if made.held:
        total = output.amount_in(sum(one.amount for one in made.held), currency)
        print(
            f"{len(made.held)} lines of {total} {currency} stay back: their members have no number at the agency"
        )


@app.command("list")
@session.command
def list_(
    agency_: Annotated[str | None, typer.Option("--agency", help="One agency's.", show_default=False)] = None,
    state: Annotated[State | None, typer.Option(help="Those in this state.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100,
    as_json: session.AsJson = False,
) -> None:
    """List remittals, the oldest first."""
    with session.services() as services, services.worker.begin() as tx:
        found = queries.remittals(tx, agency=agency_, state=state, limit=limit)
    if as_json:
        output.as_json({"data": [_shown(one) for one in found]})
        return
    output.table(
        [
            "id",
            "agency",
            "number>",
            "through",
            "lines>",
            "amount>",
            "currency",
            "state",
            "answered>",
            "returned>",
        ],
        [
            (
                one.public_id,
                one.agency,
                one.number,
                one.through,
                one.lines,
                output.amount_in(one.amount, one.currency),
                one.currency,
                one.state,
                one.answered,
                output.amount_in(one.returned, one.currency),
            )
            for one in found
        ],
        empty="no remittal",
    )


@app.command()
@session.command
def show(
    remittal: RemittalArgument,
    state: Annotated[
        LineState | None, typer.Option(help="With its lines in this state.", show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show a remittal and what the agency answered; with --state, the lines too."""
    with session.services() as services, services.worker.begin() as tx:
        found = queries.remittal_of(tx, parse_public_id(PREFIX, remittal))
        lines = queries.lines_of(tx, found.id, state=state) if state else []
    if as_json:
        shown = [
            {
                "line": one.position,
                "enrolment": public_id("enr", one.enrolment_id),
                "applies_to": f"{one.applies_to:%Y-%m}",
                "amount": output.money_json(one.amount, found.currency),
                "accepted": None if one.accepted is None else output.money_json(one.accepted, found.currency),
                "claimed": output.money_json(one.claimed, found.currency),
                "reason": one.reason,
            }
            for one in lines
        ]
        output.as_json({**_shown(found), **({"data": shown} if state else {})})
        return
    _tell(found, as_json=False)
    if state:
        output.table(
            ["line>", "month", "amount>", "accepted>", "claimed>", "reason"],
            [
                (
                    one.position,
                    f"{one.applies_to:%Y-%m}",
                    output.amount_in(one.amount, found.currency),
                    None if one.accepted is None else output.amount_in(one.accepted, found.currency),
                    output.amount_in(one.claimed, found.currency),
                    one.reason,
                )
                for one in lines
            ],
            empty=f"no line is {state}",
        )


@app.command()
@session.command
def schedule(
    remittal: RemittalArgument,
    to: Annotated[
        Path | None,
        typer.Option(help="Where to write it; standard output when left out.", show_default=False),
    ] = None,
) -> None:
    """Write the schedule for the agency. It holds members' numbers and pay: who fetched it is in the audit log."""
    with session.services() as services:

        def work(tx: Any) -> bytes:  # a Tx
            found = queries.remittal_of(tx, parse_public_id(PREFIX, remittal))
            return queries.schedule_of(tx, services.keyring, found)

        written = acting.run(services, work, "remittal.schedule_fetched", remittal)
    if to is None:
        sys.stdout.buffer.write(written)
    else:
        to.touch(mode=0o600)
        to.write_bytes(written)
        print(f"{to}: {len(written)} bytes")


@app.command()
@session.command
def send(
    remittal: RemittalArgument,
    reference: Annotated[str, typer.Option(help="The bank payment's reference.")],
    on: On = None,
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Record that the bank was told to pay. Above the agency's limit another manager approves."""
    with session.services() as services:
        with services.worker.begin() as tx:
            found = queries.remittal_of(tx, parse_public_id(PREFIX, remittal))
            zone = agencies.agency_of(tx, found.programme, found.agency).time_zone
        day = on.date() if on else effective_day(services.clock.now(), zone)
        if found.state == "made" and found.amount > found.second_person_above:
            asked = acting.ask(
                services,
                as_,
                lambda tx, actor, origin: request_sending(
                    tx, services, actor, found.id, reference=reference, on=day, origin=origin
                ),
            )
            tell_asked(asked, as_json)
            return
        sent = acting.run(
            services,
            lambda tx: paying.send(tx, services.books, found.id, reference=reference, on=day),
            "remittal.sent",
            remittal,
        )
    _tell(sent, as_json)


@app.command()
@session.command
def confirm(remittal: RemittalArgument, on: On = None, as_json: session.AsJson = False) -> None:
    """Record that the bank has paid it."""
    with session.services() as services:
        with services.worker.begin() as tx:
            found = queries.remittal_of(tx, parse_public_id(PREFIX, remittal))
            zone = agencies.agency_of(tx, found.programme, found.agency).time_zone
        day = on.date() if on else effective_day(services.clock.now(), zone)
        cleared = acting.run(
            services,
            lambda tx: paying.clear(tx, services.books, found.id, on=day),
            "remittal.cleared",
            remittal,
        )
    _tell(cleared, as_json)


@app.command()
@session.command
def withdraw(remittal: RemittalArgument, as_json: session.AsJson = False) -> None:
    """Withdraw a remittal that was not sent: what it holds can be sent anew."""
    with session.services() as services:
        gone = acting.run(
            services,
            lambda tx: making.withdraw(tx, parse_public_id(PREFIX, remittal)),
            "remittal.withdrawn",
            remittal,
        )
    _tell(gone, as_json)


@app.command()
@session.command
def answer(
    remittal: RemittalArgument,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What the agency answered: CSV.")],
    as_json: session.AsJson = False,
) -> None:
    """Take in the agency's answer, line by line; one that does not tie is refused whole."""
    with session.services() as services:
        with services.worker.begin() as tx:
            found = queries.remittal_of(tx, parse_public_id(PREFIX, remittal))
        rows, totals = read_answer(file.read_bytes(), found.answer, currency=found.currency)
        taken = acting.run(
            services,
            lambda tx: answers.take(tx, services.books, found.id, rows, totals),
            "remittal.answered",
            remittal,
            lines=len(rows),
        )
    if as_json:
        output.as_json(
            {
                "remittal": remittal,
                "lines": taken.lines,
                "accepted": output.money_json(taken.accepted, found.currency),
                "returned": output.money_json(taken.returned, found.currency),
                "claimed": output.money_json(taken.claimed, found.currency),
                "duplicate": taken.replayed,
            }
        )
        return
    if taken.replayed:
        print("This answer was taken before; nothing changed.")
        return
    output.fields(
        {
            "lines": taken.lines,
            **{
                name: f"{output.amount_in(amount, found.currency)} {found.currency}"
                for name, amount in (
                    ("accepted", taken.accepted),
                    ("returned to members", taken.returned),
                    ("claimed beyond it", taken.claimed),
                )
            },
        }
    )


def _tell(one: Remittal, as_json: bool) -> None:
    if as_json:
        output.as_json(_shown(one))
        return

    def money(amount: int) -> str:
        return f"{output.amount_in(amount, one.currency)} {one.currency}"

    output.fields(
        {
            "remittal": one.public_id,
            "agency": f"{one.agency} of {one.programme}, number {one.number}",
            "through": one.through,
            "lines": one.lines,
            "amount": money(one.amount),
            "schedule's sha256": one.digest.hex(),
            "state": one.state,
            "bank reference": one.bank_reference,
            "sent on": one.sent_on,
            "cleared on": one.cleared_on,
            "answered lines": one.answered,
            "accepted": money(one.accepted),
            "returned": money(one.returned),
            "claimed": money(one.claimed),
        }
    )


def _shown(one: Remittal) -> dict[str, object]:
    return {
        "id": one.public_id,
        "programme": one.programme,
        "agency": one.agency,
        "number": one.number,
        "through": one.through.isoformat(),
        "lines": one.lines,
        "amount": output.money_json(one.amount, one.currency),
        "sha256": one.digest.hex(),
        "state": one.state,
        "bank_reference": one.bank_reference,
        "sent_on": one.sent_on.isoformat() if one.sent_on else None,
        "cleared_on": one.cleared_on.isoformat() if one.cleared_on else None,
        "answered": one.answered,
        "accepted": output.money_json(one.accepted, one.currency),
        "returned": output.money_json(one.returned, one.currency),
        "claimed": output.money_json(one.claimed, one.currency),
    }


def _tell_agency(one: Agency, as_json: bool) -> None:
    shown = {
        "programme": one.programme,
        "agency": one.code,
        "number_document": one.number_document,
        "without_number": one.without_number,
    }
    if as_json:
        output.as_json(
            {
                **shown,
                "owed": output.money_json(one.owed, one.currency),
                "second_person_above": output.money_json(one.second_person_above, one.currency),
                "columns": one.columns,
                "answer": one.answer,
            }
        )
        return
    output.fields(
        {
            **shown,
            "owed": f"{output.amount_in(one.owed, one.currency)} {one.currency}",
            "second_person_above": f"{output.amount_in(one.second_person_above, one.currency)} {one.currency}",
            "columns": ", ".join(column["header"] for column in one.columns["columns"]),
        }
    )
