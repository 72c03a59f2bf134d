"""Mobile money keeps the contract of all rails; and thousands of faults later its provider has each payment once."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

import tests
from integrations.rails.mobile_money import MobileMoney
from ledger.ids import new_id
from products.payouts.rails import Callback, Instruction, Report
from tests.integration.rails.contract import Fate, Fault, RailContract
from tests.integration.rails.gsma_books import Payment, Rule
from tests.integration.rails.gsma_simulator import CALLBACK_KEY
from tests.integration.rails.gsma_world import (
    SILENCE_SECONDS,
    Wallets,
    eventually,
    instruction,
    sent,
    setting,
    wallets,
)

FATES: tuple[Fate, ...] = ("paid", "failed", "comes_back")
PROJECT = Path(tests.__file__).parents[1]
LINE: Mapping[Fault, tuple[Rule, ...]] = {
    "down": (),
    "request_lost": (
        Rule("before", "time_out", seconds=SILENCE_SECONDS),
        Rule("ask", "time_out", seconds=SILENCE_SECONDS),
    ),
    "answer_lost": (
        Rule("after", "time_out", seconds=SILENCE_SECONDS),
        Rule("ask", "time_out", seconds=SILENCE_SECONDS),
    ),
    "error_after_success": (Rule("after", "error_500"), Rule("ask", "error_500")),
}


@dataclass
class Bench:
    """A provider and the rail; the fate of a payment is its amount's last digit."""

    momo: Wallets
    faults: frozenset[Fault] = frozenset(LINE)
    calls_back: bool = True
    tells_not_found: bool = True
    amounts: Iterator[int] = field(default_factory=lambda: itertools.count(1_000, 10))
    ours: dict[UUID, Fate] = field(default_factory=dict)

    @property
    def rail(self) -> MobileMoney:
        return self.momo.rail

    def now(self) -> datetime:
        return datetime.now(UTC)

    def payment(self, fate: Fate = "paid") -> Instruction:
        one = instruction(next(self.amounts) + FATES.index(fate))
        self.ours[one.attempt] = fate
        if fate == "failed":
            fails = Rule("outcome", "fails", amount=str(one.amount), code="maxBalanceExceeded")
            self.momo.provider.misbehave(*self.momo.provider.books.rules, fails)
        return one

    @contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        provider, before = self.momo.provider, self.momo.provider.books.rules
        provider.misbehave(*LINE[fault], *before)
        if fault == "down":
            provider.down()
        try:
            yield
        finally:
            provider.up()
            provider.misbehave(*before)

    def settle(self) -> None:
        eventually(lambda: not self.momo.provider.books.pending())
        eventually(lambda: all(one["callbacks"] for one in self.momo.provider.books.listing()))

    def come_back(self) -> None:
        for attempt, fate in self.ours.items():
            if fate == "comes_back":
                payment = self.momo.provider.books.payments[str(attempt)]
                self.momo.provider.undo(payment, "reversed")
                eventually(partial(_was_told_twice, payment))

    def paid(self) -> Mapping[UUID, Sequence[int]]:
        payments = self.momo.provider.books.listing()
        return {
            UUID(one["correlation_id"]): [int(one["amount"])]
            for one in payments
            if one["state"] == "completed"
        }

    def callbacks(self, attempt: UUID) -> Sequence[Callback]:
        return [one for one in self.momo.hook.callbacks if one.path.startswith(attempt.hex)]

    def forgeries(self, callback: Callback) -> Sequence[Callback]:
        elsewhere = self.rail.callback_path(new_id()).partition("/")[2]
        keyless = {name: value for name, value in callback.headers.items() if name != "x-api-key"}
        return [
            replace(callback, headers=keyless),
            replace(callback, headers={**callback.headers, "x-api-key": CALLBACK_KEY.upper()}),
            replace(callback, path=f"{callback.path.partition('/')[0]}/{elsewhere}"),
            replace(callback, body=callback.body + b" "),
        ]

    def strangers(self) -> Sequence[Callback]:
        headers = {"x-api-key": CALLBACK_KEY}
        return [Callback("PUT", self.rail.callback_path(new_id()), headers, b"{}", "127.0.0.1")]

    def malformed(self) -> Sequence[Callback]:
        return [replace(one, body=b"[") for one in self.strangers()]


def _final(momo: Wallets, one: Instruction) -> Report:
    """What the provider says once it can be heard: a machine that has much to do may need more than one try."""

    def answer() -> Report | None:
        told = momo.ask(one)
        return told if told.state in ("paid", "returned", "failed", "not_found") else None

    told: Report = eventually(answer)
    return told


def _was_told_twice(payment: Payment) -> bool:
    return payment.callbacks > 1


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[Bench]:
    with wallets() as momo:
        yield Bench(momo)


