"""What could never be posted is refused before the books are asked."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest

from ledger.errors import InvalidPosting
from ledger.money import AMOUNT_MAX
from ledger.transactions import POSTINGS_MAX, TEXT_CHARACTERS_MAX, Posting, Transaction, check

POSTING = Posting(UUID(int=1), UUID(int=2), 1, "PHP")
GOOD = Transaction("référence", "test", date(2026, 3, 2), (POSTING,), b"d" * 32)


def test_a_good_transaction_passes() -> None:
    check(GOOD)
    check(replace(GOOD, reference="x" * TEXT_CHARACTERS_MAX, postings=(POSTING,) * POSTINGS_MAX))


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 0},
        {"amount": -1},
        {"amount": AMOUNT_MAX + 1},
        {"amount": True},
        {"amount": 1.5},
        {"credit": POSTING.debit},
        {"rest_from": POSTING.debit},
        {"rest_from": POSTING.credit},
        {"currency": "PHPP"},
        {"currency": "₱₱₱"},
    ],
)
def test_a_posting_moves_a_positive_amount_between_different_accounts(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidPosting) as refusal:
        check(replace(GOOD, postings=(POSTING, replace(POSTING, **wrong))))
    assert refusal.value.pointer == "/postings/1"


@pytest.mark.parametrize("text", ["", "x" * (TEXT_CHARACTERS_MAX + 1), "nul\x00", "é\x00", "\ud800"])
def test_a_reference_is_text_that_can_be_stored(text: str) -> None:
    for name in ("reference", "kind"):
        with pytest.raises(InvalidPosting):
            check(replace(GOOD, **{name: text}))


def test_a_transaction_has_a_digest_and_some_postings() -> None:
    for wrong in ({"digest": b"short"}, {"postings": ()}, {"postings": (POSTING,) * (POSTINGS_MAX + 1)}):
        with pytest.raises(InvalidPosting):
            check(replace(GOOD, **wrong))
