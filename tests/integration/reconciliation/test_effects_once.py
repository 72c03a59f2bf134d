"""Whoever is killed, or comes second, leaves every effect of a pairing done once or not at all; erased members leave no text."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from ledger.clock import FixedClock
from ledger.database import Database
from ledger.errors import Conflict
from ledger.reconciliation.pairings import BY_HAND, Proposal
from products.keyring import Keyring
from products.members.erasure import erase
from products.payouts import reports
from products.payouts.rails import Report
from products.payouts.registry import find
from products.programmes.registry import Programmes
from products.reconciliation import effects, run
from products.remittances.context import Books
from tests.conftest import Databases
from tests.dying import Step, die_after, expect_killed
from tests.integration.reconciliation.counting import ACME_ACCOUNT, Counting
from tests.tying import expect_all_ties

STEPS = (
    "products.reconciliation.run:sources.refresh",
    "products.reconciliation.effects:record_settlement",
    "products.payouts.reports:apply",
    "products.reconciliation.postings:charge",
    "products.reconciliation.effects:items_of",
    "ledger.reconciliation.pairings:make",
    "products.reconciliation.run:refresh_breaks",
)
"""After which a run is killed, in the order in which they come."""


def _killed_after(url: str, clock: FixedClock, step: Step) -> None:
    """Reconcile, and be gone as soon as this step is done for the first time; runs in a process of its own."""
    die_after(step)
    books = Books(clock, Keyring({"test": bytes(range(32))}, "test"), Programmes())
    run.reconcile(Database(url, application_name="killed"), books)


def test_a_run_that_is_killed_after_any_step_has_done_each_effect_once_or_not_at_all(
    databases: Databases, clock: FixedClock
) -> None:
    counting = Counting(databases, clock)
    counting.bank_rail()
    partner = counting.net_partner()
    member = counting.world.member(partner)
    person = counting.paying.person()
    paid, charged = counting.sent(person, 1_000) + counting.sent(person, 4_000)
    counting.world.send(partner, counting.world.completed(member, collected=10_007))
    ids = [counting.paying.attempt(one)["id"].hex for one in (paid, charged)]
    lines = counting.statement(
        counting.line(10_007, account=ACME_ACCOUNT),
        counting.line(-1_000, 2, end_to_end=ids[0]),
        counting.line(-4_011, 3, end_to_end=ids[1].upper()),
    )
    for step in STEPS:
        expect_killed(_killed_after, databases.urls["worker"], clock, step)
        expect_all_ties(databases)
        effects_, made = (
            counting.paying.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"]
            for table in ("products.pairing_effect", "ledger.pairing")
        )
        assert effects_ >= made
        assert len(counting.open_booked()) == 0  # what was posted is paired, or it was not posted

    counting.reconcile()
    assert [counting.is_paired(line) for line in lines] == [True, True, True]
    assert counting.balance("bank") == 10_007 - 1_000 - 4_011
    assert {counting.paying.state(one) for one in (paid, charged)} == {"paid"}
    assert (counting.balance("bank_charges"), counting.balance("payout_clearing")) == (11, 0)
    assert counting.balance("partner_receivable", partner.slug) == 0
    assert [row["n"] for row in counting.paying.rows("SELECT count(*) AS n FROM ledger.pairing")] == [3]
    expect_all_ties(databases)


def test_of_two_who_confirm_the_same_line_at_once_one_wins(databases: Databases, clock: FixedClock) -> None:
    counting = Counting(databases, clock)
    partner = counting.net_partner()
    counting.world.send(partner, counting.world.completed(counting.world.member(partner), collected=10_000))
    counting.reconcile()
    [line] = counting.statement(counting.line(9_990, says="NO NAME"))
    (item,) = counting.paying.rows("SELECT id FROM ledger.item WHERE party = %s", partner.slug)
    proposal = Proposal(counting.savers.id, (line,), (item["id"],), BY_HAND, {}, -10)

    def confirm(actor: str) -> str:
        try:
            databases.worker.run(
                lambda tx: effects.confirm(tx, counting.world.books, proposal, made_by=actor)
            )
        except Conflict as conflict:
            return conflict.code
        return "confirmed"

    with ThreadPoolExecutor(2) as people:
        assert sorted(people.map(confirm, ("opr_one", "opr_two"))) == ["already_paired", "confirmed"]
    # the partner has paid all that it owes; what the bank kept is the administrator's
    assert counting.balance("partner_receivable", partner.slug) == 0
    assert (counting.balance("bank"), counting.balance("bank_charges")) == (9_990, 10)
    assert counting.world.balance("due_from_funds") == 10
    expect_all_ties(databases)


def test_what_the_bank_wrote_of_a_payment_goes_when_its_member_is_erased_before_or_after(
    databases: Databases, clock: FixedClock
) -> None:
    counting = Counting(databases, clock)
    counting.bank_rail()
    one, other = (counting.paying.person(number, saved=5_000) for number in (1, 2))
    [first] = counting.sent(one, 5_000)
    [second] = counting.sent(other, 5_000)
    ids = [counting.paying.attempt(payout)["id"] for payout in (first, second)]
    [seen] = counting.statement(
        counting.line(-5_000, end_to_end=ids[0].hex, says="ALINE UWASE", payer="ALINE UWASE")
    )
    counting.reconcile()
    assert counting.paying.state(first) == "paid"
    with databases.worker.begin() as tx:
        rail = find(tx, "kigali-bank")
        reports.apply(tx, counting.world.books, rail, [Report("paid", ids[1])], source="hand")

    def has_text(line: Any) -> bool:
        (row,) = counting.paying.rows(
            "SELECT text_sealed IS NOT NULL AS told FROM ledger.statement_line WHERE id = %s", line
        )
        return bool(row["told"])

    assert has_text(seen)
    for person in (one, other):
        databases.worker.run(lambda tx, person=person: erase(tx, person.member_id, clock.now()))  # type: ignore[misc]  # a default is the way to bind a loop's name
    assert not has_text(seen)

    clock.advance(timedelta(days=1))
    [late] = counting.statement(
        counting.line(-5_000, end_to_end=ids[1].hex, says="ALINE UWASE", payer="ALINE UWASE")
    )
    assert has_text(late)
    counting.reconcile()
    assert counting.is_paired(late)
    assert not has_text(late)
    expect_all_ties(databases)
