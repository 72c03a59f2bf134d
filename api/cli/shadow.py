"""A past year in shadow: `mizan shadow run`."""

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from api.cli import output, session
from api.shadow import given
from api.shadow.compare import Counted, Difference
from api.shadow.replay import Bank, PartnerTerms, Year
from api.shadow.run import ShadowReport
from api.shadow.run import run as run_shadow
from products.programmes.loader import load
from products.remittances.partners import Collection, Terms

app = typer.Typer(
    name="shadow", help="A past year replayed beside the live books, and compared.", no_args_is_help=True
)

SHOWN_MAX: Final = 200
"""Differences in the table for people; --json and --csv have them all."""
_DAY = ["%Y-%m-%d"]


@app.callback()
def group() -> None:
    """A past year replayed beside the live books, and compared."""


@app.command()
@session.command
def run(
    programme: Annotated[
        list[Path],
        typer.Option(
            help="The programme's file; several: its versions, the oldest first.", exists=True, dir_okay=False
        ),
    ],
    members: Annotated[Path, typer.Option(help="The members, as XLSX or CSV.", exists=True, dir_okay=False)],
    events: Annotated[
        Path,
        typer.Option(help="The partners' events, one JSON object in a line.", exists=True, dir_okay=False),
    ],
    expected: Annotated[
        Path, typer.Option(help="The old system's figures, as XLSX or CSV.", exists=True, dir_okay=False)
    ],
    since: Annotated[datetime, typer.Option("--from", formats=_DAY, help="The first day that is replayed.")],
    through: Annotated[datetime, typer.Option(formats=_DAY, help="The last day that is replayed.")],
    partner: Annotated[
        list[str], typer.Option(metavar="SLUG[:TERMS[:COLLECTION]]", help="A partner, and its terms (net).")
    ],
    opening: Annotated[
        Path | None,
        typer.Option(
            help="The balances on the day before, as `mizan opening load` takes them.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    statements: Annotated[
        list[Path] | None,
        typer.Option(
            help="A bank's file; may be given again.", exists=True, dir_okay=False, show_default=False
        ),
    ] = None,
    bank: Annotated[
        list[str] | None,
        typer.Option(metavar="FUND=NUMBER", help="A fund's bank account: savers=RW12….", show_default=False),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="How CSV statements are read, as JSON.", exists=True, dir_okay=False, show_default=False
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option("--sample", help="The old system's file names some members only.", show_default=False),
    ] = False,
    references: Annotated[
        bool,
        typer.Option("--references", help="Show partners' references of members too.", show_default=False),
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="An empty folder in which the shadow's servers live on; else they are gone afterwards.",
            show_default=False,
        ),
    ] = None,
    csv_to: Annotated[
        Path | None, typer.Option("--csv", help="Write the differences to this file too.", show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Replay a past year in a database of its own, and list where the old system differs. The live books are not touched.

    Members are shown by ids of the shadow and by the row of the old system's file; names and references stay out.
    """
    sources = [one.read_text(encoding="utf-8") for one in programme]
    described = load(sources[-1])
    year = Year(
        since=since.date(),
        through=through.date(),
        programmes=sources,
        partners=[_partner(one) for one in partner],
        members=given.members(members, described),
        events=given.Events(events),
        statements=statements or (),
        banks=[_bank(one) for one in bank or ()],
        mapping=json.loads(mapping.read_text(encoding="utf-8")) if mapping is not None else None,
        opening=opening,
    )
    theirs = given.expected(
        expected, described.currency, [one.code for one in described.products], through.date()
    )
    days = (year.through - year.since).days + 1
    with output.progress(f"{described.slug}: days replayed", days) as steps:
        report = run_shadow(year, theirs, folder=keep, sample=sample, told=steps.show)
    if csv_to is not None:
        _write_csv(csv_to, report, references)
    if as_json:
        output.as_json(_json(report, references))
    else:
        _tell(report, references)


def _partner(said: str) -> PartnerTerms:
    slug, _, rest = said.partition(":")
    terms, _, collection = rest.partition(":")
    chosen = next((one for one in get_args(Terms) if one == (terms or "net")), None)
    collecting = next((one for one in get_args(Collection) if one == (collection or "as_reported")), None)
    if not slug or chosen is None or collecting is None:
        raise session.Refused(
            f"“{said}”: a partner is SLUG[:TERMS[:COLLECTION]], with {', '.join(get_args(Terms))} and {', '.join(get_args(Collection))}"
        )
    return PartnerTerms(slug, chosen, collecting)


def _bank(said: str) -> Bank:
    fund, _, number = said.partition("=")
    if not fund or not number:
        raise session.Refused(f"“{said}”: a bank account is FUND=NUMBER")
    return Bank(fund, number)


def _tell(report: ShadowReport, references: bool) -> None:
    replayed = report.replayed
    output.fields(
        {
            "days": f"{report.since} to {report.through}",
            "events": f"{replayed.events} ({', '.join(f'{count} {what}' for what, count in sorted(replayed.outcomes.items()))})",
            "statements": f"{replayed.statements}, {replayed.pairings} pairings",
            "breaks": ", ".join(f"{count} {what}" for what, count in report.breaks.items()) or "none",
            "figures compared": report.compared,
            "differences": len(report.differences),
            "shadow's books verify": report.verified,
            "seconds": report.seconds,
            "memory MiB": report.memory_bytes_max >> 20,
        }
    )
    output.table(
        [
            *(["reference"] if references else []),
            "member",
            "product",
            "figure",
            "day",
            "ours>",
            "theirs>",
            "difference>",
            "row",
            "why",
            "events",
        ],
        [
            (
                *([one.reference] if references else []),
                one.member,
                one.product,
                one.figure,
                one.on,
                _amount(one.ours, report.currency),
                _amount(one.theirs, report.currency),
                output.amount_in(one.difference, report.currency),
                one.at or None,
                one.why,
                _trail(one, report.currency),
            )
            for one in report.differences[:SHOWN_MAX]
        ],
        empty="nothing differs",
    )
    if len(report.differences) > SHOWN_MAX:
        print(f"and {len(report.differences) - SHOWN_MAX} more: --json and --csv list them all")
    if report.differences:
        output.table(
            ["day", "figure", "differences>", "ours>", "theirs>", "difference>"],
            [
                (
                    on,
                    figure,
                    count,
                    *(output.amount_in(one, report.currency) for one in (ours, theirs, ours - theirs)),
                )
                for (on, figure), (count, ours, theirs) in report.totals.items()
            ],
        )


def _trail(one: Difference, currency: str) -> str:
    shown = [
        f"{counted.event} {_amount(counted.amount, currency) or ''} {counted.state}"
        for counted in one.trail[:3]
    ]
    more = one.events - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more > 0 else [])])


def _amount(amount: int | None, currency: str) -> str | None:
    return None if amount is None else output.amount_in(amount, currency)


def _json(report: ShadowReport, references: bool) -> dict[str, Any]:
    money = output.money_json
    return {
        "from": report.since.isoformat(),
        "through": report.through.isoformat(),
        "events": report.replayed.events,
        "outcomes": dict(sorted(report.replayed.outcomes.items())),
        "statements": report.replayed.statements,
        "pairings": report.replayed.pairings,
        "breaks": report.breaks,
        "compared": report.compared,
        "verified": report.verified,
        "seconds": report.seconds,
        "memory_bytes_max": report.memory_bytes_max,
        "not_taken": [
            {"line": one.line, "state": one.state, "reason": one.reason} for one in report.replayed.not_taken
        ],
        "differences": [
            {
                **({"reference": one.reference} if references else {}),
                "member": one.member,
                "partner": one.partner,
                "product": one.product,
                "figure": one.figure,
                "date": one.on.isoformat(),
                "ours": None if one.ours is None else money(one.ours, report.currency),
                "theirs": None if one.theirs is None else money(one.theirs, report.currency),
                "difference": money(one.difference, report.currency),
                "row": one.at or None,
                "why": one.why,
                "events": one.events,
                "trail": [_counted(each, report.currency) for each in one.trail],
            }
            for one in report.differences
        ],
        "totals": [
            {
                "date": on.isoformat(),
                "figure": figure,
                "differences": count,
                "ours": money(ours, report.currency),
                "theirs": money(theirs, report.currency),
            }
            for (on, figure), (count, ours, theirs) in report.totals.items()
        ],
    }


def _counted(one: Counted, currency: str) -> dict[str, Any]:
    return {
        "event": one.event,
        "on": one.on.isoformat() if one.on else None,
        "amount": None if one.amount is None else output.money_json(one.amount, currency),
        "state": one.state,
    }


def _write_csv(path: Path, report: ShadowReport, references: bool) -> None:
    """The differences, in minor units."""
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        first = ["reference"] if references else []
        writer.writerow(
            [*first, "member", "partner", "product", "figure", "date", "currency", "ours", "theirs", "difference", "row", "why", "events"]
        )  # fmt: skip
        for one in report.differences:
            named = [one.reference] if references else []
            writer.writerow(
                [*named, one.member, one.partner, one.product, one.figure, one.on, report.currency, one.ours, one.theirs,
                 one.difference, one.at, one.why, one.events]
            )  # fmt: skip
