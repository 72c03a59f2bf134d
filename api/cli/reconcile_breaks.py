"""Breaks: `mizan reconcile breaks list|show|assign|wait|resolve|undo|limit`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from api.approvals.breaks import BREAK, RESOLUTION, request_resolution
from api.bank_statements import LINE
from api.bootstrap import Services
from api.cli import acting, output, session
from api.cli.approval import tell_asked
from api.v1.break_shapes import ITEM, break_out, details_out, event_out, resolution_out, suggestion_out
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id
from ledger.reconciliation import reading
from ledger.reconciliation.sealing import LineText
from products.programmes.registry import find
from products.reconciliation.breaks import limits, queries, resolve, suggestions
from products.reconciliation.breaks.choices import Choice, Method, Part, Target
from products.reconciliation.breaks.queries import STATES, Break, Filters, Sort
from products.reconciliation.breaks.resolve import Resolution
from products.reconciliation.breaks.typing import TYPES
from products.remittances import partners

app = typer.Typer(name="breaks", help="What does not tie, and how people end it.", no_args_is_help=True)
A_DAY = ["%Y-%m-%d"]
SHOWN_MAX = 200

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="BRK", help="The break, brk_….")]
Remark = Annotated[str, typer.Option(help="Why.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do what the preview shows, and don't ask.")]


def _filter(help_: str) -> Any:  # a typer option
    return typer.Option(help=help_, show_default=False)


@app.command("list")
@session.command
def list_(
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only those of this type.", show_default=False)
    ] = None,
    state: Annotated[
        list[str] | None, _filter("Only those in this state; open and waiting when left out.")
    ] = None,
    programme: Annotated[str | None, _filter("Only this programme's.")] = None,
    bank_account: Annotated[str | None, _filter("Only this bank account's.")] = None,
    fund: Annotated[str | None, _filter("Only this fund's.")] = None,
    partner: Annotated[str | None, _filter("Only this partner's.")] = None,
    owner: Annotated[str | None, _filter("Only those assigned to this one.")] = None,
    currency: Annotated[str | None, _filter("Only those in this currency.")] = None,
    older_than: Annotated[int | None, _filter("Only those of more than so many days.")] = None,
    sort: Annotated[
        Sort, typer.Option(help="By currency with the largest first (value), or the oldest first (age).")
    ] = "value",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = SHOWN_MAX,
    as_json: session.AsJson = False,
) -> None:
    """List breaks, by value or by age. Values of two currencies are never compared."""
    filters = Filters(
        _known(type_ or (), TYPES, "type"),
        _known(state or ("open", "waiting"), STATES, "state"),
        programme,
        bank_account,
        fund,
        partner,
        owner,
        currency,
        older_than,
    )
    with session.services() as services, services.worker.begin() as tx:
        found = queries.breaks(tx, services.clock, filters, sort=sort, limit=limit)
    if as_json:
        output.as_json([_json(one) for one in found])
        return
    output.table(
        ("break", "type", "amount>", "on", "days>", "share %>", "where", "owner", "state"),
        [
            (
                public_id(BREAK, one.id),
                one.type,
                f"{output.amount_in(one.amount, one.currency)} {one.currency}",
                one.on_date.isoformat(),
                str(one.age_days),
                "" if one.share_basis_points is None else f"{one.share_basis_points / 100:.1f}",
                one.bank_account or one.fund,
                one.owner or "",
                one.state if one.waits_until is None else f"until {one.waits_until}",
            )
            for one in found
        ],
    )


@app.command()
@session.command
def show(name: Name, as_json: session.AsJson = False) -> None:
    """Show a break: what it is of, what is on the other side, what happened to it, and what was learned from others like it."""
    with session.services() as services, services.worker.begin() as tx:
        one = queries.one_of(tx, services.clock, parse_public_id(BREAK, name))
        lines, items = queries.lines_and_items(one)
        shown, texts = reading.lines_by_id(tx, lines), reading.texts(tx, services.keyring, lines)
        found, told = queries.items(tx, items), queries.history(tx, one.id)
        learned = suggestions.suggestions(tx, one)
        ended = [_resolution_json(tx, each, one.currency) for each in resolve.resolutions_of(tx, one.id)]
    if as_json:
        output.as_json(
            _json(one)
            | {
                "details": details_out(one),
                "history": [event_out(event).model_dump(mode="json") for event in told],
                "resolutions": ended,
                "suggestions": [suggestion_out(each).model_dump(mode="json") for each in learned],
            }
        )
        return
    output.fields(
        {
            "break": name,
            "type": one.type,
            "state": one.state,
            "amount": f"{output.amount_in(one.amount, one.currency)} {one.currency}",
            "since": f"{one.on_date} ({one.age_days} days)",
            "where": one.bank_account or one.fund,
            "partner": one.partner or "",
            "owner": one.owner or "",
            "waits until": one.waits_until or "",
            "remark": one.remark or "",
            **{key.replace("_", " "): _told(value) for key, value in details_out(one).items()},
        }
    )
    for line in shown.values():
        said = texts.get(line.id, LineText())
        known = (line.kind, line.end_to_end, line.reference, said.counterparty, said.text)
        print(
            f"line {public_id(LINE, line.id)}: {output.amount_in(line.amount, line.currency)} {line.currency} booked"
            f" {line.booked_on}, value {line.value_on}: {', '.join(one for one in known if one) or 'nothing more is said'}"
        )
    for item in found:
        print(
            f"item {public_id(ITEM, item.id)}: {output.amount_in(item.amount, item.currency)} {item.currency} of"
            f" {item.on_date}, {item.kind} ({item.bank_account})"
        )
    for event in told:
        print(f"{event.at:%Y-%m-%d %H:%M} {event.what} by {event.by_whom} {event.remark}".rstrip())
    for each in learned:
        what = each.partner or " ".join(
            part for part in (each.method, each.to.account if each.to else "") if part
        )
        print(
            f"learned ({each.likeness}): {what}; {each.agree} ended so, {each.disagree} otherwise. Nothing is applied by itself."
        )


@app.command()
@session.command
def assign(
    name: Name,
    owner: Annotated[
        str | None, typer.Argument(help="An operator or a team; nobody when left out.", show_default=False)
    ] = None,
    remark: Annotated[str, typer.Option(help="What is known of it.", show_default=False)] = "",
    as_json: session.AsJson = False,
) -> None:
    """Say whose a break is."""
    with session.services() as services:
        break_id = parse_public_id(BREAK, name)
        acting.run(
            services,
            lambda tx: resolve.assign(
                tx, services.clock, break_id, owner, remark=remark, actor=session.actor()
            ),
            "break.assigned",
            name,
            owner=owner,
        )
        _tell(services, break_id, as_json)


@app.command()
@session.command
def learn(
    name: Name,
    partner: Annotated[str, typer.Argument(help="The partner whose account it is.")],
    as_json: session.AsJson = False,
) -> None:
    """Know the account on the other side of a break's line as a partner's: the rules pair its lines by that from now on."""
    with session.services() as services:
        break_id = parse_public_id(BREAK, name)
        acting.run(
            services,
            lambda tx: suggestions.learn(
                tx,
                services.books,
                queries.one_of(tx, services.clock, break_id),
                partners.find(tx, partner),
                actor=session.actor(),
            ),
            "break.counterparty_learned",
            name,
            partner=partner,
        )
        _tell(services, break_id, as_json)


@app.command()
@session.command
def wait(
    name: Name,
    until: Annotated[datetime, typer.Option(formats=A_DAY, help="The day on which it is open again.")],
    remark: Remark,
    as_json: session.AsJson = False,
) -> None:
    """Let a break wait until a day."""
    choice = Choice("wait", until=until.date())
    with session.services() as services:
        break_id = parse_public_id(BREAK, name)

        def work(tx: Tx) -> Resolution:
            seen = resolve.preview(tx, services.books, break_id, choice, actor=session.actor())
            return resolve.confirm(
                tx, services.books, seen.id, digest=seen.digest, remark=remark, actor=session.actor()
            )

        acting.run(services, work, "break.waits", name, until=until.date().isoformat())
        _tell(services, break_id, as_json)


@app.command("resolve")
@session.command
def resolve_(
    name: Name,
    method: Annotated[
        Method, typer.Option(help="pair, book, split, write_off or explain; `wait` is a command of its own.")
    ],
    remark: Remark,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT[:OWNER][@FUND]",
            help="Where it, or what the lines and items differ by, is booked to.",
            show_default=False,
        ),
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option(metavar="ITM", help="An item to pair with.", show_default=False)
    ] = None,
    line: Annotated[
        list[str] | None, typer.Option(metavar="BSL", help="A line to pair with.", show_default=False)
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AMOUNT=ACCOUNT|ITM",
            help="A part of a split, in major units, negative when money goes out: -2.50=bank_charges",
            show_default=False,
        ),
    ] = None,
    yes: Yes = False,
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Show exactly what ending a break posts and pairs, and do it when that is confirmed.

    Above the programme's limit another manager approves. With --json and without --yes the preview is printed, and nothing done.
    """
    with session.services() as services:
        break_id = parse_public_id(BREAK, name)
        with services.worker.begin() as tx:
            one = queries.one_of(tx, services.clock, break_id)
        choice = Choice(
            method,
            lines=tuple(parse_public_id(LINE, each) for each in line or ()),
            items=tuple(parse_public_id(ITEM, each) for each in item or ()),
            to=_target(to) if to is not None else None,
            parts=tuple(_part(each, one.currency) for each in part or ()),
        )
        seen = acting.run(
            services,
            lambda tx: resolve.preview(tx, services.books, break_id, choice, actor=session.actor()),
            "break_resolution.previewed",
            name,
            method=method,
        )
        with services.worker.begin() as tx:
            shown = _resolution_json(tx, seen, one.currency)
        if as_json and not yes:
            output.as_json(shown)
            return
        if not as_json:
            _show_preview(seen, one.currency)
        if not yes and not typer.confirm("Do this?", err=True):
            raise session.Refused("nothing was done")
        if shown["second_person"]:
            asked = acting.ask(
                services,
                as_,
                lambda tx, actor, origin: request_resolution(
                    tx, services, actor, seen.id, digest=seen.digest, remark=remark, origin=origin
                ),
            )
            tell_asked(asked, as_json)
            return
        done = acting.run(
            services,
            lambda tx: resolve.confirm(
                tx, services.books, seen.id, digest=seen.digest, remark=remark, actor=session.actor()
            ),
            "break.resolved",
            name,
            resolution=public_id(RESOLUTION, seen.id),
            method=method,
        )
        with services.worker.begin() as tx:
            shown = _resolution_json(tx, done, one.currency)
    if as_json:
        output.as_json(shown)
    else:
        print(f"{name} is resolved: {public_id(RESOLUTION, done.id)}.")


