"""A member with a phone that can be read, and devices that can sign: what proofs are made of in tests."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ledger.clock import FixedClock
from ledger.database import Database, Tx
from products.members import challenges, devices, registry
from products.members.challenges import Method, Proof, Proven, Purpose, Started
from products.members.devices import Device
from products.members.models import Member
from tests.conftest import Databases
from tests.integration.members.builders import NOW, Registry, a_person, a_registry, speak_for

PUBLIC_URL = "https://mizan.example"
HOURS_72 = timedelta(hours=72)


class Key:
    """A device's private key."""

    def __init__(self) -> None:
        self.private = generate_private_key(SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }

    def sign(self, message: bytes) -> bytes:
        """ES256: r and s, 32 bytes each."""
        r, s = decode_dss_signature(self.private.sign(message, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def base64url(raw: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def code_in(message: str) -> str:
    """The six digits in a message."""
    found = re.search(r"(?<!\d)\d{6}(?!\d)", message)
    assert found is not None, message
    return found.group()


def link_in(message: str) -> str:
    """The secret of the link in a notice."""
    return message.rpartition("/stop/")[2]


@dataclass
class Proving:
    """A registry, a clock, and one partner that speaks."""

    databases: Databases
    world: Registry
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW))

    @classmethod
    def on(cls, databases: Databases) -> "Proving":
        """With two partners, in a fresh database."""
        return cls(databases, a_registry(databases.worker))

    def member(self, number: int = 1, *, partner: UUID | None = None, **changes: object) -> Member:
        """Somebody registered by a partner (acme)."""
        partner = partner or self.world.acme
        with self.databases.api.begin() as tx:
            speak_for(tx, partner)
            made = registry.register(
                tx, self.world.keyring, self.world.programme, partner, a_person(number, **changes), NOW
            )
            return registry.find(tx, self.world.keyring, made.link_id)

    def again(self, member: Member) -> Member:
        """The member as the registry has them now."""
        with self.databases.worker.begin() as tx:
            return registry.find(tx, self.world.keyring, member.link_id)

    def speaking(self, tx: Tx, member: Member) -> None:
        """Speak for the member's partner."""
        speak_for(tx, member.partner_id)

    def start(
        self,
        member: Member,
        purpose: Purpose = "payee",
        action: Mapping[str, object] | None = None,
        *,
        method: Method = "code",
        **more: str,
    ) -> Started:
        """A challenge, committed."""
        with self.databases.api.begin() as tx:
            self.speaking(tx, member)
            digest = challenges.subject_digest(member, purpose, action or {})
            return challenges.start(
                tx, self.world.keyring, member, purpose, digest, self.clock, method=method, **more
            )

    def prove(
        self,
        member: Member,
        proof: Proof,
        purpose: Purpose = "payee",
        action: Mapping[str, object] | None = None,
        *,
        database: Database | None = None,
    ) -> Proven:
        """An answer to a challenge, in a transaction of its own."""
        with (database or self.databases.api).begin() as tx:
            self.speaking(tx, member)
            digest = challenges.subject_digest(member, purpose, action or {})
            return challenges.prove(tx, self.world.keyring, member, proof, purpose, digest, self.clock)

    def device(self, member: Member, key: Key, name: str = "Tecno Spark") -> Device:
        """A device registered now; it waits."""
        with self.databases.api.begin() as tx:
            self.speaking(tx, member)
            return devices.register(
                tx,
                self.world.keyring,
                member,
                name=name,
                public_key=devices.point_of(key.jwk),
                public_url=PUBLIC_URL,
                at=self.clock.now(),
            )

    def tries(self, started: Started) -> int:
        """How many tries were counted."""
        with self.databases.owner.begin() as tx:
            return int(
                tx.exec_driver_sql(
                    "SELECT coalesce((SELECT tries FROM products.challenge_try WHERE challenge_id = %s), 0)",
                    (started.id,),
                ).scalar_one()
            )


def answer(started: Started) -> Proof:
    """The code that was sent, given back."""
    assert started.outbound is not None
    return Proof(started.id, code=code_in(started.outbound.text))


def wrong(started: Started) -> Proof:
    """Another code than the one that was sent."""
    assert started.outbound is not None
    code = code_in(started.outbound.text)
    return Proof(started.id, code=f"{(int(code) + 1) % 1_000_000:06}")


def signed(started: Started, device: Device, key: Key) -> Proof:
    """The challenge signed by a device."""
    message = challenges.signed_bytes(started.id, started.nonce, started.purpose, started.subject_digest)
    return Proof(started.id, device=device.id, signature=key.sign(message))
