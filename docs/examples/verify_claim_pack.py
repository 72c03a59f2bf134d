"""Check a claim pack offline, with published keys alone: python verify_claim_pack.py PACK.jsonl SEALS.json

SEALS.json is what /.well-known/mizan-seals answered, kept since then where nobody else can change it. Needs cryptography.
The file's last line holds the SHA-256 of all that stands before it, and an Ed25519 signature over the format's name, a zero
byte and that digest. The totals in the first line are those of the lines between.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = b"mizan-claim-pack-1"


class NotProven(Exception):
    """The pack proves nothing; the text says why."""


def verify(pack: bytes, published: dict[str, Any]) -> dict[str, Any]:
    """The header of a pack that a key of `published` signed exactly so, with totals that are its lines'."""
    end = pack.rstrip(b"\n").rfind(b"\n") + 1
    content, last = pack[:end], pack[end:]
    try:
        signature = json.loads(last)
        digest = sha256(content).digest()
        if digest.hex() != signature["sha256"]:
            raise NotProven("the lines are not the ones that were signed")
        key = bytes.fromhex(published["keys"].get(signature["key_id"], ""))
        if sha256(key).hexdigest()[:32] != signature["key_id"]:
            raise NotProven("no key that you trust signed the pack")
        Ed25519PublicKey.from_public_bytes(key).verify(
            bytes.fromhex(signature["signature"]), FORMAT + b"\0" + digest
        )
        header, *lines = (json.loads(line) for line in content.splitlines())
        return tied(header, lines)
    except InvalidSignature:
        raise NotProven("the signature is not the key's") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotProven(f"not a claim pack: {error!r}") from None


def tied(header: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The header, if its totals are those of the lines; raises `NotProven`."""
    if header["format"].encode() != FORMAT:
        raise NotProven("another format")
    claimed = sum(line["amount"] for line in lines if line["kind"] == "match")
    adjusted = -sum(line["amount"] for line in lines if line["kind"] == "adjustment")
    told = (header["lines"] + header["adjustments"], header["claimed"], header["adjusted"], header["total"])
    if told != (len(lines), claimed, adjusted, claimed - adjusted):
        raise NotProven("the totals are not those of the lines")
    if [line["position"] for line in lines] != list(range(1, len(lines) + 1)):
        raise NotProven("a line is missing, or comes twice")
    return header


if __name__ == "__main__":
    try:
        shown = verify(Path(sys.argv[1]).read_bytes(), json.loads(Path(sys.argv[2]).read_text()))
    except NotProven as why:
        sys.exit(f"NOT PROVEN: {why}")
    print(
        f"proven: claim {shown['number']} from {shown['sponsor']}: {shown['lines']} lines and {shown['adjustments']}"
        f" adjustments, {shown['total']} {shown['currency']} in minor units"
    )
