"""Statements come in whole or not at all, once; what overlaps takes part once; what is personal rests sealed."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import BinaryIO
from uuid import UUID

import pytest
from sqlalchemy import text

from ledger.clock import FixedClock
from ledger.database import Tx
from ledger.errors import AccountError, MizanError
from ledger.reconciliation import bank_accounts, counterparties, files, pairings, reading, withdrawals
from ledger.reconciliation.importing import Wanted
from ledger.reconciliation.sealing import LineText
from ledger.reconciliation.statements import StatementEvent
from products.chart import open_administrator_fund
from tests.conftest import Databases
from tests.integration.reconciliation import bank as bank_module
from tests.integration.reconciliation.bank import Bank, entry
from tests.integration.reconciliation.breaking import TODAY, Breaking
from tests.patience import eventually
from tests.world import World

D1, D2, D3, D4 = (date(2026, 3, day) for day in (2, 3, 4, 5))


@pytest.fixture
def bank(databases: Databases, clock: FixedClock) -> Bank:
    world = World(databases, clock)
    world.programme()
    with databases.worker.begin() as tx:
        open_administrator_fund(tx, "ejoheza", "EjoHeza", "Africa/Kigali", "RWF")
    return Bank(databases, world.books.keyring, clock)


def kept(bank: Bank) -> tuple[int, int, int, int]:
    """How many files, pieces, statements and lines there are."""
    with bank.databases.superuser.begin() as tx:
        row = tx.exec_driver_sql(
            "SELECT (SELECT count(*) FROM ledger.statement_file), (SELECT count(*) FROM ledger.statement_piece),"
            " (SELECT count(*) FROM ledger.bank_statement), (SELECT count(*) FROM ledger.statement_line)"
        ).one()
    return row[0], row[1], row[2], row[3]


def duplicates(bank: Bank) -> Counter[int]:
    """The amounts of lines that are marked as those of another statement."""
    with bank.databases.superuser.begin() as tx:
        return Counter(
            tx.exec_driver_sql(
                "SELECT amount FROM ledger.statement_line WHERE duplicate_of IS NOT NULL"
            ).scalars()
        )


def code_of(bank: Bank, content: bytes, wanted: Wanted = Wanted()) -> tuple[str, str]:  # noqa: B008  frozen
    with pytest.raises(MizanError) as refused:
        bank.imports(content, wanted=wanted)
    assert kept(bank) == (0, 0, 0, 0)
    return refused.value.code, refused.value.detail


def test_a_file_comes_in_once_whoever_brings_it_and_is_kept_as_it_came(bank: Bank) -> None:
    bank.account()
    content = bank.file(
        bank.says([entry(1, 500, D1, says="for REF-9"), entry(2, -200, D1)], opening=1_000, number="1"),
        bank.says([], opening=1_300, days=(D2, D2), number="2", position=2),
    )
    content += bytes(3 * files.PIECE_BYTES)
    first = bank.imports(content)
    assert (first.duplicate, first.lines, [one.lines for one in first.statements]) == (False, 2, [2, 0])
    assert bank.imports(content).duplicate
    assert kept(bank) == (1, 4, 2, 2)
    with bank.databases.api.begin() as tx:
        tx.execute(text("SELECT set_config('mizan.access', 'staff', true)"))
        assert b"".join(files.content(tx, bank.keyring, files.by_id(tx, first.file_id))) == content
        (line, other) = reading.lines(tx, first.statements[0].id)
        said = reading.statement(tx, first.statements[0].id)
    assert (line.amount, line.identifiers, other.amount) == (500, ["REF-9"], -200)
    assert (said.opening, said.closing, said.number, said.account) == (1_000, 1_300, "1", "kigali-savers")


def test_what_does_not_add_up_or_is_of_nobody_here_is_refused_whole(bank: Bank) -> None:
    bank.account()
    good = bank.says([entry(1, 500, D1)])
    wrong = bank.says([entry(1, 700, D2)], opening=500, closing=1_250, position=2)
    code, said = code_of(bank, bank.file(good, wrong))
    assert code == "statement_does_not_add_up"
    assert "the difference is 50 RWF" in said
    for foreign in (
        bank.says([entry(1, 5, D2)], account="DE99", position=2),
        bank.says([entry(1, 5, D2, currency="EUR")], currency="EUR", position=2),
    ):
        code, said = code_of(bank, bank.file(good, foreign))
        assert code == "unknown_bank_account"
        assert any(name in said for name in ("DE99", "RW380001 in EUR"))
    mixed = bank.says([entry(1, 5, D2, currency="EUR")], position=2)
    assert code_of(bank, bank.file(good, mixed))[0] == "invalid_bank_statement"
    assert code_of(bank, bank.file())[0] == "invalid_bank_statement"
    nothing = code_of(bank, bank.file(good), Wanted(only=frozenset({"another"})))
    assert nothing == (
        "invalid_bank_statement",
        "The file holds no statement of the bank accounts that were asked for.",
    )
    # whoever may not see the fund is told no more than of an account that is not there
    assert code_of(bank, bank.file(good), Wanted(funds=()))[0] == "unknown_bank_account"


def test_statements_that_were_left_out_come_in_when_the_file_comes_again(bank: Bank) -> None:
    bank.account()
    content = bank.file(
        bank.says([entry(1, 500, D1)]), bank.says([entry(1, 700, D1)], account="RW380002", position=2)
    )
    first = bank.imports(content, wanted=Wanted(only=frozenset({"kigali-savers"})))
    assert (first.lines, first.skipped, first.skipped_accounts) == (1, 1, ("RW380002",))
    assert bank.imports(content, wanted=Wanted(only=frozenset({"kigali-savers"}))).duplicate
    bank.account("kigali-agency", fund="ejoheza/administrator", number="RW38 0002")
    second = bank.imports(content)
    assert (second.duplicate, second.lines, second.skipped) == (False, 1, 0)
    assert bank.imports(content).duplicate
    assert kept(bank)[2:] == (2, 2)


def test_lines_of_overlapping_statements_take_part_once_and_those_said_twice_stay_twice(bank: Bank) -> None:
    bank.account()
    twice = [entry(1, 10, D1), entry(2, 10, D1), entry(3, 20, D2)]
    bank.sends(bank.says(twice, days=(D1, D2)))
    assert not duplicates(bank)
    # one day more, other numbers of entries, and the text spaced anew
    more = [entry(1, 20, D2), entry(2, 30, D3)]
    assert bank.sends(bank.says(more, opening=20, days=(D2, D3))).duplicates == 1
    assert bank.sends(bank.says([*twice, entry(4, 30, D3), entry(5, 10, D1)], days=(D1, D3))).duplicates == 4
    assert duplicates(bank) == {10: 2, 20: 2, 30: 1}


def test_a_day_cut_into_several_statements_has_no_duplicates_in_whatever_order_they_come(bank: Bank) -> None:
    bank.account()
    pages = [
        bank.says([entry(1, 10, D1)], opening=opening, number=f"7/{page}")
        for page, opening in enumerate((0, 10, 20), start=1)
    ]
    for page in (pages[0], pages[2], pages[1]):
        bank.sends(page)
    assert not duplicates(bank)
    # the day as a whole, once more
    assert bank.sends(bank.says([entry(n, 10, D1) for n in (1, 2, 3)])).duplicates == 3
    # a day on which as much came as went opens and closes alike: sent again, its lines are the same
    level = [entry(1, 40, D2, end_to_end="A"), entry(2, -40, D2, end_to_end="B")]
    bank.sends(bank.says(level, opening=30))
    assert bank.sends(bank.says(level, opening=30)).duplicates == 2


def test_a_statement_that_takes_long_to_read_does_not_lose_its_transaction(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.account()
    read = bank_module._read

    def slowly(content: BinaryIO) -> Iterator[StatementEvent]:
        time.sleep(1.5)
        yield from read(content)

    monkeypatch.setattr(bank_module, "_read", slowly)
    content = bank.file(bank.says([entry(1, 500, D1)]))
    with bank.databases.worker.begin() as tx:
        tx.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '500ms'")
        assert bank.import_in(tx, content).lines == 1


def test_several_who_bring_the_same_file_at_once_bring_it_once(bank: Bank) -> None:
    bank.account()
    content = bank.file(bank.says([entry(number, 1, D1) for number in range(1, 4_000)]))
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(bank.imports(content).duplicate)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, True, True, True]
    assert kept(bank)[2:] == (1, 3_999)


def test_names_and_texts_rest_sealed_are_emptied_for_one_who_is_erased_and_end_with_the_files_time(
    bank: Bank, clock: FixedClock
) -> None:
    bank.account()
    said = [
        entry(1, 5, D1, says="to Uwimana Alice", payer="Uwimana Alice", account="RW991"),
        entry(2, 6, D1, says="rent of Bosco"),
    ]
    first = bank.sends(bank.says(said))
    again = bank.sends(bank.says([said[0]], days=(D1, D1), closing=5))
    with bank.databases.superuser.begin() as tx:
        stored = tx.exec_driver_sql(
            "SELECT string_agg(to_jsonb(l)::text, '') FROM ledger.statement_line l"
        ).scalar_one()
        pieces = tx.exec_driver_sql("SELECT string_agg(sealed, '') FROM ledger.statement_piece").scalar_one()
    assert "Uwimana" not in stored
    assert "RW991" not in stored
    assert b"Uwimana" not in bytes(pieces)
    with bank.databases.worker.begin() as tx:
        alice, bosco = (line.id for line in reading.lines(tx, first.statements[0].id))
        (copy,) = (line.id for line in reading.lines(tx, again.statements[0].id))
        everyone = [alice, bosco, copy]
        assert reading.texts(tx, bank.keyring, everyone)[alice] == LineText(
            "to Uwimana Alice", "Uwimana Alice", "RW991"
        )
        assert reading.forget_texts(tx, [alice]) == 2
        assert set(reading.texts(tx, bank.keyring, everyone)) == {bosco}
    clock.advance(timedelta(days=31))
    destroyed = 0
    while bank.databases.worker.run(lambda tx: files.destroy_next(tx, clock, retention=timedelta(days=30))):
        destroyed += 1
    assert destroyed == 2
    with bank.databases.worker.begin() as tx:
        assert reading.texts(tx, bank.keyring, everyone) == {}
        with pytest.raises(files.FileDestroyed):
            files.piece(tx, bank.keyring, files.by_id(tx, first.file_id), 1)
    assert kept(bank) == (2, 0, 2, 3)


def test_whose_account_the_other_side_is_comes_from_who_is_known_and_then_from_the_rules(
    bank: Bank, clock: FixedClock
) -> None:
    account = bank.account().id
    paid = [
        entry(1, 5, D1, payer="ACME LTD", account="RW1"),
        entry(2, 6, D1, payer="ACME PAYMENTS", account="RW 2"),
        entry(3, 7, D1, payer="BETA", account="RW3"),
    ]
    paid = [paid[0], entry(2, 6, D1, payer="ACME PAYMENTS", account="RW2"), paid[2]]
    first = bank.sends(bank.says(paid))

    def parties(statement: UUID) -> list[str | None]:
        with bank.databases.worker.begin() as tx:
            return [line.party for line in reading.lines(tx, statement)]

    assert parties(first.statements[0].id) == ["acme", None, None]
    with bank.databases.worker.begin() as tx:
        counterparties.add(tx, bank.keyring, clock, account, "rw 2", "acme", by="opr_1")
        beta = reading.lines(tx, first.statements[0].id)[2].id
        (learned,) = counterparties.learn(tx, bank.keyring, clock, [beta], "beta", by="opr_1")
        assert (learned.ending, learned.source) == ("RW3", "learned")
    assert parties(first.statements[0].id) == ["acme", "acme", "beta"]
    second = bank.sends(bank.says([entry(1, 9, D2, account="RW3")], opening=18))
    assert parties(second.statements[0].id) == ["beta"]
    with bank.databases.worker.begin() as tx:
        counterparties.add(tx, bank.keyring, clock, account, "RW3", "gamma", by="opr_1")
        # what a person has entered is not unlearned
        counterparties.learn(tx, bank.keyring, clock, [beta], "beta", by="opr_1")
        assert {one.ending: one.party for one in counterparties.every(tx, account)} == {
            "RW2": "acme",
            "RW3": "gamma",
        }


def test_an_account_number_and_a_ledger_account_are_one_bank_accounts_alone(
    bank: Bank, clock: FixedClock
) -> None:
    first = bank.account()
    with pytest.raises(AccountError):
        bank.account("another", number="RW38 0009")  # the same ledger account
    second = bank.account("agency", fund="ejoheza/administrator", number="RW38 0002")
    with bank.databases.worker.begin() as tx:
        with pytest.raises(AccountError):
            bank_accounts.change(tx, second.id, also_known_as=["rw38 0001"])
        changed = bank_accounts.change(tx, first.id, also_known_as=["0001/KIG"], servicer="BKIGRWRW")
        assert bank_accounts.change(tx, first.id, name="Savers").servicer == "BKIGRWRW"
    assert changed.numbers == {"RW380001", "0001/KIG"}
    assert bank.sends(bank.says([entry(1, 5, D1)], account="0001/KIG")).lines == 1


def test_of_who_pairs_a_line_and_who_withdraws_its_statement_one_waits_and_is_refused(
    databases: Databases, clock: FixedClock
) -> None:
    world = Breaking(databases, clock)
    statement = world.statement(world.savers, TODAY)
    line, item = world.line(500), world.booked(500)

    def pair(tx: Tx) -> UUID:
        return pairings.make(
            tx, world.savers.id, [line], [item], rule="by_hand", evidence={}, made_by="test", clock=clock
        )

    def withdraw(tx: Tx) -> object:
        return withdrawals.withdraw(tx, statement, remark="it is another's", by="test", clock=clock)

    def second(work: Callable[[Tx], object], code: str) -> threading.Thread:
        def run() -> None:
            with pytest.raises(MizanError) as refused, databases.worker.begin() as tx:
                work(tx)
            codes.append(refused.value.code)

        codes.clear()
        thread = threading.Thread(target=run)
        thread.start()
        eventually(lambda: _waits(databases))
        assert not codes, code
        return thread

    codes: list[str] = []
    with databases.worker.begin() as tx:
        pairing = pair(tx)
        waiting = second(withdraw, "while a person pairs")
    waiting.join(60)
    assert codes == ["statement_not_withdrawn"]
    with databases.worker.begin() as tx:
        pairings.undo(tx, pairing, remark="again", actor="test", clock=clock)
    with databases.worker.begin() as tx:
        withdraw(tx)
        waiting = second(pair, "while it is withdrawn")
    waiting.join(60)
    assert codes == ["not_found"]
    with databases.worker.begin() as tx:
        assert pairings.open_lines(tx, world.savers.id) == []


def _waits(databases: Databases) -> bool:
    with databases.superuser.begin() as tx:
        waiting = tx.exec_driver_sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(waiting.scalar())
