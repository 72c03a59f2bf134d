"""Ending a break of more than the programme's limit: one manager confirms what was previewed, and another approves."""

from typing import Final
from uuid import UUID

from api.approvals.service import NOWHERE, Origin, Payload, Request, file, register
from api.auth.actors import Actor
from api.auth.scopes import Role
from api.bootstrap import Services
from ledger.database import Tx
from ledger.ids import parse_public_id, public_id
from products.reconciliation.breaks import resolve

KIND: Final = "break_resolution"
BREAK: Final = "brk"
"""Of the public ids of breaks."""
RESOLUTION: Final = "brs"
"""Of the public ids of their resolutions."""
MANAGERS: Final[frozenset[Role]] = frozenset({"manager"})


def request_resolution(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    resolution_id: UUID,
    *,
    digest: bytes,
    remark: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a resolution as it was previewed; one of a break is asked for at a time. Raises as `resolve.confirm` does."""
    name = actor.id if isinstance(actor, Actor) else actor
    asked = resolve.request(tx, services.clock, resolution_id, digest=digest, remark=remark, actor=name)
    found = resolve.lock(tx, asked.break_id)
    return file(
        tx,
        services,
        actor,
        KIND,
        {
            "resolution": public_id(RESOLUTION, resolution_id),
            "break": public_id(BREAK, asked.break_id),
            "type": found.type,
            "method": asked.method,
            "amount": asked.amount,
            "currency": found.currency,
            "digest": digest.hex(),
        },
        remark,
        object_=public_id(BREAK, asked.break_id),
        programme_id=found.programme_id,
        origin=origin,
    )


def _execute(tx: Tx, services: Services, payload: Payload) -> Payload:
    resolution_id = parse_public_id(RESOLUTION, payload["resolution"])
    asked = resolve.resolution(tx, resolution_id)
    done = resolve.confirm(
        tx,
        services.books,
        resolution_id,
        digest=bytes.fromhex(payload["digest"]),
        remark=asked.remark or "",
        actor=payload["requested_by"],
        approved_by=payload["approved_by"],
    )
    return {
        "resolution": payload["resolution"],
        "transactions": [public_id("txn", one) for one in done.transactions],
    }


def _refused(tx: Tx, services: Services, payload: Payload) -> None:
    resolve.refuse(
        tx, services.clock, parse_public_id(RESOLUTION, payload["resolution"]), actor=payload["approval"]
    )


register(
    KIND,
    roles=MANAGERS,
    execute=_execute,
    describe=lambda payload: (
        f"End a break ({payload['type']}) by {payload['method']}: {payload['amount']} minor units of {payload['currency']}."
    ),
    refused=_refused,
)
