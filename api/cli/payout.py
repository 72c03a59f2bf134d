"""Payouts: `mizan payout list|show|request|approve|cancel|release|problems|resolve|payee`."""

from typing import Annotated, Any, Final, get_args
from uuid import UUID

import typer

from api.approvals.payouts import request_release, request_resolution
from api.bootstrap import Services
from api.cli import acting, approval, output, session
from api.cli.rail import report_json
from api.cli.serve import public_url
from api.settings import Environment
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id
from products.members import payees, registry, verification
from products.members.payees import NewPayee
from products.members.waiting import WAIT
from products.payouts import approve as approving
from products.payouts import cancel as cancelling
from products.payouts import queries
from products.payouts import request as requesting
from products.payouts.approve import Approval
from products.payouts.queries import Read
from products.payouts.request import NewPayout
from products.payouts.resolve import Finding
from products.payouts.states import State

app = typer.Typer(name="payout", help="Money on its way to members and their families.", no_args_is_help=True)


def _destination(help_: str) -> Any:  # a typer option
    return typer.Option(help=help_, show_default=False)


Payout = Annotated[str, typer.Argument(metavar="PAYOUT", help="Its id, pay_….")]
LISTED_MAX: Final = 1_000


@app.command("list")
@session.command
def list_(
    member: Annotated[
        str | None, typer.Option(help="Those of one member, mem_….", show_default=False)
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Those in one state: {', '.join(get_args(State))}.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=LISTED_MAX)] = 100,
    as_json: session.AsJson = False,
) -> None:
    """List payouts, the oldest first."""
    wanted: State | None = None
    if state is not None:
        wanted = next((one for one in get_args(State) if one == state), None)
        if wanted is None:
            raise session.Refused(f"“{state}” is no state of a payout")
    link = parse_public_id("mem", member) if member else None
    with session.services() as services, services.worker.begin() as tx:
        found = queries.payouts(tx, link_id=link, state=wanted, limit=limit)
    _tell_all(found, as_json, "no payouts")


@app.command()
@session.command
def problems(
    limit: Annotated[int, typer.Option(min=1, max=LISTED_MAX)] = 100, as_json: session.AsJson = False
) -> None:
    """List payouts of which their rails say what can't be true as well, with what was said."""
    with session.services() as services, services.worker.begin() as tx:
        found = queries.payouts(tx, with_problem=True, limit=limit)
        said = {one.id: queries.kept_reports(tx, payout_id=one.id, outcome="contradicts") for one in found}
        lost = queries.kept_reports(tx, outcome="unmatched", limit=limit)
    if as_json:
        output.as_json(
            {
                "data": [
                    _json(one) | {"contradicted_by": [report_json(report) for report in said[one.id]]}
                    for one in found
                ],
                "unmatched": [report_json(report) for report in lost],
            }
        )
        return
    output.table(
        ["payout", "state", "problem", "rail", "said", "amount>"],
        [
            (
                public_id("pay", one.id),
                one.state,
                one.problem,
                one.rail,
                ", ".join(report.report.state for report in said[one.id]),
                output.amount_in(one.amount, one.currency),
            )
            for one in found
        ],
        empty="nothing contradicts",
    )
    if lost:
        session.say(f"{len(lost)} reports match no payment: `mizan payout problems --json` shows them")


@app.command()
@session.command
def show(payout: Payout, as_json: session.AsJson = False) -> None:
    """Show a payout with its parts and history."""
    with session.services() as services, services.worker.begin() as tx:
        found = queries.payout(tx, parse_public_id("pay", payout))
    _tell(found, as_json)


