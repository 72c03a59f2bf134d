"""What pairing a statement's lines does to the books, and taking it back; each world is verified at its end."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from ledger.accounts import open_accounts
from ledger.clock import FixedClock
from ledger.errors import Conflict
from ledger.ids import public_id
from ledger.reconciliation import bank_accounts
from ledger.reconciliation.bank_accounts import NewBankAccount
from ledger.reconciliation.pairings import BY_HAND, Proposal
from products import chart
from products.payouts.resolve import resolve
from products.reconciliation import by_hand, conversions, effects, run
from products.reconciliation.suggestions import returned_on, suggestions
from products.settlements.returns import return_settlement
from tests.conftest import Databases
from tests.integration.reconciliation.bank import entry
from tests.integration.reconciliation.counting import ACME_ACCOUNT, Counting
from tests.tying import expect_all_ties

DAY = timedelta(days=1)


@pytest.fixture
def counting(databases: Databases, clock: FixedClock) -> Iterator[Counting]:
    """A world that is verified when the test is done with it."""
    made = Counting(databases, clock)
    yield made
    expect_all_ties(databases)


def settlements(counting: Counting) -> list[tuple[str, int, int, int]]:
    """State, amount, paired and unidentified of each settlement, the oldest first."""
    rows = counting.paying.rows(
        "SELECT state, amount, paired, unidentified FROM products.settlement ORDER BY recorded_at, id"
    )
    return [(row["state"], row["amount"], row["paired"], row["unidentified"]) for row in rows]


def test_what_a_partner_pays_by_bank_transfer_settles_what_it_collected_and_no_more(
    counting: Counting,
) -> None:
    partner = counting.net_partner()
    person = counting.world.member(partner)
    enrolment = person.enrolments["savings"]
    now = counting.clock.now()
    counting.world.send(
        partner,
        *(
            counting.world.completed(person, collected=collected, at=now - ago * DAY)
            for collected, ago in ((10_000, 3), (10_013, 3), (11_007, 2), (7_001, 1))
        ),
    )
    counting.reconcile()
    assert counting.expected() == [("settlement", 20_013), ("settlement", 11_007), ("settlement", 7_001)]

    # one line for two days, one that says less than was owed
    both, less = counting.statement(
        counting.line(31_020, account=ACME_ACCOUNT), counting.line(6_000, 2, account=ACME_ACCOUNT)
    )
    report = counting.reconcile()
    assert (report.pairings, report.accounts[0].confirmed) == (1, 1)
    assert counting.is_paired(both)
    assert not counting.is_paired(less)
    assert settlements(counting) == [("paired", 31_020, 31_020, 0)]
    assert counting.world.balance("member_savings", enrolment) == 31_020
    assert counting.world.balance("member_contributions_pending", enrolment) == 7_001
    assert (counting.balance("bank"), counting.balance("unidentified_receipts")) == (31_020, 0)
    assert counting.expected() == [("settlement", 7_001)]
    assert counting.reconcile().pairings == 0

    counting.undo(counting.pairing(both))
    assert settlements(counting) == [("returned", 31_020, 31_020, 0)]
    assert counting.balance("bank") == 0
    assert not counting.is_paired(both)
    assert counting.open_booked() == []
    # what a person took back, no rule makes again; and the bank has returned nothing: it is the line that is open
    assert counting.reconcile().pairings == 0
    assert settlements(counting) == [("returned", 31_020, 31_020, 0)]
    of_line = counting.paying.rows(
        "SELECT subject FROM products.break WHERE ended_at IS NULL AND subject_kind <> 'item'"
    )
    assert {row["subject"] for row in of_line} == {str(both), str(less)}


def test_payments_of_a_bank_file_are_paid_when_the_statement_says_so(counting: Counting) -> None:
    counting.bank_rail()
    person = counting.paying.person(saved=40_000)
    batch = counting.sent(person, 1_001, 1_002, 1_003)
    single, charged = counting.sent(person, 2_000) + counting.sent(person, 4_000)
    message = counting.paying.attempt(batch[0])["batch_id"].hex
    end_to_end = [counting.paying.attempt(one)["id"].hex for one in (single, charged)]
    assert {counting.paying.state(one) for one in (*batch, single, charged)} == {"submitted"}

    lines = counting.statement(
        counting.line(-3_006, says=f"SALA {message}-01"),  # the bank booked the file as one
        counting.line(-2_000, 2, end_to_end=end_to_end[0]),
        counting.line(-4_015, 3, end_to_end=end_to_end[1].upper()),  # and took something for itself
    )
    counting.reconcile()
    assert [counting.is_paired(line) for line in lines] == [True, True, True]
    assert {counting.paying.state(one) for one in (*batch, single, charged)} == {"paid"}
    assert counting.balance("payout_clearing") == 0
    assert counting.balance("bank") == -3_006 - 2_000 - 4_015
    # the administrator bears it, and owes it to the savers
    assert (counting.balance("bank_charges"), counting.balance("due_to_funds")) == (15, 15)
    assert counting.balance("member_savings", person.enrolments["savings"].hex) == 40_000 - 9_006
    owed = [("settlement", 40_000)]  # what the partner owes from which the members' money came
    assert (counting.expected(), counting.open_booked()) == (owed, [])

    counting.undo(counting.pairing(lines[2]))
    assert counting.paying.state(charged) == "in_transit: confirmation_taken_back"
    assert (counting.balance("bank_charges"), counting.balance("payout_clearing")) == (0, 4_000)
    counting.reconcile()
    assert not counting.is_paired(lines[2])
    assert counting.expected() == [("payout", -4_000), *owed]
    # a person may do it again
    counting.databases.worker.run(
        lambda tx: effects.confirm(
            tx,
            counting.world.books,
            Proposal(
                counting.savers.id,
                (lines[2],),
                (counting.paying.attempt(charged)["id"],),
                BY_HAND,
                {"remark": "it was right"},
                -15,
            ),
            made_by="opr_test",
        )
    )
    assert counting.paying.history(charged)[-3:] == ["paid", "in_transit", "paid"]
    assert counting.balance("payout_clearing") == 0
    assert counting.open_booked() == []


def test_money_that_comes_back_is_suggested_and_never_taken_for_granted(counting: Counting) -> None:
    counting.bank_rail()
    partner = counting.net_partner()
    member = counting.world.member(partner)
    counting.world.send(partner, counting.world.completed(member, collected=10_000))
    person = counting.paying.person()
    [payout] = counting.sent(person, 5_000)
    end_to_end = counting.paying.attempt(payout)["id"].hex
    counting.statement(
        counting.line(-5_000, end_to_end=end_to_end),
        counting.line(10_000, 2, account=ACME_ACCOUNT, end_to_end="ACME-7"),
    )
    counting.reconcile()
    assert counting.paying.state(payout) == "paid"

    counting.clock.advance(2 * DAY)
    came_back_on = counting.today
    back, bounced = counting.statement(
        counting.line(5_000, end_to_end=end_to_end), counting.line(-10_000, 2, end_to_end="ACME-7")
    )
    counting.reconcile()
    assert not counting.is_paired(back)
    assert not counting.is_paired(bounced)
    with counting.databases.worker.begin() as tx:
        found = {one.line: (one.kind, one.subject, one.evidence) for one in suggestions(tx)}
        (settlement,) = tx.exec_driver_sql("SELECT id FROM products.settlement").scalars()
    counting.clock.advance(3 * DAY)  # two managers take their time
    assert found == {
        back: ("payout_returned", public_id("pay", payout), f"end_to_end {end_to_end}"),
        bounced: ("settlement_returned", public_id("stl", settlement), "end_to_end ACME-7"),
    }

    worker, books = counting.databases.worker, counting.world.books
    with worker.engine.begin() as older:
        older.exec_driver_sql("SELECT pg_current_xact_id()")
        worker.run(
            lambda tx: resolve(
                tx, books, payout, "returned", actor="opr_test", booked_on=returned_on(tx, payout)
            )
        )
        worker.run(lambda tx: return_settlement(tx, books, settlement, reason="insufficient funds"))
        # nothing is paired while something older may still commit, and the run says that it waits
        report = run.reconcile(worker, books)
        assert (report.pairings, report.waiting) == (0, 2)
    assert counting.reconcile().waiting == 0
    (booked,) = counting.paying.rows("SELECT on_date FROM ledger.item WHERE kind = 'payout_returned'")
    assert booked["on_date"] == came_back_on
    assert counting.is_paired(back)
    assert counting.is_paired(bounced)
    assert (counting.balance("bank"), counting.open_booked()) == (0, [])
    assert counting.balance("partner_receivable", partner.slug) == 10_000


def test_money_of_nobody_known_is_a_receipt_until_a_partner_is_found_to_have_sent_it(
    counting: Counting,
) -> None:
    worker, books = counting.databases.worker, counting.world.books
    partner = counting.net_partner()
    person = counting.world.member(partner)
    counting.world.send(partner, counting.world.completed(person, collected=10_000))
    unknown, taken, other = counting.statement(
        counting.line(15_000, says="MISC"), counting.line(-250, 2, says="FEE"), counting.line(777, 3)
    )
    counting.reconcile()
    assert not counting.is_paired(unknown)

    worker.run(lambda tx: by_hand.receive(tx, books, unknown, remark="who is it?", actor="opr_test"))
    receipt = worker.run(lambda tx: by_hand.receive(tx, books, other, remark="who?", actor="opr_test"))
    worker.run(lambda tx: by_hand.charge(tx, books, taken, remark="monthly fee", actor="opr_test"))
    with pytest.raises(Conflict) as caught:
        worker.run(lambda tx: by_hand.receive(tx, books, unknown, remark="again", actor="opr_test"))
    assert caught.value.code == "already_paired"
    assert (counting.balance("unidentified_receipts"), counting.balance("bank_charges")) == (15_777, 250)
    assert (counting.balance("bank"), counting.balance("due_from_funds")) == (15_527, 250)

    (found,) = counting.paying.rows("SELECT id FROM products.receipt WHERE line_id = %s", unknown)
    done = worker.run(lambda tx: by_hand.identify(tx, books, found["id"], partner))
    assert (done.paired, done.unidentified) == (10_000, 5_000)
    assert counting.world.balance("member_savings", person.enrolments["savings"]) == 10_000
    assert counting.balance("bank") == 15_527

    # what is left of it pays for what the partner owes next
    counting.world.send(partner, counting.world.completed(person, collected=9_000))
    counting.clock.advance(DAY)
    counting.reconcile()
    assert counting.expected() == [("settlement", 4_000)]
    [rest] = counting.statement(counting.line(4_000, account=ACME_ACCOUNT))
    counting.reconcile()
    assert counting.is_paired(rest)
    assert counting.balance("partner_receivable", partner.slug) == 0
    assert (counting.balance("unidentified_receipts"), counting.balance("bank")) == (777, 19_527)

    counting.undo(receipt)
    counting.undo(counting.pairing(taken))
    counting.undo(counting.pairing(unknown), "it was another's after all")
    assert (counting.balance("unidentified_receipts"), counting.balance("bank_charges")) == (0, 0)
    assert counting.balance("bank") == 4_000
    assert counting.balance("partner_receivable", partner.slug) == 15_000
    assert counting.open_booked() == []
    assert counting.reconcile().pairings == 0


def test_a_conversion_pairs_two_lines_and_its_rate_is_on_record(counting: Counting) -> None:
    worker, books = counting.databases.worker, counting.world.books
    with worker.begin() as tx:
        [dollars] = open_accounts(tx, [chart.spec(chart.BANK, counting.savers.fund_id, "", "USD")])
        abroad = bank_accounts.add(
            tx, counting.clock, NewBankAccount("savers-usd", "In dollars", dollars, "USD 1", counting.today)
        )
    [out] = counting.statement(counting.line(-1_432_500, end_to_end="FX-100"))
    counting.bank.sends(
        counting.bank.says(
            [entry(1, 100_050, counting.today, end_to_end="fx 100", currency="USD")],
            account=abroad.identification,
            currency="USD",
        )
    )
    (row,) = counting.paying.rows("SELECT id FROM ledger.statement_line WHERE currency = 'USD'")
    came = row["id"]
    counting.reconcile()
    with worker.begin() as tx:
        [found] = conversions.candidates(tx)
    assert (found.from_line, found.to_line, found.rate) == (out, came, "0.0006984293")
    # until somebody books it, both sides say what they are
    assert counting.paying.rows(
        "SELECT subject, type, details ->> 'lines' AS lines FROM products.break ORDER BY subject"
    ) == [
        {"subject": str(one), "type": "fx", "lines": f'["{other}"]'}
        for one, other in sorted([(out, came), (came, out)])
    ]
    first, second = worker.run(
        lambda tx: conversions.convert(tx, books, out, came, remark="bought dollars", actor="opr_test")
    )
    (booked,) = counting.paying.rows(
        "SELECT details FROM ledger.transaction WHERE kind = 'currency_converted'"
    )
    assert booked["details"]["rate"] == "0.0006984293"
    assert counting.open_booked() == []
    assert (counting.pairing(out), counting.pairing(came)) == (first, second)
    counting.reconcile()
    assert {row["state"] for row in counting.paying.rows("SELECT state FROM products.break")} == {"gone"}

    counting.undo(second)
    assert not counting.is_paired(out)
    assert counting.balance("conversion") == 0
    assert counting.open_booked() == []
