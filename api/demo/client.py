"""A partner's client of the API: plain HTTP, as a partner's engineer would write it."""

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from api.auth.clients import NewClient
from ledger.errors import Unavailable
from ledger.ids import new_id

ANSWER_SECONDS_MAX: Final = 30
PAGE: Final = 200


class Client:
    """Proves itself once, then reads and writes. Anything but success raises `Unavailable`."""

    def __init__(self, url: str, client: NewClient) -> None:
        self._at = urlsplit(url)
        proof = base64.b64encode(f"{client.client_id}:{client.client_secret}".encode()).decode()
        answer = self._ask(
            "POST",
            "/oauth/token",
            {"authorization": f"Basic {proof}", "content-type": "application/x-www-form-urlencoded"},
            urlencode({"grant_type": "client_credentials"}),
        )
        self._headers = {"authorization": f"Bearer {answer['access_token']}"}

    def get(self, path: str) -> Any:  # JSON of any shape
        """What stands at a path."""
        return self._ask("GET", path, self._headers, None)

    def read(self, path: str) -> bytes:
        """A file at a path, as it is."""
        return self._raw("GET", path, self._headers, None)

    def pages(self, path: str) -> list[Any]:
        """All of a list, page by page."""
        listed: list[Any] = []
        cursor: str | None = None
        while True:
            query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor is not None else {})
            page = self.get(f"{path}{'&' if '?' in path else '?'}{urlencode(query)}")
            listed += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return listed

    def post(self, path: str, body: Mapping[str, object]) -> Any:  # JSON of any shape
        """Send something, under an Idempotency-Key of its own."""
        return self._send("POST", path, body)

    def put(self, path: str, body: Mapping[str, object]) -> Any:  # JSON of any shape
        """Say what shall stand at a path."""
        return self._send("PUT", path, body)

    def upload(self, path: str, content: bytes) -> Any:  # JSON of any shape
        """Send a file."""
        headers = {**self._headers, "content-type": "application/octet-stream"}
        return self._ask("POST", path, headers, content)

    def _send(self, method: str, path: str, body: Mapping[str, object]) -> Any:
        headers = {**self._headers, "content-type": "application/json", "idempotency-key": new_id().hex}
        return self._ask(method, path, headers, json.dumps(body))

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: str | bytes | None) -> Any:
        return json.loads(self._raw(method, path, headers, body))

    def _raw(self, method: str, path: str, headers: Mapping[str, str], body: str | bytes | None) -> bytes:
        connection = http.client.HTTPConnection(
            self._at.hostname or "", self._at.port, timeout=ANSWER_SECONDS_MAX
        )
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
            raise Unavailable(
                f"{method} {path} was answered {response.status}: {raw[:300].decode('utf-8', 'replace')}"
            )
        return raw
