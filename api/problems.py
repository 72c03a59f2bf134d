"""Errors as the outside sees them: RFC 9457 problem documents with a stable code, and a page for every code.

The catalogue below is the published one: the pages under ``/problems/``, ``docs/reference/problems.md`` and the OpenAPI
description all come from it. Services raise `ledger.errors.MizanError` subclasses and know nothing of HTTP; the handlers
here look their code up and render it.
"""

import html
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from ledger.errors import MizanError

log = logging.getLogger("mizan.api")

MEDIA_TYPE: Final = "application/problem+json"
ERRORS_LISTED_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its stable code, HTTP status, title, what it means and what to do about it."""

    code: str
    status: int
    title: str
    meaning: str
    remedy: str


CATALOGUE: Final[Mapping[str, Kind]] = {
    kind.code: kind
    for kind in (
        # fmt: off
        Kind(
            "malformed_request",
            400,
            "The request cannot be read",
            "The body is not strict JSON in UTF-8 (duplicate keys, NaN, too deep, an unpaired surrogate), or the address or a header holds a NUL character.",
            "Send valid UTF-8 JSON with each key once and at most 32 levels, as `application/json`.",
        ),
        Kind(
            "invalid_request",
            422,
            "The request does not fit its schema",
            "A value is missing, unknown, of the wrong type or out of range; `errors` names each one by JSON pointer or parameter.",
            "Correct the values that `errors` points at and send the request again.",
        ),
        Kind(
            "invalid_cursor",
            400,
            "The cursor is not valid",
            "The cursor was changed, is older than 7 days, or belongs to another client, list or set of filters.",
            "Start the list again without a cursor.",
        ),
        Kind(
            "idempotency_key_required",
            400,
            "An Idempotency-Key is required",
            "Requests that move or promise money carry an `Idempotency-Key` header of 1 to 255 printable ASCII characters.",
            "Choose a random key for each operation and send it again, unchanged, with each retry.",
        ),
        Kind(
            "idempotency_key_in_use",
            409,
            "The first request with this key is still running",
            "Another request with the same Idempotency-Key is being processed now.",
            "Wait a second and retry with the same key: you will get the first one's answer.",
        ),
        Kind(
            "idempotency_key_reused",
            422,
            "The key was used for another request",
            "The Idempotency-Key has been used with another method, path or body.",
            "Use a new key for a new operation.",
        ),
        Kind(
            "unauthorised",
            401,
            "The token is missing or not valid",
            "There is no bearer token, or it is malformed, expired, signed with an unknown key or meant for someone else.",
            "Get a token at `POST /oauth/token`; it lives at most 15 minutes.",
        ),
        Kind(
            "insufficient_scope",
            403,
            "The token lacks the scope",
            "The token is valid but was not issued with the scope that this operation needs; `WWW-Authenticate` names it.",
            "Ask for the scope at `POST /oauth/token`, if your client has been granted it.",
        ),
        Kind(
            "not_found",
            404,
            "There is nothing here for you",
            "It does not exist, or it is not yours to see: the two are answered alike.",
            "Check the id, and that it was given to this client.",
        ),
        Kind(
            "method_not_allowed",
            405,
            "The method is not allowed here",
            "The address exists, but not with this method; `Allow` lists those it has.",
            "Use a method that the reference lists for the address.",
        ),
        Kind(
            "request_timeout",
            408,
            "The request took too long to arrive",
            "The body was not received in time.",
            "Send it again.",
        ),
        Kind(
            "conflict",
            409,
            "The request conflicts with what is there",
            "What the request would do contradicts the present state; `detail` says how.",
            "Read the present state, then decide.",
        ),
        Kind(
            "content_too_large",
            413,
            "The body is too large",
            "Bodies are limited to 256 KiB.",
            "Send less in one request.",
        ),
        Kind(
            "unsupported_media_type",
            415,
            "The media type is not supported",
            "The body has a `Content-Encoding`, or is not of a type that this address accepts.",
            "Send plain `application/json` (tokens: `application/x-www-form-urlencoded`).",
        ),
        Kind(
            "rate_limited",
            429,
            "Too many requests",
            "The client has used up its requests for this minute.",
            "Wait for as long as `Retry-After` says.",
        ),
        Kind(
            "internal_error",
            500,
            "Something failed on our side",
            "An error that we did not foresee; it has been recorded under the request id.",
            "Retry with the same Idempotency-Key; if it stays, tell us the `request_id`.",
        ),
        Kind(
            "unavailable",
            503,
            "Not available right now",
            "The database cannot be reached, is too busy, or a queue is full.",
            "Retry with the same Idempotency-Key after `Retry-After` seconds.",
        ),
        # the registry
        Kind(
            "member_exists",
            409,
            "The member is registered already",
            "You have registered this phone number or partner reference in the programme before; `member` is its id.",
            "Use the member that you have.",
        ),
        Kind(
            "invalid_phone",
            422,
            "The phone number is not valid",
            "It is not an international number in E.164 form that its country's plan allows.",
            "Send it as `+` and digits, as in `+971501234567`.",
        ),
        Kind(
            "unknown_fact",
            422,
            "The programme does not know the fact",
            "The programme's rules name the facts that they read; this is none of them, or its value is of another type.",
            "See the programme's facts at `GET /v1/programmes/{programme}`.",
        ),
        Kind(
            "not_eligible",
            422,
            "The member cannot join the product",
            "The product's conditions are not met by the member's facts as of today; `detail` says which.",
            "Add the missing fact with its evidence, or choose another product.",
        ),
        Kind(
            "invalid_choice",
            422,
            "The choice is not one the product offers",
            "The percentage, amount or option lies outside what the programme lets a member choose.",
            "See the product's choices at `GET /v1/programmes/{programme}`.",
        ),
        Kind(
            "already_enrolled",
            409,
            "The member is enrolled already",
            "The member has an active enrolment in this product.",
            "Use the enrolment that there is.",
        ),
        Kind(
            "mandate_in_force",
            409,
            "A mandate is in force",
            "The member's mandate given through you is still in force.",
            "Withdraw it before giving another.",
        ),
        Kind(
            "mandate_required",
            409,
            "There is no mandate in force",
            "Nothing is deducted without the member's mandate; it is absent, paused or withdrawn.",
            "Record the member's mandate at `POST /v1/members/{id}/consents`.",
        ),
        # remittances and quotes
        Kind(
            "remittance_conflict",
            409,
            "The remittance is known with other content",
            "The `remittance_id` has been used for a remittance with other content.",
            "A remittance id stands for one remittance for ever: use a new one, or reverse the first.",
        ),
        Kind(
            "remittance_refused",
            422,
            "The remittance cannot be taken",
            "It is well-formed, but impossible here: another currency than the programme's, a time too far off, more collected than received.",
            "Correct what `detail` names.",
        ),
        Kind(
            "already_reversed",
            409,
            "It has been reversed already",
            "A remittance or transaction is reversed at most once.",
            "Nothing is left to do.",
        ),
        Kind(
            "quote_refused",
            422,
            "The quote cannot be given",
            "The remittance could not be accepted as described: corridor, currency, mandate or enrolment.",
            "Correct what `detail` names.",
        ),
        Kind(
            "partner_limit",
            409,
            "The partner's limit is reached",
            "The partner has collected as much as its terms allow before it settles.",
            "Settle what is collected.",
        ),
        # the books
        Kind(
            "insufficient_funds",
            409,
            "There is not enough available",
            "The account's available balance would fall below its floor.",
            "Wait for funds to settle, or ask for less.",
        ),
        Kind(
            "ceiling_exceeded",
            409,
            "The account's ceiling is reached",
            "The account's balance would rise above its ceiling.",
            "Settle first, or ask for less.",
        ),
        Kind(
            "account_closed",
            409,
            "The account is closed",
            "A closed account takes no more postings.",
            "Use the account that replaced it.",
        ),
        Kind(
            "period_closed",
            409,
            "The period is closed",
            "The books of the date are closed.",
            "Use a date in an open period.",
        ),
        Kind(
            "not_yet_available",
            409,
            "It is not available yet",
            "The moment asked for lies ahead of what has settled.",
            "Ask for an earlier time, or retry in a few seconds.",
        ),
        # fmt: on
    )
}


class ProblemError(MizanError):
    """An error raised by the HTTP layer itself, with a code of the catalogue."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(code, detail)
        self.headers = dict(headers or {})
        self.members = members


