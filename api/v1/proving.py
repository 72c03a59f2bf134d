"""The member's proof, as a request carries it: an answer to a challenge that was started for exactly this."""

import base64
import binascii
from typing import Annotated, Any

from pydantic import Field, model_validator

from api.deps import Call
from api.v1.schemas import In
from ledger.errors import InvalidId
from ledger.ids import parse_public_id
from products.members import challenges
from products.members.challenges import Proof, ProofRefused, Proven, Purpose
from products.members.models import Member


class ProofIn(In):
    """The member's answer to a challenge: the code that was sent, or a device's signature."""

    challenge: Annotated[str, Field(max_length=64, examples=[f"chl_{'0' * 26}"])]
    code: Annotated[str | None, Field(pattern=r"^[0-9]{6}$", examples=["123456"])] = None
    device: Annotated[str | None, Field(max_length=64)] = None
    signature: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9_-]{86}$", description="ES256, base64url without padding")
    ] = None

    @model_validator(mode="after")
    def _one_answer(self) -> "ProofIn":
        if (self.code is None) == (self.signature is None) or (self.signature is None) != (
            self.device is None
        ):
            raise ValueError("a proof has either a code, or a device and its signature")
        return self

    def proof(self) -> Proof:
        """As the domain knows it. Raises ProofRefused for ids that name nothing."""
        try:
            challenge = parse_public_id("chl", self.challenge)
            device = parse_public_id("dev", self.device) if self.device is not None else None
        except InvalidId:
            raise ProofRefused(
                "The proof names no challenge or device of the member.", pointer="/proof"
            ) from None
        return Proof(challenge, self.code, device, _signature(self.signature))


def proven(call: Call, member: Member, given: ProofIn, purpose: Purpose, action: In | None = None) -> Proven:
    """Check a member's proof of `purpose` for the body `action` (without its proof). Raises ProofRefused."""
    return challenges.prove(
        call.tx,
        call.services.keyring,
        member,
        given.proof(),
        purpose,
        challenges.subject_digest(member, purpose, as_action(action)),
        call.services.clock,
    )


def as_action(body: In | None) -> dict[str, Any]:
    """What a proof is about: the fields that the body gives, in canonical form, without the proof."""
    if body is None:
        return {}
    return body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"proof"})


def _signature(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.urlsafe_b64decode(f"{text}==")
    except binascii.Error:
        raise ProofRefused("The signature is not base64url.", pointer="/proof") from None
