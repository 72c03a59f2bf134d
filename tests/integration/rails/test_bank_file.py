"""The rail of bank files over a real database: one file per batch, whoever asks and whenever; answers change what stands once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from integrations.inbox.keys import destroy_keys
from integrations.rails.bank_file import BankFileRail, build, store
from integrations.rails.bank_file.answers import UnreadableAnswer
from integrations.rails.bank_file.rail import AnswerMismatch, Taken, UnknownPaymentFile
from integrations.rails.bank_file.store import FileUnreadable
from integrations.rails.setting import Setting
from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from products.keyring import Keyring
from products.payouts.rails import (
    Callback,
    CallbackRefused,
    Instruction,
    RailPayee,
    Report,
    Sent,
)
from tests.conftest import Databases
from tests.integration.rails.bank import Bank

OPTIONS: dict[str, object] = {
    "debtor_name": "EjoHeza",
    "debtor_account": "40012345",
    "debtor_bic": "BKIGRWRW",
    "debtor_country": "RW",
    "payments_max": 500,
}
DAY = date(2026, 3, 2)


@dataclass
class Office:
    """The fund's side of one bank rail."""

    databases: Databases
    clock: FixedClock
    setting: Setting
    rail: BankFileRail

    def with_options(self, **options: object) -> BankFileRail:
        return build(OPTIONS | options, {}, self.setting)

    def send(self, *amounts: int, name: str = "Uwimana Alice") -> tuple[list[Instruction], Bank]:
        """A batch that was made into a file, and the bank that was given it."""
        asked, batch = orders(*amounts, name=name), new_id()
        assert {one.state for one in self.rail.submit(batch, asked, DAY)} == {"accepted"}
        return asked, Bank.given(self.content(batch))

    def content(self, batch: UUID) -> bytes:
        with self.databases.worker.begin() as tx:
            file = store.of_batch(tx, batch)
            assert file is not None
            return store.fetch(tx, self.setting.keyring, self.clock, file.id)[1]

    def take(self, content: bytes) -> Taken:
        self.clock.advance(timedelta(minutes=1))
        return self.databases.worker.run(lambda tx: self.rail.take(tx, content))

    def standing(self, asked: Sequence[Instruction], rail: BankFileRail | None = None) -> list[Report]:
        sent = [Sent(one.attempt, UUID(int=0), None, self.clock.now()) for one in asked]
        return (rail or self.rail).ask(sent)

    def states(self, asked: Sequence[Instruction]) -> list[str]:
        return [one.state for one in self.standing(asked)]

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.databases.worker.begin() as tx:
            return [tuple(row) for row in tx.execute(text(query), values)]


@pytest.fixture
def office(databases: Databases, clock: FixedClock) -> Office:
    keyring = Keyring({"test": bytes(range(32))}, "test")
    setting = Setting(
        clock, "sandbox", "https://mizan.example", databases.worker, keyring, "kigali-bank", "RWF"
    )
    return Office(databases, clock, setting, build(OPTIONS, {}, setting))


def orders(*amounts: int, name: str = "Uwimana Alice", currency: str = "RWF") -> list[Instruction]:
    payee = RailPayee(name, "bank", {"account": "4001-9", "bank_code": "BKIGRWRW", "country": "RW"})
    return [Instruction(new_id(), public_id("pay", new_id()), one, currency, payee) for one in amounts]


def test_a_batch_is_one_file_however_often_and_by_however_many_it_is_sent(office: Office) -> None:
    asked, batch = orders(*range(1, 301)), new_id()
    answers: list[list[Report]] = []
    senders = [
        threading.Thread(target=lambda: answers.append(office.rail.submit(batch, asked, DAY)))
        for _ in range(4)
    ]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    assert len(answers) == 4
    assert all(one == answers[0] for one in answers)
    assert [one.attempt for one in answers[0]] == [one.attempt for one in asked]
    assert {one.state for one in answers[0]} == {"accepted"}
    bank = Bank.given(office.content(batch))
    assert (bank.payments, bank.control_sum) == (300, "45150")
    assert [order.end_to_end for order in bank.orders] == [one.attempt.hex for one in asked]
    assert office.rows(
        "SELECT count(*), sum(payments), min(control_sum)::text FROM integrations.payment_file"
    ) == [(1, 300, "45150")]


def test_a_payment_is_in_one_file_for_ever_whatever_batch_brings_it_again(office: Office) -> None:
    first, second = orders(1, 2), orders(3)
    office.rail.submit(new_id(), first, DAY)
    batch = new_id()
    assert [one.state for one in office.rail.submit(batch, [*first, *second], DAY)] == ["accepted"] * 3
    assert [order.end_to_end for order in Bank.given(office.content(batch)).orders] == [second[0].attempt.hex]
    # a batch whose file is made takes nobody else: the late one may go with another
    late = orders(4)
    (report,) = office.rail.submit(batch, late, DAY)
    assert (report.state, report.code) == ("not_sent", "file_closed")
    (asked_about,) = office.standing(late)
    assert asked_about.state == "not_found"


