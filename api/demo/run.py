"""The order of the demo: build the world, serve, send, rest, settle, pay out, reconcile, fold, seal, close, compare, tell."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import time as time_of_day
from typing import Any, Final, Protocol
from urllib.parse import quote

from api.bootstrap import Services
from api.demo import books, closing, events, payouts, persons, reconciling, sender, settling, transfers, world
from api.demo.books import Comparison
from api.demo.client import Client
from api.demo.closing import Closed
from api.demo.payouts import PaidOut
from api.demo.receiver import Receiver, receiving
from api.demo.reconciling import Reconciled
from api.demo.settling import Settled
from api.demo.story import Story
from api.jobs import fold_and_seal_all, vest_all
from api.seal_key import sealing_key
from api.serving import Serving
from integrations.inbox import queries
from integrations.outbound.catalogue import EVENT_TYPES
from ledger.database import Database
from ledger.errors import Unavailable
from ledger.report import Report
from ledger.trial_balance import FundBalance, trial_balance

MEMBERS_PER_EVENT: Final = 0.3
REST_SECONDS_MAX: Final = 120.0
TOLD_SECONDS_MAX: Final = 60.0
TOLD: Final = ("remittance.allocated", "settlement.returned")
"""What the partner's endpoint is told besides the states of payouts."""


class Steps(Protocol):
    """Shows how much of a step is done."""

    def show(self, done: int, total: int | None = None, title: str | None = None) -> None:
        """So much of so much."""
        ...


