"""Who belongs to a member: dependants and beneficiaries."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from api.deps import Call, calling, path_id
from api.v1.finding import found
from api.v1.proofs import ProofIn, proven
from api.v1.schemas import ROUTE_CLASS, Country, Day, In, Instant, MemberId, Out, Text, errors
from ledger.ids import public_id
from products.members import people
from products.members.models import Sex
from products.members.people import NewBeneficiary, NewDependant, Relation
from products.members.registry import cipher_of

router = APIRouter(prefix="/v1/members/{member}", tags=["members"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("members:read")]
Writing = Annotated[Call, calling("members:write")]
Ended = Annotated[bool, Query(description="those that ended, too")]


class DependantIn(In):
    """Somebody whom the member provides for."""

    relation: Annotated[Relation, Field(examples=["child"])]
    given_name: Annotated[Text, Field(examples=["Keza"])]
    family_name: Text | None = None
    birth_date: Annotated[Day | None, Field(examples=["2015-09-14"])] = None
    sex: Sex | None = None
    residence_country: Country | None = None


class DependantOut(Out):
    """A dependant on record."""

    id: Annotated[str, Field(examples=[f"dep_{'0' * 26}"])]
    relation: Relation
    given_name: str
    family_name: str | None
    birth_date: Day | None
    sex: Sex | None
    residence_country: str | None
    added_at: Instant
    ended_at: Instant | None


class DependantsOut(Out):
    """A member's dependants, oldest first."""

    data: list[DependantOut]


class BeneficiaryIn(In):
    """Somebody who gets a part of what the member leaves."""

    relation: Annotated[Relation, Field(examples=["spouse"])]
    given_name: Annotated[Text, Field(examples=["Mutesi"])]
    family_name: Text | None = None
    phone: Annotated[str | None, Field(min_length=4, max_length=32, description="E.164")] = None
    share_basis_points: Annotated[
        int, Field(ge=1, le=people.WHOLE, description="of the whole, which is 10,000", examples=[10_000])
    ]


class BeneficiariesIn(In):
    """All beneficiaries, with the member's proof: it decides who gets the money."""

    beneficiaries: Annotated[list[BeneficiaryIn], Field(max_length=people.BENEFICIARIES_MAX)]
    proof: Annotated[
        ProofIn, Field(description="of a challenge with the purpose `consent`, for this body without it")
    ]


class BeneficiaryOut(Out):
    """A beneficiary on record."""

    id: Annotated[str, Field(examples=[f"ben_{'0' * 26}"])]
    relation: Relation
    given_name: str
    family_name: str | None
    phone: str | None
    share_basis_points: int
    added_at: Instant
    ended_at: Instant | None


class BeneficiariesOut(Out):
    """A member's beneficiaries; the shares of those that are not ended come to 10,000, or there are none."""

    data: list[BeneficiaryOut]


@router.get("/dependants", operation_id="list_dependants", summary="Read dependants", responses=errors())
def list_dependants(member: MemberId, call: Reading, ended: Ended = False) -> DependantsOut:
    """The dependants recorded through the caller's partner."""
    return DependantsOut(data=_dependants(call, member, ended))


@router.post(
    "/dependants",
    operation_id="add_dependant",
    summary="Add a dependant",
    status_code=201,
    responses=errors(409),
)
def add_dependant(member: MemberId, body: DependantIn, call: Writing) -> DependantOut:
    """Record somebody whom the member provides for. To correct one, end it and add it anew."""
    person = found(call, member)
    new = NewDependant(**body.model_dump())
    added = people.add_dependant(
        call.tx, cipher_of(call.tx, call.services.keyring, person), person, new, call.now
    )
    call.audit("member.dependant.added", public_id("dep", added))
    return next(one for one in _dependants(call, member, False) if one.id == public_id("dep", added))


@router.delete(
    "/dependants/{dependant}",
    operation_id="end_dependant",
    summary="End a dependant",
    status_code=204,
    responses=errors(),
)
def end_dependant(
    member: MemberId,
    dependant: Annotated[str, Path(max_length=64, description="a dependant's id, `dep_…`")],
    call: Writing,
) -> None:
    """The member provides for this person no more."""
    people.end_dependant(call.tx, found(call, member), path_id("dep", dependant), call.now)
    call.audit("member.dependant.ended", dependant)


@router.get(
    "/beneficiaries", operation_id="list_beneficiaries", summary="Read beneficiaries", responses=errors()
)
def list_beneficiaries(member: MemberId, call: Reading, ended: Ended = False) -> BeneficiariesOut:
    """Who gets what the member leaves, as recorded through the caller's partner."""
    return BeneficiariesOut(data=_beneficiaries(call, member, ended))


@router.put(
    "/beneficiaries",
    operation_id="set_beneficiaries",
    summary="Replace the beneficiaries",
    responses=errors(),
)
def set_beneficiaries(
    member: MemberId, body: BeneficiariesIn, call: Annotated[Call, calling("payees:write")]
) -> BeneficiariesOut:
    """Replace all beneficiaries: those before end now. The shares come to 10,000 basis points, or nobody is named."""
    person = found(call, member)
    proven(call, person, "consent", body.proof)
    new = [NewBeneficiary(**one.model_dump()) for one in body.beneficiaries]
    people.set_beneficiaries(
        call.tx, cipher_of(call.tx, call.services.keyring, person), person, new, call.now
    )
    call.audit("member.beneficiaries.replaced", member, count=len(new))
    return BeneficiariesOut(data=_beneficiaries(call, member, False))


def _dependants(call: Call, member: str, ended: bool) -> list[DependantOut]:
    person = found(call, member)
    cipher = cipher_of(call.tx, call.services.keyring, person)
    return [
        DependantOut(
            id=public_id("dep", one.id),
            relation=one.said.relation,
            given_name=one.said.given_name,
            family_name=one.said.family_name,
            birth_date=one.said.birth_date,
            sex=one.said.sex,
            residence_country=one.said.residence_country,
            added_at=one.added_at,
            ended_at=one.ended_at,
        )
        for one in people.dependants_of(call.tx, cipher, person.member_id, with_ended=ended)
    ]


def _beneficiaries(call: Call, member: str, ended: bool) -> list[BeneficiaryOut]:
    person = found(call, member)
    cipher = cipher_of(call.tx, call.services.keyring, person)
    return [
        BeneficiaryOut(
            id=public_id("ben", one.id),
            relation=one.said.relation,
            given_name=one.said.given_name,
            family_name=one.said.family_name,
            phone=one.said.phone,
            share_basis_points=one.said.share_basis_points,
            added_at=one.added_at,
            ended_at=one.ended_at,
        )
        for one in people.beneficiaries_of(call.tx, cipher, person.member_id, with_ended=ended)
    ]
