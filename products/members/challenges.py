"""What a member is asked to prove: that it is they who want exactly this, now.

A challenge is bound to the link (the ``mem_`` id) that it was started for, to a purpose, and to a digest of the action's
canonical JSON. It is answered once, within 10 minutes and in at most 5 tries, by a six-digit code that Mizan sends to
the member's phone, or by an ES256 signature of a device that the member registered (`products.members.devices`).

Of a code only an HMAC under the deployment's key and the challenge's id is kept. Every answer is counted first, in a
transaction of its own, then judged: neither a rollback nor twenty answers at one moment buy a sixth try.

Sending happens outside: `start` returns the message, the caller commits, then sends it with a `CodeSender` and records
what became of it (`sent`). A code that is lost is asked for again.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, get_args
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx, apart
from ledger.errors import Conflict, InvalidInput, MizanError
from ledger.ids import new_id, public_id
from products.keyring import Keyring
from products.members import devices, waiting
from products.members.messages import CodeMessage, code_text, language_of
from products.members.models import Member

Purpose = Literal[
    "device", "phone", "new_phone", "payee", "link", "consent", "erasure", "export", "cancel", "payout"
]
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
Method = Literal["code", "device"]

LIFETIME: Final = timedelta(minutes=10)
TRIES_MAX: Final = 5
OPEN_MAX: Final = 5
"""Challenges of one link that may be open at once."""
CODES_PER_DAY_MAX: Final = 10
"""Codes that one partner may have sent for one link, and to one phone, in 24 hours."""
CODES_PER_PHONE_MAX: Final = 15
"""Codes sent to one phone in 24 hours, whichever partners ask for them: one partner alone can't use them up."""
DAY: Final = timedelta(days=1)
NONCE_BYTES: Final = 32
CODE_DIGITS: Final = 6
SIGNED_PREFIX: Final = "mizan-proof-1"

_MAC_PURPOSE: Final = "proof code"
_PHONE_PURPOSE: Final = "proof phone"


class ProofRefused(InvalidInput):
    """The proof does not prove this: a wrong code or signature, too many tries, too late, used, or for something else."""

    code = "proof_refused"


class TooManyChallenges(MizanError):
    """The member has as many open challenges, or was sent as many codes today, as is good for anyone."""

    code = "too_many_challenges"
    status = 429

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class NoWayToProve(Conflict):
    """The member has no phone for a code, or no device in effect that could sign."""

    code = "no_way_to_prove"


class CodeNotSent(Exception):
    """A `CodeSender` could not hand the message over. Says why in a word for the log, and nothing of the message."""


class CodeSender(Protocol):
    """The port through which members are written to: an SMS gateway, a terminal, a file.

    Called outside any database transaction. `to` is an E.164 number, `language` that of `text` (ISO 639-1).
    """

    def send(self, to: str, text: str, language: str) -> None:
        """Hand one message over. Raises `CodeNotSent`."""
        ...


@dataclass(frozen=True, slots=True)
class Started:
    """A challenge as its asker sees it. `sent_to` is masked; `outbound` is sent after the commit, if there is one."""

    id: UUID
    purpose: Purpose
    method: Method
    nonce: bytes
    subject_digest: bytes
    expires_at: datetime
    sent_to: str | None
    outbound: CodeMessage | None


@dataclass(frozen=True, slots=True)
class Proof:
    """A member's answer to a challenge: the code, or a device and its ES256 signature (64 bytes, r and s)."""

    challenge: UUID
    code: str | None = None
    device: UUID | None = None
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class Proven:
    """What was proven, by which means, and when."""

    challenge: UUID
    purpose: Purpose
    method: Method
    device: UUID | None
    at: datetime


def subject_digest(member: Member, purpose: Purpose, action: Mapping[str, object]) -> bytes:
    """SHA-256 of what is to be proven, in canonical JSON (sorted keys, no spaces, UTF-8).

    `action` is the body of the request that will carry the proof, without its proofs.
    """
    whole = {"action": action, "member": public_id("mem", member.link_id), "purpose": purpose}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).digest()


def signed_bytes(challenge: UUID, nonce: bytes, purpose: str, digest: bytes) -> bytes:
    """What a device signs: five lines of ASCII, each ended by a line feed but the last."""
    lines = (SIGNED_PREFIX, public_id("chl", challenge), nonce.hex(), purpose, digest.hex())
    return "\n".join(lines).encode("ascii")


def from_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url. Raises InvalidInput."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise InvalidInput("Not base64url.", pointer="/proof/signature") from None


