"""Standard Webhooks 1.0: how a delivery proves who sent it, unchanged and recently.

The signed content is ``id.timestamp.body`` over the raw bytes. The verifier is our own, in place of the library
``standardwebhooks`` 1.1, because that one can't be wrapped safely: it decodes the body as text first (bytes that are
not UTF-8 escape as `UnicodeDecodeError`), lets a signature entry without exactly one comma escape as `ValueError`,
accepts fractional timestamps, checks the time before the signature (so a forger learns which was wrong), reads the
wall clock itself, and knows neither ``v1a`` nor several secrets. The library stays what the tests and the demo sign
with: an independent voice.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from integrations.partners.port import SignatureInvalid, SignatureStale

TOLERANCE: Final = timedelta(minutes=5)
SECRETS_MAX: Final = 2
"""Valid at once, so that a secret can be rotated; every refusal costs the work of this many."""
ENTRIES_MAX: Final = 16
"""Signatures looked at in one header: enough for any rotation, too few to make us work for a forger."""

_WHOLE_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class SymmetricSecret:
    """What is behind ``whsec_``: the key of HMAC-SHA-256, scheme ``v1``."""

    key: bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What is behind ``whpk_``: an Ed25519 public key, scheme ``v1a``."""

    key: Ed25519PublicKey


Secret = SymmetricSecret | PublicKey

_NOBODYS_KEY: Final = os.urandom(24)
_NOBODYS_PUBLIC_KEY: Final = Ed25519PrivateKey.generate().public_key()


def new_secret() -> str:
    """A fresh symmetric secret of 32 random bytes, as its partner is shown it once: ``whsec_…``."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def parse_secret(text: str) -> Secret:
    """A secret as it is written in configuration: ``whsec_`` or ``whpk_`` and base64. Raises `ValueError`."""
    prefix, _, encoded = text.partition("_")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is base64 after its prefix") from None
    if prefix == "whsec" and 16 <= len(raw) <= 64:
        return SymmetricSecret(raw)
    if prefix == "whpk" and len(raw) == 32:
        return PublicKey(Ed25519PublicKey.from_public_bytes(raw))
    raise ValueError(
        "a webhook secret is whsec_ and 16 to 64 bytes, or whpk_ and an Ed25519 public key, in base64"
    )


def sign(secret: SymmetricSecret, delivery_id: str, at: datetime, body: bytes) -> str:
    """The ``v1`` signature of one attempt at the aware time `at`, cut to whole seconds."""
    mac = hmac.digest(
        secret.key, _signed_content(delivery_id, str(int(at.timestamp())), body), hashlib.sha256
    )
    return "v1," + base64.b64encode(mac).decode()


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], now: datetime) -> str:
    """The delivery's ``webhook-id``, once any of its signatures matches any of the `secrets`.

    Raises `SignatureInvalid` for missing or malformed headers and where nothing matches, after the same work however
    many `secrets` there are (none, too: an unknown partner costs what a known one does); `SignatureStale` when the
    signature is good and the time is not within five minutes of `now`.
    """
    delivery_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    well_formed = (
        _PRINTABLE.fullmatch(delivery_id) is not None and _WHOLE_SECONDS.fullmatch(timestamp) is not None
    )
    content = _signed_content(delivery_id, timestamp, body)
    matched = _matches(headers.get("webhook-signature", ""), content, secrets)
    if not (well_formed and matched):
        raise SignatureInvalid
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds():
        raise SignatureStale
    return delivery_id


def _signed_content(delivery_id: str, timestamp: str, body: bytes) -> bytes:
    # Whatever is not ASCII was refused above or will be; latin-1 is how servers hand header bytes over.
    return b"%b.%b.%b" % (
        delivery_id.encode("latin-1", "replace"),
        timestamp.encode("latin-1", "replace"),
        body,
    )


def _matches(header: str, content: bytes, secrets: Sequence[Secret]) -> bool:
    given: dict[str, list[bytes]] = {"v1": [], "v1a": []}
    for entry in header.split(" ", ENTRIES_MAX)[:ENTRIES_MAX]:
        version, _, encoded = entry.partition(",")
        if version in given:
            given[version].append(_decode(encoded))
    symmetric = [secret.key for secret in secrets if isinstance(secret, SymmetricSecret)]
    matched = False
    for place, key in enumerate(symmetric + [_NOBODYS_KEY] * (SECRETS_MAX - len(symmetric))):
        if place >= len(symmetric) and matched:
            break  # only a refusal has to hide how many secrets there are
        expected = hmac.digest(key, content, hashlib.sha256)
        for signature in given["v1"]:
            matched |= hmac.compare_digest(expected, signature) and place < len(symmetric)
    if not given["v1a"] or matched:
        return matched
    public = [secret.key for secret in secrets if isinstance(secret, PublicKey)]
    for place, public_key in enumerate(public + [_NOBODYS_PUBLIC_KEY] * (SECRETS_MAX - len(public))):
        for signature in given["v1a"]:
            matched |= _verifies(public_key, signature, content) and place < len(public)
    return matched


def _decode(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def _verifies(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
