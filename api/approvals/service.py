"""What one person asks for and another approves: filed, decided once, and carried out in the approval's own transaction.

A kind says who may ask, who may approve, and what approving does (`register`). Whoever asks never decides: approving and
refusing take another operator, a person at that, with the kind's role and a TOTP not older than five minutes. What has
changed since it was asked for is judged when it is carried out: then it is refused, and the request stays open.
Everything is written into the audit log; a refusal on the way, by the edge, in a transaction of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Row, text

from api import auditing
from api.auth.actors import Actor
from api.auth.scopes import Role
from api.bootstrap import Services
from api.settings import Environment
from ledger.audit import Act
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.horizon import SETTLED, START, Position
from ledger.ids import new_id, parse_public_id, public_id

if TYPE_CHECKING:
    from api.deps import Call

PREFIX: Final = "apr"
LIFETIME: Final = timedelta(days=7)
CONFIRMED_WITHIN: Final = timedelta(minutes=5)
REMARK_CHARACTERS_MAX: Final = 500
PAYLOAD_BYTES_MAX: Final = 512 * 1024
EXPIRED_TOGETHER_MAX: Final = 1_000
_SANDBOX: Final = "sandbox"
"""Who stands for the second person where there need not be one."""

State = Literal["requested", "approved", "refused", "expired", "withdrawn"]
Payload = dict[str, Any]  # JSON, as the kind wrote it
Execute = Callable[[Tx, Services, Payload], Payload]


class SecondPersonRequired(Conflict):
    """Whoever asked for it, or a machine, can't decide it."""

    code = "second_person_required"


class ConfirmationRequired(Conflict):
    """Deciding takes a TOTP given within the last five minutes."""

    code = "confirmation_required"


class RequestClosed(Conflict):
    """The request was decided, withdrawn, or is too old."""

    code = "request_closed"


class RequestOpen(Conflict):
    """Something else is already asked for the same thing, and not decided."""

    code = "request_open"


class Stale(Conflict):
    """What was asked for no longer fits what is there."""

    code = "request_stale"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request. ``roles`` may decide it, ``requesters`` (operators and staff clients) may ask for it.

    ``execute`` carries an approved request out and answers what it made (codes and ids, no personal data). Its payload
    also holds ``approval`` (``apr_…``), ``requested_by`` and ``approved_by``. It raises what forbids it. ``describe``
    says in a line what approving will do. ``refused`` is told of a refusal, where something has to be put back.
    """

    name: str
    roles: frozenset[Role]
    requesters: frozenset[Role]
    execute: Execute
    describe: Callable[[Payload], str]
    refused: Callable[[Tx, Services, Payload], None] | None


KINDS: Final[dict[str, Kind]] = {}


def register(
    kind: str,
    *,
    roles: frozenset[Role],
    execute: Execute,
    describe: Callable[[Payload], str],
    requesters: frozenset[Role] | None = None,
    refused: Callable[[Tx, Services, Payload], None] | None = None,
) -> None:
    """Add a kind of request; those who may decide it may also ask for it, unless ``requesters`` says otherwise."""
    KINDS[kind] = Kind(kind, roles, requesters or roles, execute, describe, refused)


@dataclass(frozen=True, slots=True)
class Origin:
    """From where something was asked or decided: the address and the id of the HTTP request."""

    address: str | None = None
    request_id: str | None = None


NOWHERE: Final = Origin()


def origin_of(call: "Call") -> Origin:
    """Where a request of the API comes from. What it asks for or decides is then audited here, not by the edge."""
    call.request.state.audited = True
    return Origin(call.address, call.request.state.request_id)


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``payload`` is None once its key was destroyed; ``payload_digest`` is of the sealed bytes."""

    id: UUID
    kind: str
    object: str
    programme_id: UUID | None
    payload: Payload | None
    payload_digest: bytes
    remark: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    state: State
    decided_by: str | None
    decided_at: datetime | None
    decision_remark: str | None
    result: Payload | None
    position: Position

    @property
    def public_id(self) -> str:
        """``apr_…``."""
        return public_id(PREFIX, self.id)

    @property
    def description(self) -> str:
        """What approving does, in a line."""
        if self.payload is None:
            return f"{self.kind} of {self.object}"
        return KINDS[self.kind].describe(self.payload)


