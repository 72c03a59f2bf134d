"""A member's phone in little: it reads the codes that it is sent, and holds a key that signs for the member."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.bootstrap import Services
from ledger.clock import FixedClock
from ledger.database import Tx
from ledger.ids import public_id
from products.members import challenges, devices, payees, registry, verification
from products.members.challenges import Method, Proof, Proven, Purpose, Started
from products.members.models import Member
from products.members.payees import NewPayee

COORDINATE_BYTES: Final = 32
WAIT: Final = timedelta(hours=73)
"""Longer than a new device or payee waits."""
CODE: Final = re.compile(r"\b[0-9]{6}\b")


@dataclass(frozen=True, slots=True)
class Phone:
    """A device that is in effect, with the key that never leaves it."""

    device: str
    key: EllipticCurvePrivateKey

    def proof(self, challenge: Mapping[str, str]) -> dict[str, str]:
        """The member's answer to a challenge, as the API is sent it."""
        return {
            "challenge": challenge["id"],
            "device": self.device,
            "signature": _base64url(_signed(self.key, challenge["to_sign"].encode("ascii"))),
        }


def prepare(
    services: Services, link: UUID, partner: UUID, wanted: Mapping[str, NewPayee], at: datetime
) -> tuple[Phone, dict[str, str]]:
    """Register a member's phone as a device and then, by its signature, payees: long ago, by a clock that stood then.

    All as it is done today over the API, but for the waiting: 72 hours for the device, and 72 for the payees, are over
    by now. Returns the phone, and the payees' ids by the names that they were asked for.
    """
    clock = FixedClock(at)
    run, url = services.worker.run, services.settings.public_url
    keyring, key = services.keyring, generate_private_key(SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def member(tx: Tx) -> Member:
        return registry.find(tx, keyring, link, partner_id=partner)

    def prove(purpose: Purpose, subject: Mapping[str, object], answer: Callable[[Started], Proof]) -> Proven:
        method: Method = "code" if purpose == "device" else "device"

        def start(tx: Tx) -> tuple[Started, bytes]:
            digest = challenges.subject_digest(member(tx), purpose, subject)
            return challenges.start(tx, keyring, member(tx), purpose, digest, clock, method=method), digest

        started, digest = run(start)  # a challenge can be answered once it is committed
        return run(
            lambda tx: challenges.prove(tx, keyring, member(tx), answer(started), purpose, digest, clock)
        )

    def by_code(started: Started) -> Proof:
        found = CODE.search(started.outbound.text) if started.outbound is not None else None
        return Proof(started.id, code=found.group() if found is not None else None)

    device_name = "her phone"
    x, y = point[1 : 1 + COORDINATE_BYTES], point[1 + COORDINATE_BYTES :]
    jwk = {"kty": "EC", "crv": "P-256", "x": _base64url(x), "y": _base64url(y)}
    proven = prove("device", {"name": device_name, "key": jwk}, by_code)

    def register(tx: Tx) -> UUID:
        verification.by_code(tx, keyring, member(tx), proven.challenge, proven.at)
        return devices.register(
            tx, keyring, member(tx), name=device_name, public_key=point, public_url=url, at=clock.now()
        ).id

    device = run(register)
    clock.advance(WAIT)

    def by_device(started: Started) -> Proof:
        message = challenges.signed_bytes(started.id, started.nonce, started.purpose, started.subject_digest)
        return Proof(started.id, device=device, signature=_signed(key, message))

    ids: dict[str, str] = {}
    for name, payee in wanted.items():
        subject = {"name": payee.name, "rail": payee.rail, "destination": dict(payee.destination)}
        prove("payee", subject, by_device)
        made = run(
            lambda tx, payee=payee: payees.propose(  # type: ignore[misc]  # binds the loop's name
                tx, keyring, member(tx), payee, released=True, public_url=url, at=clock.now()
            )
        )
        ids[name] = public_id("pye", made.id)
    return Phone(public_id("dev", device), key), ids


def _signed(key: EllipticCurvePrivateKey, message: bytes) -> bytes:
    """An ES256 signature: r and s (RFC 7518 §3.4)."""
    r, s = decode_dss_signature(key.sign(message, ECDSA(SHA256())))
    return r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
