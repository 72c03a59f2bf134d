"""A client of the API: plain HTTP, as a partner's engineer would write it."""

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
_DONE: Final = (http.HTTPStatus.OK, http.HTTPStatus.CREATED, http.HTTPStatus.ACCEPTED)


class Client:
    """Reads and writes under headers that say who it is. Anything but success raises `Unavailable`, except in `answer`."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = urlsplit(url), dict(headers)

    @classmethod
    def of(cls, url: str, client: NewClient) -> "Client":
        """A client that proves itself once, by OAuth 2 client credentials."""
        proof = base64.b64encode(f"{client.client_id}:{client.client_secret}".encode()).decode()
        headers = {"authorization": f"Basic {proof}", "content-type": "application/x-www-form-urlencoded"}
        granted = cls(url, headers)._ask(
            "POST", "/oauth/token", headers, urlencode({"grant_type": "client_credentials"})
        )
        return cls(url, {"authorization": f"Bearer {granted['access_token']}"})

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

    def answer(self, method: str, path: str, body: Mapping[str, object]) -> tuple[int, bytes]:
        """What is answered to JSON, whatever it is: the status and the body."""
        return self._asked(method, path, self._json(), json.dumps(body))

    def _json(self) -> dict[str, str]:
        return {**self._headers, "content-type": "application/json", "idempotency-key": new_id().hex}

    def _send(self, method: str, path: str, body: Mapping[str, object]) -> Any:
        return self._ask(method, path, self._json(), json.dumps(body))

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: str | bytes | None) -> Any:
        return json.loads(self._raw(method, path, headers, body))

    def _raw(self, method: str, path: str, headers: Mapping[str, str], body: str | bytes | None) -> bytes:
        status, raw = self._asked(method, path, headers, body)
        if status not in _DONE:
            raise Unavailable(
                f"{method} {path} was answered {status}: {raw[:300].decode('utf-8', 'replace')}"
            )
        return raw

    def _asked(
        self, method: str, path: str, headers: Mapping[str, str], body: str | bytes | None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(
            self._url.hostname or "", self._url.port, timeout=ANSWER_SECONDS_MAX
        )
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
