"""Operators: `mizan operator create|list|disable|enable|recover`.

Two administrators are made here, by one-time links. Everything else that lets someone in is requested by an operator
(`--as`), in the sandbox too, and approved by another one; what keeps someone out works at once.
"""

import contextlib
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy import text

from api.approvals.service import Origin, Request
from api.auth import admission, links, operators
from api.auth.actors import OPERATOR_PREFIX
from api.auth.links import Founded, Link
from api.auth.operators import Grant, LogIn, Operator
from api.bootstrap import Services
from api.cli import acting, output, session
from api.cli.serve import public_url
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import parse_public_id, public_id
from products.programmes import registry
from products.remittances import partners

app = typer.Typer(name="operator", help="The persons of the back office.", no_args_is_help=True)


_HERE: Final = Origin(acting.ADDRESS)


class RoleName(StrEnum):
    """What an operator may be."""

    MANAGER = "manager"
    ADMINISTRATOR = "administrator"
    CASEWORKER = "caseworker"
    AUDITOR = "auditor"


Who = Annotated[str, typer.Argument(metavar="OPERATOR", help="The operator's id, opr_…, or e-mail address.")]
Why = Annotated[str, typer.Option("--remark", help="Why, for who approves and for the audit log.")]


@app.command()
@session.command
def create(
    email: Annotated[str, typer.Argument(help="The person's e-mail address.")],
    name: Annotated[str, typer.Option(help="Their name.")],
    role: Annotated[list[RoleName], typer.Option(help="What they may do; repeat it for more.")],
    programme: Annotated[
        list[str] | None,
        typer.Option(
            help="A programme that the roles are for; repeat it for more. All when left out.",
            show_default=False,
        ),
    ] = None,
    organisation: Annotated[
        str | None,
        typer.Option(help="The slug of the organisation that a caseworker works for.", show_default=False),
    ] = None,
    log_in: Annotated[
        LogIn, typer.Option(help="With a password, or through the OpenID Connect provider.")
    ] = "password",
    remark: Why = "requested on the command line",
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Make one of the two first administrators, or request an operator, whom an administrator has to approve.

    An administrator's link is shown once and lives a day; asked again before it is used, there is a new one. An
    administrator requests the others (--as). The code shown once goes to the person, who needs it with the link that
    another administrator draws after the approval.
    """
    founding = (
        role == [RoleName.ADMINISTRATOR] and not programme and organisation is None
    )  # whatever else is asked for takes a request
    given = session.settings()
    with session.services(given) as services:
        made: Link | tuple[Request, str] | None = None
        if founding:
            with contextlib.suppress(Founded):
                made = services.worker.run(lambda tx: _found(tx, services, email, name, log_in))
        if made is None:
            with acting.person(services, as_) as actor:

                def request(tx: Tx) -> tuple[Request, str]:
                    return admission.request_operator(
                        tx,
                        services,
                        actor,
                        email=email,
                        name=name,
                        grants=[Grant(one.value, of) for one in role for of in _programmes(tx, programme)],
                        organisation_id=partners.find(tx, organisation).id if organisation else None,
                        log_in=log_in,
                        remark=remark,
                        origin=_HERE,
                    )

                made = services.worker.run(request)
    if isinstance(made, Link):
        shown: dict[str, object] = {
            "operator": public_id(OPERATOR_PREFIX, made.operator_id),
            "link": links.address(public_url(given), made.token),
            "expires_at": made.expires_at,
        }
        _show(shown, as_json, "The link is not shown again; it works once.")
        return
    filed, code = made
    _show_request(filed, code, as_json)


@app.command("list")
@session.command
def list_(as_json: session.AsJson = False) -> None:
    """List operators, their roles and state."""
    with session.services() as services, services.worker.begin() as tx:
        listed = [_listed(tx, one) for one in operators.every(tx)]
    if as_json:
        output.as_json({"data": listed})
        return
    output.table(
        ["operator", "e-mail", "name", "roles", "state", "set up"],
        [
            (
                one["operator"],
                one["email"],
                one["name"],
                ", ".join(_role_in_words(role) for role in one["roles"]),
                one["state"],
                one["set_up"],
            )
            for one in listed
        ],
        empty="no operator yet: mizan operator create you@example.org --name You --role administrator",
    )


@app.command()
@session.command
def disable(operator: Who) -> None:
    """Let an operator in no more: sessions and links end at once."""
    with session.services() as services:

        def work(tx: Tx) -> Operator:
            one = _operator(tx, operator)
            operators.disable(tx, one.id, services.clock.now())
            acting.note(tx, services, "operator.disabled", one.public_id)
            return one

        one = services.worker.run(work)
    print(f"{one.public_id} is disabled")


@app.command()
@session.command
def enable(
    operator: Who,
    remark: Why = "requested on the command line",
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Request that a disabled operator is let in again; an administrator has to approve it."""
    with session.services() as services, acting.person(services, as_) as actor:
        filed = services.worker.run(
            lambda tx: admission.request_activation(
                tx, services, actor, _operator(tx, operator), remark=remark, origin=_HERE
            )
        )
    _show_request(filed, None, as_json)


@app.command()
@session.command
def recover(
    operator: Who,
    remark: Why = "requested on the command line",
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Request a link by which an operator sets password and second factor anew; an administrator has to approve it."""
    with session.services() as services, acting.person(services, as_) as actor:
        filed, code = services.worker.run(
            lambda tx: admission.request_recovery(
                tx, services, actor, _operator(tx, operator), remark=remark, origin=_HERE
            )
        )
    _show_request(filed, code, as_json)


def _found(tx: Tx, services: Services, email: str, name: str, log_in: LogIn) -> Link:
    link = links.found(tx, email=email, name=name, log_in=log_in, by=session.actor(), at=services.clock.now())
    acting.note(tx, services, "operator.founded", public_id(OPERATOR_PREFIX, link.operator_id))
    return link


def _programmes(tx: Tx, slugs: list[str] | None) -> list[UUID | None]:
    return [registry.find(tx, slug) for slug in slugs] if slugs else [None]


def _operator(tx: Tx, named: str) -> Operator:
    if "@" not in named:
        return operators.find(tx, parse_public_id(OPERATOR_PREFIX, named))
    found = operators.by_email(tx, named)
    if found is None:
        raise NotFound("There is no such operator.")
    return found


def _listed(tx: Tx, one: Operator) -> dict[str, Any]:
    return {
        "operator": one.public_id,
        "email": one.email,
        "name": one.name,
        "log_in": one.log_in,
        "roles": [{"role": grant.role, "programme": _slug(tx, grant.programme_id)} for grant in one.grants],
        "state": one.state,
        "set_up": one.set_up,
    }


def _slug(tx: Tx, programme: UUID | None) -> str | None:
    if programme is None:
        return None
    slug: str = tx.execute(
        text("SELECT slug FROM products.programme WHERE id = :id"), {"id": programme}
    ).scalar_one()
    return slug


def _role_in_words(role: dict[str, str | None]) -> str:
    return f"{role['role']} ({role['programme'] or 'all programmes'})"


def _show_request(filed: Request, code: str | None, as_json: bool) -> None:
    shown: dict[str, object] = {"approval": filed.public_id, "expires_at": filed.expires_at}
    if code is not None:
        shown["code"] = code
    _show(
        shown,
        as_json,
        "An administrator has to approve it." + (" The code is not shown again." if code else ""),
    )


def _show(shown: dict[str, object], as_json: bool, remark: str) -> None:
    if as_json:
        output.as_json(shown)
        return
    output.fields(shown)
    print(remark)
