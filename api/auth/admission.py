"""What about operators takes two administrators: a new one, other roles, a way back in, being let in again.

A request of the kind ``operator`` (`api.approvals.service`). Whoever files one that ends in a link gets a code with it;
the link is drawn by another administrator (`api.auth.links`). The log names operators by id only: name and e-mail of a
new one stay in the sealed payload.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from api.approvals import service as approvals
from api.approvals.service import NOWHERE, Origin, Payload, Request
from api.auth import links, operators
from api.auth.actors import Actor
from api.auth.operators import PREFIX, Grant, LogIn, Operator, OperatorConflict
from api.auth.scopes import Role
from api.bootstrap import Services
from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.ids import parse_public_id

KIND: Final = "operator"


def request_operator(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    email: str,
    name: str,
    grants: Sequence[Grant],
    organisation_id: UUID | None,
    log_in: LogIn,
    remark: str,
    origin: Origin = NOWHERE,
) -> tuple[Request, str]:
    """Ask for a new operator; the request, and the code that goes with the link. Raises InvalidInput, OperatorConflict."""
    operators.check_grants(grants, organisation_id)
    _check_organisation(tx, organisation_id)
    folded = operators.fold_email(email)
    if operators.by_email(tx, folded) is not None:
        raise OperatorConflict("There is an operator with this e-mail address.")
    code, digest = links.new_code()
    payload = {
        "do": "create",
        "email": folded,
        "name": name,
        "roles": _written(grants),
        "organisation": str(organisation_id) if organisation_id else None,
        "log_in": log_in,
        "code_digest": digest.hex(),
    }
    new = f"new:{sha256(folded.encode()).hexdigest()[:16]}"
    filed = approvals.file(tx, services, actor, KIND, payload, remark, object_=new, origin=origin)
    return filed, code


def request_roles(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    operator: Operator,
    *,
    grants: Sequence[Grant],
    organisation_id: UUID | None,
    remark: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for other roles in the place of an operator's. Raises InvalidInput."""
    operators.check_grants(grants, organisation_id)
    _check_organisation(tx, organisation_id)
    payload = {
        "do": "roles",
        "operator": operator.public_id,
        "roles": _written(grants),
        "organisation": str(organisation_id) if organisation_id else None,
    }
    return approvals.file(
        tx, services, actor, KIND, payload, remark, object_=operator.public_id, origin=origin
    )


def request_recovery(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    operator: Operator,
    *,
    remark: str,
    origin: Origin = NOWHERE,
) -> tuple[Request, str]:
    """Ask for a link by which an operator sets password and second factor anew; the request, and the link's code."""
    code, digest = links.new_code()
    payload = {"do": "recovery", "operator": operator.public_id, "code_digest": digest.hex()}
    filed = approvals.file(
        tx, services, actor, KIND, payload, remark, object_=operator.public_id, origin=origin
    )
    return filed, code


def request_activation(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    operator: Operator,
    *,
    remark: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a disabled operator to be let in again. Raises OperatorConflict for an active one."""
    if operator.state == "active":
        raise OperatorConflict("The operator is active.")
    payload = {"do": "activation", "operator": operator.public_id}
    return approvals.file(
        tx, services, actor, KIND, payload, remark, object_=operator.public_id, origin=origin
    )


def _execute(tx: Tx, services: Services, payload: Payload) -> Payload:
    now = services.clock.now()
    if payload["do"] == "create":
        organisation = _organisation(payload)
        _check_organisation(tx, organisation)
        operator = operators.create(
            tx,
            email=payload["email"],
            name=payload["name"],
            grants=_read(payload["roles"]),
            organisation_id=organisation,
            log_in=payload["log_in"],
            at=now,
        )
        links.prepare(tx, operator, bytes.fromhex(payload["code_digest"]), payload["requested_by"], now)
        return {"operator": operators.find(tx, operator).public_id}
    operator = parse_public_id(PREFIX, payload["operator"])
    if payload["do"] == "roles":
        organisation = _organisation(payload)
        _check_organisation(tx, organisation)
        operators.change_roles(tx, operator, _read(payload["roles"]), organisation)
    elif payload["do"] == "recovery":
        links.prepare(tx, operator, bytes.fromhex(payload["code_digest"]), payload["requested_by"], now)
    else:
        operators.enable(tx, operator)
    return {"operator": payload["operator"]}


def _describe(payload: Payload) -> str:
    if payload["do"] == "create":
        return f"Admit {payload['name']} ({payload['email']}) as {_in_words(payload['roles'])}."
    if payload["do"] == "roles":
        return f"Give {payload['operator']} the roles {_in_words(payload['roles'])} and no other."
    if payload["do"] == "recovery":
        return f"Let {payload['operator']} set password and second factor anew."
    return f"Let {payload['operator']} in again."


def _in_words(roles: Sequence[dict[str, Any]]) -> str:
    return ", ".join(
        f"{one['role']} for {'programme ' + one['programme'] if one['programme'] else 'all programmes'}"
        for one in roles
    )


def _written(grants: Sequence[Grant]) -> list[dict[str, str | None]]:
    return sorted(
        (
            {"role": one.role, "programme": str(one.programme_id) if one.programme_id else None}
            for one in grants
        ),
        key=repr,
    )


def _read(roles: Sequence[dict[str, Any]]) -> list[Grant]:
    return [Grant(one["role"], UUID(one["programme"]) if one["programme"] else None) for one in roles]


def _organisation(payload: Payload) -> UUID | None:
    return UUID(payload["organisation"]) if payload["organisation"] else None


def _check_organisation(tx: Tx, organisation_id: UUID | None) -> None:
    if organisation_id is None:
        return
    there = tx.execute(
        text("SELECT 1 FROM products.partner WHERE id = :id AND kind = 'organisation'"),
        {"id": organisation_id},
    ).first()
    if there is None:
        raise InvalidInput("There is no such organisation.", pointer="/organisation")


_ADMINISTRATOR: Final[frozenset[Role]] = frozenset({"administrator"})
approvals.register(KIND, roles=_ADMINISTRATOR, execute=_execute, describe=_describe)
