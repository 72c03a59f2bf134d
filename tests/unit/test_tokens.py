"""Access tokens: only what we issued, for us, alive, in exactly our form is one."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from jose import jws

from api.auth.keys import SigningKey, SigningKeys, VerifyingKey, thumbprint
from api.auth.tokens import InvalidToken, Tokens
from ledger.clock import FixedClock

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
ISSUER = "https://mizan.example"


def a_key(curve: ec.EllipticCurve) -> tuple[str, dict[str, str]]:
    """A private key in PEM and its JWK."""
    private = ec.generate_private_key(curve)
    numbers, size = private.public_key().public_numbers(), (curve.key_size + 7) // 8

    def part(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()

    name = {"secp256r1": "P-256", "secp384r1": "P-384"}[curve.name]
    jwk = {"kty": "EC", "crv": name, "x": part(numbers.x), "y": part(numbers.y)}
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), jwk


PEM, JWK = a_key(ec.SECP256R1())
KID = thumbprint(JWK)
PEM_384, JWK_384 = a_key(ec.SECP384R1())
KID_384 = thumbprint(JWK_384)


class HeldKeys:
    """The port that `Tokens` asks for keys, holding two in memory: one of ours, and one of another curve."""

    def signing(self) -> SigningKey:
        return SigningKey(KID, PEM)

    def verifying(self, kid: str) -> VerifyingKey | None:
        known = {KID: JWK, KID_384: JWK_384}
        return VerifyingKey(kid, known[kid]) if kid in known else None


CLOCK = FixedClock(NOW)
TOKENS = Tokens(cast("SigningKeys", HeldKeys()), ISSUER, CLOCK)
SECOND = int(NOW.timestamp())
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": ISSUER,
    "sub": "cli_x",
    "client_id": "cli_x",
    "iat": SECOND,
    "exp": SECOND + 900,
    "jti": "tok_1",
    "scope": "members:read",
    "gen": 0,
}
HEADER = {"alg": "ES256", "kid": KID, "typ": "at+jwt"}


def signed(
    claims: Any, header: dict[str, Any] | None = None, algorithm: str = "ES256", key: str = PEM
) -> str:
    """A token signed by whoever holds `key`, with exactly this header and these claims."""
    extra = {name: value for name, value in (header or HEADER).items() if name != "alg"}
    return jws.sign(claims, key, headers=extra, algorithm=algorithm)


def with_parts(header: bytes, payload: bytes, signature: bytes = bytes(64)) -> str:
    """A token put together by hand."""
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload, signature)
    )


def test_an_issued_token_is_read_back() -> None:
    claims = TOKENS.check(TOKENS.issue(subject="cli_x", client_id="cli_x", scopes=frozenset({"a", "b"})))
    assert (claims.subject, claims.client_id, claims.scopes) == ("cli_x", "cli_x", {"a", "b"})
    assert claims.expires_at - claims.issued_at == 900


def test_a_token_signed_by_us_with_good_claims_passes() -> None:
    assert TOKENS.check(signed(CLAIMS)).scopes == {"members:read"}


@pytest.mark.parametrize("name", list(CLAIMS))
def test_every_claim_is_required_and_of_its_type(name: str) -> None:
    without = {key: value for key, value in CLAIMS.items() if key != name}
    wrong: list[Any] = [None, True, [], {}, [CLAIMS[name]], 1.5, ""]
    wrong += (
        [str(CLAIMS[name])]
        if name in ("iat", "exp", "gen")
        else [7, "other"]
        if name in ("iss", "aud")
        else [7]
    )
    for claims in (without, *({**CLAIMS, name: value} for value in wrong)):
        with pytest.raises(InvalidToken):
            TOKENS.check(signed(claims))


@pytest.mark.parametrize(
    "change",
    [
        {"exp": SECOND},
        {"exp": SECOND - 1},
        {"exp": SECOND + 901},
        {"iat": SECOND + 31, "exp": SECOND + 100},
        {"iat": SECOND - 3600, "exp": SECOND + 60},
        {"exp": 10**19},
        {"iat": -(10**18)},
    ],
)
def test_times_that_are_not_possible_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.check(signed(CLAIMS | change))


@pytest.mark.parametrize(
    "change",
    [
        {"typ": "JWT"},
        {"typ": "AT+JWT"},
        {"typ": None},
        {"kid": "unknown"},
        {"kid": None},
        {"kid": ["x"]},
        {"crit": ["exp"]},
        {"jku": "https://evil.example"},
        {"jwk": JWK},
    ],
)
def test_a_header_is_exactly_ours(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.check(signed(CLAIMS, HEADER | change))


def test_another_algorithm_key_or_curve_is_refused() -> None:
    strangers_pem, _ = a_key(ec.SECP256R1())
    secret = json.dumps(JWK)
    payload = json.dumps(CLAIMS).encode()
    for token in (
        signed(CLAIMS, key=strangers_pem),
        signed(CLAIMS, HEADER | {"kid": KID_384}, algorithm="ES384", key=PEM_384),
        jws.sign(CLAIMS, secret, headers={"kid": KID, "typ": "at+jwt"}, algorithm="HS256"),
        with_parts(json.dumps(HEADER | {"alg": "none"}).encode(), payload, b""),
        with_parts(json.dumps(HEADER | {"alg": "none"}).encode(), payload),
        with_parts(json.dumps(HEADER | {"alg": ["ES256"]}).encode(), payload),
        with_parts(json.dumps(HEADER | {"kid": KID_384}).encode(), payload),
        with_parts(json.dumps(HEADER).encode(), payload),
    ):
        with pytest.raises(InvalidToken):
            TOKENS.check(token)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 380,
        b'{"a":' * 70,
        b'{"alg":"ES256","alg":"ES256"}',
        b"\xff" * 30,
        b"null" * 8,
        b'"ES256 ES256"',
        b"{" * 40,
    ],
)
def test_a_header_that_is_no_small_flat_object_is_a_401(header: bytes) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.check(with_parts(header, json.dumps(CLAIMS).encode()))


def test_a_deep_payload_is_a_401_even_when_we_signed_it() -> None:
    for payload in (b"[" * 2000, b'{"a":' * 500 + b"1" + b"}" * 500):
        with pytest.raises(InvalidToken):
            TOKENS.check(with_parts(json.dumps(HEADER).encode(), payload))


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{1,60}(\.[A-Za-z0-9_-]{1,90}){2}", fullmatch=True))
def test_no_text_whatever_is_anything_but_a_401(token: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.check(token)


def test_a_changed_character_is_noticed() -> None:
    token = TOKENS.issue(subject="cli_x", client_id="cli_x", scopes=frozenset({"a"}))
    for position in range(0, len(token) - 1, 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        with pytest.raises(InvalidToken):
            TOKENS.check(changed)


def test_a_token_lives_fifteen_minutes_at_most() -> None:
    with pytest.raises(ValueError, match="lives at most"):
        Tokens(cast("SigningKeys", HeldKeys()), ISSUER, CLOCK, timedelta(minutes=16))