def file(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    kind: str,
    payload: Payload,
    remark: str,
    *,
    object_: str | None = None,
    programme_id: UUID | None = None,
    origin: Origin = NOWHERE,
    join: bool = False,
) -> Request:
    """Ask for something; as the worker. The same asked again is the request that is open already.

    ``actor`` is the caller, or a name for who is none: a partner's id, ``system``, who runs a command. ``object_`` is
    what it concerns: one request of a kind is open for it at a time; with ``join`` that one is the answer whatever it says.

    Raises:
        NotFound: the operator or staff client holds none of the roles that ask for this kind.
        RequestOpen: something else is asked for the same object.
    """
    if len(remark) > REMARK_CHARACTERS_MAX:
        raise InvalidInput(f"a remark has at most {REMARK_CHARACTERS_MAX} characters", pointer="/remark")
    if not may_ask(actor, kind, programme_id):
        raise NotFound("There is nothing here that you may ask for.")
    now = services.clock.now()
    concerned = object_ or f"{kind}:{sha256(repr(sorted(payload.items())).encode()).hexdigest()[:16]}"
    _expire(tx, services, "AND kind = :kind AND object = :object", {"kind": kind, "object": concerned})
    request_id = new_id()
    sealed = auditing.seal(tx, services.keyring, now, payload, request_id.bytes)
    if len(sealed) > PAYLOAD_BYTES_MAX:
        raise InvalidInput(f"what is asked for has at most {PAYLOAD_BYTES_MAX} bytes")
    inserted = tx.execute(
        text(
            "INSERT INTO api.approval_request (id, kind, object, programme_id, sealed_payload, payload_digest, remark,"
            " requested_by, requested_at, expires_at) VALUES (:id, :kind, :object, :programme, :sealed, :digest,"
            " :remark, :by, :at, :expires) ON CONFLICT (kind, object) WHERE state = 'requested' DO NOTHING"
        ),
        {
            "id": request_id,
            "kind": kind,
            "object": concerned,
            "programme": programme_id,
            "sealed": sealed,
            "digest": sha256(sealed).digest(),
            "remark": remark,
            "by": actor.id if isinstance(actor, Actor) else actor,
            "at": now,
            "expires": now + LIFETIME,
        },
    ).rowcount
    if not inserted:
        return _open_already(tx, services, kind, concerned, None if join else payload)
    filed = one(tx, services, request_id)
    _audit(tx, services, actor, "approval.requested", filed, origin)
    return filed


def _open_already(tx: Tx, services: Services, kind: str, object_: str, payload: Payload | None) -> Request:
    found = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM api.approval_request WHERE kind = :kind AND object = :object"
            " AND state = 'requested'"
        ),
        {"kind": kind, "object": object_},
    ).one_or_none()
    if found is None:
        raise RequestClosed("It was decided at this moment: ask again.")
    standing = _request(tx, services, found)
    if payload is not None and standing.payload != payload:
        raise RequestOpen(f"{standing.public_id} already asks for something else there.")
    return standing


def approve(
    tx: Tx,
    services: Services,
    actor: Actor,
    request_id: UUID,
    *,
    remark: str = "",
    origin: Origin = NOWHERE,
) -> Request:
    """Approve a request and carry it out, in this transaction; as the worker.

    Raises:
        NotFound: no such request, or none that this caller's roles decide.
        SecondPersonRequired, ConfirmationRequired, RequestClosed: as they say.
        MizanError: what forbids it now; the request stays open.
    """
    asked = _deciding(tx, services, actor, request_id)
    payload = _opened(asked)
    made = KINDS[asked.kind].execute(
        tx,
        services,
        payload | {"approval": asked.public_id, "requested_by": asked.requested_by, "approved_by": actor.id},
    )
    return _decide(tx, services, actor, asked, "approved", remark, origin, made)


def refuse(
    tx: Tx,
    services: Services,
    actor: Actor,
    request_id: UUID,
    *,
    remark: str = "",
    origin: Origin = NOWHERE,
) -> Request:
    """Refuse a request. Raises as `approve` does."""
    asked = _deciding(tx, services, actor, request_id)
    put_back = KINDS[asked.kind].refused
    if put_back is not None:
        put_back(tx, services, _opened(asked) | {"approval": asked.public_id})
    return _decide(tx, services, actor, asked, "refused", remark, origin, None)


