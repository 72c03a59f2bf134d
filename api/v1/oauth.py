"""Tokens: client credentials (RFC 6749 §4.4), exchange (RFC 8693), revocation (RFC 7009), and the documents by which
clients find their way (RFC 8414, RFC 7517)."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from api import limits
from api.auth import exchange, revocation, scopes
from api.auth.assertions import TYPE_NAME
from api.auth.client_authentication import (
    FORM,
    METHODS,
    OAuthRefused,
    audiences,
    client_of,
    form_of,
)
from api.auth.clients import Client
from api.auth.scopes import SCOPES
from api.auth.tokens import ALGORITHMS, InvalidToken
from api.bootstrap import Services
from api.deps import services
from api.v1.schemas import Responses, errors

router = APIRouter(tags=["tokens"])

CLIENT_CREDENTIALS: Final = "client_credentials"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class TokenAnswer(BaseModel):
    """A token (RFC 6749 §5.1; with `issued_token_type` after an exchange, RFC 8693 §2.2)."""

    access_token: str
    issued_token_type: str | None = Field(None, description="after an exchange", examples=[None])
    token_type: str = Field(examples=["Bearer"])
    expires_in: int = Field(description="seconds", le=900)
    scope: str = Field(description="what the token may do, separated by spaces")


class OAuthError(BaseModel):
    """An error of the token endpoint (RFC 6749 §5.2)."""

    error: str = Field(examples=["invalid_client"])
    error_description: str


_CLIENT: Final[dict[str, Any]] = {
    "client_id": {"type": "string", "description": "with `client_secret`; beside an assertion at will"},
    "client_secret": {"type": "string", "description": "client_secret_post only"},
    "client_assertion": {
        "type": "string",
        "description": "private_key_jwt: a JWT signed with the client's key",
    },
    "client_assertion_type": {"type": "string", "const": TYPE_NAME},
}
_ASKED: Final[dict[str, Any]] = {
    "grant_type": {"type": "string", "enum": [CLIENT_CREDENTIALS, exchange.GRANT]},
    "scope": {"type": "string", "description": "what to ask for; absent: everything granted"},
    "subject_token": {"type": "string", "description": f"exchange: a JWT of typ `{exchange.TYPE}`"},
    "subject_token_type": {"type": "string", "const": exchange.SUBJECT_TOKEN},
    "requested_token_type": {"type": "string", "const": exchange.ACCESS_TOKEN},
    "audience": {"type": "string", "description": "exchange: the issuer, if anything"},
    "resource": {"type": "string", "description": "exchange: the issuer, if anything"},
}


def _form(required: str, properties: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [required], "properties": properties | _CLIENT}
    shown = {name: {"value": value} for name, value in examples.items()}
    return {
        "security": [{"basic": []}, {}],
        "requestBody": {"required": True, "content": {FORM: {"schema": schema, "examples": shown}}},
    }


_REFUSALS: Final[Responses] = {
    400: {"model": OAuthError, "description": "The request is refused."},
    401: {"model": OAuthError, "description": "The client did not prove itself."},
    **{status: shown for status, shown in errors().items() if status in (408, 413, 415, 429, 503)},
}


@router.post(
    "/oauth/token",
    operation_id="issue_token",
    summary="Get an access token",
    description=(
        "The client proves itself by HTTP Basic (`client_secret_basic`), in the form (`client_secret_post`), or with an"
        " assertion that it signed (`private_key_jwt`). With `client_credentials` it gets a token of its own; with a"
        " subject token, in exchange, one for a member who is logged in with it."
    ),
    response_model=TokenAnswer,
    response_model_exclude_none=True,
    responses=_REFUSALS,
    openapi_extra=_form(
        "grant_type",
        _ASKED,
        {
            "a token of the client's own": {
                "grant_type": CLIENT_CREDENTIALS,
                "scope": "members:read balances:read",
            },
            "a member's token": {
                "grant_type": exchange.GRANT,
                "subject_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6…",
                "subject_token_type": exchange.SUBJECT_TOKEN,
                "scope": "balances:read",
            },
        },
    ),
)
def issue_token(request: Request) -> Response:
    """Authenticate a client and give it a token, its own or a member's, for the scopes it asked for."""
    return _answered(lambda: JSONResponse(_token(request), headers=_NO_STORE))


