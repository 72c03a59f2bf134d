"""Programmes: `mizan programme apply|show|list|validate|schema`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.approvals import programmes
from api.bootstrap import Services
from api.cli import acting, approval, output, session
from ledger.database import Tx
from ledger.ids import public_id
from products.programmes.loader import catalogue, load
from products.programmes.model import Programme
from products.programmes.registry import Applied, apply, find
from products.programmes.schema import SCHEMA

FILE_BYTES_MAX = 256 * 1024

app = typer.Typer(name="programme", help="Schemes, described as data.", no_args_is_help=True)

Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE|SLUG", help="A programme file, - for standard input, or one of the catalogue."
    ),
]


@app.command("apply")
@session.command
def apply_(
    source: Source,
    as_: acting.As = None,
    remark: Annotated[str, typer.Option(help="Kept with the request, in production.")] = "",
    as_json: session.AsJson = False,
) -> None:
    """Apply a programme: the first version opens its funds and sponsors. The same file again changes nothing.

    In production it is asked for, and applied when another administrator approves.
    """
    text = read_source(source)
    with session.services() as services:
        programme = load(text)
        if acting.two_persons(services):
            asked = acting.ask(
                services,
                as_,
                lambda tx, actor, origin: programmes.request_version(
                    tx, services, actor, text, remark, origin=origin
                ),
            )
            approval.tell_asked(asked, as_json)
            return
        applied = acting.run(
            services,
            lambda tx: apply(tx, text, clock=services.clock),
            "programme.applied",
            lambda applied: public_id("prg", applied.programme_id),
            version=programme.validity.version,
        )
    if as_json:
        output.as_json(
            {
                "programme": public_id("prg", applied.programme_id),
                "slug": programme.slug,
                "version": applied.version,
                "created": applied.created,
            }
        )
        return
    done = "is applied" if applied.created else "was applied before; nothing changed"
    print(f"{programme.slug}, version {applied.version}, {done}")
    if applied.created and programme.sponsors:
        print("Its sponsors have no money yet:")
        for sponsor in programme.sponsors:
            print(f"  mizan sponsor fund {sponsor.slug} --programme {programme.slug} --amount …")


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List the programmes that are applied, and those of the catalogue that could be."""
    with session.services() as services, services.worker.begin() as tx:
        rows = _applied(tx)
    known = {str(row["slug"]) for row in rows}
    more = [load(text) for slug, text in catalogue().items() if slug not in known]
    if as_json:
        output.as_json(
            {
                "data": rows,
                "catalogue": [{"slug": one.slug, "name": one.name, "currency": one.currency} for one in more],
            }
        )
        return
    output.table(
        ["slug", "name", "currency", "version>", "in force from", ""],
        [
            *(
                (row["slug"], row["name"], row["currency"], row["version"], row["in_force_from"], "applied")
                for row in rows
            ),
            *(
                (
                    one.slug,
                    one.name,
                    one.currency,
                    one.validity.version,
                    one.validity.in_force_from,
                    "catalogue",
                )
                for one in more
            ),
        ],
    )


