"""Members: registered by a partner or an organisation, read as it knows them, with their facts and level of verification."""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from api.deps import Call, calling
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.problems import ProblemError
from api.v1.consents import MandateIn, MandateOut, mandate_in, mandate_out
from api.v1.finding import found as found
from api.v1.finding import rules_of
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
    Page,
    Reference,
    Slug,
    Text,
    errors,
)
from ledger.errors import InvalidInput
from ledger.horizon import Position
from ledger.ids import public_id
from products.facts import Evidence, Fact, read_value
from products.members import documents, listing, registry, verification
from products.members.models import Member, MemberExists, Registration, Sex
from products.members.phones import e164
from products.programmes.model import Level, Programme

router = APIRouter(prefix="/v1/members", tags=["members"], route_class=ROUTE_CLASS)

_LIST: Final = "list_members"

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
    counts: Annotated[
        bool,
        Field(description="whether its evidence is what the programme asks for; if not, rules ignore it"),
    ]


class MemberIn(In):
    """A person to register; at least a phone number or the partner's own reference."""

    programme: Annotated[Slug, Field(examples=["ejoheza"])]
    phone: Annotated[
        str | None, Field(min_length=4, max_length=32, description="E.164", examples=["+971501234567"])
    ] = None
    partner_reference: Annotated[Reference | None, Field(examples=["A-17"])] = None
    given_name: Annotated[Text | None, Field(examples=["Uwase"])] = None
    family_name: Text | None = None
    birth_date: Annotated[Day | None, Field(examples=["1990-05-01"])] = None
    sex: Sex | None = None
    origin_country: Annotated[Country | None, Field(examples=["RW"])] = None
    residence_country: Annotated[Country | None, Field(examples=["AE"])] = None
    facts: Annotated[list[FactIn], Field(max_length=50, default_factory=list)]
    mandate: MandateIn | None = None


class MemberChange(In):
    """What changes about a member. Facts are added; none is overwritten. A new phone takes the member's proof."""

    given_name: Text | None = None
    family_name: Text | None = None
    birth_date: Day | None = None
    sex: Sex | None = None
    origin_country: Country | None = None
    residence_country: Country | None = None
    facts: Annotated[list[FactIn], Field(max_length=50, default_factory=list)]


class LimitsOut(Out):
    """What may move in a calendar month of the programme's time zone; null: no limit."""

    contributions_per_month: MoneyOut | None
    payouts_per_month: MoneyOut | None


class StandingOut(Out):
    """How well it is known who the member is, and what that unlocks."""

    level: Level
    limits: LimitsOut


class MemberSummary(Out):
    """A member in a list."""

    id: Annotated[str, Field(examples=[f"mem_{'0' * 26}"])]
    programme: str
    phone: str | None
    partner_reference: str | None
    given_name: str | None
    family_name: str | None
    registered_at: Instant


class MemberOut(Out):
    """A member as the caller knows them."""

    id: Annotated[str, Field(examples=[f"mem_{'0' * 26}"])]
    programme: str
    phone: str | None
    partner_reference: str | None
    given_name: str | None
    family_name: str | None
    birth_date: Day | None
    sex: Sex | None
    origin_country: str | None
    residence_country: str | None
    verification: StandingOut
    facts: list[FactOut]
    mandates: list[MandateOut]
    registered_at: Instant


class FactsOut(Out):
    """All facts of a member."""

    data: list[FactOut]


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
    programme = rules_of(call, programme_id)
    registration = Registration(
        phone=body.phone,
        partner_reference=body.partner_reference,
        given_name=body.given_name,
        family_name=body.family_name,
        birth_date=body.birth_date,
        sex=body.sex,
        origin_country=body.origin_country,
        residence_country=body.residence_country,
        facts=_facts(call, programme, body.facts),
        mandate=mandate_in(body.mandate, programme, call.now, pointer="/mandate")
        if body.mandate is not None
        else None,
    )
    try:
        registered = registry.register(
            call.tx, call.services.keyring, programme_id, call.partner, registration, call.now
        )
    except MemberExists as known:
        raise ProblemError(known.code, known.detail, member=public_id("mem", known.link_id)) from known
    return _shown(call, registry.find(call.tx, call.services.keyring, registered.link_id))


