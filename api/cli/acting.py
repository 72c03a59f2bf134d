"""Who acts on the command line, and that it is written down.

Each command that changes something says so in the audit log, as ``cli`` with who runs it, in the transaction that does
it. In production, what takes two persons takes them here too: an operator (`--as`, or a session's token in
MIZAN_OPERATOR_TOKEN) asks, and another one approves. In the sandbox it is asked for and carried out at once.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Final, TypeVar

import typer

from api import auditing
from api.approvals import service
from api.approvals.service import Origin, Request
from api.auth import actors, operators, sessions
from api.auth.actors import Actor, Held
from api.auth.sessions import Lifetimes, Opened, Proof
from api.bootstrap import Services
from api.cli import session
from api.settings import Environment
from ledger.audit import Act, Outcome
from ledger.database import Tx
from ledger.errors import MizanError
from ledger.ids import new_id, public_id

T = TypeVar("T")

TOKEN_VARIABLE: Final = "MIZAN_OPERATOR_TOKEN"  # noqa: S105  a variable's name
ADDRESS: Final = "command line"
_SESSION: Final = Lifetimes(timedelta(minutes=10), timedelta(minutes=10))

As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="EMAIL",
        help=f"The operator who acts; password and code are asked for. Or a session's token in {TOKEN_VARIABLE}.",
        show_default=False,
    ),
]
"""The `--as` of a command that a person answers for."""


def run(
    services: Services,
    work: Callable[[Tx], T],
    action: str,
    object_: str | Callable[[T], str],
    **detail: object,
) -> T:
    """Do `work` as the worker, and write it into the audit log in the same transaction."""

    def both(tx: Tx) -> T:
        made = work(tx)
        name = object_ if isinstance(object_, str) else object_(made)
        note(tx, services, action, name, **detail)
        return made

    return services.worker.run(both)


def note(tx: Tx, services: Services, action: str, object_: str, **detail: object) -> None:
    """Write what a command does into the audit log."""
    auditing.write(
        tx,
        services,
        Act(
            actor=session.actor(),
            kind="cli",
            action=action,
            object=object_,
            outcome="done",
            detail=detail or None,
        ),
    )


def two_persons(services: Services) -> bool:
    """Whether what takes two persons takes them on this command line: in production."""
    return services.environment is Environment.PRODUCTION


def ask(services: Services, email: str | None, file: Callable[[Tx, Actor | str, Origin], Request]) -> Request:
    """Ask for something that takes two persons; in the sandbox it is carried out at once, and audited as such.

    Raises what `file` raises, and `Refused` without an operator in production.
    """
    if not two_persons(services):

        def at_once(tx: Tx) -> Request:
            return service.carry_out(tx, services, file(tx, session.actor(), service.NOWHERE))

        return services.worker.run(at_once)
    with person(services, email) as actor, _refusals_noted(services, actor, "approval.requested", "request"):
        return services.worker.run(lambda tx: file(tx, actor, Origin(ADDRESS)))


def decide(
    services: Services,
    email: str | None,
    request: str,
    decision: Callable[[Tx, Actor], Request],
) -> Request:
    """Decide a request as an operator; a refusal is written into the audit log too."""
    with person(services, email) as actor, _refusals_noted(services, actor, "approval.decided", request):
        return services.worker.run(lambda tx: decision(tx, actor))


@contextmanager
def person(services: Services, email: str | None) -> Iterator[Actor]:
    """The operator who acts: of the token in the environment, or by password and code, for this command only.

    Raises `Refused`, `LogInRefused`.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if email is None and token is None:
        raise session.Refused(f"say who you are: --as EMAIL, or a session's token in {TOKEN_VARIABLE}")
    if email is None and token is not None:
        yield _actor(services, token)
        return
    opened = _log_in(services, str(email))
    try:
        yield _actor(services, opened.token)
    finally:
        services.worker.run(lambda tx: sessions.end(tx, opened.session_id, services.clock.now()))


def _log_in(services: Services, email: str) -> Opened:
    proof = Proof(
        typer.prompt(f"password of {email}", hide_input=True, err=True),
        typer.prompt("code of the authenticator", err=True),
    )

    def opened(tx: Tx, made: Opened) -> None:
        _write(tx, services, made.operator.public_id, "session.opened", "command line", "done", None)

    try:
        return sessions.log_in(
            services.worker,
            services.keyring,
            email,
            proof,
            address=ADDRESS,
            now=services.clock.now(),
            lifetimes=_SESSION,
            opened=opened,
        )
    except sessions.LogInRefused as error:
        who = public_id(operators.PREFIX, error.operator) if error.operator else "unknown"
        reason = error.reason
        services.worker.run(
            lambda tx: _write(tx, services, who, "session.opened", "command line", "refused", reason)
        )
        raise


def _actor(services: Services, token: str) -> Actor:
    with services.worker.begin() as tx:
        found = operators.session_of(tx, token, services.clock.now())
    if found is None:
        raise session.Refused("the operator's session is not open")
    held = frozenset(Held(role, programme) for role, programme in found.held)
    return actors.of_operator(found.operator_id, held, found.organisation_id, found.confirmed_at)


@contextmanager
def _refusals_noted(services: Services, actor: Actor, action: str, object_: str) -> Iterator[None]:
    try:
        yield
    except MizanError as error:
        code = error.code
        services.worker.run(lambda tx: _write(tx, services, actor.id, action, object_, "refused", code))
        raise


def _write(
    tx: Tx,
    services: Services,
    actor: str,
    action: str,
    object_: str,
    outcome: Outcome,
    code: str | None,
) -> None:
    detail = {"code": code} if code is not None else None
    act = Act(actor, "operator", action, object_, outcome, address=ADDRESS, detail=detail, id=new_id())
    auditing.write(tx, services, act)