@app.command()
@session.command
def payee(
    member: Annotated[str, typer.Argument(help="The member's id, mem_….")],
    phone: Annotated[
        str | None,
        _destination("A mobile money number, E.164; …99NN forces an outcome of the simulated rail."),
    ] = None,
    operator: Annotated[str | None, _destination("Whose number it is, where a rail asks.")] = None,
    iban: Annotated[str | None, _destination("A bank account, by its IBAN.")] = None,
    account: Annotated[
        str | None, _destination("A bank account, by the bank's own number, its code and its country.")
    ] = None,
    bank_code: Annotated[str | None, _destination("The bank of --account.")] = None,
    country: Annotated[str | None, _destination("The country of --account.")] = None,
    token: Annotated[str | None, _destination("What a payment provider calls the card or account.")] = None,
    name: Annotated[str, typer.Option(help="Whom it belongs to.")] = "Aline Uwase",
    as_json: session.AsJson = False,
) -> None:
    """Sandbox: a payee that is in effect at once, as if the member had released it 72 hours ago, and proven the phone."""
    told = {
        "phone": phone,
        "operator": operator,
        "iban": iban,
        "account": account,
        "bank_code": bank_code,
        "country": country,
        "token": token,
    }
    destination = {part: value for part, value in told.items() if value is not None}
    if not destination:
        raise session.Refused(
            "say where to: --phone, --iban, --account with its bank and country, or --token"
        )
    rail: payees.Rail = "mobile_money" if phone else "card" if token else "bank"
    given = session.settings()
    with session.services(given) as services:
        _require_sandbox(services)
        now = services.clock.now()

        def work(tx: Tx) -> UUID:
            person = registry.find(tx, services.keyring, parse_public_id("mem", member))
            made = payees.propose(
                tx,
                services.keyring,
                person,
                NewPayee(name, rail, destination),
                released=True,
                public_url=public_url(given),
                at=now - WAIT,
            )
            if not verification.levels(tx, [person.member_id], now.date()):
                cipher = registry.cipher_of(tx, services.keyring, person)
                verification.record(tx, cipher, person, "phone", verified_by="sandbox", at=now)
            return made.id

        made = acting.run(
            services, work, "member.payee.released", lambda made: public_id("pye", made), member=member
        )
    said = {"payee": public_id("pye", made), "member": member}
    output.as_json(said) if as_json else output.fields(said)


