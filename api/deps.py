"""What routes are given: the caller, and one database transaction that ends before the answer leaves.

FastAPI ends a ``yield`` dependency after the response unless it is of ``scope="function"``: then a commit that fails
would follow a 2xx that was already sent. So every transaction here is of that scope, and a test keeps it so.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Request, params
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, OAuth2, SecurityScopes
from pydantic import BaseModel
from sqlalchemy import text
from starlette.responses import Response

from api import auditing, idempotency, limits
from api.auth import actors, operators, standing
from api.auth.actors import Actor, Held
from api.auth.scopes import SCOPES
from api.auth.tokens import Claims, InvalidToken
from api.bootstrap import Services
from api.pagination import Position
from api.problems import ProblemError
from ledger import horizon
from ledger.database import Database, Tx
from ledger.errors import InvalidId, MizanError, NotFound
from ledger.ids import parse_public_id

BEARER: Final = "Bearer "
SESSION_COOKIE: Final = "mizan_session"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

oauth2 = OAuth2(
    flows=OAuthFlows(
        clientCredentials=OAuthFlowClientCredentials(
            tokenUrl="/oauth/token", scopes={scope.name: scope.allows for scope in SCOPES.values()}
        )
    ),
    scheme_name="oauth2",
    description="A token of `POST /oauth/token`, sent as `Authorization: Bearer …`; lives at most 15 minutes.",
    auto_error=False,
)


session = HTTPBearer(
    scheme_name="session",
    description="An operator's session of `POST /v1/session`: `Authorization: Bearer mzn_ops_…`, or the cookie `mizan_session`.",
    auto_error=False,
)


def services(request: Request) -> Services:
    """The services of this process."""
    found: Services = request.app.state.services
    return found


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised request: who calls, and the transaction that everything it does belongs to."""

    request: Request
    services: Services
    tx: Tx
    actor: Actor

    @property
    def now(self) -> datetime:
        """The present instant."""
        return self.services.clock.now()

    @property
    def scopes(self) -> frozenset[str]:
        """What the caller may do."""
        return self.actor.scopes

    @property
    def partner(self) -> UUID:
        """The partner or organisation that the caller speaks for; who speaks for none finds nothing of a partner's."""
        if self.actor.partner_id is None:
            raise NotFound("There is nothing here for staff.")
        return self.actor.partner_id

    @property
    def address(self) -> str:
        """The address that the request came from, seen through the proxies that are trusted (`api.addresses`)."""
        told: str = self.request.scope["state"]["address"]
        return told

    def read_cursor(self, cursor: str | None, route: str, **filters: object) -> Position | None:
        """The position that a cursor of this list, client and filters carries."""
        return self.services.cursors.read(cursor, route=route, client=self.actor.id, filters=filters)

    def write_cursor(self, position: Position | None, route: str, **filters: object) -> str | None:
        """The cursor after `position` of this list, for this client and these filters."""
        return self.services.cursors.write(position, route=route, client=self.actor.id, filters=filters)

    def read_position(self, cursor: str | None, route: str, **filters: object) -> horizon.Position | None:
        """The same of a list in the order of commits: the row to go on after."""
        at = self.read_cursor(cursor, route, **filters)
        return horizon.Position(int(at[0]), int(at[1]), UUID(str(at[2]))) if at else None

    def write_position(self, last: horizon.Position | None, route: str, **filters: object) -> str | None:
        """The cursor after the last row shown of such a list; None when there is no more."""
        at: Position | None = [last.era, last.xid, str(last.id)] if last is not None else None
        return self.write_cursor(at, route, **filters)

    def audit(
        self,
        action: str,
        object_: str,
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
        programme_id: UUID | None = None,
        **detail: object,
    ) -> None:
        """Write what this request has done into the audit log, with it or not at all (`api.auditing`).

        `before` and `after` are sealed under keys that are destroyed one day, `detail` stays in the clear; none holds
        personal data.
        """
        auditing.note(self, action, object_, before=before, after=after, programme_id=programme_id, **detail)

    def once(self, key: str | None, route: str, effect: Callable[[], tuple[int, BaseModel]]) -> Response:
        """The answer under an Idempotency-Key (`api.idempotency.once`)."""
        asked = idempotency.operation(
            self.request, key, client=self.actor.key.bytes, subject=self.actor.id, route=route
        )
        answer = idempotency.once(self.tx, self.services.keyring, asked, self.now, effect)
        if "Idempotency-Replayed" in answer.headers:
            self.request.state.audited = True  # nothing was done: the log has the first time
        return answer


