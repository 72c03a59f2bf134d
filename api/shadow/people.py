"""The members of a past year, registered and enrolled on the days on which the old system had them join."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import groupby
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from api.bootstrap import Services
from api.shadow.given import InvalidShadowInput, Joined
from ledger.database import Tx
from ledger.errors import MizanError
from ledger.money import exponent
from products.facts import Fact, FactDeclaration, FactScalar
from products.members.enrolments import Joining, enrol_many
from products.members.models import NewMandate, Registration
from products.members.registry import register_many
from products.opening.given import minor_units
from products.programmes.model import Programme

TOGETHER: Final = 2_000

Links = dict[tuple[str, str], UUID]
"""The shadow's `mem_` ids by partner and the partner's reference."""


@dataclass(frozen=True, slots=True)
class Into:
    """Where people are registered."""

    services: Services
    programme: Programme
    programme_id: UUID
    partners: dict[str, UUID]


def register_all(into: Into, joined: Sequence[Joined]) -> Links:
    """Register and enrol them all; answers their ids. Raises `InvalidShadowInput` for whom the registry refuses."""
    links: Links = {}
    ordered = sorted(joined, key=lambda one: (one.partner, one.joined_on))
    for (partner, day), several in groupby(ordered, key=lambda one: (one.partner, one.joined_on)):
        of_day = list(several)
        for first in range(0, len(of_day), TOGETHER):
            some = of_day[first : first + TOGETHER]
            try:
                links |= into.services.worker.run(
                    lambda tx, some=some, partner=partner, day=day: _register(tx, into, partner, day, some)  # type: ignore[misc]  # a default is the way to bind a loop's name
                )
            except MizanError as error:
                raise InvalidShadowInput(
                    f"the members' file, rows {some[0].line} to {some[-1].line}: {error.detail}"
                ) from error
    return links


def _register(tx: Tx, into: Into, partner: str, day: date, some: Sequence[Joined]) -> Links:
    at = datetime.combine(day, time(0), ZoneInfo(into.programme.time_zone)).astimezone(UTC)
    by_reference: defaultdict[str, list[Joined]] = defaultdict(list)
    for one in some:
        by_reference[one.reference].append(one)
    facts = {reference: _facts(into.programme, of_one[0], at) for reference, of_one in by_reference.items()}
    registered = register_many(
        tx,
        into.services.keyring,
        into.programme_id,
        into.partners[partner],
        [
            Registration(
                phone=of_one[0].phone,
                partner_reference=reference,
                birth_date=of_one[0].birth_date,
                facts=facts[reference],
                mandate=NewMandate("shadow", "en", at),
            )
            for reference, of_one in by_reference.items()
        ],
        at,
    )
    enrol_many(
        tx,
        into.services.books.programmes,
        into.programme_id,
        [
            Joining(
                who.member_id,
                into.partners[partner],
                one.birth_date,
                facts[one.reference],
                one.product,
                one.choice,
            )
            for who, of_one in zip(registered, by_reference.values(), strict=True)
            for one in of_one
        ],
        at,
    )
    return {
        (partner, reference): who.link_id for who, reference in zip(registered, by_reference, strict=True)
    }


def _facts(programme: Programme, one: Joined, at: datetime) -> tuple[Fact, ...]:
    """What the old system knew of a member, as an institution's word, since ever."""
    return tuple(
        Fact(
            name, _scalar(programme.facts[name], written, programme, one), date(1900, 1, 1), at, "institution"
        )
        for name, written in sorted(one.facts.items())
    )


def _scalar(declared: FactDeclaration, written: str, programme: Programme, one: Joined) -> FactScalar:
    try:
        match declared.type:
            case "integer":
                return int(written)
            case "money":
                return minor_units(written, exponent(programme.currency))
            case "boolean":
                return {"yes": True, "true": True, "no": False, "false": False}[written.lower()]
            case "date":
                return date.fromisoformat(written)
    except (ValueError, KeyError):
        raise InvalidShadowInput(
            f"the members' file, row {one.line}: the fact {declared.name} is no {declared.type}"
        ) from None
    return written
