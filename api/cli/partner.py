"""Partners: `mizan partner create|list|terms|rotate-secret|enable|disable|try`; organisations: `mizan organisation create`."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.auth import clients
from api.bootstrap import Services
from api.cli import acting, output, partner_terms, session
from api.cli.programme import ensure
from integrations.partners.formats import FORMATS
from integrations.partners.port import EventInvalid
from integrations.partners.secrets import create_secret, rotate_secret
from integrations.strict_json import NotStrictJson
from ledger.database import Tx
from ledger.ids import public_id
from ledger.periods import effective_day
from products.remittances import partners
from products.remittances.events import Event, RemittanceCompleted
from products.remittances.partners import Collection, Terms
from products.remittances.process import Delivery, process
from products.settlements.terms import load_terms, on_day

BODY_BYTES_MAX = 256 * 1024

app = typer.Typer(name="partner", help="Fintech and telecom partners.", no_args_is_help=True)
partner_terms.add_to(app)

organisations = typer.Typer(
    name="organisation",
    help="Associations, NGOs and consulates, whose caseworkers register people.",
    no_args_is_help=True,
)

Slug = Annotated[str, typer.Argument(help="The partner's slug, as in its address /hooks/SLUG.")]


@app.command()
@session.command
def create(
    slug: Annotated[str, typer.Argument(help="1 to 63 lower-case letters, digits and inner hyphens.")],
    programme: Annotated[
        list[str],
        typer.Option(
            help="A programme that it joins; repeat it for more. One of the catalogue is applied if need be."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Its name for people; the slug when left out.", show_default=False)
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help=f"How it writes webhooks: {', '.join(FORMATS)}.")
    ] = "standard",
    terms: Annotated[Terms, typer.Option(help="When it pays in what it collects.")] = "net",
    collection: Annotated[
        Collection, typer.Option(help="How it is known what it collected.")
    ] = "as_reported",
    exposure_ceiling: Annotated[
        str | None,
        typer.Option(
            help="The most it may owe each fund, in major units; beyond it its events are parked.",
            show_default=False,
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Create a partner with its API client and its webhook secret. Both secrets are shown here once and never again."""
    if format_ not in FORMATS:
        raise session.Refused(f"there is no format {format_}: choose one of {', '.join(FORMATS)}")

    with session.services() as services:

        def work(tx: Tx) -> tuple[dict[str, str], list[str]]:
            remarks = []
            made = partners.create_partner(
                tx, slug=slug, name=name or slug, format_=format_, clock=services.clock
            )
            for one in dict.fromkeys(programme):
                applied, just_now = ensure(tx, services, one)
                if just_now:
                    remarks.append(f"applied programme {one} of the catalogue, version {applied.version}")
                currency = services.books.programmes.versions(tx, applied.programme_id)[-1].programme.currency
                partners.join_programme(
                    tx,
                    made,
                    applied.programme_id,
                    terms=terms,
                    collection=collection,
                    exposure_ceiling=None
                    if exposure_ceiling is None
                    else output.minor_units(exposure_ceiling, currency),
                    clock=services.clock,
                )
            secret = create_secret(tx, services.keyring, services.clock, made.id)
            client = clients.create_client(
                tx, name=slug, partner_id=made.id, environment=services.environment, at=services.clock.now()
            )
            return {
                "partner": public_id("ptn", made.id),
                "slug": slug,
                "client_id": client.client_id,
                "client_secret": client.client_secret,
                "webhook_secret": secret,
            }, remarks

        shown, remarks = acting.run(
            services,
            work,
            "partner.created",
            lambda made: made[0]["partner"],
            programmes=programme,
            terms=terms,
        )
    for remark in remarks:
        session.say(remark)
    if as_json:
        output.as_json(shown)
        return
    output.fields(shown)
    print("The secrets are not shown again. Webhooks go to POST /hooks/" + slug)