class ErrorItem(BaseModel):
    """One value that is wrong, by JSON pointer into the body or by parameter name."""

    model_config = ConfigDict(extra="forbid")
    pointer: str | None = Field(default=None, description="JSON pointer (RFC 6901) into the body")
    parameter: str | None = Field(default=None, description="name of the path, query or header parameter")
    detail: str


class ProblemDocument(BaseModel):
    """A problem (RFC 9457)."""

    type: str = Field(description="a page about this kind of problem", examples=["/problems/not_found"])
    title: str
    status: int
    detail: str
    code: str = Field(description="stable; the catalogue lists them all", examples=["not_found"])
    request_id: str
    errors: list[ErrorItem] | None = None


def render(
    code: str,
    detail: str,
    request_id: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> Response:
    """The response for a problem. ASCII only, so that no text whatever can fail to be sent."""
    kind = CATALOGUE[code]
    document: dict[str, Any] = {
        "type": f"/problems/{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": kind.code,
        "request_id": request_id,
        **(members or {}),
    }
    if errors:
        document["errors"] = list(errors)
    return Response(json.dumps(document).encode("ascii"), kind.status, dict(headers or {}), MEDIA_TYPE)


def request_id(request: Request) -> str:
    """The id of the request, as the edge gave it (`api.middleware`)."""
    found: str = request.scope.get("state", {}).get("request_id", "")
    return found


def add_problems(app: FastAPI) -> None:
    """Install the handlers and the pages."""
    app.add_exception_handler(MizanError, _mizan_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_api_route(
        "/problems",
        index_page,
        include_in_schema=False,
        response_class=HTMLResponse,
    )
    app.add_api_route("/problems/{code}", problem_page, include_in_schema=False, response_class=HTMLResponse)


async def _mizan_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, MizanError):
        raise TypeError(f"{type(error)} is handled elsewhere")
    code = error.code
    if code not in CATALOGUE:
        # a code that was never published is our fault, not the caller's
        log.error("problem code %r is not in the catalogue: %s", code, error.detail, exc_info=error)
        return render("internal_error", "An error that we did not foresee.", request_id(request))
    if CATALOGUE[code].status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s: %s", code, error.detail, exc_info=error)
    pointer = error.pointer
    errors = [{"pointer": pointer, "detail": error.detail}] if pointer else []
    headers = error.headers if isinstance(error, ProblemError) else {}
    members = error.members if isinstance(error, ProblemError) else {}
    return render(code, error.detail, request_id(request), errors=errors, headers=headers, members=members)


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"{type(error)} is handled elsewhere")
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        reason = str(found[0].get("ctx", {}).get("error", "not JSON"))
        return render("malformed_request", f"The body is not strict JSON: {reason}.", request_id(request))
    items = [_item(entry) for entry in found[:ERRORS_LISTED_MAX]]
    counted = "One value is" if len(found) == 1 else f"{len(found)} values are"
    return render("invalid_request", f"{counted} not as the schema says.", request_id(request), errors=items)


