"""Whatever is changed behind the books' back, as a superuser for whom no trigger fires, verify finds and names it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from ledger import audit, holds
from ledger.audit import Act
from ledger.clock import FixedClock
from ledger.database import Tx
from ledger.errors import Conflict
from ledger.ids import new_id
from ledger.receipts import receipt
from ledger.report import Check, Finding, Report
from ledger.seals import Seal, heads, read_heads, seal, write_heads
from ledger.verify import verify
from tests.conftest import Databases
from tests.integration.ledger_proof.conftest import Books, open_books

LEAVES = "leaves are the hashes of their rows"
ORPHANS = "postings belong to a transaction"
CHAIN = "seals follow each other"
SIGNED = "seals are signed"
RANGES = "seals leave nothing out"
COVER = "seals cover what was posted"
BALANCES = "balances are the sums of their postings"
HELD = "held is the sum of active holds"
CAPTURES = "captured holds name their transactions"
LIMITS = "balances are within their limits"
REFERENCES = "references and transactions name each other"
REVERSALS = "reversals name one earlier transaction each"
SIDES = "both sides of a posting are in its fund and currency"
FUNDS = "each fund balances in each currency"
DAYS = "folded days are the sums of their postings"
MONTHS = "folded months are the sums of their days"
PUBLISHED = "seals are as they were published"


class World:
    """Sealed books in several seals, a tail that is not sealed, all folded, and heads published before."""

    def __init__(self, books: Books, file: Path) -> None:
        self.books = books
        batches = [[books.contribution(i % 5, 1_000 + i) for i in range(7)] for _ in range(3)]
        sealed = [transaction_id for batch in batches for transaction_id in books.post(*batch)]
        self.sealed = sealed[10]
        self.reversal = books.reverse(sealed[2])
        with books.databases.worker.begin() as tx:
            kept = holds.place(tx, books.members[0], 10, reference="hold:kept", clock=books.clock)
            used = holds.place(tx, books.members[1], 20, reference="hold:used", clock=books.clock)
            payment = books.payment(books.members[1], books.bank, 20)
            assert holds.capture(tx, used.id, payment, clock=books.clock).status == "posted"
        self.hold, self.captured = kept.id, used.id
        with books.databases.worker.begin() as tx:
            audit.record(tx, Act("opr_a", "operator", "hold.captured", "hold:used", "done"), books.clock)
        self.seals = books.seal(limit=7)
        with books.databases.sealer.begin() as tx:
            write_heads(tx, file)
        self.published = list(read_heads(file))
        tail = books.post(*[books.contribution(i % 5, 2_000 + i) for i in range(6)])
        self.unsealed = tail[3]
        books.fold()
        self.other = books.post(books.contribution(4, 77))[0]

    def after(self, *statements: str, against: Sequence[Seal] | None = None, **parameters: object) -> Report:
        """What verify says of these books after the statements; everything is rolled back."""
        with self.books.databases.superuser.engine.connect() as tx:
            tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for statement in statements:
                changed = tx.exec_driver_sql(statement, parameters).rowcount
                assert changed > 0, f"nothing was planted by: {statement}"
            report = verify(tx, against=against)
            tx.rollback()
        return report


@pytest.fixture(scope="module")
def world(module_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> World:
    clock = FixedClock(datetime(2026, 3, 2, 9, 30, tzinfo=UTC))
    return World(open_books(module_databases, clock), tmp_path_factory.mktemp("heads") / "heads.jsonl")


def found(report: Report) -> set[str]:
    """The names of the checks that found lies."""
    return {check.name for check in report.checks if check.violations}


def places(report: Report, check: str) -> str:
    return " ".join(finding.where for name, finding in report.findings() if name == check)


def test_untouched_books_hold_and_say_what_is_not_sealed(world: World) -> None:
    report = world.books.verify(against=world.published)
    assert report.ok, list(report.findings())
    assert (report.transactions, report.postings) == (30, 59)
    assert report.unsealed == 7
    assert report.caveat is not None
    assert report.caveat.startswith("7 of 30 transactions are not sealed yet.")
    shown = report.to_json()
    assert shown["ok"] is True
    assert all(set(check) == {"name", "checked", "violations"} for check in shown["checks"])
    assert all(check.checked > 0 for check in report.checks), report.checks


CHANGED_ROWS = {
    "amount": ("UPDATE ledger.posting SET amount = amount + 1", "AND seq = 2", {BALANCES, DAYS, FUNDS}),
    "debited account": ("UPDATE ledger.posting SET debit_account = %(bank)s", "AND seq = 1", {BALANCES, DAYS}),
    "credited account": ("UPDATE ledger.posting SET credit_account = %(bank)s", "AND seq = 2", {BALANCES, DAYS}),
    "account that is not there": (
        "UPDATE ledger.posting SET debit_account = gen_random_uuid()", "AND seq = 1", {BALANCES, SIDES},
    ),
    "currency": ("UPDATE ledger.posting SET currency = 'PHP'", "AND seq = 1", {SIDES}),
    "posting's day": ("UPDATE ledger.posting SET effective_on = effective_on + 1", "AND seq = 1", {DAYS}),
    "posting's number": ("UPDATE ledger.posting SET seq = 3", "AND seq = 2", set()),
    "removed posting": ("DELETE FROM ledger.posting", "AND seq = 2", {BALANCES}),
}  # fmt: skip


@pytest.mark.parametrize("tail", [False, True], ids=["sealed", "unsealed"])
@pytest.mark.parametrize("change", CHANGED_ROWS)
def test_a_changed_posting_is_found_and_named(world: World, change: str, tail: bool) -> None:
    statement, which, also = CHANGED_ROWS[change]
    target = world.unsealed if tail else world.sealed
    report = world.after(
        f"{statement} WHERE transaction_id = %(target)s {which}", target=target, bank=world.books.bank
    )
    assert found(report) >= {LEAVES} | (also - {FUNDS})
    assert str(target) in places(report, LEAVES)


CHANGED_TRANSACTIONS = {
    "effective on": "effective_on = effective_on - 1",
    "recorded at": "recorded_at = recorded_at + interval '1 microsecond'",
    "reference": "reference = 'other'",
    "kind": "kind = 'other'",
    "what it reverses": "reverses = %(other)s",
    "number of postings": "postings = 3",
    "details": """details = '{"corridor": "AE-RW", "rule": [1, "e"]}'""",
    "details taken away": "details = NULL",
    "details that could not be posted": """details = '{"rate": 1.5}'""",
    "details that are no object": "details = '[]'",
    "salt": "salt = decode(repeat('00', 16), 'hex')",
    "leaf": "leaf = decode(repeat('00', 32), 'hex')",
}


@pytest.mark.parametrize("tail", [False, True], ids=["sealed", "unsealed"])
@pytest.mark.parametrize("change", CHANGED_TRANSACTIONS)
def test_a_changed_transaction_is_found_and_named(world: World, change: str, tail: bool) -> None:
    target = world.unsealed if tail else world.sealed
    report = world.after(
        f"UPDATE ledger.transaction SET {CHANGED_TRANSACTIONS[change]} WHERE id = %(target)s",
        target=target,
        other=world.other,
    )
    assert str(target) in places(report, LEAVES)


@pytest.mark.parametrize("tail", [False, True], ids=["sealed", "unsealed"])
def test_two_postings_that_changed_places_are_found(world: World, tail: bool) -> None:
    target = world.unsealed if tail else world.sealed
    report = world.after(
        "UPDATE ledger.posting SET seq = seq + 10 WHERE transaction_id = %(target)s",
        "UPDATE ledger.posting SET seq = 13 - seq WHERE transaction_id = %(target)s",
        target=target,
    )
    assert found(report) == {LEAVES}


def test_a_sealed_transaction_moved_in_the_journals_order_is_found(world: World) -> None:
    for statement in (
        "UPDATE ledger.transaction SET xid = (xid::text::bigint + 1)::text::xid8 WHERE id = %(target)s",
        "UPDATE ledger.transaction SET xid = (xid::text::bigint - 1)::text::xid8 WHERE id = %(target)s",
        "UPDATE ledger.transaction SET era = 2 WHERE id = %(target)s",
        "UPDATE ledger.transaction SET era = 0 WHERE id = %(target)s",
        "UPDATE ledger.transaction SET era = -1 WHERE id = %(target)s",
        "UPDATE ledger.transaction SET xid = '18446744073709551615' WHERE id = %(target)s",
    ):
        assert COVER in found(world.after(statement, target=world.sealed)), statement


def test_an_unsealed_transaction_moved_into_sealed_or_folded_territory_is_found(world: World) -> None:
    report = world.after("UPDATE ledger.transaction SET xid = '5' WHERE id = %(target)s", target=world.other)
    assert found(report) >= {COVER, DAYS}


@pytest.mark.parametrize("tail", [False, True], ids=["sealed", "unsealed"])
def test_a_removed_transaction_is_missed_by_its_postings_and_its_reference(world: World, tail: bool) -> None:
    target = world.unsealed if tail else world.sealed
    report = world.after("DELETE FROM ledger.transaction WHERE id = %(target)s", target=target)
    assert found(report) >= {ORPHANS, REFERENCES} | (set() if tail else {COVER})
    assert f"posting 1 of transaction {target}" in places(report, ORPHANS)


@pytest.mark.parametrize("tail", [False, True], ids=["sealed", "unsealed"])
def test_a_transaction_removed_with_its_postings_is_missed(world: World, tail: bool) -> None:
    target = world.unsealed if tail else world.sealed
    report = world.after(
        "DELETE FROM ledger.transaction WHERE id = %(target)s",
        "DELETE FROM ledger.posting WHERE transaction_id = %(target)s",
        target=target,
    )
    assert found(report) >= {REFERENCES, BALANCES, DAYS} | (set() if tail else {COVER})


def test_an_added_posting_is_found(world: World) -> None:
    for target in (world.sealed, world.unsealed):
        report = world.after(
            "INSERT INTO ledger.posting SELECT transaction_id, 3, debit_account, credit_account, 1, currency,"
            " effective_on FROM ledger.posting WHERE transaction_id = %(target)s AND seq = 1",
            target=target,
        )
        assert found(report) >= {LEAVES, BALANCES, DAYS}


def test_a_posting_of_no_transaction_is_found_before_and_behind_all_others(world: World) -> None:
    for stray in (UUID(int=0), UUID(int=2**128 - 1)):
        report = world.after(
            "INSERT INTO ledger.posting SELECT %(stray)s, 1, debit_account, credit_account, 1, currency,"
            " effective_on FROM ledger.posting WHERE transaction_id = %(target)s AND seq = 1",
            stray=stray,
            target=world.sealed,
        )
        assert str(stray) in places(report, ORPHANS)


def test_a_transaction_without_postings_is_found(world: World) -> None:
    stray = new_id()
    report = world.after(
        "INSERT INTO ledger.transaction SELECT %(stray)s, 'stray', kind, effective_on, recorded_at, NULL, 0, NULL,"
        " salt, leaf, era, xid FROM ledger.transaction WHERE id = %(target)s",
        stray=stray,
        target=world.other,
    )
    assert str(stray) in places(report, LEAVES)


def rewrite_consistently(tx: Tx, target: UUID) -> None:
    """What a patient forger does: one franc more, with leaf, balances and folded movements made to fit."""
    honest = receipt(tx, target)
    first = replace(honest.postings[0], amount=honest.postings[0].amount + 1)
    forged = replace(honest, postings=(first, *honest.postings[1:]))
    for statement in (
        "UPDATE ledger.posting SET amount = amount + 1 WHERE transaction_id = :id AND seq = 1",
        "UPDATE ledger.transaction SET leaf = :leaf WHERE id = :id",
        "UPDATE ledger.account_balance SET debits = debits + 1 WHERE account_id = :debit",
        "UPDATE ledger.account_balance SET credits = credits + 1 WHERE account_id = :credit",
        "UPDATE ledger.account_day SET debits = debits + 1 WHERE account_id = :debit AND day = :day",
        "UPDATE ledger.account_day SET credits = credits + 1 WHERE account_id = :credit AND day = :day",
        "UPDATE ledger.account_month SET debits = debits + 1 WHERE account_id = :debit",
        "UPDATE ledger.account_month SET credits = credits + 1 WHERE account_id = :credit",
    ):
        tx.execute(
            text(statement),
            {
                "id": target,
                "leaf": forged.computed_leaf(),
                "debit": first.debit,
                "credit": first.credit,
                "day": first.effective_on,
            },
        )


def verdict_on_forgery(world: World, target: UUID) -> Report:
    with world.books.databases.superuser.engine.connect() as tx:
        tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        rewrite_consistently(tx, target)
        report = verify(tx)
        tx.rollback()
    return report


def test_a_forgery_that_fits_everywhere_breaks_the_seal(world: World) -> None:
    assert found(verdict_on_forgery(world, world.sealed)) == {COVER}


def test_what_is_not_sealed_can_be_forged_and_the_report_says_so(world: World) -> None:
    report = verdict_on_forgery(world, world.unsealed)
    assert report.ok
    assert report.caveat is not None
    assert "carried through all of them" in report.caveat


CHANGED_SEALS = {
    "number": ("number = 200", {CHAIN}),
    "previous": ("previous = decode(repeat('ab', 32), 'hex')", {CHAIN}),
    "root": ("root = decode(repeat('ab', 32), 'hex')", {CHAIN, COVER}),
    "head": ("head = decode(repeat('ab', 32), 'hex')", {CHAIN, SIGNED}),
    "era": ("era = 2", {CHAIN, RANGES}),
    "a negative era": ("era = -2", {CHAIN, RANGES}),
    "from": ("from_xid = (from_xid::text::bigint + 1)::text::xid8", {CHAIN, RANGES}),
    "to": ("to_xid = (to_xid::text::bigint + 1)::text::xid8", {CHAIN, RANGES}),
    "a to beyond all": ("to_xid = '18446744073709551615'", {CHAIN, RANGES}),
    "transactions": ("transactions = transactions + 1", {CHAIN, COVER}),
    "postings": ("postings = postings - 1", {CHAIN, COVER}),
    "total of transactions": ("total_transactions = total_transactions + 1", {CHAIN}),
    "total of postings": ("total_postings = total_postings + 1", {CHAIN}),
    "time": ("sealed_at = sealed_at + interval '1 microsecond'", {CHAIN}),
    "key": ("key_id = 'other'", {CHAIN, SIGNED}),
    "signature": ("signature = decode(repeat('ab', 64), 'hex')", {SIGNED}),
    "a short signature": ("signature = ''", {SIGNED}),
}


@pytest.mark.parametrize("change", CHANGED_SEALS)
def test_a_changed_seal_is_found(world: World, change: str) -> None:
    assignment, expected = CHANGED_SEALS[change]
    statement = f"UPDATE ledger.seal SET {assignment} WHERE number = 2"
    assert found(world.after(statement)) >= expected
    assert PUBLISHED in found(world.after(statement, against=world.published))


def test_an_exchanged_key_signs_nothing(world: World) -> None:
    report = world.after("UPDATE ledger.seal_key SET public_key = decode(repeat('ab', 32), 'hex')")
    assert found(report) == {SIGNED}


def test_a_seal_taken_out_of_the_chain_is_missed(world: World) -> None:
    assert found(world.after("DELETE FROM ledger.seal WHERE number = 1")) >= {CHAIN, RANGES}
    assert found(world.after("DELETE FROM ledger.seal WHERE number = 2")) >= {CHAIN, RANGES}


def test_a_seal_cut_off_the_end_is_missed_by_whoever_kept_its_head(world: World) -> None:
    last = world.published[-1]
    cut = f"DELETE FROM ledger.seal WHERE number = {last.number}"
    assert world.after(cut).unsealed > 7
    report = world.after(cut, against=world.published)
    assert found(report) == {PUBLISHED}
    assert places(report, PUBLISHED) == f"seal {last.number}"


def test_a_chain_resealed_by_the_holder_of_the_key_differs_from_what_was_published(world: World) -> None:
    books = world.books
    with books.databases.superuser.engine.connect() as tx:
        tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        rewrite_consistently(tx, world.sealed)
        previous, seals = bytes(32), heads(tx)
        tx.exec_driver_sql("DELETE FROM ledger.seal")
        while (again := seal(tx, books.key, books.clock, limit=7)) is not None:
            assert again.previous == previous
            previous = again.head
        assert heads(tx) != seals
        assert found(verify(tx)) == set()
        assert found(verify(tx, against=world.published)) == {PUBLISHED}
        tx.rollback()


CHANGED_STATE = {
    "debits": ("UPDATE ledger.account_balance SET debits = debits + 1 WHERE account_id = %(bank)s", {BALANCES, FUNDS}),
    "credits": ("UPDATE ledger.account_balance SET credits = credits - 1 WHERE account_id = %(member)s", {BALANCES, FUNDS}),
    "balance gone": ("DELETE FROM ledger.account_balance WHERE account_id = %(member)s", {BALANCES}),
    "account gone": ("DELETE FROM ledger.account WHERE id = %(member)s", {BALANCES, SIDES}),
    "account's currency": ("UPDATE ledger.account SET currency = 'PHP' WHERE id = %(member)s", {SIDES, FUNDS}),
    "held": ("UPDATE ledger.account_balance SET held = held + 1 WHERE account_id = %(member)s", {HELD}),
    "hold's amount": ("UPDATE ledger.hold SET amount = amount + 1 WHERE id = %(hold)s", {HELD}),
    "hold gone": ("DELETE FROM ledger.hold WHERE id = %(hold)s", {HELD}),
    "hold's capture": ("UPDATE ledger.hold SET transaction_id = gen_random_uuid() WHERE id = %(captured)s", {CAPTURES}),
    "floor": ("UPDATE ledger.account SET floor = 1000000000 WHERE id = %(member)s", {LIMITS}),
    "ceiling": ("UPDATE ledger.account SET ceiling = 1 WHERE id = %(member)s", {LIMITS}),
    "day": ("UPDATE ledger.account_day SET credits = credits + 1 WHERE account_id = %(member)s", {DAYS, MONTHS}),
    "day moved": ("UPDATE ledger.account_day SET day = day + 1 WHERE account_id = %(member)s", {DAYS}),
    "day gone": ("DELETE FROM ledger.account_day WHERE account_id = %(member)s", {DAYS, MONTHS}),
    "month": ("UPDATE ledger.account_month SET debits = debits + 1 WHERE account_id = %(bank)s", {MONTHS}),
    "watermark": ("UPDATE ledger.fold SET xid = '4'", {DAYS}),
    "reference": ("UPDATE ledger.reference SET reference = 'x' WHERE transaction_id = %(target)s", {REFERENCES}),
    "reference's transaction": ("UPDATE ledger.reference SET transaction_id = %(other)s WHERE transaction_id = %(target)s", {REFERENCES}),
    "reference gone": ("DELETE FROM ledger.reference WHERE transaction_id = %(target)s", {REFERENCES}),
    "reversal of nothing": ("UPDATE ledger.transaction SET reverses = gen_random_uuid() WHERE id = %(reversal)s", {REVERSALS}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGED_STATE)
def test_changed_state_beside_the_journal_is_found(world: World, change: str) -> None:
    statement, expected = CHANGED_STATE[change]
    values = {
        "bank": world.books.bank,
        "member": world.books.members[0],
        "hold": world.hold,
        "captured": world.captured,
        "target": world.sealed,
        "other": world.other,
        "reversal": world.reversal,
    }
    assert found(world.after(statement, **values)) >= expected


def test_what_stands_on_the_ledger_is_checked_in_the_same_run(world: World) -> None:
    def remittances_are_posted(tx: Tx) -> Check:
        number = tx.execute(text("SELECT count(*) FROM ledger.transaction")).scalar_one()
        return Check(
            "remittances are posted", number, 1, (Finding("remittance rmt_1", "has no transaction"),)
        )

    seen: list[tuple[str, int, int]] = []
    report = world.books.verify(
        extra_checks=[remittances_are_posted], progress=lambda *step: seen.append(step)
    )
    assert found(report) == {"remittances are posted"}
    assert {name for name, _, _ in seen} >= {LEAVES, COVER, BALANCES, "remittances are posted"}
    assert all(done <= total for _, done, total in seen)


def test_verification_insists_on_one_snapshot(world: World) -> None:
    with world.books.databases.auditor.begin() as tx, pytest.raises(Conflict, match="one snapshot"):
        verify(tx)


def test_large_chunks_and_small_ones_give_the_same_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.replay.CHUNK_TRANSACTIONS", 4)
    report = world.books.verify()
    assert report.ok
    assert (report.transactions, report.postings) == (30, 59)
    broken = world.after("DELETE FROM ledger.transaction WHERE id = %(target)s", target=world.sealed)
    assert ORPHANS in found(broken)


def test_empty_books_hold(books: Books) -> None:
    report = books.verify()
    assert report.ok
    assert (report.transactions, report.postings, report.unsealed, report.caveat) == (0, 0, 0, None)


def test_books_verify_beside_a_running_worker(books: Books) -> None:
    books.post(books.contribution(0, 100))
    with books.databases.worker.begin() as open_tx:
        books.post_in(open_tx, [books.contribution(1, 300)])
        books.clock.advance(timedelta(seconds=1))
        assert books.verify().ok
    assert books.verify().transactions == 2