@app.command()
@session.command
def undo(name: Name, remark: Remark, as_json: session.AsJson = False) -> None:
    """Take back how a break was ended: postings are reversed, pairings undone, and it is open again."""
    with session.services() as services:
        break_id = parse_public_id(BREAK, name)
        acting.run(
            services,
            lambda tx: resolve.undo(tx, services.books, break_id, remark=remark, actor=session.actor()),
            "break.undone",
            name,
            remark=remark,
        )
        _tell(services, break_id, as_json)


@app.command()
@session.command
def limit(
    programme: Annotated[str, typer.Argument(help="The programme's name.")],
    above: Annotated[
        str | None,
        typer.Argument(
            help="A second person decides what is worth more, in major units; 0: always. Shown when left out.",
            show_default=False,
        ),
    ] = None,
    currency: Annotated[str, typer.Option(help="In this currency.")] = "",
    as_json: session.AsJson = False,
) -> None:
    """Say, or show, from which value on two persons end a programme's breaks."""
    with session.services() as services:
        with services.worker.begin() as tx:
            programme_id = find(tx, programme)
            chosen = currency or limits.currency_of(tx, programme_id)
        if above is not None and acting.two_persons(services):
            raise session.Refused("in production an administrator says it over the API: PUT /v1/break-limits")
        if above is not None:
            minor = 0 if above == "0" else output.minor_units(above, chosen)
            acting.run(
                services,
                lambda tx: limits.put(tx, services.clock, programme_id, chosen, minor),
                "break_limit.put",
                programme,
                second_person_above=minor,
            )
        with services.worker.begin() as tx:
            standing = limits.second_person_above(tx, programme_id, chosen)
    if as_json:
        output.as_json({"programme": programme, "second_person_above": output.money_json(standing, chosen)})
    else:
        output.fields(
            {
                "programme": programme,
                "a second person above": f"{output.amount_in(standing, chosen)} {chosen}",
            }
        )


