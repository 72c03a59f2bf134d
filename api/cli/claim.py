"""Claims from sponsors in arrears: `mizan sponsor claim make|list|show|file|certify|withdraw|adjust`."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from api.approvals import books, service
from api.approvals.claims import request_certification
from api.cli import acting, match, output, session
from api.cli.approval import tell_asked
from api.jobs import book_claims
from api.seal_key import sealing_key
from ledger.ids import parse_public_id, public_id
from ledger.periods import effective_day
from products.claims import packs
from products.claims.packs import PREFIX, Pack, State
from products.programmes.registry import find
from products.savings import adjustments

BOOKING_SECONDS_MAX = 600.0
ADJUSTMENTS_MAX = 1_000

app = typer.Typer(name="claim", help="What sponsors in arrears are claimed for.", no_args_is_help=True)

PackArgument = Annotated[str, typer.Argument(metavar="PACK", help="The pack's id, cpk_….")]
DAY = ["%Y-%m-%d"]


@app.command()
@session.command
def make(
    sponsor: Annotated[str, typer.Argument(help="The sponsor's slug, as the programme names it.")],
    programme: Annotated[str, typer.Option(help="The programme that it funds.")],
    through: Annotated[
        datetime | None,
        typer.Option(
            formats=DAY,
            help="Claim for contributions up to and including this day; today when left out.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """List, total and sign what awaits a sponsor in arrears."""
    with session.services() as services:
        with services.worker.begin() as tx:
            zone = services.books.programmes.versions(tx, find(tx, programme))[-1].programme.time_zone
        day = through.date() if through else effective_day(services.clock.now(), zone)
        made = acting.run(
            services,
            lambda tx: packs.make(
                tx,
                services.books,
                sealing_key(services.settings),
                programme=programme,
                sponsor=sponsor,
                through=day,
            ),
            "claim_pack.made",
            lambda made: made.public_id,
            sponsor=sponsor,
            programme=programme,
        )
    _tell(made, as_json)


@app.command("list")
@session.command
def list_(
    sponsor: Annotated[str | None, typer.Option(help="One sponsor's.", show_default=False)] = None,
    state: Annotated[State | None, typer.Option(help="Those in this state.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 100,
    as_json: session.AsJson = False,
) -> None:
    """List packs, the oldest first."""
    with session.services() as services, services.worker.begin() as tx:
        found = packs.packs(tx, sponsor=sponsor, state=state, limit=limit)
    if as_json:
        output.as_json({"data": [_shown(one) for one in found]})
        return
    output.table(
        [
            "id",
            "programme",
            "sponsor",
            "number>",
            "through",
            "lines>",
            "total>",
            "currency",
            "state",
            "booked>",
        ],
        [
            (
                one.public_id,
                one.programme,
                one.sponsor,
                one.number,
                one.through,
                one.lines,
                output.amount_in(one.total, one.currency),
                one.currency,
                one.state,
                one.booked_lines,
            )
            for one in found
        ],
        empty="no claim",
    )


@app.command()
@session.command
def show(pack: PackArgument, as_json: session.AsJson = False) -> None:
    """Show a pack: its totals, its digest and signature, and how far it is booked."""
    with session.services() as services, services.worker.begin() as tx:
        found = packs.pack_of(tx, parse_public_id(PREFIX, pack))
    _tell(found, as_json)


@app.command()
@session.command
def file(
    pack: PackArgument,
    to: Annotated[
        Path | None,
        typer.Option(help="Where to write it; standard output when left out.", show_default=False),
    ] = None,
) -> None:
    """Write the signed file that the sponsor checks and certifies (docs/examples/verify_claim_pack.py checks it)."""
    with session.services() as services, services.worker.begin() as tx:
        written = packs.file_of(tx, packs.pack_of(tx, parse_public_id(PREFIX, pack)))
    if to is None:
        sys.stdout.buffer.write(written)
    else:
        to.write_bytes(written)
        print(f"{to}: {len(written)} bytes")


@app.command()
@session.command
def certify(
    pack: PackArgument,
    reference: Annotated[str, typer.Option(help="The sponsor's own reference of its certification.")],
    sha256: Annotated[str, typer.Option(help="The digest of the file that it certified.")],
    on: Annotated[datetime, typer.Option(formats=DAY, help="The day on which it certified.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Record that the sponsor certified the pack. Another manager approves; then the sponsor owes it, and it is committed."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: request_certification(
                tx,
                services,
                actor,
                parse_public_id(PREFIX, pack),
                sha256=sha256,
                reference=reference,
                certified_on=on.date(),
                origin=origin,
            ),
        )
        if asked.state == "approved":
            book_claims(services.worker, services.books, seconds_max=BOOKING_SECONDS_MAX)
    tell_asked(asked, as_json)


@app.command()
@session.command
def withdraw(pack: PackArgument, as_json: session.AsJson = False) -> None:
    """Withdraw a pack that is not certified: what it claims can be claimed anew."""
    with session.services() as services:
        gone = acting.run(
            services,
            lambda tx: packs.withdraw(tx, parse_public_id(PREFIX, pack)),
            "claim_pack.withdrawn",
            pack,
        )
    _tell(gone, as_json)


@app.command()
@session.command
def adjust(
    sponsor: Annotated[str, typer.Argument(help="The sponsor's slug, as the programme names it.")],
    programme: Annotated[str, typer.Option(help="The programme that it funds.")],
    as_json: session.AsJson = False,
) -> None:
    """Ask for what the sponsor certified, and members are no longer entitled to, to fall.

    A manager approves each fall; in the sandbox it is done at once. It comes off what the sponsor owes, and stands as a
    negative line in its next pack.
    """
    with session.services() as services:
        services.worker.run(lambda tx: books.request_adjustments(tx, services))
        with services.worker.begin() as tx:
            programme_id = find(tx, programme)
            asked = [
                match.request_for(tx, services, public_id("adj", one.id))
                for one in adjustments.proposed(tx, limit=ADJUSTMENTS_MAX)
                if (one.programme_id, one.sponsor) == (programme_id, sponsor)
            ]
        if not acting.two_persons(services):
            asked = [
                services.worker.run(lambda tx, one=one: service.carry_out(tx, services, one))  # type: ignore[misc]  # a default is the way to bind a loop's name
                for one in asked
            ]
    if as_json:
        output.as_json({"data": [{"id": one.public_id, "state": one.state} for one in asked]})
        return
    for one in asked:
        tell_asked(one, as_json=False)
    if not asked:
        print(f"nothing that {sponsor} certified has to fall")


def _tell(pack: Pack, as_json: bool) -> None:
    if as_json:
        output.as_json(_shown(pack))
        return
    output.fields(
        {
            "claim pack": pack.public_id,
            "sponsor": f"{pack.sponsor} of {pack.programme}, claim {pack.number}",
            "through": pack.through,
            "lines": f"{pack.lines}, and {pack.adjustments} adjustments",
            "claimed": f"{output.amount_in(pack.claimed, pack.currency)} {pack.currency}",
            "adjusted": f"{output.amount_in(pack.adjusted, pack.currency)} {pack.currency}",
            "total": f"{output.amount_in(pack.total, pack.currency)} {pack.currency}",
            "sha256": pack.digest.hex(),
            "signed by": pack.key_id,
            "state": pack.state,
            "certified": pack.certification,
            "booked lines": pack.booked_lines,
        }
    )


def _shown(pack: Pack) -> dict[str, object]:
    return {
        "id": pack.public_id,
        "programme": pack.programme,
        "sponsor": pack.sponsor,
        "number": pack.number,
        "since": pack.since.isoformat() if pack.since else None,
        "through": pack.through.isoformat(),
        "lines": pack.lines,
        "adjustments": pack.adjustments,
        "claimed": output.money_json(pack.claimed, pack.currency),
        "adjusted": output.money_json(pack.adjusted, pack.currency),
        "total": output.money_json(pack.total, pack.currency),
        "sha256": pack.digest.hex(),
        "key_id": pack.key_id,
        "signature": pack.signature.hex(),
        "state": pack.state,
        "made_at": pack.made_at.isoformat(),
        "certification": pack.certification,
        "certified_on": pack.certified_on.isoformat() if pack.certified_on else None,
        "booked_lines": pack.booked_lines,
        "booked_at": pack.booked_at.isoformat() if pack.booked_at else None,
    }
