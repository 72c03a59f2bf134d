"""Rails: `mizan rail create|list|show|pause|resume|top-up|tie|reports`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from api.bootstrap import Services
from api.cli import acting, output, session
from integrations.rails import configured, directory
from integrations.rails.setting import InvalidRailOptions
from ledger.database import Tx
from ledger.ids import public_id
from products.members.payees import Rail as PayeeKind
from products.payouts import funding, queries, registry
from products.payouts import tie as tying
from products.payouts.health import Health, health_of
from products.payouts.rails import ListUnavailable
from products.payouts.registry import ConfiguredRail, NewRail
from products.payouts.terms import Arrival, Fee, Limits
from products.programmes import registry as programmes

app = typer.Typer(name="rail", help="The rails that payouts travel on.", no_args_is_help=True)

Slug = Annotated[str, typer.Argument(metavar="RAIL", help="The rail's name.")]
SINCE_DAYS: Final = 30
TIE_FAILED: Final = 1
REPORTS_MAX: Final = 1_000


def _limit(help_: str) -> Any:
    return typer.Option(help=f"{help_}, in major units; no limit when left out.", show_default=False)


@app.command()
@session.command
def create(
    rail: Slug,
    programme: Annotated[str, typer.Option(help="The programme whose members it pays.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(sorted(directory.ADAPTERS))}.")] = "simulator",
    payees: Annotated[
        str, typer.Option(help="The kinds of payees that it pays: mobile_money, bank, card, by comma.")
    ] = "mobile_money,bank,card",
    funded: Annotated[
        Literal["bank", "float"], typer.Option(help="Where its payouts are paid from.")
    ] = "bank",
    fee: Annotated[str, typer.Option(help="Its fixed fee, in major units.")] = "0",
    fee_percent: Annotated[str, typer.Option(help="Its fee as a share of the payout, in percent.")] = "0",
    fee_bearer: Annotated[Literal["member", "fund"], typer.Option(help="Who bears its fee.")] = "fund",
    arrival: Annotated[
        str, typer.Option(help="When the money arrives: `0-5 minutes`, or `1-2 business days`.")
    ] = "0-5 minutes",
    countries: Annotated[
        str, typer.Option(help="Whose business days count, by comma: RW,DE.", show_default=False)
    ] = "",
    minimum: Annotated[str | None, _limit("The least that it pays at once")] = None,
    maximum: Annotated[str | None, _limit("The most that it pays at once")] = None,
    per_member_day: Annotated[str | None, _limit("What it pays a member in a day")] = None,
    per_day: Annotated[str | None, _limit("What it pays in a day")] = None,
    release_above: Annotated[str | None, _limit("What two operators have to release more than")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Approved payouts that may wait for it.")] = 10_000,
    options: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with the kind's own options.", exists=True, dir_okay=False, show_default=False
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with its secrets, by name.", exists=True, dir_okay=False, show_default=False
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Add a rail to a programme. The same again changes nothing; its secrets are replaced."""
    with session.services() as services:
        try:
            kept, secret = directory.validated(kind, _object(options), _texts(secrets))
        except InvalidRailOptions as error:
            raise session.Refused(str(error)) from None

        def work(tx: Tx) -> ConfiguredRail:
            programme_id = programmes.find(tx, programme)
            currency = _currency(tx, programme)
            terms = NewRail(
                slug=rail,
                kind=kind,
                payee_kinds=_kinds(payees),
                checks_payees=directory.kind_of(kind).CHECKS_PAYEES,
                funded=funded,
                fee=Fee(_amount(fee, currency), _basis_points(fee_percent), fee_bearer),
                arrival=_arrival(arrival, countries),
                limits=Limits(
                    amount_min=_amount(minimum, currency) if minimum else 1,
                    amount_max=_amount_or_none(maximum, currency),
                    per_member_day=_amount_or_none(per_member_day, currency),
                    per_day=_amount_or_none(per_day, currency),
                    release_above=_amount_or_none(release_above, currency),
                    queue_max=queue,
                ),
                options=kept,
            )
            made = registry.create(tx, programme_id, terms, clock=services.clock)
            if secret:
                configured.keep_secrets(tx, services.keyring, services.clock, made.id, secret)
            return made

        made = acting.run(services, work, "rail.created", rail, kind=kind, programme=programme)
        _built(services, made)
    _tell(made, None, as_json)


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List rails, with what waits for each and is under way."""
    with session.services() as services, services.worker.begin() as tx:
        rails = registry.rails(tx)
        healths = health_of(tx, [one.id for one in rails])
    if as_json:
        output.as_json({"data": [_json(one, healths[one.id]) for one in rails]})
        return
    output.table(
        ["rail", "kind", "currency", "state", "queued>", "under way>", "unknown>"],
        [
            (
                one.slug,
                one.kind,
                one.currency,
                _state(one, healths[one.id]),
                healths[one.id].queued,
                healths[one.id].under_way,
                healths[one.id].unknown,
            )
            for one in rails
        ],
        empty="no rails: `mizan rail create` adds one",
    )


@app.command()
@session.command
def show(rail: Slug, as_json: session.AsJson = False) -> None:
    """Show a rail's terms, and how it does."""
    with session.services() as services, services.worker.begin() as tx:
        found = registry.find(tx, rail)
        health = health_of(tx, [found.id])[found.id]
    _tell(found, health, as_json)


