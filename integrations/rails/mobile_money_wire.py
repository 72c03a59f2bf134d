"""HTTP to a GSMA Mobile Money API: one connection pool, bounded answers, and the line between *never left* and *may be there*."""

import hashlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path
from typing import Final

import httpx

from integrations.strict_json import NotStrictJson, loads
from ledger.clock import Clock

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_ERROR_NAME_CHARACTERS_MAX: Final = 64


class NotSent(Exception):
    """No connection was made: the provider has certainly not seen the request. Its text is a code."""


class Unclear(Exception):
    """The request left, and what came back, if anything, doesn't say what became of it. Its text is a code."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider answered: `body` the JSON in it, None where there is none that can be read."""

    status: int
    headers: Mapping[str, str]
    body: object


@dataclass(frozen=True, slots=True)
class Trust:
    """TLS: the authorities that the provider's certificate is checked against (None: the machine's), and our own certificate for
    mutual TLS, with its key in the same file or in one of its own. Files in PEM."""

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A TLS 1.2+ client context. Raises OSError and `ssl.SSLError` for files that aren't there or don't fit."""
        context = ssl.create_default_context(cafile=self.authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Wire:
    """Requests to one provider. Thread-safe. Redirects aren't followed and proxies of the environment not used: whoever can name
    another address would be paid there."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str,
        client_id: str,
        clock: Clock,
        trust: Trust,
        connections_max: int,
        timeout_seconds: float,
    ) -> None:
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._base_url = f"{base_url.rstrip('/')}/"
        self._http = httpx.Client(
            headers={
                "accept": "application/json",
                "accept-charset": "utf-8",
                "accept-encoding": "identity",
                "user-agent": "mizan",
                "x-api-key": api_key,
                "x-client-id": client_id,
            },
            verify=trust.context(),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=connections_max,
                max_keepalive_connections=connections_max,
                keepalive_expiry=15,
            ),
        )

    def get(
        self, path: str, parameters: Mapping[str, str] | None = None, *, seconds_max: float | None = None
    ) -> Answer:
        """Ask, within the time-out or less. Raises `NotSent`, `Unclear`."""
        return self._call("GET", path, parameters=parameters, seconds_max=seconds_max)

    def post(self, path: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a JSON body with its hash. Raises `NotSent`, `Unclear`."""
        own = {"content-type": "application/json", "x-content-hash": hashlib.sha256(content).hexdigest()}
        return self._call("POST", path, content=content, headers={**own, **headers})

    def close(self) -> None:
        """Give back connections."""
        self._http.close()

    def _call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds_max: float | None = None,
    ) -> Answer:
        seconds = self._timeout_seconds if seconds_max is None else min(seconds_max, self._timeout_seconds)
        request = self._http.build_request(
            method,
            self._base_url + path,
            params=parameters,
            content=content,
            headers={**(headers or {}), "x-date": format_datetime(self._clock.now(), usegmt=True)},
            timeout=seconds,
        )
        ends_at = time.monotonic() + seconds
        try:
            answer = self._http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(_name(error)) from error
        except httpx.HTTPError as error:
            raise Unclear(_name(error)) from error
        try:
            body = _read(answer, ends_at)
        except httpx.HTTPError as error:
            raise Unclear(_name(error)) from error
        finally:
            answer.close()
        return Answer(answer.status_code, answer.headers, _json(answer, body))


def content_hash_fits(sent: str | None, body: bytes) -> bool:
    """Whether ``X-Content-Hash``, where it was sent at all, is the body's SHA-256 in hex."""
    return sent is None or sent.strip().lower() == hashlib.sha256(body).hexdigest()


def _read(answer: httpx.Response, ends_at: float) -> bytes:
    """The body, while it comes in time and within bounds: a time-out of httpx ends only a silence, not a trickle."""
    parts, size = [], 0
    for part in answer.iter_raw():
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise Unclear("answer_too_long")
        if time.monotonic() > ends_at:
            raise Unclear("answer_too_slow")
    return b"".join(parts)


def _json(answer: httpx.Response, body: bytes) -> object:
    """The JSON of an answer; of a success it must be readable and whole, of anything else it may be missing."""
    wrong = "answer_hash_differs"
    if content_hash_fits(answer.headers.get("x-content-hash"), body):
        try:
            value: object = loads(body)
        except NotStrictJson:
            wrong = "answer_unreadable"
        else:
            return value
    if answer.is_success:
        raise Unclear(wrong)
    return None


def _name(error: httpx.HTTPError) -> str:
    return type(error).__name__[:_ERROR_NAME_CHARACTERS_MAX]
