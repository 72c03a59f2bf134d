"""Files that are uploaded as they are: which routes take them, how they say so, and where their bytes are.

They are larger than any other body (`Settings.upload_bytes_max`), so the edge knows their addresses before it reads. The largest,
banks' statements (`Settings.statement_bytes_max`), are written to disk while they arrive and read from there.
"""

from typing import Any, BinaryIO, Final

from api.deps import Call
from ledger.errors import InvalidInput

PAYMENT_ANSWERS: Final = "/v1/payment-answers"
REMITTAL_ANSWERS: Final = "/v1/remittal-answers"
SETTLEMENT_FILES: Final = "/v1/settlement-files"
BANK_STATEMENTS: Final = "/v1/bank-statements"
OPENING_LOADS: Final = "/v1/opening-loads"
PATHS: Final = frozenset({PAYMENT_ANSWERS, SETTLEMENT_FILES, REMITTAL_ANSWERS, OPENING_LOADS})
"""Addresses at which a file may be posted; anywhere else a body has the ordinary limit."""
SPOOLED: Final = frozenset({BANK_STATEMENTS})
"""Addresses at which it is written to disk while it arrives."""


def spooled(call: Call) -> BinaryIO:
    """The file that was posted, on disk, from its beginning. Raises InvalidInput when there is none."""
    file: BinaryIO = call.request.scope["state"]["upload"]
    file.seek(0)
    if not file.read(1):
        raise InvalidInput("Send the file as the request's body.")
    file.seek(0)
    return file


def content(call: Call) -> bytes:
    """The file that was posted. Raises InvalidInput when there is none."""
    body: bytes = call.request.scope["state"]["body"]
    if not body:
        raise InvalidInput("Send the file as the request's body.")
    return body


def described(media_type: str, what: str) -> dict[str, Any]:
    """For a route's `openapi_extra`: its body is a file."""
    schema = {"type": "string", "format": "binary", "minLength": 1}
    return {
        "requestBody": {
            "description": what,
            "required": True,
            "content": {media_type: {"schema": schema}},
        }
    }