def test_nothing_is_there_of_a_submission_that_was_cut_off(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, batch = orders(1, 2), new_id()

    class Killed(BaseException):
        pass

    def killed_after(*arguments: Any) -> UUID:
        add(*arguments)
        raise Killed

    add: Callable[..., UUID] = store.add
    with monkeypatch.context() as patched:
        patched.setattr(store, "add", killed_after)
        with pytest.raises(Killed):
            office.rail.submit(batch, asked, DAY)
    assert office.states(asked) == ["not_found"] * 2
    office.rail.submit(batch, asked, DAY)
    assert office.states(asked) == ["accepted"] * 2


def test_who_no_file_can_name_fails_at_once_and_leaves_the_others_in_peace(office: Office) -> None:
    asked = [*orders(1), *orders(2, name="राम बहादुर"), *orders(3)]
    batch = new_id()
    reports = office.rail.submit(batch, asked, DAY)
    assert [(one.state, one.reason, one.code) for one in reports] == [
        ("accepted", None, None),
        ("failed", "refused", "name_not_writable"),
        ("accepted", None, None),
    ]
    assert [order.amount for order in Bank.given(office.content(batch)).orders] == ["1", "3"]
    checked = office.rail.check(asked[1].payee)
    assert checked is not None
    assert (checked.reachable, checked.code) == (False, "name_not_writable")
    there = office.rail.check(asked[0].payee)
    assert there is not None
    assert (there.reachable, there.name) == (True, "not_checked")
    # none that could be written: no file
    only = new_id()
    office.rail.submit(only, orders(1, name="राम"), DAY)
    assert office.rows("SELECT 1 FROM integrations.payment_file WHERE batch = :batch", batch=only) == []


def test_statuses_of_the_message_of_its_parts_and_of_payments_are_told_apart(office: Office) -> None:
    asked = [*orders(100, 200, 300), *orders(1_500, 2_500, currency="KWD")]
    batch = new_id()
    office.rail.submit(batch, asked, DAY)
    bank = Bank.given(office.content(batch))
    rwf, kwd = sorted({order.part for order in bank.orders})
    assert bank.control_sum == "604.000"
    office.take(bank.says(office.clock.now(), "ACTC"))
    assert office.states(asked) == ["accepted"] * 5
    office.take(bank.says(office.clock.now(), "PART", parts={rwf: "ACSP", kwd: "RJCT/AM04"}))
    assert office.states(asked) == ["in_transit"] * 3 + ["failed"] * 2
    office.take(
        bank.says(
            office.clock.now(), "PART", {asked[0].attempt.hex: "ACSC", asked[1].attempt.hex: "RJCT/BE01"}
        )
    )
    reports = office.standing(asked)
    assert [one.state for one in reports] == ["paid", "failed", "in_transit", "failed", "failed"]
    assert [(one.reason, one.code) for one in reports] == [
        (None, "ACSC"),
        ("name_mismatch", "BE01"),
        (None, "ACSP"),
        ("insufficient_float", "AM04"),
        ("insufficient_float", "AM04"),
    ]
    assert (reports[0].amount, reports[0].currency) == (100, "RWF")
    assert office.rows("SELECT state FROM integrations.payment_file") == [("part",)]


def test_the_banks_clock_decides_what_stands_and_a_later_refusal_is_a_return(office: Office) -> None:
    asked, bank = office.send(100, 200, 300)
    at = office.clock.now()
    ids = [one.attempt.hex for one in asked]
    office.clock.advance(timedelta(days=4))
    settled = bank.says(at + timedelta(hours=2), "ACSC")
    under_way = bank.says(at + timedelta(hours=1), "ACSP")
    assert {one.state for one in office.take(settled).reports} == {"paid"}
    office.take(under_way)  # came late: it takes nothing back
    assert office.states(asked) == ["paid"] * 3
    refused = office.take(bank.says(at + timedelta(days=2), "PART", {ids[0]: "RJCT/AC04"}))
    assert [(one.state, one.reason, one.code) for one in refused.reports] == [
        ("returned", "payee_closed", "AC04")
    ]
    notified = bank.brings_back(at + timedelta(days=3), {ids[1]: "MD07", ids[0]: "AC04", ids[2]: "AC06"})
    # the account has other payments too, and theirs come back beside ours
    back = office.take(notified.replace(ids[2].encode(), b"NOTPROVIDED"))
    assert [(one.state, one.amount) for one in back.reports] == [("returned", 100), ("returned", 200)]
    assert office.states(asked) == ["returned", "returned", "paid"]
    assert [one.attempt for one in office.rail.listed(at - timedelta(days=1), at + timedelta(days=1))] == [
        one.attempt for one in asked
    ]


def test_a_bank_that_never_says_settled_leaves_it_to_the_statement(office: Office) -> None:
    asked, bank = office.send(100)
    office.take(bank.says(office.clock.now(), "ACSC"))
    assert [one.state for one in office.standing(asked)] == ["paid"]
    assert [one.state for one in office.standing(asked, office.with_options(paid_by="statement"))] == [
        "in_transit"
    ]


def test_the_same_file_twice_changes_nothing(office: Office) -> None:
    _, bank = office.send(100, 200)
    said = bank.says(office.clock.now(), "ACSC")
    first = office.take(said)
    before = office.rows("SELECT * FROM integrations.payment_file")
    again = office.take(said)
    assert (again.id, again.replayed, again.reports) == (first.id, True, ())
    assert office.rows("SELECT * FROM integrations.payment_file") == before
    assert office.rows(
        "SELECT (SELECT count(*) FROM integrations.payment_answer), count(*) FROM integrations.payment_answer_line"
    ) == [(1, 2)]


def test_what_answers_to_nothing_that_was_sent_is_refused_whole(office: Office) -> None:
    asked, bank = office.send(100, 200)
    at, ids = office.clock.now(), [one.attempt.hex for one in asked]
    refused: list[tuple[bytes, type[Exception]]] = [
        (bank.says(at, "ACSC", message="another"), UnknownPaymentFile),
        (bank.says(at, "ACSC", payments=3), AnswerMismatch),
        (bank.says(at, "ACSC", control_sum=Decimal("300.01")), AnswerMismatch),
        (bank.says(at, "PART", {ids[0]: "ACSC", new_id().hex: "ACSC"}), UnknownPaymentFile),
        (bank.says(at, "PART", parts={"another-01": "ACSC"}), UnknownPaymentFile),
        (bank.says(at, "RJCT", {ids[0]: "ACSC"}), UnreadableAnswer),
        (
            bank.brings_back(at, {ids[0]: "AC04"}).replace(ids[0].encode(), new_id().hex.encode()),
            UnknownPaymentFile,
        ),
        (bank.says(at, "ACSC").replace(b"CstmrPmtStsRpt", b"Other"), UnreadableAnswer),
        (b"not xml", UnreadableAnswer),
        (bank.says(at + timedelta(days=3), "ACSC"), UnreadableAnswer),
    ]
    for content, error in refused:
        with pytest.raises(error):
            office.take(content)
    assert office.states(asked) == ["accepted"] * 2
    assert office.rows("SELECT count(*) FROM integrations.payment_answer") == [(0,)]
    # another rail's answer is nobody's here
    elsewhere = build(
        OPTIONS,
        {},
        Setting(office.clock, "sandbox", "", office.databases.worker, office.setting.keyring, "b", "RWF"),
    )
    with pytest.raises(UnknownPaymentFile), office.databases.worker.begin() as tx:
        elsewhere.take(tx, bank.says(at, "ACSC"))
    with pytest.raises(CallbackRefused):
        office.rail.read(Callback("POST", "", {}, b"", "192.0.2.1"))


def test_a_status_that_nobody_knows_changes_nothing_and_is_told(office: Office) -> None:
    asked, bank = office.send(100, 200)
    taken = office.take(bank.says(office.clock.now(), None, {asked[0].attempt.hex: "XXXX"}))
    assert taken.unread == ("XXXX",)
    assert office.states(asked) == ["accepted"] * 2


def test_names_rest_sealed_and_go_with_the_key_of_their_day(office: Office) -> None:
    asked, bank = office.send(100, name="Uwimana Alice")
    office.take(
        bank.says(office.clock.now(), "PART", {asked[0].attempt.hex: "RJCT/AC01"}, note="Uwimana Alice")
    )
    kept = repr(
        office.rows(
            "SELECT f::text, l::text, a::text, n::text FROM integrations.payment_file f, integrations.payment_file_line l,"
            " integrations.payment_answer a, integrations.payment_answer_line n"
        )
    )
    assert bytes("Uwimana", "ascii").hex() not in kept
    assert "Uwimana" not in kept
    assert "40019" not in kept
    office.clock.advance(timedelta(days=92))
    assert office.databases.worker.run(lambda tx: destroy_keys(tx, office.clock)) == 1
    ((batch,),) = office.rows("SELECT batch FROM integrations.payment_file")
    with pytest.raises(FileUnreadable):
        office.content(batch)
    assert office.states(asked) == ["failed"]  # what was said needs no name
