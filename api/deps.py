"""What routes are given: the caller, and one database transaction that ends before the answer leaves.

FastAPI ends a ``yield`` dependency after the response unless it is of ``scope="function"``: then a commit that fails
would follow a 2xx that was already sent. So every transaction here is of that scope, and a test keeps it so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Request, params
from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2, SecurityScopes
from pydantic import BaseModel
from sqlalchemy import text
from starlette.responses import Response

from api import idempotency, limits
from api.auth import clients
from api.auth.clients import Client
from api.auth.scopes import SCOPES
from api.auth.tokens import InvalidToken
from api.bootstrap import Services
from api.pagination import Position
from api.problems import ProblemError
from ledger.database import Database, Tx
from ledger.errors import InvalidId, NotFound
from ledger.ids import parse_public_id

BEARER: Final = "Bearer "

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
    client: Client
    scopes: frozenset[str]

    @property
    def now(self) -> datetime:
        """The present instant."""
        return self.services.clock.now()

    @property
    def partner(self) -> UUID:
        """The partner that the caller speaks for; staff speak for none, and find nothing at what is a partner's."""
        if self.client.partner_id is None:
            raise NotFound("There is nothing here for staff.")
        return self.client.partner_id

    def read_cursor(self, cursor: str | None, route: str, **filters: object) -> Position | None:
        """The position that a cursor of this list, client and filters carries."""
        return self.services.cursors.read(cursor, route=route, client=self.client.client_id, filters=filters)

    def write_cursor(self, position: Position | None, route: str, **filters: object) -> str | None:
        """The cursor after `position` of this list, for this client and these filters."""
        return self.services.cursors.write(
            position, route=route, client=self.client.client_id, filters=filters
        )

    def once(self, key: str | None, route: str, effect: Callable[[], tuple[int, BaseModel]]) -> Response:
        """The answer under an Idempotency-Key (`api.idempotency.once`)."""
        asked = idempotency.operation(
            self.request, key, client=self.client.id.bytes, subject=self.client.client_id, route=route
        )
        return idempotency.once(self.tx, self.services.keyring, asked, self.now, effect)


def calling(*scopes: str) -> params.Security:
    """A route's caller with these scopes, in a transaction under row-level security."""
    return params.Security(_call, scopes=_known(scopes), scope="function")


def writing(*scopes: str) -> params.Security:
    """As `calling`, in a transaction of the worker's role, which may write remittances and the books.

    Row-level security does not hold there: what is called with it names the partner in every query.
    """
    return params.Security(_worker_call, scopes=_known(scopes), scope="function")


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


@contextmanager
def _authorised(request: Request, required: SecurityScopes, database: Database) -> Iterator[Call]:
    found = services(request)
    try:
        claims = found.tokens.check(_bearer(request))
    except InvalidToken as error:
        raise unauthorised(error.detail) from error
    with database.begin() as tx:
        # read at each request: a client or partner that was disabled loses access now, not when its token dies
        client = clients.find(tx, claims.client_id)
        if client is None:
            raise unauthorised("The token's client is not active.")
        limits.count(request, found, client.client_id)
        held = claims.scopes & client.scopes
        if not set(required.scopes) <= held:
            raise ProblemError(
                "insufficient_scope",
                f"The token lacks the scope {' '.join(required.scopes)}.",
                headers={
                    "WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(required.scopes)}"'
                },
            )
        _limit_sight(tx, client)
        yield Call(request, found, tx, client, held)


def _limit_sight(tx: Tx, client: Client) -> None:
    """Tell row-level security whose rows this transaction may see: the partner's, or everyone's for staff."""
    name, value = (
        ("mizan.access", "staff") if client.partner_id is None else ("mizan.partner", str(client.partner_id))
    )
    tx.execute(text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})


def _bearer(request: Request) -> str:
    header = request.headers.get("authorization")
    if header is None:
        raise ProblemError(
            "unauthorised", "Send a token as Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"}
        )
    if header[: len(BEARER)].lower() != BEARER.lower():
        raise unauthorised("The Authorization header is not a bearer token.")
    return header[len(BEARER) :].strip()


def unauthorised(detail: str) -> ProblemError:
    """The 401 for a token that is not valid (RFC 6750)."""
    return ProblemError("unauthorised", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def path_id(prefix: str, text_: str) -> UUID:
    """The id in a path; one of another kind names nothing, so it is a 404."""
    try:
        return parse_public_id(prefix, text_)
    except InvalidId:
        raise NotFound("There is nothing of this id.") from None
