"""What is sent, and what must come of each: decided by the seed before anything is sent.

Two waves, and the inbox comes to rest between them: a reversal that follows its original, a duplicate and a conflict are
sent in the second, so that which of two came first is not a matter of luck. One remittance more comes last, when the partner
has an endpoint that is told of it.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from api.demo.world import GROUPS, PARTNERS, RETIRED_SENT, STORY_SENT, Corridor, Group, Person

PER_MILLE: Final[Mapping[str, int]] = {
    "duplicate": 20,
    "reversal after its original": 20,
    "reversal before its original": 10,
    "unknown member": 20,
    "remittance sent again with other content": 6,
    "delivery id used for another event": 6,
    "not strict JSON": 5,
    "breaks the schema": 7,
    "unauthentic": 6,
    "too old a signature": 2,
    "not possible here": 8,
    "unknown type": 2,
}
"""Of a thousand events, how many are of each kind; the others are ordinary, some of them late."""
LATE_PER_CENT: Final = 6
ORDINARY_DAYS: Final = (1, 60)
"""Before today: so that the whole of the month before this one is among them, whatever today is."""
LATE_DAYS: Final = (61, 400)
FIRST_WAVE_PER_CENT: Final = 80
LAST_WAVE: Final = 2
MONTHS_MAX: Final = 22
STALE_SECONDS: Final = 3_600
TOPIC_COMPLETED, TOPIC_REVERSED = "remittance.completed", "remittance.reversed"

_COLLECTION: Final = {plan.slug: plan.collection for plan in PARTNERS}


@dataclass(frozen=True, slots=True)
class Booked:
    """What an accepted remittance puts into the books, in minor units of its group's currency."""

    group: Group
    person: Person | None
    on: date
    product: int
    unapplied: int = 0
    unallocated: int = 0

    @property
    def collected(self) -> int:
        """What the partner took in all."""
        return self.product + self.unapplied + self.unallocated


@dataclass(frozen=True, slots=True)
class Planned:
    """One delivery: what is sent, in which wave, and what must come of it.

    ``outcome`` is the state and reason in which its row must end; None where no row is added. ``signed_by`` is the
    partner whose secret signs; None: a secret that nobody has.
    """

    what: str
    slug: str
    webhook_id: str
    body: bytes
    status: int = 202
    duplicate: bool = False
    outcome: tuple[str, str | None] | None = ("posted", None)
    signed_by: str | None = None
    seconds_old: int = 0
    wave: int = 0
    booked: Booked | None = None
    data: Mapping[str, Any] | None = None
    late: bool = False


