"""OpenID Connect: the provider of operators who have one, and what it says about who came back from it.

Authorization code with PKCE (RFC 7636). What the provider signs is believed as far as it was asked for: its issuer, our
client as the audience, one of its published keys, an algorithm of a fixed list, the nonce of this log-in, and minted
just now. What goes over the network is bounded in time and size, follows no redirect, and happens outside transactions.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest
from threading import Lock
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import (  # type: ignore[import-untyped]  # authlib has no types
    prepare_grant_uri,
    prepare_token_request,
)
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from api.auth.operators import digest
from ledger.clock import Clock
from ledger.errors import MizanError, Unavailable

ALGORITHMS: Final = ("RS256", "PS256", "ES256")
"""Signatures that are taken, whatever the provider's metadata or a token's header say."""
SCOPE: Final = "openid email"
SECONDS_MAX: Final = 10.0
BYTES_MAX: Final = 512 * 1024
METADATA_SECONDS: Final = 3600.0
KEYS_SECONDS_MIN: Final = 60.0
"""Unknown key ids make us ask the provider this often at most."""
LEEWAY: Final = timedelta(minutes=2)
MINTED_WITHIN: Final = timedelta(minutes=10)


class ProviderUnavailable(Unavailable):
    """The provider does not answer, or not as OpenID Connect says."""


class NotProved(MizanError):
    """What came back does not prove anyone; `reason` is for the audit log."""

    code = "log_in_refused"

    def __init__(self, reason: str) -> None:
        super().__init__("The provider's answer proves nobody here.")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says came: its subject, the e-mail address it has verified, and whether it asked for a second factor."""

    issuer: str
    subject: str
    verified_email: str | None
    second_factor: bool


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the provider publishes about itself (OpenID Connect Discovery 1.0)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    says_issuer: bool