def calling(*scopes: str) -> params.Security:
    """A route's caller with these scopes, in a transaction under row-level security."""
    return params.Security(_call, scopes=_known(scopes), scope="function")


def writing(*scopes: str) -> params.Security:
    """As `calling`, in a transaction of the worker's role, which may write remittances and the books.

    Row-level security does not hold there: what is called with it names the partner in every query.
    """
    return params.Security(_worker_call, scopes=_known(scopes), scope="function")


def in_session() -> params.Security:
    """An operator with an open session, whatever their roles, in a transaction of the worker's role: for what is their own."""
    return params.Security(_own_call, scope="function")


def _known(scopes: tuple[str, ...]) -> list[str]:
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ValueError(f"{scopes} are not scopes of api.auth.scopes")
    return list(scopes)


def _call(
    request: Request, required: SecurityScopes, _documented: Annotated[str | None, Depends(oauth2)]
) -> Iterator[Call]:
    with _authorised(request, required, services(request).api) as call:
        yield call


def _worker_call(
    request: Request, required: SecurityScopes, _documented: Annotated[str | None, Depends(oauth2)]
) -> Iterator[Call]:
    with _authorised(request, required, services(request).worker) as call:
        yield call


def _own_call(
    request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(session)]
) -> Iterator[Call]:
    with _authorised(request, SecurityScopes(), services(request).worker) as call:
        yield call


GUARDS: Final = frozenset({_call, _worker_call, _own_call})
"""What stands before a route: each of these ends with a caller that is known, or with a refusal."""


@contextmanager
def _authorised(request: Request, required: SecurityScopes, database: Database) -> Iterator[Call]:
    found = services(request)
    token = presented(request)
    claims = _claims(token, found)
    call: Call | None = None
    try:
        with database.begin() as tx:
            actor = _actor(tx, token, claims, found)
            limits.count(request, found, actor.id)
            if not required.scopes and actor.kind != "operator":
                raise unauthorised("This takes a person's session.")
            call = Call(request, found, tx, actor)
            if not set(required.scopes) <= actor.scopes:
                raise ProblemError(
                    "insufficient_scope",
                    f"The token lacks the scope {' '.join(required.scopes)}.",
                    headers={
                        "WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(required.scopes)}"'
                    },
                )
            _refuse_other_members(request, actor)
            if actor.kind in (
                "staff",
                "operator",
            ):  # of partners and members it was said where the token stands
                limit_sight(tx, actor, required.scopes)
            if actor.kind == "operator" and actor.partner_id is not None and required.scopes:
                _require_active(tx, actor.partner_id)
            yield call
            auditing.note_unnamed(call)
    except MizanError as error:
        # the transaction is over and its connection given back: what is written now survives the rollback
        if call is not None:
            auditing.note_refusal(call, error)
        raise


def may(request: Request, scope: str) -> bool:
    """Whether who begins a request has a scope, before its body is taken in; nothing is counted, answered or written down."""
    found = services(request)
    try:
        token = presented(request)
        claims = _claims(token, found)
        with found.api.begin() as tx:
            return scope in _actor(tx, token, claims, found).scopes
    except ProblemError:
        return False


