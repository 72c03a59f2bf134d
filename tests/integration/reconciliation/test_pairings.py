"""Pairings are made once, taken back once and kept for ever; whoever comes first has a line; nothing is left half-made."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger.database import Database, sqlstate
from ledger.errors import InvalidInput, MizanError, NotFound
from ledger.ids import new_id
from ledger.reconciliation import engine, pairings, rules
from ledger.reconciliation.checks import PAIRING_CHECKS
from ledger.reconciliation.pairings import AlreadyPaired
from tests.conftest import Databases
from tests.integration.reconciliation.desk import Desk, desk_of
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def desk(databases: Databases) -> Desk:
    return desk_of(databases)


def test_a_pairing_by_hand_adds_up_and_holds_what_is_free(desk: Desk) -> None:
    desk.line("l", 100)
    desk.line("m", -30)
    desk.item("i", 70)
    desk.item("j", 99)
    desk.item("sent", 30, source="payout")
    for lines, items, code in (
        (["l"], ["j"], "pairing_does_not_add_up"),
        (["l"], ["sent"], "not_found"),
        (["l"], [], "invalid_request"),
    ):
        with pytest.raises(MizanError) as refused:
            desk.make(lines, items)
        assert refused.value.code == code
    made = desk.make(["m", "l"], ["i"])
    assert set(desk.paired) == {("i", "l", "m")}
    for lines, items in ((["l"], ["j"]), (["m"], ["i"])):
        with pytest.raises(MizanError) as refused:
            desk.make(lines, items)
        assert refused.value.code == "already_paired"
    with desk.databases.worker.begin() as tx:
        (found,) = pairings.page(tx, limit=10, bank_account_id=desk.account, standing=True)
        assert (found.id, found.amount, found.rule, found.made_by) == (made, 70, "by_hand", "opr_one")
        assert [one.id for one in pairings.open_lines(tx, desk.account)] == []
        assert {one.source for one in pairings.open_items(tx, desk.account)} == {"booked", "payout"}


def test_taking_back_releases_keeps_the_record_and_is_remembered(desk: Desk) -> None:
    desk.line("l", 100, reference="R")
    desk.item("i", 100, reference="R")
    desk.run()
    with desk.databases.worker.begin() as tx:
        (made,) = pairings.page(tx, limit=10)
    with pytest.raises(InvalidInput):
        desk.undo(made.id, "  ")
    desk.undo(made.id)
    with pytest.raises(MizanError) as again:
        desk.undo(made.id)
    assert again.value.code == "pairing_already_undone"
    with pytest.raises(NotFound):
        desk.undo(new_id())
    assert desk.paired == {}
    assert desk.run().pairings == 0  # by no rule, while it is the same
    desk.make(["l"], ["i"])  # a person may
    with desk.databases.worker.begin() as tx:
        first, second = pairings.page(tx, limit=10)
        assert pairings.page(tx, limit=10, standing=False) == [first]
    assert (first.undone_by, first.undone_remark, second.undone_at) == ("opr_one", "not these", None)


def test_the_database_refuses_what_no_code_should_do(desk: Desk) -> None:
    desk.line("l", 100)
    desk.line("m", 100)
    desk.item("i", 100)
    desk.item("j", 50)
    desk.item("k", 50)
    made = desk.make(["l"], ["i"])
    other, nobody = new_id(), new_id()
    new = (
        "INSERT INTO ledger.pairing (id, bank_account_id, rule, evidence, amount, lines, items, made_by, made_at)"
        " VALUES (:new, :account, 'x', '{{}}', {amount}, {lines}, {items}, 'x', now())"
    )
    lies = {
        "a line of two": new.format(amount=100, lines="ARRAY[:l]", items="ARRAY[:j, :k]"),
        "a sum that is none": new.format(amount=99, lines="ARRAY[:m]", items="ARRAY[:j, :k]"),
        "items of another sum": new.format(amount=100, lines="ARRAY[:m]", items="ARRAY[:j]"),
        "a line that is not there": new.format(amount=100, lines="ARRAY[:nobody]", items="ARRAY[:j, :k]"),
        "no items": new.format(amount=100, lines="ARRAY[:m]", items="'{}'::uuid[]"),
        "another account": new.format(amount=100, lines="ARRAY[:m]", items="ARRAY[:j, :k]").replace(
            ":account", ":other"
        ),
        "a change": "UPDATE ledger.pairing SET undone_at = now(), undone_by = 'x', undone_remark = 'x', amount = 7",
        "a half taking back": "UPDATE ledger.pairing SET undone_at = now(), undone_by = 'x'",
        "a deletion": "DELETE FROM ledger.pairing",
        "a release": "DELETE FROM ledger.paired_line",
        "a standing of its own": "INSERT INTO ledger.paired_line VALUES (:m, :made)",
        "another amount": "UPDATE ledger.item SET amount = 7 WHERE id = :j",
        "an item's deletion": "DELETE FROM ledger.item",
        "rules rewritten": "DELETE FROM ledger.pairing_rules",
    }
    values = {
        **{name: desk.ids[name] for name in ("l", "m", "i", "j", "k")},
        "account": desk.account,
        "other": other,
        "nobody": nobody,
        "made": made,
    }
    for statement in lies.values():
        with desk.databases.worker.begin() as tx, pytest.raises(DBAPIError) as refused, tx.begin_nested():
            tx.execute(text(statement.replace("{{}}", "{}")), values | {"new": new_id()})
        assert sqlstate(refused.value) in {"MZ002", "42501", "23505", "23514"}, statement
    assert set(desk.paired) == {("i", "l")}


def test_verify_finds_what_was_planted_among_pairings(desk: Desk) -> None:
    desk.line("l", 100, reference="R")
    desk.item("i", 100, reference="R")
    desk.run()
    pairing_checks, standing, items = PAIRING_CHECKS
    lies = {
        "UPDATE ledger.statement_line SET amount = 99": {pairing_checks.name},
        "UPDATE ledger.item SET amount = 99": {pairing_checks.name, items.name},
        "UPDATE ledger.item SET currency = 'KES'": {pairing_checks.name, items.name},
        "UPDATE ledger.pairing SET undone_at = now(), undone_by = 'x', undone_remark = 'x'": {standing.name},
        "DELETE FROM ledger.paired_line": {standing.name},
        "UPDATE ledger.paired_item SET pairing_id = gen_random_uuid()": {standing.name},
        "UPDATE ledger.pairing SET lines = lines || lines": {pairing_checks.name},
    }
    with desk.databases.superuser.begin() as tx:
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")

        def found() -> set[str]:
            return {check.name for check in PAIRING_CHECKS if check.run(tx).violations}

        honest = found()
        assert honest == {items.name}  # this desk's items are of no posting
        for lie, names in lies.items():
            undo = tx.begin_nested()
            tx.exec_driver_sql(lie)
            assert found() - {items.name} == names - {items.name}, lie
            undo.rollback()


def test_of_two_who_pair_a_line_at_once_one_wins(desk: Desk) -> None:
    for number in range(8):
        desk.line(f"l{number}", 100)
        desk.item(f"i{number}", 100)
        desk.item(f"j{number}", 100)
    together = Barrier(2)

    def each(side: str) -> list[str]:
        answers = []
        for number in range(8):
            together.wait(PATIENCE_SECONDS)
            try:
                desk.make([f"l{number}"], [f"{side}{number}"])
                answers.append("made")
            except MizanError as error:
                answers.append(error.code)
        return answers

    with ThreadPoolExecutor(2) as people:
        one, two = people.map(each, "ij")
    assert {tuple(sorted(pair)) for pair in zip(one, two, strict=True)} == {("already_paired", "made")}
    assert len(desk.paired) == 8


def test_a_run_and_a_person_at_once_pair_each_line_once(desk: Desk) -> None:
    for number in range(12):
        desk.line(f"l{number}", 100, reference=f"R{number}")
        desk.item(f"i{number}", 100, reference=f"R{number}")
        desk.item(f"j{number}", 100)
    together = Barrier(3)

    def by_rules() -> int:
        together.wait(PATIENCE_SECONDS)
        return desk.run().pairings

    def by_hand() -> int:
        together.wait(PATIENCE_SECONDS)
        made = 0
        for number in range(12):
            try:
                desk.make([f"l{number}"], [f"j{number}"])
                made += 1
            except AlreadyPaired:
                continue
        return made

    with ThreadPoolExecutor(3) as all_of_them:
        works: list[Callable[[], int]] = [by_rules, by_rules, by_hand]
        made = [work.result(PATIENCE_SECONDS) for work in [all_of_them.submit(work) for work in works]]
    assert sum(made) == 12 == len(desk.paired)


def _run_and_stop(url: str, account: UUID, clock: Any, stopped: Any) -> None:
    """A run that has written everything and is about to commit."""
    database = Database(url, application_name="to be killed")
    with database.begin() as tx:
        outcome = engine.pair(tx, account, rules.default(), run_id=new_id(), clock=clock)
        stopped.send(outcome.pairings)
        stopped.recv()


def test_a_run_that_is_killed_leaves_nothing_and_the_next_pairs_it_all(desk: Desk) -> None:
    for number in range(5):
        desk.line(f"l{number}", 100, reference=f"R{number}")
        desk.item(f"i{number}", 100, reference=f"R{number}")
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(
        target=_run_and_stop, args=(desk.databases.urls["worker"], desk.account, desk.clock, there)
    )
    process.start()
    assert here.poll(PATIENCE_SECONDS)
    assert here.recv() == 5
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_SECONDS)
    assert desk.run().pairings == 5
    with desk.databases.worker.begin() as tx:
        assert len(pairings.page(tx, limit=10)) == 5
        assert tx.execute(text("SELECT count(*) FROM ledger.pairing_run")).scalar_one() == 1
