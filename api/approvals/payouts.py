"""What two operators decide about payouts: releasing one above its rail's limit, and what became of one that no rail answers for."""

from typing import Final, get_args
from uuid import UUID

from sqlalchemy import text

from api.approvals.service import (
    NOWHERE,
    REMARK_CHARACTERS_MAX,
    Origin,
    Payload,
    Request,
    Stale,
    file,
    may_ask,
    register,
)
from api.auth.actors import Actor
from api.bootstrap import Services
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import parse_public_id, public_id
from products.payouts import approve, resolve
from products.payouts.errors import WrongState
from products.payouts.resolve import Finding
from products.reconciliation.suggestions import returned_on

RELEASE: Final = "payout_release"
RESOLUTION: Final = "payout_resolution"


def request_release(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    payout_id: UUID,
    remark: str,
    *,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a payout above its rail's limit to be released. Raises NotFound, `WrongState`, and what `file` raises."""
    state, programme_id = _standing(tx, actor, RELEASE, payout_id)
    if state != "awaiting_operators":
        raise WrongState(f"The payout is {state}: it waits for no operator.")
    return file(
        tx,
        services,
        actor,
        RELEASE,
        {"payout": public_id("pay", payout_id)},
        remark,
        object_=public_id("pay", payout_id),
        programme_id=programme_id,
        origin=origin,
    )


def request_resolution(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    payout_id: UUID,
    finding: Finding,
    evidence: str,
    *,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a payout to be brought to what was found out. ``evidence`` says where the proof is kept."""
    if finding not in get_args(Finding):
        raise InvalidInput(f"A finding is one of {', '.join(get_args(Finding))}.", pointer="/finding")
    if not 0 < len(evidence.strip()) <= REMARK_CHARACTERS_MAX:
        raise InvalidInput(f"Evidence has 1 to {REMARK_CHARACTERS_MAX} characters.", pointer="/evidence")
    state, programme_id = _standing(tx, actor, RESOLUTION, payout_id)
    if state not in ("submitted", "in_transit", "unknown", "paid", "failed", "returned"):
        raise WrongState(f"The payout is {state}: no rail has it.")
    return file(
        tx,
        services,
        actor,
        RESOLUTION,
        {"payout": public_id("pay", payout_id), "finding": finding, "evidence": evidence},
        evidence,
        object_=public_id("pay", payout_id),
        programme_id=programme_id,
        origin=origin,
    )


def _standing(tx: Tx, actor: Actor | str, kind: str, payout_id: UUID) -> tuple[str, UUID]:
    """The state and programme of a payout that the actor may ask this of."""
    row = tx.execute(
        text("SELECT state, programme_id FROM products.payout WHERE id = :id"), {"id": payout_id}
    ).one_or_none()
    if row is None or not may_ask(actor, kind, row.programme_id):
        raise NotFound("There is no such payout.")
    return row.state, row.programme_id


def _release(tx: Tx, services: Services, payload: Payload) -> Payload:
    try:
        approve.release(
            tx, services.books, parse_public_id("pay", payload["payout"]), actor=payload["approved_by"]
        )
    except WrongState as refused:
        raise Stale(refused.detail) from refused
    return {"payout": payload["payout"]}


def _refused(tx: Tx, services: Services, payload: Payload) -> None:
    try:
        approve.refuse_release(
            tx, services.books, parse_public_id("pay", payload["payout"]), actor=payload["approval"]
        )
    except WrongState:
        return  # it was cancelled or expired meanwhile: there is nothing left to give up


def _resolve(tx: Tx, services: Services, payload: Payload) -> Payload:
    payout = parse_public_id("pay", payload["payout"])
    finding = payload["finding"]
    try:
        resolve.resolve(
            tx,
            services.books,
            payout,
            finding,
            actor=payload["approved_by"],
            # when it was decided is no matter of the books: the money was back when the bank had it
            booked_on=returned_on(tx, payout) if finding == "returned" else None,
        )
    except Conflict as refused:
        raise Stale(refused.detail) from refused
    return {"payout": payload["payout"], "finding": payload["finding"]}


register(
    RELEASE,
    roles=frozenset({"manager"}),
    execute=_release,
    describe=lambda payload: f"Release payout {payload['payout']}, which is above its rail's limit.",
    refused=_refused,
)
register(
    RESOLUTION,
    roles=frozenset({"manager"}),
    execute=_resolve,
    describe=lambda payload: f"Find payout {payload['payout']} {payload['finding']}: {payload['evidence']}",
)