@app.command()
@session.command
def request(
    member: Annotated[str, typer.Argument(help="The member's id, mem_….")],
    amount: Annotated[str, typer.Argument(help="What leaves the member's money, in major units: 5000.00")],
    payee: Annotated[str, typer.Option(help="To whom, pye_….")],
    product: Annotated[
        str | None,
        typer.Option(
            help="From which product; what fitted none (unapplied) when left out.", show_default=False
        ),
    ] = None,
    way: Annotated[str | None, typer.Option(help="By which way out.", show_default=False)] = None,
    rail: Annotated[str | None, typer.Option(help="By which rail.", show_default=False)] = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for a payout: the money is held, and the member has to approve it."""
    with session.services() as services:

        def work(tx: Tx) -> UUID:
            person = registry.find(tx, services.keyring, parse_public_id("mem", member))
            currency = services.books.programmes.versions(tx, person.programme_id)[-1].programme.currency
            asked = NewPayout(
                person.link_id,
                parse_public_id("pye", payee),
                output.minor_units(amount, currency),
                currency,
                product,
                session.actor(),
                way=way,
                rail=rail,
            )
            return requesting.request(tx, services.books, asked)

        made = acting.run(services, work, "payout.requested", lambda made: public_id("pay", made))
        with services.worker.begin() as tx:
            found = queries.payout(tx, made)
    _tell(found, as_json)


@app.command()
@session.command
def approve(payout: Payout, as_json: session.AsJson = False) -> None:
    """Sandbox: approve a payout as its member would. In production only the member's proof does."""
    with session.services() as services:
        _require_sandbox(services)

        def work(tx: Tx) -> Read:
            asked = queries.payout(tx, parse_public_id("pay", payout))
            shown = Approval(
                asked.id,
                asked.link_id,
                asked.payee_id,
                asked.amount,
                asked.fee,
                asked.currency,
                accepts_name=True,
                proof=None,
            )
            approving.approve(tx, services.books, shown)
            return queries.payout(tx, asked.id)

        found = acting.run(services, work, "payout.approved", payout, by="sandbox")
    _tell(found, as_json)


@app.command()
@session.command
def cancel(payout: Payout, as_json: session.AsJson = False) -> None:
    """Give up a payout that was not sent off: its money is released."""
    with session.services() as services:

        def work(tx: Tx) -> Read:
            payout_id = parse_public_id("pay", payout)
            cancelling.cancel(
                tx, services.books, payout_id, reason="cancelled_by_operator", actor=session.actor()
            )
            return queries.payout(tx, payout_id)

        found = acting.run(services, work, "payout.cancelled", payout)
    _tell(found, as_json)


@app.command()
@session.command
def release(
    payout: Payout,
    remark: Annotated[str, typer.Option(help="Why it may go.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for a payout above its rail's limit to be released; another operator approves (`mizan approval approve`)."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: request_release(
                tx, services, actor, parse_public_id("pay", payout), remark, origin=origin
            ),
        )
    approval.tell_asked(asked, as_json)


@app.command()
@session.command
def resolve(
    payout: Payout,
    finding: Annotated[str, typer.Argument(help=f"What was found: {', '.join(get_args(Finding))}.")],
    evidence: Annotated[str, typer.Option(help="Where the proof of it is kept.")],
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for a payout to be brought to what was found out, by hand; another operator approves."""
    found: Finding | None = next((one for one in get_args(Finding) if one == finding), None)
    if found is None:
        raise session.Refused(f"a finding is one of {', '.join(get_args(Finding))}")
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: request_resolution(
                tx, services, actor, parse_public_id("pay", payout), found, evidence, origin=origin
            ),
        )
    approval.tell_asked(asked, as_json)


def _require_sandbox(services: Services) -> None:
    if services.environment is not Environment.SANDBOX:
        raise session.Refused("only in the sandbox: in production the member proves it")


def _tell_all(found: list[Read], as_json: bool, empty: str) -> None:
    if as_json:
        output.as_json({"data": [_json(one) for one in found]})
        return
    output.table(
        ["payout", "member", "product", "amount>", "rail", "state", "reason", "asked at"],
        [
            (
                public_id("pay", one.id),
                public_id("mem", one.link_id),
                one.product or "unapplied",
                output.amount_in(one.amount, one.currency),
                one.rail,
                one.state,
                one.reason,
                one.requested_at,
            )
            for one in found
        ],
        empty=empty,
    )


def _tell(read: Read, as_json: bool) -> None:
    if as_json:
        output.as_json(_json(read))
        return
    said = _json(read)
    history = said.pop("history")
    parts = said.pop("parts")
    money = {
        name: output.amount_in(said[name]["amount"], read.currency) for name in ("amount", "fee", "to_payee")
    }
    output.fields(said | money)
    output.table(
        ["from", "amount>", "transaction"],
        [
            (one["source"], output.amount_in(one["amount"], read.currency), one["transaction"])
            for one in parts
        ],
    )
    output.table(
        ["state", "reason", "by", "at"],
        [(one["state"], one["reason"], one["by"], one["at"]) for one in history],
    )


def _json(read: Read) -> dict[str, Any]:
    return {
        "payout": public_id("pay", read.id),
        "member": public_id("mem", read.link_id),
        "payee": public_id("pye", read.payee_id),
        "product": read.product,
        "way": read.way,
        "rail": read.rail,
        "amount": output.money_json(read.amount, read.currency),
        "fee": output.money_json(read.fee, read.currency),
        "to_payee": output.money_json(read.amount - read.fee, read.currency),
        "arrives": f"{read.arrival_earliest.isoformat()} to {read.arrival_latest.isoformat()}",
        "state": read.state,
        "reason": read.reason,
        "payee_name": read.payee_name,
        "problem": read.problem,
        "requested_at": read.requested_at,
        "expires_at": read.expires_at,
        "sending": str(read.attempt.id) if read.attempt else None,
        "rail_reference": read.attempt.rail_reference if read.attempt else None,
        "parts": [
            {
                "source": one.source,
                "amount": one.amount,
                "transaction": public_id("txn", one.transaction_id) if one.transaction_id else None,
            }
            for one in read.parts
        ],
        "history": [
            {"state": one.state, "reason": one.reason, "by": one.actor, "at": one.at} for one in read.history
        ],
    }