@app.command()
@session.command
def pause(rail: Slug, as_json: session.AsJson = False) -> None:
    """Stop sending through a rail: what is approved waits. What is under way goes on being asked about."""
    _pause(rail, as_json, paused=True)


@app.command()
@session.command
def resume(rail: Slug, as_json: session.AsJson = False) -> None:
    """Go on sending through a rail that was paused."""
    _pause(rail, as_json, paused=False)


@app.command("top-up")
@session.command
def top_up(
    rail: Slug,
    amount: Annotated[str, typer.Argument(help="In major units of the rail's currency: 1500.00")],
    reference: Annotated[str, typer.Option(help="Names the transfer: the same one is booked once.")],
    as_json: session.AsJson = False,
) -> None:
    """Book a transfer from the bank to a rail's float."""
    with session.services() as services:

        def work(tx: Tx) -> tuple[ConfiguredRail, int, funding.TopUp]:
            found = registry.find(tx, rail)
            minor = output.minor_units(amount, found.currency)
            return found, minor, funding.top_up(tx, services.books, found, minor, reference=reference)

        found, minor, done = acting.run(
            services, work, "rail.topped_up", rail, amount=amount, reference=reference
        )
    said = {
        "rail": rail,
        "amount": output.money_json(minor, found.currency),
        "transaction": public_id("txn", done.transaction_id),
        "replayed": done.replayed,
        "float": output.money_json(done.float_, found.currency),
    }
    if as_json:
        output.as_json(said)
        return
    output.fields(
        said
        | {
            "amount": output.amount_in(minor, found.currency),
            "float": output.amount_in(done.float_, found.currency),
        }
    )


