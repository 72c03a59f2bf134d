"""Operators' sessions: logging in, confirming, changing one's own proofs, ending; and setting up with a one-time link."""

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import Field, StringConstraints
from starlette.responses import Response

from api import limits
from api.auth import links, operators, passwords, sessions, totp, tries
from api.auth.operators import Operator, OperatorSession
from api.auth.sessions import LogInRefused, Proof
from api.deps import SESSION_COOKIE, Call, in_session, path_id, presented, services, unauthorised
from api.deps import session as session_scheme
from api.problems import ProblemError
from api.v1.logged_in import (
    NO_STORE,
    OpenedOut,
    RoleOut,
    SessionsOut,
    counted,
    lifetimes,
    note,
    noted,
    refusal,
    require_own_page,
    roles_out,
    sessions_out,
    show_opened,
)
from api.v1.schemas import ROUTE_CLASS, In, Instant, Out, errors
from ledger.database import Tx
from ledger.ids import public_id

T = TypeVar("T")

router = APIRouter(prefix="/v1", tags=["operators"], route_class=ROUTE_CLASS)

Own = Annotated[Call, in_session()]

Email = Annotated[str, StringConstraints(min_length=3, max_length=254, strict=True)]
Password = Annotated[str, StringConstraints(min_length=1, max_length=512, strict=True)]
Totp = Annotated[str, Field(pattern=r"^[0-9]{6}$", description="of the authenticator", examples=["123456"])]
RecoveryCode = Annotated[str, StringConstraints(min_length=1, max_length=64, strict=True)]
LinkToken = Annotated[str, Field(min_length=1, max_length=128, description="what follows # in the link")]
SessionId = Annotated[
    str, Path(max_length=64, description="a session's id, `ses_…`", examples=[f"ses_{'0' * 26}"])
]


class LogInIn(In):
    """Who one is, and the proofs of it: the password, and a code of the authenticator or a recovery code."""

    email: Annotated[Email, Field(examples=["amina@fund.example"])]
    password: Annotated[Password, Field(examples=["correct horse battery staple"])]
    totp: Totp | None = None
    recovery_code: RecoveryCode | None = None
    cookie: Annotated[
        bool,
        Field(description="true: the session is set as a cookie, for a browser, and not told in the answer"),
    ] = False


class SessionOut(Out):
    """The session of a request, and whose it is."""

    id: Annotated[str, Field(examples=[f"ses_{'0' * 26}"])]
    operator: Annotated[str, Field(examples=[f"opr_{'0' * 26}"])]
    name: str
    roles: list[RoleOut]
    organisation: str | None
    scopes: list[str]
    confirmed_at: Annotated[Instant | None, Field(description="when a code was last given in this session")]
    expires_at: Instant


class ConfirmationIn(In):
    """A fresh code of the authenticator."""

    totp: Totp


class OperatorProofIn(In):
    """Both proofs of the person: who has a password gives it too."""

    password: Password | None = None
    totp: Totp | None = None
    recovery_code: RecoveryCode | None = None

    def proof(self) -> Proof:
        """As the domain's."""
        return Proof(self.password or "", self.totp, self.recovery_code)


class PasswordChangeIn(OperatorProofIn):
    """A new password, with the proofs of the person."""

    new_password: Password


class SecretOut(Out):
    """A secret for an authenticator: as text, and as the address that a QR code holds."""

    secret: str
    uri: str


class CodesOut(Out):
    """Recovery codes, told once: each opens one session when the authenticator is lost."""

    recovery_codes: list[str]


class OneTimeLinkIn(In):
    """A one-time link."""

    token: LinkToken


class SetUpOut(SecretOut):
    """Who the link is for, and the secret for the authenticator."""

    name: str
    email: str
    log_in: Annotated[
        Literal["password", "openid"], Field(description="openid: through the provider, without a password")
    ]
    expires_at: Instant


class SetUpIn(OneTimeLinkIn):
    """What completes a link: the code that came apart from it (if any), the password, and a code of the authenticator."""

    code: Annotated[
        str | None, Field(max_length=64, description="from the administrator who prepared the link")
    ] = None
    password: Password | None = None
    totp: Totp


