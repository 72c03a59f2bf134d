"""`POST /oauth/token`: client credentials (RFC 6749 §4.4), and the documents by which clients find their way."""

import base64
import binascii
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from api.auth import clients
from api.auth.clients import Client
from api.auth.scopes import SCOPES
from api.deps import services
from api.v1.schemas import errors

router = APIRouter(tags=["tokens"])

FIELDS_MAX: Final = 20
FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class TokenAnswer(BaseModel):
    """A token (RFC 6749 §5.1)."""

    access_token: str
    token_type: str = Field(examples=["Bearer"])
    expires_in: int = Field(description="seconds", le=900)
    scope: str = Field(description="what the token may do, separated by spaces")


class OAuthError(BaseModel):
    """An error of the token endpoint (RFC 6749 §5.2)."""

    error: str = Field(examples=["invalid_client"])
    error_description: str


class _Refused(Exception):
    """The request is refused with an error code of RFC 6749 §5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


_REQUEST: Final[dict[str, Any]] = {
    "security": [{"basic": []}, {}],
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "const": "client_credentials"},
                        "scope": {
                            "type": "string",
                            "description": "what to ask for; absent: everything granted",
                        },
                        "client_id": {"type": "string", "description": "client_secret_post only"},
                        "client_secret": {"type": "string", "description": "client_secret_post only"},
                    },
                },
                "example": {"grant_type": "client_credentials", "scope": "members:read balances:read"},
            }
        },
    },
}


@router.post(
    "/oauth/token",
    operation_id="issue_token",
    summary="Get an access token",
    description="The client proves itself by HTTP Basic (`client_secret_basic`) or in the form (`client_secret_post`).",
    response_model=TokenAnswer,
    responses={
        400: {"model": OAuthError, "description": "The request is refused."},
        401: {"model": OAuthError, "description": "The client did not prove itself."},
        **{status: shown for status, shown in errors().items() if status in (408, 413, 415, 503)},
    },
    openapi_extra=_REQUEST,
)
def issue_token(request: Request) -> JSONResponse:
    """Authenticate a client and give it a token for the scopes it asked for."""
    try:
        return JSONResponse(_token(request), headers=_NO_STORE)
    except _Refused as refused:
        headers = dict(_NO_STORE)
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="mizan", charset="UTF-8"'
        content = {"error": refused.error, "error_description": refused.description}
        return JSONResponse(content, refused.status, headers)


def _token(request: Request) -> dict[str, Any]:
    form = _form(request)
    client = _client(request, form)
    grant = form.get("grant_type")
    if grant is None:
        raise _Refused("invalid_request", "grant_type is missing.")
    if grant != "client_credentials":
        raise _Refused("unsupported_grant_type", "Only client_credentials is served here.")
    asked = frozenset(form["scope"].split()) if "scope" in form else client.scopes
    if not asked or not asked <= client.scopes:
        raise _Refused("invalid_scope", "A scope asked for is unknown, or not granted to the client.")
    found = services(request)
    return {
        "access_token": found.tokens.issue(
            subject=client.client_id, client_id=client.client_id, scopes=asked
        ),
        "token_type": "Bearer",
        "expires_in": int(found.tokens.lifetime.total_seconds()),
        "scope": " ".join(sorted(asked)),
    }


def _form(request: Request) -> dict[str, str]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        raise _Refused("invalid_request", f"The body must be {FORM}.")
    body: bytes = request.scope["state"]["body"]
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise _Refused("invalid_request", "The body is not a form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _Refused("invalid_request", "A parameter is given twice.")
    # a parameter without a value counts as left out (RFC 6749 §3.2)
    return {name: value for name, value in form.items() if value}


def _client(request: Request, form: dict[str, str]) -> Client:
    header = request.headers.get("authorization")
    in_form = "client_secret" in form
    if header is not None and in_form:
        raise _Refused("invalid_request", "The client proves itself in one way, not in two.")
    if header is not None:
        client_id, secret = _basic(header)
        if form.get("client_id", client_id) != client_id:
            raise _Refused("invalid_request", "client_id names another client than the header.")
    else:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    found = services(request)
    with found.api.begin() as tx:
        client = clients.authenticate(tx, client_id, secret, found.clock.now())
    if client is None:
        raise _Refused("invalid_client", "The client is unknown, disabled, or did not prove itself.", 401)
    return client


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise _Refused("invalid_client", "The client proves itself by HTTP Basic or in the form.", 401)
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise _Refused("invalid_client", "The Authorization header is not HTTP Basic.", 401) from None
    if not colon:
        raise _Refused("invalid_client", "The Authorization header is not HTTP Basic.", 401)
    return unquote_plus(client_id), unquote_plus(secret)


class Jwk(BaseModel):
    """A public key (RFC 7517)."""

    kty: str
    crv: str
    x: str
    y: str
    kid: str
    use: str
    alg: str


class Jwks(BaseModel):
    """The keys that verify access tokens."""

    keys: list[Jwk]


@router.get(
    "/.well-known/jwks.json",
    operation_id="get_jwks",
    summary="The keys that verify access tokens",
    responses={503: errors()[503]},
)
def jwks(request: Request) -> Jwks:
    """Every key that signs, is about to, or still verifies."""
    published = services(request).keys.published()
    return Jwks(keys=[Jwk(**key.jwk, kid=key.kid, use="sig", alg="ES256") for key in published])


class ServerMetadata(BaseModel):
    """Where tokens come from and what they may do (RFC 8414)."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    service_documentation: str


@router.get(
    "/.well-known/oauth-authorization-server",
    operation_id="get_authorization_server",
    summary="Authorization server metadata",
)
def authorization_server(request: Request) -> ServerMetadata:
    """The metadata of RFC 8414."""
    issuer = services(request).tokens.issuer
    return ServerMetadata(
        issuer=issuer,
        token_endpoint=f"{issuer}/oauth/token",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        scopes_supported=list(SCOPES),
        response_types_supported=[],
        grant_types_supported=["client_credentials"],
        token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"],
        service_documentation=f"{issuer}/docs",
    )