def carry_out(tx: Tx, services: Services, request: Request) -> Request:
    """Carry a request out without a second person: in the sandbox only, where one person tries things.

    Raises SecondPersonRequired in production, and what forbids it now.
    """
    if services.environment is not Environment.SANDBOX:
        raise SecondPersonRequired("In production another operator approves.")
    asked = _open(services, _locked(tx, services, request.id))
    made = KINDS[asked.kind].execute(
        tx,
        services,
        _opened(asked)
        | {"approval": asked.public_id, "requested_by": asked.requested_by, "approved_by": _SANDBOX},
    )
    return _decide(tx, services, _SANDBOX, asked, "approved", "", NOWHERE, made)


def withdraw(
    tx: Tx, services: Services, actor: Actor, request_id: UUID, *, remark: str = "", origin: Origin = NOWHERE
) -> Request:
    """Take back what one asked for oneself. Raises NotFound for another's, RequestClosed when it is decided."""
    asked = _locked(tx, services, request_id, lambda row: row.requested_by == actor.id)
    return _decide(tx, services, actor, _open(services, asked), "withdrawn", remark, origin, None)


def one(tx: Tx, services: Services, request_id: UUID) -> Request:
    """One request. Raises `NotFound`, also for what row-level security hides."""
    row = tx.execute(
        text(f"SELECT {_COLUMNS} FROM api.approval_request WHERE id = :id"), {"id": request_id}
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such request.")
    return _request(tx, services, row)


def requests(
    tx: Tx,
    services: Services,
    *,
    kind: str | None = None,
    state: State | None = None,
    after: Position | None = None,
    limit: int,
) -> list[Request]:
    """Requests behind the settled horizon, in the order in which they were filed."""
    rows = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM api.approval_request WHERE {SETTLED}"
            " AND (era, approval_request.xid, id) > (:era, CAST(:xid AS xid8), :id)"
            " AND (CAST(:kind AS text) IS NULL OR kind = :kind) AND (CAST(:state AS text) IS NULL OR state = :state)"
            " ORDER BY era, approval_request.xid, id LIMIT :limit"
        ),
        (after or START).parameters | {"kind": kind, "state": state, "limit": limit},
    )
    return [_request(tx, services, row) for row in rows]


def expire(tx: Tx, services: Services) -> int:
    """Close what nobody decided in seven days; how many. As the worker."""
    return _expire(tx, services, "", {})


def request_key(text_: str) -> UUID:
    """The id behind ``apr_…``. Raises `InvalidId`."""
    return parse_public_id(PREFIX, text_)


def may_ask(actor: Actor | str, kind: str, programme_id: UUID | None) -> bool:
    """Whether an operator or staff client holds a role that asks for this kind in the programme; who is none, may."""
    if not isinstance(actor, Actor) or not actor.held:
        return True
    return _holds(actor, KINDS[kind].requesters, programme_id)


def require_person(actor: Actor | str) -> None:
    """Raises `SecondPersonRequired` for a client: where two persons answer for it, a machine doesn't ask either."""
    if isinstance(actor, Actor) and actor.kind != "operator":
        raise SecondPersonRequired("Two persons answer for it: a client cannot ask.")


def _holds(actor: Actor, roles: frozenset[Role], programme_id: UUID | None) -> bool:
    """Whether the actor has one of the roles where it counts: for this programme, or for all."""
    return any(held.role in roles and held.programme_id in (None, programme_id) for held in actor.held)


def _deciding(tx: Tx, services: Services, actor: Actor, request_id: UUID) -> Request:
    asked = _locked(
        tx, services, request_id, lambda row: _holds(actor, KINDS[row.kind].roles, row.programme_id)
    )
    if actor.kind != "operator":
        raise SecondPersonRequired("A person decides: a client cannot.")
    if asked.requested_by == actor.id:
        raise SecondPersonRequired("Another person than the one who asked decides.")
    asked = _open(services, asked)
    confirmed = actor.confirmed_at
    if confirmed is None or services.clock.now() - confirmed > CONFIRMED_WITHIN:
        raise ConfirmationRequired(
            "Confirm with a code of your authenticator, then decide within five minutes."
        )
    return asked


