"""Access tokens: JWTs by RFC 9068, signed with ES256. The only module that touches python-jose.

python-jose is used for the signature alone, behind a gate of our own: it would accept a token without ``exp``, any of
its algorithms that the caller forgets to forbid, and an unbounded header. So the grammar and length are judged before it
sees a token, the header is exactly ``alg``, ``kid`` and ``typ``, one P-256 key is chosen by ``kid``, and every claim is
required and of its exact type. Whatever goes wrong is the same 401.
"""

import base64
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from jose import jwk, jws
from jose.backends.base import Key

from api.auth.keys import SigningKeys
from integrations import strict_json
from ledger.clock import Clock
from ledger.errors import MizanError
from ledger.ids import new_id, public_id

ALGORITHMS: Final = ["ES256"]
TYPE: Final = "at+jwt"
LENGTH_MAX: Final = 4096
LIFETIME_MAX: Final = timedelta(minutes=15)
SKEW_SECONDS_MAX: Final = 30
"""How far the clock of the process that issued a token may run ahead of ours."""

# header.payload.signature, where ES256's signature is 64 bytes: 86 characters
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]{16,512}\.[A-Za-z0-9_-]{16,3488}\.[A-Za-z0-9_-]{86}", re.ASCII)


class InvalidToken(MizanError):
    """The token is not one that we issued, for us, and still alive. Says no more than that."""

    code = "unauthorised"
    status = 401


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says: who it speaks for (`subject`), through which client, until when, with which scopes."""

    subject: str
    client_id: str
    scopes: frozenset[str]
    issued_at: int
    expires_at: int
    token_id: str


class Tokens:
    """Issues and checks the access tokens of one deployment; `issuer` is its public URL, and its audience too."""

    def __init__(
        self, keys: SigningKeys, issuer: str, clock: Clock, lifetime: timedelta = LIFETIME_MAX
    ) -> None:
        if not timedelta(0) < lifetime <= LIFETIME_MAX:
            raise ValueError(f"a token lives at most {LIFETIME_MAX}")
        self._keys = keys
        self._clock = clock
        self.issuer = issuer
        self.audience = issuer
        self.lifetime = lifetime
        self._private: dict[str, Key] = {}
        self._public: dict[str, Key] = {}

    def issue(self, *, subject: str, client_id: str, scopes: frozenset[str]) -> str:
        """A signed token for `scopes`, alive from now for `lifetime`."""
        key = self._keys.signing()
        private = self._private.get(key.kid)
        if private is None:
            private = self._private[key.kid] = jwk.construct(key.pem, ALGORITHMS[0])
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": client_id,
            "iat": now,
            "exp": now + int(self.lifetime.total_seconds()),
            "jti": public_id("tok", new_id()),
            "scope": " ".join(sorted(scopes)),
        }
        return jws.sign(claims, private, headers={"kid": key.kid, "typ": TYPE}, algorithm=ALGORITHMS[0])

    def check(self, token: str) -> Claims:
        """The claims of a token. Raises `InvalidToken` for everything that is not a live token of ours."""
        try:
            return self._check(token)
        except InvalidToken:
            raise
        except Exception as error:  # a token is an attacker's text: no way of failing on it may become a 500
            raise InvalidToken("The token is not valid.") from error

    def _check(self, token: str) -> Claims:
        if len(token) > LENGTH_MAX or not _COMPACT.fullmatch(token):
            raise InvalidToken("The token is not a signed JWT.")
        header, payload, _ = token.split(".")
        public = self._key_of(_object(header))
        claims = _object(payload)
        jws.verify(token, public, ALGORITHMS)
        return self._judged(claims, self._clock.now())

    def _key_of(self, header: dict[str, Any]) -> Key:
        if set(header) != {"alg", "kid", "typ"} or header["alg"] not in ALGORITHMS or header["typ"] != TYPE:
            raise InvalidToken("The token is not an access token.")
        kid = header["kid"]
        published = self._keys.verifying(kid) if isinstance(kid, str) else None
        if published is None or published.jwk["crv"] != "P-256":
            raise InvalidToken("The token is signed with an unknown key.")
        public = self._public.get(published.kid)
        if public is None:
            public = self._public[published.kid] = jwk.construct(published.jwk, ALGORITHMS[0])
        return public

    def _judged(self, claims: dict[str, Any], now: datetime) -> Claims:
        subject, client_id, token_id, scope = (
            _text(claims, name) for name in ("sub", "client_id", "jti", "scope")
        )
        if _text(claims, "iss") != self.issuer or _text(claims, "aud") != self.audience:
            raise InvalidToken("The token is meant for another.")
        issued_at, expires_at = _seconds(claims, "iat"), _seconds(claims, "exp")
        second = int(now.timestamp())
        if second >= expires_at:
            raise InvalidToken("The token has expired.")
        if (
            issued_at > second + SKEW_SECONDS_MAX
            or not 0 < expires_at - issued_at <= LIFETIME_MAX.total_seconds()
        ):
            raise InvalidToken("The token's times are not possible.")
        return Claims(subject, client_id, frozenset(scope.split()), issued_at, expires_at, token_id)


def _object(segment: str) -> dict[str, Any]:
    padded = segment + "=" * (-len(segment) % 4)
    value = strict_json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    if not isinstance(value, dict):
        raise InvalidToken("The token is not a signed JWT.")
    return value


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"The token has no {name}.")
    return value


def _seconds(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int:  # a bool is an int to isinstance
        raise InvalidToken(f"The token has no {name}.")
    return value
