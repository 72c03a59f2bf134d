"""A receipt proves that its transaction stands in the sealed books, to anyone who trusts a key, and nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ledger.errors import NotFound
from ledger.ids import new_id
from ledger.receipts import InvalidReceipt, Receipt, receipt, verify_receipt
from ledger.seals import SealingKey
from tests.integration.ledger_proof.conftest import Books


@pytest.fixture
def books(own_fund: Books) -> Books:
    return own_fund


def receipt_of(books: Books, transaction_id: Any) -> Receipt:
    with books.databases.auditor.begin() as tx:
        return receipt(tx, transaction_id)


def trusted(books: Books) -> dict[str, bytes]:
    return {books.key.key_id: books.key.public_key}


def test_a_receipt_is_pending_until_its_transaction_is_sealed(books: Books) -> None:
    (posted,) = books.post(books.contribution(0, 100))
    pending = receipt_of(books, posted)
    assert pending.to_json()["status"] == "pending"
    assert pending.to_json()["proof"] is None
    with pytest.raises(InvalidReceipt, match="not sealed yet"):
        verify_receipt(pending, trusted(books))
    books.seal()
    sealed = receipt_of(books, posted)
    assert sealed.to_json()["status"] == "sealed"
    verify_receipt(sealed, trusted(books))


def test_every_transaction_of_every_seal_has_a_receipt_that_survives_json(books: Books) -> None:
    posted = [
        one for size in (1, 4, 7) for one in books.post(*[books.contribution(0, 100) for _ in range(size)])
    ]
    posted.append(books.reverse(posted[3]))
    books.seal(limit=6)
    for transaction_id in posted:
        handed_out = json.dumps(receipt_of(books, transaction_id).to_json())
        read = Receipt.from_json(json.loads(handed_out))
        assert read == receipt_of(books, transaction_id)
        verify_receipt(read, trusted(books))


BENT: dict[str, tuple[list[Any], Any]] = {
    "reference": (["reference"], "other"),
    "kind": (["kind"], "other"),
    "day": (["effective_on"], "2026-03-03"),
    "time": (["recorded_at"], "2026-03-02T09:30:00.000001+00:00"),
    "reversal": (["reverses"], "01890a5d-ac96-774b-bcce-b302099a8057"),
    "details": (["details", "corridor"], "AE-PH"),
    "details with a float": (["details"], {"rate": 0.5}),
    "salt": (["salt"], "00" * 16),
    "short salt": (["salt"], "00"),
    "amount": (["postings", 0, "amount"], 51),
    "huge amount": (["postings", 0, "amount"], 2**70),
    "account": (["postings", 0, "credit"], "01890a5d-ac96-774b-bcce-b302099a8057"),
    "currency": (["postings", 1, "currency"], "PHP"),
    "long currency": (["postings", 1, "currency"], "RWANDA"),
    "postings": (["postings"], []),
    "place": (["proof", "xid"], 1),
    "era": (["proof", "era"], 70_000),
    "index": (["proof", "index"], 1),
    "index outside": (["proof", "index"], 99),
    "path": (["proof", "path", 0], "00" * 32),
    "short path": (["proof", "path"], []),
    "root": (["proof", "seal", "root"], "00" * 32),
    "head": (["proof", "seal", "head"], "00" * 32),
    "seal's number": (["proof", "seal", "number"], 2),
    "seal's count": (["proof", "seal", "transactions"], 2),
    "seal's totals": (["proof", "seal", "total_postings"], 9),
    "seal's range": (["proof", "seal", "to_xid"], 2**40),
    "seal's time": (["proof", "seal", "sealed_at"], "2026-03-02T09:31:00+00:00"),
    "seal's key": (["proof", "seal", "key_id"], "00"),
    "signature": (["proof", "seal", "signature"], "00" * 64),
    "amount as text": (["postings", 0, "amount"], "50"),
    "index as truth": (["proof", "index"], True),
    "no time zone": (["recorded_at"], "2026-03-02T09:30:00"),
    "number as text": (["proof", "seal", "number"], "1"),
    "postings as text": (["postings"], "none"),
    "proof as text": (["proof"], "yes"),
}


def test_a_receipt_bent_anywhere_proves_nothing(books: Books) -> None:
    posted = books.post(*[books.contribution(0, 100) for _ in range(5)])
    books.seal()
    honest = receipt_of(books, posted[2]).to_json()
    verify_receipt(Receipt.from_json(honest), trusted(books))
    for name, (path, value) in BENT.items():
        bent = json.loads(json.dumps(honest))
        spot = bent
        for step in path[:-1]:
            spot = spot[step]
        assert spot[path[-1]] != value, name
        spot[path[-1]] = value
        with pytest.raises(InvalidReceipt):
            verify_receipt(Receipt.from_json(bent), trusted(books))


def test_a_receipt_needs_a_key_that_its_reader_trusts(books: Books) -> None:
    (posted,) = books.post(books.contribution(0, 100))
    books.seal()
    honest = receipt_of(books, posted)
    stranger = SealingKey.generate()
    for keys in ({}, {stranger.key_id: stranger.public_key}, {books.key.key_id: stranger.public_key}):
        with pytest.raises(InvalidReceipt, match="no trusted key"):
            verify_receipt(honest, keys)


def test_a_receipt_signed_anew_by_a_stranger_is_refused(books: Books) -> None:
    (posted,) = books.post(books.contribution(0, 100))
    books.seal()
    honest = receipt_of(books, posted)
    assert honest.proof is not None
    stranger = SealingKey.generate()
    draft = replace(honest.proof.seal, key_id=stranger.key_id)
    forged = replace(draft, head=draft.computed_head(), signature=stranger.sign(draft.computed_head()))
    with pytest.raises(InvalidReceipt, match="no trusted key"):
        verify_receipt(replace(honest, proof=replace(honest.proof, seal=forged)), trusted(books))


def test_an_unknown_transaction_has_no_receipt(books: Books) -> None:
    with pytest.raises(NotFound):
        receipt_of(books, new_id())