@router.get("", operation_id="list_members", summary="List members, or look one up", responses=errors())
def list_members(
    call: Reading,
    phone: Annotated[str | None, Query(min_length=4, max_length=32, description="E.164")] = None,
    partner_reference: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    document_type: Annotated[
        str | None, Query(max_length=64, description="with its country and number")
    ] = None,
    document_country: Annotated[str | None, Query(pattern=r"^[A-Z]{2}$")] = None,
    document_number: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[MemberSummary]:
    """The caller's members behind the settled horizon, in the order of registration; looked up, also the newest.

    What is given narrows the list. A phone or document that is registered with another partner finds nothing.
    """
    keyring = call.services.keyring
    named = {"phone": phone, "partner_reference": partner_reference, "document_number": document_number}
    filters = named | {"document_type": document_type, "document_country": document_country}
    if len({value is None for value in (document_type, document_country, document_number)}) > 1:
        raise InvalidInput("A document is looked up by its type, country and number together.")
    indexes: dict[listing.FoundBy, bytes] = {}
    if phone is not None:
        indexes["phone"] = registry.phone_index(keyring, call.partner, e164(phone))
    if partner_reference is not None:
        indexes["partner_reference"] = registry.reference_index(keyring, call.partner, partner_reference)
    if document_type is not None and document_country is not None and document_number is not None:
        asked = documents.NewDocument(document_type, document_country, document_number)
        number, _ = documents.normalised(asked)
        indexes["document"] = documents.number_index(
            keyring, call.partner, document_type, document_country, number
        )
    position = call.read_cursor(cursor, _LIST, **filters)
    rows = listing.listed(call.tx, keyring, indexes, after=_after(position), limit=limit + 1)
    more = rows[limit - 1].position if len(rows) > limit else None
    following: list[int | str] | None = None if more is None else [more.era, more.xid, str(more.id)]
    return Page(
        data=[_summary(call, row) for row in rows[:limit]],
        next_cursor=call.write_cursor(following, _LIST, **filters),
    )


@router.get("/{member}", operation_id="get_member", summary="Read a member", responses=errors())
def get_member(member: MemberId, call: Reading) -> MemberOut:
    """The member, as the partner knows them."""
    return _shown(call, found(call, member))


@router.patch("/{member}", operation_id="change_member", summary="Change a member", responses=errors())
def change_member(member: MemberId, body: MemberChange, call: Writing) -> MemberOut:
    """Say what is known of the member now, or add facts.

    Another name or birth date than before ends what was verified by a document or an institution: it was another's.
    """
    person = found(call, member)
    add_facts(call, person, body.facts)
    said = {name: str(value) for name in registry.CHANGEABLE if (value := getattr(body, name)) is not None}
    if said:
        registry.change(call.tx, call.services.keyring, person, said, call.now)
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
    person = found(call, member)
    programme = rules_of(call, person.programme_id)
    return FactsOut(data=[_fact_out(programme, fact) for fact in person.facts])


@router.post(
    "/{member}/facts",
    operation_id="record_fact",
    summary="Record a fact",
    status_code=201,
    responses=errors(),
)
def record_fact(member: MemberId, body: FactIn, call: Writing) -> FactOut:
    """Record a dated fact; those before it stay."""
    person = found(call, member)
    (fact,) = add_facts(call, person, [body], nested=False)
    return _fact_out(rules_of(call, person.programme_id), fact)


def add_facts(call: Call, person: Member, given: list[FactIn], *, nested: bool = True) -> tuple[Fact, ...]:
    """Record facts of a member, judged by what its programme declares."""
    facts = _facts(call, rules_of(call, person.programme_id), given, nested=nested)
    registry.add_facts(call.tx, call.services.keyring, person, facts)
    return facts


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


def _fact_out(programme: Programme, fact: Fact) -> FactOut:
    declared = programme.facts.get(fact.name)
    value = fact.value if isinstance(fact.value, int | str) else fact.value.isoformat()
    return FactOut(
        name=fact.name,
        value=value,
        **{"from": fact.since},
        evidence=fact.evidence,
        recorded_at=fact.recorded_at,
        counts=declared is None or declared.counts(fact.evidence),
    )


def standing(call: Call, member: Member) -> StandingOut:
    """The member's level of verification today, and what it unlocks."""
    programme = rules_of(call, member.programme_id)
    known = verification.levels(call.tx, [member.member_id], call.now.date())
    level = known.get(member.member_id, "none")
    limits = verification.limits(programme, level)

    def money(amount: int | None) -> MoneyOut | None:
        return None if amount is None else MoneyOut.of(amount, programme.currency)

    return StandingOut(
        level=level,
        limits=LimitsOut(
            contributions_per_month=money(limits.contributions_per_month),
            payouts_per_month=money(limits.payouts_per_month),
        ),
    )


def _after(position: Sequence[int | str] | None) -> Position | None:
    if position is None:
        return None
    era, xid, id_ = position
    return Position(int(era), int(xid), UUID(str(id_)))


def _summary(call: Call, row: listing.Listed) -> MemberSummary:
    return MemberSummary(
        id=public_id("mem", row.link_id),
        programme=rules_of(call, row.programme_id).slug,
        phone=row.phone,
        partner_reference=row.partner_reference,
        given_name=row.given_name,
        family_name=row.family_name,
        registered_at=row.linked_at,
    )


def _shown(call: Call, member: Member) -> MemberOut:
    programme = rules_of(call, member.programme_id)
    return MemberOut(
        id=public_id("mem", member.link_id),
        programme=programme.slug,
        phone=member.phone,
        partner_reference=member.partner_reference,
        given_name=member.given_name,
        family_name=member.family_name,
        birth_date=member.birth_date,
        sex=member.sex,
        origin_country=member.origin_country,
        residence_country=member.residence_country,
        verification=standing(call, member),
        facts=[_fact_out(programme, fact) for fact in member.facts],
        mandates=[mandate_out(mandate) for mandate in member.mandates if mandate.purpose == "contributions"],
        registered_at=member.linked_at,
    )