@router.post(
    "/session",
    operation_id="log_in",
    summary="Log in",
    status_code=201,
    responses={status: shown for status, shown in errors().items() if status not in (403, 404)},
)
def log_in(body: LogInIn, request: Request, response: Response) -> OpenedOut:
    """Open an operator's session. Whatever is wrong, the answer is the same, after the same time."""
    if (body.totp is None) == (body.recovery_code is None):
        raise ProblemError("invalid_request", "Send a code of the authenticator or a recovery code.")
    if body.cookie:
        require_own_page(request)
    found = services(request)
    try:
        opened = sessions.log_in(
            found.worker,
            found.keyring,
            body.email,
            Proof(body.password, body.totp, body.recovery_code),
            address=counted(request),
            now=found.clock.now(),
            lifetimes=lifetimes(found.settings),
            opened=lambda tx, made: noted(tx, request, made, "password"),
        )
    except LogInRefused as refused:
        raise refusal(request, refused, "session.opened") from refused
    return show_opened(found, response, opened, as_cookie=body.cookie)


@router.get("/session", operation_id="get_session", summary="Who am I", responses=errors())
def get_session(call: Own) -> SessionOut:
    """The session of this request."""
    mine = _mine(call)
    return SessionOut(
        id=public_id(sessions.PREFIX, mine.session_id),
        operator=mine.public_id,
        name=mine.name,
        roles=roles_out(call.tx, mine.held),
        organisation=public_id("ptn", mine.organisation_id) if mine.organisation_id else None,
        scopes=sorted(call.scopes),
        confirmed_at=mine.confirmed_at,
        expires_at=mine.expires_at,
    )


@router.delete("/session", operation_id="log_out", summary="Log out", status_code=204, responses=errors())
def log_out(call: Own, response: Response) -> None:
    """End the session of this request."""
    mine = _mine(call)
    sessions.end(call.tx, mine.session_id, call.now, of=mine.operator_id)
    call.audit("session.ended", public_id(sessions.PREFIX, mine.session_id))
    response.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict")


def holder(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(session_scheme)]
) -> OperatorSession:
    """The session of a request that works in several transactions of its own: none is held open meanwhile."""
    found = services(request)
    token = presented(request)
    with found.api.begin() as tx:
        opened = operators.session_of(tx, token, found.clock.now())
    if opened is None:
        raise unauthorised("The session is not open.")
    limits.count(request, found, opened.public_id)
    return opened


Holder = Annotated[OperatorSession, Depends(holder)]


@router.post(
    "/session/confirmation",
    operation_id="confirm_session",
    summary="Give a fresh code",
    status_code=204,
    responses=errors(),
)
def confirm_session(body: ConfirmationIn, mine: Holder, request: Request) -> None:
    """Confirm that the person is there: what takes a fresh code can be done for five minutes."""
    found = services(request)
    try:
        sessions.confirm(
            found.worker, found.keyring, mine.session_id, mine.operator_id, body.totp, found.clock.now()
        )
    except LogInRefused as refused:
        raise refusal(request, refused, "session.confirmed") from refused


@router.post(
    "/session/password",
    operation_id="change_password",
    summary="Change the password",
    status_code=204,
    responses=errors(409),
)
def change_password(body: PasswordChangeIn, mine: Holder, request: Request) -> None:
    """Change one's password; one's other sessions end."""
    found = services(request)
    with found.worker.begin() as tx:
        me = operators.find(tx, mine.operator_id)
    if me.log_in != "password":
        raise ProblemError("conflict", "You log in through your provider, without a password.")
    hashed = passwords.hashed(passwords.accept(body.new_password, links.about(me)))
    now = found.clock.now()

    def change(tx: Tx, operator: Operator) -> None:
        sessions.change_password(tx, operator, hashed, mine.session_id, now)
        note(tx, request, operator.public_id, "operator.password_changed", operator.public_id)

    _proved(request, mine, body.proof(), change, "operator.password_changed")