def _claims(token: str, found: Services) -> Claims | None:
    """What a token says; None of a person's session, which says nothing itself."""
    if token.startswith(operators.TOKEN_PREFIX):
        return None
    try:
        return found.tokens.check(token)
    except InvalidToken as error:
        raise unauthorised(error.detail) from error


def _actor(tx: Tx, token: str, claims: Claims | None, found: Services) -> Actor:
    """Judged at each request: who was disabled, or whose consent is withdrawn, loses access now, not with the token."""
    return _person(tx, token, found) if claims is None else _bearer_of(tx, claims, found)


def limit_sight(tx: Tx, actor: Actor, scopes: Collection[str]) -> None:
    """Tell row-level security whose rows this transaction may see on a route that takes `scopes`."""
    tx.execute(_SIGHT, {**actor.sight(scopes).settings, "client": str(actor.key)})


_SIGHT: Final = text(
    "SELECT set_config('mizan.access', :access, true), set_config('mizan.partner', :partner, true),"
    " set_config('mizan.member', :member, true), set_config('mizan.programmes', :programmes, true),"
    " set_config('mizan.client', :client, true)"
)


def _person(tx: Tx, token: str, found: Services) -> Actor:
    opened = operators.session_of(tx, token, found.clock.now())
    if opened is None:
        raise unauthorised("The session is not open.")
    held = frozenset(Held(role, programme) for role, programme in opened.held)
    return actors.of_operator(opened.operator_id, held, opened.organisation_id, opened.confirmed_at)


def _bearer_of(tx: Tx, claims: Claims, found: Services) -> Actor:
    stands = standing.of(tx, claims, found.clock.now())
    if stands is None:
        raise unauthorised("The token holds no longer.")
    if stands.member_link is None:
        return actors.of_client(stands.client, claims.scopes)
    return actors.of_member(stands.client, claims.subject, stands.member_link, claims.scopes)


def _require_active(tx: Tx, organisation_id: UUID) -> None:
    """Caseworkers of an organisation that was disabled do nothing for it any more."""
    state = tx.execute(
        text("SELECT state FROM products.partner WHERE id = :id"), {"id": organisation_id}
    ).scalar_one_or_none()
    if state != "active":
        raise unauthorised("The organisation is not active.")


def _refuse_other_members(request: Request, actor: Actor) -> None:
    """A member's token opens no other member's pages, also where row-level security does not hold (`writing`)."""
    named = request.path_params.get("member")
    if actor.kind == "member" and named is not None and named != actor.id:
        raise NotFound("There is nothing of this id.")


def presented(request: Request) -> str:
    """The token or session that a request carries. Raises the problem `unauthorised` when there is none that counts."""
    header = request.headers.get("authorization")
    if header is None:
        return _session_cookie(request)
    if header[: len(BEARER)].lower() != BEARER.lower():
        raise unauthorised("The Authorization header is not a bearer token.")
    return header[len(BEARER) :].strip()


def _session_cookie(request: Request) -> str:
    """An operator's session, as a browser sends it; what changes something must come from our own pages."""
    session = request.cookies.get(SESSION_COOKIE, "")
    if not session.startswith(operators.TOKEN_PREFIX):
        raise ProblemError(
            "unauthorised", "Send a token as Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"}
        )
    # browsers set this header themselves, and no page can (Fetch Metadata): absent or foreign is not our page
    if request.method not in _SAFE and request.headers.get("sec-fetch-site") != "same-origin":
        raise unauthorised("A session cookie changes nothing from another site.")
    return session


def unauthorised(detail: str) -> ProblemError:
    """The 401 for a token that is not valid (RFC 6750)."""
    return ProblemError("unauthorised", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def path_id(prefix: str, text_: str) -> UUID:
    """The id in a path; one of another kind names nothing, so it is a 404."""
    try:
        return parse_public_id(prefix, text_)
    except InvalidId:
        raise NotFound("There is nothing of this id.") from None