@organisations.command("create")
@session.command
def create_organisation(
    slug: Annotated[str, typer.Argument(help="1 to 63 lower-case letters, digits and inner hyphens.")],
    programme: Annotated[
        list[str],
        typer.Option(
            help="A programme that it registers people in; repeat it for more. One of the catalogue is applied if need be."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Its name for people; the slug when left out.", show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Create an organisation. It sends no money and has no secrets: its caseworkers log in as operators."""
    with session.services() as services:

        def work(tx: Tx) -> tuple[dict[str, str], list[str]]:
            remarks = []
            programmes = []
            for one in dict.fromkeys(programme):
                applied, just_now = ensure(tx, services, one)
                programmes.append(applied.programme_id)
                if just_now:
                    remarks.append(f"applied programme {one} of the catalogue, version {applied.version}")
            made = partners.create_organisation(
                tx, slug=slug, name=name or slug, programmes=programmes, clock=services.clock
            )
            return {"organisation": public_id("ptn", made.id), "slug": slug, "name": made.name}, remarks

        shown, remarks = services.worker.run(work)
    for remark in remarks:
        session.say(remark)
    if as_json:
        output.as_json(shown)
        return
    output.fields(shown)


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List partners with their programmes and terms, and organisations with their programmes."""
    with session.services() as services, services.worker.begin() as tx:
        rows = tx.exec_driver_sql(
            "select p.id, p.slug, p.name, p.kind, p.format, p.state, g.id, g.slug, g.time_zone, pp.collection"
            " from products.partner p"
            " left join products.partner_programme pp on pp.partner_id = p.id"
            " left join products.programme g on g.id = pp.programme_id order by p.slug, pp.joined_at"
        ).all()
        terms = load_terms(tx, [row[0] for row in rows])
        now = services.clock.now()
    listed: dict[str, dict[str, Any]] = {}
    for partner_id, slug, name, kind, format_, state, programme_id, programme, zone, collection in rows:
        entry = listed.setdefault(
            slug,
            {
                "partner": public_id("ptn", partner_id),
                "slug": slug,
                "name": name,
                "kind": kind,
                "format": format_,
                "state": state,
                "programmes": [],
            },
        )
        if programme is not None:
            terms_of = {}
            if kind == "remitter":
                agreed = on_day(terms[partner_id, programme_id], effective_day(now, zone))
                terms_of = {"terms": agreed.terms, "collection": collection}
            entry["programmes"].append({"programme": programme, **terms_of})
    if as_json:
        output.as_json({"data": list(listed.values())})
        return
    output.table(
        ["slug", "name", "kind", "format", "state", "programmes"],
        [
            (
                one["slug"],
                one["name"],
                one["kind"],
                one["format"],
                one["state"],
                ", ".join(
                    f"{p['programme']} ({p['terms']}, {p['collection']})" if "terms" in p else p["programme"]
                    for p in one["programmes"]
                ),
            )
            for one in listed.values()
        ],
        empty="no partner yet: mizan partner create acme --programme ejoheza",
    )


@app.command("rotate-secret")
@session.command
def rotate(
    slug: Slug,
    what: Annotated[
        Literal["webhook", "client"], typer.Option(help="The webhook secret, or the client's.")
    ] = "webhook",
    overlap_hours: Annotated[
        int,
        typer.Option(help="For how long the secret before it still works; 0 ends it now.", min=0, max=720),
    ] = 24,
    as_json: session.AsJson = False,
) -> None:
    """Give a partner a new secret, shown once; the one before it works until the overlap ends."""
    overlap = timedelta(hours=overlap_hours)

    with session.services() as services:

        def work(tx: Tx) -> dict[str, str]:
            partner = partners.find(tx, slug)
            shown = {"partner": public_id("ptn", partner.id), "slug": slug}
            if what == "webhook":
                secret = rotate_secret(tx, services.keyring, services.clock, partner.id, overlap=overlap)
                return {**shown, "webhook_secret": secret}
            client = clients.rotate_secret(
                tx,
                clients.client_of_partner(tx, partner.id),
                overlap=overlap,
                environment=services.environment,
                at=services.clock.now(),
            )
            return {**shown, "client_id": client.client_id, "client_secret": client.client_secret}

        shown = acting.run(
            services, work, "partner.secret.rotated", lambda shown: shown["partner"], what=what
        )
    if as_json:
        output.as_json(shown)
    else:
        output.fields(shown)


@app.command()
@session.command
def disable(slug: Slug) -> None:
    """Refuse a partner's deliveries and tokens from now on, as if it were unknown. Nothing that it sent changes."""
    _set_state(slug, "disabled")


@app.command()
@session.command
def enable(slug: Slug) -> None:
    """Let a disabled partner send again."""
    _set_state(slug, "active")


@app.command("try")
@session.command
def try_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The body of a webhook; - for standard input.")],
    partner: Annotated[
        str | None,
        typer.Option(help="Also show what would become of it, sent by this partner.", show_default=False),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", help="The format to read it as; the partner's, or standard.", show_default=False
        ),
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Read a webhook's body as its format would, and show the event; with --partner, also its outcome. Changes nothing."""
    body = _body(file)
    if partner is None:
        shown = _reading(body, format_ or "standard")[0]
    else:
        with session.services() as services:
            shown = _outcome(services, body, partner, format_)
    if as_json:
        output.as_json(shown)
    else:
        output.fields({name: value for name, value in shown.items() if value is not None})


def _set_state(slug: str, state: Literal["active", "disabled"]) -> None:
    with session.services() as services:
        acting.run(services, lambda tx: partners.set_state(tx, slug, state), f"partner.{state}", slug)
    print(f"{slug} is {state}")


def _body(file: str) -> bytes:
    if file == "-":
        body = sys.stdin.buffer.read(BODY_BYTES_MAX + 1)
    else:
        with Path(file).open("rb") as opened:
            body = opened.read(BODY_BYTES_MAX + 1)
    if len(body) > BODY_BYTES_MAX:
        raise session.Refused(f"a webhook's body has at most {BODY_BYTES_MAX // 1024} KiB")
    return body


def _reading(body: bytes, format_: str) -> tuple[dict[str, Any], Event | None]:
    """The event in a body as people read it, and itself. Raises `Refused` with every fault."""
    if format_ not in FORMATS:
        raise session.Refused(f"there is no format {format_}: choose one of {', '.join(FORMATS)}")
    try:
        reading = FORMATS[format_].read(body)
    except NotStrictJson as error:
        raise session.Refused(f"not strict JSON: {error}") from None
    except EventInvalid as error:
        faults = "\n".join(f"{fault.pointer or '/'} {fault.detail}" for fault in error.faults)
        raise session.Refused(f"the event breaks its schema\n{faults}") from None
    event = reading.event
    shown: dict[str, Any] = {"type": reading.event_type}
    if event is None:
        return shown | {"outcome": "ignored: nothing is done for events of this type"}, None
    shown["remittance_id"] = event.remittance_id
    if isinstance(event, RemittanceCompleted):
        shown |= {
            "member": f"{event.member.kind} {event.member.value}",
            "sent": str(event.sent),
            "received": str(event.received),
            "fee": None if event.fee is None else str(event.fee),
            "collected": "as the partner's terms say" if event.collected is None else str(event.collected),
            "corridor": f"{event.origin_country} → {event.destination_country}",
            "completed_at": event.completed_at.isoformat(),
        }
    else:
        shown |= {"reversed_at": event.reversed_at.isoformat(), "reason": event.reason}
    return shown, event


def _outcome(services: Services, body: bytes, slug: str, format_: str | None) -> dict[str, Any]:
    """What the main job would make of the event: done for real, and rolled back."""
    with services.worker.engine.connect() as tx:
        try:
            partner = partners.find(tx, slug)
            shown, event = _reading(body, format_ or partner.format)
            if event is None:
                return shown
            [verdict] = process(tx, [Delivery(None, partner.id, event)], books=services.books)
            shown |= {"outcome": verdict.state, "because": verdict.reason}
            if verdict.remittance is not None:
                rows = tx.exec_driver_sql(
                    "select coalesce(product, destination), amount, currency, entitled from products.contribution"
                    " where remittance = %s and state <> 'reversed' order by position",
                    (verdict.remittance,),
                )
                shown["allocations"] = [
                    {
                        "product": product,
                        "amount": output.money_json(amount, currency),
                        "entitled": output.money_json(entitled, currency),
                    }
                    for product, amount, currency, entitled in rows
                ]
            return shown
        finally:
            tx.rollback()
