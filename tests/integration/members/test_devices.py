"""Devices: keys that prove, from 72 hours after they were registered until they are revoked."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from ledger.errors import NotFound
from products.members import challenges, devices, waiting
from products.members.challenges import NoWayToProve, Proof, ProofRefused
from products.members.devices import InvalidKey, TooManyDevices
from tests.conftest import Databases
from tests.integration.members.builders import speak_for
from tests.integration.members.proving import HOURS_72, PUBLIC_URL, Key, Proving, base64url, signed
from tests.racing import at_once


@pytest.fixture
def proving(databases: Databases) -> Proving:
    return Proving.on(databases)


def test_a_device_proves_nothing_for_72_hours_and_everything_after(proving: Proving) -> None:
    member, key = proving.member(), Key()
    device = proving.device(member, key)
    assert (device.state, device.name, device.jwk) == ("waiting", "Tecno Spark", key.jwk)
    proving.clock.advance(HOURS_72 - timedelta(seconds=1))
    with pytest.raises(NoWayToProve):
        proving.start(member, method="device")
    # nor does it answer a challenge that was started for a code
    code = proving.start(member)
    with pytest.raises(ProofRefused, match="signature is wrong"):
        proving.prove(member, signed(code, device, key))
    proving.clock.advance(timedelta(seconds=1))
    started = proving.start(member, method="device")
    assert (started.outbound, started.sent_to) == (None, None)
    proven = proving.prove(member, signed(started, device, key))
    assert (proven.method, proven.device) == ("device", device.id)


def test_a_signature_is_good_for_one_challenge_once(proving: Proving) -> None:
    member, key = proving.member(), Key()
    device = proving.device(member, key)
    proving.clock.advance(HOURS_72)
    first = proving.start(member, "payee", {"name": "Aline"}, method="device")
    second = proving.start(member, "payee", {"name": "Aline"}, method="device")
    proof = signed(first, device, key)
    proving.prove(member, proof, "payee", {"name": "Aline"})
    for challenge in (first, second):
        replayed = Proof(challenge.id, device=device.id, signature=proof.signature)
        with pytest.raises(ProofRefused):
            proving.prove(member, replayed, "payee", {"name": "Aline"})


def test_what_is_not_a_signature_of_this_device_is_refused(proving: Proving) -> None:
    member, key, other = proving.member(), Key(), Key()
    device = proving.device(member, key)
    proving.clock.advance(HOURS_72)
    good = signed(proving.start(member, method="device"), device, key).signature or b""
    for signature in (b"", b"\0" * 64, b"\xff" * 64, good[:-1], good + b"\0", good[32:] + good[:32]):
        started = proving.start(member, method="device")
        with pytest.raises(ProofRefused):
            proving.prove(member, Proof(started.id, device=device.id, signature=signature))
        proving.clock.advance(timedelta(minutes=10))
    started = proving.start(member, method="device")
    with pytest.raises(ProofRefused):
        proving.prove(member, signed(started, device, other))
    with pytest.raises(ProofRefused):
        proving.prove(member, Proof(started.id))
    # 000000 is not the code of a challenge that has none
    with pytest.raises(ProofRefused):
        proving.prove(member, Proof(started.id, code="000000"))


def test_the_old_contact_is_told_at_once_and_an_older_device_sees_the_notice(proving: Proving) -> None:
    member = proving.member()
    device = proving.device(member, Key())
    with proving.databases.worker.begin() as tx:
        (notice,) = waiting.notices_of(tx, member)
        (outbound,) = waiting.messages_due(tx, proving.world.keyring, proving.clock.now())
    assert (notice.kind, notice.change_id, notice.sent_at) == ("device", device.change_id, None)
    assert outbound.message.to == member.phone
    assert f"{PUBLIC_URL}/stop/" in outbound.message.text
    assert "2026-03-05 09:30" in outbound.message.text


def test_a_revoked_device_proves_nothing_from_that_moment(proving: Proving) -> None:
    member, key = proving.member(), Key()
    device = proving.device(member, key)
    proving.clock.advance(HOURS_72)
    started = proving.start(member, method="device")
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        devices.revoke(tx, proving.world.keyring, member, device.id, proving.clock.now())
    with pytest.raises(ProofRefused):
        proving.prove(member, signed(started, device, key))
    with proving.databases.api.begin() as tx:
        speak_for(tx, member.partner_id)
        assert devices.devices_of(tx, proving.world.keyring, member, proving.clock.now()) == []
        with pytest.raises(NotFound):
            devices.revoke(tx, proving.world.keyring, member, device.id, proving.clock.now())
    # the same key, registered again, waits again
    assert proving.device(member, key).state == "waiting"


def test_the_same_key_twice_is_one_device_whose_wait_goes_on(proving: Proving) -> None:
    member, key = proving.member(), Key()
    first = proving.device(member, key)
    proving.clock.advance(timedelta(hours=71))
    assert proving.device(member, key).effective_at == first.effective_at
    made: list[object] = []
    other = Key()
    at_once(*[lambda: made.append(proving.device(member, other).id)] * 4)
    assert len(set(made)) == 1


def test_a_device_belongs_to_one_member_of_one_partner(proving: Proving) -> None:
    member, key = proving.member(), Key()
    device = proving.device(member, key)
    other = proving.member(1, partner=proving.world.bolt)
    proving.clock.advance(HOURS_72)
    with pytest.raises(NoWayToProve):
        proving.start(other, method="device")
    started = proving.start(other)
    with pytest.raises(ProofRefused):
        proving.prove(other, signed(started, device, key))
    with proving.databases.api.begin() as tx:
        speak_for(tx, proving.world.bolt)
        assert tx.execute(text("SELECT count(*) FROM products.device")).scalar_one() == 0
        with pytest.raises(NotFound):
            devices.revoke(tx, proving.world.keyring, other, device.id, proving.clock.now())


def test_a_member_has_ten_devices_at_most(proving: Proving) -> None:
    member = proving.member()
    for _ in range(devices.DEVICES_MAX):
        proving.device(member, Key())
    with pytest.raises(TooManyDevices):
        proving.device(member, Key())


def test_only_a_public_point_of_the_curve_is_a_key() -> None:
    good = Key().jwk
    one = base64url((1).to_bytes(32, "big"))
    for bad in (
        {},
        good | {"crv": "P-384"},
        good | {"kty": "OKP"},
        good | {"d": one},
        good | {"x": one, "y": one},
        good | {"x": 5},
        good | {"x": "!" * 43},
        good | {"x": base64url(b"\0" * 33)},
        {name: value for name, value in good.items() if name != "y"},
    ):
        with pytest.raises(InvalidKey):
            devices.point_of(bad)
    assert len(devices.point_of(good)) == 65


def test_what_is_signed_is_as_documented(proving: Proving) -> None:
    member = proving.member()
    started = proving.start(member, "payee", {"name": "Aline"})
    signed_text = challenges.signed_bytes(started.id, started.nonce, "payee", started.subject_digest).decode()
    prefix, challenge, nonce, purpose, digest = signed_text.split("\n")
    assert (prefix, purpose) == ("mizan-proof-1", "payee")
    assert challenge.startswith("chl_")
    assert (len(nonce), len(digest)) == (64, 64)