@app.command()
@session.command
def tie(
    rail: Slug,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help=f"From this day on (UTC); {SINCE_DAYS} days ago when left out.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Compare every payment with the rail's own list, to the last unit. Any difference ends with exit code 1."""
    with session.services() as services:
        with services.worker.begin() as tx:
            found = registry.find(tx, rail)
        until = services.clock.now()
        begin = since.replace(tzinfo=UTC) if since else until - timedelta(days=SINCE_DAYS)
        try:
            listed = list(services.rails.adapter(found).listed(begin, until))
        except ListUnavailable as error:
            raise session.Refused(f"the rail's list can't be had whole: {error}") from None
        with services.worker.read() as tx:
            done = tying.tie(tx, found, listed, since=begin, until=until)
    _tell_tie(done, found.currency, as_json)
    if not done.ties:
        raise typer.Exit(TIE_FAILED)


@app.command()
@session.command
def reports(
    rail: Slug,
    state: Annotated[
        Literal["applied", "repeated", "outdated", "unmatched", "contradicts"] | None,
        typer.Option(help="Only those of which this became.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=REPORTS_MAX)] = 50,
    as_json: session.AsJson = False,
) -> None:
    """List what a rail said beyond its answers, the newest first, and what became of each."""
    with session.services() as services, services.worker.begin() as tx:
        found = registry.find(tx, rail)
        kept = queries.kept_reports(tx, rail_id=found.id, outcome=state, limit=limit)
    if as_json:
        output.as_json({"data": [report_json(one) for one in kept]})
        return
    output.table(
        ["received", "by", "payout", "said", "reason", "amount>", "became", "problem"],
        [
            (
                one.received_at,
                one.source,
                public_id("pay", one.payout_id) if one.payout_id is not None else None,
                one.report.state,
                one.report.reason or one.report.code,
                None
                if one.report.amount is None
                else output.amount_in(one.report.amount, one.report.currency or found.currency),
                one.outcome,
                one.problem,
            )
            for one in kept
        ],
        empty="it said nothing beyond its answers",
    )


def report_json(kept: queries.KeptReport) -> dict[str, Any]:
    """What a rail said, for programs: as `GET /v1/rails/{rail}/reports` shows it, with the rail's name."""
    report = kept.report
    amount = (
        output.money_json(report.amount, report.currency)
        if report.amount is not None and report.currency is not None
        else None
    )
    return {
        "id": public_id("rpt", kept.id),
        "rail": kept.rail,
        "source": kept.source,
        "payout": public_id("pay", kept.payout_id) if kept.payout_id is not None else None,
        "sending": report.attempt,
        "rail_reference": report.rail_reference,
        "said": report.state,
        "reason": report.reason,
        "code": report.code,
        "at": report.at,
        "amount": amount,
        "state": kept.outcome,
        "problem": kept.problem,
        "received_at": kept.received_at,
    }


def _tell_tie(done: tying.Tie, currency: str, as_json: bool) -> None:
    said = {
        "rail": done.rail,
        "ties": done.ties,
        "since": done.since,
        "until": done.until,
        "ours": done.ours,
        "theirs": done.theirs,
        "paid_ours": output.money_json(done.paid_ours, currency),
        "paid_theirs": output.money_json(done.paid_theirs, currency),
        "clearing": output.money_json(done.clearing, currency),
        "out": output.money_json(done.out, currency),
    }
    differences = [
        {
            "payout": public_id("pay", one.payout_id) if one.payout_id else None,
            "sending": one.attempt_id,
            "rail_reference": one.rail_reference,
            "what": one.what,
            "ours": one.ours,
            "theirs": one.theirs,
        }
        for one in done.differences
    ]
    if as_json:
        output.as_json(said | {"differences": differences})
        return
    amounts = ("paid_ours", "paid_theirs", "clearing", "out")
    output.fields(said | {name: output.amount_in(getattr(done, name), currency) for name in amounts})
    output.table(
        ["payout", "at the rail", "what", "ours", "theirs"],
        [
            (one["payout"], one["rail_reference"] or one["sending"], one["what"], one["ours"], one["theirs"])
            for one in differences
        ],
        empty="nothing differs",
    )


def _pause(rail: str, as_json: bool, *, paused: bool) -> None:
    with session.services() as services:
        found = acting.run(
            services,
            lambda tx: registry.pause(tx, rail, paused=paused, clock=services.clock),
            "rail.paused" if paused else "rail.resumed",
            rail,
        )
    _tell(found, None, as_json)


def _tell(rail: ConfiguredRail, health: Health | None, as_json: bool) -> None:
    if as_json:
        output.as_json(_json(rail, health))
        return
    shown = _json(rail, health)
    limits = {name: value for name, value in shown.pop("limits").items() if value is not None}
    output.fields(shown | {"limits": ", ".join(f"{name} {value}" for name, value in limits.items())})


def _json(rail: ConfiguredRail, health: Health | None) -> dict[str, Any]:
    limits = rail.limits
    said: dict[str, Any] = {
        "rail": rail.slug,
        "kind": rail.kind,
        "currency": rail.currency,
        "payees": ", ".join(rail.payee_kinds),
        "funded": rail.funded,
        "fee": f"{output.amount_in(rail.fee.fixed, rail.currency)} + {rail.fee.basis_points / 100:g} %, borne by the"
        f" {rail.fee.bearer}",
        "arrival": f"{rail.arrival.earliest}-{rail.arrival.latest} {rail.arrival.unit}",
        "paused_at": rail.paused_at,
        "limits": {
            name: None if (value := getattr(limits, name)) is None else output.amount_in(value, rail.currency)
            for name in ("amount_min", "amount_max", "per_member_day", "per_day", "release_above")
        }
        | {"queue_max": limits.queue_max},
    }
    if health is not None:
        said |= {
            "state": _state(rail, health),
            "queued": health.queued,
            "under_way": health.under_way,
            "unknown": health.unknown,
            "failures": health.failures,
            "last_failure": health.last_failure,
        }
    return said


def _state(rail: ConfiguredRail, health: Health) -> str:
    if rail.paused_at is not None:
        return "paused"
    return "ready" if health.opened_at is None else "down"


def _built(services: Services, rail: ConfiguredRail) -> None:
    """Build the adapter once, so that what it refuses to run with is said now."""
    try:
        services.rails.adapter(rail)
    except (InvalidRailOptions, ValueError) as error:
        session.say(f"the rail is there, but nothing can be sent by it yet: {error}")


def _currency(tx: Tx, programme: str) -> str:
    return str(
        tx.exec_driver_sql(
            "SELECT currency FROM products.programme WHERE slug = %s", (programme,)
        ).scalar_one()
    )


def _object(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise session.Refused(f"{file}: {error}") from None
    if not isinstance(read, dict):
        raise session.Refused(f"{file} holds no JSON object")
    return read


def _texts(file: Path | None) -> dict[str, str]:
    read = _object(file)
    return {name: value for name, value in read.items() if isinstance(value, str)}


def _kinds(payees: str) -> tuple[PayeeKind, ...]:
    return tuple(_each_kind(payees))


def _each_kind(payees: str) -> Iterator[PayeeKind]:
    for one in (part.strip() for part in payees.split(",")):
        match one:
            case "mobile_money" | "bank" | "card":
                yield one
            case _:
                raise session.Refused(f"“{one}” is no kind of payee: mobile_money, bank or card")


def _amount(text: str, currency: str) -> int:
    return 0 if text == "0" else output.minor_units(text, currency)


def _amount_or_none(text: str | None, currency: str) -> int | None:
    return None if text is None else _amount(text, currency)


def _basis_points(text: str) -> int:
    try:
        points = Decimal(text) * 100
    except InvalidOperation:
        raise session.Refused(f"“{text}” is no percentage") from None
    if points != points.to_integral_value():
        raise session.Refused("a percentage has at most two decimals")
    return int(points)


def _arrival(text: str, countries: str) -> Arrival:
    span, _, unit = text.partition(" ")
    earliest, _, latest = span.partition("-")
    units: dict[str, Literal["minutes", "business_days"]] = {
        "minutes": "minutes",
        "business days": "business_days",
    }
    if unit not in units or not earliest.isdigit() or not (latest or earliest).isdigit():
        raise session.Refused("an arrival is written as `0-5 minutes` or `1-2 business days`")
    listed = tuple(one.strip() for one in countries.split(",") if one.strip())
    return Arrival(units[unit], int(earliest), int(latest or earliest), listed)
