"""Enrolments: a member joins a product of its programme."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from api.deps import Call, calling, path_id
from api.v1.finding import found
from api.v1.schemas import (
    ROUTE_CLASS,
    Day,
    In,
    Instant,
    MemberId,
    MoneyIn,
    MoneyOut,
    Out,
    ProductCode,
    errors,
)
from ledger.errors import NotFound
from ledger.ids import public_id
from products.members import enrolments
from products.members.models import Enrolment

router = APIRouter(prefix="/v1/members/{member}/enrolments", tags=["enrolments"], route_class=ROUTE_CLASS)

Percent = Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,4})?$", examples=["5"], strict=True)]


class ChoiceIn(In):
    """What the member chose: a percentage or an amount, as the product's rule asks."""

    percent: Percent | None = None
    amount: MoneyIn | None = None


class ChoiceOut(Out):
    """What the member chose."""

    percent: str | None = None
    amount: MoneyOut | None = None


class EnrolmentIn(In):
    """A product to join."""

    product: Annotated[ProductCode, Field(examples=["savings"])]
    choice: ChoiceIn | None = None


class EnrolmentOut(Out):
    """A member in a product."""

    id: Annotated[str, Field(examples=[f"enr_{'0' * 26}"])]
    product: str
    choice: ChoiceOut
    entry_age: int | None
    enrolled_on: Day
    enrolled_at: Instant
    ended_at: Instant | None


class EnrolmentsOut(Out):
    """All enrolments of a member."""

    data: list[EnrolmentOut]


@router.post(
    "", operation_id="enrol_member", summary="Enrol in a product", status_code=201, responses=errors(409)
)
def enrol_member(
    member: MemberId, body: EnrolmentIn, call: Annotated[Call, calling("members:write")]
) -> EnrolmentOut:
    """Enrol a member in a product, on the terms of today. Nothing is deducted without a mandate."""
    choice = body.choice.model_dump(exclude_none=True) if body.choice is not None else None
    programmes = call.services.books.programmes
    person = found(call, member)
    return _shown(enrolments.enrol(call.tx, programmes, person, body.product, choice, call.now))


@router.get("", operation_id="list_enrolments", summary="Read enrolments", responses=errors())
def list_enrolments(member: MemberId, call: Annotated[Call, calling("members:read")]) -> EnrolmentsOut:
    """Every enrolment of the member, oldest first, ended ones too."""
    person = found(call, member)
    return EnrolmentsOut(data=[_shown(one) for one in enrolments.enrolments_of(call.tx, person.member_id)])


@router.delete("/{enrolment}", operation_id="end_enrolment", summary="Leave a product", responses=errors())
def end_enrolment(
    member: MemberId,
    enrolment: Annotated[str, Path(max_length=64, description="an enrolment's id, `enr_…`")],
    call: Annotated[Call, calling("members:write")],
) -> EnrolmentOut:
    """End an enrolment: what is paid from now on is not for this product. What is saved stays."""
    person = found(call, member)
    enrolment_id = path_id("enr", enrolment)
    if all(one.id != enrolment_id for one in enrolments.enrolments_of(call.tx, person.member_id)):
        raise NotFound("There is no such enrolment.")
    return _shown(enrolments.end(call.tx, enrolment_id, call.now))


def _shown(enrolment: Enrolment) -> EnrolmentOut:
    entry_age = enrolment.terms.get("entry_age")
    return EnrolmentOut(
        id=public_id("enr", enrolment.id),
        product=enrolment.product,
        choice=ChoiceOut.model_validate(enrolment.choice),
        entry_age=entry_age if isinstance(entry_age, int) else None,
        enrolled_on=enrolment.enrolled_on,
        enrolled_at=enrolment.enrolled_at,
        ended_at=enrolment.ended_at,
    )
