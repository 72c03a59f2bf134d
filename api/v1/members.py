"""Members: registered by a partner, read as that partner knows them, with their facts and mandates."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from api.deps import Call, calling, path_id
from api.problems import ProblemError
from api.v1.schemas import (
    ROUTE_CLASS,
    Country,
    Day,
    In,
    Instant,
    MemberId,
    MoneyIn,
    MoneyOut,
    Out,
    Reference,
    Slug,
    Text,
    errors,
)
from ledger.ids import public_id
from products.facts import Evidence, Fact, read_value
from products.members import mandates, registry
from products.members.models import Mandate, Member, MemberExists, NewMandate, Registration, Sex
from products.programmes.model import Programme

router = APIRouter(prefix="/v1/members", tags=["members"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("members:read")]
Writing = Annotated[Call, calling("members:write")]

Scalar = Annotated[int, Field(strict=True)] | Annotated[bool, Field(strict=True)] | Text | MoneyIn


class FactIn(In):
    """A fact about the member, true from a date until a later one of the same name."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", examples=["income_category"])]
    value: Annotated[Scalar, Field(description="of the type that the programme declares", examples=[1])]
    since: Annotated[Day, Field(alias="from")]
    evidence: Evidence = "self_declared"


class FactOut(Out):
    """A recorded fact."""

    name: str
    value: int | bool | str
    since: Annotated[Day, Field(alias="from")]
    evidence: Evidence
    recorded_at: Instant


class MandateIn(In):
    """The member's consent to deductions."""

    text_version: Annotated[
        Reference, Field(description="which text the member agreed to", examples=["2026-1"])
    ]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", examples=["rw"])]
    given_at: Instant | None = None
    evidence: Annotated[Text | None, Field(description="where the partner keeps the proof")] = None
    limit_per_month: MoneyIn | None = None


class MandateOut(Out):
    """A mandate: in force from `given_at` until it is withdrawn, asleep while it is paused."""

    id: Annotated[str, Field(examples=[f"con_{'0' * 26}"])]
    state: Literal["in_force", "paused", "ended"]
    text_version: str
    language: str
    given_at: Instant
    limit_per_month: MoneyOut | None
    paused_at: Instant | None
    withdrawn_at: Instant | None


class MemberIn(In):
    """A person to register; at least a phone number or the partner's own reference."""

    programme: Annotated[Slug, Field(examples=["ejoheza"])]
    phone: Annotated[
        str | None, Field(min_length=4, max_length=32, description="E.164", examples=["+971501234567"])
    ] = None
    partner_reference: Annotated[Reference | None, Field(examples=["A-17"])] = None
    birth_date: Annotated[Day | None, Field(examples=["1990-05-01"])] = None
    sex: Sex | None = None
    origin_country: Annotated[Country | None, Field(examples=["RW"])] = None
    residence_country: Annotated[Country | None, Field(examples=["AE"])] = None
    facts: Annotated[list[FactIn], Field(max_length=50, default_factory=list)]
    mandate: MandateIn | None = None


class MemberChange(In):
    """What changes about a member. Facts are added; none is overwritten."""

    residence_country: Country | None = None
    facts: Annotated[list[FactIn], Field(max_length=50, default_factory=list)]


class MemberOut(Out):
    """A member as the calling partner knows them."""

    id: Annotated[str, Field(examples=[f"mem_{'0' * 26}"])]
    programme: str
    phone: str | None
    partner_reference: str | None
    birth_date: Day | None
    sex: Sex | None
    origin_country: str | None
    residence_country: str | None
    facts: list[FactOut]
    mandates: list[MandateOut]
    registered_at: Instant


class MandateChange(In):
    """What becomes of the mandate in force."""

    state: Literal["in_force", "paused", "ended"]


class FactsOut(Out):
    """All facts of a member."""

    data: list[FactOut]


class MandatesOut(Out):
    """All mandates of a member."""

    data: list[MandateOut]


@router.post(
    "",
    operation_id="register_member",
    summary="Register a member",
    status_code=201,
    responses=errors(409),
)
def register_member(body: MemberIn, call: Writing) -> MemberOut:
    """Register a person in a programme that the partner has joined."""
    programme_id = registry.joined_programme(call.tx, call.partner, body.programme)
    programme = _rules(call, programme_id)
    registration = Registration(
        phone=body.phone,
        partner_reference=body.partner_reference,
        birth_date=body.birth_date,
        sex=body.sex,
        origin_country=body.origin_country,
        residence_country=body.residence_country,
        facts=_facts(call, programme, body.facts),
        mandate=_mandate_in(body.mandate) if body.mandate is not None else None,
    )
    try:
        registered = registry.register(
            call.tx, call.services.keyring, programme_id, call.partner, registration, call.now
        )
    except MemberExists as known:
        raise ProblemError(known.code, known.detail, member=public_id("mem", known.link_id)) from known
    return _shown(call, registry.find(call.tx, call.services.keyring, registered.link_id))


@router.get("/{member}", operation_id="get_member", summary="Read a member", responses=errors())
def get_member(member: MemberId, call: Reading) -> MemberOut:
    """The member, as the partner knows them."""
    return _shown(call, found(call, member))


@router.patch("/{member}", operation_id="change_member", summary="Add facts", responses=errors())
def change_member(member: MemberId, body: MemberChange, call: Writing) -> MemberOut:
    """Add facts, or say where the member lives now."""
    person = found(call, member)
    add_facts(call, person, body.facts)
    if body.residence_country is not None:
        registry.change(
            call.tx,
            call.services.keyring,
            person,
            {"residence_country": body.residence_country},
            call.now,
        )
    return _shown(call, found(call, member))


