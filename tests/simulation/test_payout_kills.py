"""Workers that pay out are killed at every step, by the thousand payouts, while the rail misbehaves: nothing is paid twice or lost.

Everything is real: PostgreSQL that waits for the disk, the API that takes callbacks, worker processes that get SIGKILL (or are frozen
past their lease and go on), and a provider in a process of its own with a durable book, which is the judge.
"""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from api.embedded import EmbeddedServers
from integrations.rails import mobile_money
from ledger.ids import new_id, public_id
from products.payouts import registry
from products.payouts.errors import QueueFull
from products.payouts.tie import Tie, tie
from tests.conftest import FUZZ
from tests.integration.rails.gsma_books import Rule
from tests.integration.rails.gsma_simulator import CALLBACK_KEY
from tests.simulation.held_answers import Moment, Road, road_to
from tests.simulation.paying_processes import (
    FEE,
    QUEUE_MAX,
    SLUG,
    TOP_UP,
    Job,
    Payouts,
    payee_number,
    paying_processes,
)
from tests.simulation.running_system import eventually
from tests.tying import expect_all_ties

pytestmark = pytest.mark.timeout(600 + 300 * FUZZ)

PAYOUTS = 400 * FUZZ
"""How many are paid out while workers are killed at random: thousands by ``MIZAN_TESTS_FUZZ=5``, drawn anew each time."""
SEED = 7 if FUZZ == 1 else new_id().int % 10_000
MEMBERS = 20
SAVED = 50_000_000
AT_ONCE = 16
"""How many requests the rail has under way at once."""
EACH_STEP = 24

ANY_STEP = [
    Rule("before", "time_out", rate=0.01, seconds=1.0),
    Rule("before", "reset", rate=0.03),
    Rule("before", "error_500", rate=0.02),
    Rule("before", "error_503", rate=0.02),
    Rule("before", "rate_limited", rate=0.02),
    Rule("before", "unauthorised", rate=0.01),
    Rule("before", "refuse", rate=0.02, code="incorrectState"),
    Rule("before", "slow", rate=0.01, seconds=3.0),
    Rule("after", "time_out", rate=0.02, seconds=1.0),
    Rule("after", "reset", rate=0.03),
    Rule("after", "error_500", rate=0.03),
    Rule("after", "error_503", rate=0.02),
    Rule("after", "broken_answer", rate=0.02),
    Rule("after", "wrong_hash", rate=0.02),
    Rule("after", "synchronous", rate=0.05),
    Rule("ask", "time_out", rate=0.01, seconds=1.0),
    Rule("ask", "reset", rate=0.02),
    Rule("ask", "error_500", rate=0.02),
    Rule("ask", "rate_limited", rate=0.02),
    Rule("outcome", "fails", rate=0.06, code="maxBalanceExceeded"),
    Rule("outcome", "fails_later", rate=0.05, seconds=1.0),
    Rule("outcome", "reverses", rate=0.05, seconds=1.0),
    Rule("outcome", "never", rate=0.01),
    Rule("callback", "repeated", rate=0.3, times=3),
    Rule("callback", "before_answer", rate=0.15),
    Rule("callback", "out_of_order", rate=0.15, seconds=0.5),
    Rule("callback", "none", rate=0.2),
    Rule("callback", "late", rate=0.1, seconds=1.0),
]
"""Everything that the provider can do wrong, a little of each, drawn for each payment and try."""


@pytest.fixture(scope="module")
def payouts(durable_servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Payouts]:
    """The processes of all of these tests; each test leaves no payout under way."""
    folder = tmp_path_factory.mktemp("provider")
    with paying_processes(durable_servers, folder, members=MEMBERS, saved=SAVED, seed=SEED) as running:
        yield running


@dataclass(frozen=True)
class Step:
    """A moment of a worker's work at which it is killed, and what of `EACH_STEP` payouts is then at the rail.

    `marked`: a statement of the transaction to stop in; None: it is stopped by the provider, which does `rules`.
    """

    name: str
    marked: bytes | None
    moment: Moment
    at_rail: int
    rules: tuple[Rule, ...] = ()
    job: Job = "submit"
    state: str = "submitted"


