"""JWTs, ours and our clients': one gate for access tokens (RFC 9068), client assertions and subject tokens.

The only module that touches python-jose, and for the signature alone: it would accept a token without ``exp``, any of its
algorithms that the caller forgets to forbid, and a header nested until the stack ends. So a JWT passes, in this order:
its length and grammar, each segment in the one spelling that base64url has for it; a header of exactly ``alg``, ``kid``
and ``typ``, ``alg`` being ES256 and ``typ`` one that belongs here; claims in strict JSON; one P-256 key chosen by
``kid``; the signature; and each claim, required and of its exact type. Whatever goes wrong is `InvalidToken`.
"""

import base64
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar

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
"""How far the clock of whoever issued a token may run ahead of ours."""
GENERATION_MAX: Final = 2**31 - 1
MEMBER: Final = "mem_"
KID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
"""How a key's id is spelled: printable ASCII without spaces."""

T = TypeVar("T")

# header.payload.signature, where ES256's signature is 64 bytes: 86 characters
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]{16,512}\.[A-Za-z0-9_-]{16,3488}\.[A-Za-z0-9_-]{86}", re.ASCII)
_NOBODYS_KEY: Final = {
    # the base point of P-256, tried where there is no key: it takes the time, and proves nothing
    "kty": "EC",
    "crv": "P-256",
    "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
}


class InvalidToken(MizanError):
    """The token is not one for this place, from whom it should come, and still alive. Says no more than that."""

    code = "unauthorised"
    status = 401


@dataclass(frozen=True, slots=True)
class Signed:
    """A JWT in the right form, by a key that is not yet looked at: nothing that it says is true before `claims`."""

    text: str
    kid: str
    unproved: dict[str, Any]

    def claims(self, public: Mapping[str, str] | None) -> dict[str, Any]:
        """What it says, proved by the public key (a JWK). Raises `InvalidToken`; without a key no faster than with a wrong one."""

        def verify() -> None:
            chosen = public or _NOBODYS_KEY
            if (chosen["kty"], chosen["crv"]) != ("EC", "P-256"):
                raise InvalidToken("The token is signed with an unknown key.")
            jws.verify(self.text, _verifier(chosen["x"], chosen["y"]), ALGORITHMS)

        _or_invalid(verify)
        if public is None:
            raise InvalidToken("The token is signed with an unknown key.")
        return self.unproved


def read(token: str, types: Collection[str]) -> Signed:
    """A JWT of one of these ``typ``. Raises `InvalidToken` for everything that has not exactly the right form."""
    return _or_invalid(lambda: _read(token, types))


