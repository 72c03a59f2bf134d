"""The simulated rail keeps the contract of all rails; its world is its own table, read here as it lies."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from integrations.rails.setting import Setting
from integrations.rails.simulator import build
from ledger.clock import FixedClock
from ledger.database import cursor
from ledger.ids import new_id, public_id
from products.keyring import Keyring
from products.payouts.rails import Callback, Instruction, Rail, RailPayee
from tests.conftest import Databases
from tests.integration.rails.contract import Fate, Fault, RailContract

ENDINGS: Mapping[Fate, str] = {"paid": "1234", "failed": "9927", "comes_back": "9951"}
"""How the payee's number ends for each fate."""
BACK_AFTER = timedelta(seconds=120)


@dataclass
class SimulatedWorld:
    """A simulated rail and what it wrote down. Its faults are written in payments, not in a line that breaks."""

    rail: Rail
    databases: Databases
    clock: FixedClock
    faults: frozenset[Fault] = frozenset()
    calls_back: bool = False
    tells_not_found: bool = True
    amounts: Iterator[int] = field(default_factory=lambda: itertools.count(1_000, 100))

    def now(self) -> datetime:
        return self.clock.now()

    def payment(self, fate: Fate = "paid") -> Instruction:
        payee = RailPayee("Uwimana Alice", "mobile_money", {"phone": f"+25078812{ENDINGS[fate]}"})
        return Instruction(new_id(), public_id("pay", new_id()), next(self.amounts), "RWF", payee)

    def during(self, fault: Fault) -> AbstractContextManager[object]:
        raise AssertionError(f"there is no line that could be {fault}")

    def settle(self) -> None:
        self.clock.advance(timedelta(seconds=1))

    def come_back(self) -> None:
        self.clock.advance(BACK_AFTER)

    def paid(self) -> Mapping[UUID, Sequence[int]]:
        with self.databases.worker.begin() as tx:
            rows = cursor(tx).execute(
                "SELECT attempt_id, amount FROM integrations.simulated_payment"
                " WHERE script = 0 OR script = 51 AND made_at > %s",
                [self.now() - BACK_AFTER],
            )
            made: dict[UUID, list[int]] = {}
            for attempt, amount in rows:
                made.setdefault(attempt, []).append(amount)
            return made

    def callbacks(self, attempt: UUID) -> Sequence[Callback]:  # noqa: ARG002  of every bench
        return ()

    def forgeries(self, callback: Callback) -> Sequence[Callback]:  # noqa: ARG002  of every bench
        return ()

    def strangers(self) -> Sequence[Callback]:
        return ()

    def malformed(self) -> Sequence[Callback]:
        return ()


class TestTheSimulatedRailKeepsTheContract(RailContract):
    @pytest.fixture
    def bench(self, databases: Databases, clock: FixedClock) -> SimulatedWorld:
        keyring = Keyring({"test": bytes(range(32))}, "test")
        setting = Setting(clock, "sandbox", "", databases.worker, keyring, "simulated", "RWF")
        return SimulatedWorld(build({}, {}, setting), databases, clock)
