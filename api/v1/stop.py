"""The page behind the link in a notice: the old contact stops a change, without any partner's help."""

from html import escape
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import HTMLResponse

from api.deps import services
from api.security_headers import CONTENT_SECURITY_POLICY
from api.v1.schemas import ROUTE_CLASS, problem
from ledger.errors import NotFound
from products.members import waiting

router = APIRouter(tags=["member's proof"], route_class=ROUTE_CLASS)

Secret = Annotated[
    str,
    Path(pattern=r"^[A-Za-z2-7]{24}$", description="what the notice's link ends with", examples=["a" * 24]),
]

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<title>Mizan</title><body><main><h1>Mizan</h1><p>{text}</p>{form}</main>"""
_FORM: Final = '<form method="post"><button type="submit">{label}</button></form>'
_HEADERS: Final = {
    CONTENT_SECURITY_POLICY: "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
}


@router.get(
    "/stop/{secret}",
    operation_id="show_stop_page",
    summary="The page of a notice's link",
    response_class=HTMLResponse,
    responses={422: problem("Not what a notice's link ends with.")},
)
def show_stop_page(secret: Secret) -> HTMLResponse:  # noqa: ARG001  looked at when the button is pressed
    """A page with one button. It looks nothing up, and opening it changes nothing: phones open links by themselves."""
    return _page(
        "Was it not you who asked for a change to your account? Then stop it here.",
        _FORM.format(label="Stop it"),
    )


@router.post(
    "/stop/{secret}",
    operation_id="stop_change",
    summary="Stop a change by a notice's link",
    response_class=HTMLResponse,
    responses={
        404: {"description": "There is nothing to stop.", "content": {"text/html": {}}},
        422: problem("Not what a notice's link ends with."),
    },
)
def stop_change(secret: Secret, request: Request) -> HTMLResponse:
    """Stop the change that the notice told of, while it waits."""
    found = services(request)
    try:
        with found.api.begin() as tx:
            kind = waiting.stop(tx, found.keyring, secret, found.clock.now())
    except NotFound:
        return _page("There is nothing to stop here: it was stopped before, or it is in effect.", status=404)
    return _page(f"Stopped: the new {kind} will not take effect.")


def _page(text: str, form: str = "", *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(text=escape(text), form=form), status, _HEADERS)
