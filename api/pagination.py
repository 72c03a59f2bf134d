"""Lists, page by page: one shape, one kind of cursor.

A cursor carries the position after the last item shown and the time it dies, signed together with what it belongs to:
the route, the client and the filters. Sent elsewhere, changed or too old, it is a 400 `invalid_cursor`.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from fastapi import Query

from api.problems import ProblemError
from ledger.clock import Clock
from products.keyring import Keyring

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
CURSOR_CHARACTERS_MAX: Final = 1024
LIFETIME: Final = timedelta(days=7)
_MAC_BYTES: Final = 16

Position = list[int | str]
"""Where a list goes on: integers and texts that only the list's own query understands."""

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="items on a page at most")]
CursorText = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=CURSOR_CHARACTERS_MAX,
        description="`next_cursor` of the page before; lives 7 days",
    ),
]


class Cursors:
    """Writes and reads the cursors of one deployment."""

    def __init__(self, keyring: Keyring, clock: Clock, lifetime: timedelta = LIFETIME) -> None:
        self._key = keyring.derive("list cursor")
        # While the master key is rotated, processes on either side read each other's cursors.
        self._other_keys = keyring.derived_before("list cursor")
        self._clock = clock
        self._lifetime = lifetime

    def write(
        self, position: Position | None, *, route: str, client: str, filters: Mapping[str, object]
    ) -> str | None:
        """The cursor for the page after `position`; None when there is none."""
        if position is None:
            return None
        dies = int((self._clock.now() + self._lifetime).timestamp())
        payload = json.dumps([dies, *position], separators=(",", ":")).encode()
        signed = _mac(self._key, payload, route, client, filters) + payload
        return _encoded(signed)

    def read(
        self, cursor: str | None, *, route: str, client: str, filters: Mapping[str, object]
    ) -> Position | None:
        """The position that a cursor carries; None without one. Raises the problem `invalid_cursor`."""
        if cursor is None:
            return None
        try:
            signed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _invalid() from None
        if _encoded(signed) != cursor:
            raise _invalid()  # one spelling alone: base64 has several of the same bytes
        mac, payload = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        keys = (self._key, *self._other_keys)
        if not any(hmac.compare_digest(mac, _mac(key, payload, route, client, filters)) for key in keys):
            raise _invalid()
        dies, *position = json.loads(payload)
        if self._clock.now().timestamp() >= dies:
            raise _invalid()
        return list(position)


def _mac(key: bytes, payload: bytes, route: str, client: str, filters: Mapping[str, object]) -> bytes:
    bound = json.dumps([route, client, dict(filters)], sort_keys=True, default=str).encode()
    # the length keeps a byte from moving between what is bound and what is carried
    message = len(bound).to_bytes(8, "big") + bound + payload
    return hmac.digest(key, message, hashlib.sha256)[:_MAC_BYTES]


def _encoded(signed: bytes) -> str:
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


def _invalid() -> ProblemError:
    return ProblemError(
        "invalid_cursor", "The cursor is not one of this list, for this client and these filters."
    )