@app.command()
@session.command
def show(
    slug: Annotated[str, typer.Argument(help="The programme.")],
    version: Annotated[
        int | None, typer.Option(help="A version; the newest when left out.", show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show an applied programme: its versions, products, sponsors and their money; with --version, that version's file."""
    with session.services() as services, services.worker.begin() as tx:
        programme_id = find(tx, slug)
        versions = services.books.programmes.versions(tx, programme_id)
        if version is not None:
            chosen = [one for one in versions if one.version == version]
            if not chosen:
                raise session.Refused(f"{slug} has no version {version}")
            print(_source(tx, programme_id, version), end="")
            return
        shown = _shown(tx, slug, versions[-1].programme, [one.version for one in versions])
    if as_json:
        output.as_json(shown)
        return
    output.fields({name: value for name, value in shown.items() if not isinstance(value, list)})
    currency = shown["currency"]
    output.table(
        ["product", "name", "kind", "fund", "priority>"],
        [(one["code"], one["name"], one["kind"], one["fund"], one["priority"]) for one in shown["products"]],
    )
    if shown["sponsors"]:
        output.table(
            ["sponsor", "funding", "uncommitted>", "committed>", "waiting for money>"],
            [
                (
                    one["slug"],
                    one["funding"],
                    *(
                        output.amount_in(one[name]["amount"], currency)
                        for name in ("uncommitted", "committed", "waiting")
                    ),
                )
                for one in shown["sponsors"]
            ],
        )


@app.command()
@session.command
def validate(source: Source) -> None:
    """Check a programme file: everything that is wrong with it, each with its JSON pointer and line. Starts no server."""
    programme = load(read_source(source))
    print(f"{programme.slug}, version {programme.validity.version}: valid")


@app.command()
@session.command
def schema() -> None:
    """Print the JSON Schema of programme files."""
    print(json.dumps(SCHEMA, indent=2, ensure_ascii=False))


def read_source(source: str) -> str:
    """The text of a programme: a file's, standard input's, or one of the catalogue. Raises `Refused`."""
    path = Path(source)
    if source == "-":
        raw = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    elif path.is_file():
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    elif source in catalogue():
        return catalogue()[source]
    else:
        raise session.Refused(f"there is no file {source}, and the catalogue has {', '.join(catalogue())}")
    if len(raw) > FILE_BYTES_MAX:
        raise session.Refused(f"a programme file has at most {FILE_BYTES_MAX // 1024} KiB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise session.Refused(f"{source} is not UTF-8: {error.reason} at byte {error.start}") from None


def ensure(tx: Tx, services: Services, slug: str) -> tuple[Applied, bool]:
    """The programme of a slug; one that only the catalogue has is applied first, and the flag says so.

    Raises `NotFound` when neither has it, `Refused` in production, where applying takes two persons.
    """
    known = tx.exec_driver_sql("select 1 from products.programme where slug = %s", (slug,)).first()
    if known is not None or slug not in catalogue():
        return Applied(find(tx, slug), 0, created=False), False
    if acting.two_persons(services):
        raise session.Refused(f"{slug} is not applied: ask for it first, mizan programme apply {slug}")
    return apply(tx, catalogue()[slug], clock=services.clock), True


def _applied(tx: Tx) -> list[dict[str, Any]]:
    rows = tx.exec_driver_sql(
        "select g.id, g.slug, g.name, g.currency, v.version, v.in_force_from from products.programme g"
        " join lateral (select version, in_force_from from products.programme_version where programme_id = g.id"
        " order by version desc limit 1) v on true order by g.slug"
    )
    return [{**row._asdict(), "id": public_id("prg", row.id)} for row in rows]


def _source(tx: Tx, programme_id: object, version: int) -> str:
    return str(
        tx.exec_driver_sql(
            "select source from products.programme_version where programme_id = %s and version = %s",
            (programme_id, version),
        ).scalar_one()
    )


def _shown(tx: Tx, slug: str, programme: Programme, versions: list[int]) -> dict[str, Any]:
    rows = tx.exec_driver_sql(
        "select s.slug, s.name, s.funding, u.credits - u.debits, c.credits - c.debits,"
        " (select coalesce(sum(q.amount), 0)::bigint from products.match_queue q where q.sponsor_id = s.id)"
        " from products.sponsor s join products.programme g on g.id = s.programme_id"
        " join ledger.account_balance u on u.account_id = s.uncommitted_account"
        " join ledger.account_balance c on c.account_id = s.committed_account"
        " where g.slug = %s order by s.slug",
        (slug,),
    )
    currency = programme.currency
    return {
        "slug": slug,
        "name": programme.name,
        "currency": currency,
        "time_zone": programme.time_zone,
        "version": programme.validity.version,
        "in_force_from": programme.validity.in_force_from.isoformat(),
        "versions": versions,
        "products": [
            {
                "code": one.code,
                "name": one.name,
                "kind": one.kind,
                "fund": one.destination.kind,
                "priority": one.priority,
            }
            for one in programme.products
        ],
        "sponsors": [
            {
                "slug": sponsor,
                "name": name,
                "funding": funding,
                "uncommitted": output.money_json(uncommitted, currency),
                "committed": output.money_json(committed, currency),
                "waiting": output.money_json(waiting, currency),
            }
            for sponsor, name, funding, uncommitted, committed, waiting in rows
        ],
    }
