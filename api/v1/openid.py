"""Logging in through the OpenID Connect provider: pages for a browser, which is sent there and comes back."""

from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.auth import openid_log_in
from api.auth.oidc import NotProved, Provider
from api.auth.openid_log_in import LIFETIME
from api.auth.sessions import LogInRefused, Opened
from api.deps import services
from api.problems import ProblemError
from api.v1.logged_in import (
    NO_STORE,
    counted,
    lifetimes,
    noted,
    refusal,
    require_own_page,
    set_cookie,
)
from api.v1.schemas import errors
from ledger.errors import NotFound

router = APIRouter(prefix="/v1/session/openid", tags=["operators"])

COOKIE: Final = "mizan_openid"
FORM: Final = "application/x-www-form-urlencoded"
_PAGE: Final = {
    **NO_STORE,
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}
_ERRORS: Final = {status: shown for status, shown in errors().items() if status not in (403, 415)}

Parameter = Annotated[str | None, Query(max_length=2048)]


@router.get(
    "",
    operation_id="begin_openid_log_in",
    summary="Log in through the provider",
    status_code=303,
    response_class=RedirectResponse,
    responses={303: {"description": "Go to the provider."}, **_ERRORS},
)
def begin(request: Request) -> Response:
    """Send the browser to the provider; it comes back within ten minutes. 404 without `MIZAN_OIDC_ISSUER`."""
    found = services(request)
    provider = _provider(request)
    begun = found.worker.run(lambda tx: openid_log_in.begin(tx, found.keyring, found.clock.now()))
    url = provider.authorization_url(state=begun.state, nonce=begun.nonce, verifier=begun.verifier)
    answer = RedirectResponse(url, 303, NO_STORE)
    # Lax, as the way back from the provider comes from another site
    answer.set_cookie(
        COOKIE,
        begun.browser,
        max_age=int(LIFETIME.total_seconds()),
        path="/v1/session/openid",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get(
    "/callback",
    operation_id="return_from_openid",
    summary="Come back from the provider",
    response_class=HTMLResponse,
    responses=_ERRORS,
)
def come_back(
    request: Request, state: Parameter = None, code: Parameter = None, iss: Parameter = None
) -> Response:
    """Where the provider sends the browser: a page that says it is done, or asks for the authenticator's code."""
    found = services(request)
    provider = _provider(request)
    browser = request.cookies.get(COOKIE, "")
    now = found.clock.now()
    try:
        # the state is used up before the code is: neither counts twice, whatever happens in between
        returned = found.worker.run(
            lambda tx: openid_log_in.take_back(tx, found.keyring, state or "", browser, now)
        )
        identity = provider.identify(
            code=code or "", issuer=iss, verifier=returned.verifier, nonce_digest=returned.nonce_digest
        )
        opened = found.worker.run(
            lambda tx: openid_log_in.recognise(
                tx,
                returned,
                identity,
                address=counted(request),
                now=now,
                lifetimes=lifetimes(found.settings),
                opened=lambda tx, made: noted(tx, request, made, "openid"),
            )
        )
    except NotProved as error:
        raise refusal(request, LogInRefused(None, error.reason), "session.opened") from error
    except LogInRefused as refused:
        raise refusal(request, refused, "session.opened") from refused
    if opened is None:
        return HTMLResponse(_ASK_FOR_CODE, headers=_PAGE)
    return _done(request, opened)


@router.post(
    "/completion",
    operation_id="complete_openid_log_in",
    summary="Give the authenticator's code",
    response_class=HTMLResponse,
    responses=errors(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                FORM: {
                    "schema": {
                        "type": "object",
                        "required": ["totp"],
                        "properties": {"totp": {"type": "string", "pattern": "^[0-9]{6}$"}},
                    },
                    "example": {"totp": "123456"},
                }
            },
        }
    },
)
def complete(request: Request) -> Response:
    """Complete a log-in that came back from the provider, in the same browser."""
    require_own_page(request)
    found = services(request)
    provider = _provider(request)
    try:
        opened = openid_log_in.complete(
            found.worker,
            found.keyring,
            provider.issuer,
            request.cookies.get(COOKIE, ""),
            _totp(request),
            address=counted(request),
            now=found.clock.now(),
            lifetimes=lifetimes(found.settings),
            opened=lambda tx, made: noted(tx, request, made, "openid"),
        )
    except LogInRefused as refused:
        raise refusal(request, refused, "session.opened") from refused
    return _done(request, opened)


def _provider(request: Request) -> Provider:
    provider = services(request).openid
    if provider is None:
        raise NotFound("No OpenID Connect provider is configured.")
    return provider


def _totp(request: Request) -> str:
    body: bytes = request.scope["state"]["body"]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        given = dict(parse_qsl(body.decode("ascii"), max_num_fields=2)) if kind == FORM else {}
    except ValueError:
        given = {}
    code = given.get("totp", "").strip()
    if len(code) != 6 or not (code.isascii() and code.isdecimal()):
        raise ProblemError(
            "invalid_request", "Send the six digits of the authenticator as the form field totp."
        )
    return code


def _done(request: Request, opened: Opened) -> Response:
    """A page and not a redirect: the session's cookie is Strict, and not sent along a way that another site began."""
    answer = HTMLResponse(_LOGGED_IN, headers=_PAGE)
    set_cookie(answer, opened, services(request).settings)
    answer.delete_cookie(COOKIE, path="/v1/session/openid", secure=True, httponly=True, samesite="lax")
    return answer


def _page(body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><title>Mizan</title></head>"
        f"<body><main>{body}</main></body></html>"
    )


_ASK_FOR_CODE: Final = _page(
    "<h1>One more step</h1><form method='post' action='completion'>"
    "<label for='totp'>The code that your authenticator shows now</label> "
    "<input id='totp' name='totp' inputmode='numeric' autocomplete='one-time-code' pattern='[0-9]{6}' required autofocus>"
    " <button>Log in</button></form>"
)
_LOGGED_IN: Final = _page("<h1>You are logged in</h1><p><a href='/console/'>Go on</a></p>")