def _known(given: Sequence[str], known: Sequence[T], what: str) -> tuple[T, ...]:
    """What was given, if each is known; typer checks one choice, and no list of them."""
    names: dict[str, T] = {str(one): one for one in known}
    for one in given:
        if one not in names:
            raise session.Refused(f"there is no {what} “{one}”: {', '.join(names)}")
    return tuple(names[one] for one in given)


def _target(text: str) -> Target:
    code, _, fund = text.partition("@")
    account, _, owner = code.partition(":")
    return Target(account, owner, fund or None)


def _part(text: str, currency: str) -> Part:
    amount, _, to = text.partition("=")
    sign, digits = (-1, amount[1:]) if amount.startswith("-") else (1, amount)
    minor = sign * output.minor_units(digits, currency)
    if to.startswith(f"{ITEM}_"):
        return Part(minor, item=parse_public_id(ITEM, to))
    return Part(minor, to=_target(to))


def _show_preview(seen: Resolution, currency: str) -> None:
    postings = seen.preview["postings"]
    if postings:
        output.table(
            ("effective on", "fund", "debit", "credit", "amount>"),
            [
                (
                    one["effective_on"],
                    one["fund"],
                    " ".join(part for part in (one["debit"], one["debit_owner"]) if part),
                    " ".join(part for part in (one["credit"], one["credit_owner"]) if part),
                    f"{output.amount_in(one['amount'], one['currency'])} {one['currency']}",
                )
                for one in postings
            ],
        )
    else:
        print("nothing is posted")
    if seen.preview["postings_in_all"] > len(postings):
        print(f"… {seen.preview['postings_in_all']} postings in all")
    for one in seen.preview["pairings"]:
        print(
            f"paired on {one['bank_account']}: {len(one['lines'])} lines with {len(one['items'])} items and"
            f" {len(one['posted'])} new postings, {output.amount_in(one['amount'], currency)} {currency}"
        )


def _told(detail: Any) -> object:
    """A detail of a break in words: money in major units, ids one after the other."""
    if isinstance(detail, dict) and detail.keys() == {"amount", "currency"}:
        return f"{output.amount_in(detail['amount'], detail['currency'])} {detail['currency']}"
    return ", ".join(map(str, detail)) if isinstance(detail, list) else detail


def _tell(services: Services, break_id: UUID, as_json: bool) -> None:
    with services.worker.begin() as tx:
        one = queries.one_of(tx, services.clock, break_id)
    if as_json:
        output.as_json(_json(one))
    else:
        output.fields(
            {
                "break": public_id(BREAK, one.id),
                "type": one.type,
                "state": one.state,
                "owner": one.owner or "",
                "waits until": one.waits_until or "",
                "remark": one.remark or "",
            }
        )


def _json(one: Break) -> dict[str, Any]:
    return break_out(one).model_dump(mode="json")


def _resolution_json(tx: Tx, one: Resolution, currency: str) -> dict[str, Any]:
    shown = resolution_out(one, currency, second_person=resolve.takes_two(tx, one))
    return shown.model_dump(mode="json")