def _locked(
    tx: Tx, services: Services, request_id: UUID, theirs: Callable[[Row[Any]], bool] = lambda _row: True
) -> Request:
    """The request, locked: of two who decide at once, the second finds it decided.

    One that is not `theirs` is not there: it is refused as what does not exist, before anything of it is opened.
    """
    row = tx.execute(
        text(f"SELECT {_COLUMNS} FROM api.approval_request WHERE id = :id FOR UPDATE"), {"id": request_id}
    ).one_or_none()
    if row is None or not theirs(row):
        raise NotFound("There is no such request.")
    return _request(tx, services, row)


def _open(services: Services, asked: Request) -> Request:
    if asked.state != "requested":
        raise RequestClosed(f"It was {asked.state} already.")
    if services.clock.now() >= asked.expires_at:
        raise RequestClosed("It was asked for more than seven days ago: ask again.")
    return asked


def _opened(asked: Request) -> Payload:
    if asked.payload is None:
        raise auditing.ValueDestroyed("What was asked for can no longer be read.")
    return asked.payload


def _decide(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    asked: Request,
    state: State,
    remark: str,
    origin: Origin,
    result: Mapping[str, Any] | None,
) -> Request:
    if len(remark) > REMARK_CHARACTERS_MAX:
        raise InvalidInput(f"a remark has at most {REMARK_CHARACTERS_MAX} characters", pointer="/remark")
    at, name = services.clock.now(), actor.id if isinstance(actor, Actor) else actor
    made = dict(result) if result is not None else None
    tx.exec_driver_sql(
        "UPDATE api.approval_request SET state = %s, decided_by = %s, decided_at = %s, decision_remark = %s,"
        " result = %s WHERE id = %s",
        (state, name, at, remark, Jsonb(made) if made is not None else None, asked.id),
    )
    decided = replace(asked, state=state, decided_by=name, decided_at=at, decision_remark=remark, result=made)
    _audit(tx, services, actor, f"approval.{state}", decided, origin)
    return decided


def _expire(tx: Tx, services: Services, which: str, parameters: Mapping[str, object]) -> int:
    rows = tx.execute(
        text(
            "UPDATE api.approval_request SET state = 'expired', decided_at = :now WHERE id IN (SELECT id"
            f" FROM api.approval_request WHERE state = 'requested' AND expires_at <= :now {which}"
            " ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)"
            f" RETURNING {_COLUMNS}"
        ),
        {"now": services.clock.now(), "limit": EXPIRED_TOGETHER_MAX, **parameters},
    ).all()
    for row in rows:
        _audit(tx, services, "system", "approval.expired", _request(tx, services, row), NOWHERE)
    return len(rows)


def _audit(
    tx: Tx, services: Services, actor: Actor | str, action: str, request: Request, origin: Origin
) -> None:
    name, kind = (actor.id, actor.kind) if isinstance(actor, Actor) else (actor, kind_of_name(actor))
    auditing.write(
        tx,
        services,
        Act(
            actor=name,
            kind=kind,
            action=action,
            object=request.public_id,
            outcome="done",
            address=origin.address,
            request_id=origin.request_id,
            detail={
                "kind": request.kind,
                "of": request.object,
                "payload_digest": request.payload_digest.hex(),
                "requested_by": request.requested_by,
            },
            programme_id=request.programme_id,
        ),
        after=request.result,
    )


def kind_of_name(name: str) -> str:
    """What kind of actor a name on record is, for the audit log."""
    if name.startswith("opr_"):
        return "operator"
    if name.startswith("ptn_"):
        return "partner"
    return "system" if name in ("system", _SANDBOX) else "cli"


_COLUMNS: Final = (
    "id, kind, object, programme_id, sealed_payload, payload_digest, remark, requested_by, requested_at, expires_at,"
    " state, decided_by, decided_at, decision_remark, result, era, CAST(xid AS text) AS xid"
)


def _request(tx: Tx, services: Services, row: Row[Any]) -> Request:
    values = row._asdict()
    sealed = bytes(values.pop("sealed_payload"))
    position = Position(values.pop("era"), int(values.pop("xid")), values["id"])
    try:
        payload = auditing.unseal(tx, services.keyring, sealed, values["id"].bytes)
    except auditing.ValueDestroyed:
        payload = None
    values["payload_digest"] = bytes(values["payload_digest"])
    if sha256(sealed).digest() != values["payload_digest"]:
        raise auditing.ValueDestroyed("What is stored is not what was asked for.")
    return Request(**values, payload=payload, position=position)
