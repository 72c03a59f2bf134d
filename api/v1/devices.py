"""The member's devices: keys that prove what the member wants, without a code."""

from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks
from pydantic import Field

from api.deps import path_id
from api.v1.finding import found
from api.v1.proofs import ProofIn, Proving, Reading, proven
from api.v1.schemas import ROUTE_CLASS, In, Instant, MemberId, Out, Text, errors
from ledger.ids import public_id
from products.members import devices
from products.members.devices import Device

router = APIRouter(prefix="/v1/members", tags=["member's proof"], route_class=ROUTE_CLASS)

Coordinate = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]


class KeyIn(In):
    """The public half of a P-256 key as a JSON Web Key (RFC 7517). A private one is refused."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Annotated[Coordinate, Field(examples=["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"])]
    y: Annotated[Coordinate, Field(examples=["x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"])]


class KeyOut(Out):
    """The public half of a P-256 key as a JSON Web Key."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str
    y: str


class DeviceIn(In):
    """A device to register, with the member's proof (purpose `device`)."""

    name: Annotated[Text, Field(max_length=60, examples=["Tecno Spark"])]
    key: KeyIn
    proof: ProofIn


class DeviceOut(Out):
    """A device: it proves nothing before `effective_at`."""

    id: Annotated[str, Field(examples=[f"dev_{'0' * 26}"])]
    name: str
    key: KeyOut
    state: Literal["waiting", "in_effect", "cancelled"]
    registered_at: Instant
    effective_at: Instant
    change: str


class DevicesOut(Out):
    """The member's devices, oldest first."""

    data: list[DeviceOut]


@router.get("/{member}/devices", operation_id="list_devices", summary="Read devices", responses=errors())
def list_devices(member: MemberId, call: Reading) -> DevicesOut:
    """The devices that are not revoked."""
    held = devices.devices_of(call.tx, call.services.keyring, found(call, member), call.now)
    return DevicesOut(data=[_shown(one) for one in held])


@router.post(
    "/{member}/devices",
    operation_id="register_device",
    summary="Register a device",
    status_code=201,
    responses=errors(409),
)
def register_device(
    member: MemberId, body: DeviceIn, call: Proving, afterwards: BackgroundTasks
) -> DeviceOut:
    """Register a device's key. It waits 72 hours, and the member is told at once."""
    person = found(call, member)
    point = devices.point_of(body.key.model_dump())
    proven(call, person, "device", body.proof)
    device = devices.register(
        call.tx,
        call.services.keyring,
        person,
        name=body.name,
        public_key=point,
        public_url=call.services.settings.public_url,
        at=call.now,
    )
    call.audit("member.device.registered", public_id("dev", device.id))
    afterwards.add_task(call.services.codes.send_notices_soon)
    return _shown(device)


@router.delete(
    "/{member}/devices/{device}",
    operation_id="revoke_device",
    summary="Revoke a device",
    status_code=204,
    responses=errors(),
)
def revoke_device(member: MemberId, device: str, call: Proving, afterwards: BackgroundTasks) -> None:
    """Revoke a device at once. It takes no proof: a lost device has to stop proving, whoever says so first."""
    person = found(call, member)
    devices.revoke(call.tx, call.services.keyring, person, path_id("dev", device), call.now)
    call.audit("member.device.revoked", device)
    afterwards.add_task(call.services.codes.send_notices_soon)


def _shown(device: Device) -> DeviceOut:
    return DeviceOut(
        id=public_id("dev", device.id),
        name=device.name,
        key=KeyOut.model_validate(device.jwk),
        state=device.state,
        registered_at=device.registered_at,
        effective_at=device.effective_at,
        change=public_id("chg", device.change_id),
    )
