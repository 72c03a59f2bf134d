"""The rail of bank files keeps the contract of all rails; the world behind it is a bank that answers by files."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from integrations.rails.bank_file import BankFileRail, build, store
from integrations.rails.setting import Setting
from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from products.keyring import Keyring
from products.payouts.rails import Callback, Instruction, RailPayee
from tests.conftest import Databases
from tests.integration.rails.bank import Bank
from tests.integration.rails.contract import Fate, Fault, RailContract
from tests.integration.rails.test_bank_file import OPTIONS


@dataclass
class FilesAndABank:
    """A rail and its bank, between whom somebody carries files. The fate of a payment is its amount's last digit."""

    rail: BankFileRail
    setting: Setting
    clock: FixedClock
    faults: frozenset[Fault] = frozenset()  # no line, so none that breaks
    calls_back: bool = False
    tells_not_found: bool = True
    amounts: Iterator[int] = field(default_factory=lambda: itertools.count(1_000, 10))
    given: dict[UUID, Bank] = field(default_factory=dict)
    booked: dict[UUID, list[int]] = field(default_factory=lambda: defaultdict(list))

    def now(self) -> datetime:
        return self.clock.now()

    def payment(self, fate: Fate = "paid") -> Instruction:
        digit = ("paid", "failed", "comes_back").index(fate)
        payee = RailPayee("Uwimana Alice", "bank", {"account": "1", "bank_code": "BKIGRWRW", "country": "RW"})
        return Instruction(new_id(), public_id("pay", new_id()), next(self.amounts) + digit, "RWF", payee)

    def during(self, fault: Fault) -> AbstractContextManager[object]:
        raise AssertionError(f"there is no line that could be {fault}")

    def settle(self) -> None:
        self.clock.advance(timedelta(hours=1))
        with self.setting.database.begin() as tx:
            waiting = store.files(tx, states=["made"], limit=200)
            contents = {
                one.id: store.fetch(tx, self.setting.keyring, self.clock, one.id)[1] for one in waiting
            }
        for file_id, content in contents.items():
            bank = self.given[file_id] = Bank.given(content)
            said = {}
            for order in bank.orders:
                fails = order.amount.endswith("1")
                said[order.end_to_end] = "RJCT/AC04" if fails else "ACSC"
                if not fails:
                    self.booked[UUID(order.end_to_end)].append(int(order.amount))
            self.take(bank.says(self.now(), None, said))

    def come_back(self) -> None:
        self.clock.advance(timedelta(days=2))
        for bank in self.given.values():
            back = {
                order.end_to_end: "MD07"
                for order in bank.orders
                if order.amount.endswith("2") and self.booked.pop(UUID(order.end_to_end), [])
            }
            if back:
                self.take(bank.brings_back(self.now(), back))

    def take(self, content: bytes) -> None:
        self.setting.database.run(lambda tx: self.rail.take(tx, content))

    def paid(self) -> Mapping[UUID, Sequence[int]]:
        return {attempt: amounts for attempt, amounts in self.booked.items() if amounts}

    def callbacks(self, attempt: UUID) -> Sequence[Callback]:  # noqa: ARG002  of every bench
        return ()

    def forgeries(self, callback: Callback) -> Sequence[Callback]:  # noqa: ARG002  of every bench
        return ()

    def strangers(self) -> Sequence[Callback]:
        return ()

    def malformed(self) -> Sequence[Callback]:
        return ()


class TestBankFilesKeepTheContract(RailContract):
    @pytest.fixture
    def bench(self, databases: Databases, clock: FixedClock) -> FilesAndABank:
        keyring = Keyring({"test": bytes(range(32))}, "test")
        setting = Setting(clock, "sandbox", "", databases.worker, keyring, "kigali-bank", "RWF")
        return FilesAndABank(build(OPTIONS, {}, setting), setting, clock)
