"""Posting: an answer for each transaction, and the books that follow from it."""

from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

import pytest

from ledger import leaves
from ledger.accounts import close_account
from ledger.database import cursor
from ledger.errors import InvalidPosting, NotFound
from ledger.ids import new_id
from ledger.money import AMOUNT_MAX
from ledger.posting import Outcome, Posting, post, reverse
from tests.conftest import Databases
from tests.integration.ledger.books import DAY, NOON, Books, transaction, transfer


@pytest.fixture
def books(databases: Databases) -> Books:
    return Books.open(databases.worker)


def test_a_transaction_moves_money_from_one_account_to_another(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    (outcome,) = books.post(transfer("a", bank, savings, 500))
    assert outcome.status == "posted"
    assert books.row(bank) == (500, 0, 0)
    assert books.row(savings) == (0, 500, 0)


def test_an_empty_batch_has_no_answers(books: Books) -> None:
    assert books.post() == []


def test_the_same_request_again_is_a_replay_and_changes_nothing(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    (first,) = books.post(transfer("a", bank, savings, 500))
    assert books.post(transfer("a", bank, savings, 500)) == [Outcome("replayed", first.transaction_id)]
    assert books.balance(savings) == 500
    assert books.count("transaction") == 1


def test_another_request_under_a_known_reference_is_a_conflict(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    (first,) = books.post(transfer("a", bank, savings, 500))
    assert books.post(transfer("a", bank, savings, 501)) == [Outcome("conflict", first.transaction_id)]
    assert books.balance(savings) == 500


def test_duplicates_within_a_batch_are_judged_after_their_first(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    once, other = transfer("a", bank, savings, 500), transfer("a", bank, savings, 1)
    first, again, conflicting, new = books.post(once, once, other, transfer("b", bank, savings, 7))
    assert [first.status, again.status, conflicting.status, new.status] == [
        "posted",
        "replayed",
        "conflict",
        "posted",
    ]
    assert again.transaction_id == conflicting.transaction_id == first.transaction_id
    assert books.balance(savings) == 507


def test_a_reference_that_was_refused_stays_free_even_within_its_batch(books: Books) -> None:
    savings, payable = books.account("savings", floor=0), books.account("payable")
    bank = books.account("bank", "asset")
    refused, taken = books.post(transfer("a", savings, payable, 5), transfer("a", bank, savings, 5))
    assert (refused.status, refused.reason) == ("rejected", "insufficient_funds")
    assert taken.status == "posted"
    assert books.balance(savings) == 5


def test_a_refusal_leaves_no_trace_and_its_neighbours_untouched(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    payable = books.account("payable")
    outcomes = books.post(
        transfer("in", bank, savings, 100),
        transfer("too much", savings, payable, 101),
        transfer("all", savings, payable, 100),
    )
    assert [o.status for o in outcomes] == ["posted", "rejected", "posted"]
    assert (outcomes[1].reason, outcomes[1].account_id) == ("insufficient_funds", savings)
    assert books.count("reference", "reference = 'too much'") == 0
    assert books.count("transaction") == 2
    assert books.balance(payable) == 100


def test_the_refused_reference_can_be_posted_later(books: Books) -> None:
    savings, payable = books.account("savings", floor=0), books.account("payable")
    assert books.post(transfer("a", savings, payable, 5))[0].status == "rejected"
    books.fund_account(savings, 5)
    assert books.post(transfer("a", savings, payable, 5))[0].status == "posted"


def test_an_overdraft_that_is_refilled_later_in_the_batch_is_still_refused(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    payable = books.account("payable")
    outcomes = books.post(transfer("out", savings, payable, 5), transfer("in", bank, savings, 5))
    assert [o.status for o in outcomes] == ["rejected", "posted"]


def test_money_that_came_in_earlier_in_the_batch_may_go_out(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    payable = books.account("payable")
    outcomes = books.post(
        *(
            t
            for n in range(20)
            for t in (transfer(f"in {n}", bank, savings, 5), transfer(f"out {n}", savings, payable, 5))
        )
    )
    assert {o.status for o in outcomes} == {"posted"}
    assert books.balance(payable) == 100


def test_a_ceiling_refuses_what_would_pass_it(books: Books) -> None:
    receivable = books.account("receivable", "asset", ceiling=100)
    savings = books.account("savings")
    outcomes = books.post(
        transfer("a", receivable, savings, 60),
        transfer("b", receivable, savings, 41),
        transfer("c", receivable, savings, 40),
    )
    assert [(o.status, o.reason) for o in outcomes] == [
        ("posted", None),
        ("rejected", "ceiling_exceeded"),
        ("posted", None),
    ]
    assert outcomes[1].account_id == receivable


def test_only_the_movement_that_makes_it_worse_is_judged(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    payable = books.account("payable")
    books.post(transfer("overdraw", savings, payable, 50))
    with (
        databases.superuser.begin() as tx
    ):  # no role of Mizan's sets a limit that the account is beyond already
        tx.exec_driver_sql("update ledger.account set floor = 0 where id = %s", (savings,))
    assert books.post(transfer("refill", bank, savings, 10))[0].status == "posted"
    assert books.post(transfer("worse", savings, payable, 1))[0].reason == "insufficient_funds"


def test_hot_accounts_keep_their_limits_too(books: Books) -> None:
    uncommitted = books.account("uncommitted", hot=True, floor=0)
    committed = books.account("committed", hot=True)
    books.fund_account(uncommitted, 10)
    outcomes = books.post(*(transfer(f"match {n}", uncommitted, committed, 3) for n in range(5)))
    assert [o.status for o in outcomes] == ["posted"] * 3 + ["rejected"] * 2
    assert books.balance(uncommitted) == 1


@pytest.mark.parametrize(
    "reason", ["unknown_account", "fund_mismatch", "currency_mismatch", "account_closed"]
)
def test_an_account_for_the_rest_has_to_fit_even_where_no_rest_is_left(
    books: Books, databases: Databases, reason: str
) -> None:
    savings, bank = books.account("savings", floor=0), books.account("bank", "asset")
    books.fund_account(savings, 30)
    match reason:
        case "fund_mismatch":
            rest = Books.open(databases.worker, "other").account("owed", "asset")
        case "currency_mismatch":
            rest = books.account("owed", "asset", currency="USD")
        case "account_closed":
            rest = books.account("owed", "asset")
            with databases.worker.begin() as tx:
                close_account(tx, rest, at=NOON)
        case _:
            rest = new_id()
    [outcome] = books.post(transaction("a", Posting(savings, bank, 20, "PHP", rest_from=rest)))
    assert (outcome.status, outcome.reason) == ("rejected", reason)
    assert books.balance(savings) == 30


def test_what_is_not_available_comes_from_the_other_account(books: Books) -> None:
    savings, owed = books.account("savings", floor=0), books.account("member receivable", "asset")
    bank = books.account("bank", "asset")
    books.fund_account(savings, 30)
    whole = transaction("a", Posting(savings, bank, 20, "PHP", rest_from=owed))
    part = transaction("b", Posting(savings, bank, 20, "PHP", rest_from=owed))
    none = transaction("c", Posting(savings, bank, 20, "PHP", rest_from=owed))
    outcomes = books.post(whole, part, none)
    assert [o.postings for o in outcomes] == [
        (Posting(savings, bank, 20, "PHP"),),
        (Posting(savings, bank, 10, "PHP"), Posting(owed, bank, 10, "PHP")),
        (Posting(owed, bank, 20, "PHP"),),
    ]
    assert books.balance(savings) == 0
    assert books.row(owed) == (30, 0, 0)


def test_a_full_account_pays_all_without_a_closer_look(books: Books) -> None:
    savings, owed = books.account("savings", floor=0), books.account("member receivable", "asset")
    bank = books.account("bank", "asset")
    books.fund_account(savings, 30)
    (outcome,) = books.post(transaction("a", Posting(savings, bank, 30, "PHP", rest_from=owed)))
    assert outcome.postings == (Posting(savings, bank, 30, "PHP"),)


@pytest.mark.parametrize("reason", ["unknown_account", "fund_mismatch", "currency_mismatch"])
def test_what_does_not_fit_the_accounts_is_refused(books: Books, databases: Databases, reason: str) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    pool = Books.open(databases.worker, "pool")
    other = {
        "unknown_account": new_id(),
        "fund_mismatch": pool.account("reserve"),
        "currency_mismatch": books.account("savings", currency="USD"),
    }[reason]
    for wrong in (transfer("a", bank, other, 1), transfer("b", other, savings, 1)):
        good, refused = books.post(transfer(f"good {wrong.reference}", bank, savings, 1), wrong)
        assert (good.status, refused.status, refused.reason) == ("posted", "rejected", reason)


def test_a_closed_account_takes_part_in_nothing(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    with databases.worker.begin() as tx:
        close_account(tx, savings, at=NOON)
    (outcome,) = books.post(transfer("a", bank, savings, 1))
    assert (outcome.reason, outcome.account_id) == ("account_closed", savings)


def test_a_balance_too_large_for_the_books_is_refused_not_an_error(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    outcomes = books.post(*(transfer(f"{n}", bank, savings, AMOUNT_MAX) for n in range(1030)))
    assert {o.status for o in outcomes[:512]} == {"posted"}
    assert {o.reason for o in outcomes[512:]} == {"ceiling_exceeded"}


def test_all_or_nothing_refuses_the_neighbours_too(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    replayed = transfer("before", bank, savings, 1)
    (before,) = books.post(replayed)
    outcomes = books.post(
        replayed, transfer("good", bank, savings, 1), transfer("bad", savings, bank, 9), all_or_nothing=True
    )
    assert outcomes == [
        Outcome("replayed", before.transaction_id),
        Outcome("rejected", reason="batch_rejected"),
        Outcome("rejected", reason="insufficient_funds", account_id=savings),
    ]
    assert books.count("reference") == 1
    assert books.balance(savings) == 1
    good, again = books.post(
        transfer("good", bank, savings, 1), transfer("good", bank, savings, 1), all_or_nothing=True
    )
    assert (good.status, again.status) == ("posted", "replayed")


def test_a_conflict_refuses_the_whole_batch(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    books.post(transfer("a", bank, savings, 1))
    outcomes = books.post(
        transfer("a", bank, savings, 2), transfer("b", bank, savings, 2), all_or_nothing=True
    )
    assert [(o.status, o.reason) for o in outcomes] == [("conflict", None), ("rejected", "batch_rejected")]
    assert books.balance(savings) == 1


def test_a_reversal_swaps_the_postings_and_names_its_original(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    match = books.account("match")
    (first,) = books.post(
        transaction("a", Posting(bank, savings, 5, "PHP"), Posting(savings, match, 2, "PHP"))
    )
    outcome = _reverse(books, first.transaction_id, "undo a")
    assert outcome.status == "posted"
    assert [books.row(account)[:2] for account in (bank, savings, match)] == [(5, 5), (7, 7), (2, 2)]
    assert books.count("transaction", "reverses = %s", [first.transaction_id]) == 1


def test_reversing_twice_is_refused_and_again_is_a_replay(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    (first,) = books.post(transfer("a", bank, savings, 5))
    undone = _reverse(books, first.transaction_id, "undo a")
    assert _reverse(books, first.transaction_id, "undo a") == Outcome("replayed", undone.transaction_id)
    twice = _reverse(books, first.transaction_id, "undo it again")
    assert (twice.status, twice.reason) == ("rejected", "already_reversed")
    assert books.balance(savings) == 0
    assert books.count("reference", "reference = 'undo it again'") == 0


def test_a_reversal_may_leave_what_is_spent_as_a_debt(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    owed = books.account("member receivable", "asset")
    (first,) = books.post(transfer("a", bank, savings, 5))
    books.post(transfer("spent", savings, bank, 3))
    assert _reverse(books, first.transaction_id, "undo").reason == "insufficient_funds"
    with databases.worker.begin() as tx:
        outcome = reverse(
            tx,
            _id(first),
            reference="undo",
            digest=b"d" * 32,
            kind="reversal",
            effective_on=DAY,
            clock=books.clock,
            rest_from={savings: owed},
        )
    assert outcome.status == "posted"
    assert books.row(owed) == (3, 0, 0)


def test_what_was_never_posted_is_not_reversed(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    with pytest.raises(NotFound):
        _reverse(books, new_id(), "undo")
    (outcome,) = books.post(transaction("a", Posting(bank, savings, 1, "PHP"), reverses=new_id()))
    assert outcome == Outcome("rejected", reason="unknown_transaction")


def test_what_could_never_be_posted_is_an_error(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    with pytest.raises(InvalidPosting):
        books.post(transfer("good", bank, savings, 1), transfer("bad", bank, savings, 0))
    assert books.count("reference") == 0


def test_the_stored_leaf_covers_what_is_stored(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    details = {"note": "ñandú — ☂", "rate": ["1.25", 7, None, True], "b": {"z": 1, "a": 2}}
    pair = (Posting(bank, savings, 5, "PHP"), Posting(bank, savings, 6, "PHP"))
    asked = replace(transaction("référence", *pair), details=details)
    (first,) = books.post(asked)
    _reverse(books, first.transaction_id, "undo")
    with databases.auditor.begin() as tx:
        cur = cursor(tx)
        rows = cur.execute(
            "select id, salt, leaf, reference, kind, effective_on, recorded_at, reverses, details from ledger.transaction"
        ).fetchall()
        assert len(rows) == 2
        for id_, salt, leaf, reference, kind, effective_on, recorded_at, reverses, stored in rows:
            postings = cur.execute(
                "select debit_account, credit_account, amount, currency, effective_on from ledger.posting"
                " where transaction_id = %s order by seq",
                [id_],
            ).fetchall()
            assert leaf == leaves.leaf(
                salt=salt,
                id=id_,
                reference=reference,
                kind=kind,
                effective_on=effective_on,
                recorded_at=recorded_at,
                reverses=reverses,
                details=stored,
                postings=postings,
            )
            assert recorded_at == NOON


def _id(outcome: Outcome) -> UUID:
    assert outcome.transaction_id is not None
    return outcome.transaction_id


def _reverse(
    books: Books, transaction_id: UUID | None, reference: str, on: date = DAY + timedelta(days=1)
) -> Outcome:
    assert transaction_id is not None
    with books.database.begin() as tx:
        return reverse(
            tx,
            transaction_id,
            reference=reference,
            digest=b"r" * 32,
            kind="reversal",
            effective_on=on,
            clock=books.clock,
        )


def test_a_caller_may_assign_the_ids(books: Books) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings", floor=0)
    early, late = new_id(), new_id()
    spend, fund = transfer("spend", savings, bank, 5), transfer("fund", bank, savings, 5)
    outcomes = books.post(replace(spend, id=late), replace(fund, id=early))
    assert [(o.status, o.transaction_id) for o in outcomes] == [("posted", late), ("posted", early)]


def test_a_batch_posted_twice_in_one_unit_is_answered_twice(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    with databases.worker.begin() as tx:
        (first,) = post(tx, [transfer("a", bank, savings, 1)], clock=books.clock)
        (again,) = post(tx, [transfer("a", bank, savings, 1)], clock=books.clock)
    assert again == Outcome("replayed", first.transaction_id)
