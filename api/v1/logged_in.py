"""What routes of operators share: their shapes, the cookie, and the audit log where there is no `Call`."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import Request
from pydantic import Field
from sqlalchemy import text
from starlette.responses import Response

from api import auditing
from api.addresses import counted_address
from api.auth import operators, sessions
from api.auth.scopes import Role
from api.auth.sessions import Lifetimes, LogInRefused, Opened
from api.bootstrap import Services
from api.deps import SESSION_COOKIE, Call, services
from api.problems import ProblemError
from api.settings import Settings
from api.v1.schemas import Instant, Out
from ledger.audit import Act, Outcome
from ledger.database import Tx
from ledger.ids import public_id

NO_STORE: Final = {"Cache-Control": "no-store"}


class RoleOut(Out):
    """A role, for a programme or (null) for all."""

    role: Literal["manager", "administrator", "caseworker", "auditor"]
    programme: Annotated[str | None, Field(description="its slug", examples=["ejoheza"])]


class OpenedOut(Out):
    """A session just opened."""

    id: Annotated[str, Field(examples=[f"ses_{'0' * 26}"])]
    operator: Annotated[str, Field(examples=[f"opr_{'0' * 26}"])]
    token: Annotated[str | None, Field(description="`mzn_ops_…`, told once; null when it is set as a cookie")]
    expires_at: Instant
    recovery_codes_left: int


class SessionListed(Out):
    """An open session; `address` is where it was opened from (IPv6: the network)."""

    id: str
    address: str | None
    created_at: Instant
    seen_at: Annotated[Instant, Field(description="when it was last used, to the minute")]
    expires_at: Instant


class SessionsOut(Out):
    """Open sessions."""

    data: list[SessionListed]


def lifetimes(settings: Settings) -> Lifetimes:
    """How long sessions live, as the settings say."""
    return Lifetimes(
        timedelta(minutes=settings.session_idle_minutes), timedelta(hours=settings.session_hours)
    )


def counted(request: Request) -> str:
    """What a log-in counts as one address."""
    told: str = request.scope["state"]["address"]
    return counted_address(told)


def require_own_page(request: Request) -> None:
    """Refuse what a page of another site sends: a browser says so itself, and no page can say otherwise (Fetch Metadata)."""
    if request.headers.get("sec-fetch-site") != "same-origin":
        raise ProblemError("log_in_refused", "A session cookie is set for our own pages only.")


def show_opened(found: Services, response: Response, opened: Opened, *, as_cookie: bool) -> OpenedOut:
    """A session just opened; its token is in the cookie or in the body, not in both."""
    response.headers.update(NO_STORE)
    if as_cookie:
        set_cookie(response, opened, found.settings)
    return OpenedOut(
        id=public_id(sessions.PREFIX, opened.session_id),
        operator=opened.operator.public_id,
        token=None if as_cookie else opened.token,
        expires_at=opened.expires_at,
        recovery_codes_left=opened.recovery_codes_left,
    )


def set_cookie(response: Response, opened: Opened, settings: Settings) -> None:
    """Give the session to the browser: no script reads it, no other site sends it."""
    response.set_cookie(
        SESSION_COOKIE,
        opened.token,
        max_age=settings.session_hours * 3600,
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )


def noted(tx: Tx, request: Request, opened: Opened, way: str) -> None:
    """Write an opened session into the audit log, in the transaction that opens it."""
    who = opened.operator.public_id
    note(tx, request, who, "session.opened", public_id(sessions.PREFIX, opened.session_id), way=way)


def note(tx: Tx, request: Request, who: str, action: str, object_: str, **detail: object) -> None:
    """Write what an operator did into the audit log, where there is no `Call`."""
    auditing.write(tx, services(request), _act(request, who, action, object_, "done", **detail))


def refusal(request: Request, refused: LogInRefused, action: str) -> ProblemError:
    """The answer to a refusal, which doesn't tell the reason; the audit log does."""
    who = public_id(operators.PREFIX, refused.operator) if refused.operator is not None else "unknown"
    auditing.refused(services(request), _act(request, who, action, who, "refused", reason=refused.reason))
    return ProblemError(refused.code, refused.detail, headers={"WWW-Authenticate": "Session"})


def _act(request: Request, who: str, action: str, object_: str, outcome: Outcome, **detail: object) -> Act:
    state = request.scope["state"]
    return Act(
        actor=who,
        kind="operator",
        action=action,
        object=object_,
        outcome=outcome,
        address=state["address"],
        request_id=state.get("request_id") or None,
        detail=detail or None,
    )


def sessions_out(call: Call, operator: UUID) -> SessionsOut:
    """The open sessions of an operator."""
    return SessionsOut(
        data=[
            SessionListed(
                id=one.public_id,
                address=one.address,
                created_at=one.created_at,
                seen_at=one.seen_at,
                expires_at=one.expires_at,
            )
            for one in sessions.open_sessions(call.tx, operator, call.now)
        ]
    )


def roles_out(tx: Tx, held: Iterable[tuple[Role, UUID | None]]) -> list[RoleOut]:
    """Roles, with their programmes by name."""
    pairs = list(held)
    slugs: dict[UUID, str] = {
        row.id: row.slug
        for row in tx.execute(
            text("SELECT id, slug FROM products.programme WHERE id = ANY (:ids)"),
            {"ids": [programme for _, programme in pairs if programme is not None]},
        )
    }
    return sorted(
        (RoleOut(role=role, programme=slugs[programme] if programme else None) for role, programme in pairs),
        key=lambda one: (one.role, one.programme or ""),
    )
