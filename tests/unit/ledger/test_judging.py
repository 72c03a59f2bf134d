"""Judging: what is accepted moves the balances, what is refused leaves them as they were."""

from dataclasses import astuple, replace
from datetime import date
from uuid import UUID

import pytest

from ledger.judging import Account, Bench, Hold, split
from ledger.transactions import Posting, Transaction

FUND, SAVINGS, BANK, OWED, HOLD = (UUID(int=n) for n in range(5))
DAY = date(2026, 3, 2)


def account(
    id_: UUID, *, debit_normal: bool = False, floor: int | None = None, ceiling: int | None = None
) -> Account:
    return Account(id_, FUND, "PHP", debit_normal, floor, ceiling, False, date.min, 0, 0, 0)


def bench(*accounts: Account, hold: Hold | None = None) -> Bench:
    return Bench({a.id: a for a in accounts}, {hold.id: hold} if hold else {})


def asked(*postings: Posting, captures: UUID | None = None) -> Transaction:
    return Transaction("a", "test", DAY, postings, b"", captures=captures)


def test_a_refused_transaction_leaves_every_balance_as_it_was() -> None:
    bank, savings, owed = (
        account(BANK, debit_normal=True),
        account(SAVINGS, floor=0),
        account(OWED, ceiling=1),
    )
    before = [astuple(a) for a in (bank, savings, owed)]
    verdict = bench(bank, savings, owed).judge(
        asked(Posting(BANK, SAVINGS, 9, "PHP"), Posting(SAVINGS, OWED, 5, "PHP"))
    )
    assert (verdict.reason, verdict.account_id, verdict.postings) == ("ceiling_exceeded", OWED, ())
    assert [astuple(a) for a in (bank, savings, owed)] == before


def test_what_was_accepted_counts_for_the_next() -> None:
    judge = bench(account(BANK, debit_normal=True), account(SAVINGS, floor=0)).judge
    spend = asked(Posting(SAVINGS, BANK, 5, "PHP"))
    assert judge(spend).reason == "insufficient_funds"
    assert judge(asked(Posting(BANK, SAVINGS, 5, "PHP"))).reason is None
    assert judge(spend).reason is None
    assert judge(spend).reason == "insufficient_funds"


def test_a_captured_hold_frees_its_funds_for_the_capture_alone() -> None:
    savings = replace(account(SAVINGS, floor=0), credits=10, held=10)
    judge = bench(account(BANK, debit_normal=True), savings, hold=Hold(HOLD, SAVINGS, 10)).judge
    spend = Posting(SAVINGS, BANK, 4, "PHP")
    assert judge(asked(spend)).reason == "insufficient_funds"
    verdict = judge(asked(spend, captures=HOLD))
    assert (verdict.reason, verdict.captured) == (None, 4)
    assert (savings.debits, savings.held) == (4, 0)
    assert judge(asked(spend, captures=HOLD)).reason == "hold_ended"


def test_a_capture_takes_something_from_the_held_account() -> None:
    savings = replace(account(SAVINGS, floor=0), credits=10, held=10)
    judge = bench(
        account(BANK, debit_normal=True), account(OWED), savings, hold=Hold(HOLD, SAVINGS, 10)
    ).judge
    assert judge(asked(Posting(OWED, BANK, 1, "PHP"), captures=HOLD)).reason == "hold_exceeded"
    assert savings.held == 10


@pytest.mark.parametrize(
    ("room", "amounts"),
    [(None, [(SAVINGS, 5)]), (9, [(SAVINGS, 5)]), (3, [(SAVINGS, 3), (OWED, 2)]), (0, [(OWED, 5)])],
)
def test_the_rest_comes_from_the_other_account(room: int | None, amounts: list[tuple[UUID, int]]) -> None:
    parts = split(Posting(SAVINGS, BANK, 5, "PHP", rest_from=OWED), room)
    assert [(part.debit, part.amount) for part in parts] == amounts
    assert {(part.credit, part.rest_from) for part in parts} == {(BANK, None)}


def test_an_asset_has_room_up_to_its_ceiling() -> None:
    assert account(BANK, debit_normal=True).room_to_debit() is None
    assert replace(account(BANK, debit_normal=True, ceiling=5), debits=3).room_to_debit() == 2
    assert replace(account(BANK, debit_normal=True, ceiling=5), debits=9).room_to_debit() == 0
    assert replace(account(SAVINGS, floor=1), credits=9, held=3).room_to_debit() == 5
