"""A partner's side of tokens: a key of its own, and JWTs put together by hand, so that every part of one can be wrong."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from api.auth import client_keys
from ledger.ids import new_id
from tests.http.served import Caller, Served, a_person

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"

_numbers: Iterator[int] = count(1)


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def told(token: str, part: int = 1) -> dict[str, Any]:
    """What a JWT says, unverified: its claims, or its header (0)."""
    segment = token.split(".")[part]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return value


@dataclass
class Key:
    """A P-256 key pair."""

    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    kid: str = field(default_factory=lambda: new_id().hex)

    @property
    def public_pem(self) -> bytes:
        """The public key, as a partner sends it."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_der(self) -> bytes:
        """The public key in DER."""
        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def private_pem(self) -> bytes:
        """The private key."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JWK."""
        numbers = self.private.public_key().public_numbers()
        x, y = b64(numbers.x.to_bytes(32, "big")), b64(numbers.y.to_bytes(32, "big"))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid}

    def signature(self, signed: str) -> bytes:
        """ES256: r and s, 32 bytes each."""
        r, s = decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def sign(self, header: dict[str, Any] | bytes, claims: Any) -> str:
        """A JWT of exactly this header and these claims; bytes go in as they are."""
        parts = [b64(one if isinstance(one, bytes) else json.dumps(one).encode()) for one in (header, claims)]
        return ".".join([*parts, b64(self.signature(".".join(parts)))])


@dataclass
class App:
    """A partner's app: its client with a registered key, asking for tokens for itself and for its members."""

    api: Served
    caller: Caller
    key: Key = field(default_factory=Key)

    def __post_init__(self) -> None:
        """Register the key."""
        self.register(self.key)

    def register(self, key: Key) -> None:
        """Register one more key, as `mizan client add-key` does."""
        with self.api.services.worker.begin() as tx:
            client_keys.add(tx, self.client_id, json.dumps(key.jwk), self.api.clock.now())

    @property
    def client_id(self) -> str:
        """The client's id."""
        return self.caller.client.client_id

    @property
    def issuer(self) -> str:
        """Whom tokens are meant for."""
        return self.api.services.tokens.issuer

    @property
    def second(self) -> int:
        """The present second."""
        return int(self.api.clock.now().timestamp())

    def assertion_claims(self, **changes: Any) -> dict[str, Any]:
        """What a good assertion says."""
        return {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": f"{self.issuer}/oauth/token",
            "iat": self.second,
            "exp": self.second + 60,
            "jti": new_id().hex,
        } | changes

    def subject_claims(self, member: str, **changes: Any) -> dict[str, Any]:
        """What a good subject token says."""
        return {
            "iss": self.client_id,
            "sub": member,
            "aud": self.issuer,
            "iat": self.second,
            "exp": self.second + 120,
            "auth_time": self.second - 600,
            "amr": ["pin", "hwk"],
            "jti": new_id().hex,
        } | changes

    def assertion(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A signed assertion."""
        base = {"alg": "ES256", "kid": self.key.kid, "typ": "JWT"}
        return self.key.sign(base | (header or {}), self.assertion_claims(**changes))

    def subject(self, member: str, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A signed subject token."""
        base = {"alg": "ES256", "kid": self.key.kid, "typ": "mizan-member+jwt"}
        return self.key.sign(base | (header or {}), self.subject_claims(member, **changes))

    def ask(self, assertion: str, /, **form: str) -> httpx.Response:
        """A request at the token endpoint, proved by an assertion."""
        sent = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE} | form
        return self.api.http.post("/oauth/token", data=sent | {"client_assertion": assertion})

    def exchange(self, subject_token: str, /, **form: str) -> httpx.Response:
        """A subject token in exchange for a member's, proved by the client's secret."""
        sent = {"grant_type": EXCHANGE, "subject_token_type": JWT, "subject_token": subject_token} | form
        auth = (self.client_id, self.caller.client.client_secret)
        return self.api.http.post("/oauth/token", data=sent, auth=auth)

    def registers(self) -> str:
        """One more member of the partner's: its ``mem_`` id."""
        self.caller.authenticate()
        answer = self.caller.post("/v1/members", a_person(next(_numbers)))
        assert answer.status_code == 201, answer.text
        member: str = answer.json()["id"]
        return member

    def member(self, member: str, **form: str) -> Caller:
        """A member who is logged in with this app, holding a token."""
        answer = self.exchange(self.subject(member), **form)
        assert answer.status_code == 200, answer.text
        return Caller(self.api.http, self.caller.client, None, answer.json()["access_token"])

    def revoke(self, token: str) -> httpx.Response:
        """Revoke a token."""
        auth = (self.client_id, self.caller.client.client_secret)
        return self.api.http.post("/oauth/revoke", data={"token": token}, auth=auth)
