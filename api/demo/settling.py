"""A partner on net terms settles: what it owes by day, one payment that counts, one that the bank takes back, and what is late."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Final

from api.bootstrap import Services
from api.demo import books
from api.demo.books import Comparison
from api.demo.client import Client
from api.demo.events import Booked, Planned
from api.demo.receiver import Receiver
from api.jobs import settle_to_the_end
from ledger.ids import public_id
from products.remittances.partners import find
from products.settlements.pair import Settlement, record_settlement
from products.settlements.returns import return_settlement

PARTNER: Final = "gulf-express"
PROGRAMME: Final = "ejoheza"
"""It pays in all that it collected for this programme …"""
CURRENCY: Final = "RWF"
BOUNCING: Final = "pm-sym"
"""… and of the other one what is older than `BOUNCING_DAYS`, which its bank takes back."""
BOUNCING_CURRENCY: Final = "INR"
BOUNCING_DAYS: Final = 60
REASON: Final = "AM04: the account had not enough on it"
CODES: Final = (
    "member_contributions_pending",
    "member_savings",
    "sponsor_committed",
    "match_unvested",
    "match_vested",
)
BUCKETS: Final = ("not_due", "days_1_to_7", "days_8_to_30", "days_31_to_90", "over_90_days")


@dataclass(frozen=True, slots=True)
class Owed:
    """What the partner reads that it owes for a programme: by day, what was reversed on these days, and by lateness."""

    by_day: Mapping[date, int]
    reversed: int
    late: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of it, in minor units."""
        return sum(self.by_day.values())


@dataclass(frozen=True, slots=True)
class Settled:
    """What the partner owed before and after by programme; its settlements; the accounts that they move.

    `paid` moves PROGRAMME's accounts, from `before` to `after`; `bounced` those of BOUNCING, there and back.
    """

    owed: Mapping[str, Owed]
    paid: Settlement
    bounced: Settlement
    listed: Sequence[Mapping[str, Any]]
    before: Mapping[str, int]
    after: Mapping[str, int]
    there: Sequence[Mapping[str, int]]
    left: Mapping[str, Owed]
    events: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The figures, for programs."""
        return {
            "settlement": _figures(self.paid),
            "returned": _figures(self.bounced),
            "owed": {slug: one.total for slug, one in self.owed.items()},
            "days": {slug: len(one.by_day) for slug, one in self.owed.items()},
            "reversed": {slug: one.reversed for slug, one in self.owed.items()},
            "left": {slug: dict(one.late) for slug, one in self.left.items()},
            "before": dict(self.before),
            "after": dict(self.after),
            "events": list(self.events),
        }


def settle(services: Services, client: Client, today: date, receiver: Receiver) -> Settled:
    """Pay in what the partner reads that it owes: for one programme for good, for the other one in vain."""
    owed = _owed(client)
    before, there = _held(services, PROGRAMME), [_held(services, BOUNCING)]
    paid = _pay(services, CURRENCY, owed[PROGRAMME].total, today)
    through = today - timedelta(days=BOUNCING_DAYS)
    old = sum(amount for day, amount in owed[BOUNCING].by_day.items() if day <= through)
    bounced = _pay(services, BOUNCING_CURRENCY, old, through)
    there.append(_held(services, BOUNCING))
    services.worker.run(lambda tx: return_settlement(tx, services.books, bounced.id, reason=REASON))
    settle_to_the_end(services.worker, services.books, bounced.id)
    there.append(_held(services, BOUNCING))
    returned = public_id("stl", bounced.id)
    receiver.wait_for("id", returned, 1)
    return Settled(
        owed,
        paid,
        bounced,
        client.pages("/v1/settlements"),
        before,
        _held(services, PROGRAMME),
        there,
        _owed(client),
        receiver.types_of("id", returned),
    )


def compare(comparison: Comparison, found: Settled, planned: Sequence[Planned], today: date) -> None:
    """What the partner reads is what it collected; what was paid in moved it; what came back moved it back."""
    collected = [
        one.booked for one in planned if one.booked is not None and one.booked.group.partner == PARTNER
    ]
    for slug in (PROGRAMME, BOUNCING):
        due = _by_day(one for one in collected if one.group.programme == slug)
        for day in sorted({*due, *found.owed[slug].by_day}):
            comparison.expect(
                f"{PARTNER} owes {slug} for {day}", due[day], found.owed[slug].by_day.get(day, 0)
            )
        aged = Counter(found.owed[slug].late)
        comparison.expect(f"{PARTNER} owes {slug} by lateness", found.owed[slug].total, aged.total())
    through = today - timedelta(days=BOUNCING_DAYS)
    old = sum(one.collected for one in collected if one.group.programme == BOUNCING and one.on <= through)
    for one, amount in ((found.paid, found.owed[PROGRAMME].total), (found.bounced, old)):
        comparison.expect("settlement", amount, one.amount)
        comparison.expect("settlement paired", one.amount, one.paired)
    states = {one["id"]: one["state"] for one in found.listed}
    comparison.expect("the settlement", "paired", states.get(public_id("stl", found.paid.id)))
    comparison.expect("the returned settlement", "returned", states.get(public_id("stl", found.bounced.id)))
    comparison.expect("pending in the paid programme", 0, found.after["member_contributions_pending"])
    comparison.expect(
        "settled by the settlement",
        found.before["member_contributions_pending"],
        found.after["member_savings"] - found.before["member_savings"],
    )
    first, between, last = found.there
    comparison.expect(
        "granted with the settlement that came back",
        between["member_savings"] - first["member_savings"],
        between["match_unvested"] - first["match_unvested"],
    )
    comparison.expect("moved by the settlement that came back", True, between != first)
    comparison.expect("the books after it came back", first, last)
    comparison.expect("owed for the paid programme afterwards", 0, found.left[PROGRAMME].total)
    comparison.expect("owed for the other one", found.owed[BOUNCING], found.left[BOUNCING])
    comparison.expect("events of the settlement that came back", ["settlement.returned"], found.events)


def _pay(services: Services, currency: str, amount: int, through: date) -> Settlement:
    recorded = services.worker.run(
        lambda tx: record_settlement(
            tx, services.books, find(tx, PARTNER), currency=currency, amount=amount, through=through
        )
    )
    return settle_to_the_end(services.worker, services.books, recorded.id)


def _held(services: Services, programme: str) -> dict[str, int]:
    with services.worker.read() as tx:
        held = books.balances(tx)
    return {code: held.get((programme, code, ""), 0) for code in CODES}


def _owed(client: Client) -> dict[str, Owed]:
    days = client.pages("/v1/settlements/obligations")
    ageing = {one["programme"]: one for one in client.get("/v1/settlements/ageing")["data"]}
    found = {}
    for slug in (PROGRAMME, BOUNCING):
        here = [one for one in days if one["programme"] == slug]
        by_day: Counter[date] = Counter()
        for one in here:
            by_day[date.fromisoformat(one["collected_on"])] += one["owed"]["amount"]
        late = {name: ageing[slug][name]["amount"] if slug in ageing else 0 for name in BUCKETS}
        found[slug] = Owed(dict(by_day), sum(one["reversed"]["amount"] for one in here), late)
    return found


def _by_day(booked: Iterable[Booked]) -> Counter[date]:
    days: Counter[date] = Counter()
    for one in booked:
        days[one.on] += one.collected
    return days


def _figures(one: Settlement) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name not in ("id", "through")}
