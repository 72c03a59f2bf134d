"""Requests to close a programme's month, and to open it again: two persons answer for both."""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, Final
from uuid import UUID

from api import closing
from api.approvals.service import (
    NOWHERE,
    Origin,
    Payload,
    Request,
    file,
    kind_of_name,
    may_ask,
    register,
    require_person,
)
from api.auth.actors import Actor
from api.auth.scopes import Role
from api.bootstrap import Services
from ledger.audit import Act
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from products.closing import close
from products.closing.period import Period, find, label, month_of

CLOSE: Final = "month_close"
REOPEN: Final = "month_reopen"
MANAGERS: Final[frozenset[Role]] = frozenset({"manager"})


def request_close(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    programme: str,
    month: date,
    remark: str,
    programmes: Collection[UUID] | None = None,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a month to be closed: its check-list is judged now, and again when it is closed.

    Raises NotFound, `PeriodNotOver`, `NotNext`, `NotGreen`.
    """
    period = _period(tx, actor, CLOSE, programme, month, programmes)
    period.require_over(services.clock.now())
    close.require_next(tx, period)
    judged = closing.judge(tx, services, period)
    if not judged.green:
        raise close.NotGreen(judged)
    return file(
        tx,
        services,
        actor,
        CLOSE,
        {"programme": programme, "month": period.label, "remark": remark, "checklist": judged.digest},
        remark,
        object_=f"{programme}/{period.label}",
        programme_id=period.programme_id,
        origin=origin,
        # judged anew, an open request may have another check-list: it is the same request all the same
        join=True,
    )


def _execute_close(tx: Tx, services: Services, payload: Payload) -> Payload:
    def act(programme_id: UUID, object_: str, detail: Mapping[str, Any]) -> Act:
        approver: str = payload["approved_by"]
        return Act(
            approver,
            kind_of_name(approver),
            closing.CLOSED,
            object_,
            "done",
            detail=detail,
            programme_id=programme_id,
        )

    done = closing.close_month(
        tx,
        services,
        payload["programme"],
        month_of(payload["month"]),
        actor=_both(payload),
        remark=payload["remark"],
        act=act,
    )
    return {
        "programme": payload["programme"],
        "month": payload["month"],
        "revision": done.revision,
        "digest": done.digest.hex(),
    }


def request_reopen(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    programme: str,
    month: date,
    reason: str,
    programmes: Collection[UUID] | None = None,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a month, and those after it, to be opened again. Raises `SecondPersonRequired` for a client."""
    require_person(actor)
    period = _period(tx, actor, REOPEN, programme, month, programmes)
    if not reason.strip():
        raise InvalidInput("reopening a month needs a reason", pointer="/reason")
    if all(fund.closed_through < period.month for fund in period.funds):
        raise Conflict(f"{period.label} is not closed.")
    return file(
        tx,
        services,
        actor,
        REOPEN,
        {"programme": programme, "month": period.label, "reason": reason},
        reason,
        object_=f"{programme}/{period.label}",
        programme_id=period.programme_id,
        origin=origin,
    )


def _execute_reopen(tx: Tx, services: Services, payload: Payload) -> Payload:
    superseded = close.reopen(
        tx,
        payload["programme"],
        month_of(payload["month"]),
        actor=_both(payload),
        reason=payload["reason"],
        clock=services.clock,
    )
    return {
        "programme": payload["programme"],
        "month": payload["month"],
        "superseded": [f"{label(one.month)} revision {one.revision}" for one in superseded],
    }


def _period(
    tx: Tx,
    actor: Actor | str,
    kind: str,
    programme: str,
    month: date,
    programmes: Collection[UUID] | None,
) -> Period:
    period = find(tx, programme, month, programmes=programmes)
    if not may_ask(actor, kind, period.programme_id):
        raise NotFound("There is no such programme.")
    return period


def _both(payload: Payload) -> str:
    return f"{payload['requested_by']}, approved by {payload['approved_by']}"


register(
    CLOSE,
    roles=MANAGERS,
    execute=_execute_close,
    describe=lambda payload: f"Close {payload['month']} of {payload['programme']}, with its pack.",
)
register(
    REOPEN,
    roles=MANAGERS,
    execute=_execute_reopen,
    describe=lambda payload: (
        f"Open {payload['month']} of {payload['programme']} again, and what was closed after it."
    ),
)
