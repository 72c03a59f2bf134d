"""A line that is paired by hand with what the books only expect: the preview is all that this means, and it is taken back whole."""

from collections.abc import Iterator

import pytest

from ledger.clock import FixedClock
from products.reconciliation import hand_pairing
from products.reconciliation.breaks import limits, resolve
from products.reconciliation.breaks.choices import Choice, Target
from products.reconciliation.breaks.limits import TakesTwoPersons
from products.reconciliation.breaks.resolve import Resolution
from tests.conftest import Databases
from tests.integration.reconciliation.counting import ACME_ACCOUNT, Counting
from tests.tying import expect_all_ties


@pytest.fixture
def counting(databases: Databases, clock: FixedClock) -> Iterator[Counting]:
    made = Counting(databases, clock)
    yield made
    expect_all_ties(databases)


def test_a_partners_payment_is_paired_by_hand_with_what_it_owes(counting: Counting) -> None:
    partner = counting.net_partner()
    person = counting.world.member(partner)
    counting.world.send(partner, counting.world.completed(person, collected=20_000))
    # a bank's fee was kept on the way: beyond what a rule allows
    [line] = counting.statement(counting.line(19_700, account=ACME_ACCOUNT))
    counting.reconcile()
    assert not counting.is_paired(line)
    [found] = counting.paying.rows(
        "SELECT id, type, amount, details FROM products.break WHERE subject = %s AND ended_at IS NULL",
        str(line),
    )
    assert (found["type"], found["amount"]) == ("fee", -300)
    [item] = counting.paying.rows(
        "SELECT id FROM ledger.item WHERE source = 'settlement' AND closed_at IS NULL"
    )
    assert found["details"]["items"] == [str(item["id"])]
    choice = Choice("pair", items=(item["id"],), to=Target("bank_charges"))
    books = counting.world.books

    def preview() -> Resolution:
        return counting.databases.worker.run(
            lambda tx: resolve.preview(tx, books, found["id"], choice, actor="opr_anna")
        )

    seen = preview()
    told = {(one["debit"], one["credit"]): one["amount"] for one in seen.preview["postings"]}
    assert told["bank", "unidentified_receipts"] == 20_000
    assert told["unidentified_receipts", "partner_receivable"] == 20_000
    assert told["member_contributions_pending", "member_savings"] == 20_000
    assert told["bank_charges", "due_to_funds"] == 300
    assert counting.balance("member_savings") == 0
    assert preview().digest == seen.digest  # looking changes nothing

    done = counting.databases.worker.run(
        lambda tx: resolve.confirm(
            tx, books, seen.id, digest=seen.digest, remark="the bank's fee", actor="opr_anna"
        )
    )
    assert done.transactions
    assert counting.is_paired(line)
    assert counting.balance("member_savings") == 20_000
    counting.databases.worker.run(
        lambda tx: resolve.undo(tx, books, found["id"], remark="another's money", actor="opr_anna")
    )
    assert not counting.is_paired(line)
    assert counting.balance("member_savings") == 0


def test_one_person_pairs_what_posts_something_up_to_the_limit_only(counting: Counting) -> None:
    partner = counting.net_partner()
    counting.world.send(partner, counting.world.completed(counting.world.member(partner), collected=20_000))
    counting.reconcile()
    [line] = counting.statement(counting.line(20_000, account=ACME_ACCOUNT))
    [item] = counting.paying.rows(
        "SELECT id FROM ledger.item WHERE source = 'settlement' AND closed_at IS NULL"
    )
    books, worker = counting.world.books, counting.databases.worker

    def pair() -> None:
        worker.run(
            lambda tx: hand_pairing.pair(tx, books, [line], [item["id"]], remark="theirs", actor="opr_anna")
        )

    def limit(above: int) -> None:
        ejoheza = counting.world.programmes["ejoheza"]
        worker.run(lambda tx: limits.put(tx, counting.world.clock, ejoheza, "RWF", above))

    with pytest.raises(TakesTwoPersons, match="up to 0"):
        pair()
    limit(19_999)
    with pytest.raises(TakesTwoPersons, match="20000 RWF"):
        pair()
    assert counting.balance("member_savings") == 0
    limit(20_000)
    pair()
    assert counting.is_paired(line)
    assert counting.balance("member_savings") == 20_000