class Provider:
    """One OpenID provider, as its client."""

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        trusted_acr: frozenset[str],
        trusted_amr: frozenset[str],
        clock: Clock,
    ) -> None:
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._trusted_acr = trusted_acr
        self._trusted_amr = trusted_amr
        self._clock = clock
        self._lock = Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def authorization_url(self, *, state: str, nonce: str, verifier: str) -> str:
        """Where the browser is sent. Raises ProviderUnavailable."""
        url: str = prepare_grant_uri(
            self._known().authorization_endpoint,
            client_id=self._client_id,
            response_type="code",
            redirect_uri=self._redirect_uri,
            scope=SCOPE,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return url

    def identify(self, *, code: str, issuer: str | None, verifier: str, nonce_digest: bytes) -> Identity:
        """Exchange the code and check what comes for it. Raises NotProved, ProviderUnavailable."""
        if not code:
            raise NotProved("code")
        known = self._known()
        # RFC 9207: an answer mixed up with another provider's names that one
        if (issuer is None and known.says_issuer) or issuer not in (None, self.issuer):
            raise NotProved("issuer")
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self._redirect_uri, code_verifier=verifier
        )
        answer = self._fetch(
            "POST",
            known.token_endpoint,
            content=body,
            # encoded as a form before they are joined (RFC 6749 §2.3.1)
            auth=httpx.BasicAuth(quote_plus(self._client_id), quote_plus(self._client_secret)),
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise NotProved("code")
        return self._checked(token, nonce_digest)

    def _checked(self, token: str, nonce_digest: bytes) -> Identity:
        now = self._clock.now()
        claims = self._signed(token)
        try:
            CodeIDToken(
                claims,
                {},
                {
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self._client_id},
                },
                {"client_id": self._client_id},
            ).validate(int(now.timestamp()), int(LEEWAY.total_seconds()))
        except JoseError as error:
            raise NotProved(f"claims: {getattr(error, 'claim', None) or error.error}") from error
        nonce, issued_at, subject = claims.get("nonce"), claims["iat"], claims["sub"]
        if not isinstance(nonce, str) or not compare_digest(digest(nonce), nonce_digest):
            raise NotProved("nonce")
        if now - datetime.fromtimestamp(issued_at, now.tzinfo) > MINTED_WITHIN + LEEWAY:
            raise NotProved("claims: iat")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise NotProved("claims: sub")
        email = claims.get("email") if claims.get("email_verified") is True else None
        amr = claims.get("amr")
        return Identity(
            self.issuer,
            subject,
            email if isinstance(email, str) else None,
            claims.get("acr") in self._trusted_acr
            or bool(self._trusted_amr & {one for one in amr or () if isinstance(one, str)}),
        )

    def _signed(self, token: str) -> dict[str, Any]:
        """The claims, under one of the provider's keys; asked for again when the key is not among them."""
        for again in (False, True):
            keys = self._published(again=again)
            try:
                return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
            except (JoseError, ValueError) as error:
                failed = error
        raise NotProved("signature") from failed

    def _known(self) -> Metadata:
        with self._lock:
            cached = self._metadata
        if cached is not None and time.monotonic() - cached[0] < METADATA_SECONDS:
            return cached[1]
        told = self._fetch("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != self.issuer:
            raise ProviderUnavailable("The provider's metadata name another issuer than MIZAN_OIDC_ISSUER.")
        found = Metadata(
            self._endpoint(told, "authorization_endpoint"),
            self._endpoint(told, "token_endpoint"),
            self._endpoint(told, "jwks_uri"),
            told.get("authorization_response_iss_parameter_supported") is True,
        )
        with self._lock:
            self._metadata = (time.monotonic(), found)
        return found

    def _endpoint(self, told: Mapping[str, Any], name: str) -> str:
        """An address of the metadata, as well protected as the issuer's own."""
        address = told.get(name)
        if not isinstance(address, str) or urlsplit(address).scheme not in {
            "https",
            urlsplit(self.issuer).scheme,
        }:
            raise ProviderUnavailable(f"The provider's metadata have no {name} that can be used.")
        return address

    def _published(self, *, again: bool) -> KeySet:
        with self._lock:
            cached = self._keys
        age = time.monotonic() - cached[0] if cached is not None else METADATA_SECONDS
        if cached is not None and age < (KEYS_SECONDS_MIN if again else METADATA_SECONDS):
            return cached[1]
        try:
            keys = KeySet.import_key_set(self._fetch("GET", self._known().jwks_uri))  # type: ignore[arg-type]  # as fetched
        except (JoseError, KeyError, TypeError, ValueError) as error:
            raise ProviderUnavailable("The provider's keys can't be read.") from error
        with self._lock:
            self._keys = (time.monotonic(), keys)
        return keys

    def _fetch(
        self, method: str, url: str, *, content: str | None = None, auth: httpx.BasicAuth | None = None
    ) -> dict[str, Any]:
        """A JSON object of the provider's. Raises NotProved when it refuses (4xx), else ProviderUnavailable."""
        headers = {"Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            with (
                httpx.Client(timeout=SECONDS_MAX, follow_redirects=False, trust_env=False) as client,
                client.stream(method, url, content=content, auth=auth, headers=headers) as answer,
            ):
                body = b"".join(_bounded(answer))
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnavailable(f"The provider does not answer: {type(error).__name__}.") from error
        if method == "POST" and 400 <= status < 500:
            raise NotProved("code")
        try:
            read = json.loads(body) if status == 200 else None
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise ProviderUnavailable(f"The provider answers with {status}, and not as OpenID Connect says.")
        return read


def _bounded(answer: httpx.Response) -> Iterator[bytes]:
    """The body, as long as it keeps to the limits of size and time."""
    started, size = time.monotonic(), 0
    for chunk in answer.iter_bytes():
        size += len(chunk)
        if size > BYTES_MAX or time.monotonic() - started > SECONDS_MAX:
            raise ProviderUnavailable("The provider's answer is too long.")
        yield chunk