INTENT = b"INSERT INTO products.payout_attempt"
RECORDING = b"SELECT 1 FROM products.payout WHERE id IN"
RECORD = b"UPDATE products.payout_attempt AS a SET state = n.state"
ASKING = b"SET asked = least"
AGAIN = b"sendings = sendings + 1"

STEPS = [
    Step("the intent is not committed", INTENT, "before", 0, state="approved"),
    Step("the intent is committed, nothing is called", INTENT, "after", 0),
    Step("calling, the rail has read it", None, "reached", 0, (Rule("before", "slow", seconds=3.0),)),
    Step("calling, the rail has made it", None, "reached", AT_ONCE, (Rule("after", "slow", seconds=3.0),)),
    Step("called, nothing is recorded", RECORDING, "reached", EACH_STEP),
    Step("the record is not committed", RECORD, "before", EACH_STEP),
    Step("the record is committed", RECORD, "after", EACH_STEP),
    Step("called in vain, nothing is recorded", RECORDING, "reached", 0, (Rule("before", "error_503"),)),
    Step("called in vain, the record is committed", RECORD, "after", 0, (Rule("before", "error_503"),)),
    # these meet what the steps before have left; their own payouts wait
    Step("sending again is not committed", AGAIN, "before", 0, state="approved"),
    Step("sending again is committed, nothing is called", AGAIN, "after", 0, state="approved"),
    Step("asking is committed, nothing is asked", ASKING, "after", 0, job="ask", state="approved"),
    Step("asked, nothing is recorded", RECORDING, "reached", 0, job="ask", state="approved"),
]


def test_killed_at_each_step_of_its_work_a_worker_leaves_each_payout_at_the_rail_once(
    payouts: Payouts,
) -> None:
    url = payouts.settings.database_url_worker
    assert url is not None
    with road_to(url.get_secret_value(), b"") as road:
        never = Rule("outcome", "never")
        for step in STEPS:
            payouts.provider.does(never, *step.rules)
            batch = payouts.approved(EACH_STEP)
            _kill_at(payouts, road, step, batch)
            assert _at_rail(payouts, batch) == step.at_rail, step.name
            assert payouts.states(batch) == {step.state: EACH_STEP}, step.name
        late = payouts.made[2 * EACH_STEP : 3 * EACH_STEP]
        eventually(lambda: _at_rail(payouts, late) == AT_ONCE, "the rail made what it had read of the dead")
    payouts.provider.does()
    payouts.provider.settle()
    payouts.workers.start()
    payouts.workers.start()
    _wait_for_last_words(payouts)
    payouts.workers.end()
    assert payouts.states() == {"paid": EACH_STEP * len(STEPS)}
    expect_all_tied(payouts)


def _kill_at(payouts: Payouts, road: Road, step: Step, batch: list[UUID]) -> None:
    """Let a worker do its job up to the step, and kill it there."""
    road.held.clear()
    road.marked, road.hold = step.marked or b"", step.moment if step.marked else None
    asked = payouts.provider.asked_to_pay()
    settings = payouts.settings.model_copy(update={"database_url_worker": SecretStr(road.url)})
    process = payouts.workers.start(step.job, settings=settings)
    if step.marked is not None:
        assert road.held.wait(30), f"it never came to it: {step.name}"
    else:
        eventually(lambda: payouts.provider.asked_to_pay() == asked + AT_ONCE, f"it was {step.name}")
    payouts.workers.kill(process)


def _wait_for_last_words(payouts: Payouts) -> None:
    try:
        eventually(lambda: payouts.under_way() == 0, "every payout had its last word", 280)
    finally:
        there = Counter(one["description"] for one in payouts.provider.payments())
        assert [name for name, times in there.items() if times > 1] == [], "paid more than once"


def _at_rail(payouts: Payouts, batch: list[UUID]) -> int:
    names = {public_id("pay", one) for one in batch}
    return sum(one["description"] in names for one in payouts.provider.payments())


