"""The page that a one-time link leads to. It talks to `/v1/set-up` alone; the token stays in the browser."""

from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from api.security_headers import CONTENT_SECURITY_POLICY, PAGE_POLICY

router = APIRouter(include_in_schema=False)

_HEADERS: Final = {CONTENT_SECURITY_POLICY: PAGE_POLICY, "Cache-Control": "no-cache"}


@router.get("/set-up")
def page() -> Response:
    """The page."""
    return Response(_file("set-up.html"), headers=_HEADERS, media_type="text/html; charset=utf-8")


@router.get("/set-up.js")
def script() -> Response:
    """Its script."""
    return Response(_file("set-up.js"), headers=_HEADERS, media_type="text/javascript; charset=utf-8")


@cache
def _file(name: str) -> bytes:
    return files("api").joinpath("pages", name).read_bytes()