@router.post(
    "/session/totp",
    operation_id="begin_totp",
    summary="Begin with a new authenticator",
    responses=errors(),
)
def begin_totp(body: OperatorProofIn, mine: Holder, request: Request, response: Response) -> SecretOut:
    """Get a new secret; the authenticator in use stays good until a code of the new one is given."""
    found = services(request)

    def begin(tx: Tx, operator: Operator) -> SecretOut:
        secret = sessions.begin_totp(tx, found.keyring, operator, found.clock.now())
        note(tx, request, operator.public_id, "operator.totp_begun", operator.public_id)
        return SecretOut(secret=secret, uri=totp.uri(secret, operator.email))

    response.headers.update(NO_STORE)
    return _proved(request, mine, body.proof(), begin, "operator.totp_begun")


@router.post(
    "/session/totp/completion",
    operation_id="complete_totp",
    summary="Change over to the new authenticator",
    responses=errors(),
)
def complete_totp(body: ConfirmationIn, call: Own, response: Response) -> CodesOut:
    """Give a code of the new authenticator; the old one, its recovery codes and one's other sessions end."""
    mine = _mine(call)
    codes = sessions.finish_totp(
        call.tx, call.services.keyring, mine.operator_id, body.totp, mine.session_id, call.now
    )
    call.audit("operator.totp_changed", mine.public_id)
    response.headers.update(NO_STORE)
    return CodesOut(recovery_codes=codes)


@router.get("/sessions", operation_id="list_sessions", summary="My sessions", responses=errors())
def list_sessions(call: Own) -> SessionsOut:
    """One's own open sessions."""
    return sessions_out(call, _mine(call).operator_id)


@router.delete(
    "/sessions/{session}",
    operation_id="end_session",
    summary="End a session",
    status_code=204,
    responses=errors(),
)
def end_session(session: SessionId, call: Own) -> None:
    """End one of one's own sessions; an administrator for all programmes ends anyone's."""
    administers = any(held.role == "administrator" and held.programme_id is None for held in call.actor.held)
    of = None if administers else call.actor.key
    whose = sessions.end(call.tx, path_id(sessions.PREFIX, session), call.now, of=of)
    call.audit("session.ended", session, operator=public_id(operators.PREFIX, whose))


@router.post(
    "/set-up",
    operation_id="begin_set_up",
    summary="Open a one-time link",
    responses={status: shown for status, shown in errors().items() if status not in (401, 403)},
)
def begin_set_up(body: OneTimeLinkIn, request: Request, response: Response) -> SetUpOut:
    """Who the link is for, and the secret for their authenticator. The link stays good until it is completed."""
    found = services(request)
    begun = found.worker.run(lambda tx: links.begin(tx, found.keyring, body.token, found.clock.now()))
    response.headers.update(NO_STORE)
    return SetUpOut(
        secret=begun.secret,
        uri=begun.uri,
        name=begun.name,
        email=begun.email,
        log_in=begun.log_in,
        expires_at=begun.expires_at,
    )


@router.post(
    "/set-up/completion",
    operation_id="complete_set_up",
    summary="Set password and second factor",
    responses={status: shown for status, shown in errors().items() if status not in (401, 403)},
)
def complete_set_up(body: SetUpIn, request: Request, response: Response) -> CodesOut:
    """Use the link up: the password and the authenticator count from now on, and open sessions end."""
    found = services(request)

    def complete(tx: Tx) -> list[str]:
        now = found.clock.now()
        operator, codes = links.complete(
            tx,
            found.keyring,
            body.token,
            code=body.code,
            password=body.password,
            totp_code=body.totp,
            at=now,
        )
        tries.clear(tx, tries.of_account(operator.email))
        note(tx, request, operator.public_id, "operator.set_up", operator.public_id)
        return codes

    response.headers.update(NO_STORE)
    return CodesOut(recovery_codes=found.worker.run(complete))


def _mine(call: Call) -> OperatorSession:
    mine = operators.session_of(call.tx, presented(call.request), call.now)
    if mine is None:
        raise unauthorised("The session is not open.")
    return mine


def _proved(
    request: Request, mine: OperatorSession, proof: Proof, then: Callable[[Tx, Operator], T], action: str
) -> T:
    found = services(request)
    try:
        return sessions.prove(found.worker, found.keyring, mine.operator_id, proof, found.clock.now(), then)
    except LogInRefused as refused:
        raise refusal(request, refused, action) from refused
