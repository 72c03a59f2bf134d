"""Operators: who they are, what they may do; what changes that is requested here and approved by another administrator."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from api.approvals.service import CONFIRMED_WITHIN, ConfirmationRequired, Request, origin_of
from api.auth import admission, links, operators
from api.auth.operators import Grant, Operator
from api.deps import Call, path_id, writing
from api.v1.logged_in import NO_STORE, RoleOut, SessionsOut, roles_out, sessions_out
from api.v1.schemas import ROUTE_CLASS, In, Instant, Out, Slug, Text, errors
from ledger.errors import InvalidInput, NotFound
from ledger.ids import parse_public_id, public_id
from products.programmes import registry

router = APIRouter(prefix="/v1/operators", tags=["operators"], route_class=ROUTE_CLASS)

# what proves operators is hidden from the API's own role, and whether they have proofs is told here
Reading = Annotated[Call, writing("operators:read")]
Writing = Annotated[Call, writing("operators:write")]
OperatorId = Annotated[
    str, Path(max_length=64, description="an operator's id, `opr_…`", examples=[f"opr_{'0' * 26}"])
]
Remark = Annotated[
    Text, Field(description="why, for who approves and for the log", examples=["joins in May"])
]


class RoleIn(In):
    """A role, for one programme or (null) for all."""

    role: Literal["manager", "administrator", "caseworker", "auditor"]
    programme: Slug | None = None


class RolesIn(In):
    """The roles that an operator shall hold, and no other. A caseworker has an organisation and no other role."""

    roles: Annotated[list[RoleIn], Field(min_length=1, max_length=50)]
    organisation: Annotated[str | None, Field(max_length=64, examples=[f"ptn_{'0' * 26}"])] = None
    remark: Remark


class OperatorIn(RolesIn):
    """A person to admit."""

    email: Annotated[str, Field(min_length=3, max_length=254, examples=["amina@fund.example"])]
    name: Annotated[Text, Field(examples=["Amina Uwase"])]
    log_in: Annotated[
        Literal["password", "openid"], Field(description="openid: through the OpenID Connect provider")
    ] = "password"


class RemarkIn(In):
    """Why something is asked for."""

    remark: Remark


class OperatorOut(Out):
    """An operator. `set_up`: has a second factor, and a password unless it logs in through a provider."""

    id: Annotated[str, Field(examples=[f"opr_{'0' * 26}"])]
    email: str
    name: str
    log_in: Literal["password", "openid"]
    roles: list[RoleOut]
    organisation: str | None
    state: Literal["active", "disabled"]
    set_up: bool
    created_at: Instant


class OperatorsOut(Out):
    """Every operator."""

    data: list[OperatorOut]


class RequestedOut(Out):
    """What was requested; another administrator approves it (`/v1/approvals`).

    `code` goes to the person, apart from the link that the other administrator draws: both are needed. Told once.
    """

    approval: Annotated[str, Field(examples=[f"apr_{'0' * 26}"])]
    code: str | None = None


class OneTimeLinkOut(Out):
    """A one-time link for the person, told once; a code from the one who prepared it is needed with it."""

    link: Annotated[str, Field(examples=["https://mizan.example/set-up#mzn_link_…"])]
    expires_at: Instant


@router.get("", operation_id="list_operators", summary="List operators", responses=errors())
def list_operators(call: Reading) -> OperatorsOut:
    """Every operator, in the order in which they came: as many as the back office has desks."""
    return OperatorsOut(data=[_shown(call, one) for one in operators.every(call.tx)])


@router.get("/{operator}", operation_id="get_operator", summary="Read an operator", responses=errors())
def get_operator(operator: OperatorId, call: Reading) -> OperatorOut:
    """One operator."""
    return _shown(call, _found(call, operator))


@router.post(
    "", operation_id="request_operator", summary="Request an operator", status_code=202, responses=errors(409)
)
def request_operator(body: OperatorIn, call: Writing, response: Response) -> RequestedOut:
    """Ask for a person to be admitted. Give them the `code`; after the approval, another administrator draws the link."""
    filed, code = admission.request_operator(
        call.tx,
        call.services,
        call.actor,
        email=body.email,
        name=body.name,
        grants=_grants(call, body.roles),
        organisation_id=_organisation(body.organisation),
        log_in=body.log_in,
        remark=body.remark,
        origin=origin_of(call),
    )
    return _requested(response, filed, code)


@router.post(
    "/{operator}/roles",
    operation_id="request_roles",
    summary="Request other roles",
    status_code=202,
    responses=errors(409),
)
def request_roles(operator: OperatorId, body: RolesIn, call: Writing, response: Response) -> RequestedOut:
    """Ask for other roles in the place of those that the operator holds."""
    _require_administrator(call)
    filed = admission.request_roles(
        call.tx,
        call.services,
        call.actor,
        _found(call, operator),
        grants=_grants(call, body.roles),
        organisation_id=_organisation(body.organisation),
        remark=body.remark,
        origin=origin_of(call),
    )
    return _requested(response, filed, None)


@router.post(
    "/{operator}/recovery",
    operation_id="request_recovery",
    summary="Request a way back in",
    status_code=202,
    responses=errors(409),
)
def request_recovery(operator: OperatorId, body: RemarkIn, call: Writing, response: Response) -> RequestedOut:
    """Ask for a link by which the person sets password and second factor anew. Until it is used the old ones count."""
    _require_administrator(call)
    filed, code = admission.request_recovery(
        call.tx,
        call.services,
        call.actor,
        _found(call, operator),
        remark=body.remark,
        origin=origin_of(call),
    )
    return _requested(response, filed, code)


@router.post(
    "/{operator}/activation",
    operation_id="request_activation",
    summary="Request to let an operator in again",
    status_code=202,
    responses=errors(409),
)
def request_activation(
    operator: OperatorId, body: RemarkIn, call: Writing, response: Response
) -> RequestedOut:
    """Ask for a disabled operator to be let in again, with the proofs it had."""
    _require_administrator(call)
    filed = admission.request_activation(
        call.tx,
        call.services,
        call.actor,
        _found(call, operator),
        remark=body.remark,
        origin=origin_of(call),
    )
    return _requested(response, filed, None)


@router.post(
    "/{operator}/deactivation",
    operation_id="disable_operator",
    summary="Disable an operator",
    responses=errors(409),
)
def disable_operator(operator: OperatorId, call: Writing) -> OperatorOut:
    """Let an operator in no more, at once and without approval: sessions and links end. Letting in again is requested."""
    _require_administrator(call)
    before = _found(call, operator)
    operators.disable(call.tx, before.id, call.now)
    call.audit("operator.disabled", operator, before={"state": before.state}, after={"state": "disabled"})
    return _shown(call, _found(call, operator))


@router.post(
    "/{operator}/link", operation_id="draw_link", summary="Draw a one-time link", responses=errors(409)
)
def draw_link(operator: OperatorId, call: Writing, response: Response) -> OneTimeLinkOut:
    """The link of an approved request, for a day; one drawn before works no more. Takes a fresh code (`/v1/session/confirmation`)."""
    _require_administrator(call)
    confirmed = call.actor.confirmed_at
    if confirmed is None or call.now - confirmed > CONFIRMED_WITHIN:
        raise ConfirmationRequired("Confirm with a code of your authenticator first.")
    person = _found(call, operator)
    link = links.draw(call.tx, person.id, call.actor.id, call.now)
    call.audit("operator.link_drawn", operator)
    response.headers.update(NO_STORE)
    address = links.address(call.services.settings.public_url, link.token)
    return OneTimeLinkOut(link=address, expires_at=link.expires_at)


@router.get(
    "/{operator}/sessions",
    operation_id="list_operator_sessions",
    summary="An operator's sessions",
    responses=errors(),
)
def list_operator_sessions(operator: OperatorId, call: Writing) -> SessionsOut:
    """The open sessions of an operator; `DELETE /v1/sessions/{id}` ends one."""
    _require_administrator(call)
    return sessions_out(call, _found(call, operator).id)


def _found(call: Call, operator: str) -> Operator:
    return operators.find(call.tx, path_id(operators.PREFIX, operator))


def _require_administrator(call: Call) -> None:
    """Operators are not of one programme: only who administers all of them changes who they are."""
    if not any(held.role == "administrator" and held.programme_id is None for held in call.actor.held):
        raise NotFound("There is nothing of this id.")


def _grants(call: Call, roles: list[RoleIn]) -> list[Grant]:
    grants = []
    for position, one in enumerate(roles):
        try:
            programme = registry.find(call.tx, one.programme) if one.programme is not None else None
        except NotFound:
            raise InvalidInput(
                "There is no such programme.", pointer=f"/roles/{position}/programme"
            ) from None
        grants.append(Grant(one.role, programme))
    return grants


def _organisation(organisation: str | None) -> UUID | None:
    return parse_public_id("ptn", organisation) if organisation is not None else None


def _requested(response: Response, filed: Request, code: str | None) -> RequestedOut:
    response.headers.update(NO_STORE)
    return RequestedOut(approval=filed.public_id, code=code)


def _shown(call: Call, operator: Operator) -> OperatorOut:
    return OperatorOut(
        id=operator.public_id,
        email=operator.email,
        name=operator.name,
        log_in=operator.log_in,
        roles=roles_out(call.tx, [(grant.role, grant.programme_id) for grant in operator.grants]),
        organisation=public_id("ptn", operator.organisation_id) if operator.organisation_id else None,
        state=operator.state,
        set_up=operator.set_up,
        created_at=operator.created_at,
    )