class Plan:
    """Lays out all deliveries of a run."""

    def __init__(self, people: Sequence[Person], today: date, count: int, draw: random.Random) -> None:
        self._people = people
        self._today = today
        self._count = count
        self._draw = draw
        self._number = 0
        self._turns = dict.fromkeys(GROUPS, 0)
        self._members = {group: [one for one in people[:-2] if one.group is group] for group in GROUPS}
        self._shares = [group.share for group in GROUPS]
        self.story = self._of_one(people[-1], STORY_SENT, 3)
        self.retired = [
            replace(self._of_one(people[-2], RETIRED_SENT, days), wave=wave)
            for days, wave in ((20, 0), (10, 0), (2, LAST_WAVE))
        ]

    def lay_out(self) -> list[Planned]:
        """Every delivery, in the order in which each wave sends them."""
        wanted = {what: max(1, self._count * share // 1_000) for what, share in PER_MILLE.items()}
        # A reversal that comes first takes two deliveries: itself and, in the second wave, its original.
        ordinary = self._count - sum(wanted.values()) - wanted["reversal before its original"]
        listed = [self._ordinary() for _ in range(ordinary - 1 - len(self.retired))]
        cut = len(listed) * FIRST_WAVE_PER_CENT // 100
        listed = [replace(one, wave=0 if at < cut else 1) for at, one in enumerate(listed)]
        targets = iter(self._draw.sample(range(cut), k=cut))
        for _ in range(wanted["reversal after its original"]):
            at = next(targets)
            listed.append(self._reversal_of(listed[at]))
            listed[at] = replace(listed[at], booked=None)  # it was booked, and is taken back
        for _ in range(wanted["duplicate"]):
            listed.append(self._duplicate_of(listed[next(targets)]))
        for _ in range(wanted["remittance sent again with other content"]):
            listed.append(self._other_content(listed[next(targets)]))
        for _ in range(wanted["delivery id used for another event"]):
            listed.append(self._other_event(listed[next(targets)]))
        for _ in range(wanted["reversal before its original"]):
            original = self._ordinary()
            first = replace(self._reversal_of(original), what="reversal before its original", wave=0)
            listed.append(replace(first, outcome=("parked", "awaiting_original")))
            listed.append(
                replace(
                    original,
                    what="original after its reversal",
                    wave=1,
                    outcome=("reversed", None),
                    booked=None,
                )
            )
        singles = {
            "unknown member": self._unknown_member,
            "not strict JSON": self._not_json,
            "breaks the schema": self._broken,
            "unauthentic": self._unauthentic,
            "too old a signature": self._stale,
            "not possible here": self._impossible,
            "unknown type": self._unknown_type,
        }
        for what, make in singles.items():
            listed += [replace(make(), what=what, wave=int(turn % 5 == 4)) for turn in range(wanted[what])]
        listed += [self.story, *self.retired]
        self._draw.shuffle(listed)
        return sorted(listed, key=lambda one: one.wave)

    def _ordinary(self) -> Planned:
        group = self._draw.choices(GROUPS, self._shares)[0]
        turn, members = self._turns[group], self._members[group]
        self._turns[group] += 1
        person = members[turn % len(members)]
        # What is asked once a month comes once a month; the others come when they come.
        late = not person.due and self._draw.randrange(100) < LATE_PER_CENT
        if person.due:
            on = self._month_back(1 + (turn // len(members)) % MONTHS_MAX)
        else:
            on = self._today - timedelta(days=self._draw.randint(*(LATE_DAYS if late else ORDINARY_DAYS)))
        corridor = self._draw.choice(group.corridors)
        sent = self._draw.randint(*corridor.sent)
        numerator, denominator = corridor.rate
        received = sent * numerator // denominator
        collected, booked = self._taken(group, person, on, received)
        at = datetime.combine(on, time(8), UTC) + timedelta(seconds=self._draw.randrange(36_000))
        data = self._data(group, corridor, sent, received, collected, person.key, at)
        return self._completed(
            group.partner,
            data,
            booked=booked,
            late=late or bool(person.due and on < self._today - timedelta(days=62)),
        )

    def _of_one(self, person: Person, sending: tuple[Corridor, int], days_ago: int) -> Planned:
        """A remittance of a member who is followed: what it earns is not a matter of what came first."""
        corridor, sent = sending
        received = sent * corridor.rate[0] // corridor.rate[1]
        saved = (received * person.percent * 2 + 100) // 200
        on = self._today - timedelta(days=days_ago)
        at = datetime.combine(on, time(9, 30), UTC)
        data = self._data(person.group, corridor, sent, received, saved, person.key, at)
        return self._completed(person.group.partner, data, booked=Booked(person.group, person, on, saved))

    def _taken(self, group: Group, person: Person, on: date, received: int) -> tuple[int | None, Booked]:
        """What the partner says that it collected, and what the books must make of it."""
        asked = person.due or (received * person.percent * 2 + 100) // 200  # halves up
        if _COLLECTION[group.partner] == "by_rule":
            return None, Booked(group, person, on, asked)
        kind = self._draw.randrange(20)
        if kind == 0:
            excess = 5_000 if person.due else 700
            return asked + excess, Booked(group, person, on, asked, unapplied=excess)
        if kind == 1 and not person.due:
            return asked - asked // 10, Booked(group, person, on, asked - asked // 10)
        return asked, Booked(group, person, on, asked)

    def _month_back(self, months: int) -> date:
        index = self._today.year * 12 + self._today.month - 1 - months
        return date(index // 12, index % 12 + 1, self._draw.randint(1, 28))

    def _data(
        self,
        group: Group,
        corridor: Corridor,
        sent: int,
        received: int,
        collected: int | None,
        member: Mapping[str, str],
        at: datetime,
    ) -> dict[str, Any]:
        self._number += 1
        return {
            "remittance_id": f"{group.partner.upper()}-{self._number:06}",
            "member": dict(member),
            "sent": {"amount": sent, "currency": corridor.currency},
            "received": {"amount": received, "currency": group.currency},
            "fee": {"amount": max(1, sent // 50), "currency": corridor.currency},
            "collected": None if collected is None else {"amount": collected, "currency": group.currency},
            "origin_country": corridor.origin,
            "destination_country": group.destination,
            "completed_at": _text(at),
            "quote_id": None,
        }

    def _completed(self, slug: str, data: Mapping[str, Any], **more: Any) -> Planned:
        made = Planned(
            "ordinary", slug, self._webhook_id(), _body(TOPIC_COMPLETED, data), signed_by=slug, data=data
        )
        return replace(made, **more)

    def _webhook_id(self) -> str:
        return f"msg_{self._draw.getrandbits(96):024x}"

    def _reversal_of(self, original: Planned) -> Planned:
        data = {
            "remittance_id": _of(original)["remittance_id"],
            "reversed_at": _text(datetime.combine(self._today, time(), UTC)),
            "reason": "the sender asked for the money back",
        }
        return Planned(
            "reversal after its original",
            original.slug,
            self._webhook_id(),
            _body(TOPIC_REVERSED, data),
            outcome=("reversed", None),
            signed_by=original.slug,
            wave=1,
        )

    def _duplicate_of(self, original: Planned) -> Planned:
        """The same event under the same id, spelt differently: members of an object have no order."""
        body = json.dumps(json.loads(original.body), sort_keys=True, indent=1).encode()
        return replace(
            original,
            what="duplicate",
            body=body,
            duplicate=True,
            outcome=None,
            wave=1,
            booked=None,
            late=False,
        )

    def _other_content(self, original: Planned) -> Planned:
        data = _dearer(_of(original))
        made = self._completed(original.slug, data, outcome=("quarantined", "remittance_conflict"))
        return replace(made, what="remittance sent again with other content", wave=1)

    def _other_event(self, original: Planned) -> Planned:
        data = _dearer({**_of(original), "remittance_id": f"{_of(original)['remittance_id']}-B"})
        return replace(
            original,
            what="delivery id used for another event",
            body=_body(TOPIC_COMPLETED, data),
            status=409,
            outcome=("conflict", "delivery_conflict"),
            wave=1,
            booked=None,
            late=False,
        )

    def _unknown_member(self) -> Planned:
        made = self._ordinary()
        data = {**_of(made), "member": {"partner_reference": f"STRANGER-{self._number}"}}
        booked = made.booked
        if booked is None or data["collected"] is None:
            # By rule nothing is collected for somebody whom no rule knows.
            return self._completed(made.slug, data, outcome=("quarantined", "member_unknown"))
        stray = Booked(booked.group, None, booked.on, 0, unallocated=booked.collected)
        return self._completed(made.slug, data, outcome=("unallocated", "member_unknown"), booked=stray)

    def _not_json(self) -> Planned:
        made = self._ordinary()
        broken = self._draw.choice(
            (
                made.body[:-2],
                made.body.replace(b'"quote_id": null', b'"quote_id": NaN'),
                made.body.replace(b'"quote_id"', b'"remittance_id": "TWICE", "quote_id"'),
                made.body.replace(b'"quote_id": null', b'"quote_id": ' + b"[" * 40 + b"]" * 40),
            )
        )
        return replace(
            made, body=broken, status=400, outcome=("quarantined", "not_strict_json"), booked=None, late=False
        )

    def _broken(self) -> Planned:
        made = self._ordinary()
        change: dict[str, Any] = self._draw.choice(
            (
                {"received": {"amount": 0, "currency": "RWF"}},
                {"received": {"amount": True, "currency": "RWF"}},
                {"received": {"amount": 12.5, "currency": "RWF"}},
                {"sent": {"amount": 2**53, "currency": "KWD"}},
                {"sent": {"amount": 100, "currency": "XXQ"}},
                {"completed_at": "2026-03-02 09:29:41"},
                {"member": {}},
            )
        )
        body = _body(TOPIC_COMPLETED, {**_of(made), **change})
        return replace(
            made, body=body, status=400, outcome=("quarantined", "invalid_event"), booked=None, late=False
        )

    def _unauthentic(self) -> Planned:
        made = replace(self._ordinary(), status=401, outcome=None, booked=None, late=False)
        if self._draw.randrange(2):
            return replace(made, slug="nobody-we-know")
        return replace(made, signed_by=None)

    def _stale(self) -> Planned:
        made = replace(self._ordinary(), status=401, outcome=None, booked=None, late=False)
        return replace(made, seconds_old=STALE_SECONDS)

    def _impossible(self) -> Planned:
        made = self._ordinary()
        data = _of(made)
        next_month = _text(datetime.combine(self._today + timedelta(days=30), time(), UTC))
        dollars = {"received": {"amount": 50_000, "currency": "USD"}, "collected": None}
        impossible: tuple[tuple[dict[str, Any], str], ...] = (
            (dollars, "currency_not_served"),
            ({"completed_at": next_month}, "time_in_the_future"),
            ({"destination_country": "KE"}, "corridor_not_served"),
        )
        change, reason = self._draw.choice(impossible)
        return self._completed(made.slug, {**data, **change}, outcome=("quarantined", reason))

    def _unknown_type(self) -> Planned:
        made = self._ordinary()
        body = _body("remittance.quoted", _of(made))
        return replace(made, body=body, outcome=("ignored", "unknown_type"), booked=None, late=False)


def _of(planned: Planned) -> dict[str, Any]:
    return dict(planned.data or {})


def _dearer(data: Mapping[str, Any]) -> dict[str, Any]:
    sent = data["sent"]
    return {**data, "sent": {**sent, "amount": sent["amount"] + 1}}


def _body(event: str, data: Mapping[str, Any]) -> bytes:
    timestamp = data.get("completed_at") or data.get("reversed_at")
    return json.dumps({"type": event, "timestamp": _whole(timestamp), "data": data}).encode()


def _whole(timestamp: object) -> str:
    """The event's own time; where that is what is broken, any will do."""
    text = str(timestamp)
    return text if text.endswith("Z") else "2026-03-02T09:30:00Z"


def _text(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
