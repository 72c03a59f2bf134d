"""Who there is: programmes of the catalogue, partners on different terms, their corridors and their members."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from api.auth.clients import NewClient, create_client
from api.bootstrap import Services
from integrations.partners.secrets import create_secret
from ledger.clock import Clock
from ledger.database import Tx
from ledger.ids import public_id
from products.facts import Fact
from products.members.enrolments import Joining, enrol_many
from products.members.models import NewMandate, Registration
from products.members.registry import register_many
from products.programmes.loader import catalogue
from products.programmes.registry import apply, find
from products.remittances.partners import Collection, Partner, Terms, create_partner, join_programme
from products.savings.sponsors import fund_sponsor
from products.settlements.pair import record_settlement

MEMBER_FOR: Final = timedelta(days=2 * 365)
"""So long ago everybody registered and enrolled: late remittances are theirs, too."""
RETIRED_AGE: Final = 56
"""How old the member who is paid out was when she joined, at least: past the age at which EjoHeza lets savings out."""
PREFUND: Final = {"RWF": 500_000_000, "NPR": 5_000_000_000}
"""What prefunded partners pay in at the beginning, in minor units: ample."""
SPONSORED: Final = {("ejoheza", "gov-rw"): 200_000_000, ("pm-sym", "gov-in"): 500_000_000}
"""What sponsors pay in at the beginning, in minor units: ample, so that no order of events matters."""


@dataclass(frozen=True, slots=True)
class Corridor:
    """Where money comes from: a country, its currency, and how many minor units ``rate`` buy of those received."""

    origin: str
    currency: str
    rate: tuple[int, int]
    sent: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Group:
    """A partner's members in one programme; ``share`` of all members are in it."""

    partner: str
    programme: str
    product: str
    currency: str
    destination: str
    share: int
    corridors: tuple[Corridor, ...]


@dataclass(frozen=True, slots=True)
class PartnerPlan:
    """A partner on its terms."""

    slug: str
    name: str
    terms: Terms
    collection: Collection


PARTNERS: Final = (
    PartnerPlan("gulf-express", "Gulf Express", "net", "as_reported"),
    PartnerPlan("sakura-remit", "Sakura Remit", "prefunded", "as_reported"),
    PartnerPlan("desert-mobile", "Desert Mobile", "guaranteed", "by_rule"),
)

# Rates are round numbers near those of 2025; each as minor units received per minor units sent.
_KW_RW = Corridor("KW", "KWD", (4_700, 1_000), (20_000, 120_000))
_AE_RW = Corridor("AE", "AED", (390, 100), (20_000, 150_000))
_SA_RW = Corridor("SA", "SAR", (383, 100), (20_000, 150_000))
_JP_RW = Corridor("JP", "JPY", (95, 10), (10_000, 90_000))
_KW_IN = Corridor("KW", "KWD", (28_700, 1_000), (20_000, 100_000))
_AE_IN = Corridor("AE", "AED", (2_390, 100), (30_000, 150_000))
_BH_IN = Corridor("BH", "BHD", (23_400, 1_000), (20_000, 100_000))
_JP_NP = Corridor("JP", "JPY", (93, 1), (35_000, 90_000))
_KR_NP = Corridor("KR", "KRW", (10, 1), (320_000, 900_000))

GROUPS: Final = (
    Group("gulf-express", "ejoheza", "savings", "RWF", "RW", 30, (_AE_RW, _KW_RW)),
    Group("gulf-express", "pm-sym", "pension", "INR", "IN", 15, (_KW_IN, _AE_IN)),
    Group("sakura-remit", "ejoheza", "savings", "RWF", "RW", 15, (_JP_RW,)),
    Group("sakura-remit", "ssf-nepal", "social-security", "NPR", "NP", 10, (_JP_NP, _KR_NP)),
    Group("desert-mobile", "ejoheza", "savings", "RWF", "RW", 20, (_KW_RW, _SA_RW)),
    Group("desert-mobile", "pm-sym", "pension", "INR", "IN", 10, (_BH_IN, _AE_IN)),
)
STORY: Final = GROUPS[0]
STORY_SENT: Final = (_KW_RW, 85_250)
"""The story's remittance: its corridor, and what is sent in minor units (KWD has three decimals)."""
RETIRED_SENT: Final = (_KW_RW, 100_000)
"""Each of the remittances of the member who is paid out, as `STORY_SENT`."""
PROGRAMMES: Final = ("ejoheza", "pm-sym", "ssf-nepal")