Step = Callable[[str, int | None], AbstractContextManager[Steps]]
"""Begins a step of long work: its title and how much of it there is."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the partner's endpoint was told: how many events, the types of those of the last remittance, and how many
    were not signed."""

    events: int
    allocated: Sequence[str]
    unsigned: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found; `wrong` is empty when every figure is as it had to be."""

    members: int
    sent: int
    answers: Mapping[str, int]
    kinds: Mapping[str, int]
    late: int
    currencies: Sequence[str]
    outcomes: Sequence[tuple[str, str, int]]
    send_seconds: float
    rest_seconds: float
    lag: books.Lag
    settled: Settled
    paid_out: PaidOut
    reconciled: Reconciled
    closed: Closed
    told: Told
    trial_balance: Sequence[FundBalance]
    report: Report
    story: Story
    figures: int
    wrong: Sequence[str]

    @property
    def accepted(self) -> int:
        """Deliveries acknowledged as new."""
        return self.answers.get("202 new", 0)

    def to_json(self) -> dict[str, Any]:
        """The figures, for programs; those of time differ from run to run, all others follow from the seed.

        How many postings there are is left out: which contribution crosses a threshold, and so carries the match,
        depends on which of two came first.
        """
        return {
            "ok": not self.wrong,
            "members": self.members,
            "sent": self.sent,
            "answers": dict(self.answers),
            "kinds": dict(self.kinds),
            "outcomes": [
                {"state": state, "reason": reason or None, "deliveries": count}
                for state, reason, count in self.outcomes
            ],
            **self.settled.to_json(),
            **self.paid_out.to_json(),
            **self.reconciled.to_json(),
            **self.closed.to_json(),
            "allocated": list(self.told.allocated),
            "trial_balance": [one.to_json() for one in self.trial_balance],
            "verify": {
                name: value
                for name, value in self.report.to_json().items()
                if name in ("ok", "transactions", "unsealed")
            },
            "timing": {
                "send_seconds": round(self.send_seconds, 3),
                "until_posted_seconds": round(self.rest_seconds, 3),
                "events_per_second": round(self.accepted / self.rest_seconds, 1),
                "lag_p50_seconds": round(self.lag.p50, 3),
                "lag_p99_seconds": round(self.lag.p99, 3),
            },
            "figures_compared": self.figures,
            "wrong": list(self.wrong),
        }


def run(
    services: Services,
    sealer: Database,
    serving: Serving,
    *,
    seed: int,
    count: int,
    step: Step,
    verified: Callable[[Steps], Report],
) -> Result:
    """Run the demo on an empty, migrated database, whose service is not started yet.

    Raises `Unavailable` when the service dies or doesn't come to rest.
    """
    today = datetime.now(UTC).date()
    draw = random.Random(seed)  # noqa: S311  a game that can be repeated, not a secret
    people = world.people(int(count * MEMBERS_PER_EVENT), today, draw)
    with step(
        f"{len(people):,} members, {len(world.PARTNERS)} partners, {len(world.PROGRAMMES)} programmes", None
    ):
        built = world.build(services, people, today, services.clock)
    plan = events.Plan(built.people, today, count, draw)
    planned = plan.lay_out()
    person, partner = built.people[-2], built.partners[settling.PARTNER]
    joined = datetime.combine(today - world.MEMBER_FOR, time_of_day(10), UTC)
    retired = payouts.set_up(services, person, partner, joined)
    with step("the API, a worker and beat are starting", None):
        serving.start(threading.Event())

    first = [one for one in planned if one.wave < events.LAST_WAVE]
    answered, send_seconds, rest_seconds = _send(services, serving, built, first, step)
    with services.worker.read() as tx:
        lag = books.lag(tx)
    client = Client.of(serving.url, partner.client)
    with receiving() as receiver:
        with step("the partner registers its endpoint; one remittance more", None):
            _register(services, client, receiver)
            last = [one for one in planned if one.wave == events.LAST_WAVE]
            answered += sender.send(serving.url, last, _secrets(built), lambda _: None)
            _wait_for_rest(services, serving)
            remittance = _remittance(client, plan.retired[-1])
            receiver.wait_for("id", remittance, 1)
        with services.worker.read() as tx:
            outcomes = books.outcomes(tx)
        story = Story(client, plan.story, built.people[-1])
        with step("the partner settles", None):
            settled = settling.settle(services, client, today, receiver)
        with step("what was granted becomes the members' own", None):
            vest_all(services.worker, services.books)
        with step("a member is paid out", None):
            paid_out = payouts.pay_out(services, client, retired, receiver)
        told = Told(len(receiver.events), receiver.types_of("id", remittance), receiver.unsigned)
    manager = reconciling.staff(services, serving.url, "manager")
    administrator = reconciling.staff(services, serving.url, "administrator")
    with step("the bank's statements come in and are paired; a break is resolved", None):
        payer = Client.of(serving.url, built.partners[transfers.PARTNER].client)
        reconciled = reconciling.reconcile_with_the_bank(
            services, manager, administrator, payer, settled, paid_out
        )
    with step("folding and sealing", None):
        fold_and_seal_all(services.worker, sealer, sealing_key(services.settings), services.clock)
    with step("verifying", None) as steps:
        report = verified(steps)
    with step("the month before this one is closed", None):
        two = persons.managers(services, serving.url)
        made = closing.close_month(two, reconciled)
        fold_and_seal_all(services.worker, sealer, sealing_key(services.settings), services.clock)
        closed = closing.read_pack(services, two[0], reconciled, made)

    comparison = Comparison()
    with services.worker.read() as tx:
        balance = trial_balance(tx)
        books.compare_answers(comparison, answered)
        books.compare_outcomes(comparison, answered, tx)
        books.compare_books(
            comparison,
            planned,
            tx,
            {
                (settling.PARTNER, settling.PROGRAMME): settled.paid.paired,
                (transfers.PARTNER, transfers.PROGRAMME): reconciled.at_bank.paid_in,
            },
            {settling.PROGRAMME: paid_out.out},
        )
    comparison.expect("deliveries answered", len(planned), len(answered))
    settling.compare(comparison, settled, planned, today)
    payouts.compare(comparison, paid_out, [one.booked for one in plan.retired if one.booked is not None])
    reconciling.compare(comparison, reconciled, planned, paid_out)
    closing.compare(comparison, closed, reconciled)
    comparison.expect("events of the last remittance", ["remittance.allocated"], told.allocated)
    comparison.expect("events that were not signed", 0, told.unsigned)
    comparison.expect("verification", True, report.ok)
    comparison.expect("not sealed", 0, report.unsealed)
    for one in balance:
        comparison.expect(f"trial balance of {one.fund}", one.debit_total, one.credit_total)
    return Result(
        members=len(people),
        sent=len(answered),
        answers=_answers(answered),
        kinds=Counter(one.what for one in planned),
        late=sum(one.late for one in planned),
        currencies=sorted(
            {(one.data or {})["sent"]["currency"] for one in planned if "sent" in (one.data or {})}
        ),
        outcomes=outcomes,
        send_seconds=send_seconds,
        rest_seconds=rest_seconds,
        lag=lag,
        settled=settled,
        paid_out=paid_out,
        reconciled=reconciled,
        closed=closed,
        told=told,
        trial_balance=balance,
        report=report,
        story=story,
        figures=comparison.figures,
        wrong=comparison.wrong,
    )


def _secrets(built: world.World) -> dict[str, str]:
    return {slug: access.secret for slug, access in built.partners.items()}


def _register(services: Services, client: Client, receiver: Receiver) -> None:
    """Register the partner's endpoint, once what was sent before is no news any more."""
    deadline = time.monotonic() + TOLD_SECONDS_MAX
    while True:
        with services.worker.begin() as tx:
            behind = tx.exec_driver_sql(
                "select exists (select from ledger.outbox o, integrations.outbox_position p where p.name = 'events'"
                " and (o.era, o.xid, o.id) > (p.era, p.xid, p.message_id))"
            ).scalar_one()
        if not behind:
            break
        if time.monotonic() > deadline:
            raise Unavailable(f"events were not made within {TOLD_SECONDS_MAX:.0f} seconds")
        time.sleep(0.1)
    wanted = [*TOLD, *(name for name in EVENT_TYPES if name.startswith("payout."))]
    made = client.post("/v1/webhook-endpoints", {"url": receiver.url, "event_types": wanted})
    receiver.registered(made["secret"])


