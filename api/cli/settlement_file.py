"""Partners' own settlement files: `mizan settlement compare|differences|explain|mapping`."""

import json
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from api import settlement_files
from api.cli import acting, output, session
from api.cli.csv_mappings import mapping_in
from integrations.settlement_files.mapping import schema
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id
from products.settlements import comparison
from products.settlements.comparison import ComparedFile, Difference

PREFIX = "stf"
SHOWN_MAX = 20
DIFFERENCES_MAX = 100_000

Programme = Annotated[
    str | None, typer.Option(help="The programme; the partner's only one when left out.", show_default=False)
]
A_DAY = ["%Y-%m-%d"]


def add_to(app: typer.Typer) -> None:
    """Put the commands beside the others of `mizan settlement`."""
    app.command()(compare)
    app.command()(differences)
    app.command()(explain)
    app.command()(mapping)


@session.command
def compare(
    partner: Annotated[str, typer.Argument(help="The partner's slug.")],
    file: Annotated[Path, typer.Argument(help="The partner's file.", exists=True, dir_okay=False)],
    programme: Programme = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="How its files are read, as JSON; kept for the next ones.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    first_on: Annotated[
        datetime | None,
        typer.Option(
            formats=A_DAY,
            help="The first day that the file covers; its earliest line's when left out.",
            show_default=False,
        ),
    ] = None,
    last_on: Annotated[
        datetime | None,
        typer.Option(
            formats=A_DAY,
            help="The last day that the file covers; its latest line's when left out.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Compare a partner's own file with the books, event by event. Exit code 1: they differ.

    Nothing is booked. The same file twice changes nothing.
    """
    content = file.read_bytes()
    given = mapping_in(mapping) if mapping is not None else None
    with session.services() as services:

        def work(tx: Tx) -> tuple[ComparedFile, bool, list[Difference]]:
            of = settlement_files.joined(tx, partner, programme, programmes=None)
            if given is not None:
                settlement_files.keep_mapping(tx, services, of, given)
            found, new = settlement_files.compare(
                tx, services, of, content, first_on=_day(first_on), last_on=_day(last_on)
            )
            shown = DIFFERENCES_MAX if as_json else SHOWN_MAX
            return found, new, comparison.differences(tx, found.id, limit=shown)

        found, new, listed = acting.run(
            services,
            work,
            "settlement_file.compared",
            lambda done: public_id(PREFIX, done[0].id),
            partner=partner,
        )
    if as_json:
        output.as_json(
            _json(found) | {"duplicate": not new, "data": [_difference_json(one) for one in listed]}
        )
    else:
        _show(found, new, listed)
    if found.differences:
        raise typer.Exit(1)


@session.command
def differences(
    file: Annotated[str, typer.Argument(help="The file's id: stf_…")],
    as_json: session.AsJson = False,
) -> None:
    """Where a file that was compared differs from the books."""
    with session.services() as services, services.worker.read() as tx:
        found = comparison.one_of(tx, parse_public_id(PREFIX, file))
        listed = comparison.differences(tx, found.id, limit=DIFFERENCES_MAX)
    if as_json:
        output.as_json(_json(found) | {"data": [_difference_json(one) for one in listed]})
        return
    _show(found, True, listed)


@session.command
def explain(
    file: Annotated[str, typer.Argument(help="The file's id: stf_…")],
    number: Annotated[int, typer.Argument(min=1, help="The difference's number.")],
    remark: Annotated[str, typer.Option(help="Why it differs.")],
    as_json: session.AsJson = False,
) -> None:
    """Say why a difference is one. It moves nothing."""
    if not 1 <= len(remark) <= 200 or not remark.isprintable():
        raise session.Refused("a remark is one line of 1 to 200 characters")
    with session.services() as services:
        found = acting.run(
            services,
            lambda tx: comparison.explain(
                tx,
                services.clock,
                comparison.one_of(tx, parse_public_id(PREFIX, file)).id,
                number,
                remark=remark,
                by=session.actor(),
            ),
            "settlement_difference.explained",
            f"{file}/{number}",
            remark=remark,
        )
    if as_json:
        output.as_json(_difference_json(found))
        return
    print(f"{file}, difference {number}: explained.")


@session.command
def mapping(
    partner: Annotated[str | None, typer.Argument(help="The partner's slug.", show_default=False)] = None,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="How its files are read from now on, as JSON.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    programme: Programme = None,
    print_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of mappings instead.", show_default=False)
    ] = False,
) -> None:
    """Show, or change, how a partner's files are read. Prints JSON."""
    if print_schema:
        print(json.dumps(schema(), indent=2, ensure_ascii=False))
        return
    if partner is None:
        raise session.Refused("say whose mapping, or --schema")
    given = mapping_in(file) if file is not None else None
    slug = partner
    with session.services() as services:
        if given is None:
            with services.worker.read() as tx:
                of = settlement_files.joined(tx, slug, programme, programmes=None)
                shown = settlement_files.mapping_of(tx, of)
        else:
            shown = given

            def work(tx: Tx) -> None:
                of = settlement_files.joined(tx, slug, programme, programmes=None)
                settlement_files.keep_mapping(tx, services, of, shown)

            acting.run(services, work, "settlement_mapping.put", slug)
    print(json.dumps(shown, indent=2, ensure_ascii=False))


def _day(at: datetime | None) -> date | None:
    return at.date() if at is not None else None


def _show(found: ComparedFile, new: bool, listed: list[Difference]) -> None:
    output.fields(
        {
            "file": public_id(PREFIX, found.id),
            "partner": found.partner,
            "programme": found.programme,
            "days": f"{found.first_on} to {found.last_on}",
            "lines": found.lines,
            "compared at": found.compared_at,
            **{type_.replace("_", " "): count for type_, count in sorted(found.differences.items())},
            "open": found.open,
        }
    )
    if not new:
        print("It was compared before; nothing changed.")
    if not found.differences:
        print("The file and the books agree.")
        return
    output.table(
        ["no.>", "row>", "type", "event", "remittance", "there>", "here>", "here it is", "explained"],
        [
            [
                one.number,
                one.position,
                one.type,
                one.kind,
                one.remittance_id,
                _amount(one.there_amount, one.there_currency),
                _amount(one.here_amount, one.here_currency),
                one.here_state,
                one.remark,
            ]
            for one in listed
        ],
    )
    total = sum(found.differences.values())
    if total > len(listed):
        print(f"{total - len(listed)} more: mizan settlement differences {public_id(PREFIX, found.id)}")


def _amount(minor: int | None, currency: str | None) -> str | None:
    return f"{output.amount_in(minor, currency)} {currency}" if minor is not None and currency else None


def _json(found: ComparedFile) -> dict[str, object]:
    return {
        "id": public_id(PREFIX, found.id),
        "partner": found.partner,
        "programme": found.programme,
        "sha256": found.digest.hex(),
        "first_on": found.first_on,
        "last_on": found.last_on,
        "lines": found.lines,
        "compared_at": found.compared_at,
        "differences": dict(found.differences),
        "open": found.open,
    }


def _difference_json(one: Difference) -> dict[str, object]:
    return asdict(one) | {"remittance": public_id("rmt", one.remittance) if one.remittance else None}