# Published figures, in minor units: PM-SYM's instalment a month by age at entry; 21.33 % of pay, at most NPR 6,006.
INSTALMENT_BY_AGE: Final = {18: 5_500, 25: 8_000, 29: 10_000, 40: 20_000}
DUE_BY_PAY: Final = {1_000_000: 213_300, 1_200_000: 255_960, 2_000_000: 426_600, 3_000_000: 600_600}


@dataclass(frozen=True, slots=True)
class Person:
    """A member as the demo knows them. ``due`` is what the rules ask a month, where they ask an amount."""

    number: int
    group: Group
    reference: str
    phone: str
    birth_date: date
    percent: int = 0
    category: int = 0
    due: int = 0
    pay: int = 0
    mem_id: str = ""

    @property
    def key(self) -> dict[str, str]:
        """How the partner names them: one third each by our id, by phone, by its own reference."""
        if self.number % 3 == 0:
            return {"id": self.mem_id}
        return {"phone": self.phone} if self.number % 3 == 1 else {"partner_reference": self.reference}


@dataclass(frozen=True, slots=True)
class Access:
    """What a partner was given: its id, its webhook secret and its client."""

    id: UUID
    secret: str
    client: NewClient


@dataclass(frozen=True, slots=True)
class World:
    """Everything that exists before the first event."""

    today: date
    partners: Mapping[str, Access]
    people: Sequence[Person]


def paid_by_sponsor(programme: str, sponsor: str) -> str:
    """What a sponsor writes on its payment."""
    return f"{sponsor}-{programme}-0001".upper()


def prefunded(partner: str, currency: str) -> str:
    """What a partner writes on the payment that it makes before it collects."""
    return f"{partner}-{currency}-PREFUND-0001".upper()