@router.delete(
    "/{member}",
    operation_id="end_member_link",
    summary="Stop serving a member",
    status_code=204,
    responses=errors(),
)
def end_member_link(member: MemberId, call: Writing) -> None:
    """End the partner's link: it sees the member no more. Nothing of the member's is erased."""
    registry.end_link(call.tx, found(call, member), call.now)


@router.get("/{member}/facts", operation_id="list_facts", summary="Read facts", responses=errors())
def list_facts(member: MemberId, call: Reading) -> FactsOut:
    """Every fact recorded, in the order of recording."""
    return FactsOut(data=[_fact_out(fact) for fact in found(call, member).facts])


@router.post(
    "/{member}/facts",
    operation_id="record_fact",
    summary="Record a fact",
    status_code=201,
    responses=errors(),
)
def record_fact(member: MemberId, body: FactIn, call: Writing) -> FactOut:
    """Record a dated fact; those before it stay."""
    (fact,) = add_facts(call, found(call, member), [body], nested=False)
    return _fact_out(fact)


@router.get("/{member}/consents", operation_id="list_mandates", summary="Read mandates", responses=errors())
def list_mandates(member: MemberId, call: Reading) -> MandatesOut:
    """Every mandate given through the partner, oldest first."""
    return MandatesOut(data=[_mandate_out(mandate) for mandate in found(call, member).mandates])


@router.post(
    "/{member}/consents",
    operation_id="give_mandate",
    summary="Record a mandate",
    status_code=201,
    responses=errors(),
)
def give_mandate(member: MemberId, body: MandateIn, call: Writing) -> MandateOut:
    """Record the member's mandate; the one in force, if any, ends."""
    person = found(call, member)
    return _mandate_out(mandates.give(call.tx, call.services.keyring, person, _mandate_in(body), call.now))


@router.patch(
    "/{member}/consents",
    operation_id="change_mandate",
    summary="Pause, resume or withdraw the mandate",
    responses=errors(),
)
def change_mandate(member: MemberId, body: MandateChange, call: Writing) -> MandateOut:
    """Pause, resume or end the mandate that is in force."""
    person = found(call, member)
    act = {"in_force": mandates.resume, "paused": mandates.pause, "ended": mandates.withdraw}[body.state]
    return _mandate_out(act(call.tx, person, call.now))


def found(call: Call, member: str) -> Member:
    """The member of a path, as the caller may see them. Raises NotFound."""
    return registry.find(call.tx, call.services.keyring, path_id("mem", member))


def add_facts(call: Call, person: Member, given: list[FactIn], *, nested: bool = True) -> tuple[Fact, ...]:
    """Record facts of a member, judged by what its programme declares."""
    facts = _facts(call, _rules(call, person.programme_id), given, nested=nested)
    registry.add_facts(call.tx, call.services.keyring, person, facts)
    return facts


def _rules(call: Call, programme_id: UUID) -> Programme:
    """The newest version of the programme: it declares the facts that may be recorded."""
    return call.services.books.programmes.versions(call.tx, programme_id)[-1].programme


def _facts(call: Call, programme: Programme, given: list[FactIn], *, nested: bool = True) -> tuple[Fact, ...]:
    facts = []
    for position, fact in enumerate(given):
        raw: Any = fact.value.model_dump() if isinstance(fact.value, MoneyIn) else fact.value
        value = read_value(
            programme.facts,
            programme.currency,
            fact.name,
            raw,
            pointer=f"/facts/{position}" if nested else "",
        )
        facts.append(Fact(fact.name, value, fact.since, call.now, fact.evidence))
    return tuple(facts)


def _mandate_in(given: MandateIn) -> NewMandate:
    limit = given.limit_per_month.money() if given.limit_per_month is not None else None
    return NewMandate(given.text_version, given.language, given.given_at, given.evidence, limit)


def _fact_out(fact: Fact) -> FactOut:
    value = fact.value if isinstance(fact.value, int | str) else fact.value.isoformat()
    return FactOut(
        name=fact.name,
        value=value,
        **{"from": fact.since},
        evidence=fact.evidence,
        recorded_at=fact.recorded_at,
    )


def _mandate_out(mandate: Mandate) -> MandateOut:
    limit = mandate.limit_per_month
    state: Literal["in_force", "paused", "ended"] = (
        "ended"
        if mandate.withdrawn_at is not None
        else "paused"
        if mandate.paused_at is not None
        else "in_force"
    )
    return MandateOut(
        id=public_id("con", mandate.id),
        state=state,
        text_version=mandate.text_version,
        language=mandate.language,
        given_at=mandate.given_at,
        limit_per_month=MoneyOut.of(limit.amount, limit.currency) if limit is not None else None,
        paused_at=mandate.paused_at,
        withdrawn_at=mandate.withdrawn_at,
    )


def _shown(call: Call, member: Member) -> MemberOut:
    return MemberOut(
        id=public_id("mem", member.link_id),
        programme=_rules(call, member.programme_id).slug,
        phone=member.phone,
        partner_reference=member.partner_reference,
        birth_date=member.birth_date,
        sex=member.sex,
        origin_country=member.origin_country,
        residence_country=member.residence_country,
        facts=[_fact_out(fact) for fact in member.facts],
        mandates=[_mandate_out(mandate) for mandate in member.mandates],
        registered_at=member.linked_at,
    )