def masked(phone: str) -> str:
    """A phone number of which the country and the last two digits are left."""
    return f"{phone[:4]}{'•' * max(len(phone) - 6, 1)}{phone[-2:]}"


def start(
    tx: Tx,
    keyring: Keyring,
    member: Member,
    purpose: Purpose,
    subject_digest: bytes,
    clock: Clock,
    *,
    method: Method = "code",
    to: str | None = None,
    tail: str = "",
) -> Started:
    """Ask a member for proof. With the method `code` a message comes back that has to be sent after the commit.

    `to` is the phone to confirm where it is not the member's (`new_phone`); `tail` is the end of the number that the
    message is about. A phone that has had enough codes today gets none, and nobody is told: the answer is the same, as
    what other partners asked for is not this one's business.

    Raises:
        NoWayToProve: the member has no phone (`code`), or no device in effect (`device`).
        TooManyChallenges: of this link, open or today.
    """
    now = clock.now()
    phone = to or waiting.phone_in_effect(tx, keyring, member, now)
    if method == "code" and phone is None:
        raise NoWayToProve("The member has no phone that a code could be sent to.")
    if method == "device" and not devices.effective(tx, keyring, member, now):
        raise NoWayToProve("The member has no device in effect.")
    number = phone if method == "code" else None
    index = keyring.blind_index(_PHONE_PURPOSE, number) if number is not None else None
    _respect_limits(tx, member, index, now)
    challenge = new_id()
    code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    nonce = secrets.token_bytes(NONCE_BYTES)
    withheld = index is not None and _had_enough(tx, index, now)
    tx.execute(
        text(
            "INSERT INTO products.challenge (id, link_id, purpose, subject_digest, method, nonce, code_mac, phone_index,"
            " sending, created_at, expires_at) VALUES (:id, :link, :purpose, :digest, :method, :nonce, :mac, :phone,"
            " :sending, :at, :expires)"
        ),
        {
            "id": challenge,
            "link": member.link_id,
            "purpose": purpose,
            "digest": subject_digest,
            "method": method,
            "nonce": nonce,
            "mac": _mac(keyring.derive(_MAC_PURPOSE), challenge, code) if number is not None else None,
            "phone": index,
            "sending": "none" if number is None else "withheld" if withheld else "asked",
            "at": now,
            "expires": now + LIFETIME,
        },
    )
    outbound = None
    if number is not None and not withheld:
        language = language_of(member)
        outbound = CodeMessage(number, code_text(language, code, purpose, tail), language)
    sent_to = masked(number) if number is not None else None
    return Started(challenge, purpose, method, nonce, subject_digest, now + LIFETIME, sent_to, outbound)


def sent(tx: Tx, challenge: UUID, *, successfully: bool) -> None:
    """Record what became of a challenge's message, once it was sent or could not be."""
    tx.execute(
        text("UPDATE products.challenge SET sending = :sending WHERE id = :id AND sending = 'asked'"),
        {"id": challenge, "sending": "sent" if successfully else "failed"},
    )


def prove(
    tx: Tx,
    keyring: Keyring,
    member: Member,
    proof: Proof,
    purpose: Purpose,
    subject_digest: bytes,
    clock: Clock,
) -> Proven:
    """Take a member's answer: the challenge is used, in `tx`, and what it proves may be done in the same transaction.

    A challenge is answerable once its own transaction committed. The try is counted whatever becomes of `tx`.

    Raises:
        ProofRefused: there is no such challenge of this link, or the answer does not prove this.
    """
    now = clock.now()
    row = tx.execute(
        text(
            "SELECT purpose, subject_digest, method, nonce, code_mac, expires_at, used_at FROM products.challenge"
            " WHERE id = :id AND link_id = :link"
        ),
        {"id": proof.challenge, "link": member.link_id},
    ).one_or_none()
    if row is None:
        raise _refused("There is no such challenge of this member.")
    with apart(tx) as own:
        tries = own.execute(text("SELECT products.take_try(:id)"), {"id": proof.challenge}).scalar_one()
    if tries is None or tries > TRIES_MAX:
        raise _refused("The challenge has had too many tries: start a new one.")
    if row.used_at is not None or now >= row.expires_at:
        raise _refused("The challenge was used or has expired: start a new one.")
    if row.purpose != purpose or not hmac.compare_digest(bytes(row.subject_digest), subject_digest):
        raise _refused("The challenge was started for something else than this request.")
    method: Method = "code" if proof.code is not None else "device"
    if not (
        _code_is_right(keyring, proof, row.code_mac)
        if proof.code is not None
        else _signature_is_right(tx, keyring, member, proof, bytes(row.nonce), purpose, subject_digest, now)
    ):
        raise _refused(f"The {'code' if method == 'code' else 'signature'} is wrong.")
    used = tx.execute(
        text(
            "UPDATE products.challenge SET used_at = :at WHERE id = :id AND used_at IS NULL AND :at < expires_at RETURNING id"
        ),
        {"id": proof.challenge, "at": now},
    ).one_or_none()
    if used is None:
        raise _refused("The challenge was used or has expired: start a new one.")
    return Proven(proof.challenge, purpose, method, proof.device, now)


