"""An OpenID provider on loopback HTTP with keys of its own: honest, and strict about PKCE, unless a test tells it to lie."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from ledger.clock import Clock

CLIENT_ID = "mizan"
CLIENT_SECRET = "the provider's own secret, with a : in it"


@dataclass
class Provider:
    """The provider's state, and what it lies about."""

    clock: Clock
    issuer: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, auto_kid=True))
    published: list[Any] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    signing: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def log_in(self, url: str, **about: Any) -> dict[str, str]:
        """A person logs in there; the parameters with which the browser is sent back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert asked["client_id"] == CLIENT_ID
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        self.claims = {"sub": "s-1", "email": "keza@fund.example", "email_verified": True} | about
        return {"code": code, "state": asked["state"], "iss": self.issuer}

    def exchange(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The answer of the token endpoint; None refuses."""
        asked = self.codes.pop(form.get("code", ""), None)
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        challenge = _base64url(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        for wrong, what in [
            (asked is None, "code"),
            ((unquote_plus(client), unquote_plus(secret)) != (CLIENT_ID, CLIENT_SECRET), "client"),
            (asked is not None and asked["code_challenge"] != challenge, "verifier"),
            (asked is not None and asked["redirect_uri"] != form.get("redirect_uri"), "redirect_uri"),
        ]:
            if wrong:
                self.refusals.append(what)
                return None
        assert asked is not None
        return {"access_token": "unused", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}

    def id_token(self, nonce: str) -> str:
        """A token for a log-in, with what the test told us to say."""
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "nonce": nonce,
            "iat": now,
            "exp": now + 300,
        } | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "RS256", "kid": self.key.kid} | self.header
        if header["alg"] in ("none", "HS256"):  # which no library would sign so
            signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
            mac = b"" if header["alg"] == "none" else hmac.digest(self.signing, signed.encode(), "sha256")
            return f"{signed}.{_base64url(mac)}"
        return jwt.encode(header, claims, self.signing or self.key, algorithms=[header["alg"]])


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def provider(clock: Clock) -> Iterator[Provider]:
    """A provider that serves until the block ends."""
    made = Provider(clock)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/.well-known/openid-configuration":
                self._answer(
                    {
                        "issuer": made.issuer,
                        "authorization_endpoint": f"{made.issuer}/authorize?tenant=fund",
                        "token_endpoint": f"{made.issuer}/token",
                        "jwks_uri": f"{made.issuer}/jwks",
                        "authorization_response_iss_parameter_supported": True,
                    }
                    | made.metadata
                )
            else:
                self._answer(dict(KeySet([made.key, *made.published]).as_dict(private=False)))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            answer = made.exchange(form, self.headers["Authorization"])
            self._answer(answer or {"error": "invalid_grant"}, 200 if answer else 400)

        def _answer(self, value: dict[str, Any], status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that it overrides
            """Nothing: tests say what went wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.issuer = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(10)