def text_of(claims: Mapping[str, Any], name: str, length_max: int = 512) -> str:
    """A claim that is a text. Raises `InvalidToken`."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= length_max:
        raise InvalidToken(f"The token has no {name}.")
    return value


def integer_of(claims: Mapping[str, Any], name: str) -> int:
    """A claim that is an integer, as instants in whole seconds are. Raises `InvalidToken`."""
    value = claims.get(name)
    if type(value) is not int:  # a bool is an int to isinstance
        raise InvalidToken(f"The token has no {name}.")
    return value


def lifetime_of(claims: Mapping[str, Any], now: datetime, seconds_max: int) -> tuple[int, int]:
    """``iat`` and ``exp`` of a token alive now, issued for `seconds_max` at most. Raises `InvalidToken`."""
    issued_at, expires_at = integer_of(claims, "iat"), integer_of(claims, "exp")
    second = int(now.timestamp())
    if second >= expires_at:
        raise InvalidToken("The token has expired.")
    if issued_at > second + SKEW_SECONDS_MAX or not 0 < expires_at - issued_at <= seconds_max:
        raise InvalidToken("The token's times are not possible.")
    if "nbf" in claims and integer_of(claims, "nbf") > second + SKEW_SECONDS_MAX:
        raise InvalidToken("The token is not valid yet.")
    return issued_at, expires_at


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says: who it speaks for (`subject`), through which client, until when, with which scopes.

    A member's token has the member's ``mem_`` id as its subject and the partner's client as its `actor`; any other
    speaks for its client. `generation` is the client's when the token was issued: revoking all of them raises it.
    """

    subject: str
    client_id: str
    actor: str | None
    scopes: frozenset[str]
    generation: int
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

    def issue(
        self,
        *,
        subject: str,
        client_id: str,
        scopes: frozenset[str],
        actor: str | None = None,
        generation: int = 0,
    ) -> str:
        """A signed token for `scopes`, alive from now for `lifetime`; `actor` is the client that speaks for a member."""
        key = self._keys.signing()
        private = self._private.get(key.kid)
        if private is None:
            private = self._private[key.kid] = jwk.construct(key.pem, ALGORITHMS[0])
        now = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": client_id,
            "iat": now,
            "exp": now + int(self.lifetime.total_seconds()),
            "jti": public_id("tok", new_id()),
            "scope": " ".join(sorted(scopes)),
            "gen": generation,
        }
        if actor is not None:
            claims["act"] = {"sub": actor}
        return jws.sign(claims, private, headers={"kid": key.kid, "typ": TYPE}, algorithm=ALGORITHMS[0])

    def check(self, token: str) -> Claims:
        """The claims of a token. Raises `InvalidToken` for everything that is not a live token of ours."""
        signed = read(token, (TYPE,))
        # outside the gate: keys come from the database, and a database that is away is no fault of the token's
        published = self._keys.verifying(signed.kid)
        claims = signed.claims(published.jwk if published else None)
        now = self._clock.now()
        return _or_invalid(lambda: self._judged(claims, now))

    def _judged(self, claims: dict[str, Any], now: datetime) -> Claims:
        subject, client_id, token_id, scope = (
            text_of(claims, name, LENGTH_MAX) for name in ("sub", "client_id", "jti", "scope")
        )
        if text_of(claims, "iss") != self.issuer or text_of(claims, "aud") != self.audience:
            raise InvalidToken("The token is meant for another.")
        issued_at, expires_at = lifetime_of(claims, now, int(LIFETIME_MAX.total_seconds()))
        generation = integer_of(claims, "gen")
        if not 0 <= generation <= GENERATION_MAX:
            raise InvalidToken("The token has no gen.")
        actor = claims.get("act")
        speaks_for_a_member = actor == {"sub": client_id} and subject.startswith(MEMBER)
        if not speaks_for_a_member and (actor is not None or subject != client_id):
            raise InvalidToken("The token does not say for whom it speaks.")
        return Claims(
            subject=subject,
            client_id=client_id,
            actor=client_id if speaks_for_a_member else None,
            scopes=frozenset(scope.split()),
            generation=generation,
            issued_at=issued_at,
            expires_at=expires_at,
            token_id=token_id,
        )


def _or_invalid(judge: Callable[[], T]) -> T:
    try:
        return judge()
    except InvalidToken:
        raise
    except Exception as error:  # a token is an attacker's text: no way of failing on it may become a 500
        raise InvalidToken("The token is not valid.") from error


def _read(token: str, types: Collection[str]) -> Signed:
    if len(token) > LENGTH_MAX or not _COMPACT.fullmatch(token):
        raise InvalidToken("The token is not a signed JWT.")
    head, payload, signature = token.split(".")
    _bytes(signature)
    header = _object(head)
    if set(header) != {"alg", "kid", "typ"} or header["alg"] not in ALGORITHMS or header["typ"] not in types:
        raise InvalidToken("The token is not of the kind that belongs here.")
    kid = header["kid"]
    if not isinstance(kid, str) or not KID.fullmatch(kid):
        raise InvalidToken("The token is signed with an unknown key.")
    return Signed(token, kid, _object(payload))


def _object(segment: str) -> dict[str, Any]:
    value = strict_json.loads(_bytes(segment))
    if not isinstance(value, dict):
        raise InvalidToken("The token is not a signed JWT.")
    return value


def _bytes(segment: str) -> bytes:
    """What base64url spells, if this is its one spelling: bits beyond the last byte are zero."""
    decoded = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment.encode():
        raise InvalidToken("The token is not a signed JWT.")
    return decoded


@lru_cache(maxsize=1024)
def _verifier(x: str, y: str) -> Key:
    return jwk.construct({"kty": "EC", "crv": "P-256", "x": x, "y": y}, ALGORITHMS[0])
