"""A partner's server: its own token, members' tokens, and what the API answers to either. HTTP alone."""

import base64
import json
import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

CREDENTIALS_FILE: Final = "app-page.json"
SECONDS_MAX: Final = 10.0
MEMBERS_SCOPES: Final = "members:read balances:read programmes:read"
"""What the page needs to see of a member, and so all that it asks for."""
_TOKENS_MAX: Final = 1_000
_EARLY_SECONDS: Final = 30
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"  # a type's name


class ApiRefused(Exception):
    """The API answered with a problem: its status and code; status 0: it did not answer."""

    def __init__(self, status: int, code: str, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.answer = answer or {}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a partner proves itself with: its client's id, and a key that is registered under `kid`."""

    client_id: str
    kid: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, path: Path) -> "Credentials | None":
        """Those in a file; None when there are none."""
        try:
            told = json.loads(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        key = load_pem_private_key(told["private_key"].encode(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{path} holds no P-256 key")
        return cls(told["client_id"], told["kid"], key)

    def save(self, path: Path) -> None:
        """Keep them in a file that only we read; whoever reads it meanwhile finds the old one or the new one whole."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        told = {"client_id": self.client_id, "kid": self.kid, "private_key": pem}
        partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(told, file)
        partial.replace(path)

    def signed(self, kind: str, claims: Mapping[str, Any]) -> str:
        """A JWT of ours (ES256), good for one minute and once."""
        now = int(time.time())
        header = {"typ": kind, "alg": "ES256", "kid": self.kid}
        whole = {
            "iss": self.client_id,
            "iat": now,
            "exp": now + 60,
            "jti": secrets.token_urlsafe(16),
            **claims,
        }
        text = ".".join(_b64(json.dumps(part).encode()) for part in (header, whole))
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Partner:
    """The API as the partner and its members see it. May be used from several threads."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._issuer = url.rstrip("/")
        self._credentials = credentials
        self._http = httpx.Client(base_url=self._issuer, timeout=SECONDS_MAX, trust_env=False)
        self._tokens: dict[str | None, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def get(self, path: str, *, member: str | None = None, **params: str) -> Any:
        """What a GET answers: with the member's token, or with our own. Raises `ApiRefused`."""
        return self._call("GET", path, member, params=params)

    def post(self, path: str, body: object, *, key: str | None = None) -> Any:
        """What a POST of ours answers, under an Idempotency-Key where one is due. Raises `ApiRefused`."""
        return self._call("POST", path, None, json=body, headers={"Idempotency-Key": key} if key else {})

    def seal_keys(self) -> dict[str, bytes]:
        """The public keys that ever sealed the books. Raises `ApiRefused`."""
        published = self._answer("GET", "/.well-known/mizan-seals", params={"after": str(2**62)})
        return {key_id: bytes.fromhex(key) for key_id, key in published["keys"].items()}

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _call(self, method: str, path: str, member: str | None, **more: Any) -> Any:
        """With the token that we have; with a new one when that was revoked meanwhile."""
        given = more.pop("headers", {})
        for fresh in (False, True):
            headers = given | {"Authorization": f"Bearer {self._token(member, fresh=fresh)}"}
            try:
                return self._answer(method, path, headers=headers, **more)
            except ApiRefused as refused:
                if fresh or refused.status != httpx.codes.UNAUTHORIZED:
                    raise
        raise AssertionError("the second try answers or raises")

    def _token(self, member: str | None, *, fresh: bool) -> str:
        with self._lock:
            token, until = self._tokens.get(member, ("", 0.0))
        if token and not fresh and time.monotonic() < until:
            return token
        answer = self._answer("POST", "/oauth/token", data=self._form(member))
        with self._lock:
            if len(self._tokens) >= _TOKENS_MAX:
                self._tokens.clear()
            until = time.monotonic() + answer["expires_in"] - _EARLY_SECONDS
            self._tokens[member] = (answer["access_token"], until)
        return str(answer["access_token"])

    def _form(self, member: str | None) -> dict[str, str]:
        ours = self._credentials
        form = {
            "client_assertion_type": _ASSERTION,
            "client_assertion": ours.signed("JWT", {"sub": ours.client_id, "aud": self._issuer}),
        }
        if member is None:
            return form | {"grant_type": "client_credentials"}
        # A real app says when and how this person logged in; here, whoever opens the page is believed.
        login = {"sub": member, "aud": self._issuer, "auth_time": int(time.time()), "amr": ["pin"]}
        return form | {
            "grant_type": _EXCHANGE,
            "subject_token_type": _JWT,
            "subject_token": ours.signed("mizan-member+jwt", login),
            "scope": MEMBERS_SCOPES,
        }

    def _answer(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._http.request(method, path, **more)
            body = answer.json() if answer.content else {}
        except (httpx.HTTPError, ValueError):
            raise ApiRefused(0, "no_answer") from None
        if answer.is_error:
            raise ApiRefused(answer.status_code, str(body.get("code", body.get("error", ""))), body)
        return body
