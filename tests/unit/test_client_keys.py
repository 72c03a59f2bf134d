"""Which public keys a client may register: points on P-256, in PEM or as a JWK, and never a private one."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.auth.client_keys import parse
from api.auth.keys import thumbprint
from ledger.errors import InvalidInput
from tests.http.signing import Key

KEY = Key(kid="2026-03")
POINT = {name: KEY.jwk[name] for name in ("kty", "crv", "x", "y")}


def pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    """Its public key."""
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_a_key_is_known_by_its_kid_or_by_its_thumbprint() -> None:
    assert parse(json.dumps(KEY.jwk)) == ("2026-03", POINT)
    full = POINT | {"use": "sig", "alg": "ES256", "key_ops": ["verify"]}
    assert parse(json.dumps(full)) == parse(KEY.public_pem.decode()) == (thumbprint(POINT), POINT)


@pytest.mark.parametrize(
    "wrong",
    [
        KEY.private_pem.decode(),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        "-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----",
        "",
        "nonsense",
        "[]",
        "[" * 2000,
        "x" * 5000,
        "é",
        '{"kty":"EC","kty":"EC"}',
    ],
)
def test_what_is_no_public_key_on_p_256_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput):
        parse(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"d": "x"},
        {"kty": "oct", "k": "x"},
        {"kty": "RSA"},
        {"crv": "P-384"},
        {"crv": ["P-256"]},
        {"alg": "HS256"},
        {"alg": "none"},
        {"use": "enc"},
        {"x": POINT["y"], "y": POINT["x"]},
        {"x": "A" * 43, "y": "A" * 43},
        {"x": POINT["x"] + "="},
        {"x": POINT["x"][:-1]},
        {"x": "!" * 43},
        {"x": 7},
        {"y": None},
        {"kid": ""},
        {"kid": "a b"},
        {"kid": "a\x00b"},
        {"kid": "k" * 129},
        {"kid": 7},
        {"jku": "https://elsewhere.example"},
        {"x5c": []},
    ],
)
def test_a_jwk_with_anything_wrong_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        parse(json.dumps(KEY.jwk | change))
