"""The headers that keep a browser from doing with an answer what it was not meant for.

An answer of the API is data: nothing in it runs, frames, or is read by another site. A page says what it needs by its own
``Content-Security-Policy``; what an answer says itself is never replaced.
"""

from typing import Final

CONTENT_SECURITY_POLICY: Final = "Content-Security-Policy"

DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""What is no page loads nothing, and is shown in no frame."""
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self';"
    " manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""For our own pages: scripts and styles are files of ours, nothing is inline, and only we are talked to."""
TEXT_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For pages that are text with a little style in them, as the problems' are."""
_REFERENCE_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; worker-src blob:; connect-src 'self';"
    " style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; font-src https://fonts.gstatic.com;"
    " img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly; frame-ancestors 'none'; base-uri 'none'"
)

POLICIES: Final = {"/docs": _REFERENCE_POLICY, "/redoc": _REFERENCE_POLICY}
"""Pages that a library writes, by path: they can't say their own policy."""

HSTS_SECONDS: Final = 365 * 86_400
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    CONTENT_SECURITY_POLICY: DATA_POLICY,
}


def security_headers(*, https: bool) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that says nothing else, as ASGI wants them; `https`: the outside reaches us by it alone."""
    headers = dict(_ALWAYS)
    if https:
        headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
