"""Certifying a claim pack: recorded by one manager as the sponsor wrote it, and approved by another."""

from datetime import date
from typing import Final
from uuid import UUID

from api.approvals.service import NOWHERE, Origin, Payload, Request, file, register
from api.auth.actors import Actor
from api.bootstrap import Services
from ledger.database import Tx
from ledger.ids import parse_public_id
from products.claims import packs
from products.claims.packs import PREFIX, ClaimClosed

KIND: Final = "claim_certification"


def request_certification(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    pack_id: UUID,
    *,
    sha256: str,
    reference: str,
    certified_on: date,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a pack to be certified: by which file's digest, under which reference of the sponsor's, and when.

    Raises `NotFound`, and `ClaimClosed` for a pack that is certified or withdrawn, or of another digest.
    """
    pack = packs.pack_of(tx, pack_id)
    if pack.digest.hex() != sha256.lower():
        raise ClaimClosed("The sponsor certified another file than this pack's.")
    if pack.state != "made":
        raise ClaimClosed(f"The pack is {pack.state} already.")
    payload = {
        "pack": pack.public_id,
        "sponsor": pack.sponsor,
        "number": pack.number,
        "total": pack.total,
        "currency": pack.currency,
        "sha256": sha256.lower(),
        "reference": reference,
        "certified_on": certified_on.isoformat(),
    }
    return file(
        tx,
        services,
        actor,
        KIND,
        payload,
        "",
        object_=pack.public_id,
        programme_id=pack.programme_id,
        origin=origin,
    )


def _execute(tx: Tx, services: Services, payload: Payload) -> Payload:
    pack = packs.certify(
        tx,
        services.books,
        parse_public_id(PREFIX, payload["pack"]),
        digest=bytes.fromhex(payload["sha256"]),
        reference=payload["reference"],
        certified_on=date.fromisoformat(payload["certified_on"]),
    )
    return {"pack": pack.public_id, "state": pack.state}


register(
    KIND,
    roles=frozenset({"manager"}),
    execute=_execute,
    describe=lambda payload: (
        f"Record that {payload['sponsor']} certified claim {payload['number']}: {payload['total']} {payload['currency']}"
        " in minor units."
    ),
    refused=None,
)