def test_killed_at_any_moment_by_the_thousand_payouts_nothing_is_paid_twice_or_lost(payouts: Payouts) -> None:
    payouts.provider.does(*ANY_STEP)
    batch = payouts.approved(PAYOUTS)
    before, began = payouts.workers.killed, time.monotonic()
    with payouts.workers.killed_at_random(2, SEED), _forged_callbacks(payouts):
        eventually(lambda: payouts.under_way() < PAYOUTS // 3, "most had their last word", 300 * FUZZ)
        payouts.provider.does(*(rule for rule in ANY_STEP if rule.fault != "never"))
        payouts.provider.settle()
        eventually(lambda: payouts.under_way() < PAYOUTS // 20, "nearly all had", 280)
    killed = payouts.workers.killed - before
    for _ in range(2):
        payouts.workers.start()
    _wait_for_last_words(payouts)
    time.sleep(1.2)  # the latest late return
    eventually(lambda: _agree(payouts), "what came back late was heard of", 180)
    payouts.workers.end()
    seconds = time.monotonic() - began
    print(
        f"seed {SEED}, {killed} killed, {payouts.workers.frozen} frozen, {seconds:.0f} s, {payouts.states(batch)}"
    )
    assert killed >= 3, "hardly anybody was killed"
    assert set(payouts.states(batch)) == {"paid", "failed", "returned"}
    expect_all_tied(payouts)


def test_a_rail_that_is_down_queues_up_to_its_limit_and_pays_all_once_it_is_up(payouts: Payouts) -> None:
    payouts.provider.does()
    payouts.provider.down()
    workers = [payouts.workers.start() for _ in range(2)]
    batch = _approved_until_full(payouts)
    eventually(lambda: payouts.queued() >= QUEUE_MAX, "the queue was full")
    assert payouts.breaker()["opened_at"] is not None
    assert set(payouts.states(batch)) <= {"approved", "submitted", "unknown"}
    for process in workers:
        payouts.workers.kill(process)  # at times with the probe in its hands
        payouts.workers.start()
    time.sleep(1.5)
    assert payouts.queued() >= QUEUE_MAX - len(workers), "a rail that is down is only probed"
    assert _at_rail(payouts, batch) == 0
    payouts.provider.up()
    eventually(lambda: payouts.states(batch) == {"paid": len(batch)}, "all of them were paid", 180)
    payouts.workers.end()
    assert payouts.breaker()["opened_at"] is None
    assert payouts.approved(1)
    payouts.workers.start()
    eventually(lambda: payouts.under_way() == 0, "the rail was as before", 180)
    payouts.workers.end()
    expect_all_tied(payouts)


def _approved_until_full(payouts: Payouts) -> list[UUID]:
    batch: list[UUID] = []
    for _ in range(200):
        try:
            batch += payouts.approved(20)
        except QueueFull:
            return batch
        time.sleep(0.05)
    raise AssertionError("the queue of a rail that is down has no end")


@contextmanager
def _forged_callbacks(payouts: Payouts) -> Iterator[None]:
    """All the time somebody calls back about payments that nobody made, lies about real ones, and has not the key."""
    adapter = payouts.services.rails.adapter(payouts.rail)
    assert isinstance(adapter, mobile_money.MobileMoney)
    statuses: Counter[tuple[str, int]] = Counter()
    ends = threading.Event()
    lie = json.dumps({"transactionStatus": "completed", "amount": "999999", "currency": "RWF"}).encode()

    def put(kind: str, attempt: UUID, key: str) -> None:
        answer = http.put(
            f"{payouts.url}/hooks/rails/{SLUG}/{adapter.callback_path(attempt)}",
            content=lie,
            headers={"x-api-key": key, "content-type": "application/json"},
        )
        statuses[kind, answer.status_code] += 1

    def forge() -> None:
        while not ends.wait(0.05):
            put("unknown", new_id(), CALLBACK_KEY)
            put("without the key", new_id(), "another-key-of-enough-characters")
            for (attempt,) in _some_attempts(payouts):
                put("lie", attempt, CALLBACK_KEY)

    with httpx.Client(timeout=30, trust_env=False) as http:
        forging = threading.Thread(target=forge)
        forging.start()
        try:
            yield
        finally:
            ends.set()
            forging.join()
    assert {kind for kind, _ in statuses} == {"unknown", "without the key", "lie"}
    assert set(statuses) == {("unknown", 204), ("without the key", 401), ("lie", 204)}, statuses


def _some_attempts(payouts: Payouts) -> list[tuple[UUID]]:
    rows = payouts.paying.rows(
        "SELECT id FROM products.payout_attempt WHERE state NOT IN ('paid', 'failed', 'returned') ORDER BY id LIMIT 2"
    )
    return [(row["id"],) for row in rows]


ENDS = {"completed": {"paid"}, "failed": {"failed"}, "reversed": {"returned"}, "failed_late": {"failed"}}
"""What a payout is that is so in the provider's own book; one that it has nothing of was refused: failed."""


def expect_all_tied(payouts: Payouts) -> None:
    """Each payout is at the rail at most once, exactly once if paid, and the books are the provider's own list."""
    payouts.provider.does()  # a list that can't be had to its end is none
    listed = payouts.provider.payments()
    expect_each_at_the_rail_once(payouts, listed)
    expect_the_money_where_the_rail_says(payouts, listed)
    tied = tie_to_the_rail(payouts)
    assert tied.differences == ()
    made = [one for one in listed if one["state"] == "completed"]
    assert tied.paid_ours == tied.paid_theirs == sum(int(one["amount"]) for one in made)
    assert (tied.ties, tied.clearing) == (True, 0)
    expect_all_ties(payouts.paying.databases)


def expect_each_at_the_rail_once(payouts: Payouts, listed: list[dict[str, Any]]) -> None:
    there = {one["description"]: one for one in listed}
    assert len(there) == len(listed) == len({one["correlation_id"] for one in listed})
    rows = payouts.paying.rows(
        "SELECT p.id, p.state, p.amount, p.problem, a.id AS attempt FROM products.payout p"
        " JOIN products.payout_attempt a ON a.payout_id = p.id"
    )
    assert len(rows) == len({row["id"] for row in rows}) == len(payouts.made)
    assert {row["problem"] for row in rows} == {None}
    assert set(there) <= {public_id("pay", row["id"]) for row in rows}
    for row in rows:
        payment = there.get(public_id("pay", row["id"]))
        if payment is None:
            assert row["state"] == "failed", row
            continue
        assert row["state"] in ENDS[payment["state"]], (row, payment)
        assert (str(row["attempt"]), row["amount"] - FEE) == (
            payment["correlation_id"],
            int(payment["amount"]),
        )


def expect_the_money_where_the_rail_says(payouts: Payouts, listed: list[dict[str, Any]]) -> None:
    """Every account, from nothing but the provider's list and what was saved."""
    paid = [one for one in listed if one["state"] == "completed"]
    moved = [one for one in listed if one["state"] not in ("failed", "pending")]
    paying = payouts.paying
    assert paying.balance("payout_clearing") == 0
    assert paying.balance("payout_charges", SLUG) == len(moved)  # the provider takes 1 of each that it moves
    assert paying.balance("rail_float", SLUG) == TOP_UP - sum(int(one["amount"]) for one in paid) - len(moved)
    assert paying.balance("fees_payable") == FEE * len(paid)
    taken: defaultdict[str, int] = defaultdict(int)
    for one in paid:
        taken[one["msisdn"]] += int(one["amount"]) + FEE
    for place, (person, _) in enumerate(payouts.people):
        left = paying.world.balance("member_savings", person.enrolments["savings"])
        assert left == SAVED - taken[payee_number(place).removeprefix("+")]
    assert paying.rows("SELECT count(*) AS many FROM ledger.hold WHERE state = 'active'") == [{"many": 0}]


def tie_to_the_rail(payouts: Payouts) -> Tie:
    """What `mizan rail tie` does."""
    since, until = datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC) + timedelta(minutes=1)
    with payouts.services.worker.begin() as tx:
        rail = registry.find(tx, SLUG)
        listed = payouts.services.rails.adapter(rail).listed(since, until)
        return tie(tx, rail, listed, since=since, until=until)


def _agree(payouts: Payouts) -> bool:
    """Whether what came back at the rail has come back in the books too."""
    states = Counter(next(iter(ENDS.get(one["state"], {"?"}))) for one in payouts.provider.payments())
    ours = payouts.states()
    return (states["paid"], states["returned"]) == (ours.get("paid", 0), ours.get("returned", 0))
