"""Who is believed: Standard Webhooks 1.0 as its specification and its test vector say."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

from integrations.partners.port import SignatureInvalid, SignatureStale
from integrations.partners.standard_webhooks import (
    Secret,
    SymmetricSecret,
    new_secret,
    parse_secret,
    sign,
    verify,
)

# The specification's published vector.
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_TIME = 1614265330
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
NOW = datetime.fromtimestamp(VECTOR_TIME, UTC)


def secret(text: str = VECTOR_SECRET) -> Secret:
    return parse_secret(text)


def headers(
    delivery_id: str = VECTOR_ID, timestamp: str = str(VECTOR_TIME), signature: str = VECTOR_SIGNATURE
) -> dict[str, str]:
    return {"webhook-id": delivery_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def signed_headers(
    timestamp: str, body: bytes, delivery_id: str = VECTOR_ID, with_: str = VECTOR_SECRET
) -> dict[str, str]:
    """Headers signed by hand, so that even what no library would send carries a good signature."""
    key = base64.b64decode(with_.removeprefix("whsec_"))
    content = f"{delivery_id}.{timestamp}.".encode() + body
    mac = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return headers(delivery_id, timestamp, f"v1,{mac}")


def test_the_published_vector_is_believed_and_made() -> None:
    symmetric = secret()
    assert isinstance(symmetric, SymmetricSecret)
    assert verify(headers(), VECTOR_BODY, [symmetric], NOW) == VECTOR_ID
    assert sign(symmetric, VECTOR_ID, NOW, VECTOR_BODY) == VECTOR_SIGNATURE


def test_what_the_independent_library_signs_is_believed() -> None:
    text, at = new_secret(), datetime.now(UTC)
    signature = Webhook(text).sign("msg_1", at, '{"naïve": "ÿ"}')
    given = headers("msg_1", str(int(at.timestamp())), signature)
    assert verify(given, '{"naïve": "ÿ"}'.encode(), [secret(text)], at) == "msg_1"


def test_bytes_that_are_no_text_can_be_signed_too() -> None:
    given = signed_headers(str(VECTOR_TIME), b"\xff\x00")
    assert verify(given, b"\xff\x00", [secret()], NOW) == VECTOR_ID


def test_any_of_several_signatures_may_match_any_of_several_secrets() -> None:
    old, new = secret(), secret(new_secret())
    assert isinstance(new, SymmetricSecret)
    of_new = sign(new, VECTOR_ID, NOW, VECTOR_BODY)
    for signatures in (f"{of_new} {VECTOR_SIGNATURE}", f"v1,AAAA {of_new}", f"{VECTOR_SIGNATURE} v2,x"):
        assert verify(headers(signature=signatures), VECTOR_BODY, [old, new], NOW) == VECTOR_ID
    with pytest.raises(SignatureInvalid):
        verify(headers(signature=of_new), VECTOR_BODY, [old], NOW)


def test_ed25519_signatures_are_believed_by_the_public_key() -> None:
    private = Ed25519PrivateKey.generate()
    public = secret("whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode())
    mac = base64.b64encode(private.sign(f"{VECTOR_ID}.{VECTOR_TIME}.".encode() + VECTOR_BODY)).decode()
    assert verify(headers(signature=f"v1a,{mac}"), VECTOR_BODY, [public], NOW) == VECTOR_ID
    for wrong in (f"v1,{mac}", "v1a,", "v1a,AAAA", f"v1a,{mac[:-8]}AAAAAA=="):
        with pytest.raises(SignatureInvalid):
            verify(headers(signature=wrong), VECTOR_BODY, [public, secret()], NOW)
    with pytest.raises(SignatureInvalid):
        verify(headers(signature=f"v1a,{mac}"), VECTOR_BODY, [secret()], NOW)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        " ",
        ",",
        "v1",
        "v1,",
        "v1,,",
        "v1,!!!",
        "v1,é",
        "garbage",
        VECTOR_SIGNATURE.replace("v1,", "v2,"),
        VECTOR_SIGNATURE.replace("v1,", "v1a,"),
        VECTOR_SIGNATURE.replace("v1,", ""),
        VECTOR_SIGNATURE[:-1],
        VECTOR_SIGNATURE + "A",
        VECTOR_SIGNATURE.replace("g0h", "G0h"),
        "v1,AAAA " * 20 + VECTOR_SIGNATURE,  # beyond the signatures that are looked at
    ],
)
def test_no_other_signature_is(signature: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(headers(signature=signature), VECTOR_BODY, [secret()], NOW)


@pytest.mark.parametrize("garbage", ["v1", "a,b,c", "v1,é", ",,,", "v1a,AAAA"])
def test_garbage_beside_a_good_signature_does_no_harm(garbage: str) -> None:
    assert verify(headers(signature=f"{garbage} {VECTOR_SIGNATURE}"), VECTOR_BODY, [secret()], NOW)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_every_header_is_needed(missing: str) -> None:
    given = headers()
    del given[missing]
    with pytest.raises(SignatureInvalid):
        verify(given, VECTOR_BODY, [secret()], NOW)


@pytest.mark.parametrize(
    "timestamp",
    [
        "1614265330.0",
        "1614265330.5",
        " 1614265330",
        "+1614265330",
        "-1",
        "1e9",
        "",
        "٣",
        "1_614_265_330",
        "9" * 13,
    ],
)
def test_a_timestamp_is_whole_ascii_seconds_even_where_the_signature_over_it_is_good(timestamp: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(signed_headers(timestamp, VECTOR_BODY), VECTOR_BODY, [secret()], NOW)


@pytest.mark.parametrize("delivery_id", ["", "a b", "a\x00", "é", "x" * 256, "a\n"])
def test_an_id_is_printable_ascii(delivery_id: str) -> None:
    with pytest.raises(SignatureInvalid):
        verify(signed_headers(str(VECTOR_TIME), VECTOR_BODY, delivery_id), VECTOR_BODY, [secret()], NOW)


def test_five_minutes_either_way_are_tolerated_and_a_second_more_is_named_stale() -> None:
    tolerated = timedelta(minutes=5)
    for now in (NOW - tolerated, NOW + tolerated):
        assert verify(headers(), VECTOR_BODY, [secret()], now)
    for now in (NOW - tolerated - timedelta(seconds=1), NOW + tolerated + timedelta(seconds=1)):
        with pytest.raises(SignatureStale):
            verify(headers(), VECTOR_BODY, [secret()], now)
        with pytest.raises(SignatureInvalid):  # only the good signature's sender learns about the time
            verify(headers(), VECTOR_BODY + b" ", [secret()], now)


def test_without_secrets_nobody_is_believed() -> None:
    with pytest.raises(SignatureInvalid):
        verify(headers(), VECTOR_BODY, [], NOW)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", "whsec_!!!!", "whpk_" + "A" * 44 + "AAAA", "secret_" + "A" * 32]
)
def test_a_secret_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        parse_secret(text)


def test_fresh_secrets_differ_and_can_be_read() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert parse_secret(one) == parse_secret(one)