def people(count: int, today: date, draw: random.Random) -> list[Person]:
    """The members, by group, decided by the random numbers alone; the last two are the one who is paid out, and the one
    whom the story follows."""
    listed: list[Person] = []
    joined = today - MEMBER_FOR
    for group in GROUPS:
        for _ in range(max(12, count * group.share // 100)):
            listed.append(_person(len(listed), group, joined, draw))
    retired = _person(len(listed), STORY, joined, draw)
    protagonist = _person(len(listed) + 1, STORY, joined, draw)
    return [
        *listed,
        replace(retired, percent=10, category=2, birth_date=date(joined.year - RETIRED_AGE, 1, 1)),
        replace(protagonist, percent=5, category=2),
    ]


def _person(number: int, group: Group, joined: date, draw: random.Random) -> Person:
    age = draw.choice(sorted(INSTALMENT_BY_AGE)) if group.programme == "pm-sym" else draw.randint(20, 50)
    # A birthday some days before joining, on a day that every year has.
    born = date(joined.year - age, joined.month, min(joined.day, 28)) - timedelta(days=draw.randint(0, 300))
    person = Person(number, group, f"REF-{number:05}", f"+97150{number:07}", born)
    match group.programme:
        case "ejoheza":
            percent, category = draw.choice((2, 5, 10)), draw.choice((1, 2, 2, 3, 3, 4))
            return replace(person, percent=percent, category=category)
        case "pm-sym":
            return replace(person, due=INSTALMENT_BY_AGE[age])
        case _:
            pay = draw.choice(sorted(DUE_BY_PAY))
            return replace(person, pay=pay, due=DUE_BY_PAY[pay])


def build(services: Services, listed: Sequence[Person], today: date, clock: Clock) -> World:
    """Put the world into an empty database: programmes, partners, sponsors' money, prefunds, members."""
    worker = services.worker

    def establish(tx: Tx) -> dict[str, Access]:
        for slug in PROGRAMMES:
            apply(tx, catalogue()[slug], clock=clock)
        return {plan.slug: _establish(tx, services, plan) for plan in PARTNERS}

    access = worker.run(establish)
    for (programme, sponsor), amount in SPONSORED.items():
        worker.run(
            lambda tx, p=programme, s=sponsor, a=amount: fund_sponsor(  # type: ignore[misc]  # binds the loop's names
                tx, services.books, programme=p, sponsor=s, amount=a, reference=paid_by_sponsor(p, s)
            )
        )
    for plan in PARTNERS:
        if plan.terms == "prefunded":
            partner = Partner(access[plan.slug].id, plan.slug, plan.name, "standard", "active")
            for currency in sorted({group.currency for group in GROUPS if group.partner == plan.slug}):
                worker.run(
                    lambda tx, p=partner, c=currency: record_settlement(  # type: ignore[misc]  # binds the loop's names
                        tx,
                        services.books,
                        p,
                        currency=c,
                        amount=PREFUND[c],
                        through=today,
                        reference=prefunded(p.slug, c),
                    )
                )
    registered: list[Person] = []
    for group in GROUPS:
        members = [person for person in listed if person.group is group]
        registered += worker.run(
            lambda tx, g=group, m=members: _register(tx, services, access[g.partner].id, g, m, today)  # type: ignore[misc]  # binds the loop's names
        )
    return World(today, access, sorted(registered, key=lambda person: person.number))


def _establish(tx: Tx, services: Services, plan: PartnerPlan) -> Access:
    clock = services.clock
    partner = create_partner(tx, slug=plan.slug, name=plan.name, format_="standard", clock=clock)
    for programme in dict.fromkeys(group.programme for group in GROUPS if group.partner == plan.slug):
        join_programme(
            tx, partner, find(tx, programme), terms=plan.terms, collection=plan.collection, clock=clock
        )
    secret = create_secret(tx, services.keyring, clock, partner.id)
    client = create_client(
        tx, name=plan.slug, partner_id=partner.id, environment=services.environment, at=clock.now()
    )
    return Access(partner.id, secret, client)


def _register(
    tx: Tx, services: Services, partner_id: UUID, group: Group, members: Sequence[Person], today: date
) -> list[Person]:
    programme_id = find(tx, group.programme)
    at = datetime.combine(today - MEMBER_FOR, time(10), UTC)
    facts = [_facts(person, at) for person in members]
    registrations = [
        Registration(
            phone=person.phone,
            partner_reference=person.reference,
            birth_date=person.birth_date,
            sex="female" if person.number % 2 else "male",
            origin_country=group.destination,
            residence_country=group.corridors[0].origin,
            facts=known,
            mandate=NewMandate("2026-1", "en", at),
        )
        for person, known in zip(members, facts, strict=True)
    ]
    registered = register_many(tx, services.keyring, programme_id, partner_id, registrations, at)
    joining = [
        Joining(
            one.member_id,
            partner_id,
            person.birth_date,
            known,
            group.product,
            {"percent": str(person.percent)} if person.percent else None,
        )
        for one, person, known in zip(registered, members, facts, strict=True)
    ]
    enrol_many(tx, services.books.programmes, programme_id, joining, at)
    return [
        replace(person, mem_id=public_id("mem", one.link_id))
        for person, one in zip(members, registered, strict=True)
    ]


def _facts(person: Person, at: datetime) -> tuple[Fact, ...]:
    since = at.date() - timedelta(days=1)
    match person.group.programme:
        case "ejoheza":
            return (Fact("income_category", person.category, since, at, "institution"),)
        case "pm-sym":
            return (Fact("monthly_income", 1_200_000, since, at, "self_declared"),)
        case _:
            return (Fact("basic_pay", person.pay, since, at, "document"),)
