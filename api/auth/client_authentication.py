"""How a client proves itself to the token endpoint and its neighbours: a secret by HTTP Basic or in the form, or an assertion.

RFC 6749 §2.3 and RFC 7521 §4.2: in one way only. Errors are those of RFC 6749 §5.2.
"""

import base64
import binascii
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request

from api.auth import assertions, clients
from api.auth.clients import Client
from api.bootstrap import Services

METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
FORM: Final = "application/x-www-form-urlencoded"
FIELDS_MAX: Final = 20


class OAuthRefused(Exception):
    """The request is refused with an error code of RFC 6749 §5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


def audiences(found: Services) -> tuple[str, ...]:
    """Whom a client's JWT may be meant for: the issuer, or its token endpoint."""
    issuer = found.tokens.issuer
    return issuer, f"{issuer}/oauth/token"


def form_of(request: Request) -> dict[str, str]:
    """The parameters of a form, each given once; one without a value counts as left out (RFC 6749 §3.2)."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        raise OAuthRefused("invalid_request", f"The body must be {FORM}.")
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
        raise OAuthRefused("invalid_request", "The body is not a form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthRefused("invalid_request", "A parameter is given twice.")
    return {name: value for name, value in form.items() if value}


def client_of(request: Request, found: Services, form: dict[str, str]) -> Client:
    """The client that proved itself, in a transaction of its own: what was used stays used, whatever comes after.

    Raises `OAuthRefused`: `invalid_request` for two ways at once, `invalid_client` (401) for everything that proves nothing.
    """
    header = request.headers.get("authorization")
    by_assertion = "client_assertion" in form or "client_assertion_type" in form
    if (header is not None) + ("client_secret" in form) + by_assertion > 1:
        raise OAuthRefused("invalid_request", "The client proves itself in one way, not in two.")
    with found.api.begin() as tx:
        if by_assertion:
            client = assertions.authenticate(
                tx, _assertion(form), form.get("client_id"), audiences(found), found.clock.now()
            )
        else:
            client_id, secret = _secret(header, form)
            client = clients.authenticate(tx, client_id, secret, found.clock.now())
    if client is None:
        raise OAuthRefused("invalid_client", "The client is unknown, disabled, or did not prove itself.", 401)
    return client


def _assertion(form: dict[str, str]) -> str:
    if "client_assertion" not in form or "client_assertion_type" not in form:
        raise OAuthRefused("invalid_request", "client_assertion and client_assertion_type go together.")
    if form["client_assertion_type"] != assertions.TYPE_NAME:
        raise OAuthRefused("invalid_client", f"client_assertion_type must be {assertions.TYPE_NAME}.", 401)
    return form["client_assertion"]


def _secret(header: str | None, form: dict[str, str]) -> tuple[str, str]:
    if header is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    client_id, secret = _basic(header)
    if form.get("client_id", client_id) != client_id:
        raise OAuthRefused("invalid_request", "client_id names another client than the header.")
    return client_id, secret


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise OAuthRefused("invalid_client", "The Authorization header is not HTTP Basic.", 401)
    return unquote_plus(client_id), unquote_plus(secret)
