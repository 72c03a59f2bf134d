"""The order of the demo: build the world, serve, send, rest, settle, fold, seal, compare, tell."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, Protocol

from api.bootstrap import Services
from api.demo import books, events, sender, world
from api.demo.books import Comparison
from api.demo.story import Reader, Story
from api.jobs import fold_all, seal_all, settle_to_the_end, vest_all
from api.seal_key import sealing_key
from api.serving import Serving
from integrations.inbox import queries
from ledger.database import Database
from ledger.errors import Unavailable
from ledger.fold import watermark
from ledger.report import Report
from ledger.trial_balance import FundBalance, trial_balance
from products.remittances.partners import find
from products.settlements.pair import Settlement, record_settlement

MEMBERS_PER_EVENT: Final = 0.3
REST_SECONDS_MAX: Final = 120.0
SEAL_SECONDS_MAX: Final = 30.0
SETTLING: Final = ("gulf-express", "ejoheza", "RWF")
"""Who pays in: the partner on net terms, for one of its two programmes; the other one's money stays pending."""


class Steps(Protocol):
    """Shows how much of a step is done."""

    def show(self, done: int, total: int | None = None, title: str | None = None) -> None:
        """So much of so much."""
        ...


Step = Callable[[str, int | None], AbstractContextManager[Steps]]
"""Begins a step of long work: its title and how much of it there is."""


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
    settling: tuple[str, str, str]
    settlement: Settlement
    before: Mapping[str, int]
    after: Mapping[str, int]
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
            "settlement": {
                name: value
                for name, value in asdict(self.settlement).items()
                if name not in ("id", "through")
            },
            "before": dict(self.before),
            "after": dict(self.after),
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
    with step("the API, a worker and beat are starting", None):
        serving.start(threading.Event())

    answered, send_seconds, rest_seconds = _send(services, serving, built, planned, step)

    story = Story(Reader(serving.url, built.partners[plan.story.slug].client), plan.story, built.people[-1])
    with services.worker.read() as tx:
        before = _savers(books.balances(tx))
        outcomes, lag = books.outcomes(tx), books.lag(tx)
    settlement = _settle(services, planned, today)
    with step("what was granted becomes the members' own", None):
        vest_all(services.worker, services.books)
    with step("folding and sealing", None):
        _fold_and_seal(services, sealer)
    with step("verifying", None) as steps:
        report = verified(steps)

    comparison = Comparison()
    with services.worker.read() as tx:
        after = _savers(books.balances(tx))
        balance = trial_balance(tx)
        books.compare_answers(comparison, answered)
        books.compare_outcomes(comparison, answered, tx)
        books.compare_books(comparison, planned, tx, {settlement.currency: settlement.paired})
    comparison.expect("deliveries answered", len(planned), len(answered))
    comparison.expect("settlement paired", settlement.amount, settlement.paired)
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
        settling=SETTLING,
        settlement=settlement,
        before=before,
        after=after,
        trial_balance=balance,
        report=report,
        story=story,
        figures=comparison.figures,
        wrong=comparison.wrong,
    )


def _send(
    services: Services, serving: Serving, built: world.World, planned: Sequence[events.Planned], step: Step
) -> tuple[list[sender.Answered], float, float]:
    """Send the waves; the answers, the seconds spent sending, and those until all was posted."""
    secrets = {slug: access.secret for slug, access in built.partners.items()}
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


def _settle(services: Services, planned: Sequence[events.Planned], today: date) -> Settlement:
    slug, programme, currency = SETTLING
    amount = books.owed(planned, slug, programme)
    recorded = services.worker.run(
        lambda tx: record_settlement(
            tx, services.books, find(tx, slug), currency=currency, amount=amount, through=today
        )
    )
    return settle_to_the_end(services.worker, services.books, recorded.id)


def _fold_and_seal(services: Services, sealer: Database) -> None:
    """Until nothing is left: the schedule's folder and sealer may be at it as well."""
    key = sealing_key(services.settings)
    deadline = time.monotonic() + SEAL_SECONDS_MAX
    while True:
        fold_all(services.worker)
        seal_all(sealer, key, services.clock)
        with services.worker.begin() as tx:
            folded = watermark(tx)
            left = tx.exec_driver_sql(
                "select (select count(*) from ledger.transaction where (era, xid) >= (%(era)s, %(xid)s::text::xid8))"
                " + (select count(*) from ledger.transaction t where not exists (select from ledger.seal s"
                " where s.era = t.era and t.xid < s.to_xid))",
                {"era": folded.era, "xid": str(folded.xid)},
            ).scalar_one()
        if not left:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{left} transactions are not folded or sealed after {SEAL_SECONDS_MAX:.0f} seconds"
            )
        time.sleep(0.05)


def _savers(held: Mapping[tuple[str, str, str], int]) -> dict[str, int]:
    """What the settlement moves: EjoHeza's savings and match."""
    codes = (
        "member_contributions_pending",
        "member_savings",
        "sponsor_committed",
        "match_unvested",
        "match_vested",
    )
    return {code: held.get((SETTLING[1], code, ""), 0) for code in codes}


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
