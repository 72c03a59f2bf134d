"""Programmes and their sponsors, as data: what a member may join, choose and be matched with."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field
from sqlalchemy import text

from api.deps import Call, calling
from api.v1.schemas import ROUTE_CLASS, Day, MoneyOut, Out, errors
from ledger.errors import NotFound
from ledger.ids import public_id
from products.facts import FactDeclaration
from products.programmes.model import ChoiceRange, Product
from products.programmes.registry import Version
from products.programmes.scalars import format_percent
from products.remittances.context import version_on
from products.savings.rules import local_date
from products.savings.sponsors import money_of_sponsors

router = APIRouter(prefix="/v1", tags=["programmes"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("programmes:read")]


class FactDeclared(Out):
    """A fact that the programme's rules read."""

    name: str
    type: str
    evidence: str
    description: str
    values: list[int | str | bool] | None
    minimum: int | None
    maximum: int | None


class ChoiceOffered(Out):
    """What a member may choose: percentages as text, amounts in minor units."""

    kind: Annotated[str, Field(examples=["percent"])]
    minimum: str | int
    maximum: str | int | None
    step: str | int | None
    suggested: str | int | None


class ProductOut(Out):
    """What a member may hold in the programme."""

    code: str
    name: str
    kind: str
    custody: str
    priority: int
    matched: bool
    choice: ChoiceOffered | None


class ProgrammeOut(Out):
    """A programme, as the version in force describes it."""

    id: Annotated[str, Field(examples=[f"prg_{'0' * 26}"])]
    slug: str
    name: str
    description: str
    authority: str
    currency: str
    time_zone: str
    version: int
    in_force_from: Day
    facts: list[FactDeclared]
    products: list[ProductOut]


class ProgrammesOut(Out):
    """All programmes that the caller may see."""

    data: list[ProgrammeOut]


class SponsorOut(Out):
    """A sponsor of a programme's match, and what of its money is there."""

    slug: str
    name: str
    programme: str
    funding: Annotated[str, Field(examples=["prefunded"])]
    state: Annotated[
        str, Field(description="`queueing` while entitlement waits for its money", examples=["open"])
    ]
    uncommitted: MoneyOut
    committed: MoneyOut
    receivable: Annotated[MoneyOut, Field(description="owed on certified claims; negative: a credit")]
    waiting: Annotated[
        MoneyOut, Field(description="entitlement that waits for its money or its certification")
    ]
    warned_below: MoneyOut
    low: Annotated[bool, Field(description="a prefunded sponsor has less left than that")]


class SponsorsOut(Out):
    """All sponsors that the caller may see."""

    data: list[SponsorOut]


@router.get("/programmes", operation_id="list_programmes", summary="List programmes", responses=errors())
def list_programmes(call: Reading) -> ProgrammesOut:
    """The programmes that the partner has joined; for staff, all, or those that their role is for."""
    return ProgrammesOut(data=[_programme(call, row.id) for row in _visible(call)])


@router.get(
    "/programmes/{programme}", operation_id="get_programme", summary="Read a programme", responses=errors()
)
def get_programme(
    programme: Annotated[str, Path(max_length=64, description="a programme's name", examples=["ejoheza"])],
    call: Reading,
) -> ProgrammeOut:
    """One programme: its facts, products and choices."""
    for row in _visible(call):
        if row.slug == programme:
            return _programme(call, row.id)
    raise NotFound("There is no such programme.")


@router.get("/sponsors", operation_id="list_sponsors", summary="List sponsors", responses=errors())
def list_sponsors(call: Annotated[Call, calling("sponsors:read")]) -> SponsorsOut:
    """The sponsors of every programme, with what of their money is where now."""
    return SponsorsOut(
        data=[
            SponsorOut(
                slug=one.sponsor,
                name=one.name,
                programme=one.programme,
                funding=one.funding,
                state="queueing" if one.queueing else "open",
                uncommitted=MoneyOut.of(one.uncommitted, one.currency),
                committed=MoneyOut.of(one.committed, one.currency),
                receivable=MoneyOut.of(one.receivable, one.currency),
                waiting=MoneyOut.of(one.waiting, one.currency),
                warned_below=MoneyOut.of(one.warned_below, one.currency),
                low=one.low,
            )
            for one in money_of_sponsors(call.tx)
        ]
    )


def _visible(call: Call) -> Any:  # rows of (id, slug)
    limits = call.actor.sight(("programmes:read",)).programmes
    return call.tx.execute(
        text(
            "SELECT p.id, p.slug FROM products.programme p WHERE (CAST(:partner AS uuid) IS NULL OR EXISTS"
            " (SELECT 1 FROM products.partner_programme j WHERE j.programme_id = p.id AND j.partner_id = :partner))"
            " AND (CAST(:programmes AS uuid[]) IS NULL OR p.id = ANY (:programmes)) ORDER BY p.slug"
        ),
        {"partner": call.actor.partner_id, "programmes": list(limits) if limits is not None else None},
    ).all()


def _programme(call: Call, programme_id: Any) -> ProgrammeOut:
    versions = call.services.books.programmes.versions(call.tx, programme_id)
    version: Version = version_on(versions, local_date(versions[-1].programme, call.now))
    programme = version.programme
    return ProgrammeOut(
        id=public_id("prg", version.programme_id),
        slug=programme.slug,
        name=programme.name,
        description=programme.description,
        authority=programme.authority,
        currency=programme.currency,
        time_zone=str(programme.time_zone),
        version=version.version,
        in_force_from=programme.validity.in_force_from,
        facts=[_fact(fact) for fact in programme.facts.values()],
        products=[_product(product) for product in programme.products],
    )


def _fact(fact: FactDeclaration) -> FactDeclared:
    values = None
    if fact.values is not None:
        values = [one if isinstance(one, int | str) else one.isoformat() for one in fact.values]
    return FactDeclared(
        name=fact.name,
        type=fact.type,
        evidence=fact.evidence,
        description=fact.description,
        values=values,
        minimum=fact.minimum,
        maximum=fact.maximum,
    )


def _product(product: Product) -> ProductOut:
    offered = product.contribution.choice
    return ProductOut(
        code=product.code,
        name=product.name,
        kind=product.kind,
        custody=product.custody,
        priority=product.priority,
        matched=product.match is not None,
        choice=_choice(product.contribution.rule, offered) if offered is not None else None,
    )


def _choice(rule: str, offered: ChoiceRange) -> ChoiceOffered:
    kind = "percent" if rule == "percent" else "amount"

    def shown(value: Any) -> str | int | None:
        return None if value is None else format_percent(value) if kind == "percent" else int(value)

    minimum = shown(offered.minimum)
    return ChoiceOffered(
        kind=kind,
        minimum=0 if minimum is None else minimum,
        maximum=shown(offered.maximum),
        step=shown(offered.step),
        suggested=shown(offered.suggested),
    )
