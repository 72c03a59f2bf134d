"""The member's devices: P-256 keys (FIPS 186-5) whose private halves never leave the device, used for ES256 (RFC 7518 §3.4).

A device is registered with the member's proof, waits 72 hours before it can prove anything (`products.members.waiting`),
and is revoked at once.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text

from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from products.keyring import Keyring, field_place
from products.members import waiting
from products.members.models import Member
from products.members.registry import cipher_of
from products.members.waiting import State

DEVICES_MAX: Final = 10
TABLE: Final = "products.device"

_COORDINATE_BYTES: Final = 32


class InvalidKey(InvalidInput):
    """Not the public half of a P-256 key as a JSON Web Key (RFC 7517)."""

    code = "invalid_key"


class TooManyDevices(Conflict):
    """The member has as many devices as one may have."""

    code = "too_many_devices"


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a member's: it proves from `effective_at` until it is revoked, unless its change was cancelled."""

    id: UUID
    name: str
    public_key: bytes
    registered_at: datetime
    state: State
    effective_at: datetime
    change_id: UUID

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` (r and s, 32 bytes each) is this device's of `message`."""
        if len(signature) != 2 * _COORDINATE_BYTES:
            return False
        r, s = (
            int.from_bytes(part, "big")
            for part in (signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:])
        )
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), self.public_key)
        try:
            key.verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JSON Web Key."""
        x, y = (
            self.public_key[1 : 1 + _COORDINATE_BYTES],
            self.public_key[1 + _COORDINATE_BYTES :],
        )
        return {"kty": "EC", "crv": "P-256", "x": _base64url(x), "y": _base64url(y)}


def point_of(jwk: Mapping[str, object]) -> bytes:
    """The uncompressed point of a public JWK on P-256. Raises `InvalidKey`, also for a private key: it has been seen."""
    if set(jwk) != {"kty", "crv", "x", "y"} or jwk["kty"] != "EC" or jwk["crv"] != "P-256":
        raise InvalidKey(
            "A device's key is a public JWK of kty EC and crv P-256 with x and y, and nothing else.",
            pointer="/key",
        )
    try:
        numbers = EllipticCurvePublicNumbers(_coordinate(jwk["x"]), _coordinate(jwk["y"]), SECP256R1())
        return numbers.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    except ValueError:
        raise InvalidKey("The key is not a point of P-256.", pointer="/key") from None


def register(
    tx: Tx, keyring: Keyring, member: Member, *, name: str, public_key: bytes, public_url: str, at: datetime
) -> Device:
    """Register a device, which the member has proven to want. It waits, and the old contact is told.

    The same key again is the same device, and its wait goes on from where it was. Raises `TooManyDevices`.
    """
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('mizan device ' || :member, 0))"),
        {"member": str(member.member_id)},
    )
    known = devices_of(tx, keyring, member, at)
    for device in known:
        if device.public_key == public_key and device.state != "cancelled":
            return device
    if sum(device.state != "cancelled" for device in known) >= DEVICES_MAX:
        raise TooManyDevices(f"A member has at most {DEVICES_MAX} devices: revoke one first.")
    device_id = new_id()
    tx.execute(
        text(
            "UPDATE products.device SET revoked_at = :at WHERE link_id = :link AND public_key = :key"
            " AND revoked_at IS NULL"
        ),
        {"at": at, "link": member.link_id, "key": public_key},
    )
    tx.execute(
        text(
            "INSERT INTO products.device (id, link_id, member_id, name, public_key, registered_at)"
            " VALUES (:id, :link, :member, :name, :key, :at)"
        ),
        {
            "id": device_id,
            "link": member.link_id,
            "member": member.member_id,
            "name": cipher_of(tx, keyring, member).encrypt(name, field_place(TABLE, "name", device_id)),
            "key": public_key,
            "at": at,
        },
    )
    change = waiting.ask(tx, keyring, member, "device", device_id, public_url=public_url, at=at)
    return Device(device_id, name, public_key, at, "waiting", change.effective_at, change.id)


def devices_of(tx: Tx, keyring: Keyring, member: Member, at: datetime) -> list[Device]:
    """The member's devices that are not revoked, as row-level security shows them to `tx`, oldest first."""
    rows = tx.execute(
        text(
            "SELECT d.id, d.name, d.public_key, d.registered_at, w.id AS change_id, w.effective_at, w.cancelled_at"
            " FROM products.device d JOIN products.waiting_change w ON w.subject_id = d.id"
            " WHERE d.member_id = :member AND d.revoked_at IS NULL ORDER BY d.id"
        ),
        {"member": member.member_id},
    ).all()
    if not rows:
        return []
    cipher = cipher_of(tx, keyring, member)
    return [
        Device(
            row.id,
            cipher.decrypt(bytes(row.name), field_place(TABLE, "name", row.id)),
            bytes(row.public_key),
            row.registered_at,
            waiting.state_of(row.effective_at, row.cancelled_at, at),
            row.effective_at,
            row.change_id,
        )
        for row in rows
    ]


def effective(tx: Tx, keyring: Keyring, member: Member, at: datetime) -> list[Device]:
    """The devices that can prove something at `at`."""
    return [device for device in devices_of(tx, keyring, member, at) if device.state == "in_effect"]


def revoke(tx: Tx, keyring: Keyring, member: Member, device: UUID, at: datetime) -> None:
    """Revoke a device: it proves nothing from now on, and the member is told. Raises NotFound."""
    revoked = tx.execute(
        text(
            "UPDATE products.device SET revoked_at = :at WHERE id = :id AND member_id = :member AND revoked_at IS NULL"
            " RETURNING id"
        ),
        {"at": at, "id": device, "member": member.member_id},
    ).one_or_none()
    if revoked is None:
        raise NotFound("There is no such device.")
    waiting.end(tx, device, "removed", at)
    waiting.tell(tx, keyring, member, "device_revoked", at)


def _coordinate(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("a coordinate is text")  # noqa: TRY004  one kind of refusal for all of the key
    try:
        raw = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
    if len(raw) != _COORDINATE_BYTES:
        raise ValueError("a coordinate has 32 bytes")
    return int.from_bytes(raw, "big")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