def _remittance(client: Client, planned: events.Planned) -> str:
    """Our id of a remittance that was sent."""
    named = quote(str((planned.data or {})["remittance_id"]))
    return str(client.get(f"/v1/remittances?remittance_id={named}")["data"][0]["id"])


def _send(
    services: Services, serving: Serving, built: world.World, planned: Sequence[events.Planned], step: Step
) -> tuple[list[sender.Answered], float, float]:
    """Send the waves; the answers, the seconds spent sending, and those until all was posted."""
    secrets = _secrets(built)
    answered: list[sender.Answered] = []
    send_seconds = rest_seconds = 0.0
    with step("signed webhooks", len(planned)) as steps:
        for wave in sorted({one.wave for one in planned}):
            mine = [one for one in planned if one.wave == wave]
            done = len(answered)
            began = time.perf_counter()
            answered += sender.send(
                serving.url,
                mine,
                secrets,
                lambda count, done=done: steps.show(done + count, len(planned)),  # type: ignore[misc]  # binds the loop's name
            )
            send_seconds += time.perf_counter() - began
            _wait_for_rest(services, serving)
            rest_seconds += time.perf_counter() - began
    return answered, send_seconds, rest_seconds


def _wait_for_rest(services: Services, serving: Serving) -> None:
    deadline = time.monotonic() + REST_SECONDS_MAX
    while True:
        with services.worker.begin() as tx:
            left = queries.backlog(tx).deliveries
        if not left:
            return
        serving.check()
        if time.monotonic() > deadline:
            raise Unavailable(f"{left} deliveries still wait after {REST_SECONDS_MAX:.0f} seconds")
        time.sleep(0.05)


def _answers(answered: Sequence[sender.Answered]) -> dict[str, int]:
    count: Counter[str] = Counter()
    for one in answered:
        label = str(one.status)
        if one.status == 202:
            label += " duplicate" if one.answer.get("duplicate") else " new"
        elif "code" in one.answer:
            label += f" {one.answer['code']}"
        count[label] += 1
    return dict(sorted(count.items()))
