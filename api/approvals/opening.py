"""Requests about opening balances: a load that is to be posted, and one that is to be taken back."""

from typing import Final, Literal

from api.approvals.service import NOWHERE, Origin, Payload, Request, file, may_ask, register
from api.auth.actors import Actor
from api.auth.scopes import Role
from api.bootstrap import Services
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import parse_public_id
from products.opening import load
from products.opening.load import PREFIX, OpeningState

COMMIT: Final = "opening_commit"
TAKE_BACK: Final = "opening_take_back"
MANAGERS: Final[frozenset[Role]] = frozenset({"manager"})


def request(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    kind: Literal["opening_commit", "opening_take_back"],
    opening: str,
    remark: str,
    *,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a load (`opn_…`) to be posted, or taken back. Raises NotFound, `OpeningState`."""
    found = load.by_id(tx, parse_public_id(PREFIX, opening))
    if not may_ask(actor, kind, found.programme_id):
        raise NotFound("There is no such load of opening balances.")
    fits = ("loaded",) if kind == COMMIT else ("loaded", "committing", "committed")
    if found.state not in fits:
        raise OpeningState(f"It is {load.said(found.state)}.")
    return file(
        tx,
        services,
        actor,
        kind,
        {
            "opening": found.public_id,
            "programme": found.programme,
            "name": found.name,
            "sha256": found.digest.hex(),
            "rows": found.rows,
            "reason": remark,
        },
        remark,
        object_=found.public_id,
        programme_id=found.programme_id,
        origin=origin,
    )


def _execute_commit(tx: Tx, services: Services, payload: Payload) -> Payload:
    id_ = parse_public_id(PREFIX, payload["opening"])
    done = load.begin_commit(tx, id_, by=payload["approved_by"], clock=services.clock)
    return {"opening": done.public_id, "state": done.state}


def _execute_take_back(tx: Tx, services: Services, payload: Payload) -> Payload:
    done = load.begin_take_back(
        tx,
        parse_public_id(PREFIX, payload["opening"]),
        by=payload["approved_by"],
        because=payload["reason"],
        clock=services.clock,
    )
    return {"opening": done.public_id, "state": done.state}


register(
    COMMIT,
    roles=MANAGERS,
    execute=_execute_commit,
    describe=lambda payload: (
        f"Open the books of {payload['programme']} with the {payload['rows']} rows of {payload['opening']} (“{payload['name']}”)."
    ),
)
register(
    TAKE_BACK,
    roles=MANAGERS,
    execute=_execute_take_back,
    describe=lambda payload: (
        f"Take the opening balances {payload['opening']} of {payload['programme']} back, {payload['rows']} rows, by reversals."
    ),
)