def _refused(detail: str) -> ProofRefused:
    return ProofRefused(detail, pointer="/proof")


def _code_is_right(keyring: Keyring, proof: Proof, mac: bytes | None) -> bool:
    # a challenge for a device has no code: the comparison is made all the same, with what nothing equals
    expected = bytes(mac) if mac is not None else bytes(32)
    # while the master key is rotated, the code may have been sent by a process with another current key
    keys = (keyring.derive(_MAC_PURPOSE), *keyring.derived_before(_MAC_PURPOSE))
    macs = [_mac(key, proof.challenge, proof.code or "") for key in keys]
    return any(hmac.compare_digest(mac, expected) for mac in macs)


def _signature_is_right(
    tx: Tx,
    keyring: Keyring,
    member: Member,
    proof: Proof,
    nonce: bytes,
    purpose: str,
    digest: bytes,
    now: datetime,
) -> bool:
    if proof.device is None or proof.signature is None:
        return False
    message = signed_bytes(proof.challenge, nonce, purpose, digest)
    return any(
        device.id == proof.device and device.signed(message, proof.signature)
        for device in devices.effective(tx, keyring, member, now)
    )


def _mac(key: bytes, challenge: UUID, code: str) -> bytes:
    return hmac.digest(key, challenge.bytes + code.encode(), hashlib.sha256)


def _respect_limits(tx: Tx, member: Member, phone_index: bytes | None, now: datetime) -> None:
    """Refuse what is too much from one partner. Two at once wait for each other here, so that both count."""
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('mizan challenge ' || :link, 0))"),
        {"link": str(member.link_id)},
    )
    row = tx.execute(
        text(
            "SELECT count(*) FILTER (WHERE used_at IS NULL AND expires_at > :now) AS open,"
            " min(expires_at) FILTER (WHERE used_at IS NULL AND expires_at > :now) AS closes"
            " FROM products.challenge WHERE link_id = :link AND created_at > :since"
        ),
        {"link": member.link_id, "now": now, "since": now - LIFETIME},
    ).one()
    if row.open >= OPEN_MAX:
        raise TooManyChallenges(
            f"The member has {row.open} open challenges: answer one, or wait until it expires.",
            _seconds(row.closes - now),
        )
    if phone_index is None:
        return
    codes = tx.execute(
        text(
            "SELECT count(*) FILTER (WHERE c.link_id = :link) AS of_link, count(*) FILTER (WHERE c.phone_index = :phone)"
            " AS to_phone, min(c.created_at) AS oldest FROM products.challenge c"
            " JOIN products.member_link l ON l.id = c.link_id WHERE (c.link_id = :link OR c.phone_index = :phone)"
            " AND l.partner_id = :partner AND c.method = 'code' AND c.created_at > :since"
        ),
        {
            "link": member.link_id,
            "phone": phone_index,
            "partner": member.partner_id,
            "since": now - DAY,
        },
    ).one()
    if max(codes.of_link, codes.to_phone) >= CODES_PER_DAY_MAX:
        raise TooManyChallenges(
            f"At most {CODES_PER_DAY_MAX} codes are sent for a member, or to a phone, in a day.",
            _seconds(codes.oldest + DAY - now),
        )


def _had_enough(tx: Tx, phone_index: bytes, now: datetime) -> bool:
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('mizan codes ' || :phone, 0))"),
        {"phone": phone_index.hex()},
    )
    sent: int = tx.execute(
        text("SELECT products.codes_sent(:phone, :since)"), {"phone": phone_index, "since": now - DAY}
    ).scalar_one()
    return sent >= CODES_PER_PHONE_MAX


def _seconds(wait: timedelta) -> int:
    return max(1, int(wait.total_seconds()) + 1)