def _item(entry: Mapping[str, Any]) -> dict[str, str]:
    place, *path = entry["loc"]
    detail = str(entry["msg"])
    if place == "body":
        return {"pointer": pointer(path), "detail": detail}
    return {"parameter": ".".join(str(part) for part in path), "detail": detail}


def pointer(path: Sequence[object]) -> str:
    """The JSON pointer (RFC 6901) of a path of keys and positions."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


_BY_STATUS: Final = {
    400: "malformed_request",
    401: "unauthorised",
    403: "insufficient_scope",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "content_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
    503: "unavailable",
}


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError(f"{type(error)} is handled elsewhere")
    code = _BY_STATUS.get(error.status_code, "internal_error")
    if code == "internal_error":
        log.error("status %s has no problem code", error.status_code, exc_info=error)
    return render(code, CATALOGUE[code].meaning, request_id(request), headers=error.headers)


def problem_page(code: str) -> HTMLResponse:
    """The page that a problem's `type` leads to."""
    kind = CATALOGUE.get(code)
    if kind is None:
        raise ProblemError("not_found", "There is no problem of this code.")
    body = (
        f"<p><code>{kind.code}</code> · HTTP {kind.status}</p><p>{_inline(kind.meaning)}</p>"
        f"<h2>What to do</h2><p>{_inline(kind.remedy)}</p><p><a href='/problems'>All problems</a></p>"
    )
    return HTMLResponse(_page(kind.title, body))


def index_page() -> HTMLResponse:
    """All problems."""
    rows = "".join(
        f"<li><a href='/problems/{kind.code}'><code>{kind.code}</code></a> {html.escape(kind.title)}</li>"
        for kind in CATALOGUE.values()
    )
    return HTMLResponse(_page("Problems", f"<ul>{rows}</ul>"))


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)} · Mizan</title></head>"
        f"<body style='font:1rem/1.5 system-ui;max-width:40rem;margin:2rem auto;padding:0 1rem'>"
        f"<h1>{html.escape(title)}</h1>{body}</body></html>"
    )


def _inline(text: str) -> str:
    """Escaped, with `code` as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def reference() -> str:
    """The catalogue as the Markdown page ``docs/reference/problems.md``."""
    lines = [
        "# Problems",
        "",
        "Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) documents of media type `application/problem+json`.",
        "`code` is stable: programs decide by it, people read `detail`. This page is generated from `api/problems.py`.",
        "",
    ]
    for kind in CATALOGUE.values():
        lines += [
            f"## `{kind.code}`",
            "",
            f"**{kind.status} · {kind.title}.** {kind.meaning}",
            "",
            f"*What to do:* {kind.remedy}",
            "",
        ]
    return "\n".join(lines)
