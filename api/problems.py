"""Errors as the outside sees them: RFC 9457 problem documents with a stable code, and a page for every code.

`api.problem_catalogue` is published: the pages under ``/problems/``, ``docs/reference/problems.md`` and the OpenAPI
description all come from it. Services raise `ledger.errors.MizanError` subclasses and know nothing of HTTP; the handlers
here look their code up and render it.
"""

import html
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from api.problem_catalogue import CATALOGUE
from api.security_headers import CONTENT_SECURITY_POLICY, TEXT_PAGE_POLICY
from ledger.errors import MizanError

log = logging.getLogger("mizan.api")

MEDIA_TYPE: Final = "application/problem+json"
ERRORS_LISTED_MAX: Final = 20


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
        super().__init__(detail, code=code)
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
    414: "address_too_long",
    431: "headers_too_large",
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
    return _html(_page(kind.title, body))


def index_page() -> HTMLResponse:
    """All problems."""
    rows = "".join(
        f"<li><a href='/problems/{kind.code}'><code>{kind.code}</code></a> {html.escape(kind.title)}</li>"
        for kind in CATALOGUE.values()
    )
    return _html(_page("Problems", f"<ul>{rows}</ul>"))


def _html(page: str) -> HTMLResponse:
    return HTMLResponse(page, headers={CONTENT_SECURITY_POLICY: TEXT_PAGE_POLICY})


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


if __name__ == "__main__":
    sys.stdout.write(reference())