class TestMobileMoneyKeepsTheContract(RailContract):
    @pytest.fixture
    def bench(self, one_for_all: Bench) -> Bench:
        return one_for_all


def test_whatever_goes_wrong_each_payment_is_there_at_most_once_and_the_list_ties() -> None:
    """Payments sent, and sent again even while unknown, with every fault at once; then the two lists are laid side by side."""
    faults = [
        Rule("before", "time_out", rate=0.03, seconds=0.2),
        Rule("before", "error_503", rate=0.05),
        Rule("before", "reset", rate=0.05),
        Rule("before", "rate_limited", rate=0.05),
        Rule("before", "refuse", rate=0.03, code="insufficientFunds"),
        Rule("after", "time_out", rate=0.05, seconds=0.2),
        Rule("after", "error_500", rate=0.1),
        Rule("after", "error_503", rate=0.1),
        Rule("after", "reset", rate=0.1),
        Rule("after", "broken_answer", rate=0.1),
        Rule("ask", "error_500", rate=0.1),
        Rule("ask", "reset", rate=0.1),
        Rule("outcome", "fails", rate=0.1, code="identifierError"),
        Rule("outcome", "reverses", rate=0.1, seconds=0.05),
        Rule("callback", "repeated", rate=0.3),
        Rule("callback", "before_answer", rate=0.1),
        Rule("callback", "out_of_order", rate=0.2, seconds=0.05),
    ]
    with wallets(provider={"seed": 4}, timeout_seconds=0.15, at_once=8) as momo:
        momo.provider.misbehave(*faults)
        many = {one.attempt: one for one in (instruction(1_000 + number) for number in range(150))}
        known: dict[UUID, str] = {}
        for again in ("not_found", "unknown", "unknown", "not_found"):
            ready = [
                one for attempt, one in many.items() if known.get(attempt, "not_sent") in ("not_sent", again)
            ]
            for start in range(0, len(ready), momo.rail.together_max):
                batch = ready[start : start + momo.rail.together_max]
                known |= {one.attempt: one.state for one in momo.submit(*batch) if one.attempt}
            asked = [sent(many[attempt]) for attempt, state in known.items() if state != "not_sent"]
            known |= {one.attempt: one.state for one in momo.rail.ask(asked) if one.attempt}
        momo.provider.misbehave()
        eventually(lambda: not momo.provider.books.pending())
        final = {attempt: _final(momo, one) for attempt, one in many.items()}
        books = {UUID(one["correlation_id"]): one for one in momo.provider.books.listing()}
        assert len(books) == len(momo.provider.books.payments)
        assert max(one["sendings"] for one in books.values()) > 1, "something was sent again"
        for attempt, one in many.items():
            theirs = books.get(attempt, {"state": "never heard of"})
            said = final[attempt]
            assert said.state == {"completed": "paid", "reversed": "returned", "failed": "failed"}.get(
                theirs["state"], "not_found"
            )
            if said.state in ("paid", "returned"):
                assert (said.amount, theirs["amount"]) == (one.amount, str(one.amount))
        listed = list(momo.rail.listed(datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)))
        made = {attempt for attempt, report in final.items() if report.state in ("paid", "returned")}
        assert {one.attempt for one in listed} == made
        assert len(listed) == len(made)
        told = [one for one in momo.hook.reports if one.state in ("paid", "returned", "failed")]
        assert told, "callbacks came"
        for report in told:
            assert report.attempt is not None
            assert final[report.attempt].state in (report.state, "returned")


def test_a_provider_in_a_process_of_its_own_that_is_killed_goes_on_with_the_same_payments(
    tmp_path: Path,
) -> None:
    book = tmp_path / "payments.jsonl"

    def start(port: int = 0) -> tuple["subprocess.Popen[str]", dict[str, Any]]:
        command = [sys.executable, "-m", "tests.integration.rails.gsma_simulator"]
        arguments = ["--book", str(book), "--seed", "7", "--port", str(port)]
        process = subprocess.Popen(
            command + arguments,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        assert process.stdout is not None
        said: dict[str, Any] = json.loads(process.stdout.readline())
        return process, said

    process, at = start()
    around = setting()
    try:
        with wallets(base_url=at["url"]) as momo:
            one = instruction()
            assert momo.pay(one).state == "accepted"
            told = momo.ask_until("paid", one)
            process.kill()
            process.communicate()
            process, again = start(int(at["url"].split(":")[2].split("/")[0]))
            assert again["url"] == at["url"]
            assert momo.ask_until("paid", one) == told
            assert momo.pay(one).state == "paid", "a duplicate, which is what is there"
            [listed] = httpx.get(f"{again['control']}/payments", trust_env=False).json()
            assert (listed["correlation_id"], listed["sendings"]) == (str(one.attempt), 2)
    finally:
        around.database.close()
        process.kill()
        process.communicate()
