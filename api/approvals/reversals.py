"""Taking back what a partner has paid in: asked for by the partner, decided by a manager."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from api.approvals.service import NOWHERE, Origin, Payload, Request, Stale, file, register
from api.auth.actors import Actor
from api.bootstrap import Services
from integrations.inbox import decided
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import parse_public_id, public_id
from products.remittances.events import RemittanceReversed
from products.remittances.process import Delivery, process

KIND: Final = "remittance_reversal"
FILED_TOGETHER_MAX: Final = 200


def request_reversal(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    remittance_id: UUID,
    event: RemittanceReversed,
    *,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a reversal that the partner may not do by itself; one request of a remittance is open at a time."""
    programme = tx.execute(
        text("SELECT programme_id FROM products.remittance WHERE id = :id"), {"id": remittance_id}
    ).scalar_one()
    return file(
        tx,
        services,
        actor,
        KIND,
        {
            "remittance": public_id("rmt", remittance_id),
            "reversed_at": event.reversed_at.isoformat(),
            "reason": event.reason,
        },
        "",
        object_=public_id("rmt", remittance_id),
        programme_id=programme,
        join=True,
        origin=origin,
    )


def request_parked(tx: Tx, services: Services) -> int:
    """Ask for every reversal that waits in the inbox without a request; how many. As the worker."""
    filed = 0
    for parked in decided.parked_reversals(tx, limit=FILED_TOGETHER_MAX):
        known = tx.execute(
            text(
                "SELECT 1 FROM api.approval_request WHERE kind = :kind AND object = :object AND state = 'requested'"
                " AND expires_at > :now"
            ),
            {
                "kind": KIND,
                "object": public_id("rmt", parked.remittance_id),
                "now": services.clock.now(),
            },
        ).first()
        event = None if known else decided.reversal_of(tx, services.keyring, parked)
        if event is not None:
            request_reversal(tx, services, public_id("ptn", parked.partner_id), parked.remittance_id, event)
            filed += 1
    return filed


def _execute(tx: Tx, services: Services, payload: Payload) -> Payload:
    remittance_id = parse_public_id("rmt", payload["remittance"])
    row = tx.execute(
        text("SELECT partner_id, remittance_id FROM products.remittance WHERE id = :id"),
        {"id": remittance_id},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such remittance.")
    event = RemittanceReversed(
        row.remittance_id, datetime.fromisoformat(payload["reversed_at"]), payload["reason"]
    )
    [verdict] = process(tx, [Delivery(None, row.partner_id, event, approved=True)], books=services.books)
    if verdict.state != "reversed":
        raise Stale(f"It can't be reversed now: {verdict.reason or verdict.state}.")
    _finish(tx, services, remittance_id, payload, approved=True)
    transaction = tx.execute(
        text("SELECT reversal_transaction_id FROM products.remittance WHERE id = :id"), {"id": remittance_id}
    ).scalar_one()
    return {"transaction": public_id("txn", transaction) if transaction else None}


def _refused(tx: Tx, services: Services, payload: Payload) -> None:
    _finish(tx, services, parse_public_id("rmt", payload["remittance"]), payload, approved=False)


def _finish(tx: Tx, services: Services, remittance_id: UUID, payload: Payload, *, approved: bool) -> None:
    decided.finish(
        tx,
        remittance_id,
        approved=approved,
        detail={"approval": payload["approval"], "approved": approved},
        clock=services.clock,
    )


register(
    KIND,
    roles=frozenset({"manager"}),
    execute=_execute,
    describe=lambda payload: f"Reverse remittance {payload['remittance']}, which its partner has paid in.",
    refused=_refused,
)