@router.post(
    "/oauth/revoke",
    operation_id="revoke_token",
    summary="Revoke an access token",
    description="Ends a token that the client got, a member's through it too, from the next request on. What is no live"
    " token needs no revoking, so that is a 200 as well (RFC 7009).",
    response_model=None,
    response_class=Response,
    responses={200: {"description": "The token holds no longer."}, **_REFUSALS},
    openapi_extra=_form(
        "token",
        {
            "token": {"type": "string", "description": "the access token"},
            "token_type_hint": {"type": "string", "examples": ["access_token"]},
        },
        {"a token": {"token": "eyJhbGciOiJFUzI1NiIsImtpZCI6…"}},
    ),
)
def revoke_token(request: Request) -> Response:
    """Authenticate a client and end one of its tokens."""

    def revoked() -> Response:
        found = services(request)
        form = form_of(request)
        client = client_of(request, found, form)
        if "token" not in form:
            raise OAuthRefused("invalid_request", "token is missing.")
        try:
            claims = found.tokens.check(form["token"])
        except InvalidToken:
            return Response(headers=_NO_STORE)
        with found.api.begin() as tx:
            own = revocation.revoke(tx, client, claims)
        if not own:
            raise OAuthRefused("invalid_grant", "The token was issued to another client.")
        return Response(headers=_NO_STORE)

    return _answered(revoked)


def _answered(answer: Callable[[], Response]) -> Response:
    try:
        return answer()
    except OAuthRefused as refused:
        headers = dict(_NO_STORE)
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="mizan", charset="UTF-8"'
        content = {"error": refused.error, "error_description": refused.description}
        return JSONResponse(content, refused.status, headers)


def _token(request: Request) -> dict[str, Any]:
    found = services(request)
    form = form_of(request)
    client = client_of(request, found, form)
    limits.count(request, found, f"{client.client_id} for tokens")
    grant = form.get("grant_type")
    if grant is None:
        raise OAuthRefused("invalid_request", "grant_type is missing.")
    if grant == CLIENT_CREDENTIALS:
        return _issued(
            found, client, client.client_id, _asked(form, client.scopes - scopes.carried_for_members())
        )
    if grant == exchange.GRANT:
        return _exchanged(found, client, form)
    raise OAuthRefused("unsupported_grant_type", f"Served here: {CLIENT_CREDENTIALS}, {exchange.GRANT}.")


def _exchanged(found: Services, client: Client, form: dict[str, str]) -> dict[str, Any]:
    if client.partner_id is None:
        raise OAuthRefused("unauthorized_client", "Only a partner's client speaks for members.")
    if form.get("subject_token_type") != exchange.SUBJECT_TOKEN or "subject_token" not in form:
        raise OAuthRefused("invalid_request", f"Send a subject_token of type {exchange.SUBJECT_TOKEN}.")
    if form.get("requested_token_type", exchange.ACCESS_TOKEN) != exchange.ACCESS_TOKEN:
        raise OAuthRefused("invalid_request", f"What is issued is of type {exchange.ACCESS_TOKEN}.")
    if "actor_token" in form or "actor_token_type" in form:
        raise OAuthRefused("invalid_request", "The client itself is the actor: send no actor_token.")
    if {form[name] for name in ("audience", "resource") if name in form} - {found.tokens.issuer}:
        raise OAuthRefused("invalid_target", "Tokens are issued for this service alone.")
    asked = _asked(form, client.scopes & scopes.for_members())
    with found.api.begin() as tx:
        subject = exchange.subject_of(tx, client, form["subject_token"], audiences(found), found.clock.now())
    if subject is None:
        # one answer for every reason (RFC 8693 §2.2.2): which of them it was is nobody's to learn here
        raise OAuthRefused("invalid_request", "The subject token is not valid, or not for a member of yours.")
    issued = _issued(found, client, subject.member, asked, actor=client.client_id)
    return issued | {"issued_token_type": exchange.ACCESS_TOKEN}


def _asked(form: dict[str, str], granted: frozenset[str]) -> frozenset[str]:
    asked = frozenset(form["scope"].split()) if "scope" in form else granted
    if not asked or not asked <= granted:
        raise OAuthRefused("invalid_scope", "A scope asked for is unknown, or not granted to the client.")
    return asked


def _issued(
    found: Services, client: Client, subject: str, granted: frozenset[str], *, actor: str | None = None
) -> dict[str, Any]:
    token = found.tokens.issue(
        subject=subject,
        client_id=client.client_id,
        scopes=granted,
        actor=actor,
        generation=client.generation,
    )
    return {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(found.tokens.lifetime.total_seconds()),
        "scope": " ".join(sorted(granted)),
    }


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
    """Where tokens come from, what they may do, and how clients prove themselves (RFC 8414)."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    token_endpoint_auth_signing_alg_values_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_signing_alg_values_supported: list[str]
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
        revocation_endpoint=f"{issuer}/oauth/revoke",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        scopes_supported=list(SCOPES),
        response_types_supported=[],
        grant_types_supported=[CLIENT_CREDENTIALS, exchange.GRANT],
        token_endpoint_auth_methods_supported=list(METHODS),
        token_endpoint_auth_signing_alg_values_supported=ALGORITHMS,
        revocation_endpoint_auth_methods_supported=list(METHODS),
        revocation_endpoint_auth_signing_alg_values_supported=ALGORITHMS,
        service_documentation=f"{issuer}/docs",
    )
